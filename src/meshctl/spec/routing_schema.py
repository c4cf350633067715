"""Where requests to a service go, as frozen values: its rules, sticky splits, mirroring.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from meshctl.errors import Where
from meshctl.spec.policy_schema import RetryPolicy, Timeouts

PathKind = Literal["exact", "prefix", "regex"]
ValueKind = Literal["exact", "regex", "present", "absent"]
REDIRECT_STATUSES = (301, 302, 303, 307, 308)


@dataclass(frozen=True, slots=True, kw_only=True)
class PathMatch:
    """A path without its query: the whole of it, its first segments, or a regular expression for the whole."""

    kind: PathKind = "prefix"
    value: str = "/"


@dataclass(frozen=True, slots=True, kw_only=True)
class ValueMatch:
    """A header (its name in lower case) or a query parameter, and what its value must be."""

    name: str
    kind: ValueKind
    value: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteMatch:
    """What a request must be like; all conditions hold at once, and those that are empty hold always.

    ``callers`` are the services (or ``gateway``) whose requests are meant.
    """

    path: PathMatch = field(default_factory=PathMatch)
    methods: tuple[str, ...] = ()
    headers: tuple[ValueMatch, ...] = ()
    query: tuple[ValueMatch, ...] = ()
    callers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sticky:
    """What keeps a user on one version of a split: a cookie (``ttl`` in seconds, None for a session) or a header."""

    cookie: str = ""
    ttl: float | None = None
    header: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mirror:
    """A copy of ``percent`` percent of the requests goes to ``version``; its answers are dropped."""

    version: str
    percent: float = 100.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rewrite:
    """What the service is asked for instead: another beginning of the path, another path, another host."""

    prefix: str = ""
    path: str = ""
    host: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RedirectTo:
    """The caller is sent elsewhere; what is empty stays as it was asked for."""

    path: str = ""
    host: str = ""
    scheme: str = ""
    status: int = 302


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderChanges:
    """``replace`` sets headers, ``add`` adds to what there is, ``remove`` takes headers away."""

    replace: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


NO_CHANGES = HeaderChanges()


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteRule:
    """One rule of a service; the first that matches wins.

    ``split`` maps versions to weights that sum to 100 and is empty for the service's own split. ``timeout`` and
    ``retry_policy`` are the service's with the rule's laid over them; ``own_timeout`` is True where the rule itself
    bounds a request. What is None is the service's own.
    """

    name: str
    match: RouteMatch
    split: Mapping[str, int] = field(default_factory=dict)
    sticky: Sticky | None = None
    mirror: Mirror | None = None
    rewrite: Rewrite | None = None
    redirect: RedirectTo | None = None
    request_headers: HeaderChanges = NO_CHANGES
    response_headers: HeaderChanges = NO_CHANGES
    timeout: Timeouts = field(default_factory=Timeouts)
    own_timeout: bool = False
    retry_policy: RetryPolicy = field(default_factory=RetryPolicy)
    where: Where
