"""When leafs are renewed, and how a root is replaced without a moment in which peers do not trust each other."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshctl.identity.rotation import (
    BACKDATING,
    LEAF_LIFETIME,
    ROOT_LIFETIME,
    Acknowledged,
    ActivateRoot,
    AddRoot,
    DropRoots,
    IssueLeaves,
    OverlapPassed,
    Publish,
    Requested,
    Resumed,
    RootAdded,
    RootEvent,
    RootRotation,
    WaitUntil,
    plan_leaves,
    recover,
    root_rotates_at,
    rotates_at,
    step,
)
from meshctl.ports import LeafCertificate, RootCertificate

NOW = 1_800_000_000.0
SERIALS = st.integers(1, 2**128 - 1).map(lambda number: f"{number:032x}")


def make_leaf(
    serial: str = "01", *, issuer: str = "r1", issued: float = NOW, lifetime: float = LEAF_LIFETIME
) -> LeafCertificate:
    return LeafCertificate(
        service="web",
        spiffe_id="spiffe://shop/web",
        serial=serial,
        issuer_serial=issuer,
        not_before=issued - BACKDATING,
        not_after=issued + lifetime,
        certificate_pem=b"",
        private_key_pem=b"",
    )


def make_root(serial: str, *, made: float = NOW, active: bool = False) -> RootCertificate:
    return RootCertificate(
        serial=serial,
        not_before=made - BACKDATING,
        not_after=made + ROOT_LIFETIME,
        certificate_pem=b"",
        active=active,
    )


# ---------------------------------------------------------------------------------------------- leafs


@settings(deadline=None)
@given(serial=SERIALS, seed=st.text(max_size=20), lifetime=st.floats(10, 10 * LEAF_LIFETIME))
def test_a_leaf_is_renewed_between_half_and_62_percent_of_its_lifetime(serial: str, seed: str, lifetime: float) -> None:
    share = (rotates_at(make_leaf(serial, lifetime=lifetime), seed) - NOW) / lifetime
    assert 0.5 - 1e-6 <= share <= 0.62 + 1e-6 < 2 / 3


def test_the_moment_is_fixed_for_a_leaf_and_spread_over_leafs() -> None:
    moments = [rotates_at(make_leaf(f"{number:032x}")) for number in range(200)]
    assert moments == [rotates_at(make_leaf(f"{number:032x}")) for number in range(200)]
    fifths = {int((moment - NOW - 0.5 * LEAF_LIFETIME) / (0.12 * LEAF_LIFETIME) * 5) for moment in moments}
    assert fifths == {0, 1, 2, 3, 4}


def test_a_root_is_replaced_at_two_thirds_of_its_lifetime() -> None:
    assert root_rotates_at(make_root("r1")) == pytest.approx(NOW + ROOT_LIFETIME * 2 / 3)


@pytest.mark.parametrize(
    ("leaf", "now", "due"),
    [
        (None, NOW, True),
        (make_leaf(), NOW, False),
        (make_leaf(issuer="r0"), NOW, True),
        (make_leaf(), rotates_at(make_leaf()) - 1, False),
        (make_leaf(), rotates_at(make_leaf()), True),
        (make_leaf(), NOW + 2 * LEAF_LIFETIME, True),
        (make_leaf(), NOW - BACKDATING, False),
        (make_leaf(), NOW - BACKDATING - 1, True),
    ],
    ids=["missing", "fresh", "other root", "not yet", "due", "expired", "within the backdating", "clock set back"],
)
def test_a_leaf_is_issued_when_it_is_missing_due_of_another_root_or_not_valid_yet(
    leaf: LeafCertificate | None, now: float, due: bool
) -> None:
    leaves = {} if leaf is None else {"web": leaf}
    assert plan_leaves(now, ["web"], leaves, "r1") == (("web",) if due else ())


def test_services_come_by_name_once_and_leafs_of_others_are_left_alone() -> None:
    leaves = {"old": make_leaf(issuer="r0"), "fresh": make_leaf()}
    assert plan_leaves(NOW, ["web", "api", "web", "fresh"], leaves, "r1") == ("api", "web")


# ---------------------------------------------------------------------------------------------- roots


def test_a_whole_replacement_takes_these_steps() -> None:
    """Each line: event, phase after it, commands."""
    state = RootRotation()
    script: list[tuple[RootEvent, str, tuple[object, ...]]] = [
        (Requested("r1"), "none", (AddRoot(),)),
        (RootAdded("r2"), "introduced", (Publish(),)),
        (Acknowledged(), "switched", (ActivateRoot("r2"), IssueLeaves(), Publish())),
        (Acknowledged(), "switched", (WaitUntil(NOW + 10),)),
        (OverlapPassed(), "retired", (DropRoots(("r1",)), Publish())),
        (Acknowledged(), "none", ()),
    ]
    for event, phase, commands in script:
        state, done = step(state, event, NOW, overlap=10)
        assert (state.phase, done) == (phase, commands), event
    assert state == RootRotation()


@pytest.mark.parametrize(
    ("state", "commands"),
    [
        (RootRotation(), ()),
        (RootRotation(phase="introduced", old=("r1",), new="r2"), (Publish(),)),
        (RootRotation(phase="switched", old=("r1",), new="r2"), (IssueLeaves(), Publish())),
        (RootRotation(phase="retired", old=("r1",), new="r2"), (Publish(),)),
    ],
    ids=lambda value: value.phase if isinstance(value, RootRotation) else "",
)
def test_resuming_takes_the_step_again_whose_acknowledgement_is_not_known(
    state: RootRotation, commands: tuple[object, ...]
) -> None:
    assert step(state, Resumed(), NOW) == (state, commands)


@pytest.mark.parametrize(
    ("state", "event"),
    [
        (RootRotation(), Acknowledged()),
        (RootRotation(), RootAdded("r2")),
        (RootRotation(), OverlapPassed()),
        (RootRotation(phase="introduced", old=("r1",), new="r2"), Requested("r1")),
        (RootRotation(phase="introduced", old=("r1",), new="r2"), OverlapPassed()),
        (RootRotation(phase="switched", old=("r1",), new="r2"), Requested("r2")),
        (RootRotation(phase="retired", old=("r1",), new="r2"), OverlapPassed()),
    ],
)
def test_an_event_that_cannot_happen_in_a_phase_is_refused(state: RootRotation, event: RootEvent) -> None:
    with pytest.raises(ValueError, match=f"{type(event).__name__} cannot happen .* phase {state.phase}"):
        step(state, event, NOW)


@pytest.mark.parametrize(
    ("roots", "state"),
    [
        ([], RootRotation()),
        ([make_root("r1", active=True)], RootRotation()),
        (
            [make_root("r1", active=True), make_root("r2")],
            RootRotation(phase="introduced", old=("r1",), new="r2"),
        ),
        (
            [make_root("r1"), make_root("r2", active=True)],
            RootRotation(phase="switched", old=("r1",), new="r2"),
        ),
        (
            [make_root("r1", active=True), make_root("r2"), make_root("r3")],
            RootRotation(phase="introduced", old=("r1", "r2"), new="r3"),
        ),
        (
            [make_root("r1"), make_root("r2", active=True), make_root("r3")],
            RootRotation(phase="switched", old=("r1", "r3"), new="r2"),
        ),
    ],
    ids=["none", "one", "introduced", "switched", "three, oldest signs", "three, middle signs"],
)
def test_the_phase_follows_from_the_roots(roots: list[RootCertificate], state: RootRotation) -> None:
    assert recover(roots) == state


class _Mesh:
    """A CA and its sidecars, each with the trust and the leaf that it acknowledged last; may crash at any command."""

    def __init__(self, sidecars: int) -> None:
        self.roots = [make_root("r1", active=True)]
        self.leaves = {f"s{number}": "r1" for number in range(sidecars)}
        self.trusts = {name: {"r1"} for name in self.leaves}
        self.shows = dict(self.leaves)
        self.made = 1

    @property
    def active(self) -> str:
        return next(root.serial for root in self.roots if root.active)

    def publish(self, name: str) -> None:
        self.trusts[name] = {root.serial for root in self.roots}
        self.shows[name] = self.leaves[name]
        self.check()

    def check(self) -> None:
        for shower, issuer in self.shows.items():
            for verifier, trusted in self.trusts.items():
                assert issuer in trusted, f"{verifier} does not trust {shower}'s certificate"

    def carry_out(self, command: object, order: list[str]) -> RootEvent | None:
        match command:
            case AddRoot():
                self.made += 1
                self.roots.append(make_root(f"r{self.made}", made=NOW + self.made))
                return RootAdded(f"r{self.made}")
            case ActivateRoot(serial):
                self.roots = [replace(root, active=root.serial == serial) for root in self.roots]
            case IssueLeaves():
                self.leaves = dict.fromkeys(self.leaves, self.active)
            case DropRoots(serials):
                self.roots = [root for root in self.roots if root.serial not in serials]
            case Publish():
                for name in order:
                    self.publish(name)
                return Acknowledged()
            case WaitUntil():
                return OverlapPassed()
        return None


@settings(deadline=None)
@given(data=st.data(), sidecars=st.integers(1, 4))
def test_peers_trust_each_other_at_every_moment_through_crashes_and_partial_pushes(
    data: st.DataObject, sidecars: int
) -> None:
    """Invariant: in whatever order sidecars take what is published, and wherever the control plane dies, every
    sidecar's certificate is trusted by every sidecar; and the replacement ends with one root.
    """
    mesh = _Mesh(sidecars)
    state, commands = step(RootRotation(), Requested("r1"), NOW)
    todo = deque(commands)
    crashes = data.draw(st.lists(st.integers(0, 12), max_size=6))
    done = 0
    while todo:
        if crashes and crashes[0] <= done:
            crashes.pop(0)
            done = 0
            # What was pushed before the crash may have reached only some sidecars.
            if isinstance(todo[0], Publish):
                for name in data.draw(st.sets(st.sampled_from(sorted(mesh.leaves)))):
                    mesh.publish(name)
            state, commands = step(recover(mesh.roots), Resumed(), NOW)
            todo = deque(commands)
            continue
        done += 1
        command = todo.popleft()
        answer = mesh.carry_out(command, data.draw(st.permutations(sorted(mesh.leaves))))
        mesh.check()
        if answer is not None:
            state, commands = step(state, answer, NOW)
            todo.extend(commands)
    assert state == RootRotation()
    assert len(mesh.roots) == 1
    assert mesh.roots[0].active
