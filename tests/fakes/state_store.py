"""A store in memory. Passes the same contract as the real one (tests/contracts/test_state_store.py)."""

from __future__ import annotations

from collections.abc import Mapping

from meshctl.ports import InstanceRecord, Registration, StateStore, TopologySource


class FakeStateStore(StateStore):
    """Implements ports.StateStore. ``writes`` counts transactions, so that tests see what is committed when."""

    def __init__(self) -> None:
        self.writes = 0
        self._topology: TopologySource | None = None
        self._ports: dict[str, int] = {}
        self._scales: dict[str, int] = {}
        self._registrations: tuple[Registration, ...] = ()
        self._selection: tuple[str, ...] = ()
        self._instances: dict[str, InstanceRecord] = {}

    def topology(self) -> TopologySource | None:
        return self._topology

    def set_topology(self, source: TopologySource) -> None:
        self.writes += 1
        self._topology = source

    def ports(self) -> Mapping[str, int]:
        return dict(self._ports)

    def set_ports(self, ports: Mapping[str, int]) -> None:
        self.writes += 1
        self._ports = dict(ports)

    def scales(self) -> Mapping[str, int]:
        return dict(self._scales)

    def set_scales(self, scales: Mapping[str, int]) -> None:
        self.writes += 1
        self._scales = dict(scales)

    def registrations(self) -> tuple[Registration, ...]:
        return self._registrations

    def set_registrations(self, registrations: tuple[Registration, ...]) -> None:
        self.writes += 1
        self._registrations = tuple(sorted(registrations, key=lambda item: item.id))

    def selection(self) -> tuple[str, ...]:
        return self._selection

    def set_selection(self, services: tuple[str, ...]) -> None:
        self.writes += 1
        self._selection = tuple(services)

    def instances(self) -> tuple[InstanceRecord, ...]:
        return tuple(record for _, record in sorted(self._instances.items()))

    def put_instance(self, record: InstanceRecord) -> None:
        self.writes += 1
        self._instances[record.id] = record

    def drop_instance(self, instance_id: str) -> None:
        self.writes += 1
        self._instances.pop(instance_id, None)
