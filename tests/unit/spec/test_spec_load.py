"""Rules of loading that one file's golden text does not show."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.topologies import GOLDEN, find_problems, make_source

from meshctl.errors import InvalidTopology
from meshctl.ports import TopologySource
from meshctl.spec.dotenv import parse_dotenv
from meshctl.spec.export import json_schema
from meshctl.spec.keys import TOPOLOGY
from meshctl.spec.load import load, name_from_folder
from meshctl.spec.policy_schema import Policies
from meshctl.spec.problems import PROBLEM_KINDS, ProblemKind
from meshctl.spec.report import Report
from meshctl.spec.schema import Mesh
from meshctl.spec.shapes import Table, iterate_tables
from meshctl.spec.source import ListNode, MapNode, Node, parse
from meshctl.spec.validate import find_cycles

EVERYTHING = (GOLDEN / "topologies" / "everything" / "mesh.yaml").read_text()
WEB = "services: {web: {command: ./web}}\n"


def codes(source: TopologySource) -> list[str]:
    try:
        load(source)
    except InvalidTopology as error:
        return [problem.code for problem in error.problems]
    return []


def load_one(text: str) -> Mesh:
    return load(make_source(text))


@pytest.mark.parametrize("kind", PROBLEM_KINDS, ids=lambda kind: kind.code)
def test_the_example_of_each_problem_has_it_and_no_other(kind: ProblemKind) -> None:
    if kind.dotenv:
        with pytest.raises(InvalidTopology) as caught:
            parse_dotenv(kind.example, ".env")
        assert {problem.code for problem in caught.value.problems} == {kind.code}
    else:
        assert set(codes(make_source(kind.example))) == {kind.code}


def test_problem_codes_are_sorted_and_each_there_once() -> None:
    names = [kind.code for kind in PROBLEM_KINDS]
    assert names == sorted(set(names))


def test_what_no_file_says_is_built_in() -> None:
    mesh = load_one(WEB)
    assert mesh.defaults == mesh.services["web"].policies == Policies()
    assert (mesh.name, mesh.trust_domain, mesh.egress, mesh.gateway) == ("shop", "shop.mesh", "allow_any", None)


@pytest.mark.parametrize(
    ("folder", "name"),
    [
        ("/work/shop", "shop"), ("/work/My Shop!", "my-shop"), ("/work/2024-demo", "demo"), ("/", "mesh"), ("", "mesh"),
        ("/work/été", "t"), ("/x/" + "a" * 60, "a" * 40), ("/x/a_b/", "a-b"), ("/x/---", "mesh"),
    ],
)  # fmt: skip
def test_a_mesh_is_named_for_its_folder(folder: str, name: str) -> None:
    assert name_from_folder(folder) == name


def test_a_working_dir_is_relative_to_the_file_it_stands_in() -> None:
    first = (
        "services: {a: {command: ./a, working_dir: ../x}, b: {command: ./b}, c: {command: ./c, working_dir: /abs/./c}}"
    )
    second = "services: {b: {working_dir: y}}"
    mesh = load(make_source(first, second))
    folders = {name: service.versions["v1"].working_dir for name, service in mesh.services.items()}
    assert folders == {"a": "/work/x", "b": "/work/2/y", "c": "/abs/c"}


@pytest.mark.parametrize("word", ["no", "off", "false", "No", '"no"'])
def test_no_needs_no_quotes_as_restart_policy(word: str) -> None:
    for text in (word, f"{{mode: {word}}}", f"{{policy: {word}}}"):
        mesh = load_one(f"services: {{web: {{command: ./web, restart: {text}}}}}")
        assert mesh.services["web"].versions["v1"].restart.mode == "no"


def test_a_job_is_not_restarted_unless_it_says_so() -> None:
    mesh = load_one("services: {a: {command: ./a, job: true}, b: {command: ./b, job: true, restart: {backoff: 2s}}}")
    assert [service.versions["v1"].restart.mode for service in mesh.services.values()] == ["no", "no"]


def test_a_check_of_a_version_replaces_that_of_its_service() -> None:
    text = (
        "services:\n  web:\n    command: ./web\n    readiness: {http: /ready, interval: 3s}\n"
        "    versions: {v1: {readiness: {tcp: true}}, v2: }\n"
    )
    versions = load_one(text).services["web"].versions
    first, second = versions["v1"].readiness, versions["v2"].readiness
    assert first is not None
    assert second is not None
    assert (type(first.check).__name__, first.interval) == ("TcpProbe", 3.0)
    assert (type(second.check).__name__, second.interval) == ("HttpProbe", 3.0)


def test_versions_without_a_command_are_for_registered_instances() -> None:
    service = load_one("services: {web: {versions: {v1: , v2: {}}, split: {v1: 90, v2: 10}}}").services["web"]
    assert [(version.command, version.replicas) for version in service.versions.values()] == [((), 0), ((), 0)]
    assert service.split == {"v1": 90, "v2": 10}


def test_a_health_check_is_explicit_when_its_path_is_written() -> None:
    body = "services: {{web: {{command: ./web, load_balancing: {{health_check: {}}}}}}}"
    found = {}
    for text in ("{interval: 1s}", "{path: /h}", "{path: /h, expected_statuses: 200}", "true", "false"):
        check = load_one(body.format(text)).services["web"].policies.load_balancing.health_check
        found[text] = None if check is None else (check.explicit, check.expected)
    assert found == {
        "{interval: 1s}": (False, ((200, 500),)),
        "{path: /h}": (True, ((200, 400),)),
        "{path: /h, expected_statuses: 200}": (True, ((200, 201),)),
        "true": (False, ((200, 500),)),
        "false": None,
    }


def test_a_variable_takes_the_type_of_its_place() -> None:
    text = 'services: {web: {command: ./web, port: "${P:-8080}", job: "${J}", env: {X: "${P:-8080}"}}}'
    version = load(make_source(text, variables={"J": "false"})).services["web"].versions["v1"]
    assert (version.port, version.job, version.env) == (8080, False, {"X": "8080"})


def test_later_files_may_be_empty_and_take_nothing_away() -> None:
    assert load(make_source(WEB, "", "# nothing\n")) == load_one(WEB)


def test_no_files_are_a_problem_too() -> None:
    assert codes(TopologySource(files=(), variables={})) == ["no-services"]


def test_deep_nesting_is_refused_and_blows_nothing_up() -> None:
    for text in ("[" * 100_000, "{a: " * 100_000, "- " * 50_000, "".join(f"{' ' * i}a:\n" for i in range(1500))):
        assert codes(make_source(text)) == ["too-deep"]


def test_alias_bombs_are_measured_not_expanded() -> None:
    lines = ["x-0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"x-{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    assert codes(make_source("\n".join([*lines, WEB]))) == ["too-large"]
    chain = ["x-0: &a0 {k: v}"] + [f"x-{i}: &a{i} {{n: *a{i - 1}}}" for i in range(1, 100)]
    assert codes(make_source("\n".join([*chain, WEB]))) == ["too-deep"]


def test_huge_files_are_refused() -> None:
    assert codes(make_source("#" * 2_000_001)) == ["too-large"]
    assert codes(make_source("services:\n" + "".join(f"  s{i}: {{command: ./s}}\n" for i in range(20_000)))) == [
        "too-large"
    ]


def test_a_long_chain_of_dependencies_is_followed() -> None:
    edges = {str(i): (str(i + 1),) for i in range(20_000)}
    assert find_cycles(edges) == []
    assert [len(cycle) for cycle in find_cycles({**edges, "20000": ("0",)})] == [20_001]


def _described(schema: dict[str, Any]) -> Iterator[tuple[str, str]]:
    definitions = {"topology": schema, **schema["$defs"]}
    for name, definition in definitions.items():
        for key, value in definition.get("properties", {}).items():
            assert value["description"], f"{name}.{key} has no description"
            yield name, key


def test_the_json_schema_has_every_key_that_the_loader_knows_and_no_other() -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    json.dumps(schema)
    known = {(table.id, key.name) for table in iterate_tables(TOPOLOGY) for key in table.keys}
    assert set(_described(schema)) == known


def test_table_ids_are_unique() -> None:
    tables: dict[str, Table] = {}
    for table in iterate_tables(TOPOLOGY):
        assert tables.setdefault(table.id, table) is table


def _paths(node: Node, at: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if isinstance(node, MapNode):
        for key, entry in node.entries.items():
            yield (*at, key)
            yield from _paths(entry.node, (*at, key))


def _names(node: Node) -> Iterator[str]:
    if isinstance(node, MapNode):
        for key, entry in node.entries.items():
            yield key
            yield from _names(entry.node)
    elif isinstance(node, ListNode):
        for item in node.items:
            yield from _names(item)


def _tree(text: str) -> MapNode:
    tree = parse(make_source(text).files[0], Report())
    assert tree is not None
    return tree


def test_the_file_with_everything_has_every_key() -> None:
    """So that no key is without a test; see also the next test."""
    used = set(_names(_tree(EVERYTHING)))
    missing = {key.name for table in iterate_tables(TOPOLOGY) for key in table.keys if key.name not in used}
    assert missing <= {"mode"}, "`policy` stands for it"


def _without(path: tuple[str, ...]) -> str:
    document: dict[str, Any] = {}
    at = document
    for part in path[:-1]:
        at = at.setdefault(part, {})
    at[path[-1]] = None
    return yaml.safe_dump(document)


@functools.cache
def _load_everything() -> Mesh:
    return load_one(EVERYTHING)


# These are what the built-in value or a wider key says too, so that taking them away changes nothing.
_NO_CHANGE = {
    ("services", "web", "protocol"),
    ("services", "registered"),
    ("defaults", "retry_policy", "backoff"),
    ("service_mesh", "enabled"),
    ("services", "web", "depends_on", "cache"),
    ("services", "api", "versions", "v2", "env", "GONE"),
    ("services", "api", "versions", "v2", "env", "PATH_PREFIX"),
}


@pytest.mark.parametrize(
    "path",
    [path for path in _paths(_tree(EVERYTHING)) if not path[0].startswith("x-") and path[0] != "service_mesh"],
    ids=".".join,
)
def test_every_key_of_the_file_with_everything_counts(path: tuple[str, ...]) -> None:
    whole = _load_everything()
    try:
        changed = load(make_source(EVERYTHING, _without(path)))
    except InvalidTopology:
        return
    if path in _NO_CHANGE:
        return
    assert changed != whole


@pytest.mark.parametrize(
    ("block", "path", "value"),
    [
        ("thresholds: {failure_rate: 40%}", "circuit_breaker.failure_rate", 40.0),
        ("thresholds: {response_time: 2}", "circuit_breaker.slow_call.threshold", 2.0),
        ("thresholds: {error_count: 7}", "circuit_breaker.failure_threshold", 7),
        ("timeouts: {operation: 9}", "timeout.request", 9.0),
        ("timeouts: {recovery: 1m}", "circuit_breaker.timeout", 60.0),
        ("fallback: {strategy: static}", "fallback.strategy", "static"),
        ("fallback: {enabled: true}", "fallback.strategy", "cached_response"),
        ("fallback: {enabled: false, strategy: static}", "fallback", None),
        ("monitoring: {metrics_enabled: false}", "monitoring.metrics", False),
        ("monitoring: {health_check_interval: 3s}", "load_balancing.health_check.interval", 3.0),
        ("enabled: false", "circuit_breaker.enabled", False),
        ("enabled: false", "retry_policy.max_attempts", 1),
        ("enabled: false, fallback: {strategy: static}", "fallback", None),
    ],
)
def test_the_block_of_the_pattern_stands_for_policies_wherever_it_is_written(
    block: str, path: str, value: object
) -> None:
    places = (
        f"service_mesh: {{{block}}}\n{WEB}",
        f"defaults: {{service_mesh: {{{block}}}}}\n{WEB}",
        f"services: {{web: {{command: ./web, service_mesh: {{{block}}}}}}}\n",
    )
    for text in places:
        found: Any = load_one(text).services["web"].policies
        for name in path.split("."):
            found = getattr(found, name)
        assert found == value


YAML_PIECES = st.sampled_from(
    [
        "services:", "\n", "  ", "web:", " ", "command: ", "./a", "&a ", "*a", "<<: ", "- ", "[", "]", "{", "}", "'",
        '"', ": ", "${A", "}", "!reset ", "!!int ", "null", "~", "versions: ", "split: ", "v1: ", "90", "%", "|\n", ">",
        "#", "---\n", "\t", "depends_on: ", "upstreams: ", "web", "job: true", "env: ", "A=1", "? ", "\x00", "\ud800",
        "\\", "gateway: ", "restart: ",
    ]
)  # fmt: skip


@settings(max_examples=200)
@given(st.one_of(st.text(max_size=200), st.lists(YAML_PIECES, max_size=40).map("".join)))
def test_any_text_is_a_mesh_or_problems(text: str) -> None:
    for source in (make_source(text), make_source(WEB, text)):
        assert isinstance(find_problems(source), list)


@settings(max_examples=100)
@given(data=st.data())
def test_a_valid_file_changed_anywhere_is_a_mesh_or_problems(data: st.DataObject) -> None:
    lines = EVERYTHING.split("\n")
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(lines) - 1))
        kind = data.draw(st.sampled_from(["drop", "swap", "cut", "put"]))
        if kind == "drop":
            del lines[at]
        elif kind == "swap":
            other = data.draw(st.integers(0, len(lines) - 1))
            lines[at], lines[other] = lines[other], lines[at]
        elif kind == "cut":
            lines[at] = lines[at][: data.draw(st.integers(0, len(lines[at])))]
        else:
            column = data.draw(st.integers(0, len(lines[at])))
            lines[at] = lines[at][:column] + data.draw(YAML_PIECES) + lines[at][column:]
    source = make_source("\n".join(lines))
    found = find_problems(source)
    assert find_problems(source) == found, "the same text gives the same problems"


@pytest.mark.parametrize("text", [EVERYTHING, WEB])
def test_problems_name_the_file_as_it_was_given_and_come_in_order(text: str) -> None:
    broken = text.replace("command", "comand")
    try:
        load(make_source(broken, "nonsense: 1\n"))
    except InvalidTopology as error:
        places = [problem.where for problem in error.problems]
        assert all(places)
        assert {place.file for place in places if place} == {"mesh.yaml", "2.yaml"}
        order = [(place.file != "mesh.yaml", place.line, place.column) for place in places if place]
        assert order == sorted(order)
    else:
        pytest.fail("no problem was found")
