"""A closed-loop HTTP/1.1 client: a number of connections, each with one request at a time; and what requests cost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

_CONNECTIONS = 32


@dataclass(frozen=True, slots=True)
class Outcome:
    """Requests answered with 200, those that were not, and the seconds of each."""

    good: int
    bad: int
    seconds: tuple[float, ...]

    def quantile(self, share: float) -> float:
        """Seconds that this share of requests took at the most."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


async def drive(
    host: str, port: int, *, requests: int, connections: int, name: str = "app", pause: float = 0.0
) -> Outcome:
    """Send so many requests in all and wait for every answer; each connection pauses so many seconds after one."""
    request = f"GET / HTTP/1.1\r\nhost: {name}\r\n\r\n".encode()
    left = requests
    taken: list[float] = []
    bad = 0

    async def one() -> None:
        nonlocal left, bad
        reader, writer = await asyncio.open_connection(host, port)
        while left > 0:
            left -= 1
            start = time.perf_counter()
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            lower = head.lower()
            at = lower.index(b"content-length:") + 15
            await reader.readexactly(int(lower[at : lower.index(b"\r", at)]))
            taken.append(time.perf_counter() - start)
            if pause:
                await asyncio.sleep(pause)
            if not head.startswith(b"HTTP/1.1 200"):
                bad += 1
        writer.close()

    await asyncio.gather(*(one() for _ in range(connections)))
    return Outcome(len(taken) - bad, bad, tuple(taken))


def load(port: int, requests: int) -> None:
    """Send so many requests, all of which must be answered with 200."""
    outcome = asyncio.run(drive("127.0.0.1", port, requests=requests, connections=_CONNECTIONS))
    assert outcome.bad == 0, f"{outcome.bad} requests failed"


def measure_requests(port: int, pids: Iterable[int], requests: int) -> float:
    """Seconds of CPU that these processes take for each of so many requests."""
    pids = tuple(pids)
    before = cpu_seconds(pids)
    load(port, requests)
    return (cpu_seconds(pids) - before) / requests


def cpu_seconds(pids: Iterable[int]) -> float:
    """Seconds of CPU that these processes have taken so far."""
    return sum(_cpu_seconds(pid) for pid in pids)


def _cpu_seconds(pid: int) -> float:
    try:
        # To the nanosecond, where psutil knows hundredths of a second only. Source: sched-stats.rst of Linux.
        threads = [Path(f"{task}/schedstat").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    except OSError:
        return float(sum(psutil.Process(pid).cpu_times()[:2]))
    return sum(int(text.split()[0]) for text in threads) / 1e9
