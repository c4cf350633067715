"""Asks an instance once whether it is well: over HTTP, by a TCP connection, or by a command.  I/O.

Enters: an InstanceSpec and a Probe.  Leaves: (ok, message), the message for people; a probe never raises for what
the instance does.  An answer takes at most the probe's timeout; nothing is left running after it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from contextlib import suppress
from typing import IO

from meshctl.lifecycle.describe import describe_exit
from meshctl.lifecycle.model import InstanceSpec
from meshctl.spec.schema import ExecProbe, HttpProbe, Probe, TcpProbe

_BODY_LIMIT = 1_000_000
_BODY_PATIENCE = 0.2
_TAIL = 2000


async def run_probe(spec: InstanceSpec, probe: Probe) -> tuple[bool, str]:
    """Ask once; ``(True, ...)`` when the instance is well.

    Connects to ``spec.host`` and ``spec.port``, or to the unix socket ``spec.host`` when that begins with ``/``. A
    command runs in the service's folder with its environment, in a process group of its own.
    """
    check = probe.check
    try:
        match check:
            case HttpProbe():
                return await _ask_http(spec, check, probe.timeout)
            case TcpProbe():
                async with asyncio.timeout(probe.timeout):
                    return await _ask_tcp(spec)
            case ExecProbe():  # pragma: no branch
                async with asyncio.timeout(probe.timeout):
                    return await _ask_command(spec, check)
    except TimeoutError:
        return False, f"{_describe(check)}: no answer within {probe.timeout:g} s"


async def _ask_http(spec: InstanceSpec, check: HttpProbe, timeout: float) -> tuple[bool, str]:
    what = _describe(check)
    authority = "localhost" if spec.host.startswith("/") else f"{spec.host}:{spec.port}"
    request = (
        f"GET {check.path} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: meshctl-probe\r\n"
        "Accept: */*\r\nConnection: close\r\n\r\n"
    )
    writer: asyncio.StreamWriter | None = None
    try:
        async with asyncio.timeout(timeout):
            reader, writer = await _connect(spec)
            writer.write(request.encode())
            status = await _read_status(reader)
        if status is not None:
            await _read_body(reader)
    except TimeoutError:
        raise
    except (OSError, ValueError) as error:
        return False, f"{what}: {_explain(error)}"
    finally:
        if writer is not None:
            writer.close()
    if status is None:
        return False, f"{what}: what answers there does not speak HTTP"
    ok = any(low <= status < high for low, high in check.expected)
    return ok, f"{what} answered {status}"


async def _read_status(reader: asyncio.StreamReader) -> int | None:
    """The status of the final answer, headers not read yet; None when this is no HTTP/1.x."""
    while True:
        line = await reader.readline()
        if not line:
            raise ConnectionResetError("connection closed without an answer")
        parts = line.split(maxsplit=2)
        if len(parts) < 2 or not parts[0].startswith(b"HTTP/1.") or not parts[1].isdigit():
            return None
        status = int(parts[1])
        if status >= 200 or status == 101:
            return status
        # An interim answer such as 103: its headers end with an empty line, and another status follows.
        while (await reader.readline()).strip():
            pass


async def _read_body(reader: asyncio.StreamReader) -> None:
    """Read the answer to its end, within reason: a server whose client leaves half-way logs errors.

    What goes wrong here changes nothing: the status has been given.
    """
    length: int | None = None
    chunked = False
    with suppress(OSError, ValueError):
        async with asyncio.timeout(_BODY_PATIENCE):
            while line := (await reader.readline()).strip():
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length" and value.strip().isdigit():
                    length = int(value)
                chunked = chunked or (name.lower() == b"transfer-encoding" and b"chunked" in value.lower())
            left = _BODY_LIMIT if length is None else min(length, _BODY_LIMIT)
            end = b""
            while left > 0 and (data := await reader.read(min(left, 65536))):
                left -= len(data)
                end = (end + data)[-5:]
                if chunked and end == b"0\r\n\r\n":
                    return


async def _ask_tcp(spec: InstanceSpec) -> tuple[bool, str]:
    try:
        _, writer = await _connect(spec)
    except OSError as error:
        return False, f"connect to port {spec.port}: {_explain(error)}"
    writer.close()
    return True, f"port {spec.port} accepts connections"


async def _connect(spec: InstanceSpec) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    if spec.host.startswith("/"):
        return await asyncio.open_unix_connection(spec.host)
    return await asyncio.open_connection(spec.host, spec.port)


async def _ask_command(spec: InstanceSpec, check: ExecProbe) -> tuple[bool, str]:
    what = _describe(check)
    # A file, not a pipe: a pipe that nobody empties stops the command, and one held by a child of it never ends.
    with tempfile.TemporaryFile() as output:
        try:
            process = await asyncio.create_subprocess_exec(
                *check.command,
                cwd=spec.process.cwd,
                env=dict(spec.process.env),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        except OSError as error:
            return False, f"{what}: {_explain(error)}"
        try:
            code = await process.wait()
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                await process.wait()
        if code == 0:
            return True, f"{what} exited with 0"
        said = _read_last_line(output)
    return False, f"{what} {describe_exit(code)}{f': {said}' if said else ''}"


def _read_last_line(output: IO[bytes]) -> str:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - _TAIL))
    lines = output.read().decode(errors="replace").strip().splitlines()
    return lines[-1].strip()[:200] if lines else ""


def _describe(check: HttpProbe | TcpProbe | ExecProbe) -> str:
    match check:
        case HttpProbe(path=path):
            return f"GET {path}"
        case TcpProbe():
            return "connect"
        case ExecProbe(command=command):
            return f"command {command[0]}"


def _explain(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower() if error.filename is None else f"{error.strerror.lower()}: {error.filename}"
    return str(error) or type(error).__name__
