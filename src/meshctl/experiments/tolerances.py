"""Whether a value is within a tolerance, and why not.  Pure.

The rules are those of Chaos Toolkit (https://chaostoolkit.org/reference/api/experiment/#steady-state-probe-tolerance):
a scalar is equal, a list of two is a range, a longer one holds the value, and a value that is a mapping with a
``status`` is judged by that. A value that cannot be compared at all is not within the tolerance.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from meshctl.experiments.jsonpath import find_all, parse_path
from meshctl.experiments.model import AtPath, Between, Equal, Matches, OneOf, Tolerance

_SHOWN = 80


def check(tolerance: Tolerance, value: Any) -> bool:
    """Whether what a probe found is within its tolerance."""
    match tolerance:
        case Equal():
            return _equal(_status_of(value), tolerance.value)
        case OneOf():
            found = _status_of(value)
            return any(_equal(found, each) for each in tolerance.values)
        case Between():
            number = to_number(_aim(_status_of(value) if not tolerance.target else value, tolerance.target))
            return number is not None and tolerance.low <= number <= tolerance.high
        case Matches():
            return tolerance.pattern.search(_to_text(_aim(value, tolerance.target))) is not None
        case AtPath():
            return _check_path(tolerance, value)


def describe(tolerance: Tolerance) -> str:
    """A tolerance in words that follow "is": ``between 0.99 and 1``."""
    match tolerance:
        case Equal():
            return _show(tolerance.value)
        case OneOf():
            return f"one of {', '.join(_show(each) for each in tolerance.values)}"
        case Between():
            words = f"between {tolerance.low:g} and {tolerance.high:g}"
            if math.isinf(tolerance.high):
                words = f"at least {tolerance.low:g}"
            elif math.isinf(tolerance.low):
                words = f"at most {tolerance.high:g}"
            return _of(words, tolerance.target)
        case Matches():
            return _of(f"like /{tolerance.pattern.pattern}/", tolerance.target)
        case AtPath():
            words = "something"
            if tolerance.expect is not None:
                words = ", ".join(_show(each) for each in tolerance.expect)
            elif tolerance.count is not None:
                words = f"{tolerance.count} values"
            return _of(f"{words} at {tolerance.path}", tolerance.target)


def pick(tolerance: Tolerance | None, value: Any) -> Any:
    """What a tolerance looks at in a value: what to show beside it."""
    match tolerance:
        case None:
            return value
        case Equal() | OneOf():
            return _status_of(value)
        case Between():
            return _aim(_status_of(value) if not tolerance.target else value, tolerance.target)
        case Matches():
            return _aim(value, tolerance.target)
        case AtPath():
            found = find_all(parse_path(tolerance.path), _parse(_aim(value, tolerance.target)))
            return found[0] if len(found) == 1 else found


def show(value: Any) -> str:
    """A value on one line, shortened; of what verbs answer, what matters of it."""
    if isinstance(value, Mapping):
        value = _brief(value)
    text = " ".join(_show(value).split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}\u2026"


def to_number(value: Any) -> float | None:
    """A number, or a text that is one; None for anything else (a boolean too)."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return None if math.isnan(number) else number


def _brief(value: Mapping[str, Any]) -> Any:
    if "status" in value:
        return f"status {value['status']}"
    if "success" in value and "p99_ms" in value:
        success, slowest = (_show(value[name]) for name in ("success", "p99_ms"))
        return f"{value.get('requests', 0)} requests, success {success}, p99 {slowest} ms"
    if "changes" in value:
        return "; ".join(map(str, value["changes"])) or "nothing changed"
    return next((value[name] for name in ("summary", "message") if name in value), value)


def _equal(value: Any, wanted: Any) -> bool:
    # True is 1 in Python, and not to a person.
    return isinstance(value, bool) == isinstance(wanted, bool) and bool(value == wanted)


def _status_of(value: Any) -> Any:
    return value["status"] if isinstance(value, Mapping) and "status" in value else value


def _aim(value: Any, target: str) -> Any:
    return value.get(target) if target and isinstance(value, Mapping) else value


def _to_text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else json.dumps(value, default=str)


def _parse(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


def _check_path(tolerance: AtPath, value: Any) -> bool:
    found = find_all(parse_path(tolerance.path), _parse(_aim(value, tolerance.target)))
    if tolerance.expect is not None:
        return len(found) == len(tolerance.expect) and all(map(_equal, found, tolerance.expect))
    return len(found) == tolerance.count if tolerance.count is not None else bool(found)


def _show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:.0f}"
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _of(words: str, target: str) -> str:
    return f"{target} {words}" if target else words
