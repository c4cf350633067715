"""Random rules and random requests, near enough to each other that rules match as often as not."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from meshctl.plan.policies.authorization import AuthorizationPlan
from meshctl.spec.policy_schema import AuthzRule, HeaderRule

TRUST_DOMAIN = "random.mesh"
ANONYMOUS = "anonymous"
CALLERS = ("a", "b", "gateway", "stranger")
"""Those who have a certificate of the mesh; no rule knows the last."""

_SOURCES = ("a", "b", "gateway", ANONYMOUS)
_METHODS = ("GET", "POST", "HEAD", "OPTIONS", "PROPFIND", "DELETE")
_PATHS = (
    "/", "/*", "*", "/a", "/a/", "/a/*", "/a*", "/a/b", "/a/b*", "/a@b", "/a%40b", "/%61", "/caf%C3%A9", "/a.b",
    "/a+b/*", "/a/..b", "/b", "/b/*", "/%25", "/%7B", "/A", "/a%20b", "/*b", "/a$b",
)  # fmt: skip
_PIECES = (
    "/", "/", "/", "//", "a", "a", "b", "%61", "%2e", "%2E%2e", ".", "..", "/./", "/../", "%2f", "%5c", "\\", "@",
    "%40", ";", "%3b", "?", "?a=/b", "%", "%%32e", "%%361", "%zz", "%00", "caf%c3%a9", "#", "+b", "%25", '"', "{",
    "*", "%7E", "~", "%20", "$", "A",
)  # fmt: skip
_EXACT = ("1", "a", "a,b", "A b")
_REGEXES = ("a+", "(?i)A|b", ".*", "", "[^,]*", "(?:a,?)+", r"\w{1,2}", "a b|1")
XFCC = "X-Forwarded-Client-Cert"
"""The header in which a sidecar hands on identities; what a client writes there itself must be of no use."""

_VALUES = ("URI=spiffe://random.mesh/a", "1", "a", "b", "A", "a,b", "", "b , a", "aa", "A b", "x")


@dataclass(frozen=True, slots=True)
class Asked:
    """A request as it is written: header names in any case, each name as often as it likes."""

    source: str
    method: str
    path: str
    headers: tuple[tuple[str, str], ...]


def plans() -> st.SearchStrategy[AuthorizationPlan]:
    """Rules of a service that takes plain text too."""
    callers = st.sets(st.sampled_from(("a", "b", ANONYMOUS))).map(lambda names: tuple(sorted({*names, "gateway"})))
    return st.builds(
        AuthorizationPlan,
        service=st.just("callee"),
        trust_domain=st.just(TRUST_DOMAIN),
        audit=st.just(False),
        callers=st.one_of(st.none(), callers),
        rules=st.lists(_rules(), max_size=4).map(_distinct),
        default=st.sampled_from(("allow", "deny")),
        plain=st.just(True),
    )


def requests() -> st.SearchStrategy[Asked]:
    """Requests, many of them with paths that try to get around a rule."""
    paths = st.one_of(
        st.lists(st.sampled_from(_PIECES), max_size=6).map(lambda pieces: "/" + "".join(pieces)),
        st.sampled_from([path.replace("*", "b") for path in _PATHS if path.startswith("/")]),
    )
    headers = st.lists(st.tuples(st.sampled_from(("x-r", "X-R", "x-s", XFCC)), st.sampled_from(_VALUES)), max_size=3)
    return st.builds(
        Asked,
        source=st.sampled_from((*CALLERS, ANONYMOUS)),
        method=st.sampled_from(_METHODS),
        path=paths,
        headers=headers.map(tuple),
    )


def _rules() -> st.SearchStrategy[AuthzRule]:
    return st.builds(
        AuthzRule,
        name=st.just("rule"),
        action=st.sampled_from(("allow", "deny")),
        sources=_some(_SOURCES),
        methods=_some(_METHODS),
        paths=_some(_PATHS),
        headers=st.lists(_headers(), max_size=2, unique_by=lambda header: header.name).map(tuple),
    )


def _headers() -> st.SearchStrategy[HeaderRule]:
    names = st.sampled_from(("x-r", "x-s"))
    return st.one_of(
        st.builds(HeaderRule, name=names, exact=st.sampled_from(_EXACT)),
        st.builds(HeaderRule, name=names, regex=st.sampled_from(_REGEXES)),
        st.builds(HeaderRule, name=names, present=st.booleans()),
    )


def _some(values: tuple[str, ...]) -> st.SearchStrategy[tuple[str, ...]]:
    """Any, as often as one or a few of them."""
    few = st.lists(st.sampled_from(values), min_size=1, max_size=3, unique=True).map(tuple)
    return st.one_of(st.just(()), few)


def _distinct(rules: list[AuthzRule]) -> tuple[AuthzRule, ...]:
    named = [
        AuthzRule(
            name=f"r{number}",
            action=rule.action,
            sources=rule.sources,
            methods=rule.methods,
            paths=rule.paths,
            headers=rule.headers,
        )
        for number, rule in enumerate(rules)
    ]
    return tuple(sorted(named, key=lambda rule: rule.action == "allow"))
