"""What the keys ``d``, ``y`` and ``?`` show, as text.  Pure.

Enters: status, figures and policies of one thing.  Leaves: lines, or YAML.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import yaml

from meshctl.figures import (
    NOTHING,
    format_age,
    format_bytes,
    format_count,
    format_cpu,
    format_ms,
    format_rate,
    format_share,
)
from meshctl.tui.cells import Line, Span, Tone, clean, pad, tone_of, width_of
from meshctl.tui.columns import show_circuit
from meshctl.tui.subjects import Subject
from meshctl.tui.view import KEYS
from meshctl.wire.models import InstanceStatus, MeshStatus, ServiceStatus, SidecarStatus
from meshctl.wire.policies import PolicyList
from meshctl.wire.top import TopRow

_LABEL = 14


def describe(
    subject: Subject, row: TopRow | None, status: MeshStatus, policies: PolicyList | None, *, window_s: float
) -> list[Line]:
    """Everything about one thing, in words; ``policies`` are those of the service that it belongs to."""
    service = next((each for each in status.services if each.name == subject.service), None)
    lines: list[Line] = [(Span(subject.label, "strong"), Span(f"  {subject.kind}", "dim")), ()]
    if service is not None:
        lines += _describe_service(service)
        instances = [each for each in service.instances if _is_of(each, subject)]
        if instances:
            lines += [(), _title("instances")]
            lines += [line for instance in instances for line in _describe_instance(instance)]
    elif subject.kind != "edge":
        lines.append((Span("not in the topology that is in effect", "warn"),))
    lines += [(), _title(f"traffic, last {format_age(window_s)}"), *_describe_traffic(row)]
    if policies is not None:
        lines += [(), _title(f"policies in force, revision {policies.revision}"), *_describe_policies(policies)]
    return lines


def write_yaml(subject: Subject, row: TopRow | None, status: MeshStatus, policies: PolicyList | None) -> str:
    """The policies in force as a file that ``meshctl apply`` takes, then state and figures as a document of its own."""
    service = next((each for each in status.services if each.name == subject.service), None)
    parts = []
    if policies is not None:
        said = policies.yaml.rstrip() or "# none is written: the built-in ones hold"
        parts.append(
            f"# policies of {subject.service} in force, revision {policies.revision}: for `meshctl apply -f`\n{said}\n"
        )
    document: dict[str, Any] = {}
    if service is not None:
        document["status"] = msgspec.to_builtins(service)
    if row is not None:
        document["figures"] = msgspec.to_builtins(row)
    parts.append("# state and figures\n" + yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120))
    return "---\n".join(parts)


def explain_keys() -> list[Line]:
    """The help: every key, and what the columns mean."""
    lines: list[Line] = [(Span("Keys", "strong"),), ()]
    lines += [(Span(pad(key.label, 12), "strong"), Span(key.text)) for key in KEYS if key.label]
    lines += [(Span(pad("↑ ↓ j k", 12), "strong"), Span("move; PageUp, PageDown, Home, End too")), ()]
    lines += [(Span("Columns", "strong"),), ()]
    lines += [(Span(pad(label, 12), "strong"), Span(text)) for label, text in _COLUMN_TEXTS]
    return lines


_COLUMN_TEXTS = (
    ("RPS", "requests per second; one that is tried again counts once"),
    ("SUCCESS", "the share that was answered, with a status below 500"),
    ("P50 P95 P99", "half of the requests, 95 and 99 of 100 took at most so long"),
    ("AGE", "how old the figures are, where a sidecar does not answer; such figures are dim"),
    ("CONN", "open connections to the service"),
    ("RETRIES", "further tries per second"),
    ("CIRCUIT", "state of the circuit breaker; instances that outlier detection keeps away"),
    ("WEIGHT", "share of the traffic by version, where versions share it; how a rollout stands"),
    ("CPU MEM", "of its instances, without sidecars; 100% is one core"),
    ("SECURED", "whether the way there is mTLS"),
    (NOTHING, "nothing happened in the window, or nobody knows"),
)


def _describe_service(service: ServiceStatus) -> Iterator[Line]:
    yield _fact("state", service.state, health=service.health)
    yield _fact("kind", f"{service.kind}, {service.protocol}")
    yield _fact("identity", service.identity or NOTHING)
    if service.weights:
        yield _fact("weights", ", ".join(f"{name} {weight}%" for name, weight in sorted(service.weights.items())))
    if service.rollout is not None:
        note = service.rollout
        words = f"{note.number} to {note.version}, {note.phase.replace('_', ' ')} at {note.weight}%: {note.why}"
        yield _fact("rollout", words)
    if service.upstreams:
        yield _fact(
            "upstreams", ", ".join(f"{name} at 127.0.0.1:{port}" for name, port in sorted(service.upstreams.items()))
        )
    if service.sidecar is not None:
        yield from _describe_sidecar(service.sidecar)


def _describe_sidecar(sidecar: SidecarStatus) -> Iterator[Line]:
    pid = "" if sidecar.pid is None else f", pid {sidecar.pid}"
    yield (
        Span(pad("sidecar", _LABEL), "dim"),
        Span(sidecar.state, tone_of(sidecar.state)),
        Span(f"{pid}, configuration {sidecar.config}, {sidecar.restarts} restarts"),
    )
    if sidecar.config_error:
        yield _fact("", " ".join(sidecar.config_error.split()), tone="bad")


def _describe_instance(instance: InstanceStatus) -> Iterator[Line]:
    where = f" at {instance.address}" if instance.address else ""
    pid = "" if instance.pid is None else f", pid {instance.pid}"
    yield (
        Span(pad(instance.id, max(_LABEL, width_of(instance.id) + 2))),
        Span(instance.state, tone_of(instance.state)),
        Span(", "),
        Span(instance.health, tone_of(instance.health)),
        Span(f"{where}{pid}, {instance.restarts} restarts"),
    )
    if instance.reason:
        yield _fact("", instance.reason, tone="warn")
    yield _fact("", f"log {instance.log}", tone="dim")


def _describe_traffic(row: TopRow | None) -> Iterator[Line]:
    if row is None:
        yield (Span("nothing is known of it", "dim"),)
        return
    quantiles = (("p50", row.p50_ms), ("p95", row.p95_ms), ("p99", row.p99_ms))
    yield _fact("requests", f"{format_count(row.requests)}, {format_rate(row.rps)} per second")
    yield _fact("success", f"{format_share(row.success)}, {format_count(row.failures)} failed")
    yield _fact("latency", ", ".join(f"{name} {format_ms(value)}" for name, value in quantiles))
    yield _fact("retries", f"{format_count(row.retries)}, {format_rate(row.retry_rate)} per second")
    yield _fact("connections", f"{format_count(row.connections)} open, {format_count(row.active)} requests under way")
    circuit = show_circuit(row)
    yield _fact("circuit", circuit.text, tone=circuit.tone)
    if row.secured is not None:
        yield _fact("secured", "yes, mTLS" if row.secured else "no")
    if row.cpu is not None or row.memory is not None:
        yield _fact("uses", f"{format_cpu(row.cpu)} of a core, {format_bytes(row.memory)}")
    if row.stale:
        age = "never came" if row.age_s is None else f"are {format_age(row.age_s)} old"
        yield _fact("", f"figures {age}: no answer from the sidecar of {', '.join(row.stale)}", tone="warn")


def _describe_policies(policies: PolicyList) -> Iterator[Line]:
    if not policies.policies:
        yield (Span("none is written: the built-in ones hold", "dim"),)
    for policy in policies.policies:
        origin = policy.origin
        place = f"{origin.file}:{origin.line}" if origin.line else origin.author or origin.file
        yield (
            Span(pad(policy.kind, max(_LABEL, width_of(policy.kind) + 2))),
            Span(clean(policy.words)),
            Span(f"  {place}" + (f", revision {origin.revision}" if origin.revision else ""), "dim"),
        )


def _is_of(instance: InstanceStatus, subject: Subject) -> bool:
    if subject.kind == "instance":
        return instance.id == subject.instance
    return subject.kind != "version" or instance.version == subject.version


def _title(text: str) -> Line:
    return (Span(text, "strong"),)


def _fact(label: str, text: str, *, health: str = "", tone: Tone | None = None) -> Line:
    line: Line = (Span(pad(label, _LABEL), "dim"), Span(clean(text), tone or tone_of(text)))
    return (*line, Span(", "), Span(health, tone_of(health))) if health else line
