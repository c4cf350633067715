"""The table of verbs: what the conductor, the functions for Chaos Toolkit and the reference are held to."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from meshctl.chaostoolkit import actions, probes
from meshctl.conduct.verbs import DOERS
from meshctl.errors import UsageError
from meshctl.experiments.verbs import VERBS, Verb, convert_arguments, find_verb

MODULES: dict[str, Any] = {"action": actions, "probe": probes}


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: f"{verb.kind} {verb.name}")
def test_every_verb_has_a_function_for_chaos_toolkit_with_its_arguments(verb: Verb) -> None:
    function = getattr(MODULES[verb.kind], verb.function)
    parameters = inspect.signature(function).parameters
    assert set(parameters) == {*verb.arguments.names, "configuration"}
    for key in verb.arguments.keys:
        assert (parameters[key.name].default is inspect.Parameter.empty) == key.required
    assert function.__doc__.startswith(verb.doc)


@pytest.mark.parametrize("kind", ["action", "probe"])
def test_there_is_no_function_without_a_verb(kind: str) -> None:
    module = MODULES[kind]
    names = {
        name
        for name, thing in vars(module).items()
        if inspect.isfunction(thing) and thing.__module__ == module.__name__
    }
    assert names == {verb.function for verb in VERBS if verb.kind == kind}


def test_every_verb_can_be_done() -> None:
    assert {verb.name for verb in VERBS} == set(DOERS)


def test_plain_values_are_checked_as_those_of_a_file() -> None:
    verb = find_verb("load", "probe")
    assert verb is not None
    found = convert_arguments(verb, {"service": "a", "duration": "1m", "rps": 3, "body": None})
    assert (found["duration"], found["rps"], found["timeout"]) == (60.0, 3, 10.0)
    assert "body" not in found
    with pytest.raises(UsageError, match=r"unknown key `servic`.*needs the key `service`"):
        convert_arguments(verb, {"servic": "a"})
