"""The life of an instance in words: reasons, and names of events.  Pure."""

from __future__ import annotations

import signal

from meshctl.lifecycle.model import InstanceSpec, Level, Report

_PREFIX = {"service": "instance", "job": "job", "sidecar": "sidecar"}


def report(spec: InstanceSpec, what: str, message: str, level: Level = "info") -> Report:
    """An event about an instance, named for its kind: ``instance.ready``, ``job.completed``, ``sidecar.exited``."""
    return Report(kind=f"{_PREFIX[spec.kind]}.{what}", message=message, level=level)


def describe_exit(code: int | None) -> str:
    """How a process ended: ``exited with 1``, ``killed by SIGKILL``, ``ended, its exit code is not known``."""
    if code is None:
        return "ended, its exit code is not known"
    if code >= 0:
        return f"exited with {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def describe_delay(seconds: float) -> str:
    """When it is started again."""
    return f"next try in {seconds:.1f} s" if seconds > 0 else "starting again"
