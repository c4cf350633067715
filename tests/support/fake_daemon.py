"""A control plane's process with a fake inside: ``python fake_daemon.py MODE --directory DIR [--teardown]``.

MODE: ``ok``; ``crash`` ends before it answers; ``fails`` has a service that does not come up; ``slow`` never is ready;
``refuses`` does not accept the topology; ``stuck`` stops by force only.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from pathlib import Path

import msgspec
from tests.fakes.backend import FakeBackend, make_event, make_line, make_status

from meshctl.api.server import serve
from meshctl.errors import PortTakenError
from meshctl.wire.models import ReadyResult, StartFailure
from meshctl.wire.paths import locate


async def run(mode: str, directory: str) -> None:
    paths = locate(directory, environ=os.environ, uid=os.getuid())
    backend = FakeBackend(
        mesh=msgspec.structs.replace(make_status(state="ready"), daemon_pid=os.getpid()),
        event_list=[make_event(1, "checkout-v1-1 ready")],
        lines=[make_line("checkout-v1-1", "listening")],
        hold_down=mode == "stuck",
    )
    if mode == "fails":
        failure = StartFailure(
            name="payment-v1-1",
            message="exited with 1 before it was ready",
            exit_code=1,
            log=f"{paths.logs}/payment-v1-1.log",
            tail=["Traceback (most recent call last):", "KeyError: 'PAYMENT_KEY'"],
        )
        backend.readiness = ReadyResult(state="failed", failures=[failure], waiting=[])
    if mode == "slow":
        backend.readiness = ReadyResult(state="timeout", failures=[], waiting=["payment-v1-1: starting"])
    if mode == "refuses":
        backend.failures["up"] = PortTakenError(
            "port 8080 is held by nginx (pid 7)", hint="stop it, or change the port"
        )
    Path(paths.runtime).mkdir(parents=True, exist_ok=True)
    runner = await serve(backend, paths.api_socket)
    await backend.finished.wait()
    await runner.close()


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("mode")
    parser.add_argument("--directory", required=True)
    parser.add_argument("--teardown", action="store_true")
    args = parser.parse_args()
    if args.mode == "crash":
        sys.stderr.write("ERROR meshctl: no Envoy binary for this machine\n")
        return 1
    if args.teardown:
        marker = locate(args.directory, environ=os.environ, uid=os.getuid())
        for record in (Path(marker.runtime) / "processes").glob("*.json"):
            record.unlink()
        return 0
    asyncio.run(run(args.mode, args.directory))
    return 0


if __name__ == "__main__":
    sys.exit(main())
