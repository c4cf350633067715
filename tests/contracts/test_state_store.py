"""What every StateStore does: the real one and the fake."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.fakes.state_store import FakeStateStore

from meshctl.adapters.sqlite_store import SqliteStore
from meshctl.ports import (
    KEPT_REVISIONS,
    FaultRecord,
    InstanceRecord,
    Registration,
    Revision,
    SourceFile,
    StateStore,
    TopologySource,
)

SOURCE = TopologySource(
    files=(
        SourceFile(path="mesh.yaml", directory="/work/shop", text="name: shop\n# ä\n"),
        SourceFile(path="-", directory="/work/shop", text=""),
    ),
    variables={"HOME": "/home/ann", "EMPTY": ""},
)


@pytest.fixture(params=["sqlite", "fake"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[StateStore]:
    if request.param == "fake":
        yield FakeStateStore()
        return
    real = SqliteStore(str(tmp_path / "state.db"))
    yield real
    real.close()


def make_registration(number: int, *, ttl: float | None = 30.0) -> Registration:
    return Registration(
        id=f"orders-ext-{number}",
        service="orders",
        version="v1",
        host="127.0.0.1",
        port=9000 + number,
        ttl=ttl,
        expires_at=None if ttl is None else 1000.5 + ttl,
    )


def make_record(instance: str, *, exit_code: int | None = None) -> InstanceRecord:
    return InstanceRecord(id=instance, restarts=2, phase="ready", fingerprint="a1", exit_code=exit_code)


def test_a_new_store_is_empty(store: StateStore) -> None:
    assert store.topology() is None
    assert dict(store.ports()) == {}
    assert dict(store.scales()) == {}
    assert store.registrations() == ()
    assert store.selection() == ()
    assert store.instances() == ()
    assert store.revisions() == ()
    assert store.revision_content(1) is None


def test_what_was_set_is_read_back_equal(store: StateStore) -> None:
    store.commit(topology=SOURCE)
    store.commit(ports={"app/web-v1-1": 4001, "outbound/web": 4002})
    store.commit(scales={"web/v1": 3})
    store.commit(registrations=(make_registration(1), make_registration(2, ttl=None)))
    store.commit(selection=("web", "orders"))
    assert store.topology() == SOURCE
    assert dict(store.ports()) == {"app/web-v1-1": 4001, "outbound/web": 4002}
    assert dict(store.scales()) == {"web/v1": 3}
    assert store.registrations() == (make_registration(1), make_registration(2, ttl=None))
    assert store.selection() == ("web", "orders")


def test_a_commit_replaces_what_it_is_given_and_leaves_the_rest(store: StateStore) -> None:
    """Invariant 6: a revision is committed as one."""
    store.commit(topology=SOURCE, ports={"app/web-v1-1": 4001}, scales={"web/v1": 3}, selection=("web",))
    store.commit(ports={}, selection=())
    assert store.topology() == SOURCE
    assert dict(store.ports()) == {}
    assert dict(store.scales()) == {"web/v1": 3}
    assert store.selection() == ()


@pytest.mark.parametrize(
    ("write", "read"),
    [
        (lambda s, n: s.commit(ports={f"app/{n}": n}), lambda s: dict(s.ports())),
        (lambda s, n: s.commit(scales={f"web/v{n}": n}), lambda s: dict(s.scales())),
        (lambda s, n: s.commit(registrations=(make_registration(n),)), lambda s: s.registrations()),
        (lambda s, n: s.commit(selection=(f"web{n}",)), lambda s: s.selection()),
    ],
    ids=["ports", "scales", "registrations", "selection"],
)
def test_setting_replaces_what_was_there(
    store: StateStore, write: Callable[[StateStore, int], None], read: Callable[[StateStore], object]
) -> None:
    write(store, 1)
    first = read(store)
    write(store, 2)
    second = read(store)
    assert first != second
    write(store, 1)
    assert read(store) == first


def test_registrations_and_instances_come_by_id(store: StateStore) -> None:
    store.commit(registrations=tuple(make_registration(number) for number in (3, 1, 2)))
    for instance in ("web-v1-2", "api-v1-1", "web-v1-1"):
        store.put_instance(make_record(instance))
    assert [item.id for item in store.registrations()] == ["orders-ext-1", "orders-ext-2", "orders-ext-3"]
    assert [item.id for item in store.instances()] == ["api-v1-1", "web-v1-1", "web-v1-2"]


def test_putting_an_instance_again_replaces_only_that_one(store: StateStore) -> None:
    store.put_instance(make_record("web-v1-1"))
    store.put_instance(make_record("web-v1-2"))
    store.put_instance(make_record("web-v1-1", exit_code=-9))
    assert store.instances() == (make_record("web-v1-1", exit_code=-9), make_record("web-v1-2"))


def test_dropping_an_instance_forgets_it_and_one_that_is_unknown_is_no_error(store: StateStore) -> None:
    store.put_instance(make_record("web-v1-1"))
    store.drop_instance("web-v1-1")
    store.drop_instance("web-v1-1")
    assert store.instances() == ()


def test_what_is_read_does_not_change_with_later_writes(store: StateStore) -> None:
    store.commit(ports={"app/web-v1-1": 1})
    read = store.ports()
    store.commit(ports={"app/web-v1-1": 2})
    assert dict(read) == {"app/web-v1-1": 1}


def make_revision(number: int, **changes: Any) -> Revision:
    values: dict[str, Any] = {"author": "ann@apply", "reason": "ä", "state": "applied", "changes": ("a: 1 -> 2",)}
    return Revision(number=number, time=1000.5 + number, **{**values, **changes})


def test_revisions_are_kept_with_their_content(store: StateStore) -> None:
    store.commit(revision=make_revision(1), content="one ä")
    store.commit(revision=make_revision(2, state="pending", owners=("payment",)), content="two", ports={"a": 1})
    assert store.revisions() == (make_revision(1), make_revision(2, state="pending", owners=("payment",)))
    assert (store.revision_content(1), store.revision_content(2), store.revision_content(3)) == ("one ä", "two", None)
    assert dict(store.ports()) == {"a": 1}


def test_what_has_become_of_a_revision_is_kept_and_its_content_stays(store: StateStore) -> None:
    store.commit(revision=make_revision(1, state="pending"), content="one")
    refused = make_revision(1, state="refused", note="no such filter")
    store.commit(settled=(refused, make_revision(9)), revision=make_revision(2), content="two")
    assert store.revisions() == (refused, make_revision(2))
    assert store.revision_content(1) == "one"


def test_old_revisions_are_forgotten(store: StateStore) -> None:
    for number in (1, 2, KEPT_REVISIONS + 1):
        store.commit(revision=make_revision(number), content=str(number))
    assert [revision.number for revision in store.revisions()] == [2, KEPT_REVISIONS + 1]
    assert store.revision_content(1) is None


def make_fault(fault_id: str, *, ends_at: float = 400.0) -> FaultRecord:
    return FaultRecord(
        id=fault_id,
        kind="http",
        subject="payment",
        services=("payment",),
        summary="delay 300ms for 20%",
        detail='{"percent": 20}',
        started_at=100.0,
        ends_at=ends_at,
        author="ann@inject fault",
    )


def test_faults_are_kept_until_they_are_dropped(store: StateStore) -> None:
    store.put_fault(make_fault("f2"))
    store.put_fault(make_fault("f1"))
    store.put_fault(make_fault("f2", ends_at=500.0))
    assert store.faults() == (make_fault("f1"), make_fault("f2", ends_at=500.0))
    store.drop_fault("f2")
    store.drop_fault("f2")
    assert store.faults() == (make_fault("f1"),)


def test_no_two_faults_get_one_number(store: StateStore) -> None:
    assert [store.number_fault() for _ in range(3)] == [1, 2, 3]
