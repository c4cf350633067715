"""docs/reference/api.md out of the table of routes and the wire shapes.  Pure."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator
from typing import Any, Literal, get_args, get_origin

import msgspec

from meshctl.api.calls import Route
from meshctl.api.routes import BASE, ROUTES
from meshctl.api.server import STATUSES
from meshctl.wire import models

_HEAD = """\
# API

The control plane of a mesh answers HTTP on a unix socket that only its user may open. Bodies and answers are JSON;
streams are NDJSON, one JSON object a line. Times are seconds since the epoch, durations seconds unless a name ends in
`_ms`. Unknown parameters are refused.

    curl --unix-socket SOCKET http://localhost/v1/status

Every failure answers an [ErrorBody](#errorbody). A stream that fails after it has begun ends with one line
`{"error": ErrorBody}`. A stream that ends without it has ended in good order.
"""


def api_reference() -> str:
    """The page."""
    parts = [_HEAD, "## Calls\n"]
    parts += ["\n".join(_describe_route(route)) + "\n" for route in ROUTES]
    parts.append("## Failures\n\n" + "\n".join(_describe_failures()) + "\n")
    parts.append("## Shapes\n")
    parts += ["\n".join(_describe_shape(shape)) + "\n" for shape in _list_shapes()]
    return "\n".join(parts)


def _describe_route(route: Route) -> Iterator[str]:
    yield f"### {route.method} {BASE}{route.path}\n"
    yield f"{route.text}\n"
    if route.request is not None:
        yield f"- body: {_link(route.request)}"
    if route.response is None:
        yield f"- answer: {route.status.value} without a body"
    else:
        stream = "a stream of " if route.stream is not None else ""
        yield f"- answer: {route.status.value}, {stream}{_link(route.response)}"
    for parameter in route.query:
        repeated = "; may be repeated" if parameter.repeated else ""
        yield f"- `{parameter.name}` ({parameter.kind}): {parameter.text}{repeated}"


def _describe_failures() -> Iterator[str]:
    yield "|`code`|Status|Meaning|"
    yield "|---|---|---|"
    for kind, status in STATUSES:
        yield f"|`{kind.code}`|{status.value}|{_first_line(kind)}|"
    yield "|`failed`|500|Anything else.|"


def _describe_shape(shape: type[models.Shape]) -> Iterator[str]:
    yield f"### {shape.__name__}\n"
    yield f"{inspect.cleandoc(shape.__doc__ or '')}\n"
    yield "|Field|Type|"
    yield "|---|---|"
    hints = typing.get_type_hints(shape)
    for field in msgspec.structs.fields(shape):
        yield f"|`{field.name}`|{_name_type(hints[field.name])}|"


def _list_shapes() -> list[type[models.Shape]]:
    """The shapes that calls take and give, and those inside them, by name."""
    found: dict[str, type[models.Shape]] = {}
    waiting: list[Any] = [models.ErrorBody]
    waiting += [shape for route in ROUTES for shape in (route.request, route.response) if shape is not None]
    while waiting:
        kind = waiting.pop()
        if isinstance(kind, type) and issubclass(kind, models.Shape):
            if kind.__name__ not in found:
                found[kind.__name__] = kind
                waiting += typing.get_type_hints(kind).values()
        else:
            waiting += [each for each in get_args(kind) if not isinstance(each, str)]
    return [found[name] for name in sorted(found)]


def _name_type(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return ", ".join(f"`{value}`" for value in get_args(kind))
    if get_origin(kind) is list:
        return f"list of {_name_type(get_args(kind)[0])}"
    if get_origin(kind) is dict:
        return f"object of {_name_type(get_args(kind)[1])}"
    if type(None) in get_args(kind):
        return " or ".join("null" if each is type(None) else _name_type(each) for each in get_args(kind))
    if isinstance(kind, type) and issubclass(kind, models.Shape):
        return _link(kind)
    return {str: "string", int: "integer", float: "number", bool: "boolean"}.get(kind, "any JSON")


def _link(shape: type[models.Shape]) -> str:
    return f"[{shape.__name__}](#{shape.__name__.lower()})"


def _first_line(kind: type) -> str:
    return inspect.cleandoc(kind.__doc__ or "").partition("\n")[0]
