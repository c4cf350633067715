"""Rollouts and what came to them, as the store keeps them: JSON.  Pure.

An entry holds an event, when it came, and the decision that followed; ``machine.replay`` makes the same decisions of
the same events again.  The first entry of a rollout has no event: it is the rollout as it began.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from meshctl.canary.machine import NAMES, kind_of
from meshctl.canary.model import Decision, Event, Rollout

_KINDS = {name: kind for kind, name in NAMES.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One thing that came to a rollout, and what the rollout did about it; ``first`` is there for the beginning."""

    decision: Decision
    event: Event | None = None
    first: Rollout | None = None


_NONE = msgspec.Raw(b"null")


class _Stored(msgspec.Struct):
    decision: Decision
    event: msgspec.Raw = _NONE
    first: Rollout | None = None


def encode_rollout(rollout: Rollout) -> str:
    """A rollout as JSON."""
    return msgspec.json.encode(rollout).decode()


def decode_rollout(text: str) -> Rollout:
    """The rollout that JSON says; raises ValueError for what is none, or none of this version."""
    return msgspec.json.decode(text, type=Rollout)


def encode_entry(entry: Entry) -> str:
    """An entry as JSON; the event's kind is that of its decision."""
    event = _NONE
    if entry.event is not None:
        assert kind_of(entry.event) == entry.decision.event
        event = msgspec.Raw(msgspec.json.encode(entry.event))
    return msgspec.json.encode(_Stored(decision=entry.decision, event=event, first=entry.first)).decode()


def decode_entry(text: str) -> Entry:
    """The entry that JSON says; raises ValueError for what is none."""
    stored = msgspec.json.decode(text, type=_Stored)
    event: Any = None
    if stored.event != _NONE:
        kind = _KINDS.get(stored.decision.event)
        if kind is None:
            raise ValueError(f"nothing of the kind {stored.decision.event!r} comes to a rollout")
        event = msgspec.json.decode(stored.event, type=kind)
    return Entry(decision=stored.decision, event=event, first=stored.first)
