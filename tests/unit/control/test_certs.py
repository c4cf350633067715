"""The certificate runner, by a clock that stands still: renewals, rotations, failures and crashes in the middle."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.fakes.certificate_authority import FakeAuthority
from tests.fakes.clock import FakeClock

from meshctl.adapters.cert_files import FileAuthority
from meshctl.control.certs import LONGEST_WAIT, RETRY_DELAY, CertRunner
from meshctl.errors import ConflictError, MeshctlError, NotFoundError, RejectedError, WaitTimeoutError
from meshctl.identity.rotation import LEAF_LIFETIME, ROOT_LIFETIME, recover, rotates_at
from meshctl.ports import CertificateAuthority
from meshctl.wire.models import AppliedResult


@dataclass(slots=True)
class Bench:
    """A runner with everything around it; ``sidecars`` is what each one acknowledged last: (serial, roots)."""

    authority: CertificateAuthority
    clock: FakeClock = field(default_factory=FakeClock)
    services: set[str] = field(default_factory=lambda: {"web", "orders", "gateway"})
    sidecars: dict[str, tuple[str, frozenset[str]]] = field(default_factory=dict)
    history: list[tuple[list[str], str]] = field(default_factory=list)
    events: list[tuple[str, str, str, str]] = field(default_factory=list)
    refusal: MeshctlError | None = None
    refuse_at: int | None = None
    hang_at: int | None = None
    served: Callable[[str], str] | None = None

    def make_runner(self, *, leaf_lifetime: float = LEAF_LIFETIME) -> CertRunner:
        return CertRunner(
            authority=self.authority,
            clock=self.clock,
            services=lambda: frozenset(self.services),
            publish=self.publish,
            report=lambda kind, subject, message, level: self.events.append((kind, subject, message, level)),
            wait=self.clock.wait,
            served=None if self.served is None else self.ask,
            leaf_lifetime=leaf_lifetime,
        )

    async def publish(self) -> AppliedResult:
        await asyncio.sleep(0)
        if self.hang_at == len(self.history):
            await asyncio.Event().wait()
        if self.refuse_at == len(self.history):
            raise RejectedError("sidecar web refused its secrets")
        if self.refusal is not None:
            raise self.refusal
        roots = self.authority.roots()
        active = next(root.serial for root in roots if root.active)
        self.history.append(([root.serial for root in roots], active))
        for service in self.services:
            leaf = self.authority.leaf(service)
            assert leaf is not None
            self.sidecars[service] = (leaf.serial, frozenset(root.serial for root in roots))
        return AppliedResult(message="", acked=len(self.services), total=len(self.services), duration_ms=1.5)

    async def ask(self, service: str) -> str:
        assert self.served is not None
        return self.served(service)

    def kinds(self) -> list[str]:
        return [kind for kind, _, _, _ in self.events]

    def leaf_serial(self, service: str) -> str:
        leaf = self.authority.leaf(service)
        assert leaf is not None
        return leaf.serial

    @asynccontextmanager
    async def running(self, runner: CertRunner) -> AsyncIterator[None]:
        task = asyncio.ensure_future(runner.run())
        await self.clock.settle()
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()


@pytest.fixture
def bench() -> Bench:
    return Bench(FakeAuthority("shop.local"))


# ---------------------------------------------------------------------------------------------- ensuring


def test_ensuring_issues_what_is_missing_and_only_that(bench: Bench) -> None:
    runner = bench.make_runner()
    assert runner.ensure({"web", "orders"}) == ("orders", "web")
    before = bench.leaf_serial("web")
    assert runner.ensure(["web", "orders", "stock", "stock"]) == ("stock",)
    assert bench.leaf_serial("web") == before
    assert bench.history == []


def test_ensuring_replaces_an_expired_root_and_every_leaf_of_it(bench: Bench) -> None:
    runner = bench.make_runner()
    runner.ensure(bench.services)
    later = Bench(bench.authority, clock=FakeClock(now=bench.clock.now() + ROOT_LIFETIME + 1))
    assert later.make_runner().ensure(bench.services) == ("gateway", "orders", "web")
    assert recover(bench.authority.roots()).phase == "switched"


# ---------------------------------------------------------------------------------------------- renewing


async def test_each_leaf_is_renewed_and_published_when_it_is_due_before_two_thirds_of_its_life(bench: Bench) -> None:
    runner = bench.make_runner()
    runner.ensure(bench.services)
    start = bench.clock.now()
    first = {service: bench.leaf_serial(service) for service in bench.services}
    async with bench.running(runner):
        await bench.clock.advance(LEAF_LIFETIME * 0.49)
        assert bench.history == []
        await bench.clock.advance(LEAF_LIFETIME * 0.16)
    assert bench.clock.now() < start + LEAF_LIFETIME * 2 / 3
    for service in bench.services:
        assert bench.leaf_serial(service) != first[service]
        assert bench.sidecars[service][0] == bench.leaf_serial(service)
    assert sorted(subject for kind, subject, _, _ in bench.events if kind == "certificate.rotated") == [
        "gateway",
        "orders",
        "web",
    ]


async def test_short_lived_leafs_are_renewed_for_ever_and_never_expire(bench: Bench) -> None:
    runner = bench.make_runner(leaf_lifetime=120.0)
    runner.ensure(bench.services)
    async with bench.running(runner):
        for _ in range(600):
            await bench.clock.advance(1)
            for service in bench.services:
                leaf = bench.authority.leaf(service)
                assert leaf is not None
                assert leaf.not_before <= bench.clock.now() < leaf.not_after - 120 / 3 + 1
    assert len(bench.history) >= 600 / (120 * 0.62)


async def test_after_the_machine_slept_expired_leafs_are_renewed_within_a_minute(bench: Bench) -> None:
    runner = bench.make_runner()
    runner.ensure(bench.services)
    async with bench.running(runner):
        bench.clock._now += 2 * LEAF_LIFETIME
        await bench.clock.advance(LONGEST_WAIT)
        assert len(bench.history) == 1
        assert set(bench.sidecars) == bench.services


async def test_what_was_not_acknowledged_is_reported_and_published_again(bench: Bench) -> None:
    runner = bench.make_runner()
    runner.ensure(bench.services)
    bench.refusal = WaitTimeoutError("sidecar web did not answer")
    async with bench.running(runner):
        await bench.clock.until(lambda: bool(bench.events), limit=LEAF_LIFETIME)
        assert bench.kinds() == ["certificate.failed"]
        assert "sidecar web did not answer" in bench.events[0][2]
        assert bench.events[0][3] == "error"
        renewed = next(service for service in bench.services if bench.authority.leaf(service) is not None)
        bench.refusal = None
        await bench.clock.advance(RETRY_DELAY)
        assert len(bench.history) == 1
        assert bench.sidecars[renewed][0] == bench.leaf_serial(renewed)
        assert bench.kinds() == ["certificate.failed", "certificate.rotated"]


async def test_a_ca_that_cannot_store_is_tried_again(bench: Bench) -> None:
    authority = FakeAuthority("shop.local")
    bench.authority = authority
    runner = bench.make_runner()
    runner.ensure(bench.services)
    authority.broken = "the disk is full"
    async with bench.running(runner):
        await bench.clock.until(lambda: bool(bench.events), limit=LEAF_LIFETIME)
        assert "the disk is full" in bench.events[0][2]
        authority.broken = ""
        await bench.clock.advance(RETRY_DELAY)
        assert len(bench.history) == 1


async def test_a_service_that_is_gone_is_forgotten_and_a_new_one_gets_a_leaf(bench: Bench) -> None:
    runner = bench.make_runner()
    runner.ensure(bench.services)
    async with bench.running(runner):
        bench.services -= {"orders"}
        bench.services |= {"stock"}
        await bench.clock.advance(LONGEST_WAIT)
        assert bench.authority.leaf("stock") is not None
        assert set(bench.sidecars) == {"web", "gateway", "stock"}
    assert [item.name for item in runner.list() if item.kind == "leaf"] == ["gateway", "stock", "web"]


# ---------------------------------------------------------------------------------------------- rotating leafs


async def test_rotating_one_service_changes_only_its_certificate(bench: Bench) -> None:
    runner = bench.make_runner()
    runner.ensure(bench.services)
    before = {service: bench.leaf_serial(service) for service in bench.services}
    applied = await runner.rotate("web")
    assert (applied.message, applied.acked, applied.total) == ("rotated the certificate of web", 3, 3)
    changed = {service for service in bench.services if bench.leaf_serial(service) != before[service]}
    assert changed == {"web"}
    assert bench.sidecars["web"][0] == bench.leaf_serial("web")
    assert [(kind, subject) for kind, subject, _, _ in bench.events] == [("certificate.rotated", "web")]


async def test_rotating_all_changes_every_certificate_in_one_publication(bench: Bench) -> None:
    runner = bench.make_runner()
    runner.ensure(bench.services)
    before = {service: bench.leaf_serial(service) for service in bench.services}
    applied = await runner.rotate()
    assert applied.message == "rotated every certificate"
    assert all(bench.leaf_serial(service) != before[service] for service in bench.services)
    assert len(bench.history) == 1


async def test_rotating_an_unknown_service_is_refused_and_names_the_known(bench: Bench) -> None:
    with pytest.raises(NotFoundError, match="no sidecar nobody") as caught:
        await bench.make_runner().rotate("nobody")
    assert caught.value.hint == "sidecars: gateway, orders, web"


async def test_a_rotation_that_is_refused_says_so_and_is_published_by_the_loop(bench: Bench) -> None:
    runner = bench.make_runner()
    runner.ensure(bench.services)
    bench.refusal = RejectedError("sidecar web refused its secrets")
    with pytest.raises(RejectedError):
        await runner.rotate("web")
    bench.refusal = None
    async with bench.running(runner):
        assert bench.sidecars["web"][0] == bench.leaf_serial("web")


# ---------------------------------------------------------------------------------------------- replacing the root


async def finish_root_rotation(bench: Bench, runner: CertRunner) -> AppliedResult:
    task = asyncio.ensure_future(runner.rotate_root())
    await bench.clock.until(task.done)
    return task.result()


async def test_the_root_is_introduced_switched_to_and_the_old_one_retired_after_the_overlap(bench: Bench) -> None:
    runner = bench.make_runner()
    runner.ensure(bench.services)
    (old,) = (root.serial for root in bench.authority.roots())
    start = bench.clock.now()
    applied = await finish_root_rotation(bench, runner)
    (new,) = (root.serial for root in bench.authority.roots())
    assert bench.history == [([old, new], old), ([old, new], new), ([new], new)]
    assert bench.clock.now() - start == pytest.approx(10)
    assert (applied.message, applied.acked) == ("replaced the root and every certificate", 3)
    assert applied.duration_ms == pytest.approx(10_000)
    for service in bench.services:
        leaf = bench.authority.leaf(service)
        assert leaf is not None
        assert leaf.issuer_serial == new
        assert bench.sidecars[service] == (leaf.serial, frozenset({new}))
    assert bench.kinds() == [
        "root.introduced",
        *["certificate.rotated"] * 3,
        "root.switched",
        "root.retired",
    ]


async def test_a_second_replacement_meanwhile_is_a_conflict(bench: Bench) -> None:
    runner = bench.make_runner()
    runner.ensure(bench.services)
    task = asyncio.ensure_future(runner.rotate_root())
    await bench.clock.settle()
    with pytest.raises(ConflictError, match="already"):
        await runner.rotate_root()
    await bench.clock.until(task.done)
    assert len(bench.authority.roots()) == 1
    await finish_root_rotation(bench, runner)


@pytest.mark.parametrize("refused", [0, 1, 2])
async def test_no_step_is_taken_before_the_one_before_is_acknowledged(bench: Bench, refused: int) -> None:
    runner = bench.make_runner()
    runner.ensure(bench.services)
    (old,) = (root.serial for root in bench.authority.roots())
    bench.refuse_at = refused
    with pytest.raises(RejectedError):
        await finish_root_rotation(bench, runner)
    roots = {root.serial: root.active for root in bench.authority.roots()}
    assert roots.get(old) == [True, False, None][refused]
    assert len(roots) == [2, 2, 1][refused]
    assert len(bench.history) == refused
    # The loop goes on with it from that very step when sidecars acknowledge again.
    bench.refuse_at = None
    async with bench.running(runner):
        await bench.clock.advance(11)
    (new,) = (root.serial for root in bench.authority.roots())
    assert new != old
    assert {trusted for _, trusted in bench.sidecars.values()} == {frozenset({new})}


@pytest.mark.parametrize("published", [0, 1, 2])
async def test_a_new_control_plane_completes_what_a_dead_one_began(tmp_path: Path, published: int) -> None:
    """The dead one leaves nothing but its directory."""
    path = str(tmp_path / "ca")
    bench = Bench(FileAuthority(path, mesh="shop", trust_domain="shop.local"))
    runner = bench.make_runner()
    runner.ensure(bench.services)
    (old,) = (root.serial for root in bench.authority.roots())
    bench.hang_at = published
    task = asyncio.ensure_future(runner.rotate_root())
    await bench.clock.advance(11)
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])
    assert len(bench.history) == published

    after = Bench(FileAuthority(path, mesh="shop", trust_domain="shop.local"), clock=bench.clock)
    runner = after.make_runner()
    runner.ensure(after.services)
    # As every control plane does when it starts, before the runner runs.
    await after.publish()
    async with after.running(runner):
        await after.clock.advance(11)
    (new,) = after.authority.roots()
    assert new.active
    assert new.serial != old
    for service, (serial, trusted) in after.sidecars.items():
        leaf = after.authority.leaf(service)
        assert leaf is not None
        assert (serial, trusted, leaf.issuer_serial) == (leaf.serial, frozenset({new.serial}), new.serial)
    assert set(after.sidecars) == after.services
    assert (await runner.verify()).ok


async def test_asking_for_a_replacement_completes_an_interrupted_one(bench: Bench) -> None:
    runner = bench.make_runner()
    runner.ensure(bench.services)
    added = bench.authority.add_root(now=bench.clock.now(), lifetime=ROOT_LIFETIME)
    await finish_root_rotation(bench, runner)
    assert [root.serial for root in bench.authority.roots()] == [added.serial]


async def test_a_root_is_replaced_by_itself_at_two_thirds_of_its_life(bench: Bench) -> None:
    runner = bench.make_runner()
    runner.ensure(bench.services)
    (old,) = bench.authority.roots()
    bench.clock._now = old.not_before + 60 + ROOT_LIFETIME * 0.67
    async with bench.running(runner):
        await bench.clock.advance(60)
    (new,) = bench.authority.roots()
    assert new.serial != old.serial
    assert {trusted for _, trusted in bench.sidecars.values()} == {frozenset({new.serial})}


# ---------------------------------------------------------------------------------------------- showing


async def test_the_list_shows_roots_then_leafs_with_the_moment_of_their_renewal(tmp_path: Path) -> None:
    bench = Bench(FileAuthority(str(tmp_path / "ca"), mesh="shop", trust_domain="shop.local"))
    runner = bench.make_runner()
    assert runner.list() == ()
    runner.ensure(["web"])
    root, leaf = runner.list()
    assert (root.kind, root.name, root.active) == ("root", f"root-{root.serial[:8]}", True)
    assert root.spiffe_id == "spiffe://shop.local"
    assert (leaf.kind, leaf.name, leaf.spiffe_id) == ("leaf", "web", "spiffe://shop.local/web")
    assert leaf.issuer_serial == root.serial
    stored = bench.authority.leaf("web")
    assert stored is not None
    assert leaf.rotates_at == rotates_at(stored, "shop.local")
    assert leaf.pem.startswith("-----BEGIN CERTIFICATE-----")
    assert all("PRIVATE KEY" not in item.pem for item in (root, leaf))


def served_text(serial: str) -> str:
    short = serial.lstrip("0")
    return json.dumps({"certificates": [{"cert_chain": [{"serial_number": short}]}]})


async def test_verifying_compares_what_each_sidecar_serves(bench: Bench) -> None:
    def served(service: str) -> str:
        match service:
            case "gateway":
                return served_text(bench.leaf_serial("gateway"))
            case "orders":
                return served_text("77" * 16)
        raise OSError("no such socket")

    bench.served = served
    runner = bench.make_runner()
    runner.ensure(bench.services)
    report = await runner.verify()
    assert not report.ok
    found = {check.name: (check.ok, check.message) for check in report.checks if check.name.startswith("sidecar ")}
    current = {service: bench.leaf_serial(service)[:8] for service in bench.services}
    assert found == {
        "sidecar gateway": (True, f"it serves {current['gateway']}, the current certificate"),
        "sidecar orders": (False, f"it serves 77777777 instead of {current['orders']}"),
        "sidecar web": (False, "it does not answer: no such socket"),
    }


@pytest.mark.parametrize(
    ("text", "ok", "message"),
    [("{}", True, "it uses no certificate"), ("nonsense", False, "its answer cannot be read")],
)
async def test_a_sidecar_without_certificates_is_fine_and_one_that_talks_nonsense_is_not(
    bench: Bench, text: str, ok: bool, message: str
) -> None:
    bench.served = lambda _service: text
    runner = bench.make_runner()
    runner.ensure(bench.services)
    checks = [check for check in (await runner.verify()).checks if check.name.startswith("sidecar ")]
    assert len(checks) == 3
    assert all(check.ok is ok and check.message.startswith(message) for check in checks)


async def test_a_false_certificate_is_not_valid_before_its_moment_and_is_left_alone_until_then(bench: Bench) -> None:
    left_alone: set[str] = set()
    runner = CertRunner(
        authority=bench.authority,
        clock=bench.clock,
        services=lambda: frozenset(bench.services),
        left_alone=lambda: frozenset(left_alone),
        publish=bench.publish,
        report=lambda *_: None,
        wait=bench.clock.wait,
    )
    runner.ensure(bench.services)
    left_alone.add("web")
    moment = bench.clock.now() + 60
    await runner.falsify("web", moment)
    leaf = bench.authority.leaf("web")
    assert leaf is not None
    assert abs(leaf.not_before - moment) <= 1
    assert bench.sidecars["web"][0] == leaf.serial
    assert runner.ensure(bench.services) == ()
    left_alone.clear()
    assert runner.ensure(bench.services) == ("web",)
    leaf = bench.authority.leaf("web")
    assert leaf is not None
    assert leaf.not_before <= bench.clock.now()
