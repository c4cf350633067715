"""An experiment as frozen values.  Pure declarations.

The words are those of Chaos Toolkit (https://chaostoolkit.org/reference/api/experiment/): a steady-state hypothesis of
probes with tolerances, a method of actions and probes, rollbacks. Durations are seconds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from meshctl.errors import Where
from meshctl.spec.render import Value

Kind = Literal["action", "probe"]

Strategy = Literal["default", "before-method-only", "after-method-only", "during-method-only", "continuously", "skip"]
"""When the hypothesis is looked at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MeshProvider:
    """One of meshctl's own verbs; ``arguments`` are checked, durations are seconds in them."""

    verb: str
    arguments: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpProvider:
    """An HTTP request from outside the mesh; ``arguments`` become the query of a GET, else the body."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    arguments: Value = None
    timeout: float = 10.0
    connect_timeout: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessProvider:
    """A program that is run; ``arguments`` as a text are left to a shell, as a list they are passed as they are."""

    path: str
    arguments: tuple[str, ...] | str = ()
    timeout: float | None = None


Provider: TypeAlias = MeshProvider | HttpProvider | ProcessProvider


@dataclass(frozen=True, slots=True, kw_only=True)
class Equal:
    """The value is this one; of a value with a ``status``, that is compared."""

    value: str | int | float | bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OneOf:
    """The value is among these; of a value with a ``status``, that is looked for."""

    values: tuple[str | int | float | bool, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Between:
    """The value is a number within bounds, which belong to it. ``target`` names the part of a mapping to look at."""

    low: float
    high: float
    target: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Matches:
    """A regular expression of Python is found in the value."""

    pattern: re.Pattern[str]
    target: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AtPath:
    """A JSON path finds something; ``count`` so many values, ``expect`` just these values, when they are given."""

    path: str
    expect: tuple[Value, ...] | None = None
    count: int | None = None
    target: str = ""


Tolerance: TypeAlias = Equal | OneOf | Between | Matches | AtPath


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """An action or a probe. ``raw`` is how it is written; what follows does not wait for one in the ``background``."""

    kind: Kind
    name: str
    provider: Provider
    where: Where
    raw: Mapping[str, Value]
    background: bool = False
    pause_before: float = 0.0
    pause_after: float = 0.0
    tolerance: Tolerance | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A whole experiment. ``hypothesis`` holds the probes of the steady state, none when there is nothing to hold."""

    title: str
    description: str
    hypothesis_title: str
    hypothesis: tuple[Activity, ...]
    method: tuple[Activity, ...]
    rollbacks: tuple[Activity, ...]
    strategy: Strategy = "default"
    frequency: float = 1.0
    tags: tuple[str, ...] = ()
    configuration: Mapping[str, Value] = field(default_factory=dict)
    raw: Mapping[str, Value] = field(default_factory=dict)
