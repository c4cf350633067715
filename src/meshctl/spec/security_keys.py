"""The keys of encryption and authorization.  Pure declarations; see ``keys``."""

from __future__ import annotations

from meshctl.spec.policy_schema import Security
from meshctl.spec.shapes import AnyOf, Boolean, Choice, Key, ListOf, MapOf, Table, Text

_BUILT_IN = Security()
_NAME = Text(
    what="a name",
    pattern=r"[A-Za-z0-9]([-_.A-Za-z0-9]{0,61}[A-Za-z0-9])?",
    code="bad-name",
    hint="use letters, digits, - _ and ., at most 63",
)
_METHOD = Text(
    what="a method in capitals",
    pattern=r"[A-Z]([-A-Z]{0,30}[A-Z])?",
    code="bad-text",
    hint="methods are told apart by case: write `GET`",
)
_HEADER = Text(
    what="a header",
    pattern=r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,100}",
    code="bad-name",
    hint="write the header's name alone, such as `x-role`",
)
_VALUE = Text(
    what="the value of a header",
    pattern=r"[!-~]([\t -~]*[!-~])?",
    code="bad-text",
    hint="use printable ASCII; for a header that only has to be there write `{present: true}`",
)

HEADER_RULE = Table(
    id="header_rule",
    title="a header of a rule",
    doc=(
        "What a header must be like; just one of these. A header that comes several times counts as its values joined "
        "by commas: an `allow` rule wants the whole of it to match, for a `deny` rule one of the values is enough."
    ),
    keys=(
        Key(name="regex", shape=Text(what="a regular expression"), doc="A regular expression for the whole value."),
        Key(name="present", shape=Boolean(), doc="Whether the header must be there, or must not."),
    ),
)

RULE = Table(
    id="rule",
    title="a rule",
    doc=(
        "Whom a service admits or refuses, and for what. All conditions that are given must hold, and of each one of "
        "its values; a rule without conditions holds for every request."
    ),
    keys=(
        Key(name="name", shape=_NAME, doc="The name by which refusals and logs call it.", required=True),
        Key(
            name="action",
            shape=Choice(values=("allow", "deny")),
            doc="What becomes of the requests that it matches.",
            required=True,
        ),
        Key(
            name="from",
            shape=ListOf(item=Text(what="a name"), minimum=1, maximum=200),
            doc="Who calls: names of services, `gateway`, or `anonymous` for callers without mTLS. Default: anybody.",
        ),
        Key(
            name="methods",
            shape=ListOf(item=_METHOD, minimum=1, maximum=50),
            doc="Methods, in capitals. Default: any.",
        ),
        Key(
            name="paths",
            shape=ListOf(item=Text(what="a path"), minimum=1, maximum=200),
            doc=(
                "Paths without query: `/charge` is that path, `/orders/*` is `/orders` and everything below, `/v1*` "
                "everything that begins so. Default: any."
            ),
        ),
        Key(
            name="headers",
            shape=MapOf(name=_HEADER, value=AnyOf(shapes=(_VALUE, HEADER_RULE))),
            doc="Headers with their values, or with `{regex: ...}` or `{present: true}`. Default: any.",
        ),
    ),
)

SECURITY = Table(
    id="security",
    title="`security`",
    doc=(
        "Encryption and authorization between services. [The guide](../guides/security.md) says in which order rules "
        "are looked at. A service's `rules` replace those of `defaults`."
    ),
    keys=(
        Key(
            name="mtls",
            shape=AnyOf(shapes=(Boolean(), Choice(values=("strict", "permissive")))),
            doc=(
                "`true` and `strict`: only callers that prove who they are; `permissive`: plain text too, whose "
                "callers are `anonymous`; `false`: sidecars speak plain text, so every caller is."
            ),
            default=True,
        ),
        Key(
            name="authz_policy",
            shape=Choice(values=("rbac", "none")),
            doc=(
                "`rbac` lets in the services that declare this one as an upstream and the gateway, as far as the rules "
                "say so; `none` lets in any of the mesh, and looks at no rule."
            ),
            default=_BUILT_IN.authz_policy,
        ),
        Key(
            name="default",
            shape=Choice(values=("allow", "deny")),
            doc="What becomes of requests where there is no `allow` rule: `deny` admits nobody without one.",
            default=_BUILT_IN.default,
        ),
        Key(
            name="audit",
            shape=Boolean(),
            doc="Refuse nobody, and log who would have been refused.",
            default=_BUILT_IN.audit,
        ),
        Key(
            name="rules",
            shape=ListOf(item=RULE, maximum=200),
            doc="Who may do what: `deny` rules come first; where there are `allow` rules, one of them must match.",
        ),
    ),
)
