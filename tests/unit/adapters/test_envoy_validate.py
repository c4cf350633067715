"""Envoy's verdict on what no sidecar has been sent: accepted, or refused in its own words."""

from __future__ import annotations

from dataclasses import replace

import pytest
from tests.support.cases import make_case
from tests.support.envoy_validate import envoy_path

from meshctl.adapters.envoy_validate import check_plans, make_stand_in, read_words
from meshctl.plan.model import ExternalCluster, ProxyPlan

TEXT = "services: {a: {command: ./a, upstreams: [b, v]}, b: {command: ./b}, v: {address: 'https://localhost:9'}}\n"


def without_roots(plan: ProxyPlan) -> ProxyPlan:
    clusters = tuple(
        replace(cluster, roots_file="/nowhere/roots.pem") if isinstance(cluster, ExternalCluster) else cluster
        for cluster in plan.clusters
    )
    return replace(plan, clusters=clusters)


async def test_what_envoy_would_refuse_is_told_by_node_in_its_words() -> None:
    plans = make_case(TEXT).plan.proxies
    assert await check_plans(envoy_path(), {"a": plans["a"], "b": plans["b"]}) == {}
    refused = await check_plans(envoy_path(), {"a": without_roots(plans["a"]), "b": plans["b"]})
    assert refused == {"a": "Invalid path: /nowhere/roots.pem"}
    assert await check_plans(envoy_path(), {}) == {}


BROKEN = """\
[2026-11-24 06:35:10.123][17][critical][main] [source/server/server.cc:434] error initializing config '  /t/0.json': no
[2026-11-24 06:35:10.124][17][error][main] no
"""


@pytest.mark.parametrize(
    ("said", "words"),
    [("", "it gives no reason"), ("no prefix at all\n", "no prefix at all"), (BROKEN, "no")],
    ids=["nothing", "plain", "log"],
)
def test_times_threads_and_source_files_are_left_out(said: str, words: str) -> None:
    assert read_words(said) == words


def test_the_keys_that_envoy_is_shown_are_no_keys_of_a_mesh() -> None:
    assert make_stand_in() is make_stand_in()
    assert b"BEGIN CERTIFICATE" in make_stand_in().roots
