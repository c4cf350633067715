"""The routes of the API about policies; see ``routes``.  Pure but for what the backend does."""

from __future__ import annotations

from meshctl.api.backend import Backend
from meshctl.api.calls import Answer, Call, Parameter, Route
from meshctl.wire import explain, policies


async def _list(backend: Backend, call: Call) -> Answer:
    return backend.policies.list(call.read_text("owner"), call.read_text("kind"))


async def _apply(backend: Backend, call: Call) -> Answer:
    return await backend.policies.apply(call.read_body(policies.ApplyRequest))


async def _delete(backend: Backend, call: Call) -> Answer:
    return await backend.policies.delete(call.read_body(policies.DeleteRequest))


async def _roll_back(backend: Backend, call: Call) -> Answer:
    return await backend.policies.roll_back(call.read_body(policies.RollbackRequest))


async def _diff(backend: Backend, call: Call) -> Answer:
    return backend.policies.diff(call.read_body(policies.DiffRequest))


async def _history(backend: Backend, call: Call) -> Answer:
    return backend.policies.history(call.read_text("owner"), call.read_count("limit"))


async def _explain(backend: Backend, call: Call) -> Answer:
    return backend.policies.explain(call.read_body(explain.ExplainRequest))


_OWNER = Parameter(name="owner", kind="text", text="a service, `defaults` or `mesh`; without it, all")

POLICY_ROUTES: tuple[Route, ...] = (
    Route(
        method="GET",
        path="/policies",
        name="policies.list",
        text="The policies in force as they are written, with where each came from.",
        answer=_list,
        response=policies.PolicyList,
        query=(_OWNER, Parameter(name="kind", kind="text", text="a policy's key; without it, all")),
    ),
    Route(
        method="POST",
        path="/policies/apply",
        name="policies.apply",
        text="Set the policies that files name; answers when every sidecar concerned has acknowledged.",
        answer=_apply,
        request=policies.ApplyRequest,
        response=policies.PolicyResult,
    ),
    Route(
        method="POST",
        path="/policies/delete",
        name="policies.delete",
        text="Take one policy away; answers when every sidecar concerned has acknowledged.",
        answer=_delete,
        request=policies.DeleteRequest,
        response=policies.PolicyResult,
    ),
    Route(
        method="POST",
        path="/policies/rollback",
        name="policies.roll_back",
        text="Return to the policies of an earlier revision; answers when every sidecar concerned has acknowledged.",
        answer=_roll_back,
        request=policies.RollbackRequest,
        response=policies.PolicyResult,
    ),
    Route(
        method="POST",
        path="/policies/diff",
        name="policies.diff",
        text="What differs between two revisions, or between the policies in force and what files say.",
        answer=_diff,
        request=policies.DiffRequest,
        response=policies.PolicyDiff,
    ),
    Route(
        method="GET",
        path="/revisions",
        name="policies.history",
        text="The changes of policy, newest first; the last 1000 are kept.",
        answer=_history,
        response=policies.RevisionList,
        query=(_OWNER, Parameter(name="limit", kind="count", text="only so many of the newest; without it, all")),
    ),
    Route(
        method="POST",
        path="/explain",
        name="policies.explain",
        text="What would happen to a request, which policies say so, and where these were written. Nothing is sent.",
        answer=_explain,
        request=explain.ExplainRequest,
        response=explain.Explanation,
    ),
)
"""Every call about policies."""
