"""Shell completion of names: asked of the running mesh, else read from the topology.  Never fails, never prints."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterable
from typing import Any

import typer

from meshctl.cli.project import files_of, find_project, load_mesh, read_source

_TIMEOUT = 0.3
"""Seconds that a press of the tab key may wait for the mesh."""


class _UnixConnection(http.client.HTTPConnection):
    """HTTP to a unix socket with the standard library: loading aiohttp would cost more than the answer."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_TIMEOUT)
        self.sock.connect(self._path)


def complete_services(ctx: typer.Context, incomplete: str) -> list[str]:
    """Service names that start with what was typed."""
    return _matching((name for name, _ in _list_names(ctx)), incomplete)


def complete_targets(ctx: typer.Context, incomplete: str) -> list[str]:
    """Service names and instance ids that start with what was typed."""
    return _matching((name for service, ids in _list_names(ctx) for name in (service, *ids)), incomplete)


def complete_instances(ctx: typer.Context, incomplete: str) -> list[str]:
    """Instance ids that start with what was typed."""
    return _matching((name for _, ids in _list_names(ctx) for name in ids), incomplete)


def _matching(names: Iterable[str], incomplete: str) -> list[str]:
    return sorted({name for name in names if name.startswith(incomplete)})


def _list_names(ctx: typer.Context) -> list[tuple[str, tuple[str, ...]]]:
    """Services with their instance ids."""
    try:
        return _ask_mesh(ctx) or _read_topology(ctx)
    except Exception:  # noqa: BLE001 - whatever is wrong, a press of the tab key is no place to tell
        return []


def _ask_mesh(ctx: typer.Context) -> list[tuple[str, tuple[str, ...]]]:
    path = find_project(ctx, files=files_of(ctx)).paths.api_socket
    if not os.path.exists(path):  # noqa: PTH110 - pathlib adds nothing here
        return []
    connection = _UnixConnection(path)
    try:
        connection.request("GET", "/v1/status")
        status: dict[str, Any] = json.loads(connection.getresponse().read())
    except OSError:
        return []
    finally:
        connection.close()
    return [(s["name"], tuple(i["id"] for i in s["instances"])) for s in status["services"]]


def _read_topology(ctx: typer.Context) -> list[tuple[str, tuple[str, ...]]]:
    from meshctl.plan.addresses import instance_ids  # noqa: PLC0415 - loads the topology's modules

    mesh = load_mesh(read_source(find_project(ctx, files=files_of(ctx))))
    return [(service.name, tuple(instance_ids(service, {}))) for service in mesh.services.values()]
