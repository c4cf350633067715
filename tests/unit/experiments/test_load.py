"""Experiment files: what they become, and every problem with its place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from meshctl.errors import InvalidTopology, Problem
from meshctl.experiments.load import load, name_of
from meshctl.experiments.model import (
    AtPath,
    Between,
    Equal,
    Experiment,
    HttpProvider,
    Matches,
    MeshProvider,
    OneOf,
    ProcessProvider,
    Tolerance,
)
from meshctl.experiments.problems import EXPERIMENT_KINDS
from meshctl.ports import SourceFile
from meshctl.spec.problems import PROBLEM_KINDS, ProblemKind

HEAD = "title: t\ndescription: d\n"
ACTION = "{type: action, name: a, provider: {type: meshctl, verb: restart}}"


def read(text: str, environ: dict[str, str] | None = None, **given: Any) -> Experiment:
    return load(SourceFile(path="e.yaml", directory="/", text=text), environ or {}, given)


def problems(text: str, **environ: str) -> list[Problem]:
    with pytest.raises(InvalidTopology) as caught:
        read(text, environ)
    return list(caught.value.problems)


def method(*activities: str) -> str:
    return HEAD + "method:\n" + "".join(f"- {each}\n" for each in activities)


def probe(provider: str = "{type: http, url: 'http://x/'}", more: str = "") -> str:
    return f"{{type: probe, name: p, provider: {provider}{', ' + more if more else ''}}}"


def tolerance(text: str) -> Tolerance | None:
    return read(method(probe(more=f"tolerance: {text}"))).method[0].tolerance


def test_an_experiment_has_what_its_file_says() -> None:
    text = (
        f"{HEAD}tags: [one]\n"
        "steady-state-hypothesis: {title: it works, probes: [" + probe(more="tolerance: 200") + "]}\n"
        f"method:\n- {ACTION[:-1]}, background: true, pauses: {{before: 1, after: 500ms}}}}\n"
        f"rollbacks:\n- {ACTION}\n"
        "runtime: {hypothesis: {strategy: continuously, frequency: 2s}}\n"
    )
    found = read(text)
    assert (found.title, found.description, found.tags) == ("t", "d", ("one",))
    assert (found.hypothesis_title, found.strategy, found.frequency) == ("it works", "continuously", 2.0)
    assert found.hypothesis[0].tolerance == Equal(value=200)
    first = found.method[0]
    assert (first.background, first.pause_before, first.pause_after) == (True, 1.0, 0.5)
    assert found.rollbacks[0].raw["name"] == "a"
    assert found.raw["title"] == "t"


def test_json_is_read_too() -> None:
    text = json.dumps(
        {"version": "1.0.0", "title": "t", "description": "d", "method": [json.loads(_JSON_PROBE)]}, indent="\t"
    )
    assert read(text).method[0].provider == HttpProvider(url="http://x/")


_JSON_PROBE = '{"type": "probe", "name": "p", "provider": {"type": "http", "url": "http:\\/\\/x/"}}'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("200", Equal(value=200)),
        ("true", Equal(value=True)),
        ("OK", Equal(value="OK")),
        ("'200'", Equal(value="200")),
        ("[4, 9]", Between(low=4, high=9)),
        ("[4, 9, 78]", OneOf(values=(4, 9, 78))),
        ("[a, b]", OneOf(values=("a", "b"))),
        ("{type: range, range: [0.5, 1], target: success}", Between(low=0.5, high=1, target="success")),
        ("{type: range, range: [null, 3]}", Between(low=float("-inf"), high=3)),
        ("{type: jsonpath, path: '$.a[*].b', expect: 4}", AtPath(path="$.a[*].b", expect=(4,))),
        ("{type: jsonpath, path: a, count: 2, target: stdout}", AtPath(path="a", count=2, target="stdout")),
    ],
)
def test_tolerances_are_those_of_chaos_toolkit(text: str, expected: Tolerance) -> None:
    assert tolerance(text) == expected


def test_a_regex_is_compiled() -> None:
    found = tolerance("{type: regex, pattern: '[0-9]{3}', target: stdout}")
    assert isinstance(found, Matches)
    assert (found.pattern.pattern, found.target) == ("[0-9]{3}", "stdout")


def test_verbs_have_their_arguments_checked_and_defaults_filled_in() -> None:
    text = method(probe("{type: meshctl, verb: latency, arguments: {service: web, window: 5s, quantile: 95}}"))
    assert read(text).method[0].provider == MeshProvider(
        verb="latency", arguments={"service": "web", "window": 5.0, "quantile": "95"}
    )


@pytest.mark.parametrize("verb", ["circuit state", "circuit_state", "circuit-state"])
def test_a_verb_may_be_written_as_on_the_command_line_or_as_its_function(verb: str) -> None:
    provider = read(method(probe(f"{{type: meshctl, verb: {verb}, arguments: {{service: a}}}}"))).method[0].provider
    assert isinstance(provider, MeshProvider)
    assert provider.verb == "circuit state"


def test_the_functions_for_chaos_toolkit_are_taken_by_their_name() -> None:
    provider = "{type: python, module: meshctl.chaostoolkit.probes, func: success, arguments: {service: web}}"
    found = read(method(probe(provider))).method[0].provider
    assert found == MeshProvider(verb="success", arguments={"service": "web", "window": 10.0})


def test_programs_take_their_arguments_as_chaos_toolkit_gives_them() -> None:
    def arguments(text: str) -> object:
        provider = read(method(probe(f"{{type: process, path: p, arguments: {text}}}"))).method[0].provider
        assert isinstance(provider, ProcessProvider)
        return provider.arguments

    assert arguments("[a, 1, '']") == ("a", "1")
    assert arguments("{--count: 3, --json: null}") == ("--count", "3", "--json")
    assert arguments("'a | b'") == "a | b"


def test_a_timeout_may_be_one_bound_or_two() -> None:
    provider = read(method(probe("{type: http, url: 'http://x/', timeout: [1, 2]}"))).method[0].provider
    assert isinstance(provider, HttpProvider)
    assert (provider.connect_timeout, provider.timeout) == (1.0, 2.0)
    provider = read(method(probe("{type: http, url: 'http://x/', timeout: 3}"))).method[0].provider
    assert isinstance(provider, HttpProvider)
    assert (provider.connect_timeout, provider.timeout) == (3.0, 3.0)


def test_an_activity_may_stand_for_one_that_is_named_elsewhere() -> None:
    found = read(method(ACTION, "{ref: a}"))
    assert found.method[0].provider == found.method[1].provider


# ------------------------------------------------------------------------------------------ configuration


CONFIGURATION = (
    "configuration:\n"
    "  count: 3\n"
    "  host: {type: env, key: HOST, default: localhost}\n"
    "  port: {type: env, key: PORT, env_var_type: int}\n"
)
PROVIDER = "{type: process, path: p, arguments: ['${count}', 'http://${host}:${port}/$count$$x', '$nobody']}"


def test_values_are_filled_in_from_the_file_the_environment_and_the_command_line() -> None:
    found = read(CONFIGURATION + method(probe(PROVIDER)), {"PORT": "80"}, host="there")
    provider = found.method[0].provider
    assert isinstance(provider, ProcessProvider)
    assert provider.arguments == ("3", "http://there:80/3$x", "$nobody")
    assert found.configuration == {"count": 3, "host": "there", "port": 80}
    assert found.raw["configuration"] != found.configuration, "the journal has the file as it is written"


def test_a_reference_alone_keeps_the_type_of_its_value() -> None:
    text = CONFIGURATION + method(probe(more="tolerance: '${count}'"))
    assert read(text, {"PORT": "1"}).method[0].tolerance == Equal(value=3)


def test_a_variable_that_is_missing_or_of_another_type_is_a_problem_of_its_own_only() -> None:
    text = CONFIGURATION + method(probe(PROVIDER))
    assert [(p.code, p.where and p.where.line) for p in problems(text)] == [("bad-variable", 4)]
    assert [p.code for p in problems(text, PORT="http")] == ["bad-variable"]


# ------------------------------------------------------------------------------------------ problems


@pytest.mark.parametrize("kind", EXPERIMENT_KINDS, ids=lambda kind: kind.code)
def test_every_kind_of_problem_is_what_its_example_has(kind: ProblemKind) -> None:
    assert [problem.code for problem in problems(kind.example)] == [kind.code]


def test_codes_are_of_experiments_or_of_topologies_not_of_both() -> None:
    codes = [kind.code for kind in EXPERIMENT_KINDS]
    assert codes == sorted(codes)
    assert not set(codes) & {kind.code for kind in PROBLEM_KINDS}


def test_all_problems_are_found_at_once_each_with_its_place() -> None:
    text = (
        "title: t\n"
        "descriptoin: d\n"
        "steady-state-hypothesis:\n"
        "  title: h\n"
        "  probes:\n"
        "  - {type: probe, name: p, provider: {type: meshctl, verb: latncy, arguments: {service: a}}}\n"
        "method:\n"
        "- {type: action, name: a, provider: {type: meshctl, verb: load, arguments: {service: a, rps: many}}}\n"
        "- {type: action, name: b, provider: {type: meshctl, verb: success}}\n"
        "- {type: probe, name: c, tolerance: {type: regex, pattern: '('}, provider: {type: proces, path: x}}\n"
        "controls: [{name: c}]\n"
        "secrets: {a: b}\n"
    )
    found = [(p.where.line, p.code) for p in problems(text) if p.where]
    assert found == [
        (1, "missing-key"),
        (2, "unknown-key"),
        (6, "missing-key"),
        (6, "unknown-verb"),
        (8, "bad-number"),
        (9, "unknown-verb"),
        (10, "bad-tolerance"),
        (10, "bad-choice"),
        (11, "not-supported"),
        (12, "not-supported"),
    ]
    words = "\n".join(str(problem) for problem in problems(text))
    assert "did you mean `latency`" in words
    assert "`success` is a probe, not an action" in words
    assert "did you mean `process`" in words
    assert "did you mean `description`" in words


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (method("{type: action, name: a, tolerance: 1, provider: {type: process, path: x}}"), "unknown-key"),
        (method("{ref: nobody}"), "unknown-reference"),
        (HEAD + f"steady-state-hypothesis: {{title: t, probes: [{ACTION}]}}\nmethod: []\n", "bad-choice"),
        (HEAD + "method: []\nruntime: {rollbacks: {strategy: never}}\n", "bad-choice"),
        (method(probe(more="tolerance: {type: probe, name: x}")), "not-supported"),
        (method(probe(more="tolerance: {type: jsonpath, path: '$..a'}")), "bad-tolerance"),
        (method(probe(more="tolerance: {type: range, range: [2, 1]}")), "bad-tolerance"),
        (method(probe(more="tolerance: {type: near}")), "bad-tolerance"),
        (method(probe(more="tolerance: []")), "bad-tolerance"),
        (method(probe("here")), "wrong-type"),
        (method(probe("{url: x}")), "missing-key"),
        (method(probe(more="controls: [a]")), "not-supported"),
        ("- a\n", "not-a-mapping"),
        (HEAD, "missing-key"),
        ("configuration: {a: {type: probe, name: p}}\n" + HEAD + "method: []\n", "not-supported"),
    ],
)
def test_what_cannot_be_is_refused(text: str, code: str) -> None:
    assert [problem.code for problem in problems(text)] == [code]


def test_a_name_is_that_of_the_file() -> None:
    assert name_of("examples/payment-slow.yaml") == "payment-slow"


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        ("str", "1", "1"),
        ("int", "7", 7),
        ("float", "0.5", 0.5),
        ("bool", "yes", True),
        ("bool", "no", False),
        ("json", '{"a": [1]}', {"a": [1]}),
        ("json", "plain", "plain"),
    ],
)
def test_a_variable_of_the_environment_is_read_as_its_type(kind: str, text: str, value: object) -> None:
    configuration = f"configuration: {{x: {{type: env, key: X, env_var_type: {kind}}}}}\n"
    assert read(configuration + method(probe()), {"X": text}).configuration == {"x": value}


def test_an_action_that_is_written_as_a_text_is_told() -> None:
    assert [problem.code for problem in problems(method("restart"))] == ["wrong-type"]


def test_a_provider_without_a_verb_or_a_path_is_told() -> None:
    codes = [problem.code for problem in problems(method(probe("{type: meshctl}"), probe("{type: process}")))]
    assert codes == ["missing-key", "missing-key"]
    codes = [problem.code for problem in problems(method(probe("{type: python, func: load}")))]
    assert codes == ["missing-key"]


def test_a_tolerance_that_lacks_its_part_is_told() -> None:
    for text in ("{type: range}", "{type: jsonpath}", "{type: regex, patern: a}"):
        assert "missing-key" in [problem.code for problem in problems(method(probe(more=f"tolerance: {text}")))]


def test_arguments_of_every_shape_are_read() -> None:
    text = (
        "{type: action, name: a, provider: {type: meshctl, verb: inject fault, arguments: "
        "{service: a, delay: 1s, reset: true, percent: 0.5%, side: caller}}}"
    )
    shifted = "{service: a, weights: {v2: 5}}"
    more = (
        "{type: action, name: b, provider: {type: meshctl, verb: restart, arguments: {targets: [a, b]}}}",
        f"{{type: action, name: c, provider: {{type: meshctl, verb: canary shift, arguments: {shifted}}}}}",
        "{type: action, name: d, provider: {type: meshctl, verb: apply, arguments: {policies: {services: {}}}}}",
        "{type: action, name: e, provider: {type: meshctl, verb: scale, arguments: {service: a, replicas: x}}}",
    )
    found = problems(method(text, *more))
    assert [problem.code for problem in found] == ["bad-number"]
    arguments = [
        activity.provider.arguments
        for activity in read(method(text, *more[:3])).method
        if isinstance(activity.provider, MeshProvider)
    ]
    assert arguments[0] == {
        "service": "a", "delay": 1.0, "reset": True, "percent": 0.5, "side": "caller", "duration": 300.0
    }  # fmt: skip
    assert arguments[1:] == [
        {"targets": ["a", "b"]},
        {"service": "a", "weights": {"v2": 5}},
        {"policies": {"services": {}}},
    ]
