"""``meshctl call``: one request, sent as a service would send it.

The body goes to stdout as it arrives; one line on stderr says who answered, with which status and how fast.
"""

from __future__ import annotations

import asyncio
import difflib
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer

from meshctl.cli.complete import complete_services
from meshctl.cli.errors import FAILED
from meshctl.cli.options import PANEL_SEE, Output, OutputOption, example, parse_duration
from meshctl.cli.project import Screen, connect, find_project, make_screen
from meshctl.errors import NotRunningError, UsageError

if TYPE_CHECKING:
    from meshctl.client.calls import MeshRequest, MeshResponse
    from meshctl.client.client import MeshClient
    from meshctl.wire.models import CallTarget

GATEWAY = "gateway"

UPSTREAM_HEADER = "x-envoy-upstream-service-time"
"""Set by the caller's sidecar on what it passes on: what lacks it, the sidecar made itself."""

_LATE = b"upstream request timeout"

EXPLANATIONS: tuple[tuple[int, str, str], ...] = (
    (403, "RBAC: access denied", "{source} may not call {service}: add {service} to its `upstreams`"),
    (503, "no healthy upstream", "no instance of {service} is ready: `meshctl status` shows why"),
    (503, "upstream connect error", "no instance of {service} took the connection: `meshctl logs {service}`"),
    (503, "upstream_reset", "{service} broke the connection off: `meshctl logs {service}`"),
    (504, _LATE.decode(), "{service} was slower than its `timeout` allows"),
)
"""What answers that the sidecar itself makes mean: status, beginning of the body, words for people.

The bodies are those of https://www.envoyproxy.io/docs/envoy/latest/configuration/http/http_conn_man/response_code_details
"""


def register(app: typer.Typer) -> None:
    """Add the verb."""
    app.command(
        rich_help_panel=PANEL_SEE,
        epilog=example(
            "meshctl call frontend/",
            "meshctl call --from checkout payment/health -i",
            """meshctl call -d '{"item": 1}' orders/orders -o json""",
        ),
    )(call)


def call(
    ctx: typer.Context,
    target: Annotated[
        str,
        typer.Argument(
            metavar="SERVICE/PATH",
            autocompletion=complete_services,
            show_default=False,
            help="A service, and what to ask it for.",
        ),
    ],
    *,
    source: Annotated[
        str, typer.Option("--from", metavar="SERVICE", autocompletion=complete_services, help="Who sends it.")
    ] = GATEWAY,
    method: Annotated[
        str, typer.Option("--request", "-X", metavar="METHOD", help="HTTP method (default: GET, or POST with -d).")
    ] = "",
    header: Annotated[
        list[str] | None, typer.Option("--header", "-H", metavar="'NAME: VALUE'", help="A header; may be repeated.")
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", "-d", metavar="DATA|@FILE|-", help="Body: text, a file, or stdin.")
    ] = None,
    timeout: Annotated[str, typer.Option(metavar="TIME", help="How long the whole answer may take.")] = "10s",
    output: OutputOption = Output.TABLE,
    include: Annotated[bool, typer.Option("--include", "-i", help="Print status and headers before the body.")] = False,
) -> None:
    """Send a request as a service would, through its sidecar.

    Exits with 0 when the status is below 400, else with 1. A body of JSON is sent as application/json.
    """
    from meshctl.client.calls import MeshRequest  # noqa: PLC0415 - aiohttp is loaded when something is sent

    service, path = split_target(target)
    body = read_body(data)
    request = MeshRequest(
        service=service,
        path=path,
        method=method.upper() or ("GET" if body is None else "POST"),
        headers=read_headers(header or [], body),
        body=body,
        timeout=parse_duration(timeout, option="--timeout"),
    )
    screen = make_screen(ctx)
    project = find_project(ctx)

    async def converse() -> int:
        async with connect(project) as client:
            place = await client.call_target(source)
            return await _send(client, screen, place=place, request=request, output=output, include=include)

    status = asyncio.run(converse())
    if status >= 400:
        raise typer.Exit(FAILED)


def split_target(target: str) -> tuple[str, str]:
    """Service and path (query included) of ``orders``, ``orders/path`` or ``http://orders/path``.

    Raises UsageError for anything else.
    """
    hint = "write SERVICE/PATH, such as orders/orders?limit=5"
    if target.startswith("https://"):
        raise UsageError(f"{target}: the sidecars do TLS among themselves", hint="write http://, or SERVICE/PATH")
    if "://" in target and not target.startswith("http://"):
        raise UsageError(f"{target}: only HTTP requests can be sent", hint=hint)
    try:
        url = urlsplit(target if target.startswith("http://") else f"http://{target}")
        named = bool(url.hostname) and not any(character.isspace() for character in target)
    except ValueError:
        named = False
    if not named:
        raise UsageError(f"{target!r} names no service", hint=hint)
    path = url.path or "/"
    return url.netloc.rpartition("@")[2], f"{path}?{url.query}" if url.query else path


async def _send(
    client: MeshClient, screen: Screen, *, place: CallTarget, request: MeshRequest, output: Output, include: bool
) -> int:
    from meshctl.client.calls import open_call  # noqa: PLC0415 - aiohttp is loaded when something is sent

    async with open_call(place, request) as response:
        start = b""
        if output is Output.JSON:
            start = b"".join([chunk async for chunk in response.chunks])
            _print_json(response, start)
        else:
            screen.say(_describe(response, service=request.service, source=place.source))
            if include:
                _print_headers(response)
            start = await _print_body(response.chunks)
    # A deadline may be kept by the sidecar of the instance, which puts the instance's name to its answer.
    if response.status >= 400 and (not response.instance or start.startswith(_LATE)):
        explanation = await _explain(client, request.service, place.source, response.status, start)
        if explanation:
            screen.say(explanation)
    return response.status


def _describe(response: MeshResponse, *, service: str, source: str) -> str:
    who = f"{response.instance} ({response.version})" if response.version else response.instance
    headers = {name.lower(): value for name, value in response.headers}
    if fallback := headers.get("x-meshctl-fallback", ""):
        answered = f"from the sidecar's fallback ({fallback})"
    elif who or UPSTREAM_HEADER in headers:
        answered = f"from {who or service + ' or its sidecar'}"
    else:
        what = "it redirects" if 300 <= response.status < 400 else "no instance was reached"
        what = "no answer came in time" if response.status == 504 else what
        answered = f"from the sidecar itself: {what}"
    reason = f" {response.reason}" if response.reason else ""
    return f"{response.status}{reason} in {response.duration_ms:.1f} ms {answered}, called as {source}"


def _print_headers(response: MeshResponse) -> None:
    sys.stdout.write(f"HTTP/1.1 {response.status} {response.reason}\n")
    for name, value in response.headers:
        sys.stdout.write(f"{name}: {value}\n")
    sys.stdout.write("\n")
    sys.stdout.flush()


async def _print_body(chunks: AsyncIterator[bytes]) -> bytes:
    """Write the body to stdout as it arrives; returns the start of it."""
    start, last = b"", b"\n"
    async for chunk in chunks:
        if chunk:
            start, last = (start + chunk[:512])[:512], chunk
            sys.stdout.buffer.write(chunk)
            sys.stdout.buffer.flush()
    if sys.stdout.isatty() and not last.endswith(b"\n"):
        sys.stdout.write("\n")
        sys.stdout.flush()
    return start


def _print_json(response: MeshResponse, body: bytes) -> None:
    from meshctl.cli.render import print_json  # noqa: PLC0415
    from meshctl.wire.models import CallResult, encode  # noqa: PLC0415

    headers: dict[str, str] = {}
    for name, value in response.headers:
        headers[name.lower()] = f"{headers[name.lower()]}, {value}" if name.lower() in headers else value
    result = CallResult(
        status=response.status,
        headers=headers,
        body=body.decode(errors="replace"),
        duration_ms=round(response.duration_ms, 3),
        instance=response.instance,
        version=response.version,
    )
    print_json(encode(result))


async def _explain(client: MeshClient, service: str, source: str, status: int, body: bytes) -> str:
    """Why the sidecar itself answered, in one line; empty when the answer says so."""
    name = service.partition(":")[0]
    try:
        known = [known.name for known in (await client.status()).services]
    except NotRunningError:
        known = [name]
    if name not in known and "." not in name:
        close = difflib.get_close_matches(name, known, n=1)
        return f"hint: there is no service {name} in this mesh" + (f"; did you mean {close[0]}?" if close else "")
    said = body.decode(errors="replace")
    if said.startswith("meshctl: "):
        return ""  # an answer of the mesh's own routes, which says what to do itself
    for wanted, start, words in EXPLANATIONS:
        if status == wanted and said.startswith(start):
            return "hint: " + words.format(service=name, source=source)
    return "hint: `meshctl proxy status` and `meshctl logs --sidecars` show what the sidecars say"


def read_body(data: str | None) -> bytes | None:
    """The bytes of a text, of ``@FILE``, or of stdin (``-``). Raises UsageError."""
    if data is None:
        return None
    if data in ("-", "@-"):
        return sys.stdin.buffer.read()
    if data.startswith("@"):
        try:
            return Path(data[1:]).read_bytes()
        except OSError as error:
            raise UsageError(f"--data: cannot read {data[1:]}: {error.strerror}") from None
    return data.encode()


def read_headers(headers: list[str], body: bytes | None) -> tuple[tuple[str, str], ...]:
    """Names and values of ``NAME: VALUE``, with a Content-Type that fits the body. Raises UsageError."""
    pairs: list[tuple[str, str]] = []
    for header in headers:
        name, colon, value = header.partition(":")
        if not colon or not name.strip():
            raise UsageError(f"--header: {header!r} is no header", hint="write -H 'name: value'")
        pairs.append((name.strip(), value.strip()))
    if body is not None and not any(name.lower() == "content-type" for name, _ in pairs):
        pairs.append(("Content-Type", "application/json" if _is_json(body) else "text/plain; charset=utf-8"))
    return tuple(pairs)


def _is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except ValueError:
        return False
    return body.lstrip()[:1] in (b"{", b"[")
