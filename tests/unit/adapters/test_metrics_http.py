"""The endpoint for Prometheus: on loopback, for those who mean it; and what processes use."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator

import aiohttp
import pytest

from meshctl.adapters.metrics_http import HttpMetricsServer
from meshctl.adapters.process_meter import PsutilMeter
from meshctl.ports import Exposition


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        found: int = probe.getsockname()[1]
        return found


@pytest.fixture
async def server() -> AsyncIterator[HttpMetricsServer]:
    made = HttpMetricsServer()
    yield made
    await made.close()


def expose(accept: str) -> Exposition:
    return Exposition(text=f"# {accept}\n", content_type="text/plain; version=0.0.4; charset=utf-8")


async def test_a_reader_gets_what_it_accepts(server: HttpMetricsServer, port: int) -> None:
    await server.open(port, expose)
    async with aiohttp.ClientSession() as client:
        async with client.get(f"http://127.0.0.1:{port}/metrics", headers={"accept": "x/y"}) as answer:
            assert (answer.status, await answer.text()) == (200, "# x/y\n")
            assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
        async with client.get(f"http://localhost:{port}/") as answer:
            assert "/metrics" in await answer.text()


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "localhost.evil.example"])
async def test_a_page_of_the_internet_gets_nothing(server: HttpMetricsServer, port: int, host: str) -> None:
    await server.open(port, expose)
    async with (
        aiohttp.ClientSession() as client,
        client.get(f"http://127.0.0.1:{port}/metrics", headers={"host": host}) as answer,
    ):
        assert answer.status == 403


async def test_a_port_that_is_taken_is_an_oserror(server: HttpMetricsServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        await server.open(taken.getsockname()[1], expose)


async def test_when_closed_nobody_listens(server: HttpMetricsServer, port: int) -> None:
    await server.open(port, expose)
    await server.close()
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_what_a_process_uses_is_known_from_the_second_time_on() -> None:
    meter = PsutilMeter()
    pids = {"me": os.getpid(), "nobody": 2**22 + 1}
    first = meter.measure(pids)
    assert set(first) == {"me"}
    assert first["me"].cpu is None
    assert first["me"].memory > 1_000_000
    assert meter.measure(pids)["me"].cpu is not None
    assert meter.measure({}) == {}
    assert meter.measure(pids)["me"].cpu is None, "it was forgotten"
