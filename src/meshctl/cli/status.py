"""``meshctl status``: the mesh, its services and instances in one table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
import typer
from rich.text import Text

from meshctl.cli.fault_banner import draw_banner, fault_cell
from meshctl.cli.options import PANEL_SEE, FileOption, Output, OutputOption, ServicesArgument, example
from meshctl.cli.project import ask, find_project, make_screen
from meshctl.cli.render import (
    Column,
    format_age,
    print_json,
    print_line,
    print_table,
    read_clock,
    style_state,
)
from meshctl.errors import NotFoundError
from meshctl.wire.models import InstanceStatus, MeshStatus, ServiceStatus, encode

COLUMNS = (
    Column(title="SERVICE"),
    Column(title="VERSION", drop=5),
    Column(title="INSTANCE"),
    Column(title="STATE"),
    Column(title="HEALTH", drop=3),
    Column(title="PID", drop=8, justify="right"),
    Column(title="PORT", drop=7, justify="right"),
    Column(title="RESTARTS", drop=6, justify="right"),
    Column(title="CONFIG", drop=4),
    Column(title="AGE", drop=9, justify="right"),
)

WIDE_COLUMNS = (
    *COLUMNS,
    Column(title="ADDRESS", drop=10),
    Column(title="INBOUND", drop=11, justify="right"),
    Column(title="SIDECAR", drop=12, justify="right"),
    Column(title="UPSTREAMS", drop=13),
    Column(title="IDENTITY", drop=14),
)

FAULT_COLUMN = Column(title="FAULT")
"""The last column while any fault is on."""

_NONE = "-"


def register(app: typer.Typer) -> None:
    """Add the verb and its alias."""
    app.command(
        "status",
        rich_help_panel=PANEL_SEE,
        epilog=example("meshctl status", "meshctl status checkout -o wide", "meshctl status -o json"),
    )(status)
    app.command("ps", hidden=True, epilog=example("meshctl ps"))(status)


def status(
    ctx: typer.Context,
    services: ServicesArgument = None,
    *,
    file: FileOption = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show the mesh: every instance with its state and health, and whether its sidecar's configuration is in sync."""
    mesh = _pick(ask(find_project(ctx, files=file), lambda client: client.status()), services or ())
    if output is Output.JSON:
        print_json(encode(mesh))
        return
    screen = make_screen(ctx)
    if not screen.quiet:
        print_line(screen.out, _header(mesh))
        for line in draw_banner(mesh.faults, read_clock()):
            print_line(screen.out, line)
    if mesh.services:
        wide = output is Output.WIDE
        rows = list(_rows(mesh, now=read_clock(), wide=wide))
        columns = WIDE_COLUMNS if wide else COLUMNS
        print_table(screen.out, (*columns, FAULT_COLUMN) if mesh.faults else columns, rows)
    if not screen.quiet:
        for note in _notes(mesh):
            print_line(screen.out, note)


def _pick(mesh: MeshStatus, names: Sequence[str]) -> MeshStatus:
    """The status with the named services only; all when none is named."""
    if not names:
        return mesh
    known = {service.name for service in mesh.services}
    missing = [name for name in names if name not in known]
    if missing:
        raise NotFoundError(f"no service {', '.join(missing)}", hint=f"services: {', '.join(sorted(known))}")
    return msgspec.structs.replace(mesh, services=[s for s in mesh.services if s.name in names])


def _header(mesh: MeshStatus) -> Text:
    line = Text(f"{mesh.mesh or mesh.directory}: ", style="bold")
    line.append_text(style_state(mesh.state))
    gateway = mesh.gateway
    if gateway is not None:
        line.append(f"  gateway {gateway.url}")
        if gateway.sidecar is not None and (gateway.sidecar.state, gateway.sidecar.config) != ("ready", "synced"):
            line.append(f" ({gateway.sidecar.state}, configuration {gateway.sidecar.config})")
    return line


def _rows(mesh: MeshStatus, *, now: float, wide: bool) -> Iterator[list[str | Text]]:
    for service in mesh.services:
        for instance in service.instances:
            yield [
                *_instance_cells(service, instance, now=now),
                *(_wide_cells(service, instance) if wide else ()),
                *([fault_cell(mesh.faults, service.name)] if mesh.faults else ()),
            ]
        if not service.instances:
            kind = Text("external") if service.kind == "external" else style_state(service.state)
            row: list[str | Text] = [service.name, _NONE, _NONE, kind, style_state(service.health)]
            row += [_NONE, _NONE, _NONE, _config(service), _NONE]
            row += [_NONE, _NONE, _sidecar_pid(service), _upstreams(service), service.identity] if wide else []
            yield [*row, *([fault_cell(mesh.faults, service.name)] if mesh.faults else ())]


def _instance_cells(service: ServiceStatus, instance: InstanceStatus, *, now: float) -> list[str | Text]:
    return [
        service.name,
        _version(service, instance.version),
        instance.id,
        style_state(instance.state),
        style_state(instance.health),
        _number(instance.pid),
        _number(instance.port),
        str(instance.restarts),
        _config(service),
        _NONE if instance.started_at is None else format_age(now - instance.started_at),
    ]


def _wide_cells(service: ServiceStatus, instance: InstanceStatus) -> list[str | Text]:
    return [
        instance.address or _NONE,
        _number(instance.inbound_port),
        _sidecar_pid(service),
        _upstreams(service),
        service.identity or _NONE,
    ]


def _version(service: ServiceStatus, version: str) -> str:
    """The version, with its part of the traffic when there are several to share it."""
    if len(service.weights) < 2 and service.weights.get(version, 100) == 100:
        return version
    return f"{version} {service.weights.get(version, 0)}%"


def _config(service: ServiceStatus) -> Text:
    return Text(_NONE) if service.sidecar is None else style_state(service.sidecar.config)


def _sidecar_pid(service: ServiceStatus) -> str:
    return _NONE if service.sidecar is None else _number(service.sidecar.pid)


def _upstreams(service: ServiceStatus) -> str:
    return ",".join(f"{name}:{port}" for name, port in sorted(service.upstreams.items())) or _NONE


def _number(value: int | None) -> str:
    return _NONE if value is None else str(value)


def _notes(mesh: MeshStatus) -> Iterator[Text]:
    """Why things are not as they should be, one line each."""
    reasons = [
        (instance.id, instance.reason)
        for service in mesh.services
        for instance in service.instances
        if instance.reason and instance.state not in ("ready", "completed")
    ]
    sidecars = [(f"sidecar of {service.name}", service.sidecar) for service in mesh.services]
    if mesh.gateway is not None:
        sidecars.append(("gateway", mesh.gateway.sidecar))
    reasons += [
        (name, f"configuration {sidecar.config}: {sidecar.config_error}")
        for name, sidecar in sidecars
        if sidecar is not None and sidecar.config_error
    ]
    rollouts = [(service.name, service.rollout) for service in mesh.services if service.rollout is not None]
    if reasons or rollouts:
        yield Text("")
    for name, reason in reasons:
        yield Text.assemble((name, "bold"), f": {reason}")
    for name, note in rollouts:
        phase = note.phase.replace("_", " ")
        where = f": rollout to {note.version} is {phase} at {note.weight}%; `meshctl canary watch {name}` shows it"
        yield Text.assemble((name, "bold"), where)
