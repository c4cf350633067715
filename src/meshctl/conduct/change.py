"""The actions of meshctl: changes of policy, circuits and instances.  I/O.

Enters: arguments that were checked.  Leaves: what changed, in words. Each returns when the change is in effect.
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from meshctl.client.author import author_of
from meshctl.errors import InvalidTopology, UsageError
from meshctl.spec.load import find_variables
from meshctl.spec.render import Value
from meshctl.wire.circuits import ForceRequest
from meshctl.wire.models import AppliedResult, RestartRequest, ScaleRequest, SourceFileShape
from meshctl.wire.policies import ApplyRequest, DeleteRequest, PolicyResult, RollbackRequest
from meshctl.wire.shifts import ShiftRequest

if TYPE_CHECKING:
    from meshctl.client.client import MeshClient

Arguments = Mapping[str, Any]
Action = Callable[["MeshClient", Arguments], Awaitable[Value]]

REASON = "experiment"


async def apply(client: MeshClient, arguments: Arguments) -> Value:
    """Set policies."""
    given = [name for name in ("policies", "file") if name in arguments]
    if len(given) != 1:
        raise UsageError("`apply` takes `policies` or a `file`", hint="name one of the two")
    if given == ["file"]:
        shape = _read_file(str(arguments["file"]))
    else:
        # JSON is YAML; what looks like a variable has been filled in already.
        text = json.dumps(arguments["policies"]).replace("$", "$$")
        shape = SourceFileShape(path="policies", directory=os.getcwd(), text=text)  # noqa: PTH109 - no path is used
    variables = {name: os.environ[name] for name in find_variables(shape.text) if name in os.environ}
    request = ApplyRequest(files=[shape], variables=variables, author=author_of("experiment"), reason=REASON)
    try:
        return _describe(await client.policies.apply(request))
    except InvalidTopology as error:
        raise UsageError("; ".join(str(problem) for problem in error.problems)) from None


async def delete(client: MeshClient, arguments: Arguments) -> Value:
    """Take a policy away."""
    request = DeleteRequest(
        owner=str(arguments["owner"]), kind=str(arguments["kind"]), author=author_of("experiment"), reason=REASON
    )
    return _describe(await client.policies.delete(request))


async def roll_back(client: MeshClient, arguments: Arguments) -> Value:
    """Return to an earlier revision."""
    if "revision" not in arguments:
        raise UsageError("`rollback` needs the argument `revision` here", hint="`meshctl history` shows revisions")
    request = RollbackRequest(revision=int(arguments["revision"]), author=author_of("experiment"), reason=REASON)
    return _describe(await client.policies.roll_back(request))


async def newest_revision(client: MeshClient) -> int:
    """The revision that is in force; 0 before the first."""
    heads = (await client.policies.history(limit=1)).revisions
    return heads[0].number if heads else 0


async def shift(client: MeshClient, arguments: Arguments) -> Value:
    """Set the weights of versions."""
    request = ShiftRequest(
        service=str(arguments["service"]),
        weights={str(version): int(weight) for version, weight in arguments["weights"].items()},
        author=author_of("experiment"),
        reason=REASON,
    )
    result = await client.shifts.shift(request)
    return {"revision": result.revision, "weights": dict[str, Value](result.after.weights)}


async def open_circuit(client: MeshClient, arguments: Arguments) -> Value:
    """Hold circuits open."""
    return await _force(client, arguments, "open")


async def close_circuit(client: MeshClient, arguments: Arguments) -> Value:
    """Hold circuits closed."""
    return await _force(client, arguments, "closed")


async def release_circuit(client: MeshClient, arguments: Arguments) -> Value:
    """Let circuits work."""
    return await _force(client, arguments, "auto")


async def scale(client: MeshClient, arguments: Arguments) -> Value:
    """Set how many instances run."""
    request = ScaleRequest(
        service=str(arguments["service"]),
        version=str(arguments.get("version", "")),
        replicas=int(arguments["replicas"]),
    )
    return describe_applied(await client.instances.scale(request))


async def restart(client: MeshClient, arguments: Arguments) -> Value:
    """Restart services or instances."""
    targets = [str(each) for each in arguments.get("targets", [])]
    return describe_applied(await client.instances.restart(RestartRequest(targets=targets)))


def describe_applied(result: AppliedResult) -> Value:
    """What changed, in words."""
    return f"{result.message}; applied to {result.acked}/{result.total} sidecars".lstrip("; ")


def _read_file(name: str) -> SourceFileShape:
    path = Path(name)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {name}: {error}") from None
    return SourceFileShape(path=name, directory=str(path.resolve().parent), text=text)


async def _force(client: MeshClient, arguments: Arguments, forced: Literal["open", "closed", "auto"]) -> Value:
    request = ForceRequest(
        service=str(arguments["service"]), forced=forced, author=author_of("experiment"), reason=REASON
    )
    return describe_applied(await client.circuits.force(request))


def _describe(result: PolicyResult) -> Value:
    changes = [f"{c.owner} {c.path}: {c.before or 'not set'} -> {c.after or 'not set'}" for c in result.changes]
    return {"revision": result.revision, "changes": list[Value](changes)}


CHANGES: Mapping[str, Action] = {
    "apply": apply,
    "delete": delete,
    "rollback": roll_back,
    "canary shift": shift,
    "circuit open": open_circuit,
    "circuit close": close_circuit,
    "circuit auto": release_circuit,
    "scale": scale,
    "restart": restart,
}
"""Actions by the words of their verb."""
