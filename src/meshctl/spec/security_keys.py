"""The keys of encryption and authorization.  Pure declarations; see ``keys``."""

from __future__ import annotations

from meshctl.spec.policy_schema import Security
from meshctl.spec.shapes import Boolean, Choice, Key, Table

_BUILT_IN = Security()

SECURITY = Table(
    id="security",
    title="`security`",
    doc="Encryption and authorization between services.",
    keys=(
        Key(name="mtls", shape=Boolean(), doc="Whether sidecars speak mTLS.", default=_BUILT_IN.mtls),
        Key(
            name="authz_policy",
            shape=Choice(values=("rbac", "none")),
            doc="`rbac` lets in the services that declare this one as an upstream; `none` lets in any of the mesh.",
            default=_BUILT_IN.authz_policy,
        ),
    ),
)
