"""Snapshots are consistent, and equal when their content is."""

from __future__ import annotations

import pytest
from tests.unit.ads.playbook import cluster, endpoints, routes, snap

from meshctl.ads.snapshot import CLUSTER, ROUTE


def test_the_version_depends_on_content_and_not_on_order() -> None:
    one, two = cluster("a@1"), cluster("b@1")
    assert snap(one, two).version == snap(two, one).version
    assert snap(one).version != snap(cluster("a@2")).version
    assert list(snap(two, one).of(CLUSTER)) == ["a", "b"]
    assert snap(one).of("unknown") == {}
    assert snap().of(ROUTE) == {}


def test_a_name_may_be_there_only_once() -> None:
    with pytest.raises(ValueError, match="a is twice among"):
        snap(cluster("a@1"), cluster("a@2"))


def test_what_is_needed_must_be_there() -> None:
    with pytest.raises(ValueError, match="r needs a, which is not among"):
        snap(cluster("a@1"), routes("r@1", "a"))
    snap(cluster("a@1"), endpoints("a@1"), routes("r@1", "a"))
