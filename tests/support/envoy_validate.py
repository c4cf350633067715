"""Runs ``envoy --mode validate`` on what a sidecar would be sent over ADS, with the code that ``--dry-run`` uses."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from meshctl.adapters.envoy_binary import find_envoy
from meshctl.adapters.envoy_validate import check_resources, make_stand_in
from meshctl.envoy.translate import Credentials, Translated


def envoy_path() -> str:
    """The Envoy that the tests run."""
    return find_envoy(os.environ).path


def throwaway_credentials() -> Credentials:
    """A self-signed certificate: enough for Envoy to load."""
    return make_stand_in()


async def validate_all(proxies: Mapping[str, Sequence[Translated]]) -> dict[str, str]:
    """Validates several proxies, two at a time; the words about those that were refused, by node."""
    return await check_resources(envoy_path(), proxies)
