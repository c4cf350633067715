"""The spans of a trace -> its waterfall: who waited for whom, in the order of time, and why it went as it did.  Pure.

A span belongs under its parent. Where that never came (a service that makes spans of its own and sends them elsewhere,
or a sidecar's report still on its way), it is put under the call that it fell into, if there is one, and said to be
there by time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from meshctl.envoy.tracing import TAG
from meshctl.telemetry.spans import Span
from meshctl.telemetry.trace_store import KeptTrace
from meshctl.wire.requests import GATEWAY, SeenRequest, find_destination, read_fields
from meshctl.wire.traces import SpanMoment, SpanRow, Trace, TraceSummary

_NS_PER_MS = 1e6
_MS = 3
# Digits behind the point.

_MAX_NOTES = 4
_MAX_DEPTH = 64
_MOST_DIGITS = 6
# Of a number of tries.


@dataclass(slots=True)
class _Node:
    span: Span
    children: list[_Node]
    by_time: bool = False


def build_trace(kept: KeptTrace) -> Trace:
    """The whole waterfall of a trace."""
    roots, missing = _arrange(kept)
    rows = list(_rows(roots, kept))
    return Trace(
        id=kept.trace_id,
        time=kept.start_ns / 1e9,
        duration_ms=_ms(kept.end_ns - kept.start_ns),
        failed=_failed(roots),
        complete=not missing,
        missing=missing,
        services=_services(kept.spans.values()),
        spans=rows,
    )


def summarize(kept: KeptTrace) -> TraceSummary:
    """A trace in one line."""
    roots, missing = _arrange(kept)
    first = roots[0].span
    request = read_request(first)
    notes = dict.fromkeys(note for span in _by_start(kept.spans.values()) for note in _reasons(span))
    retried = any(is_retried(span) for span in kept.spans.values())
    return TraceSummary(
        id=kept.trace_id,
        time=kept.start_ns / 1e9,
        duration_ms=_ms(kept.end_ns - kept.start_ns),
        service=_entry(first, request),
        name=_name(first, request),
        status=request.status if request is not None else 0,
        failed=_failed(roots),
        slow=kept.slow,
        complete=not missing,
        services=_services(kept.spans.values()),
        spans=len(kept.spans),
        failed_spans=sum(span.failed for span in kept.spans.values()),
        notes=[*(["retried"] if retried else []), *notes][:_MAX_NOTES],
    )


def read_request(span: Span) -> SeenRequest | None:
    """What a sidecar's span says of a request, as its access log would; None for a span of a service."""
    if span.kind == "own":
        return None
    return read_fields(_fields_of(span), sidecar=span.service, instances={})


def is_called(span: Span, service: str) -> bool:
    """Whether a span is of a call to a service, be it that nobody answered there."""
    given = span.attributes
    # Most spans are told apart by this: it costs a tenth of reading what they say.
    hints = (span.listener, *(given.get(key, "") for key in ("upstream_cluster", f"{TAG}route", "http.url")))
    if span.kind != "caller" or not any(service in hint for hint in hints):
        return False
    return find_destination(_fields_of(span), span.listener)[0] == service


def is_retried(span: Span) -> bool:
    """Whether a span is of a call that took more than one try, so that one of them failed."""
    return _count_tries(span) > 1


def _fields_of(span: Span) -> dict[str, str]:
    given = span.attributes
    fields = {key.removeprefix(TAG): value for key, value in given.items() if key.startswith(TAG)}
    url = urlsplit(_clean_url(given.get("http.url", "")))
    return fields | {
        "listener": span.listener,
        "cluster": given.get("upstream_cluster", ""),
        "flags": given.get("response_flags", ""),
        "status": given.get("http.status_code", ""),
        "method": given.get("http.method", ""),
        "host": url.netloc,
        "path": url.path + (f"?{url.query}" if url.query else ""),
        "ms": str((span.end_ns - span.start_ns) / _NS_PER_MS),
        "grpc": given.get("grpc.status_code", ""),
        "protocol": given.get("http.protocol", ""),
        "request_id": given.get("guid:x-request-id", ""),
    }


def _clean_url(text: str) -> str:
    # A host in brackets that is none makes urlsplit raise.
    return text.replace("[", "%5B").replace("]", "%5D")


# ------------------------------------------------------------------------------------------------ order


def _arrange(kept: KeptTrace) -> tuple[list[_Node], list[str]]:
    """The spans as trees, the first one first, and what is missing."""
    nodes = {span.span_id: _Node(span, []) for span in _by_start(kept.spans.values())}
    roots: list[_Node] = []
    orphans: list[_Node] = []
    for node in nodes.values():
        parent = nodes.get(node.span.parent_id)
        if parent is not None and not _is_above(node, parent, nodes):
            parent.children.append(node)
        elif node.span.parent_id and parent is None:
            orphans.append(node)
        else:
            roots.append(node)
    missing = _place(orphans, roots, nodes)
    for node in nodes.values():
        node.children.sort(key=lambda child: (child.span.start_ns, child.span.span_id))
    roots.sort(key=lambda node: (bool(node.span.parent_id), node.span.start_ns, node.span.span_id))
    missing += _find_missing_callees(_walk(roots))
    if kept.dropped:
        missing.append(f"{kept.dropped} spans for which there was no room: a trace has at most {len(kept.spans)}")
    return roots, list(dict.fromkeys(missing))


def _is_above(node: _Node, below: _Node, nodes: Mapping[str, _Node], placed: Mapping[str, _Node] | None = None) -> bool:
    """Whether a span is another one's ancestor, by their parents and by what was ``placed`` under what by time."""
    seen: _Node | None = below
    for _ in range(len(nodes)):
        if seen is None:
            return False
        if seen is node:
            return True
        seen = (placed or {}).get(seen.span.span_id) or nodes.get(seen.span.parent_id)
    return True


def _place(orphans: Sequence[_Node], roots: list[_Node], nodes: Mapping[str, _Node]) -> list[str]:
    missing: list[str] = []
    placed: dict[str, _Node] = {}
    for node in orphans:
        span = node.span
        # What comes of a span cannot be what it fell into.
        found = _find_enclosing(node, nodes.values())
        above = next((other for other in found if not _is_above(node, other, nodes, placed)), None)
        if above is not None:
            node.by_time = True
            placed[span.span_id] = above
            above.children.append(node)
            missing.append(f"spans that {span.service} made itself and did not send here")
        else:
            roots.append(node)
            if span.kind == "callee":
                missing.append(f"what the caller of {span.instance or span.service} saw")
            elif span.kind == "own" and len(nodes) > 1:
                missing.append(f"what comes above a span of {span.service or 'a service'}")
            # Else it began outside: whoever called brought a trace context of their own.
    return missing


def _find_enclosing(node: _Node, others: Iterable[_Node]) -> list[_Node]:
    """The calls to the service of a span in which that falls, the shortest first: it is the likeliest origin."""
    span = node.span
    if span.kind not in ("caller", "own") or span.service == GATEWAY:
        return []
    found = [
        other
        for other in others
        if other.span.kind == "callee"
        and other.span.service == span.service
        and other.span.start_ns <= span.start_ns <= other.span.end_ns
    ]
    return sorted(found, key=lambda other: other.span.end_ns - other.span.start_ns)


def _find_missing_callees(nodes: Iterable[_Node]) -> Iterator[str]:
    for node in nodes:
        span = node.span
        cluster = span.attributes.get("upstream_cluster", "")
        first, separator, _ = cluster.partition("/")
        reached = span.attributes.get(f"{TAG}details") == "via_upstream"
        told = any(child.span.kind == "callee" for child in node.children)
        if span.kind == "caller" and separator and first != "external" and reached and not told:
            yield f"what {first} saw of a request"


# ------------------------------------------------------------------------------------------------ rows


def _rows(roots: Sequence[_Node], kept: KeptTrace) -> Iterator[SpanRow]:
    stack = [(node, "", 0, 0) for node in reversed(roots)]
    while stack:
        node, parent, depth, attempt = stack.pop()
        yield _row(node, kept, parent=parent, depth=depth, attempt=attempt)
        tries = _count_tries(node.span)
        number = 0
        children: list[tuple[_Node, str, int, int]] = []
        for child in node.children:
            number += child.span.kind == "callee"
            attempt = number if tries > 1 and child.span.kind == "callee" else 0
            children.append((child, node.span.span_id, min(depth + 1, _MAX_DEPTH), attempt))
        stack.extend(reversed(children))


def _row(node: _Node, kept: KeptTrace, *, parent: str, depth: int, attempt: int) -> SpanRow:
    span, request = node.span, read_request(node.span)
    above = kept.spans.get(parent)
    return SpanRow(
        id=span.span_id,
        parent=parent,
        depth=depth,
        kind=span.kind,
        service=span.service,
        source=request.source if request is not None else "",
        destination=request.destination if request is not None else "",
        version=request.version if request is not None else "",
        instance=span.instance,
        name=_name(span, request),
        attempt=attempt,
        start_ms=_ms(span.start_ns - kept.start_ns),
        duration_ms=_ms(span.end_ns - span.start_ns),
        status=request.status if request is not None else 0,
        failed=span.failed,
        late=above is not None and span.end_ns > above.end_ns and span.end_ns - above.end_ns > _NS_PER_MS,
        placed="by_time" if node.by_time else "",
        notes=_notes(node),
        attributes=dict(sorted(span.attributes.items())),
        events=[
            SpanMoment(
                at_ms=_ms(event.time_ns - kept.start_ns),
                name=event.name,
                attributes=dict(sorted(event.attributes.items())),
            )
            for event in span.events
        ],
    )


def _reasons(span: Span) -> list[str]:
    request = read_request(span)
    if request is None:
        return [span.message or "failed"] if span.failed else []
    return list(request.reasons)


def _notes(node: _Node) -> list[str]:
    notes, tries = _reasons(node.span), _count_tries(node.span)
    if tries > 1:
        reached = sum(child.span.kind == "callee" for child in node.children)
        outside = node.span.attributes.get("upstream_cluster", "").startswith("external/")
        told = f", {tries - reached} of them reached no instance" if reached < tries and not outside else ""
        notes.append(f"{tries} tries{told}")
    return notes


def _name(span: Span, request: SeenRequest | None) -> str:
    if request is None:
        return span.name
    if span.kind == "caller" and not span.listener:
        return "mirrored copy"
    return f"{request.method} {request.path}".strip() or span.name


def _entry(span: Span, request: SeenRequest | None) -> str:
    if request is None or span.kind == "callee":
        return span.service
    if span.service == GATEWAY or not request.source:
        return request.destination or span.service
    return span.service


def _services(spans: Iterable[Span]) -> list[str]:
    return sorted({span.service for span in spans if span.service})


def _failed(roots: Sequence[_Node]) -> bool:
    """Whether a trace failed for whoever began it: what a retry made good did not."""
    return bool(roots) and roots[0].span.failed


def _count_tries(span: Span) -> int:
    """How often a caller's sidecar sent a request on; 0 of other spans."""
    tries = span.attributes.get(f"{TAG}tries", "") if span.kind == "caller" else ""
    return int(tries) if tries.isascii() and tries.isdecimal() and len(tries) < _MOST_DIGITS else 0


def _walk(roots: Sequence[_Node]) -> Iterator[_Node]:
    stack = list(reversed(roots))
    while stack:
        node = stack.pop()
        yield node
        stack.extend(reversed(node.children))


def _by_start(spans: Iterable[Span]) -> list[Span]:
    return sorted(spans, key=lambda span: (span.start_ns, span.span_id))


def _ms(nanoseconds: int) -> float:
    return round(nanoseconds / _NS_PER_MS, _MS)
