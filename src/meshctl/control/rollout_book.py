"""The rollouts of a mesh as the store has them: the newest of each service, and all that came to each.  I/O (store).

Invariant: memory never says what the store does not; what cannot be written down has not happened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from meshctl.canary.codec import Entry, decode_entry, decode_rollout, encode_entry, encode_rollout
from meshctl.canary.model import Event, Rollout
from meshctl.ports import RolloutStore


class RolloutBook:
    """Reads and writes rollouts."""

    def __init__(self, store: RolloutStore) -> None:
        self._store = store
        self._rollouts: dict[int, Rollout] = {}
        self._last = 0
        self.unreadable: list[int] = []
        # Written by another version of meshctl; their numbers are not given again.
        for number, text in store.rollouts().items():
            self._last = number
            try:
                self._rollouts[number] = decode_rollout(text)
            except ValueError:
                self.unreadable.append(number)

    @property
    def next_number(self) -> int:
        """The number of the next rollout."""
        return self._last + 1

    @property
    def all(self) -> Mapping[int, Rollout]:
        """Every rollout that is kept, by number, oldest first."""
        return self._rollouts

    def newest(self, service: str) -> Rollout | None:
        """The newest rollout of a service; None when there was none."""
        found = [number for number, rollout in self._rollouts.items() if rollout.service == service]
        return self._rollouts[max(found)] if found else None

    def under_way(self) -> tuple[Rollout, ...]:
        """The rollouts that have not ended."""
        return tuple(rollout for rollout in self._rollouts.values() if not rollout.ended)

    def write(self, rollout: Rollout, event: Event | None) -> None:
        """Write a rollout down with what came to it (None: its beginning). Raises MeshctlError; nothing is changed."""
        assert rollout.decision is not None
        first = rollout if event is None else None
        entry = Entry(decision=rollout.decision, event=event, first=first)
        entries = {rollout.decision.number: encode_entry(entry)}
        # What would be told twice is told once: the decision is in the entry.
        self._store.put_rollout(rollout.number, encode_rollout(rollout), entries)
        self._rollouts[rollout.number] = rollout
        self._last = max(self._last, rollout.number)
        kept = self._store.rollouts().keys() if event is None else None
        if kept is not None:
            self._rollouts = {number: each for number, each in self._rollouts.items() if number in kept}

    def read(self, number: int) -> list[Entry]:
        """Everything that came to a rollout, oldest first. Raises ValueError for what another version wrote."""
        return [decode_entry(text) for text in self._store.rollout_entries(number).values()]


def first_of(entries: list[Entry]) -> Rollout | None:
    """The rollout as it began, with its first decision; None when it is not kept."""
    if not entries or entries[0].first is None:
        return None
    return replace(entries[0].first, decision=entries[0].decision)
