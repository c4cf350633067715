"""Policies as documents: taken out of a topology and put back, stored, rendered, compared."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.random_topologies import topologies
from tests.support.topologies import make_source

from meshctl.errors import InvalidTopology, Where
from meshctl.spec.load import load, read_policies_of, read_tree
from meshctl.spec.node_codec import decode_documents, encode_documents
from meshctl.spec.policies import (
    DEFAULTS_KINDS,
    EVERY,
    FILES,
    KINDS,
    MESH,
    SERVICE_KINDS,
    Document,
    Origin,
    order_documents,
    places_of,
)
from meshctl.spec.policy_changes import (
    describe_differences,
    find_changes,
    return_to,
    same_node,
    take_files,
)
from meshctl.spec.policy_keys import POLICY_KEYS
from meshctl.spec.render import to_node, to_value, to_words, to_yaml
from meshctl.spec.report import Report
from meshctl.spec.source import MapNode, Node, parse

TEXT = """
service_mesh: {thresholds: {error_count: 4}}
defaults: {timeout: 5s, retry_policy: {max_attempts: 3}}
services:
  web: {command: ./web, upstreams: [api]}
  api:
    timeout: ${TIMEOUT:-2s}
    fallback: {strategy: static, body: "5"}
    versions: {v1: {command: ./a}, "1.0": {command: ./b}}
    split: {v1: 90, "1.0": 10}
"""
LATER = Origin(revision=7, author="ann@apply", time=12.5)


def documents_of(text: str, origin: Origin = FILES) -> dict[Any, Document]:
    found = read_tree(make_source(text)).policies
    return {key: replace(document, origin=origin) for key, document in found.items()}


def test_every_key_of_the_table_is_a_kind_of_defaults_and_services() -> None:
    for key in POLICY_KEYS:
        assert key.name in DEFAULTS_KINDS
        assert key.name in SERVICE_KINDS
        assert key.name in KINDS
    assert "split" in SERVICE_KINDS
    assert "split" not in DEFAULTS_KINDS
    assert not SERVICE_KINDS.keys() & {"command", "versions", "upstreams", "protocol"}


def test_what_a_topology_has_is_taken_out_with_its_places() -> None:
    found = documents_of(TEXT)
    assert list(found) == [
        (MESH, "service_mesh"),
        (EVERY, "retry_policy"),
        (EVERY, "timeout"),
        ("api", "fallback"),
        ("api", "split"),
        ("api", "timeout"),
    ]
    timeout = found["api", "timeout"]
    assert timeout.node is not None
    assert (str(timeout.where), str(timeout.node.where)) == ("mesh.yaml:7:5", "mesh.yaml:7:14")
    assert to_words(timeout.node) == "2s"
    assert timeout.origin == FILES


@given(topologies())
@settings(max_examples=60, deadline=None)
def test_a_topology_with_its_own_policies_embedded_is_the_same_mesh(topology: dict[str, Any]) -> None:
    source = make_source(yaml.safe_dump(topology, sort_keys=False))
    try:
        mesh = load(source)
    except InvalidTopology:
        return
    documents = read_tree(source).policies
    assert load(source, documents) == mesh
    stored = decode_documents(encode_documents(documents))
    assert stored == documents
    assert load(source, stored) == mesh
    # Without its own, what a file of policies alone says takes their place.
    text = to_yaml(list(documents.values()))
    named = read_policies_of(make_source(text), mesh.services, Report())
    assert {key: same_node(d.node, named[key].node) for key, d in documents.items()} == dict.fromkeys(documents, True)
    assert find_changes(documents, named) == ()


_TEXTS = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff\u2028\u2029\x85\ufeff"), max_size=20
)
_KEYS = _TEXTS.filter(lambda text: text not in ("", "<<"))
_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**9), 10**9)
    | _TEXTS
    | st.sampled_from(["null", "~", "5", "1.0", "${A}"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=3),
    max_leaves=12,
)


@given(_VALUES)
def test_any_value_is_stored_and_rendered_without_a_loss(value: Any) -> None:
    node = to_node(value, Where("(ann@tune)", 0, 0))
    assert to_value(node) == value
    document = Document(owner="api", kind="timeout", where=Where("p.yaml", 1, 2), node=node, origin=LATER)
    stored = decode_documents(encode_documents({document.key: document}))
    assert stored == {document.key: document}
    text = to_yaml([document])
    source = make_source(text)
    read = read_policies_of(source, ["api"], Report())["api", "timeout"].node
    assert same_node(read, node), text
    assert isinstance(read, type(node))
    assert "\n" not in to_words(node)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"form":2}', '{"form":1,"files":[],"documents":[[1]]}'])
def test_what_is_no_document_is_not_read(text: str) -> None:
    with pytest.raises(ValueError):
        decode_documents(text)


def test_a_deletion_is_stored_and_takes_away() -> None:
    source = make_source(TEXT)
    documents = documents_of(TEXT)
    gone = replace(documents["api", "timeout"], node=None, origin=LATER)
    changed = decode_documents(encode_documents({**documents, gone.key: gone}))
    assert changed["api", "timeout"] == gone
    assert load(source, changed).services["api"].policies.timeout.request == 5.0
    assert [change.words for change in find_changes(documents, changed)] == ["api timeout: 2s -> not set"]


def test_policies_go_where_the_file_has_none() -> None:
    text = "services: {web: {command: ./web}, later: }\n"
    documents = documents_of(
        "defaults: {timeout: 7s}\nservices: {later: {timeout: 3s}}\nservice_mesh: {enabled: false}\n"
    )
    mesh = load(make_source(text), documents)
    assert mesh.services["web"].policies.timeout.request == 7.0
    assert mesh.services["later"].policies.timeout.request == 3.0
    assert not mesh.defaults.circuit_breaker.enabled


def test_policies_of_services_that_are_not_there_are_a_problem() -> None:
    with pytest.raises(InvalidTopology) as caught:
        load(make_source("services: {web: {command: ./web}}\n"), documents_of(TEXT, LATER))
    (problem,) = caught.value.problems
    assert (problem.code, problem.hint) == ("unknown-service", "services: web")


def test_commands_win_over_files_until_the_files_say_the_same() -> None:
    files = documents_of(TEXT)
    set_by = documents_of("services: {api: {timeout: 1s}, web: {timeout: 9s}}\n", LATER)
    gone = replace(files["api", "split"], node=None, origin=LATER)
    current = order_documents([*take_files(set_by, files).values(), gone])
    current["api", "split"] = gone
    assert describe_differences(current, files) == (
        "api split: deleted (revision 7, ann@apply), which mesh.yaml:10:12 has",
        "api timeout: 1s (revision 7, ann@apply) differs from 2s in mesh.yaml:7:14",
        "web timeout: 9s (revision 7, ann@apply) is not in the files",
    )
    newer = documents_of(TEXT.replace("${TIMEOUT:-2s}", "1s").replace("    split", "    x-split"))
    taken = take_files(current, newer)
    assert taken["api", "timeout"].origin == FILES
    assert ("api", "split") not in taken
    assert taken["web", "timeout"].origin == LATER


def test_only_what_differs_is_named_key_by_key() -> None:
    one = documents_of("defaults: {retry_policy: {max_attempts: 3, base_interval: 50ms}, timeout: 5s}\nservices: {}\n")
    two = documents_of(
        "defaults: {retry_policy: {base_interval: 50ms, max_attempts: 4}, timeout: '5s'}\nservices: {}\n"
    )
    (change,) = find_changes(one, two)
    assert change.words == "defaults retry_policy.max_attempts: 3 -> 4"
    assert change.after is not None
    assert str(change.after.where) == "mesh.yaml:1:62"


def test_to_return_sets_only_what_the_files_do_not_say_themselves() -> None:
    files = documents_of(TEXT)
    then = documents_of(TEXT.replace("5s", "4s").replace("    fallback", "    x-fallback"))
    before = {
        **then,
        ("api", "timeout"): replace(then["api", "timeout"], origin=Origin(revision=3, author="bob@apply")),
    }
    back = return_to(before, files, LATER)
    assert back[EVERY, "timeout"].origin == LATER
    assert back["api", "fallback"].node is None
    assert back["api", "timeout"].origin == FILES  # a command set what the files say now
    assert back["api", "split"].origin == FILES
    assert find_changes(back, then) == ()


@pytest.mark.parametrize(
    ("text", "code", "where"),
    [
        ("services: {api: {tiemout: 1s}}", "unknown-key", "p.yaml:1:18"),
        ("services: {apy: {timeout: 1s}}", "unknown-service", "p.yaml:1:12"),
        ("services: {apy: }", "unknown-service", "p.yaml:1:12"),
        ("defaults: {split: {v1: 100}}", "unknown-key", "p.yaml:1:12"),
        ("timeout: 1s", "unknown-key", "p.yaml:1:1"),
        ("defaults: 5", "wrong-type", "p.yaml:1:11"),
        ("services: [api]", "wrong-type", "p.yaml:1:11"),
    ],
)
def test_what_is_wrong_in_a_file_of_policies_is_told(text: str, code: str, where: str) -> None:
    report = Report()
    source = make_source(text)
    source = replace(source, files=(replace(source.files[0], path="p.yaml"),))
    read_policies_of(source, ["web", "api"], report)
    assert [(p.code, str(p.where)) for p in report.problems] == [(code, where)]


def test_every_place_of_a_document_is_known() -> None:
    split = documents_of(TEXT)["api", "split"]
    assert {str(place) for place in places_of(split)} >= {"mesh.yaml:10:5", "mesh.yaml:10:12", "mesh.yaml:10:17"}


def test_a_file_read_with_quotes_keeps_them() -> None:
    tree = parse(
        make_source('a: {b: "5", c: 5, d: "null", e: null, f: !reset x, g: [1, "2"], h: "no"}').files[0], Report()
    )
    assert isinstance(tree, MapNode)
    node: Node | None = tree.get("a")
    assert node is not None
    assert to_value(node) == {"b": "5", "c": 5, "d": "null", "e": None, "f": None, "g": [1, "2"], "h": "no"}
    assert to_words(node) == "{b: '5', c: 5, d: 'null', e: null, f: !reset '', g: [1, '2'], h: 'no'}"
    assert to_words(None) == "not set"


_OWNERS = st.sampled_from([EVERY, "api", "web"])
_KINDS = st.sampled_from(["timeout", "retry_policy", "fallback"])
_ORIGINS = st.sampled_from([FILES, LATER, Origin(revision=3, author="bob@apply")])


@st.composite
def _document_sets(draw: st.DrawFn, *, by_files: bool = False) -> dict[Any, Document]:
    found: list[Document] = []
    for owner, kind in draw(st.sets(st.tuples(_OWNERS, _KINDS), max_size=6)):
        origin = FILES if by_files else draw(_ORIGINS)
        values: list[Any] = ["1s", "2s", {"a": 1}, {"a": 2}]
        value = draw(st.sampled_from(values))
        gone = origin != FILES and draw(st.booleans())
        node = None if gone else to_node(value, Where("p.yaml", 1, 1))
        found.append(Document(owner=owner, kind=kind, where=Where("p.yaml", 1, 1), node=node, origin=origin))
    return order_documents(found)


@given(_document_sets(), _document_sets(by_files=True))
def test_taking_files_keeps_what_commands_set_and_is_done_once(
    current: dict[Any, Document], files: dict[Any, Document]
) -> None:
    taken = take_files(current, files)
    assert take_files(taken, files) == taken
    for key, document in current.items():
        if document.origin != FILES:
            now = taken.get(key)
            assert same_node(now.node if now else None, document.node)
    for key, document in files.items():
        assert taken[key] == document or taken[key].origin != FILES
    assert taken.keys() <= current.keys() | files.keys()
    # What is told to differ is what commands set.
    assert len(describe_differences(taken, files)) >= sum(d.origin != FILES for d in taken.values())


@given(_document_sets(), _document_sets(by_files=True))
def test_returning_gives_what_was_whatever_the_files_say_now_and_files_read_again_leave_it(
    then: dict[Any, Document], files: dict[Any, Document]
) -> None:
    back = return_to(then, files, Origin(revision=9, author="ann@rollback"))
    assert find_changes(back, then) == ()
    assert find_changes(take_files(back, files), then) == ()
    assert all(document == files[key] for key, document in back.items() if document.origin == FILES)
