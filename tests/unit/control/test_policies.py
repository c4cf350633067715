"""Policies as revisions: committed, published, acknowledged; restored when refused; the same after any crash."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.support.control_world import ControlWorld, make_request, until

from meshctl.adapters.sqlite_store import SqliteStore
from meshctl.control.control_plane import ControlPlane
from meshctl.errors import (
    ConflictError,
    InvalidTopology,
    MeshctlError,
    NotFoundError,
    RejectedError,
    UsageError,
    WaitTimeoutError,
)
from meshctl.spec.schema import Service
from meshctl.wire.explain import ExplainRequest
from meshctl.wire.models import SourceFileShape
from meshctl.wire.policies import ApplyRequest, DeleteRequest, DiffRequest, PolicyResult, RollbackRequest

TEXT = """
name: shop
defaults: {timeout: 5s}
services:
  front: {command: ./web, upstreams: [orders]}
  orders:
    timeout: 2s
    retry_policy: {max_attempts: 3}
    versions: {v1: {command: ./web}, v2: {command: ./web}}
    split: {v1: 90, v2: 10}
"""
FASTER = "services: {orders: {timeout: 1s}}\n"


class World(ControlWorld):
    """A world whose store is SQLite, and whose steps can be the last thing that a control plane does."""

    def __init__(self, folder: Path) -> None:
        self.database = str(folder / "state.db")
        super().__init__(folder, SqliteStore(self.database))

    def reopen(self) -> None:
        """As the next control plane finds the store."""
        assert isinstance(self.store, SqliteStore)
        self.store.close()
        self.store = SqliteStore(self.database)

    @property
    def orders(self) -> Service:
        mesh = self.engine.mesh
        assert mesh is not None
        return mesh.services["orders"]

    @property
    def state(self) -> tuple[int, str]:
        """The newest revision in the store."""
        newest = self.store.revisions()[-1]
        return newest.number, newest.state


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    assert isinstance(made.store, SqliteStore)
    made.store.close()


def apply_request(text: str, **more: Any) -> ApplyRequest:
    file = SourceFileShape(path="policy.yaml", directory="/work/shop", text=text)
    return ApplyRequest(files=[file], variables={}, author="ann@apply", **more)


async def bring_up(world: World, plane: ControlPlane, text: str = TEXT, **more: Any) -> list[str]:
    result = await plane.up(make_request(text, **more))
    await until(lambda: plane.status().state == "ready" and world.engine.is_settled, "the mesh is ready")
    return result.differs


async def test_a_change_is_in_effect_when_it_returns_and_counts_only_the_sidecars_concerned(world: World) -> None:
    async with world.running() as plane:
        await bring_up(world, plane)
        result = await plane.policies.apply(apply_request(FASTER, reason="orders is fast"))
        # front calls orders, and the gateway calls everyone; orders itself is told nothing.
        assert (result.revision, result.acked, result.total) == (2, 2, 2)
        assert world.orders.policies.timeout.request == 1.0
        assert [(c.owner, c.path, c.before, c.after) for c in result.changes] == [("orders", "timeout", "2s", "1s")]
        newest = world.store.revisions()[-1]
        assert (newest.number, newest.state, newest.author) == (2, "applied", "ann@apply")
        assert (newest.reason, newest.changes) == ("orders is fast", ("orders timeout: 2s -> 1s",))
        assert newest.time > 0
        # What the file does not name stays.
        assert world.orders.policies.retry_policy.max_attempts == 3
        assert dict(world.orders.split) == {"v1": 90, "v2": 10}


async def test_what_is_written_already_is_no_revision(world: World) -> None:
    async with world.running() as plane:
        await bring_up(world, plane)
        result = await plane.policies.apply(apply_request("services: {orders: {timeout: '2s'}}\n"))
        assert (result.message, result.revision, result.changes) == ("nothing changed", 1, [])
        assert [p.origin.file for p in plane.policies.list("orders", "timeout").policies] == ["mesh.yaml"]


async def test_every_policy_tells_where_it_came_from(world: World) -> None:
    async with world.running() as plane:
        await bring_up(world, plane)
        await plane.policies.apply(apply_request(FASTER))
        found = plane.policies.list()
    assert found.revision == 2
    assert [(p.owner, p.kind, p.words, p.origin.file, p.origin.line, p.origin.revision) for p in found.policies] == [
        ("defaults", "timeout", "5s", "mesh.yaml", 3, 0),
        ("orders", "retry_policy", "{max_attempts: 3}", "mesh.yaml", 8, 0),
        ("orders", "split", "{v1: 90, v2: 10}", "mesh.yaml", 10, 0),
        ("orders", "timeout", "1s", "policy.yaml", 1, 2),
    ]
    assert found.policies[3].origin.author == "ann@apply"


async def test_all_problems_are_told_at_once_with_their_places_and_nothing_changes(world: World) -> None:
    text = """
services:
  orders: {timeout: soon, split: {v1: 50, v3: 50}, retries: 3}
  oders: {timeout: 1s}
defaults: {load_balancing: {algorithm: best}}
"""
    async with world.running() as plane:
        await bring_up(world, plane)
        with pytest.raises(InvalidTopology) as caught:
            await plane.policies.apply(apply_request(text))
        problems = {(p.code, str(p.where)) for p in caught.value.problems}
        assert problems == {
            ("bad-duration", "policy.yaml:3:21"),
            ("unknown-version", "policy.yaml:3:43"),
            ("unknown-key", "policy.yaml:3:52"),
            ("unknown-service", "policy.yaml:4:3"),
            ("bad-choice", "policy.yaml:5:40"),
        }
        unknown = next(p for p in caught.value.problems if p.code == "unknown-service")
        assert "did you mean `orders`?" in unknown.message
        assert unknown.hint == "services: front, orders"
        assert world.state == (1, "applied")
        assert world.orders.policies.timeout.request == 2.0


async def test_a_file_without_a_policy_is_refused(world: World) -> None:
    async with world.running() as plane:
        await bring_up(world, plane)
        with pytest.raises(UsageError, match=r"policy\.yaml names no policy") as caught:
            await plane.policies.apply(apply_request("services: {orders: {command: ./web}}\n"))
        assert "services: {NAME: {timeout: 1s}}" in caught.value.hint


async def test_of_two_writers_one_loses_and_is_told_to_whom(world: World) -> None:
    async with world.running() as plane:
        await bring_up(world, plane)
        one = apply_request(FASTER, base=1, reason="first")
        other = apply_request("services: {orders: {timeout: 9s, retry_policy: {max_attempts: 9}}}", base=1)
        results = await asyncio.gather(plane.policies.apply(one), plane.policies.apply(other), return_exceptions=True)
        (won,) = (result for result in results if isinstance(result, PolicyResult))
        (lost,) = (result for result in results if isinstance(result, ConflictError))
        assert won.revision == 2
        assert lost.message.startswith(
            "the policies have changed since revision 1: revision 2 by ann@apply came first, at 20"
        )
        assert lost.message.endswith("UTC (first)")
        assert (world.orders.policies.timeout.request, world.orders.policies.retry_policy.max_attempts) == (1.0, 3)


async def test_what_a_sidecar_refuses_is_undone_and_its_words_are_told(world: World) -> None:
    async with world.running() as plane:
        await bring_up(world, plane)
        before = dict(world.sidecars.snapshots)
        world.sidecars.refusing["front"] = "no such filter"
        with pytest.raises(RejectedError, match="no such filter") as caught:
            await plane.policies.apply(apply_request(FASTER))
        assert "revision 2 was undone: the policies are those before it, as revision 3" in caught.value.hint
        assert world.orders.policies.timeout.request == 2.0
        assert {node: s.version for node, s in world.sidecars.snapshots.items()} == {
            node: s.version for node, s in before.items()
        }
        heads = world.store.revisions()
        assert [(head.number, head.state) for head in heads] == [(1, "applied"), (2, "refused"), (3, "pending")]
        assert "no such filter" in heads[1].note
        assert "revision 2 was refused" in heads[2].reason
        world.sidecars.refusing.clear()
        await until(lambda: world.state == (3, "applied"), "what was restored is acknowledged")


async def test_a_sidecar_that_does_not_answer_leaves_the_revision_in_force(world: World) -> None:
    async with world.running() as plane:
        await bring_up(world, plane)
        world.sidecars.late.add("front")
        with pytest.raises(WaitTimeoutError, match="front did not acknowledge") as caught:
            await plane.policies.apply(apply_request(FASTER))
        assert "revision 2 is in force all the same" in caught.value.hint
        assert world.orders.policies.timeout.request == 1.0
        assert world.state == (2, "pending")
        world.sidecars.late.clear()
        await until(lambda: world.state == (2, "applied"), "it is acknowledged later")


async def test_a_revision_that_follows_a_pending_one_supersedes_it(world: World) -> None:
    async with world.running() as plane:
        await bring_up(world, plane)
        world.sidecars.late.add("front")
        with pytest.raises(WaitTimeoutError):
            await plane.policies.apply(apply_request(FASTER))
        world.sidecars.late.clear()
        await plane.policies.apply(apply_request("services: {orders: {timeout: 3s}}"))
        assert [head.state for head in world.store.revisions()] == ["applied", "superseded", "applied"]


async def test_deleting_uncovers_what_lies_below(world: World) -> None:
    async with world.running() as plane:
        await bring_up(world, plane)
        await plane.policies.delete(DeleteRequest(owner="orders", kind="timeout", author="ann@delete"))
        assert world.orders.policies.timeout.request == 5.0
        assert [p.kind for p in plane.policies.list("orders").policies] == ["retry_policy", "split"]
        with pytest.raises(NotFoundError, match="orders has no timeout of its own") as caught:
            await plane.policies.delete(DeleteRequest(owner="orders", kind="timeout", author="ann@delete"))
        assert caught.value.hint == "policies of orders: retry_policy, split"
        # What the files have is deleted for as long as they are not taken anew.
        assert await bring_up(world, plane) == [
            "orders timeout: deleted (revision 2, ann@delete), which mesh.yaml:7:14 has"
        ]
        assert world.orders.policies.timeout.request == 5.0
        assert await bring_up(world, plane, reset=True) == []
        assert world.orders.policies.timeout.request == 2.0


@pytest.mark.parametrize(
    ("owner", "kind", "words", "hint"),
    [
        ("oders", "timeout", "no service oders", "services: front, orders; or defaults"),
        ("orders", "patience", "orders has no policy patience", "retry_policy"),
        ("defaults", "split", "defaults has no policy split", "timeout"),
    ],
)
async def test_names_that_do_not_exist_are_refused_with_those_that_do(
    world: World, owner: str, kind: str, words: str, hint: str
) -> None:
    async with world.running() as plane:
        await bring_up(world, plane)
        with pytest.raises(NotFoundError, match=words) as caught:
            await plane.policies.delete(DeleteRequest(owner=owner, kind=kind, author="ann@delete"))
        assert hint in caught.value.hint
        with pytest.raises(NotFoundError, match=words):
            await plane.policies.changer.set_policy(owner, kind, "1s", author="ann@circuit")
        with pytest.raises(NotFoundError, match=words):
            plane.policies.list(owner, kind)


async def test_other_commands_set_one_policy(world: World) -> None:
    async with world.running() as plane:
        await bring_up(world, plane)
        changed = await plane.policies.changer.set_policy(
            "orders", "retry_policy", {"base_interval": "50ms"}, author="ann@tune", reason="busy", merge=True
        )
        assert (changed.revision, changed.sidecars) == (2, 2)
        retry = world.orders.policies.retry_policy
        assert (retry.max_attempts, retry.base_interval) == (3, 0.05)
        await plane.policies.changer.set_policy("orders", "retry_policy", {"max_attempts": 2}, author="ann@tune")
        retry = world.orders.policies.retry_policy
        assert (retry.max_attempts, retry.base_interval) == (2, 0.1)
        with pytest.raises(InvalidTopology, match="1 problem"):
            await plane.policies.changer.set_policy("orders", "timeout", "soon", author="ann@tune")
        assert plane.policies.history("orders").revisions[0].author == "ann@tune"


async def test_a_rollback_returns_to_what_was_whole(world: World) -> None:
    async with world.running() as plane:
        await bring_up(world, plane)
        await plane.policies.apply(apply_request(FASTER))
        await plane.policies.apply(apply_request("defaults: {timeout: 7s}\nservices: {front: {timeout: 4s}}"))
        await plane.policies.delete(DeleteRequest(owner="orders", kind="split", author="ann@delete"))
        result = await plane.policies.roll_back(RollbackRequest(revision=2, author="bob@rollback"))
        assert (result.revision, world.orders.policies.timeout.request) == (5, 1.0)
        assert dict(world.orders.split) == {"v1": 90, "v2": 10}
        assert plane.policies.diff(DiffRequest(before=2)).changes == []
        assert plane.policies.history().revisions[0].reason == "back to revision 2"
        await plane.policies.roll_back(RollbackRequest(revision=1, author="bob@rollback"))
        assert all(p.origin.revision == 0 for p in plane.policies.list().policies)
        with pytest.raises(NotFoundError, match="there is no revision 9") as caught:
            await plane.policies.roll_back(RollbackRequest(revision=9, author="bob@rollback"))
        assert caught.value.hint == "revisions 1 to 6 are kept"


async def test_a_diff_compares_files_and_revisions(world: World) -> None:
    file = SourceFileShape(path="policy.yaml", directory="/work/shop", text=FASTER)
    async with world.running() as plane:
        await bring_up(world, plane)
        named = plane.policies.diff(DiffRequest(files=[file])).changes
        assert [(c.owner, c.path, c.before, c.after) for c in named] == [("orders", "timeout", "2s", "1s")]
        whole = make_request(TEXT.replace("2s", "3s")).files
        changes = plane.policies.diff(DiffRequest(files=whole, whole=True)).changes
        assert [(c.path, c.after) for c in changes] == [("timeout", "3s")]
        await plane.policies.apply(apply_request(FASTER))
        changes = plane.policies.diff(DiffRequest(before=1, after=2)).changes
        assert [(c.before, c.after) for c in changes] == [("2s", "1s")]
        assert world.state == (2, "applied")


async def test_up_tells_what_differs_and_resets_on_demand(world: World) -> None:
    async with world.running() as plane:
        await bring_up(world, plane)
        await plane.policies.apply(apply_request("defaults: {monitoring: {metrics: false}}\n" + FASTER))
        assert await bring_up(world, plane) == [
            "defaults monitoring: {metrics: false} (revision 2, ann@apply) is not in the files",
            "orders timeout: 1s (revision 2, ann@apply) differs from 2s in mesh.yaml:7:14",
        ]
        # A file that comes to say the same is what says it from then on.
        assert len(await bring_up(world, plane, TEXT.replace("timeout: 2s", "timeout: 1s"))) == 1
        assert len(await bring_up(world, plane)) == 1
        assert world.orders.policies.timeout.request == 2.0
        assert await bring_up(world, plane, reset=True, author="ann@up") == []
        newest = world.store.revisions()[-1]
        assert (newest.author, newest.changes) == ("ann@up", ("defaults monitoring: {metrics: false} -> not set",))


async def test_an_up_that_only_moves_policies_in_the_file_is_no_revision(world: World) -> None:
    async with world.running() as plane:
        await bring_up(world, plane)
        await bring_up(world, plane, f"# a comment\n{TEXT}")
        assert world.state == (1, "applied")
        assert plane.policies.list("orders", "timeout").policies[0].origin.line == 8


async def test_policies_of_a_service_that_left_the_files_are_given_up_and_that_is_said(world: World) -> None:
    async with world.running() as plane:
        await bring_up(world, plane, f"{TEXT}  cart: {{command: ./web}}\n")
        await plane.policies.apply(apply_request("services: {cart: {timeout: 1s}}"))
        assert await bring_up(world, plane) == [
            "cart timeout: given up (revision 2, ann@apply), because the files have no service cart"
        ]


async def test_what_a_command_set_and_the_files_no_longer_allow_is_told_as_such(world: World) -> None:
    text = TEXT.replace(", v2: {command: ./web}", "").replace("{v1: 90, v2: 10}", "{v1: 100}")
    async with world.running() as plane:
        await bring_up(world, plane)
        await plane.policies.apply(apply_request("services: {orders: {split: {v1: 50, v2: 50}}}"))
        with pytest.raises(InvalidTopology) as caught:
            await plane.up(make_request(text))
        (problem,) = caught.value.problems
        assert str(problem.where) == "policy.yaml:1:37"
        assert "set by revision 2 (ann@apply); `meshctl up --reset` takes what the files say" in problem.hint
        assert "`meshctl canary rollback orders`" in problem.hint
        assert dict(world.orders.split) == {"v1": 50, "v2": 50}


async def test_before_any_up_there_are_no_policies(world: World) -> None:
    async with world.running() as plane:
        for act in (plane.policies.list, lambda: plane.policies.diff(DiffRequest())):
            with pytest.raises(ConflictError, match="not up yet"):
                act()
        with pytest.raises(ConflictError, match="not up yet"):
            await plane.policies.apply(apply_request(FASTER))
        assert plane.policies.history().revisions == []


async def test_changes_by_command_survive_a_restart_and_a_down(world: World) -> None:
    async with world.running() as plane:
        await bring_up(world, plane)
        await plane.policies.apply(apply_request(FASTER))
    world.reopen()
    async with world.running() as plane:
        assert world.orders.policies.timeout.request == 1.0
        await plane.down(force=True)
    world.reopen()
    async with world.running() as plane:
        assert await bring_up(world, plane) == [
            "orders timeout: 1s (revision 2, ann@apply) differs from 2s in mesh.yaml:7:14"
        ]
        assert world.orders.policies.timeout.request == 1.0


# ------------------------------------------------------------------------------------------ faults


class Killed(BaseException):
    """The end of a control plane, where ``kill -9`` comes."""


def kill_before(target: Any, name: str, number: int) -> None:
    """Let the nth call of a method be where the control plane ends, before it does anything."""
    _replace(target, name, number, after=False)


def kill_after(target: Any, name: str, number: int) -> None:
    """The same, when it has done what it does."""
    _replace(target, name, number, after=True)


def _replace(target: Any, name: str, number: int, *, after: bool) -> None:
    real: Callable[..., Any] = getattr(target, name)
    count = 0

    def die(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        count += 1
        if count < number:
            return real(*args, **kwargs)
        setattr(target, name, real)
        if after:
            real(*args, **kwargs)
        raise Killed

    setattr(target, name, die)


POINTS: dict[str, tuple[Callable[[World], None], float]] = {
    "before the commit": (lambda w: kill_before(w.store, "commit", 1), 2.0),
    "after the commit": (lambda w: kill_after(w.store, "commit", 1), 1.0),
    "before the first sidecar is told": (lambda w: kill_before(w.sidecars, "publish", 1), 1.0),
    "between two sidecars": (lambda w: kill_after(w.sidecars, "publish", 1), 1.0),
    "while it waits": (lambda w: kill_before(w.sidecars, "wait_synced", 1), 1.0),
    "before it is noted as applied": (lambda w: kill_before(w.store, "commit", 2), 1.0),
    "after it is noted as applied": (lambda w: kill_after(w.store, "commit", 2), 1.0),
}


@pytest.mark.parametrize("point", POINTS)
async def test_a_kill_at_any_point_leaves_store_and_sidecars_at_one_revision(world: World, point: str) -> None:
    """Invariant 6."""
    inject, timeout = POINTS[point]
    async with world.running() as plane:
        await bring_up(world, plane)
        inject(world)
        with pytest.raises(Killed):
            await plane.policies.apply(apply_request(FASTER))
    world.reopen()
    async with world.running():
        await until(lambda: world.state[1] == "applied", "the revision is settled")
        assert world.orders.policies.timeout.request == timeout
        # What the next control plane publishes is what it has in its store.
        assert world.state[0] == (1 if timeout == 2.0 else 2)
        await until(lambda: world.engine.is_settled, "all is published")
        async with world.running() as another:
            assert another.policies.list("orders", "timeout").policies[0].value == f"{timeout:g}s"


REFUSED_POINTS: dict[str, Callable[[World], None]] = {
    "before the restoring commit": lambda w: kill_before(w.store, "commit", 2),
    "after the restoring commit": lambda w: kill_after(w.store, "commit", 2),
    "before what was is published again": lambda w: kill_before(w.sidecars, "publish", 3),
    "before the restored is noted": lambda w: kill_before(w.store, "commit", 3),
}


@pytest.mark.parametrize("point", REFUSED_POINTS)
async def test_a_kill_while_a_refused_revision_is_undone_ends_at_the_old_one(world: World, point: str) -> None:
    """Invariant 6."""
    async with world.running() as plane:
        await bring_up(world, plane)
        before = world.sidecars.snapshots["front"].version
        refuse_faster(world)
        REFUSED_POINTS[point](world)
        with pytest.raises(Killed):
            await plane.policies.apply(apply_request(FASTER))
    world.reopen()
    async with world.running():
        await until(lambda: world.state == (3, "applied"), "the revision before is restored")
        assert world.orders.policies.timeout.request == 2.0
        await until(lambda: world.sidecars.snapshots["front"].version == before, "it is published")
        assert world.store.revisions()[1].state == "refused"


def refuse_faster(world: World) -> None:
    """Let the sidecar of front refuse whatever is new to it."""
    world.sidecars.stubborn["front"] = world.sidecars.snapshots["front"].version


async def test_a_listener_that_is_refused_after_a_restart_is_no_reason_to_undo_a_policy(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its port may have been taken; policies never change listeners."""
    monkeypatch.setattr("meshctl.control.policy_changer._RESUME_AGAIN", 0.05)
    async with world.running() as plane:
        await bring_up(world, plane)
        refuse_faster(world)
        kill_before(world.sidecars, "wait_synced", 1)
        with pytest.raises(Killed):
            await plane.policies.apply(apply_request(FASTER))
    world.reopen()
    world.sidecars.refused_types = frozenset({"listeners"})
    async with world.running():
        refused = world.sidecars.refusals
        await until(lambda: world.sidecars.refusals > refused + 1, "it is looked at twice")
        assert world.state == (2, "pending")
        assert world.orders.policies.timeout.request == 1.0


async def test_a_full_disk_is_an_error_before_anything_is_pushed(world: World) -> None:
    assert isinstance(world.store, SqliteStore)
    async with world.running() as plane:
        await bring_up(world, plane)
        published, mesh = len(world.sidecars.published), world.engine.mesh
        (pages,) = world.store._connection.execute("PRAGMA page_count").fetchone()
        world.store._connection.execute(f"PRAGMA max_page_count = {pages}")
        bulky = "\n".join(f"  orders: {{fallback: {{strategy: static, body: '{'x' * 60_000}'}}}}" for _ in range(1))
        with pytest.raises(MeshctlError, match="the disk is full"):
            # Compression is of no use against noise.
            await plane.policies.apply(apply_request(f"services:\n{bulky.replace('x' * 60_000, noise(60_000))}\n"))
        assert (len(world.sidecars.published), world.engine.mesh) == (published, mesh)
        assert plane.policies.list().revision == 1
        world.store._connection.execute("PRAGMA max_page_count = 100000")
        assert (await plane.policies.apply(apply_request(FASTER))).revision == 2


async def test_a_locked_database_is_an_error_before_anything_is_pushed(world: World) -> None:
    import sqlite3

    assert isinstance(world.store, SqliteStore)
    async with world.running() as plane:
        await bring_up(world, plane)
        published, mesh = len(world.sidecars.published), world.engine.mesh
        world.store._connection.execute("PRAGMA busy_timeout = 10")
        other = sqlite3.connect(world.database, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ConflictError, match="held by another process"):
            await plane.policies.apply(apply_request(FASTER))
        assert (len(world.sidecars.published), world.engine.mesh) == (published, mesh)
        assert plane.policies.list().revision == 1
        other.execute("ROLLBACK")
        other.close()
        assert (await plane.policies.apply(apply_request(FASTER))).revision == 2


def noise(length: int) -> str:
    import random

    return "".join(random.Random(7).choices("abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ", k=length))


async def test_what_cannot_be_undone_at_once_is_undone_later(world: World) -> None:
    """The disk fills up between the commit and the refusal."""
    async with world.running() as plane:
        await bring_up(world, plane)
        refuse_faster(world)
        real = world.store.commit
        full = MeshctlError("the disk is full")

        def fail(**given: Any) -> None:
            if given.get("settled"):
                raise full
            real(**given)

        world.store.commit = fail  # type: ignore[method-assign]
        with pytest.raises(RejectedError, match="it is too new") as caught:
            await plane.policies.apply(apply_request(FASTER))
        assert "could not be undone yet (the disk is full): that is tried again" in caught.value.hint
        assert world.state == (2, "pending")
        world.store.commit = real  # type: ignore[method-assign]
        await until(lambda: world.state == (3, "applied"), "it is undone")
        assert world.orders.policies.timeout.request == 2.0


async def test_what_cannot_be_noted_as_applied_is_in_effect_and_noted_later(world: World) -> None:
    async with world.running() as plane:
        await bring_up(world, plane)
        real, left = world.store.commit, [1]

        def fail(**given: Any) -> None:
            if given.get("settled") and left:
                left.pop()
                raise MeshctlError("the disk is full")
            real(**given)

        world.store.commit = fail  # type: ignore[method-assign]
        assert (await plane.policies.apply(apply_request(FASTER))).acked == 2
        await until(lambda: world.state == (2, "applied"), "it is noted")


async def test_a_plan_that_cannot_be_made_is_undone(world: World) -> None:
    async with world.running() as plane:
        await bring_up(world, plane)
        real = world.engine.parts.publisher.publish

        def fail(plan: Any) -> Any:
            if world.orders.policies.timeout.request == 1.0:
                raise ZeroDivisionError
            return real(plan)

        world.engine.parts.publisher.publish = fail  # type: ignore[method-assign]
        with pytest.raises(ZeroDivisionError):
            await plane.policies.apply(apply_request(FASTER))
        assert world.orders.policies.timeout.request == 2.0
        assert [head.state for head in world.store.revisions()] == ["applied", "refused", "applied"]


# ------------------------------------------------------------------------------------------ seeing


async def test_a_dry_run_asks_envoy_about_the_sidecars_concerned_and_changes_nothing(world: World) -> None:
    asked: list[set[str]] = []
    words: dict[str, str] = {}

    async def check(proxies: Any) -> dict[str, str]:
        asked.append(set(proxies))
        return words

    async with world.running() as plane:
        await bring_up(world, plane)
        plane.policies._check_envoy = check
        result = await plane.policies.apply(apply_request(FASTER, dry_run=True))
        assert (asked, result.acked, result.total) == ([{"front", "gateway"}], 2, 2)
        assert [change.after for change in result.changes] == ["1s"]
        words.update({"front": "bad route\n", "gateway": "bad too"})
        with pytest.raises(RejectedError, match=r"the sidecar of front would refuse this: bad route$") as caught:
            await plane.policies.apply(apply_request(FASTER, dry_run=True))
        assert (caught.value.detail, caught.value.hint) == ("gateway: bad too", "nothing was changed")
        assert (world.state, world.orders.policies.timeout.request) == ((1, "applied"), 2.0)


async def test_history_is_of_what_concerns_a_service(world: World) -> None:
    async with world.running() as plane:
        await bring_up(world, plane)
        await plane.policies.apply(apply_request(FASTER))
        await plane.policies.apply(apply_request("defaults: {timeout: 9s}"))
        found = plane.policies.history("orders", 1)
        assert ([head.number for head in found.revisions], found.total) == ([2], 2)
        assert plane.policies.history("front").revisions == []
        with pytest.raises(NotFoundError, match="no service oders"):
            plane.policies.history("oders")
        with pytest.raises(NotFoundError, match="there is no policy patience"):
            plane.policies.list("", "patience")
        assert {policy.owner for policy in plane.policies.list("", "timeout").policies} == {"defaults", "orders"}


async def test_an_explanation_has_the_places_of_files_and_the_revisions_of_commands(world: World) -> None:
    async with world.running() as plane:
        await bring_up(world, plane)
        await plane.policies.apply(apply_request(FASTER))
        found = plane.policies.explain(ExplainRequest(service="orders", source="front", path="/a?b=c"))
        lines = {line.topic: line for line in found.lines}
        (timeout,) = lines["timeout"].sources
        assert (timeout.origin.file, timeout.origin.revision, timeout.origin.author) == ("policy.yaml", 2, "ann@apply")
        assert {source.origin.line for source in lines["retries"].sources} == {8}
        assert (lines["chosen by"].policy, lines["chosen by"].sources) == ("load_balancing", [])
        assert (found.revision, found.method) == (2, "GET")


async def test_what_comes_to_the_gateway_is_explained_by_its_longest_path(world: World) -> None:
    routes = "gateway: {port: 8080, routes: [{path: /, service: front}, {path: /api, service: orders}]}"
    async with world.running() as plane:
        await plane.up(make_request(f"{TEXT}{routes}\n"))
        found = plane.policies.explain(ExplainRequest(service="gateway", path="/api/1?x"))
        assert (found.service, found.source) == ("orders", "outside")
        lines = {line.topic: line for line in found.lines}
        assert lines["gateway"].words == "what is under /api goes to orders"
        assert lines["gateway"].sources[0].origin.line == TEXT.count("\n") + 1
        assert lines["goes to"].words == "orders/v1 90%, orders/v2 10%"
        assert plane.policies.explain(ExplainRequest(service="gateway", path="/apix")).service == "front"
        with pytest.raises(UsageError, match="no service calls the gateway"):
            plane.policies.explain(ExplainRequest(service="gateway", source="front"))


async def test_what_the_gateway_does_not_let_in_is_told(world: World) -> None:
    async with world.running() as plane:
        await plane.up(make_request(f"{TEXT}gateway: {{port: 8080, routes: [{{path: /api, service: orders}}]}}\n"))
        (line,) = plane.policies.explain(ExplainRequest(service="gateway", path="/")).lines
        assert line.words == "no route of the gateway takes it: 404; its routes: /api"


@pytest.mark.parametrize(
    ("request_", "kind", "words"),
    [
        (ExplainRequest(service="gateway"), UsageError, "this mesh has no gateway"),
        (ExplainRequest(service="oders"), NotFoundError, "no service oders"),
        (ExplainRequest(service="orders", source="nobody"), NotFoundError, "no sidecar nobody"),
        (ExplainRequest(service="orders", source="orders"), UsageError, "orders does not call itself"),
        (ExplainRequest(service="orders", path="x"), UsageError, "'x' is no path"),
        (ExplainRequest(service="seed"), UsageError, "seed is a job"),
    ],
)
async def test_what_cannot_be_explained_is_said(
    world: World, request_: ExplainRequest, kind: type[MeshctlError], words: str
) -> None:
    async with world.running() as plane:
        with pytest.raises(ConflictError, match="not up yet"):
            plane.policies.explain(request_)
        await plane.up(make_request(f"{TEXT}  seed: {{command: ./job, job: true}}\n"))
        with pytest.raises(kind, match=words):
            plane.policies.explain(request_)
