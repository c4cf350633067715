"""What Envoy is told of faults: which requests, and the script that draws for them."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.support.lua_filter import LuaFilter

from meshctl.envoy import pb
from meshctl.envoy.filters.fault import FAULT_HEADER, configure, configure_draw, mark
from meshctl.plan.policies.faults import FaultDraw, FaultMatch, FaultPlan
from meshctl.spec.routing_schema import PathMatch
from meshctl.spec.validate_routes import is_under

DELAY, RATE = "x-envoy-fault-delay-request", "x-envoy-fault-throughput-response"
SEGMENTS = st.lists(st.sampled_from(["a", "ab", ".", "a.b", "+"]), max_size=3).map(lambda parts: "/" + "/".join(parts))


def pattern_of(match: FaultMatch) -> str:
    (condition,) = configure(FaultPlan(slot=0, fault="f1", key="k", delay=1.0, match=match)).headers
    found: str = condition.string_match.safe_regex.regex
    return found


@given(prefix=SEGMENTS.map(lambda path: path.rstrip("/") or "/x"), path=SEGMENTS, query=st.sampled_from(["", "?a=/b"]))
def test_a_path_is_matched_by_whole_segments_whatever_its_query(prefix: str, path: str, query: str) -> None:
    matched = re.fullmatch(pattern_of(FaultMatch(path=PathMatch(value=prefix))), path + query) is not None
    assert matched == is_under(path, prefix)
    exact = re.fullmatch(pattern_of(FaultMatch(path=PathMatch(kind="exact", value=prefix))), path + query)
    assert (exact is not None) == (path == prefix)


def test_spared_paths_are_those_alone() -> None:
    config = configure(FaultPlan(slot=0, fault="f1", key="k", delay=1.0, match=FaultMatch(spared=("/health", "/a.b"))))
    (condition,) = config.headers
    assert condition.invert_match
    found = [path for path in ("/health", "/health?x", "/health/x", "/a.b", "/axb") if _matches(condition, path)]
    assert found == ["/health", "/health?x", "/a.b"]


def _matches(condition: object, path: str) -> bool:
    return re.fullmatch(condition.string_match.safe_regex.regex, path) is not None  # type: ignore[attr-defined]


def test_without_its_runtime_values_a_fault_does_nothing() -> None:
    """Invariant 7."""
    config = configure(FaultPlan(slot=0, fault="f1", key="k", delay=1.0, abort=503, rate=10, drawn=True))
    shares = (config.delay.percentage, config.abort.percentage, config.response_rate_limit.percentage)
    assert {share.numerator for share in shares} == {0}
    assert (config.delay_percent_runtime, config.abort_percent_runtime) == ("k.delay", "k.abort")
    assert config.response_rate_limit_percent_runtime == "k.rate"


def test_a_script_draws_evenly_and_overwrites_what_a_client_says() -> None:
    source = configure_draw(FaultDraw(slot=0, shortest=250, longest=350)).source_code.inline_string
    lua = LuaFilter(source)
    drawn = []
    for _ in range(5000):
        headers = lua.headers_after_request({DELAY: "99999", RATE: "1"})
        assert RATE not in headers
        drawn.append(int(headers[DELAY]))
    assert (min(drawn), max(drawn)) == (250, 350)
    # Uniform over 101 values: the standard deviation of the mean of 5000 is 0.41.
    assert abs(sum(drawn) / len(drawn) - 300) < 2.1


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_a_script_draws_a_rate_for_its_share(share: float) -> None:
    draw = FaultDraw(slot=0, shortest=1, longest=1, rate=64, share=share)
    lua = LuaFilter(configure_draw(draw).source_code.inline_string)
    found = [lua.headers_after_request({}) for _ in range(3000)]
    hit = [headers for headers in found if headers]
    assert all(headers == {DELAY: "1", RATE: "64"} for headers in hit)
    assert abs(len(hit) - 3000 * share) <= 5 * (3000 * share * (1 - share)) ** 0.5


def test_answers_are_marked_and_scripts_leave_no_trace() -> None:
    target = pb.route_components_pb2.VirtualHost()
    for plan in (
        FaultPlan(slot=0, fault="f1", key="a", delay=1.0, drawn=True),
        FaultPlan(slot=1, fault="f1", key="b", rate=10, drawn=True, again=True),
    ):
        mark(target, plan)
    assert [option.header.key for option in target.response_headers_to_add] == [FAULT_HEADER] * 2
    assert list(target.request_headers_to_remove) == [DELAY, RATE]
    mark(target, FaultPlan(slot=2, fault="f2", key="c", cut=True))
    # More than the 100 headers that Envoy takes of an answer.
    assert len(target.response_headers_to_add) > 103
