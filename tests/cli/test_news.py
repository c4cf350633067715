"""Which events are told while a mesh comes up, runs and goes down, and how a line of them looks."""

from __future__ import annotations

import pytest
from tests.fakes.backend import make_event

from meshctl.cli.news import News


def test_a_line_begins_with_whom_it_is_about() -> None:
    news = News()
    news.align(["checkout-v1-1"])
    assert news.tell(make_event(1, "ready after 0.3 s", subject="cart-v1-1")) == "cart-v1-1      ready after 0.3 s"
    assert news.tell(make_event(2, "cart: split changed", subject="cart")) == "cart           split changed"


def test_the_level_stands_behind_the_name() -> None:
    event = make_event(1, "exited with 1", subject="cart-v1-1", kind="instance.exited", level="warning")
    assert News().tell(event) == "cart-v1-1  warning: exited with 1"


@pytest.mark.parametrize(
    "kind", ["instance.started", "instance.draining", "job.started", "sidecar.ready", "sidecar.stopped", "mesh.stopped"]
)
def test_steps_on_the_way_are_no_news_unless_something_is_wrong(kind: str) -> None:
    assert News().tell(make_event(1, "x", kind=kind)) is None
    assert News().tell(make_event(1, "x", kind=kind, level="warning")) is not None


def test_what_was_told_is_not_told_again() -> None:
    event = make_event(1, "shop: starting 9 services", subject="shop", kind="topology.changed")
    assert News(told=frozenset({event.message})).tell(event) is None


def test_health_is_news_after_trouble_only() -> None:
    news = News()
    passes = make_event(1, "Envoy's health check of it passes", subject="cart-v1-1", kind="instance.healthy")
    assert news.tell(passes) is None
    news.tell(make_event(2, "fails", subject="cart-v1-1", kind="instance.unhealthy", level="warning"))
    assert news.tell(passes) is not None
    assert news.tell(passes) is None
