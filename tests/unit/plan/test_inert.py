"""Whoever asks for a policy without effect is told."""

from __future__ import annotations

from tests.support.cases import load_mesh

from meshctl.plan.inert import find_inert


def test_built_in_policies_are_not_named() -> None:
    assert find_inert(load_mesh("services: {a: {command: run}}")) == {}


def test_policies_asked_for_are_named_with_who_asks() -> None:
    text = """
services:
  b: {command: run, circuit_breaker: {failure_threshold: 3}}
  a: {command: run, fallback: {strategy: cached_response}, circuit_breaker: {timeout: 5s}}
  c: {command: run, circuit_breaker: {enabled: false}}
"""
    assert find_inert(load_mesh(text)) == {"circuit_breaker": ("a", "b"), "fallback": ("a",)}
