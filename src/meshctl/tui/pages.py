"""The tables that a view shows: the rows of its tab, or the parts of the thing that is open.  Pure.

Enters: ``TopSnapshot``, ``History``.  Leaves: ``Item`` rows for ``arrange``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from meshctl.tui.columns import Item
from meshctl.tui.subjects import Kind, Subject
from meshctl.tui.trends import read_rates
from meshctl.tui.view import Tab, View
from meshctl.wire.metrics import History
from meshctl.wire.top import TopRow, TopSnapshot

_KINDS: dict[str, Kind] = {"services": "service", "edges": "edge", "versions": "version"}


def list_items(snapshot: TopSnapshot, history: History | None, view: View) -> list[Item]:
    """The rows of the table that a view shows; none for the tab of requests."""
    if view.subject is not None:
        return list(_list_parts(snapshot, view.subject))
    return _list_tab(snapshot, history, view.tab)


def subject_of(item: Item) -> Subject:
    """What a row is about."""
    row = item.row
    kind = _kind_of(item)
    return Subject(
        kind=kind,
        service=row.service,
        source=row.source if kind == "edge" else "",
        version=row.version if kind in ("version", "instance") else "",
        instance=row.instance if kind == "instance" else "",
        route=row.route if kind == "route" else "",
    )


def can_open(subject: Subject) -> bool:
    """Whether there is a page of it: an instance, or a route, has no parts."""
    return subject.kind in ("service", "version", "edge")


def row_of(snapshot: TopSnapshot, subject: Subject) -> TopRow | None:
    """The row of a thing; None when there is none any more."""
    for row in _rows_of(snapshot, subject.kind):
        if (
            row.service == subject.service
            and (subject.kind != "edge" or row.source == subject.source)
            and (subject.kind != "version" or row.version == subject.version)
            and (subject.kind != "instance" or row.instance == subject.instance)
            and (subject.kind != "route" or row.route == subject.route)
        ):
            return row
    return None


def _list_tab(snapshot: TopSnapshot, history: History | None, tab: Tab) -> list[Item]:
    if tab == "requests":
        return []
    rows = {"services": snapshot.services, "edges": snapshot.edges, "versions": snapshot.versions}[tab]
    subjects = [
        Subject(
            kind=_KINDS[tab],
            service=row.service,
            source=row.source if tab == "edges" else "",
            version=row.version if tab == "versions" else "",
        )
        for row in rows
    ]
    rates = read_rates(history, subjects)
    return [
        Item(key=subject.key, row=row, part=subject.kind, trend=rates.get(subject.key, ()))
        for subject, row in zip(subjects, rows, strict=True)
    ]


def _list_parts(snapshot: TopSnapshot, subject: Subject) -> Iterator[Item]:
    here = subject.service
    match subject.kind:
        case "service":
            yield from _items("version", [row for row in snapshot.versions if row.service == here])
            yield from _items("instance", [row for row in snapshot.instances if row.service == here])
            yield from _items("caller", [row for row in snapshot.edges if row.service == here])
            yield from _items("upstream", [row for row in snapshot.edges if row.source == here])
            yield from _items("route", [row for row in snapshot.routes if row.service == here and row.route])
        case "version":
            yield from _items(
                "instance",
                [row for row in snapshot.instances if (row.service, row.version) == (here, subject.version)],
            )
            yield from _items(
                "caller", [row for row in snapshot.flows if (row.service, row.version) == (here, subject.version)]
            )
        case "edge":
            yield from _items(
                "version", [row for row in snapshot.flows if (row.source, row.service) == (subject.source, here)]
            )
            yield from _items("instance", [row for row in snapshot.instances if row.service == here])


def _items(part: str, rows: Sequence[TopRow]) -> Iterator[Item]:
    for row in rows:
        names = (part, row.source, row.service, row.version, row.instance, row.route)
        yield Item(key="\t".join(names), row=row, part=part)


def _kind_of(item: Item) -> Kind:
    match item.part:
        case "caller" | "upstream" | "edge":
            return "edge"
        case "version":
            return "version"
        case "instance":
            return "instance"
        case "route":
            return "route"
    return "service"


def _rows_of(snapshot: TopSnapshot, kind: Kind) -> list[TopRow]:
    return {
        "service": snapshot.services,
        "version": snapshot.versions,
        "instance": snapshot.instances,
        "edge": snapshot.edges,
        "route": snapshot.routes,
    }[kind]
