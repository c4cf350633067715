"""``explain``: what will happen to a request, and which policies say so.  I/O: reads the running mesh."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from meshctl.control.engine import Engine
from meshctl.errors import ConflictError, NotFoundError, UsageError
from meshctl.plan.explain import Line, explain, explain_gateway
from meshctl.plan.matching import Asked
from meshctl.plan.routes import GATEWAY
from meshctl.spec.provenance import Provenance
from meshctl.spec.schema import Mesh, Service
from meshctl.wire.explain import ExplainLine, ExplainRequest, ExplainSource, Explanation
from meshctl.wire.models import FaultShape
from meshctl.wire.policies import PolicyOrigin


def explain_request(
    engine: Engine, request: ExplainRequest, *, rollout: str = "", faults: Sequence[FaultShape] = ()
) -> Explanation:
    """What becomes of a request with the policies that are in force.

    ``rollout`` is a sentence on the rollout of the service that is under way, which holds its split; ``faults`` are
    those that are on and not made of requests, which plans know of themselves.

    Raises:
        ConflictError: the mesh is not up.
        NotFoundError: a service does not exist.
        UsageError: the path does not begin with a slash, or the service cannot be called.
    """
    mesh, topology = engine.mesh, engine.parts.topology
    documents = topology.revisions.documents
    if mesh is None or topology.tree is None or documents is None:
        raise ConflictError("the mesh is not up yet", hint="run: meshctl up")
    if not request.path.startswith("/"):
        raise UsageError(f"{request.path!r} is no path", hint="a path begins with a slash, such as /orders?limit=3")
    headers = {name.lower(): value for name, value in request.headers.items()}
    asked = Asked(method=request.method.upper(), path=request.path, headers=headers)
    facts, service = engine.facts(mesh), None
    if request.service != GATEWAY:
        service = _find_service(engine, mesh, request)
        lines = explain(mesh, engine.plan(mesh), facts, caller=request.source, service=service, asked=asked)
    elif mesh.gateway is None:
        raise UsageError("this mesh has no gateway", hint="a topology has one by the key gateway")
    elif request.source != GATEWAY:
        raise UsageError("no service calls the gateway", hint="without --from, it is called from outside of the mesh")
    else:
        service, lines = explain_gateway(mesh, engine.plan(mesh), facts, asked)
    owner = GATEWAY if service is None else service.name
    provenance = Provenance(topology.tree, documents)
    met = [fault for fault in faults if service is not None and fault.is_met(request.source, service.name)]
    return Explanation(
        service=owner,
        source="outside" if request.service == GATEWAY else request.source,
        method=asked.method,
        path=asked.path,
        revision=topology.revisions.number,
        lines=[
            # First, so that nobody looks for the reason elsewhere.
            *(_tell_of(fault) for fault in met),
            *_mark([_shape(line, owner, provenance) for line in lines], service, rollout),
        ],
    )


def _find_service(engine: Engine, mesh: Mesh, request: ExplainRequest) -> Service:
    service = mesh.services.get(request.service)
    if service is None:
        known = ", ".join(sorted([*mesh.services, *([GATEWAY] if mesh.gateway is not None else [])]))
        raise NotFoundError(f"no service {request.service}", hint=f"services: {known}")
    if request.source not in engine.nodes:
        known = ", ".join(sorted(engine.nodes))
        raise NotFoundError(f"no sidecar {request.source} in this mesh", hint=f"sidecars: {known}")
    if service.is_job:
        raise UsageError(f"{service.name} is a job: it cannot be called")
    if request.source == service.name:
        raise UsageError(f"{service.name} does not call itself through the mesh", hint="name another --from")
    return service


def _mark(lines: list[ExplainLine], service: Service | None, rollout: str) -> Iterator[ExplainLine]:
    """The lines, and after those that say where a request goes that a rollout holds the split."""
    split = max((number for number, line in enumerate(lines) if line.topic == "goes to"), default=len(lines) - 1)
    for number, line in enumerate(lines):
        yield line
        if number == split and rollout and service is not None:
            words = f"{rollout}, and sets the split: meshctl canary status {service.name}"
            yield ExplainLine(topic="rollout", words=words, policy="", sources=[])


def _tell_of(fault: FaultShape) -> ExplainLine:
    words = f"{fault.id} is on: {fault.subject}: {fault.summary}"
    return ExplainLine(topic="fault", words=words, policy="", sources=[])


def _shape(line: Line, service: str, provenance: Provenance) -> ExplainLine:
    policy = line.keys[0].partition(".")[0] if line.keys else ""
    # A rule is more exact than the key that it is under.
    found = [] if line.where is None else [provenance.locate(service, line.where, policy)]
    if line.where is None or policy not in ("routes", "security"):
        found += [source for key in line.keys for source in provenance.find(service, key)]
    return ExplainLine(
        topic=line.topic,
        words=line.words,
        policy=policy,
        sources=[
            ExplainSource(
                path=source.path,
                owner=source.owner,
                origin=PolicyOrigin(
                    file=source.where.file,
                    line=source.where.line,
                    column=source.where.column,
                    revision=source.origin.revision,
                    author=source.origin.author,
                ),
            )
            for source in found
        ],
    )
