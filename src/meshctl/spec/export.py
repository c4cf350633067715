"""The key tables -> a JSON Schema of the topology file, for editors.  Pure.

JSON Schema 2020-12: https://json-schema.org/draft/2020-12. A schema says less than the loader checks: that names exist
and weights sum to 100 only the loader knows. Wherever a scalar may stand, ``${VAR}`` may stand too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshctl.spec.keys import TOPOLOGY
from meshctl.spec.shapes import (
    AnyOf,
    Boolean,
    Choice,
    Duration,
    Integer,
    Key,
    ListOf,
    MapOf,
    Number,
    Percentage,
    Shape,
    Statuses,
    Table,
    Text,
    iterate_tables,
)

Schema = dict[str, Any]

_VARIABLE = {"$ref": "#/$defs/variable"}
_DURATION = r"^(\d+(\.\d+)?(ms|h|m|s))+$"
_NUMBER = r"^\d+(\.\d+)?$"


def json_schema() -> Schema:
    """The JSON Schema of a topology file. Tables are under ``$defs``, by their ids."""
    tables = {table.id: table for table in iterate_tables(TOPOLOGY)}
    definitions: Schema = {
        name: _table_schema(table) for name, table in sorted(tables.items()) if table is not TOPOLOGY
    }
    definitions["variable"] = {
        "type": "string",
        "pattern": r"\$\{",
        "description": "A text in which `${VAR}` is filled in before it is read.",
    }
    definitions["duration"] = {
        "description": "`5s`, `300ms`, `2m`, `1h30m`, or seconds as a number.",
        "anyOf": [
            {"type": "number", "minimum": 0},
            {"type": "string", "pattern": _DURATION},
            _number_text(),
            _VARIABLE,
        ],
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "meshctl topology",
        **_table_schema(TOPOLOGY),
        "$defs": definitions,
    }


def _table_schema(table: Table) -> Schema:
    schema: Schema = {
        "type": "object",
        "description": table.doc,
        "additionalProperties": False,
        "properties": {key.name: _key_schema(key) for key in table.keys},
    }
    # Keys that are required may still come from another file, which an editor does not see: it is told of none but
    # those that make no sense apart.
    required = [key.name for key in table.keys if key.required and table is not TOPOLOGY]
    if required:
        schema["required"] = required
    if table.extensible:
        schema["patternProperties"] = {"^x-": {"description": "Not read: a place for anchors."}}
    return schema


def _key_schema(key: Key) -> Schema:
    schema = {**_shape_schema(key.shape), "description": key.doc}
    if not key.required:
        # An empty value is as good as none, and takes away what an earlier file gave.
        schema = {"description": key.doc, "anyOf": [_shape_schema(key.shape), {"type": "null"}]}
    if key.default is not None:
        schema["default"] = key.default
    return schema


def _shape_schema(shape: Shape) -> Schema:  # noqa: C901, PLR0911 - one case per shape reads best
    match shape:
        case Text():
            return _text_schema(shape)
        case Choice():
            words: list[str | bool] = [*shape.values]
            return {"anyOf": [{"enum": [*words, False] if shape.false_is else words}, _VARIABLE]}
        case Boolean():
            values = [True, False] if shape.only is None else [shape.only]
            return {"anyOf": [{"enum": [*values, *(str(value).lower() for value in values)]}, _VARIABLE]}
        case Integer():
            number = {"type": "integer", "minimum": shape.minimum, "maximum": shape.maximum}
            return {"anyOf": [number, _number_text(), _VARIABLE]}
        case Number():
            bounds = {"type": "number", "minimum": shape.minimum, "maximum": shape.maximum}
            return {"anyOf": [bounds, _number_text(), _VARIABLE]}
        case Duration():
            return {"$ref": "#/$defs/duration"}
        case Percentage():
            kind = "integer" if shape.whole else "number"
            number = {"type": kind, "minimum": shape.minimum, "maximum": 100}
            return {"anyOf": [number, {"type": "string", "pattern": r"^\d+(\.\d+)?\s*%?$"}, _VARIABLE]}
        case Statuses():
            text = {"type": "string", "pattern": r"^([1-5](xx|XX)|\d{3}(\s*-\s*\d{3})?)$"}
            return {"anyOf": [{"type": "integer", "minimum": 100, "maximum": 599}, text, _VARIABLE]}
        case ListOf():
            items: Schema = {"type": "array", "items": _shape_schema(shape.item), "maxItems": shape.maximum}
            return {**items, "minItems": shape.minimum} if shape.minimum else items
        case MapOf():
            return _map_schema(shape)
        case Table():
            return {"$ref": f"#/$defs/{shape.id}"}
        case AnyOf():
            return {"anyOf": [_shape_schema(inner) for inner in shape.shapes]}


def _text_schema(shape: Text) -> Schema:
    if not shape.pattern:
        return {"type": ["string", "number", "boolean"]}
    return {"anyOf": [{"type": "string", "pattern": f"^(?:{shape.pattern})$"}, _VARIABLE]}


def _map_schema(shape: MapOf) -> Schema:
    value = _shape_schema(shape.value)
    schema: Schema = {
        "type": "object",
        "additionalProperties": {"anyOf": [value, {"type": "null"}]} if shape.nullable else value,
    }
    if shape.name.pattern:
        schema["propertyNames"] = {"pattern": f"^(?:{shape.name.pattern})$"}
    return schema


def _number_text() -> Mapping[str, Any]:
    return {"type": "string", "pattern": _NUMBER}
