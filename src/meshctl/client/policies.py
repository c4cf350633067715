"""The client's calls about policies: one typed method per call.  I/O; made by ``MeshClient``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from meshctl.wire import explain, models, policies

QUICK = 15.0
"""Seconds for calls that only look something up."""


class Ask(Protocol):
    """How a client asks for one answer."""

    async def __call__(
        self,
        method: str,
        path: str,
        kind: type[models.S],
        *,
        body: models.Shape | None = None,
        query: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> models.S:
        """The answer of a call as a shape."""
        ...


class PolicyClient:
    """The policies of one mesh; methods raise what those of MeshClient raise."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    async def list(self, owner: str = "", kind: str = "") -> policies.PolicyList:
        """The policies in force as they are written."""
        query = {name: value for name, value in (("owner", owner), ("kind", kind)) if value}
        return await self._ask("GET", "/policies", policies.PolicyList, query=query, timeout=QUICK)

    async def apply(self, request: policies.ApplyRequest) -> policies.PolicyResult:
        """Set the policies that files name; returns when every sidecar concerned has acknowledged."""
        return await self._ask("POST", "/policies/apply", policies.PolicyResult, body=request)

    async def delete(self, request: policies.DeleteRequest) -> policies.PolicyResult:
        """Take one policy away."""
        return await self._ask("POST", "/policies/delete", policies.PolicyResult, body=request)

    async def roll_back(self, request: policies.RollbackRequest) -> policies.PolicyResult:
        """Return to the policies of an earlier revision."""
        return await self._ask("POST", "/policies/rollback", policies.PolicyResult, body=request)

    async def diff(self, request: policies.DiffRequest) -> policies.PolicyDiff:
        """What differs between two sets of policies."""
        return await self._ask("POST", "/policies/diff", policies.PolicyDiff, body=request, timeout=QUICK)

    async def explain(self, request: explain.ExplainRequest) -> explain.Explanation:
        """What will happen to a request, and which policies say so."""
        return await self._ask("POST", "/explain", explain.Explanation, body=request, timeout=QUICK)

    async def history(self, owner: str = "", limit: int | None = None) -> policies.RevisionList:
        """The revisions that are kept, newest first; at most ``limit`` of them."""
        query = {"owner": owner} if owner else {}
        if limit is not None:
            query["limit"] = str(limit)
        return await self._ask("GET", "/revisions", policies.RevisionList, query=query, timeout=QUICK)
