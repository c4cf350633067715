"""The doctor's checks of one mesh: topology, commands, ports, sockets, state, left-over processes.  I/O.

A DoctorContext enters, findings leave; the only thing written is a socket in a fresh folder, which is removed.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil

from meshctl.adapters.doctor_context import DoctorContext, Findings, bad, doubtful, good
from meshctl.adapters.keeper_protocol import MARKER
from meshctl.adapters.port_owner import describe, explain_port, port_is_free, port_owner
from meshctl.lifecycle.environment import process_environment
from meshctl.spec.schema import Mesh
from meshctl.wire.models import DoctorCheck
from meshctl.wire.paths import MeshPaths

SOCKET_PATH_LIMIT = 103
"""Bytes of a unix socket's path: ``sun_path`` has 104 on macOS (108 on Linux), one of which ends the string."""

_LOOPBACK = "127.0.0.1"


def check_topology(context: DoctorContext) -> Findings:
    """The topology, if there is one, is valid."""
    if context.mesh is not None:
        return [good("topology", f"{context.topology}: mesh {context.mesh.name}, {_count(context.mesh)}")]
    if context.topology:
        count = f"{context.problems} problem{'s' if context.problems != 1 else ''}"
        return [bad("topology", f"{context.topology} has {count}", fix="Run `meshctl validate` to see all of them.")]
    return [good("topology", "no topology file here or above: `meshctl init` writes one")]


def check_commands(context: DoctorContext) -> Findings:
    """The programs that the topology starts exist, and so do the folders they start in."""
    if context.mesh is None:
        return []
    findings: list[DoctorCheck] = []
    own_programs = str(Path(sys.executable).parent)
    for service in context.mesh.services.values():
        for version in service.versions.values():
            if not version.command:
                continue
            name = f"command of {service.name}" + (f"/{version.name}" if len(service.versions) > 1 else "")
            folder, program = Path(version.working_dir), version.command[0]
            path = process_environment(context.environ, version.env, fallback_path=own_programs)["PATH"]
            candidate = str(folder / program) if "/" in program else program
            if not folder.is_dir():
                fix = f"Create it, or mend `working_dir` ({version.where})."
                findings.append(bad(name, f"there is no folder {folder}", fix=fix))
            elif shutil.which(candidate, path=path) is None:
                fix = f"Install {program}, or mend `command` ({version.where})."
                findings.append(bad(name, f"{program} is not an executable on the PATH", fix=fix))
    return findings or [good("commands", "every service's program exists")]


def check_ports(context: DoctorContext) -> Findings:
    """Every port that the topology fixes is free, or held by this very mesh."""
    if context.mesh is None:
        return []
    findings = [_check_port(context, *wanted) for wanted in _fixed_ports(context.mesh)]
    return findings or [good("ports", "the topology fixes none; free ones are chosen")]


def check_sockets(context: DoctorContext) -> Findings:
    """The runtime directory is ours, private, short enough for unix sockets, and takes one."""
    runtime = Path(context.paths.runtime)
    longest = max(len(os.fsencode(path)) for path in _socket_paths(context))
    if longest > SOCKET_PATH_LIMIT:
        return [
            bad(
                "sockets",
                f"socket paths below {runtime} are too long: {longest} bytes, at most {SOCKET_PATH_LIMIT}",
                fix="Set XDG_RUNTIME_DIR to a shorter path, or unset it.",
            )
        ]
    private = next((place for place in (runtime, runtime.parent) if place.exists()), None)
    if private is not None:
        info = private.stat()
        if info.st_uid != context.uid:
            fix = f"Remove it (`sudo rm -r {private}`), or set XDG_RUNTIME_DIR to a folder of your own."
            return [bad("sockets", f"{private} belongs to another user", fix=fix)]
        if stat.S_IMODE(info.st_mode) & 0o077:
            return [bad("sockets", f"{private} is open to other users", fix=f"Run `chmod 700 {private}`.")]
    return [_try_socket(runtime)]


def check_state(context: DoctorContext) -> Findings:
    """The control plane is running, or it went and left nothing."""
    status = context.status
    if status is not None:
        return [good("control plane", f"mesh {status.mesh} is {status.state} (pid {status.daemon_pid})")]
    left = sorted(process.name for process in _marked_processes(context.paths.tag))
    if left:
        count, runs = ("1 process", "runs") if len(left) == 1 else (f"{len(left)} processes", "run")
        shown = ", ".join(left[:5]) + (f" and {len(left) - 5} more" if len(left) > 5 else "")
        return [
            doubtful(
                "control plane",
                f"no control plane answers, but {count} of the mesh {runs} on: {shown}",
                fix="`meshctl up` takes them over as they are; `meshctl down` stops them.",
            )
        ]
    stale = [path for path in _control_sockets(context.paths) if Path(path).exists()]
    if stale:
        return [
            doubtful(
                "control plane",
                f"sockets of a mesh that no longer runs are left: {', '.join(stale)}",
                fix="Nothing needs doing: `meshctl up` replaces them, `meshctl down` removes them.",
            )
        ]
    return [good("control plane", "not running, and nothing is left of an earlier run")]


class _Marked(NamedTuple):
    """A process that carries the mark of a mesh."""

    pid: int
    name: str


def _marked_processes(tag: str) -> Iterator[_Marked]:
    for process in psutil.process_iter():
        try:
            mark = process.environ().get(MARKER, "")
        except (psutil.Error, OSError):  # ended meanwhile, or another user's
            continue
        owner, _, name = mark.partition("/")
        if owner == tag and name:
            yield _Marked(process.pid, name)


def _check_port(context: DoctorContext, name: str, host: str, port: int, fix: str) -> DoctorCheck:
    check = f"port {port}"
    if port_is_free(host, port):
        return good(check, f"free ({name})")
    owner = port_owner(port)
    if owner is None:
        return bad(check, f"{explain_port(host, port)} ({name})", fix=fix)
    if owner.pid in _own_pids(context):
        return good(check, f"held by this mesh ({name}, pid {owner.pid})")
    return bad(check, f"{describe(port, owner)} ({name})", fix=f"Stop it (`kill {owner.pid}`), or {fix}")


def _own_pids(context: DoctorContext) -> set[int]:
    pids = {process.pid for process in _marked_processes(context.paths.tag)}
    status = context.status
    if status is not None:
        pids.add(status.daemon_pid)
        sidecars = [status.gateway.sidecar if status.gateway else None]
        for service in status.services:
            sidecars.append(service.sidecar)
            pids.update(instance.pid for instance in service.instances if instance.pid is not None)
        pids.update(sidecar.pid for sidecar in sidecars if sidecar is not None and sidecar.pid is not None)
    return pids


def _fixed_ports(mesh: Mesh) -> Iterator[tuple[str, str, int, str]]:
    """Name, host, port and the words of a fix for each port that the topology fixes."""
    if mesh.gateway is not None:
        gateway = mesh.gateway
        yield "gateway", gateway.host, gateway.port, f"choose another `gateway.port` ({gateway.where})."
    for service in mesh.services.values():
        for version in service.versions.values():
            if version.port is None:
                continue
            for index in range(version.replicas):
                name = f"{service.name} {version.name}"
                yield name, _LOOPBACK, version.port + index, f"choose another `port` for it ({version.where})."


def _control_sockets(paths: MeshPaths) -> tuple[str, ...]:
    return (paths.api_socket, paths.ads_socket, paths.keeper_socket)


def _socket_paths(context: DoctorContext) -> Iterator[str]:
    yield from _control_sockets(context.paths)
    for service in context.mesh.services if context.mesh is not None else ():
        yield context.paths.admin_socket(service)


def _try_socket(runtime: Path) -> DoctorCheck:
    base = next(place for place in (runtime, *runtime.parents) if place.is_dir())
    try:
        folder = tempfile.mkdtemp(dir=base, prefix="d")
        try:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.bind(f"{folder}/s")
        finally:
            shutil.rmtree(folder)
    except OSError as error:
        fix = f"Make {base} writable for you, or set XDG_RUNTIME_DIR to a folder that is."
        return bad("sockets", f"no socket can be made in {base}: {error.strerror or error}", fix=fix)
    return good("sockets", f"unix sockets work in {runtime}")


def _count(mesh: Mesh) -> str:
    upstreams = sum(len(service.upstreams) for service in mesh.services.values())
    return ", ".join(
        f"{count} {noun}{'' if count == 1 else 's'}"
        for count, noun in ((len(mesh.services), "service"), (upstreams, "upstream"))
    )
