"""The fallback's Lua, run in LuaJIT: what is kept, for whom and how much of it."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.lua_filter import LuaFilter

from meshctl.envoy.filters.fallback import configure
from meshctl.envoy.filters.fallback_lua import build_source
from meshctl.plan.policies.fallback import CachedFallbackPlan, FallbackPlan, StaticFallbackPlan

PLAN = CachedFallbackPlan(
    target="catalog", max_age=300.0, max_entries=3, max_bytes=10_000, max_body_bytes=100, share_credentials=False
)
GOOD = {":status": "200", "content-type": "text/plain"}
BAD = {":status": "503", "x-broken": "yes", "x-meshctl-circuit": "open"}


@pytest.fixture
def script() -> LuaFilter:
    return make_script()


def make_script() -> LuaFilter:
    made = LuaFilter(build_source())
    made.set_clock(1000.0)
    return made


def context_of(plan: FallbackPlan) -> dict[str, Any]:
    return dict(configure(plan).filter_context.items())


def ask(
    script: LuaFilter,
    path: str,
    answer: dict[str, str],
    chunks: tuple[str, ...] = (),
    plan: FallbackPlan = PLAN,
    *,
    asked: dict[str, str] | None = None,
) -> tuple[dict[str, str], str | None]:
    headers = {":method": "GET", ":authority": "catalog", ":path": path}
    return script.exchange(context_of(plan), headers | (asked or {}), answer, chunks)


def test_a_failure_becomes_the_last_good_answer(script: LuaFilter) -> None:
    good = GOOD | {"etag": "7", "connection": "close", "x-meshctl-instance": "catalog-v1-1"}
    assert ask(script, "/a", good, ("first ", "and last")) == (good, None)
    script.set_clock(1042.5)
    assert ask(script, "/a", BAD) == (
        {
            ":status": "200",
            "content-type": "text/plain",
            "etag": "7",
            "age": "42",
            "warning": '110 - "Response is Stale"',
            "x-meshctl-fallback": "cached_response",
            "x-meshctl-circuit": "open",
        },
        "first and last",
    )
    assert ask(script, "/b", BAD) == (BAD, None)


def test_the_age_goes_on_from_that_of_the_answer(script: LuaFilter) -> None:
    ask(script, "/a", GOOD | {"age": "100"})
    script.set_clock(1010.0)
    assert ask(script, "/a", BAD)[0]["age"] == "110"
    script.set_clock(1301.0)
    assert ask(script, "/a", BAD) == (BAD, None)


@pytest.mark.parametrize(
    "differs",
    [
        {"authorization": "Bearer b"},
        {"cookie": "id=2"},
        {"accept": "text/html"},
        {"accept-encoding": "br"},
        {"accept-language": "eo"},
        {"origin": "http://b"},
    ],
    ids=lambda differs: next(iter(differs)),
)
def test_another_question_is_not_answered(script: LuaFilter, differs: dict[str, str]) -> None:
    asked = {"authorization": "Bearer a", "cookie": "id=1"}
    ask(script, "/a", GOOD, ("mine",), asked=asked)
    assert ask(script, "/a", BAD, asked=asked)[1] == "mine"
    assert ask(script, "/a", BAD, asked=asked | differs) == (BAD, None)


def test_credentials_make_no_difference_where_they_are_shared(script: LuaFilter) -> None:
    plan = CachedFallbackPlan(
        target="catalog", max_age=300.0, max_entries=3, max_bytes=10_000, max_body_bytes=100, share_credentials=True
    )
    ask(script, "/a", GOOD, ("everybody's",), plan, asked={"authorization": "a"})
    assert ask(script, "/a", BAD, (), plan, asked={"cookie": "b"})[1] == "everybody's"


@pytest.mark.parametrize(
    "answer",
    [
        GOOD | {"cache-control": "no-store"},
        GOOD | {"cache-control": "max-age=3, Private"},
        GOOD | {"cache-control": 'private="x-a"'},
        GOOD | {"cache-control": "must-revalidate"},
        GOOD | {"cache-control": "no-cache"},
        GOOD | {"set-cookie": "id=1"},
        GOOD | {"vary": "Accept, X-Tenant"},
        GOOD | {"vary": "*"},
        GOOD | {"content-type": "text/event-stream"},
        GOOD | {"content-length": "101"},
        GOOD | {":status": "206"},
        GOOD | {":status": "301"},
        GOOD | {":status": "404"},
    ],
)
def test_what_is_not_to_be_kept_is_not_and_what_was_kept_goes(script: LuaFilter, answer: dict[str, str]) -> None:
    ask(script, "/a", GOOD, ("old",))
    ask(script, "/a", answer, ("new",))
    assert ask(script, "/a", BAD)[1] is None


@pytest.mark.parametrize("status", ["401", "403", "429"])
def test_a_refusal_leaves_what_was_kept(script: LuaFilter, status: str) -> None:
    ask(script, "/a", GOOD, ("old",))
    ask(script, "/a", GOOD | {":status": status}, ("refused",))
    assert ask(script, "/a", BAD)[1] == "old"


@pytest.mark.parametrize("cache_control", ["max-age=60", "public, no-transform", "x-private"])
def test_other_words_of_cache_control_do_not_matter(script: LuaFilter, cache_control: str) -> None:
    ask(script, "/a", GOOD | {"cache-control": cache_control, "vary": "Accept-Encoding, Cookie"}, ("kept",))
    assert ask(script, "/a", BAD)[1] == "kept"


@pytest.mark.parametrize("asked", [{"range": "bytes=0-1"}, {"cache-control": "no-store"}, {"upgrade": "websocket"}])
def test_some_requests_have_no_part_in_it(script: LuaFilter, asked: dict[str, str]) -> None:
    ask(script, "/a", GOOD, ("kept",))
    assert ask(script, "/a", BAD, asked=asked) == (BAD, None)


def test_a_body_that_grows_too_large_or_is_cut_short_is_not_kept(script: LuaFilter) -> None:
    ask(script, "/large", GOOD, ("x" * 60, "x" * 60))
    ask(script, "/short", GOOD | {"content-length": "10"}, ("x" * 9,))
    assert ask(script, "/large", BAD)[1] is ask(script, "/short", BAD)[1] is None


def test_a_fixed_answer_stands_for_any_failed_get(script: LuaFilter) -> None:
    plan = StaticFallbackPlan(target="catalog", status=203, body="[]", content_type="application/json")
    headers, body = ask(script, "/a", BAD, (), plan)
    assert (headers[":status"], headers["content-type"], headers["x-meshctl-fallback"], body) == (
        "203",
        "application/json",
        "static",
        "[]",
    )
    assert ask(script, "/a", GOOD, (), plan) == (GOOD, None)
    asked = {":method": "POST", ":authority": "catalog", ":path": "/a"}
    assert script.exchange(context_of(plan), asked, BAD) == (BAD, None)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 60)), max_size=40))
def test_it_never_keeps_more_than_it_may_and_drops_the_oldest(kept: list[tuple[int, int]]) -> None:
    plan = CachedFallbackPlan(
        target="catalog", max_age=300.0, max_entries=4, max_bytes=360, max_body_bytes=100, share_credentials=False
    )
    script = make_script()
    expected: OrderedDict[int, int] = OrderedDict()

    def size(length: int) -> int:
        # The key (host, path and six empty fields, in lines), the headers with their names, and the body.
        key = len("catalog") + len("/0") + 7
        return key + sum(len(name) + len(value) for name, value in GOOD.items()) + length

    for number, length in kept:
        ask(script, f"/{number}", GOOD, ("x" * length,), plan)
        expected.pop(number, None)
        expected[number] = length
        while len(expected) > 4 or sum(map(size, expected.values())) > 360:
            expected.popitem(last=False)
    for number in range(7):
        found = ask(script, f"/{number}", BAD, (), plan)[1]
        assert found == ("x" * expected[number] if number in expected else None)
