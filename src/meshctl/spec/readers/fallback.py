"""Fallbacks, read from their mapping, or from ``false`` for none.  Pure."""

from __future__ import annotations

from meshctl.spec.fallback_keys import FALLBACK
from meshctl.spec.policy_schema import Fallback, FallbackStrategy
from meshctl.spec.reader import Fields
from meshctl.spec.report import Report
from meshctl.spec.source import ScalarNode


def read_fallback(owner: Fields, report: Report) -> Fallback | None:
    """What a caller gets in place of a failure; None for the failure itself."""
    node = owner.alternative("fallback")
    if node is None:
        return None
    if isinstance(node, ScalarNode):
        owner.boolean("fallback", False)
        return None
    fields = Fields(FALLBACK, node, report, where=owner.key_place("fallback"))
    strategy: FallbackStrategy = "static"
    base = Fallback(strategy=fields.choice("strategy", strategy))
    return Fallback(
        strategy=base.strategy,
        status=fields.integer("status", base.status),
        body=fields.text("body", base.body),
        content_type=fields.text("content_type", base.content_type),
        max_age=fields.duration("max_age", base.max_age),
        max_entries=fields.integer("max_entries", base.max_entries),
        max_bytes=fields.integer("max_bytes", base.max_bytes),
        max_body_bytes=fields.integer("max_body_bytes", base.max_body_bytes),
        share_credentials=fields.boolean("share_credentials", base.share_credentials),
    )
