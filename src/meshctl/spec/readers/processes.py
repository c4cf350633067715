"""Versions: how the processes of a service run.  Pure; ``working_dir`` is made absolute by the text alone."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass

from meshctl.errors import Where
from meshctl.spec.keys import HTTP_PROBE, PROBE, RESTART, VERSION
from meshctl.spec.merge import as_map, merge, pick
from meshctl.spec.reader import Fields, read_scalar
from meshctl.spec.readers.balancing import read_statuses
from meshctl.spec.readers.command import read_command
from meshctl.spec.report import Report, join_names, quote
from meshctl.spec.schema import ExecProbe, HttpProbe, Probe, RestartPolicy, TcpProbe, Version
from meshctl.spec.shapes import Text
from meshctl.spec.source import MapNode, Node, ScalarNode, is_null

_CHECKS = ("http", "tcp", "exec")
_ENV_VALUE = Text(what="a text, a number or a boolean")


@dataclass(frozen=True, slots=True, kw_only=True)
class Folders:
    """Absolute folders: of the whole mesh, and of each file by its path as the user gave it."""

    mesh: str
    by_file: Mapping[str, str]


def layer_version(service: MapNode, version: Node | None) -> MapNode:
    """The keys of a version with those that its service has for all of them below."""
    return merge(pick(service, VERSION.names), as_map(version, service))


def read_version(name: str, node: MapNode, where: Where, *, folders: Folders, report: Report) -> Version:
    """One version from its merged keys; ``where`` is the place of its name."""
    fields = Fields(VERSION, node, report, where=where)
    job = fields.boolean("job", False)
    port = fields.integer("port", None)
    replicas = fields.integer("replicas", 1)
    _check_job(fields, job=job, replicas=replicas)
    if port is not None and port + replicas - 1 > 65535:
        message = f"port {port} and {replicas} replicas go beyond port 65535"
        report.add("bad-number", message, fields.place("port"), "choose a lower port or fewer replicas")
    return Version(
        name=name,
        command=read_command(fields, "command"),
        env=_read_env(fields),
        working_dir=_read_working_dir(fields, folders),
        replicas=replicas,
        port=port,
        job=job,
        restart=_read_restart(fields, job=job),
        readiness=_read_probe(fields, "readiness"),
        liveness=_read_probe(fields, "liveness"),
        stop_grace=fields.duration("stop_grace", 5.0),
        where=where,
    )


def _check_job(fields: Fields, *, job: bool, replicas: int) -> None:
    if not job:
        return
    if fields.has("replicas") and replicas != 1:
        message = f"a job runs once, so `replicas` cannot be {replicas}"
        fields.report.add("job-replicas", message, fields.place("replicas"), "remove `replicas`, or `job: true`")
    for name, reason in (
        ("port", "it cannot be called"),
        ("readiness", "it is ready when it has exited with 0"),
        ("liveness", "it is over when it exits"),
    ):
        if fields.has(name):
            message = f"a job has no {quote(name)}: {reason}"
            fields.report.add("job-key", message, fields.key_place(name), f"remove {quote(name)}, or `job: true`")


def _read_env(fields: Fields) -> Mapping[str, str]:
    node = fields.node("env")
    # Lists were made mappings when the file was read; what is still a list there was reported.
    if node is None or fields.alternative("env") is None or not isinstance(node, MapNode):
        return {}
    values: dict[str, str] = {}
    for name, entry in fields.named("env").items():
        if is_null(entry.node):
            continue
        value = read_scalar(_ENV_VALUE, entry.node, f"the variable {quote(name)}", fields.report)
        if isinstance(value, str):
            values[name] = value
    return values


def _read_working_dir(fields: Fields, folders: Folders) -> str:
    node = fields.node("working_dir")
    path = fields.text("working_dir", None)
    if path is None or node is None:
        return folders.mesh
    if path.startswith("~"):
        message = f"`working_dir` cannot begin with `~`: {quote(path)}"
        fields.report.add("bad-path", message, node.where, "write ${HOME} for the home folder")
    return posixpath.normpath(posixpath.join(folders.by_file.get(node.where.file, folders.mesh), path))


def _read_restart(owner: Fields, *, job: bool) -> RestartPolicy:
    base = RestartPolicy(mode="no") if job else RestartPolicy()
    node = owner.alternative("restart")
    if node is None:
        return base
    if isinstance(node, ScalarNode):
        mode = owner.choice("restart", base.mode)
        _check_job_restart(owner, job=job, mode=mode, where=node.where)
        return RestartPolicy(mode=mode)
    fields = Fields(RESTART, node, owner.report, where=node.where)
    # `policy` alone was made `mode` when the file was read.
    if fields.has("policy"):
        where = fields.key_place("policy")
        owner.report.add("conflicting-keys", "`mode` and `policy` mean the same", where, "remove one of them")
    mode = fields.choice("mode", base.mode)
    _check_job_restart(owner, job=job, mode=mode, where=fields.place("mode"))
    policy = RestartPolicy(
        mode=mode,
        backoff=fields.duration("backoff", base.backoff),
        max_backoff=fields.duration("max_backoff", base.max_backoff),
        max_restarts=fields.integer("max_restarts", None),
        reset_after=fields.duration("reset_after", base.reset_after),
    )
    if policy.max_backoff < policy.backoff:
        last = "max_backoff" if fields.has("max_backoff") else "backoff"
        message = "`max_backoff` is shorter than `backoff`"
        owner.report.add("interval-order", message, fields.place(last), "make it at least as long")
    return policy


def _check_job_restart(owner: Fields, *, job: bool, mode: str, where: Where) -> None:
    if job and mode == "always":
        hint = "use `no`, or `on_failure` to try again"
        owner.report.add("job-restart", "a job that is always restarted never completes", where, hint)


def _read_probe(owner: Fields, name: str) -> Probe | None:
    node = owner.node(name)
    if node is None:
        return None
    fields = Fields(PROBE, node, owner.report, where=owner.key_place(name), label=quote(name))
    if not isinstance(node, MapNode):
        return None
    written = [check for check in _CHECKS if fields.has(check)]
    check = _read_check(fields, written[0]) if written else None
    if len(written) != 1:
        found = "has none" if not written else f"has {join_names(quote(item) for item in written)}"
        hint = "write `http: /health`, `tcp: true` or `exec: command`"
        message = f"{quote(name)} takes one of `http`, `tcp` and `exec`, and {found}"
        owner.report.add("probe-check", message, owner.key_place(name), hint)
    base = Probe(check=TcpProbe())
    return Probe(
        check=check or base.check,
        interval=fields.duration("interval", base.interval),
        timeout=fields.duration("timeout", base.timeout),
        initial_delay=fields.duration("initial_delay", base.initial_delay),
        success_threshold=fields.integer("success_threshold", base.success_threshold),
        failure_threshold=fields.integer("failure_threshold", base.failure_threshold),
    )


def _read_check(fields: Fields, name: str) -> HttpProbe | TcpProbe | ExecProbe | None:
    if name == "tcp":
        fields.boolean("tcp", True)
        return TcpProbe()
    if name == "exec":
        return ExecProbe(command=read_command(fields, "exec"))
    node = fields.alternative("http")
    if node is None:
        return None
    if isinstance(node, ScalarNode):
        return HttpProbe(path=fields.text("http", "/"))
    inner = Fields(HTTP_PROBE, node, fields.report, where=fields.key_place("http"))
    base = HttpProbe(path=inner.text("path", "/"))
    expected = read_statuses(inner, "expected") if inner.has("expected") else ()
    return HttpProbe(path=base.path, expected=expected or base.expected)
