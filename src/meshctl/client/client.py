"""The client of the control plane's API: one typed method per call, failures as the leaves that they were.

Enters: wire shapes.  Leaves: wire shapes, and MeshctlError leaves raised again from ErrorBody.  I/O.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from types import TracebackType
from typing import Self
from urllib.parse import quote

import aiohttp
import msgspec

from meshctl.client.authorization import AuthorizationClient
from meshctl.client.circuits import CircuitClient
from meshctl.client.disturbances import DisturbanceClient
from meshctl.client.errors import DisconnectedError
from meshctl.client.faults import FaultClient
from meshctl.client.instances import InstanceClient
from meshctl.client.metrics import MetricsClient
from meshctl.client.policies import QUICK, PolicyClient
from meshctl.client.rollouts import RolloutClient
from meshctl.client.shifts import ShiftClient
from meshctl.client.taps import TapClient
from meshctl.client.traces import TraceClient
from meshctl.errors import ConflictError, MeshctlError, NotRunningError, WaitTimeoutError
from meshctl.wire import models
from meshctl.wire.failures import StreamFailure, to_error

_BASE = "http://localhost/v1"
_LINE_BUFFER = 2**20
"""Bytes of read buffer: twice as much is the longest line of a stream, far above one captured line of output."""


class MeshClient:
    """Talks to one control plane; use it with ``async with``.

    Every method raises the MeshctlError leaf that the control plane answers with, NotRunningError when there is none,
    DisconnectedError when it dies meanwhile, WaitTimeoutError when it does not answer in time.

    Args:
        socket: path of the API's unix socket.
        directory: the mesh's folder, for messages.
    """

    def __init__(self, socket: str, *, directory: str = "") -> None:
        self._socket = socket
        self._directory = directory
        self._session: aiohttp.ClientSession | None = None
        self.authorization = AuthorizationClient(self._ask)
        self.policies = PolicyClient(self._ask)
        self.circuits = CircuitClient(self._ask)
        self.faults = FaultClient(self._ask)
        self.disturbances = DisturbanceClient(self._ask)
        self.instances = InstanceClient(self._ask)
        self.shifts = ShiftClient(self._ask)
        self.rollouts = RolloutClient(self._ask, self._stream)
        self.metrics = MetricsClient(self._ask, self._stream)
        self.taps = TapClient(self._stream)
        self.tracing = TraceClient(self._ask)

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(path=self._socket),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5.0),
            read_bufsize=_LINE_BUFFER,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._session is not None:
            await self._session.close()

    async def status(self) -> models.MeshStatus:
        """The whole mesh as it is now."""
        return await self._ask("GET", "/status", models.MeshStatus, timeout=QUICK)

    async def up(self, request: models.UpRequest) -> models.UpResult:
        """Bring a topology into effect; returns when it is accepted. Raises InvalidTopology."""
        return await self._ask("POST", "/up", models.UpResult, body=request)

    async def ready(self, timeout: float | None = None) -> models.ReadyResult:
        """Wait until all is ready, something failed, or ``timeout`` seconds passed."""
        query = {} if timeout is None else {"timeout": f"{timeout:.3f}"}
        return await self._ask("GET", "/ready", models.ReadyResult, query=query)

    async def down(self, force: bool = False) -> None:  # noqa: FBT001, FBT002 - as in api.backend
        """Stop the mesh; returns when nothing of it is left but the control plane itself, which ends next."""
        await self._send("POST", "/down", query={"force": _switch(force)})

    def events(self, since: int | None = None, follow: bool = False) -> AsyncIterator[models.Event]:  # noqa: FBT001, FBT002
        """Events after ``since``, then those to come; ends when the control plane ends in good order."""
        query = {"follow": _switch(follow)}
        if since is not None:
            query["since"] = str(since)
        return self._stream("/events", models.Event, list(query.items()))

    def logs(
        self,
        *,
        sources: Sequence[str] = (),
        sidecars: bool = False,
        tail: int | None = None,
        since: float | None = None,
        until: float | None = None,
        grep: str = "",
        follow: bool = False,
    ) -> AsyncIterator[models.LogLine]:
        """Captured lines, merged by time; with ``follow`` those to come, until the control plane ends."""
        query = [("source", source) for source in sources]
        query += [("sidecars", _switch(sidecars)), ("follow", _switch(follow))]
        optional = {"tail": tail, "since": since, "until": until, "grep": grep or None}
        query += [(name, str(value)) for name, value in optional.items() if value is not None]
        return self._stream("/logs", models.LogLine, query)

    async def certificates(self) -> models.CertificateList:
        """All certificates of the mesh."""
        return await self._ask("GET", "/certificates", models.CertificateList, timeout=QUICK)

    async def rotate(self, request: models.RotateRequest) -> models.AppliedResult:
        """Rotate certificates; returns when the sidecars serve the new ones."""
        return await self._ask("POST", "/certificates/rotate", models.AppliedResult, body=request)

    async def verify_certificates(self) -> models.CertificateReport:
        """Check files, chains, and what each sidecar really serves."""
        return await self._ask("GET", "/certificates/verify", models.CertificateReport)

    async def proxy_status(self) -> models.ProxyStatusList:
        """The sync state of every sidecar."""
        return await self._ask("GET", "/proxies", models.ProxyStatusList, timeout=QUICK)

    async def proxy_config(self, sidecar: str, kind: str) -> models.ProxyConfig:
        """What one sidecar has of one kind."""
        path = f"/proxies/{quote(sidecar, safe='')}/{quote(kind, safe='')}"
        return await self._ask("GET", path, models.ProxyConfig, timeout=QUICK)

    async def call_target(self, source: str) -> models.CallTarget:
        """Where to connect to send a request as ``source`` would."""
        return await self._ask("GET", "/call-target", models.CallTarget, query={"source": source}, timeout=QUICK)

    async def _ask(
        self,
        method: str,
        path: str,
        kind: type[models.S],
        *,
        body: models.Shape | None = None,
        query: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> models.S:
        data = await self._send(method, path, body=body, query=query, timeout=timeout)
        return _read(data, kind)

    async def _send(
        self,
        method: str,
        path: str,
        *,
        body: models.Shape | None = None,
        query: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> bytes:
        data = None if body is None else models.encode(body)
        limits = aiohttp.ClientTimeout(total=timeout, sock_connect=5.0)
        try:
            async with self._opened().request(
                method, _BASE + path, data=data, params=query or {}, timeout=limits
            ) as response:
                answer = await response.read()
                if response.status >= 400:
                    raise _to_failure(answer)
                return answer
        except (aiohttp.ClientError, OSError) as error:
            raise self._explain(error) from None

    async def _stream(self, path: str, kind: type[models.S], query: list[tuple[str, str]]) -> AsyncIterator[models.S]:
        try:
            async with self._opened().get(_BASE + path, params=query) as response:
                if response.status >= 400:
                    raise _to_failure(await response.read())
                async for line in response.content:
                    if line.startswith(b'{"error":'):
                        raise to_error(models.decode(line, StreamFailure).error)
                    yield _read(line, kind)
        except (aiohttp.ClientError, OSError) as error:
            raise self._explain(error) from None

    def _opened(self) -> aiohttp.ClientSession:
        assert self._session is not None, "use MeshClient with `async with`"
        return self._session

    def _explain(self, error: aiohttp.ClientError | OSError) -> MeshctlError:
        """What a failure of the connection means for a person."""
        if isinstance(error, TimeoutError):
            return WaitTimeoutError(
                "the control plane does not answer", hint=f"its log is in {self._directory}/.meshctl/logs"
            )
        if isinstance(error, aiohttp.ClientConnectorError):
            cause = error.os_error
            if isinstance(cause, PermissionError):
                return ConflictError(
                    f"no permission to connect to {self._socket}", hint="the mesh runs as another user"
                )
            return NotRunningError(f"no mesh runs in {self._directory}", hint="`meshctl up` starts it")
        return DisconnectedError(
            "the control plane ended unexpectedly; services and sidecars go on",
            hint="`meshctl up` takes over what runs, `meshctl down` stops it",
        )


def _read(answer: bytes, kind: type[models.S]) -> models.S:
    try:
        return models.decode(answer, kind)
    except msgspec.DecodeError as error:
        raise ConflictError(
            f"the control plane's answer is not understood: {error}",
            hint="it may be of another version: `meshctl down`, then `meshctl up`",
        ) from None


def _to_failure(answer: bytes) -> MeshctlError:
    try:
        return to_error(models.decode(answer, models.ErrorBody))
    except msgspec.DecodeError:
        return MeshctlError(
            "the control plane's answer is not understood", detail=answer[:500].decode(errors="replace")
        )


def _switch(value: bool) -> str:  # noqa: FBT001 - one argument
    return "true" if value else "false"
