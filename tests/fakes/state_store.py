"""A store in memory. Passes the same contract as the real one (tests/contracts/test_state_store.py)."""

from __future__ import annotations

from collections.abc import Mapping

from meshctl.ports import (
    KEPT_ENTRIES,
    KEPT_REVISIONS,
    KEPT_ROLLOUTS,
    FaultRecord,
    InstanceRecord,
    Registration,
    Revision,
    RolloutStore,
    StateStore,
    TopologySource,
)


class FakeStateStore(StateStore, RolloutStore):
    """Implements ports.StateStore. ``writes`` counts transactions, so that tests see what is committed when."""

    def __init__(self) -> None:
        self.writes = 0
        self._topology: TopologySource | None = None
        self._ports: dict[str, int] = {}
        self._scales: dict[str, int] = {}
        self._registrations: tuple[Registration, ...] = ()
        self._selection: tuple[str, ...] = ()
        self._instances: dict[str, InstanceRecord] = {}
        self._revisions: dict[int, tuple[Revision, str]] = {}
        self._rollouts: dict[int, tuple[str, dict[int, str]]] = {}
        self._fault_number = 0
        self._faults: dict[str, FaultRecord] = {}

    def commit(
        self,
        *,
        topology: TopologySource | None = None,
        ports: Mapping[str, int] | None = None,
        scales: Mapping[str, int] | None = None,
        registrations: tuple[Registration, ...] | None = None,
        selection: tuple[str, ...] | None = None,
        revision: Revision | None = None,
        content: str = "",
        settled: tuple[Revision, ...] = (),
    ) -> None:
        self.writes += 1
        self._topology = self._topology if topology is None else topology
        self._ports = self._ports if ports is None else dict(ports)
        self._scales = self._scales if scales is None else dict(scales)
        if registrations is not None:
            self._registrations = tuple(sorted(registrations, key=lambda item: item.id))
        self._selection = self._selection if selection is None else tuple(selection)
        for item in settled:
            if item.number in self._revisions:
                self._revisions[item.number] = (item, self._revisions[item.number][1])
        if revision is not None:
            self._revisions[revision.number] = (revision, content)
            newest = max(self._revisions)
            self._revisions = {n: kept for n, kept in self._revisions.items() if n > newest - KEPT_REVISIONS}

    def revisions(self) -> tuple[Revision, ...]:
        return tuple(head for _, (head, _) in sorted(self._revisions.items()))

    def revision_content(self, number: int) -> str | None:
        return self._revisions[number][1] if number in self._revisions else None

    def topology(self) -> TopologySource | None:
        return self._topology

    def ports(self) -> Mapping[str, int]:
        return dict(self._ports)

    def scales(self) -> Mapping[str, int]:
        return dict(self._scales)

    def registrations(self) -> tuple[Registration, ...]:
        return self._registrations

    def selection(self) -> tuple[str, ...]:
        return self._selection

    def instances(self) -> tuple[InstanceRecord, ...]:
        return tuple(record for _, record in sorted(self._instances.items()))

    def put_instance(self, record: InstanceRecord) -> None:
        self.writes += 1
        self._instances[record.id] = record

    def drop_instance(self, instance_id: str) -> None:
        self.writes += 1
        self._instances.pop(instance_id, None)

    def put_rollout(self, number: int, body: str, entries: Mapping[int, str]) -> None:
        self.writes += 1
        before = self._rollouts[number][1] if number in self._rollouts else {}
        oldest = max(entries, default=0) - KEPT_ENTRIES
        kept = {entry: text for entry, text in {**before, **entries}.items() if entry > oldest}
        self._rollouts[number] = (body, kept)
        self._rollouts = {n: kept for n, kept in self._rollouts.items() if n > number - KEPT_ROLLOUTS}

    def rollouts(self) -> Mapping[int, str]:
        return {number: body for number, (body, _) in sorted(self._rollouts.items())}

    def rollout_entries(self, number: int) -> Mapping[int, str]:
        return dict(sorted(self._rollouts[number][1].items())) if number in self._rollouts else {}

    def number_fault(self) -> int:
        self.writes += 1
        self._fault_number += 1
        return self._fault_number

    def faults(self) -> tuple[FaultRecord, ...]:
        return tuple(record for _, record in sorted(self._faults.items()))

    def put_fault(self, record: FaultRecord) -> None:
        self.writes += 1
        self._faults[record.id] = record

    def drop_fault(self, fault_id: str) -> None:
        self.writes += 1
        self._faults.pop(fault_id, None)
