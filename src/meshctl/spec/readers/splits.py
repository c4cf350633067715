"""Weights of versions, read from their mapping.  Pure."""

from __future__ import annotations

from collections.abc import Mapping

from meshctl.spec.reader import Fields, read_scalar
from meshctl.spec.report import quote
from meshctl.spec.shapes import Percentage
from meshctl.spec.source import MapNode

FULL = 100


def read_split(fields: Fields) -> Mapping[str, int]:
    """The weights under ``split``, without those of 0; empty when there is none. What they sum to is checked."""
    split: dict[str, int] = {}
    complete = True
    for name, entry in fields.named("split").items():
        weight = read_scalar(Percentage(whole=True), entry.node, f"the weight of {quote(name)}", fields.report)
        complete = complete and weight is not None
        if isinstance(weight, float):
            split[name] = int(weight)
    total = sum(split.values())
    if complete and isinstance(fields.node("split"), MapNode) and total != FULL:
        message = f"weights must sum to 100, these sum to {total}"
        fields.report.add("bad-split", message, fields.key_place("split"), "change the weights under `split`")
    return {name: weight for name, weight in split.items() if weight}
