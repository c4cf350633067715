"""Shell completion of names: asked of the running mesh, else read from the topology.  Never fails, never prints."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer

from meshctl.cli.project import files_of, find_project, load_mesh, read_source

_TIMEOUT = 0.3
"""Seconds that a press of the tab key may wait for the mesh."""


def complete_services(ctx: typer.Context, incomplete: str) -> list[str]:
    """Service names that start with what was typed."""
    return _matching((name for name, _ in _list_names(ctx)), incomplete)


def complete_called(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of whatever can be called: services, and the gateway."""
    return _matching([*(name for name, _ in _list_names(ctx)), "gateway"], incomplete)


def complete_owners(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of whatever can have policies: services, and ``defaults``."""
    return _matching(["defaults", *(name for name, _ in _list_names(ctx))], incomplete)


def complete_kinds(incomplete: str) -> list[str]:
    """Kinds of policies."""
    from meshctl.spec.policies import KINDS  # noqa: PLC0415 - loads the tables of all keys

    return _matching(KINDS, incomplete)


def complete_targets(ctx: typer.Context, incomplete: str) -> list[str]:
    """Service names and instance ids that start with what was typed."""
    return _matching((name for service, ids in _list_names(ctx) for name in (service, *ids)), incomplete)


def complete_instances(ctx: typer.Context, incomplete: str) -> list[str]:
    """Instance ids that start with what was typed."""
    return _matching((name for _, ids in _list_names(ctx) for name in ids), incomplete)


def complete_faults(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of the faults that are on and were not named yet."""
    named = set(ctx.params.get("ids") or ())
    try:
        status: dict[str, Any] = json.loads(_get_status(find_project(ctx).paths.api_socket))
    except Exception:  # noqa: BLE001 - whatever is wrong, a press of the tab key is no place to tell
        return []
    return _matching((fault["id"] for fault in status["faults"] if fault["id"] not in named), incomplete)


def complete_versions(ctx: typer.Context, incomplete: str) -> list[str]:
    """The versions of the service that is named already, but for its stable one."""
    return _matching(_list_versions(ctx), incomplete)


def complete_weights(ctx: typer.Context, incomplete: str) -> list[str]:
    """``v2=`` for each version of the service that is named already, but for its stable one and those given."""
    given = {word.partition("=")[0] for word in ctx.params.get("weights") or ()}
    return _matching((f"{name}=" for name in _list_versions(ctx) if name not in given), incomplete)


def complete_runs(ctx: typer.Context, incomplete: str) -> list[str]:
    """Runs of experiments that are kept, the newest first."""
    folder = Path(find_project(ctx, files=files_of(ctx)).paths.state) / "experiments"
    return sorted((path.stem for path in folder.glob(f"{incomplete}*.json")), reverse=True)


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
    try:
        answer = _get_status(path)
    except OSError:
        return []
    status: dict[str, Any] = json.loads(answer)
    return [(s["name"], tuple(i["id"] for i in s["instances"])) for s in status["services"]]


def _get_status(path: str) -> bytes:
    """``GET /v1/status`` by hand in HTTP/1.0: the answer ends with the connection, and no HTTP library is loaded."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(_TIMEOUT)
        connection.connect(path)
        connection.sendall(b"GET /v1/status HTTP/1.0\r\nHost: localhost\r\n\r\n")
        answer = b"".join(iter(lambda: connection.recv(65536), b""))
    return answer.partition(b"\r\n\r\n")[2]


def _read_topology(ctx: typer.Context) -> list[tuple[str, tuple[str, ...]]]:
    from meshctl.plan.addresses import instance_ids  # noqa: PLC0415 - loads the topology's modules

    mesh = load_mesh(read_source(find_project(ctx, files=files_of(ctx))))
    return [(service.name, tuple(instance_ids(service, {}))) for service in mesh.services.values()]


def _list_versions(ctx: typer.Context) -> list[str]:
    """The versions of the service that was named, as the topology has them: the mesh tells of those that run only."""
    try:
        mesh = load_mesh(read_source(find_project(ctx, files=files_of(ctx))))
    except Exception:  # noqa: BLE001 - whatever is wrong, a press of the tab key is no place to tell
        return []
    service = mesh.services.get(str(ctx.params.get("service", "")))
    return [] if service is None else [name for name in service.versions if name != service.stable]
