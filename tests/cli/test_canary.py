"""`meshctl canary shift` and `mirror`: what they ask for, what they say, what they refuse before they ask."""

from __future__ import annotations

import getpass
import json
from pathlib import Path

import pytest
from tests.cli.conftest import RunCli, ServedMesh
from tests.fakes.backend import make_event, make_instance, make_service, make_status

from meshctl.cli.canary import describe_traffic, read_weights, split_header
from meshctl.cli.starting import concerns, describe_waiting
from meshctl.errors import ConflictError, StartError, UsageError
from meshctl.wire.policies import PolicyChangeShape
from meshctl.wire.shifts import HeaderTraffic, MirrorRequest, MirrorTraffic, ShiftRequest, Traffic, TrafficResult

CHANGE = PolicyChangeShape(
    owner="checkout", kind="split", path="split", before=None, after="10", before_origin=None, after_origin=None
)
AUTHOR = f"{getpass.getuser()}@canary shift"


def test_a_shift_says_where_requests_go_and_that_it_is_in_effect(served: ServedMesh, run_cli: RunCli) -> None:
    served.backend.shifts.changes = [CHANGE]
    done = run_cli("canary", "shift", "checkout", "v2=10%", "-m", "try it")
    assert done.shown == (
        "--- exit 0\n--- stdout\n--- stderr\n"
        "checkout: v1 100% -> 90%, v2 0% -> 10%\n"
        "revision 8; applied to 2/2 sidecars in 12 ms\n"
    )
    asked = ShiftRequest(service="checkout", weights={"v2": 10}, author=AUTHOR, reason="try it", base=7)
    assert served.backend.asked[-1] == ("shift", asked)


def test_what_was_started_what_idles_and_notes_are_told(served: ServedMesh, run_cli: RunCli) -> None:
    served.backend.shifts.changes = [CHANGE]
    served.backend.shifts.started, served.backend.shifts.idle = ["checkout-v2-1"], ["v1"]
    served.backend.shifts.notes = ["requests that the route admins takes go where it says"]
    assert run_cli("canary", "shift", "checkout", "v2=100").stderr == (
        "started checkout-v2-1, healthy after 1.2 s\n"
        "checkout: v1 100% -> 0%, v2 0% -> 100%\n"
        "requests that the route admins takes go where it says\n"
        "revision 8; applied to 2/2 sidecars in 12 ms\n"
        "checkout/v1 runs on and gets nothing; `meshctl scale checkout/v1=0` stops it\n"
    )


def test_nothing_new_and_a_dry_run_say_so(served: ServedMesh, run_cli: RunCli) -> None:
    assert run_cli("canary", "shift", "checkout", "v2=0").stderr == (
        "checkout: v1 100%, v2 0%\nnothing changed: that is in force already, as revision 8 has it\n"
    )
    served.backend.shifts.changes = [CHANGE]
    assert run_cli("canary", "shift", "checkout", "v2=5", "--dry-run").stderr == (
        "checkout: v1 100% -> 95%, v2 0% -> 5%\nEnvoy would take it at 2/2 sidecars (12 ms); nothing was changed\n"
    )


def test_who_gets_it_is_sent_as_it_was_meant(served: ServedMesh, run_cli: RunCli) -> None:
    words = ("--header", "x-canary: 1", "--sticky", "header:x-user", "--timeout", "2m", "--force", "--base", "3")
    assert run_cli("canary", "shift", "checkout", "v2=100", *words).code == 0
    assert served.backend.asked[-1][1] == ShiftRequest(
        service="checkout",
        weights={"v2": 100},
        header="x-canary",
        value="1",
        sticky="header:x-user",
        timeout=120,
        force=True,
        author=AUTHOR,
        base=3,
    )


def test_the_result_is_one_document_of_json(served: ServedMesh, run_cli: RunCli) -> None:
    done = run_cli("canary", "shift", "checkout", "v2=10", "-o", "json")
    found = json.loads(done.stdout)
    assert (found["service"], found["after"]["weights"], done.stderr) == ("checkout", {"v1": 90, "v2": 10}, "")


def test_copies_begin_and_end(served: ServedMesh, run_cli: RunCli) -> None:
    served.backend.shifts.changes = [CHANGE]
    done = run_cli("canary", "mirror", "checkout", "v2", "--percent", "2.5")
    assert "copies of 2.5% of the requests go to v2\n" in done.stderr
    author = f"{getpass.getuser()}@canary mirror"
    asked = MirrorRequest(service="checkout", version="v2", percent=2.5, author=author, base=7)
    assert served.backend.asked[-1] == ("mirror", asked)
    assert run_cli("canary", "mirror", "checkout", "--stop").code == 0
    assert served.backend.asked[-1][1].version == ""


@pytest.mark.parametrize("words", [("checkout",), ("checkout", "v2", "--stop")])
def test_mirroring_wants_a_version_or_an_end(served: ServedMesh, run_cli: RunCli, words: tuple[str, ...]) -> None:
    done = run_cli("canary", "mirror", *words)
    assert done.code == 2
    assert "meshctl canary mirror checkout v2, or meshctl canary mirror checkout --stop" in done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConflictError("a rollout of checkout to v2 is at 25%", hint="--force shifts"), 1),
        (StartError("checkout-v2-1 did not come up: exited with 3", detail="last lines:\n  boom"), 1),
    ],
)
def test_a_refusal_says_why(served: ServedMesh, run_cli: RunCli, error: StartError | ConflictError, code: int) -> None:
    served.backend.failures["shift"] = error
    done = run_cli("canary", "shift", "checkout", "v2=10")
    assert done.code == code
    assert error.message in done.stderr
    assert error.detail.partition("\n")[2] in done.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["v2"], "does not say which version gets how much"),
        (["=5"], "does not say which version gets how much"),
        (["v2=x"], "the weight of v2 cannot be x"),
        (["v2="], "the weight of v2 cannot be nothing"),
        (["v2=2.5"], "the weight of v2 cannot be 2.5"),
        (["v2=-5"], "the weight of v2 cannot be -5"),
        (["v2=101%"], "the weight of v2 cannot be 101%"),
        (["v2=5", "v2=6"], "v2 is named twice"),
    ],
)
def test_weights_that_cannot_be_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        read_weights(words)


def test_weights_and_headers_are_read() -> None:
    assert read_weights(["v2=10%", "v3=5"]) == {"v2": 10, "v3": 5}
    assert split_header("x-a=b=c") == ("x-a", "b=c")
    assert split_header("x-a: b") == ("x-a", "b")
    assert split_header("x-a") == ("x-a", None)
    with pytest.raises(UsageError, match="is no header"):
        split_header("=b")


def traffic(before: Traffic, after: Traffic) -> list[str]:
    figures = {"service": "shop", "stable": "v1", "revision": 8, "changes": [], "acked": 2, "total": 2}
    result = TrafficResult(before=before, after=after, duration_ms=1.0, **figures)  # type: ignore[arg-type]
    return list(describe_traffic(result))


def test_who_gets_what_is_told_as_it_begins_and_ends() -> None:
    plain = Traffic(weights={"v1": 100, "v2": 0})
    header = HeaderTraffic(header="x-canary", value="1", weights={"v1": 40, "v2": 60})
    special = Traffic(
        weights={"v1": 100, "v2": 0},
        header=header,
        sticky="cookie:seen",
        mirror=MirrorTraffic(version="v2", percent=0.5),
    )
    assert traffic(plain, special) == [
        "shop: v1 100%, v2 0%",
        "requests with x-canary: 1: v1 40%, v2 60%",
        "a user stays on one version, by the cookie seen",
        "copies of 0.5% of the requests go to v2",
    ]
    assert traffic(special, plain)[1:] == [
        "requests with x-canary: 1 go where all others go",
        "nothing keeps a user on one version any more",
        "no copies go to v2 any more",
    ]


def test_only_what_concerns_the_service_is_told_while_it_starts() -> None:
    status = make_status()
    checkout = make_event(1, "ready", subject="checkout-v2-1")
    assert concerns(checkout, "checkout", status)
    assert not concerns(checkout, "frontend", status)
    assert concerns(make_event(2, "starting", subject="checkout/v2"), "checkout", status)
    late = make_instance("a-v2-1", "v2", state="starting", health="unknown", reason="answered 503")
    status = make_status(services=[make_service("a", [make_instance("a-v1-1"), late])])
    assert describe_waiting(status, "a") == "a-v2-1: starting, answered 503"
    assert describe_waiting(status, "b") == ""


def test_versions_are_completed(folder: Path, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "mesh.yaml").write_text("services: {shop: {command: x, versions: {v1: {}, v2: {}, v3: {}}}}")
    monkeypatch.setenv("_MESHCTL_COMPLETE", "complete_bash")

    def complete(line: str) -> list[str]:
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(len(line.split(" ")) - 1))
        done = run_cli()
        assert done.stderr == ""
        return done.stdout.split()

    assert complete("meshctl canary sh") == ["shift"]
    assert complete("meshctl canary shift s") == ["shop"]
    assert complete("meshctl canary shift shop v") == ["v2=", "v3="]
    assert complete("meshctl canary shift shop v2=5 ") == ["v3="]
    assert complete("meshctl canary mirror shop ") == ["v2", "v3"]
