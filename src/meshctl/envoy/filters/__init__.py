"""One file per HTTP filter, and the order in which they stand.  Pure.

A listener is made once: connections that are open keep the filters they came in by, so a filter that may ever be
needed stands in the chain from the start, and what it does is switched on routes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from meshctl.envoy.filters import dynamic_forward_proxy, router
from meshctl.plan.model import HttpListener

FILTER_CHAIN: tuple[Callable[[HttpListener], Any | None], ...] = (
    dynamic_forward_proxy.build,
    router.build,
)
"""Each builds its filter for a listener, or None where it can never be needed. A request passes them in this order."""


def build_filters(listener: HttpListener) -> list[Any]:
    """The HTTP filters of a listener, in order."""
    return [item for item in (build(listener) for build in FILTER_CHAIN) if item is not None]
