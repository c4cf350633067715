"""``faults`` -> Fault.  Pure.

That services, versions and callers exist is checked in ``validate_faults``, once all are known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from meshctl.errors import Where
from meshctl.spec.fault_keys import FAULT
from meshctl.spec.fault_schema import LONGEST_DURATION, Fault
from meshctl.spec.reader import Fields
from meshctl.spec.readers.routing import read_header_values, read_path, read_texts
from meshctl.spec.report import Report, join_names, quote
from meshctl.spec.source import Entry, Node
from meshctl.spec.values import format_duration

SMALLEST_PERCENT = 0.0001
"""The finest share that Envoy draws: one in a million."""

_EFFECTS = ("delay", "abort", "grpc_status", "reset", "blackhole", "rate")
_RATE = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)\s*(B|KB|KIB|K|MB|MIB|M)(?:/S|PS)?", re.ASCII | re.IGNORECASE)
_BYTES = {"B": 1, "K": 1000, "KB": 1000, "KIB": 1024, "M": 1_000_000, "MB": 1_000_000, "MIB": 1_048_576}
_KIB = 1024
_MOST_KIB = 1_000_000


def read_faults(entries: Mapping[str, Entry], report: Report) -> dict[str, Fault]:
    """The faults by name, in the order of the file; those that cannot be read are left out (reported)."""
    found = {name: read_fault(name, entry.node, entry.where, report) for name, entry in entries.items()}
    return {name: fault for name, fault in found.items() if fault is not None}


def read_fault(name: str, node: Node, where: Where, report: Report) -> Fault | None:
    """One fault; None when it cannot be read (reported)."""
    before = report.count
    fields = Fields(FAULT, node, report, where=where, label=f"the fault {quote(name)}")
    fault = Fault(
        name=name,
        service=fields.text("service", ""),
        delay=fields.duration("delay", 0.0),
        jitter=fields.duration("jitter", 0.0),
        abort=fields.integer("abort", 0),
        grpc_status=fields.choice("grpc_status", ""),
        reset=fields.boolean("reset", False),
        blackhole=fields.boolean("blackhole", False),
        rate=_read_rate(fields),
        percent=fields.percentage("percent", 100.0),
        exclusive=fields.boolean("exclusive", False),
        side=fields.choice("side", "callee"),
        callers=tuple(dict.fromkeys(read_texts(fields, "from"))),
        version=fields.text("version", ""),
        instance=fields.text("instance", ""),
        path=read_path(fields, text_is="prefix"),
        methods=tuple(sorted(set(read_texts(fields, "methods")))),
        headers=read_header_values(fields),
        health_checks=fields.boolean("health_checks", False),
        duration=fields.duration("for", Fault(name="", service="", where=where).duration),
        where=where,
    )
    _check_effects(fault, fields)
    _check_numbers(fault, fields)
    return fault if report.count == before else None


def parse_rate(text: str) -> int:
    """KiB a second, at least 1, from ``10KB/s``, ``512KiB/s`` or ``1.5MB/s``. Raises ValueError: what it must be."""
    match = _RATE.fullmatch(text.strip())
    if match is None:
        raise ValueError("a rate")
    kib = float(match[1]) * _BYTES[match[2].upper()] / _KIB
    # Envoy counts in KiB; what is asked for in KB is met to within half of one.
    if not 0.5 <= kib <= _MOST_KIB:
        raise ValueError("between 1KiB/s and 1000MiB/s")
    return max(1, round(kib))


def _read_rate(fields: Fields) -> int:
    text = fields.text("rate", None)
    if text is None:
        return 0
    try:
        return parse_rate(text)
    except ValueError as error:
        message = f"`rate` must be {error}, not {quote(text)}"
        fields.report.add("bad-number", message, fields.place("rate"), "write `10KB/s`, `512KiB/s` or `1MB/s`")
        return 0


def _check_effects(fault: Fault, fields: Fields) -> None:
    written = [name for name in _EFFECTS if getattr(fault, name)]
    failures = [name for name in ("abort", "grpc_status", "reset") if name in written]
    add = fields.report.add
    if not any(fields.has(name) for name in _EFFECTS):
        names = join_names(map(quote, _EFFECTS), "or")
        add("missing-key", f"the fault {quote(fault.name)} does nothing", fields.where, f"add {names}")
    if len(failures) > 1:
        message = f"a request fails in one way: {join_names(map(quote, failures))} exclude each other"
        add("conflicting-keys", message, fields.key_place(failures[1]), "make it two faults")
    if fault.blackhole and len(written) > 1:
        others = join_names(quote(name) for name in written if name != "blackhole")
        message = f"`blackhole` answers nothing, so {others} would do nothing"
        add(
            "conflicting-keys", message, fields.key_place("blackhole"), "remove one or the other, or make it two faults"
        )
    if fields.has("jitter") and not fields.has("delay"):
        add("no-effect", "`jitter` spreads a `delay`, and there is none", fields.key_place("jitter"), "add `delay`")
    if fault.jitter > fault.delay and fields.has("delay"):
        message = f"`jitter` is longer than the delay of {format_duration(fault.delay)}"
        add("interval-order", message, fields.place("jitter"), "make it at most as long")
    if fault.exclusive and not (fault.delay and fault.fails):
        message = "`exclusive` keeps a delay and a failure apart, and there are not both"
        add("no-effect", message, fields.key_place("exclusive"), "add the other, or remove it")


def _check_numbers(fault: Fault, fields: Fields) -> None:
    add = fields.report.add
    if fields.has("percent") and fault.percent < SMALLEST_PERCENT:
        message = "`percent` must be more than nothing, down to 0.0001%"
        add("bad-percentage", message, fields.place("percent"), "remove the fault instead")
    if fault.exclusive and fault.delay and fault.fails and fault.percent > 50:
        message = f"{fault.percent:g}% delayed and as many others failed are more than all requests"
        add("bad-percentage", message, fields.place("percent"), "write at most 50%, or remove `exclusive`")
    if not 1 <= fault.duration <= LONGEST_DURATION:
        message = f"a fault lasts from 1s to 24h, not {format_duration(fault.duration)}"
        add("bad-duration", message, fields.place("for"), "there is no fault without a deadline; inject it again then")
    unlike = {"delay": fault.delay, "jitter": fault.jitter}
    for name, seconds in unlike.items():
        if seconds > LONGEST_DURATION:
            add("bad-duration", f"{quote(name)} is longer than 24h", fields.place(name), "a `blackhole` never answers")
