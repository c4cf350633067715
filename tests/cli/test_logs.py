"""``logs``: of a running mesh, out of files, as JSON, aligned and without colour."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from tests.cli.conftest import RunCli, ServedMesh
from tests.fakes.backend import T0, make_line

from meshctl.cli import logs
from meshctl.cli.lines import LineWriter
from meshctl.wire.loglines import format_line
from meshctl.wire.models import LogLine, decode

LINES = [
    make_line("checkout-v1-1", "listening", time=T0),
    make_line("frontend-v1-1", "\x1b[32mgreen\x1b[0m", time=T0 + 1),
    make_line("checkout-v2-1", "refused", time=T0 + 2, stream="stderr"),
]


def test_lines_have_aligned_prefixes_and_no_colour_in_a_pipe(served: ServedMesh, run_cli: RunCli) -> None:
    served.backend.lines = LINES
    assert run_cli("logs").shown == (
        "--- exit 0\n--- stdout\n"
        "checkout-v1-1 | listening\nfrontend-v1-1 | green\ncheckout-v2-1 | refused\n"
        "--- stderr\n"
    )


def test_timestamps_and_no_prefix(served: ServedMesh, run_cli: RunCli) -> None:
    served.backend.lines = LINES
    outcome = run_cli("logs", "-t", "--no-prefix", "-n", "1", "checkout")
    assert outcome.stdout == "2026-02-02T02:40:02.000Z refused\n"


def test_json_is_one_object_a_line(served: ServedMesh, run_cli: RunCli) -> None:
    served.backend.lines = LINES
    lines = run_cli("logs", "-o", "json").stdout.splitlines()
    assert [decode(line.encode(), LogLine) for line in lines] == LINES


def test_choices_are_passed_on(served: ServedMesh, run_cli: RunCli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "read_clock", lambda: T0 + 300)
    run_cli(
        *("logs", "checkout", "payment-v1-1", "--tail", "7", "--since", "5m"),
        *("--until", "2026-02-02T02:40:05+00:00", "--grep", "a|b"),
    )
    assert served.backend.asked[-1] == (
        "logs",
        (["checkout", "payment-v1-1"], False, 7, T0, T0 + 5, "a|b", False),
    )


ACCESS = (
    '{"access":"caller","cluster":"payment/v1","listener":"upstream/payment","method":"GET","path":"/",'
    '"status":503,"trace":"4bf92f3577b34da6a3ce929d0e0e4736"}'
)
PLAIN = "GET /charge 503 took 5 ms of trace 4bf92f3577b34da6a3ce929d0e0e4736"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@pytest.mark.parametrize(
    ("words", "access", "plain"),
    [
        (["--sidecars"], False, True),
        (["sidecar.payment"], False, True),
        (["gateway"], False, True),
        (["payment"], True, True),
        (["--access"], True, False),
        (["--access", "--grep", "^.*payment"], True, False),
        (["--access", "--grep", "(?i)PAYMENT|x"], True, False),
        (["--access", "--grep", "(?x) payment  # who"], True, False),
        (["--access", "--grep", "orders"], False, False),
        (["--sidecars", "--grep", "503"], False, True),
        (["--sidecars", "--grep", "^GET"], False, True),
        (["--sidecars", "--grep", "^charge"], False, False),
        (["--sidecars", "--grep", "(G)ET .* took"], False, True),
        (["--trace", TRACE.upper()], True, True),
        (["--trace", TRACE, "--grep", "^GET"], False, True),
        (["--trace", TRACE, "--grep", "POST"], False, False),
    ],
)
def test_lines_are_chosen_where_they_are_read(
    served: ServedMesh, run_cli: RunCli, words: list[str], access: bool, plain: bool
) -> None:
    """One pattern says all that is wanted, so that ``-n`` counts what is shown."""
    run_cli("logs", *words)
    found = next(asked for asked in reversed(served.backend.asked) if asked[0] == "logs")
    pattern = re.compile(found[1][5])
    assert [pattern.search(text) is not None for text in (ACCESS, PLAIN)] == [access, plain]


def test_access_logs_are_shown_as_requests(served: ServedMesh, run_cli: RunCli) -> None:
    served.backend.lines = [
        make_line("sidecar.checkout", ACCESS, time=T0),
        make_line("checkout-v1-1", f"of {TRACE}", time=T0 + 1),
    ]
    seen = "1970-01-01T00:00:00.000Z  checkout -> payment  v1  503   0.0ms  GET /"
    assert run_cli("logs", "--access").stdout == f"{seen}\n"
    assert json.loads(run_cli("logs", "--access", "-o", "json").stdout)["destination"] == "payment"
    assert run_cli("logs", "--trace", TRACE).stdout == (f"sidecar.checkout | {seen}\ncheckout-v1-1    | of {TRACE}\n")
    assert run_cli("logs").stdout == f"checkout-v1-1 | of {TRACE}\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--trace", "123"), "error: --trace: '123' is no trace id\nhint: write its 32 hexadecimal digits"),
        (("--grep", "("), "error: --grep: '(' is no regular expression:"),
        (("--since", "yesterday"), "error: --since: 'yesterday' is neither a duration nor a time\n"),
    ],
)
def test_what_cannot_be_read_is_a_usage_error(
    served: ServedMesh, run_cli: RunCli, words: tuple[str, ...], message: str
) -> None:
    outcome = run_cli("logs", *words)
    assert (outcome.code, outcome.stdout) == (2, "")
    assert outcome.stderr.startswith(message)


def test_an_unknown_name_is_an_error(served: ServedMesh, run_cli: RunCli) -> None:
    outcome = run_cli("logs", "nobody")
    assert (outcome.code, outcome.stdout) == (1, "")
    assert outcome.stderr.startswith("error: no service or instance nobody\nhint: services: checkout,")


@pytest.fixture
def left(project: Path) -> Path:
    """A folder whose mesh has ended and left files."""
    folder = project / ".meshctl" / "logs"
    folder.mkdir(parents=True)
    (project / "mesh.yaml").write_text("services: {pay: {command: x}, pay-out: {command: x}}\n")
    for name, second in (("pay-v1-1", 2), ("pay-out-v1-1", 1), ("sidecar.pay", 3), ("gateway", 4), ("daemon", 5)):
        (folder / f"{name}.log").write_text(format_line(T0 + second, "stdout", f"of {name}"))
    return project


def test_files_are_read_when_nothing_runs(left: Path, run_cli: RunCli) -> None:
    assert run_cli("logs").shown == (
        "--- exit 0\n--- stdout\n"
        "pay-out-v1-1 | of pay-out-v1-1\npay-v1-1     | of pay-v1-1\n"
        f"--- stderr\nno mesh runs in {left}; these are the lines that it left\n"
    )


def test_a_service_s_files_are_not_those_of_one_with_a_longer_name(left: Path, run_cli: RunCli) -> None:
    assert run_cli("logs", "pay").stdout == "pay-v1-1 | of pay-v1-1\n"
    assert run_cli("logs", "pay-out").stdout == "pay-out-v1-1 | of pay-out-v1-1\n"


def test_sidecars_and_the_control_plane_are_shown_when_they_are_asked_for(left: Path, run_cli: RunCli) -> None:
    assert "sidecar.pay  | of sidecar.pay" in run_cli("logs", "--sidecars").stdout
    assert run_cli("logs", "--sidecars", "pay").stdout.count("\n") == 2
    assert run_cli("logs", "gateway").stdout == "gateway | of gateway\n"
    assert run_cli("logs", "daemon").stdout == "daemon | of daemon\n"


def test_a_name_without_files_is_an_error(left: Path, run_cli: RunCli) -> None:
    assert run_cli("logs", "cart").shown == (
        "--- exit 1\n--- stdout\n--- stderr\n"
        "error: there is no log of cart\nhint: there are those of gateway, pay, pay-out\n"
    )


def test_no_mesh_and_no_files_is_exit_3(project: Path, run_cli: RunCli) -> None:
    assert run_cli("logs").code == 3


def test_a_source_has_the_same_colour_always_and_its_text_cannot_colour_others(
    capsys: pytest.CaptureFixture[str],
) -> None:
    writer = LineWriter(colored=True)
    for line in (make_line("a-v1-1", "\x1b[31mred"), make_line("a-v1-1", "plain")):
        writer.write(line)
    first, second = capsys.readouterr().out.splitlines()
    prefix = second.removesuffix("plain")
    assert prefix.endswith("ma-v1-1 | \x1b[0m")
    assert first == f"{prefix}\x1b[31mred\x1b[0m"
