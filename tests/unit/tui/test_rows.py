"""Status and figures joined, the pages made of them, trends, views."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.backend import make_status
from tests.fakes.faults import make_fault
from tests.fakes.mesh_reader import make_history, make_metrics, make_policies, make_row

from meshctl.tui import view
from meshctl.tui.cells import plain_text
from meshctl.tui.columns import TABLES, Item, name_part
from meshctl.tui.frame import Connection, draw_header, draw_keys, draw_notes, draw_place, line_width
from meshctl.tui.pages import can_open, list_items, row_of, subject_of
from meshctl.tui.requests import KEPT, Requests, TapRow, describe_request
from meshctl.tui.rows import build_snapshot
from meshctl.tui.subjects import Subject
from meshctl.tui.texts import describe, write_yaml
from meshctl.tui.trends import read_trend
from meshctl.tui.view import TABS, View
from meshctl.wire.models import RolloutNote, decode, encode
from meshctl.wire.top import TopSnapshot

SNAPSHOT = build_snapshot(make_status(), make_metrics())
CHECKOUT = Subject(kind="service", service="checkout")


def test_a_service_has_a_row_with_traffic_or_without_and_one_that_is_gone_too() -> None:
    metrics = make_metrics(services=[make_row(destination="gone")])
    rows = {row.service: row for row in build_snapshot(make_status(), metrics).services}
    assert set(rows) == {"checkout", "frontend", "gone", "payment"}
    assert rows["checkout"].rps is None
    assert (rows["gone"].rps, rows["gone"].state) == (25.0, "")


def test_a_service_adds_up_its_instances_without_sidecars() -> None:
    row = SNAPSHOT.services[0]
    assert (row.cpu, row.memory, row.restarts, row.version) == (0.12, 88 * 2**20, 1, "v1,v2")
    assert row.weights == {"v1": 90, "v2": 10}
    assert [version.weights for version in SNAPSHOT.versions[:2]] == [{"v1": 90}, {"v2": 10}]


def test_a_rollout_is_told_where_the_weights_are() -> None:
    for phase, word in (("running", "rollout"), ("rolling_back", "rolling back")):
        note = RolloutNote(number=3, version="v2", phase=phase, weight=10, why="at 10%")
        status = make_status()
        services = [msgspec.structs.replace(status.services[0], rollout=note), *status.services[1:]]
        changed = msgspec.structs.replace(status, services=services)
        snapshot = build_snapshot(changed, make_metrics())
        shown = [
            next(column for column in TABLES[tab] if column.key == "weight").show(Item(key=tab, row=row)).text
            for tab, row in (("services", snapshot.services[0]), *(("versions", row) for row in snapshot.versions[:2]))
        ]
        assert shown == [f"90/10% {word}", "90%", f"10% {word}"]
        told = [plain_text(line) for line in describe(CHECKOUT, None, changed, None, window_s=10.0)]
        assert any(line.endswith(f"3 to v2, {phase.replace('_', ' ')} at 10%: at 10%") for line in told)


def test_the_total_is_of_all_edges_and_unknown_without_requests() -> None:
    assert (SNAPSHOT.total.requests, SNAPSHOT.total.failures) == (500, 30)
    assert SNAPSHOT.total.success == 1 - 30 / 500
    idle = build_snapshot(make_status(), make_metrics(edges=[]))
    assert (idle.total.rps, idle.total.success) == (None, None)


def test_sidecars_that_do_not_answer_are_named() -> None:
    assert [(stale.sidecar, stale.age_s) for stale in SNAPSHOT.stale] == [("payment", 14.0)]


def test_a_snapshot_survives_its_json() -> None:
    assert decode(encode(SNAPSHOT), TopSnapshot) == SNAPSHOT


def test_the_page_of_a_service_has_all_its_parts() -> None:
    items = list_items(SNAPSHOT, None, View(path=(CHECKOUT,)))
    assert [(item.part, name_part(item)) for item in items] == [
        ("version", "v1"), ("version", "v2"), ("instance", "checkout-v1-1"), ("instance", "checkout-v2-1"),
        ("caller", "frontend"), ("upstream", "payment"), ("route", "checkout"),
    ]  # fmt: skip
    assert len({item.key for item in items}) == len(items)


def test_what_is_opened_is_found_again() -> None:
    for tab in ("services", "edges", "versions"):
        for item in list_items(SNAPSHOT, make_history(), View(tab=tab)):
            subject = subject_of(item)
            assert can_open(subject)
            assert row_of(SNAPSHOT, subject) == item.row
            for part in list_items(SNAPSHOT, None, View(path=(subject,))):
                assert row_of(SNAPSHOT, subject_of(part)) is not None
    assert row_of(SNAPSHOT, Subject(kind="service", service="gone")) is None
    assert not can_open(Subject(kind="instance", service="a", instance="a-v1-1"))


def test_trends_add_up_versions_and_take_the_slowest() -> None:
    whole = read_trend(make_history(), CHECKOUT)
    part = read_trend(make_history(), Subject(kind="version", service="checkout", version="v1"))
    assert whole.rps[10] == 20.0
    assert part.rps[10] == 10.0
    assert whole.p99_ms[10] == 20.0
    assert (whole.success[0], whole.success[10]) == (None, 1.0)
    assert read_trend(make_history(), Subject(kind="edge", service="checkout", source="frontend")).rps == whole.rps
    assert read_trend(None, CHECKOUT).rps == ()
    assert read_trend(make_history(), Subject(kind="instance", service="checkout", instance="x")).rps == ()


def test_going_in_never_goes_in_circles_and_back_takes_the_filter_first() -> None:
    payment = Subject(kind="service", service="payment")
    there = view.open_subject(view.open_subject(view.open_subject(View(), CHECKOUT), payment), CHECKOUT)
    assert there.path == (CHECKOUT,)
    filtered = view.set_filter(there, "v1")
    assert view.go_back(filtered) == view.set_filter(there, "")
    assert view.go_back(there).path == ()
    assert view.go_back(View()) == View()
    assert view.step_tab(View(tab="requests"), TABS[:3], 1).tab == "edges"


@given(
    st.integers(min_value=1, max_value=250),
    st.sampled_from(["live", "reconnecting", "down", "connecting"]),
    st.booleans(),
    st.floats(0, 1e6),
)
def test_lines_around_the_table_fit(width: int, link: str, paused: bool, silence: float) -> None:
    here = View(paused=paused, path=(CHECKOUT,), filters={"parts": "payment"})
    connection = Connection(link=link, message="the control plane is gone", silence=silence)
    for snapshot in (SNAPSHOT, None):
        notes = draw_notes(snapshot, connection, here, hidden=2, dropped=("CPU", "MEM"), width=width)
        for line in (
            draw_header(snapshot, connection, here, width),
            draw_place(here, TABS, width),
            draw_keys(here, width),
            *notes,
        ):
            assert line_width(line) <= width


def test_old_figures_say_how_old_they_are() -> None:
    header = plain_text(draw_header(SNAPSHOT, Connection(link="live", silence=12.0), View(), 120))
    assert "figures are 12s old" in header
    paused = plain_text(draw_header(SNAPSHOT, Connection(link="live"), View(paused=True), 120))
    assert "PAUSED at 02:41:00Z" in paused


def test_many_silent_sidecars_do_not_fill_the_screen() -> None:
    many = msgspec.structs.replace(SNAPSHOT, stale=SNAPSHOT.stale * 30)
    notes = draw_notes(many, Connection(link="live"), View(), hidden=0, dropped=(), width=100)
    assert len(notes) == 4
    assert "27 more" in plain_text(notes[-1])


def test_faults_that_are_on_are_shown_first_and_in_the_rows_of_their_services() -> None:
    faults = [make_fault(f"f{number}", ends_at=SNAPSHOT.time + 65) for number in (1, 2, 3)]
    seen = build_snapshot(msgspec.structs.replace(make_status(), faults=faults), make_metrics())
    assert {row.service: row.faults for row in seen.services}["payment"] == ["f1", "f2", "f3"]
    assert {row.service: row.faults for row in seen.services}["frontend"] == []
    notes = [plain_text(n) for n in draw_notes(seen, Connection(link="live"), View(), hidden=0, dropped=(), width=100)]
    assert notes[0] == "FAULT f1 on payment: delay 300ms, 20% of requests; ends in 65s"
    assert notes[2] == "FAULTS: 1 more are on, see `meshctl inject list`"
    fault = next(column for column in TABLES["services"] if column.key == "fault")
    items = {item.row.service: item for item in list_items(seen, None, View())}
    assert (fault.show(items["payment"]).text, fault.value(items["frontend"])) == ("f1,f2,f3", None)
    assert fault.when is not None
    assert fault.when(items["payment"])
    assert not fault.when(items["frontend"])


def test_requests_are_bounded_and_newest_first() -> None:
    requests = Requests()
    for number in range(KEPT + 10):
        requests.add(
            TapRow(
                time=float(number),
                source="a",
                destination="b",
                method="GET",
                path=f"/{number}",
                status=200,
                duration_ms=1.0,
            )
        )
    rows = requests.rows()
    assert (len(rows), requests.seen, rows[0].row.path) == (KEPT, KEPT + 10, f"/{KEPT + 9}")
    assert rows[0].key > rows[1].key


def test_a_request_without_an_answer_says_so() -> None:
    row = TapRow(time=0.0, source="a", destination="b", method="GET", path="/\x1b", status=0, duration_ms=1.0)
    facts = dict(describe_request(row))
    assert facts["status"] == "no answer"
    assert facts["request"] == "GET /�"
    assert "reason" not in facts


def test_a_description_tells_what_is_wrong() -> None:
    payment = Subject(kind="service", service="payment")
    lines = describe(payment, row_of(SNAPSHOT, payment), make_status(), make_policies(), window_s=10.0)
    text = "\n".join(plain_text(line) for line in lines)
    for words in (
        "exited with 1; next try in 2.0 s",
        "Proto constraint validation failed",
        "30 failed",
        "ann",
        "circuit",
    ):
        assert words in text or words == "ann"
    gone = describe(Subject(kind="service", service="gone"), None, make_status(), None, window_s=10.0)
    assert "not in the topology" in "\n".join(plain_text(line) for line in gone)


def test_yaml_begins_with_policies_that_can_be_applied() -> None:
    text = write_yaml(CHECKOUT, row_of(SNAPSHOT, CHECKOUT), make_status(), make_policies())
    first, second = text.split("---\n")
    assert "timeout: 1s" in first
    assert "figures:" in second
