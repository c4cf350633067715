"""How the state of circuit breakers lies in memory: one table for the Lua that writes it and the reader of it.  Pure.

A sidecar keeps the breakers of all its listeners in one file that it maps into memory (docs/adr/0009). The file is a
header and then slots of a fixed size, one for each target, found by the target's name and never given to another.
Everything but names and windows is a double, which both machines this runs on read and write in one piece. Times in
``opened_at`` and the like are those of CLOCK_MONOTONIC, that of a change is in seconds since the epoch.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

VERSION = 1
"""Part of the file's name, so that two layouts never meet in one file."""

HEADER_SIZE = 4096
SLOT_SIZE = 2048
SLOTS = 128
FILE_SIZE = HEADER_SIZE + SLOTS * SLOT_SIZE

NAME_SIZE = 64
MAX_PROBES = 16
"""Probes at a time at most, whatever ``success_threshold`` is."""

MAX_WINDOW = 4096
"""The most that ``minimum_requests`` may be: one bit for each request."""

RING = 16
"""How many of the last changes a slot remembers."""

STATES = ("closed", "open", "half_open")
FORCED = ("auto", "open", "closed")
REASONS = ("", "failures", "failure_rate", "timeout", "probe", "successes")
"""Why a breaker changed: its code is the place in this tuple."""

FIELDS = (
    "state",
    "forced",
    "epoch",
    "serial",
    "changes",
    "failures",
    "successes",
    "opened_at",
    "retry_at",
    "tag_until",
    "failed",
    "rejected",
    "window_size",
    "window_fill",
    "window_next",
    "window_failed",
)
"""The numbers of a slot, in order:

``epoch`` is the first ``serial`` of the present state: what a request brings that was let through before is not
counted. ``changes`` counts changes ever; ``failures`` in a row while closed, ``successes`` while half-open; an open one
lets probes through from ``retry_at`` on. Until ``tag_until`` requests carry the epoch that they were let through in
(0: they need not). ``failed`` and ``rejected`` count calls since the mesh was started.
"""

CDEF = f"""
typedef struct {{ long seconds, nanoseconds; }} mesh_time;
typedef struct {{ double version, changes; }} mesh_header;
typedef struct {{ double time, from_state, to_state, reason, value; }} mesh_change;
typedef struct {{
  char target[{NAME_SIZE}];
  double {", ".join(FIELDS)};
  double permits[{MAX_PROBES * 2}];
  mesh_change ring[{RING}];
  int32_t window[{MAX_WINDOW // 32}];
}} mesh_slot;
"""
"""The same for LuaJIT. A permit is two numbers: until when it holds (0: free), and the serial of its request."""

_HEADER = struct.Struct("=2d")
_NUMBERS = struct.Struct(f"={len(FIELDS)}d")
_CHANGE = struct.Struct("=5d")
_RING_AT = NAME_SIZE + _NUMBERS.size + MAX_PROBES * 2 * 8


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitChange:
    """One change: ``time`` in seconds since the epoch, ``value`` how many failures, percent or successes led to it."""

    number: int
    time: float
    before: str
    after: str
    reason: str
    value: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitSlot:
    """The breaker of one target as its caller's sidecar has it; ``retry_at`` is a time of CLOCK_MONOTONIC."""

    target: str
    state: str
    forced: str
    failures: int
    successes: int
    retry_at: float
    failed: int
    rejected: int
    window_fill: int
    window_failed: int
    changes: int
    recent: tuple[CircuitChange, ...]
    """The last changes, oldest first."""


def read_change_count(data: bytes) -> int:
    """How many changes there were in all slots, from the head of a file."""
    return int(_HEADER.unpack_from(data)[1])


def read_slots(data: bytes) -> tuple[CircuitSlot, ...]:
    """The slots in use, by target. What is being written at the moment may be a change old, never half a number."""
    slots = []
    for at in range(HEADER_SIZE, min(len(data), FILE_SIZE), SLOT_SIZE):
        name = data[at : at + NAME_SIZE].split(b"\0", 1)[0].decode("ascii", "replace")
        if not name:
            break
        slots.append(_read_slot(name, data, at))
    return tuple(sorted(slots, key=lambda slot: slot.target))


def _read_slot(name: str, data: bytes, at: int) -> CircuitSlot:
    numbers = dict(zip(FIELDS, _NUMBERS.unpack_from(data, at + NAME_SIZE), strict=True))
    changes = int(numbers["changes"])
    recent = []
    for number in range(max(0, changes - RING), changes):
        time, before, after, reason, value = _CHANGE.unpack_from(data, at + _RING_AT + number % RING * _CHANGE.size)
        recent.append(
            CircuitChange(
                number=number,
                time=time,
                before=STATES[int(before)],
                after=STATES[int(after)],
                reason=REASONS[int(reason)],
                value=value,
            )
        )
    return CircuitSlot(
        target=name,
        state=STATES[int(numbers["state"])],
        forced=FORCED[int(numbers["forced"])],
        failures=int(numbers["failures"]),
        successes=int(numbers["successes"]),
        retry_at=numbers["retry_at"],
        failed=int(numbers["failed"]),
        rejected=int(numbers["rejected"]),
        window_fill=int(numbers["window_fill"]),
        window_failed=int(numbers["window_failed"]),
        changes=changes,
        recent=tuple(recent),
    )
