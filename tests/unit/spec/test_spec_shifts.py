"""A shift of traffic is a change of policies that holds together, and leaves nothing behind when it is taken back."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from meshctl.errors import ConflictError, NotFoundError, UsageError
from meshctl.ports import SourceFile, TopologySource
from meshctl.spec.load import TopologyTree, load_tree, read_tree
from meshctl.spec.policies import Document, Origin, PolicyKey
from meshctl.spec.render import to_value
from meshctl.spec.schema import Service
from meshctl.spec.shifts import (
    COOKIE,
    Shift,
    Sticking,
    complete_weights,
    count_started,
    find_own_routes,
    find_route,
    read_header,
    read_sticking,
    shift_traffic,
    targets_of,
    withdraw,
)

THREE = "command: ./app, versions: {v1: {}, v2: {}, v3: {}}"
RULES = "routes: [{name: admins, match: {headers: {x-admin: '1'}}, version: v3}, {name: moved, match: {path: /old}, "
RULES += "redirect: {path: /new}}, {name: slow, timeout: 9s}]"
PLAIN = f"services: {{shop: {{{THREE}}}}}"
FILES = {
    "plain": PLAIN,
    "split": f"services: {{shop: {{{THREE}, split: {{v1: 80, v2: 20}}}}}}",
    "rules": f"services: {{shop: {{{THREE}, stable: v2, {RULES}, sticky: {{header: x-user}}}}}}",
}


class Shop:
    """One service whose policies are shifted one after the other."""

    def __init__(self, text: str) -> None:
        file = SourceFile(path="mesh.yaml", directory="/shop", text=text)
        self.tree: TopologyTree = read_tree(TopologySource(files=(file,), variables={}))
        self.documents: dict[PolicyKey, Document] = dict(self.tree.policies)
        self.revision = 0

    @property
    def service(self) -> Service:
        return load_tree(self.tree, self.documents).services["shop"]

    def shift(self, weights: dict[str, int], author: str = "ann@canary shift", **more: Any) -> Service:
        self.revision += 1
        self.documents = shift_traffic(
            self.service,
            Shift(weights=weights, **more),
            current=self.documents,
            files=self.tree.policies,
            origin=Origin(revision=self.revision, author=author),
        )
        return self.service

    @property
    def values(self) -> dict[str, Any]:
        return {kind: to_value(d.node) for (_, kind), d in self.documents.items() if d.node is not None}


@pytest.mark.parametrize(
    ("asked", "whole"),
    [
        ({"v2": 10}, {"v1": 90, "v2": 10}),
        ({"v2": 0}, {"v1": 100}),
        ({"v2": 100}, {"v2": 100}),
        ({"v3": 5, "v2": 10}, {"v1": 85, "v2": 10, "v3": 5}),
        ({"v1": 70, "v3": 30}, {"v1": 70, "v3": 30}),
        ({"v1": 0, "v2": 100}, {"v2": 100}),
    ],
)
def test_what_is_not_named_goes_to_the_stable_version(asked: dict[str, int], whole: dict[str, int]) -> None:
    assert complete_weights(Shop(PLAIN).service, asked) == whole


@pytest.mark.parametrize("asked", [{"v1": 100}, {"v1": 90, "v2": 5}, {"v2": 99, "v3": 2}, {"v2": -1}, {"v2": 101}, {}])
def test_what_is_no_split_is_refused(asked: dict[str, int]) -> None:
    with pytest.raises(UsageError):
        complete_weights(Shop(PLAIN).service, asked)


@pytest.mark.parametrize(
    ("shop", "words"),
    [
        ("command: ./app", "shop has one version only, v1"),
        ("command: ./app, job: true", "shop is a job"),
        ("address: 'example.com:80'", "shop lies outside the mesh"),
        ("", "knows no versions of shop"),
    ],
)
def test_a_service_without_versions_to_choose_from_is_refused(shop: str, words: str) -> None:
    with pytest.raises(ConflictError, match=words):
        complete_weights(Shop(f"services: {{shop: {{{shop}}}}}").service, {"v1": 10})


def test_a_version_that_there_is_not_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(NotFoundError) as refused:
        complete_weights(Shop(PLAIN).service, {"v9": 10})
    assert refused.value.hint == "its versions: v1 (stable), v2, v3"


def test_a_version_that_is_withdrawn_leaves_its_share_to_the_stable_one() -> None:
    shop = Shop(PLAIN)
    service = shop.shift({"v2": 30, "v3": 10})
    assert withdraw(service, {"v2": 1}) == {"v1": 90, "v3": 10}
    assert withdraw(shop.shift({"v2": 100}), {"v2": 1}) == {"v1": 100}


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("", None),
        ("cookie", Sticking(cookie=COOKIE)),
        ("cookie:seen", Sticking(cookie="seen")),
        ("header:X-User", Sticking(header="x-user")),
        ("off", Sticking()),
    ],
)
def test_what_keeps_a_user_is_read(text: str, meant: Sticking | None) -> None:
    assert read_sticking(text) == meant


def test_a_header_is_read_as_it_is_compared() -> None:
    assert read_header("X-Canary", "Yes") == ("x-canary", "Yes")
    assert read_header("X-Canary", None) == ("x-canary", None)
    assert read_header("", "1") == ("", None)


@pytest.mark.parametrize(("name", "value"), [("a b", "1"), ("a", "\n"), ("x:", None)])
def test_what_is_no_header_is_refused(name: str, value: str | None) -> None:
    with pytest.raises(UsageError, match="is not a"):
        read_header(name, value)


def test_a_header_that_a_route_is_for_already_is_refused() -> None:
    shop = Shop(FILES["rules"])
    for value in ("1", None):
        with pytest.raises(ConflictError, match="the route admins of shop is for requests with x-admin already"):
            shop.shift({"v1": 100}, header="x-admin", value=value)
    assert find_route(shop.shift({"v1": 100}, header="x-admin", value="2")) is not None


@pytest.mark.parametrize("text", ["cookie:a b", "header:a b"])
def test_what_has_no_such_name_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="'a b' is not a"):
        read_sticking(text)


@pytest.mark.parametrize("text", ["cookie:", "header", "header:", "ip", "off:1"])
def test_what_keeps_nobody_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="keeps nobody on one version"):
        read_sticking(text)


def test_a_header_makes_a_route_above_all_others_and_takes_the_version_from_the_rest() -> None:
    shop = Shop(FILES["rules"])
    service = shop.shift({"v1": 40}, header="x-canary", value="1")
    route = find_route(service)
    assert route is not None
    assert route.split == {"v1": 40, "v2": 60}
    assert [rule.name for rule in service.routes] == ["canary", "admins", "moved", "slow"]
    assert find_own_routes(service) == ("admins", "moved")
    assert service.split == {"v2": 100}
    again = shop.shift({"v1": 100}, header="x-beta")
    assert [rule.name for rule in again.routes] == ["canary", "admins", "moved", "slow"]
    assert again.routes[0].match.headers[0].kind == "present"
    assert targets_of(again) == {"v2": 100, "v1": 100}
    assert shop.shift({"v1": 0}, header="x-beta").routes[0].name == "admins"
    assert shop.documents == shop.tree.policies


def test_the_route_of_a_header_stays_while_others_follow_and_goes_with_its_version() -> None:
    shop = Shop(PLAIN)
    shop.shift({"v2": 100}, header="x-canary", value="1")
    assert find_route(shop.shift({"v2": 20})) is not None
    assert find_route(shop.shift({"v2": 20, "v3": 10})) is not None
    assert find_route(shop.shift({"v2": 0, "v3": 10})) is None
    shop.shift({"v2": 100}, header="x-canary", value="1")
    assert find_route(shop.shift({"v3": 100})) is None
    assert shop.values == {"split": {"v3": 100}}


def test_a_route_of_the_files_with_that_name_is_left_alone() -> None:
    own = "routes: [{match: {path: /}}, {name: canary, match: {headers: {a: b}}, version: v2}]"
    shop = Shop(f"services: {{shop: {{{THREE}, {own}}}}}")
    with pytest.raises(ConflictError, match="shop has a route called canary in the topology"):
        shop.shift({"v2": 100}, header="x-canary")
    shop.shift({"v2": 0})
    assert shop.documents == shop.tree.policies


def test_stickiness_ends_with_the_split_that_a_shift_made_it_for() -> None:
    shop = Shop(PLAIN)
    shop.shift({"v2": 20}, sticking=Sticking(cookie="seen"))
    assert shop.shift({"v2": 50}).sticky is not None
    assert shop.shift({"v2": 100}).sticky is None
    shop.shift({"v2": 20}, sticking=Sticking(header="x-user"), author="ann@other")
    assert shop.shift({"v2": 0}).sticky is not None, "somebody else's is left alone"
    shop.shift({"v2": 20}, sticking=Sticking())
    assert shop.values == {"split": {"v1": 80, "v2": 20}}


def test_stickiness_of_the_files_comes_back() -> None:
    shop = Shop(FILES["rules"])
    assert shop.shift({"v1": 20}, sticking=Sticking()).sticky is None
    service = shop.shift({"v1": 30}, sticking=Sticking(cookie="seen"))
    assert service.sticky is not None
    assert service.sticky.cookie == "seen"
    shop.shift({"v1": 0})
    assert shop.documents == shop.tree.policies


def test_copies_count_as_something_that_a_version_gets() -> None:
    text = f"services: {{shop: {{{THREE}, mirror: {{version: v3, percent: 5%}}}}}}"
    assert targets_of(Shop(text).service) == {"v1": 100, "v3": 1}


def test_versions_that_only_commands_give_traffic_are_counted_as_started() -> None:
    versions = "{v1: {}, v2: {replicas: 0}, v3: {replicas: 0}}"
    shop = Shop(f"services: {{shop: {{command: ./app, versions: {versions}, split: {{v1: 90, v2: 10}}}}}}")
    assert count_started({"shop": shop.service}, shop.documents) == {}, "what the files say is theirs"
    shop.shift({"v3": 5})
    assert count_started({"shop": shop.service}, shop.documents) == {"shop/v3": 1}
    shop.shift({"v2": 5}, header="x-canary")
    assert count_started({"shop": shop.service}, shop.documents) == {"shop/v2": 1, "shop/v3": 1}


WEIGHTS = st.dictionaries(st.sampled_from(["v1", "v2", "v3"]), st.integers(0, 50), min_size=1)
STEPS = st.tuples(
    WEIGHTS,
    st.sampled_from([{}, {"header": "x-canary", "value": "1"}, {"header": "x-canary"}]),
    st.sampled_from([None, Sticking(), Sticking(cookie="seen"), Sticking(header="x-user")]),
)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.lists(STEPS, max_size=5))
def test_any_row_of_shifts_holds_together_and_can_be_taken_back(
    name: str, steps: list[tuple[dict[str, int], dict[str, Any], Sticking | None]]
) -> None:
    """Every state is one that the loader accepts; once the stable version has all, nothing but the split is left."""
    shop = Shop(FILES[name])
    for weights, header, sticking in steps:
        try:
            service = shop.shift(weights, sticking=sticking, **header)
        except UsageError:
            continue
        made = find_route(service)
        for split in [service.split, *([made.split] if made else [])]:
            assert sum(split.values()) == 100
        named = set(weights) - {service.stable}
        if header:
            assert not named & set(service.split)
        else:
            assert {version: service.split.get(version, 0) for version in weights} == weights
    service = shop.service
    shop.shift(dict.fromkeys(set(service.versions) - {service.stable}, 0), sticking=None)
    left = {key: document for key, document in shop.documents.items() if shop.tree.policies.get(key) != document}
    assert set(left) <= ({("shop", "split")} if name == "split" else set()) | {("shop", "sticky")}
    assert find_route(shop.service) is None
