"""Registered instances: named, renewed, expired."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from meshctl.errors import NotFoundError, UsageError
from meshctl.lifecycle.registrations import deregister, expire, heartbeat, next_expiry, register
from meshctl.ports import Registration

NOW = 1_800_000_000.0

Registrations = tuple[Registration, ...]


def add(
    registrations: Registrations = (),
    service: str = "orders",
    *,
    port: int = 9000,
    version: str = "v1",
    ttl: float | None = 30.0,
    now: float = NOW,
) -> tuple[Registrations, Registration]:
    return register(registrations, service, host="127.0.0.1", port=port, version=version, ttl=ttl, now=now)


def test_an_instance_is_named_for_its_service_and_counted() -> None:
    left, first = add()
    left, second = add(left, port=9001)
    left, other = add(left, "stock", port=9000)
    assert [item.id for item in (first, second, other)] == ["orders-ext-1", "orders-ext-2", "stock-ext-1"]
    assert left == (first, second, other)
    assert first.expires_at == NOW + 30


def test_registering_the_same_address_and_version_again_refreshes_it_under_its_id() -> None:
    left, _ = add()
    left, first = add(left, port=9001)
    left, again = add(left, port=9001, ttl=60.0, now=NOW + 10)
    assert again.id == first.id
    assert again.expires_at == NOW + 70
    assert len(left) == 2


def test_registering_an_address_with_another_version_replaces_the_instance_there() -> None:
    left, old = add()
    left, new = add(left, version="v2")
    assert left == (new,)
    assert new.id != old.id


def test_without_a_ttl_nothing_expires() -> None:
    left, made = add(ttl=None)
    assert made.expires_at is None
    assert next_expiry(left) is None
    assert expire(left, math.inf) == (left, ())
    assert heartbeat(left, made.id, NOW + 5) == (left, made)


def test_a_heartbeat_counts_the_ttl_from_now() -> None:
    left, first = add()
    left, second = add(left, port=9001)
    left, renewed = heartbeat(left, first.id, NOW + 20)
    assert renewed.expires_at == NOW + 50
    assert left == (renewed, second)


def test_what_is_due_expires_at_its_very_moment() -> None:
    left, first = add()
    left, second = add(left, port=9001, now=NOW + 5)
    assert next_expiry(left) == NOW + 30
    assert expire(left, NOW + 29.999) == (left, ())
    assert expire(left, NOW + 30) == ((second,), (first,))


def test_the_number_of_an_instance_that_is_gone_is_given_again() -> None:
    left, first = add()
    left, _ = add(left, port=9001)
    left, third = add(deregister(left, first.id), port=9002)
    assert third.id == first.id


@pytest.mark.parametrize("act", [lambda left: heartbeat(left, "nobody", NOW), lambda left: deregister(left, "nobody")])
def test_an_unknown_id_is_refused_and_those_that_exist_are_named(act: object) -> None:
    assert callable(act)
    left, _ = add()
    with pytest.raises(NotFoundError, match="no instance is registered as nobody") as caught:
        act(left)
    assert caught.value.hint == "registered: orders-ext-1"
    with pytest.raises(NotFoundError) as caught:
        act(())
    assert "register it again" in caught.value.hint


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_a_number_that_is_no_port_is_refused(port: int) -> None:
    with pytest.raises(UsageError, match=f"{port} is no port"):
        add(port=port)


@pytest.mark.parametrize("ttl", [0.0, -1.0, math.inf, math.nan])
def test_a_ttl_that_is_no_time_to_live_is_refused(ttl: float) -> None:
    with pytest.raises(UsageError, match="a TTL of"):
        add(ttl=ttl)


class RegistryModel(RuleBasedStateMachine):
    """Whatever happens in whatever order, against a model of one dictionary by address."""

    def __init__(self) -> None:
        super().__init__()
        self.now = NOW
        self.held: Registrations = ()
        self.model: dict[tuple[str, int], tuple[str, float | None, float | None]] = {}

    @rule(
        service=st.sampled_from(["orders", "stock"]),
        port=st.integers(9000, 9003),
        version=st.sampled_from(["v1", "v2"]),
        ttl=st.none() | st.floats(0.5, 50),
    )
    def registers(self, service: str, port: int, version: str, ttl: float | None) -> None:
        before = {(item.service, item.port, item.version): item.id for item in self.held}
        self.held, made = add(self.held, service, port=port, version=version, ttl=ttl, now=self.now)
        self.model[service, port] = (version, ttl, None if ttl is None else self.now + ttl)
        assert made.id == before.get((service, port, version), made.id)
        assert made.id.startswith(f"{service}-ext-")

    @rule(seconds=st.floats(0, 30))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(index=st.integers(0, 8))
    def beats(self, index: int) -> None:
        if self.held:
            item = self.held[index % len(self.held)]
            self.held, renewed = heartbeat(self.held, item.id, self.now)
            version, ttl, _ = self.model[item.service, item.port]
            self.model[item.service, item.port] = (version, ttl, None if ttl is None else self.now + ttl)
            assert renewed.id == item.id

    @rule(index=st.integers(0, 8))
    def leaves(self, index: int) -> None:
        if self.held:
            item = self.held[index % len(self.held)]
            self.held = deregister(self.held, item.id)
            del self.model[item.service, item.port]

    @rule()
    def expires(self) -> None:
        due = next_expiry(self.held)
        self.held, expired = expire(self.held, self.now)
        assert bool(expired) == (due is not None and due <= self.now)
        for item in expired:
            _, _, at = self.model.pop((item.service, item.port))
            assert at is not None
            assert at <= self.now

    @invariant()
    def holds_what_the_model_holds(self) -> None:
        found = {(item.service, item.port): (item.version, item.ttl, item.expires_at) for item in self.held}
        assert found == self.model

    @invariant()
    def ids_are_unique_and_sorted(self) -> None:
        ids = [item.id for item in self.held]
        assert ids == sorted(set(ids))


TestRegistry = RegistryModel.TestCase
TestRegistry.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


@settings(deadline=None)
@given(ttl=st.floats(0.1, 1e6), late=st.floats(0, 1e6))
def test_a_registration_holds_exactly_until_its_ttl_has_passed(ttl: float, late: float) -> None:
    left, made = add(ttl=ttl)
    assert made.expires_at is not None
    kept, expired = expire(left, NOW + late)
    assert (kept == ()) == (NOW + late >= made.expires_at) == (expired == (made,))
