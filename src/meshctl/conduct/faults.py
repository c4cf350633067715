"""The faults of experiments: made, counted, ended.  I/O.

Enters: arguments that were checked, durations in seconds.  Leaves: what was made, with the id to end it by. Every fault
has a deadline of its own, so that one is over even when nobody is left to run the rollbacks.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from meshctl.client.author import author_of
from meshctl.conduct.change import REASON
from meshctl.spec.render import Value
from meshctl.spec.values import format_duration
from meshctl.wire.disturbances import DisturbanceKind, DisturbRequest
from meshctl.wire.faults import ClearRequest, InjectRequest

if TYPE_CHECKING:
    from meshctl.client.client import MeshClient

Arguments = Mapping[str, Any]
Doer = Callable[["MeshClient", Arguments], Awaitable[Value]]


async def inject_fault(client: MeshClient, arguments: Arguments) -> Value:
    """A fault on requests. What the experiment says is what is wanted, so nobody is asked whether it is."""
    request = InjectRequest(
        service=str(arguments["service"]),
        delay=_seconds(arguments, "delay"),
        jitter=_seconds(arguments, "jitter"),
        abort=int(arguments.get("abort", 0)),
        grpc_status=str(arguments.get("grpc_status", "")).upper(),
        rate=str(arguments.get("rate", "")),
        reset=bool(arguments.get("reset", False)),
        blackhole=bool(arguments.get("blackhole", False)),
        percent=float(arguments["percent"]),
        exclusive=bool(arguments.get("exclusive", False)),
        side=str(arguments["side"]),
        callers=[str(arguments["source"])] if "source" in arguments else [],
        version=str(arguments.get("version", "")),
        instance=str(arguments.get("instance", "")),
        path=str(arguments.get("path", "")),
        methods=[str(arguments["method"]).upper()] if "method" in arguments else [],
        headers=_read_header(str(arguments.get("header", ""))),
        health_checks=bool(arguments.get("health_checks", False)),
        duration=_seconds(arguments, "duration"),
        force=bool(arguments.get("force", False)),
        confirmed=True,
        author=author_of("experiment"),
        reason=REASON,
    )
    result = await client.faults.inject(request)
    return {
        "id": result.fault.id if result.fault is not None else "",
        "subject": result.subject,
        "summary": result.summary,
        "sidecars": result.acked,
        "expected": {calls.which: calls.fails for calls in result.forecast.calls},
    }


async def clear(client: MeshClient, arguments: Arguments) -> Value:
    """End one fault, or all; how many. None being on is no failure: a rollback wants there to be none."""
    on = [fault.id for fault in (await client.faults.list()).faults]
    wanted = [str(arguments["fault"])] if "fault" in arguments else []
    ids = [fault for fault in on if not wanted or fault in wanted]
    if ids:
        await client.faults.clear(ClearRequest(ids=ids, author=author_of("experiment")))
    return len(ids)


async def count_faults(client: MeshClient, _arguments: Arguments) -> Value:
    """How many are on."""
    return len((await client.faults.list()).faults)


def _make(kind: DisturbanceKind, target: str) -> Doer:
    """What makes one kind of disturbance; ``target`` is the argument that names what is disturbed."""

    async def disturb(client: MeshClient, arguments: Arguments) -> Value:
        request = DisturbRequest(
            kind=kind,
            target=str(arguments[target]),
            source=str(arguments.get("source", "")),
            one_way=bool(arguments.get("one_way", False)),
            percent=float(arguments.get("percent", 100.0)),
            delay_ms=float(arguments.get("delay", 0.0)) * 1000,
            jitter_ms=float(arguments.get("jitter", 0.0)) * 1000,
            duration=float(arguments.get("duration", 300.0)),
            force=bool(arguments.get("force", False)),
            author=author_of("experiment"),
            reason=REASON,
        )
        result = await client.disturbances.disturb(request)
        return {"id": result.id, "message": result.message, "instances": list[Value](result.instances)}

    return disturb


def _read_header(text: str) -> dict[str, str | None]:
    # As on the command line, or as HTTP writes one.
    name, *value = (part.strip() for part in re.split("[=:]", text, maxsplit=1))
    return {name: value[0] if value else None} if name else {}


def _seconds(arguments: Arguments, name: str) -> str:
    return format_duration(float(arguments[name])) if name in arguments else ""


FAULTS: Mapping[str, Doer] = {
    "inject fault": inject_fault,
    "inject kill": _make("kill", "target"),
    "inject exit": _make("exit", "target"),
    "inject pause": _make("pause", "target"),
    "inject cpu": _make("cpu", "target"),
    "inject partition": _make("partition", "service"),
    "inject latency": _make("latency", "service"),
    "inject cert-expired": _make("cert-expired", "service"),
    "inject clear": clear,
    "faults": count_faults,
}
"""Verbs by their words."""
