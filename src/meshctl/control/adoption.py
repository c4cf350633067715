"""What a new control plane makes of the processes and records that an earlier one left.  Pure, but for new Entries."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from meshctl.control.entries import Entry
from meshctl.lifecycle.model import Adopted, Event, InstanceSpec, InstanceState, StopRequested
from meshctl.lifecycle.specs import sidecar_name
from meshctl.plan.routes import GATEWAY
from meshctl.ports import InstanceRecord, ProcessHandle, ProcessSpec

_SIDECAR_PREFIX = sidecar_name("")


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One instance to hold, and what is to happen to it first."""

    entry: Entry
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Adoption:
    """``dead`` are remembered instances that do not run: what is left of them is to be swept before anything starts;
    ``forgotten`` are those of them that are not to run any more; ``learned`` is to be remembered, for it is told once.
    """

    entries: tuple[Found, ...]
    dead: tuple[str, ...]
    forgotten: tuple[str, ...]
    learned: tuple[InstanceRecord, ...]


def plan_adoption(
    specs: Mapping[str, InstanceSpec],
    *,
    alive: Mapping[str, ProcessHandle],
    records: Sequence[InstanceRecord],
    missed: Mapping[str, int | None],
    now: float,
) -> Adoption:
    """Match what is to run with what runs (``alive``) and what is remembered; ``now`` in seconds since the epoch.

    ``missed`` are the exit codes of what ended while there was no control plane. A job among them that ended with 0
    has completed: it must not run twice.

    When nothing runs at all the machine was restarted: then records count for nothing, and jobs run again.
    """
    learned = {
        record.id: replace(record, phase="completed", exit_code=0)
        for record in records
        if record.phase == "starting" and missed.get(record.id) == 0 and record.id in specs
        if specs[record.id].kind == "job"
    }
    known = {record.id: record for record in records} | learned
    entries = []
    for name, spec in specs.items():
        entry = Entry(spec=spec, wanted=spec)
        if name in alive:
            entries.append(_adopt(entry, alive[name], known.get(name), now))
        else:
            entry.state = _recall(known.get(name), spec, missed) if alive else InstanceState()
            entries.append(Found(entry=entry))
    for name in sorted(set(alive) - set(specs)):
        stray = _describe_stray(name)
        found = _adopt(Entry(spec=stray, wanted=stray, removed=True), alive[name], known.get(name), now)
        entries.append(Found(entry=found.entry, events=(*found.events, StopRequested(then="stop", immediate=True))))
    dead = tuple(sorted(set(known) - set(alive)))
    return Adoption(
        entries=tuple(entries),
        dead=dead,
        forgotten=tuple(name for name in dead if name not in specs),
        learned=tuple(learned.values()),
    )


def _adopt(entry: Entry, handle: ProcessHandle, record: InstanceRecord | None, now: float) -> Found:
    # Only what was ready stays so without a check; what was being stopped or started has to prove itself.
    ready = record is not None and record.phase == "ready"
    entry.envoy_check = True if ready else None
    adopted = Adopted(
        pid=handle.pid,
        started_at=handle.started_at,
        uptime=max(0.0, now - handle.started_at),
        restarts=record.restarts if record is not None else 0,
        exit_code=record.exit_code if record is not None else None,
        fingerprint=record.fingerprint if record is not None else "",
        ready=ready,
    )
    if record is not None and record.phase == "stopping":
        # It was told to stop and will: that must not pass for a failure of what is to run now.
        return Found(entry=entry, events=(adopted, StopRequested(then="restart", immediate=True)))
    return Found(entry=entry, events=(adopted,))


def _recall(record: InstanceRecord | None, spec: InstanceSpec, missed: Mapping[str, int | None]) -> InstanceState:
    if record is None:
        return InstanceState()
    if record.phase == "completed" and record.fingerprint == spec.fingerprint:
        return InstanceState(phase="completed", exit_code=0, restarts=record.restarts, fingerprint=record.fingerprint)
    died_unseen = record.phase in ("starting", "ready")
    code = missed.get(spec.id, record.exit_code) if died_unseen else record.exit_code
    return InstanceState(restarts=record.restarts + (1 if died_unseen else 0), exit_code=code)


def _describe_stray(name: str) -> InstanceSpec:
    """As much of a spec as it takes to stop a process that is not to run any more."""
    sidecar = name == GATEWAY or name.startswith(_SIDECAR_PREFIX)
    return InstanceSpec(
        id=name,
        service=name.removeprefix(_SIDECAR_PREFIX) if sidecar else "",
        version="",
        kind="sidecar" if sidecar else "service",
        process=ProcessSpec(name=name, argv=(), env={}, cwd="/", log_path=""),
        fingerprint="",
        host="",
        port=None,
    )
