"""How a service's versions are rolled out, read from its mapping.  Pure.

That the version is one of the service's is checked in ``validate_rollout``.
"""

from __future__ import annotations

from dataclasses import replace

from meshctl.spec.reader import Fields, read_scalar
from meshctl.spec.rollout_keys import ROLLOUT
from meshctl.spec.rollout_rules import find_mistakes
from meshctl.spec.rollout_schema import RolloutRules
from meshctl.spec.shapes import Percentage


def read_rollout(owner: Fields) -> RolloutRules | None:
    """The rules of rollouts; None when none are written."""
    if not owner.has("rollout"):
        return None
    report = owner.report
    before = report.count
    fields = Fields(ROLLOUT, owner.node("rollout"), report, where=owner.key_place("rollout"))
    base = RolloutRules(version=fields.text("version", ""), where=fields.where)
    rules = replace(
        base,
        steps=_read_steps(fields) or base.steps,
        interval=fields.duration("interval", base.interval),
        window=fields.duration("window", base.window),
        max_error_ratio=fields.number("max_error_ratio", base.max_error_ratio),
        max_p99_ratio=fields.number("max_p99_ratio", base.max_p99_ratio),
        alpha=fields.number("alpha", base.alpha),
        min_requests=fields.integer("min_requests", base.min_requests),
        on_failure=fields.choice("on_failure", base.on_failure),
        deadline=fields.duration("deadline", base.deadline),
        count_faults=fields.boolean("count_faults", base.count_faults),
    )
    if report.count == before:
        for key, message, hint in find_mistakes(rules):
            report.add("bad-rollout", message, fields.key_place(key), hint)
    return rules


def _read_steps(fields: Fields) -> tuple[int, ...]:
    shape = Percentage(minimum=1, whole=True)
    found = [read_scalar(shape, item, "a step", fields.report) for item in fields.items("steps")]
    return tuple(int(weight) for weight in found if isinstance(weight, float))
