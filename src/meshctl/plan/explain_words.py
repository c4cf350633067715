"""Parts of a plan in words, for explanations.  Pure."""

from __future__ import annotations

from meshctl.plan.model import Forward, Match
from meshctl.plan.policies.hashing import HashOn
from meshctl.plan.policies.retry import IDEMPOTENCY_HEADER, IDEMPOTENT_METHODS
from meshctl.spec.routing_schema import HeaderChanges, ValueMatch


def describe_split(split: tuple[tuple[str, int], ...]) -> str:
    """``checkout/v1 90%, checkout/v2 10%``."""
    return ", ".join(name if weight == 100 else f"{name} {weight}%" for name, weight in split)


def describe_hash(hash_on: HashOn) -> str:
    """What a request is hashed on, in words."""
    if hash_on.kind == "source":
        return f"by its caller {hash_on.name}" if hash_on.name else "by the address of the client"
    return f"by the {hash_on.kind} {hash_on.name}"


def describe_match(match: Match) -> str:
    """What a route is for, in words."""
    parts = ["any path"]
    if match.path_exact:
        parts = [f"the path {match.path_exact}"]
    elif match.path_prefix != "/":
        parts = [f"paths under {match.path_prefix}"]
    if match.path_regex:
        parts = [] if parts == ["any path"] else parts
        parts.append(f"paths that match {match.path_regex}")
    parts += [_describe_value("header", condition) for condition in match.headers]
    parts += [_describe_value("parameter", condition) for condition in match.query]
    if match.methods == IDEMPOTENT_METHODS:
        parts.append("methods that may be repeated")
    elif match.methods:
        parts.append(", ".join(match.methods))
    if match.header_present == IDEMPOTENCY_HEADER:
        parts.append("with an Idempotency-Key")
    elif match.header_present:
        parts.append(f"with {match.header_present}")
    return ", ".join(parts)


def _describe_value(what: str, condition: ValueMatch) -> str:
    if condition.kind in ("present", "absent"):
        return f"{'with' if condition.kind == 'present' else 'without'} the {what} {condition.name}"
    verb = "matches" if condition.kind == "regex" else "is"
    return f"the {what} {condition.name} {verb} {condition.value}"


def describe_rewrite(action: Forward, path: str) -> str:
    """What the service is asked for instead."""
    rewrite = action.path_rewrite
    if rewrite is not None:
        bare, mark, query = path.partition("?")
        rest = bare[len(rewrite.prefix.rstrip("/")) :] if rewrite.prefix else ""
        path = f"{rewrite.replacement.rstrip('/') if rest else rewrite.replacement}{rest}{mark}{query}"
    host = f" of the host {action.host_rewrite}" if action.host_rewrite else ""
    return f"it is asked for {path}{host}"


def describe_headers(changes: HeaderChanges) -> str:
    """Which headers change; empty when none does."""
    parts = [f"{name} is {value}" for name, value in changes.replace]
    parts += [f"{name}: {value} is added" for name, value in changes.add]
    parts += [f"{name} is taken away" for name in changes.remove]
    return ", ".join(parts)
