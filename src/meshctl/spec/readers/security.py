"""Encryption and authorization, read from their mapping.  Pure."""

from __future__ import annotations

from meshctl.spec.policy_schema import Security
from meshctl.spec.reader import Fields


def read_security(fields: Fields) -> Security:
    """How sidecars prove who they are, and whom they let in."""
    base = Security()
    return Security(
        mtls=fields.boolean("mtls", base.mtls), authz_policy=fields.choice("authz_policy", base.authz_policy)
    )
