"""The JSON shapes of ``meshctl explain``.  Pure; see ``models``."""

from __future__ import annotations

import msgspec

from meshctl.wire.models import Shape
from meshctl.wire.policies import PolicyOrigin


class ExplainRequest(Shape, frozen=True, kw_only=True):
    """A request that is only thought of; ``source`` is the service that sends it, or ``gateway``. With ``gateway``
    as ``service`` it comes to the gateway from outside of the mesh.
    """

    service: str
    source: str = "gateway"
    method: str = "GET"
    path: str = "/"
    headers: dict[str, str] = msgspec.field(default_factory=dict)


class ExplainSource(Shape, frozen=True, kw_only=True):
    """One key that says so: whose policy it is part of (``defaults``, or the service), and where it was written."""

    path: str
    owner: str
    origin: PolicyOrigin


class ExplainLine(Shape, frozen=True, kw_only=True):
    """One thing that happens to the request. A ``policy`` without sources is built in; one that is empty follows
    from others.
    """

    topic: str
    words: str
    policy: str
    sources: list[ExplainSource]


class Explanation(Shape, frozen=True, kw_only=True):
    """What will happen to a request, in that order, with the policies of one revision. ``service`` is where it ends,
    ``source`` is ``outside`` for one that comes to the gateway.
    """

    service: str
    source: str
    method: str
    path: str
    revision: int
    lines: list[ExplainLine]
