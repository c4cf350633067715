"""The actions of meshctl for Chaos Toolkit; each returns when it is done.  I/O.

One function for each verb, with the arguments that the table of verbs has; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshctl.chaostoolkit.mesh import Configuration, carry_out


def inject_fault(
    service: str,
    *,
    delay: str | float | None = None,
    jitter: str | float | None = None,
    abort: int | None = None,
    grpc_status: str | None = None,
    percent: float | None = None,
    exclusive: bool | None = None,
    rate: str | None = None,
    reset: bool | None = None,
    blackhole: bool | None = None,
    source: str | None = None,
    version: str | None = None,
    instance: str | None = None,
    path: str | None = None,
    method: str | None = None,
    header: str | None = None,
    health_checks: bool | None = None,
    side: str | None = None,
    duration: str | float | None = None,
    force: bool | None = None,
    configuration: Configuration = None,
) -> Any:
    """Delay, abort, throttle or cut requests to a service.

    Answers: the fault.
    """
    return carry_out(
        "inject fault",
        "action",
        configuration,
        service=service,
        delay=delay,
        jitter=jitter,
        abort=abort,
        grpc_status=grpc_status,
        percent=percent,
        exclusive=exclusive,
        rate=rate,
        reset=reset,
        blackhole=blackhole,
        source=source,
        version=version,
        instance=instance,
        path=path,
        method=method,
        header=header,
        health_checks=health_checks,
        side=side,
        duration=duration,
        force=force,
    )


def inject_kill(target: str, *, force: bool | None = None, configuration: Configuration = None) -> Any:
    """Kill instances; they are started again.

    Answers: the instances.
    """
    return carry_out("inject kill", "action", configuration, target=target, force=force)


def inject_pause(
    target: str, *, duration: str | float | None = None, force: bool | None = None, configuration: Configuration = None
) -> Any:
    """Stop instances in their tracks (SIGSTOP).

    Answers: the fault.
    """
    return carry_out("inject pause", "action", configuration, target=target, duration=duration, force=force)


def inject_cpu(
    target: str,
    *,
    percent: float | None = None,
    duration: str | float | None = None,
    force: bool | None = None,
    configuration: Configuration = None,
) -> Any:
    """Take processor time from instances.

    Answers: the fault.
    """
    return carry_out(
        "inject cpu", "action", configuration, target=target, percent=percent, duration=duration, force=force
    )


def inject_exit(target: str, *, force: bool | None = None, configuration: Configuration = None) -> Any:
    """Let instances end by themselves (SIGTERM) though nobody expects it; they are started again.

    Answers: the instances.
    """
    return carry_out("inject exit", "action", configuration, target=target, force=force)


def inject_partition(
    source: str,
    service: str,
    *,
    one_way: bool | None = None,
    duration: str | float | None = None,
    force: bool | None = None,
    configuration: Configuration = None,
) -> Any:
    """Let no traffic pass between two services.

    Answers: the fault.
    """
    return carry_out(
        "inject partition",
        "action",
        configuration,
        source=source,
        service=service,
        one_way=one_way,
        duration=duration,
        force=force,
    )


def inject_latency(
    service: str,
    delay: str | float,
    *,
    jitter: str | float | None = None,
    source: str | None = None,
    duration: str | float | None = None,
    force: bool | None = None,
    configuration: Configuration = None,
) -> Any:
    """Let all that passes between a service and its callers come late, below HTTP.

    Answers: the fault.
    """
    return carry_out(
        "inject latency",
        "action",
        configuration,
        service=service,
        delay=delay,
        jitter=jitter,
        source=source,
        duration=duration,
        force=force,
    )


def inject_cert_expired(
    service: str, *, duration: str | float | None = None, force: bool | None = None, configuration: Configuration = None
) -> Any:
    """Let the sidecar of a service serve a certificate that is not valid.

    Answers: the fault.
    """
    return carry_out("inject cert-expired", "action", configuration, service=service, duration=duration, force=force)


def inject_clear(*, fault: str | None = None, configuration: Configuration = None) -> Any:
    """End faults: one by its id, or all of them.

    Answers: how many were ended.
    """
    return carry_out("inject clear", "action", configuration, fault=fault)


def load(
    service: str,
    *,
    path: str | None = None,
    method: str | None = None,
    headers: Mapping[str, Any] | None = None,
    body: str | None = None,
    source: str | None = None,
    timeout: str | float | None = None,
    rps: int | None = None,
    duration: str | float | None = None,
    configuration: Configuration = None,
) -> Any:
    """Send requests at a steady rate, whatever becomes of them.

    Answers: as the probe of that name.
    """
    return carry_out(
        "load",
        "action",
        configuration,
        service=service,
        path=path,
        method=method,
        headers=headers,
        body=body,
        source=source,
        timeout=timeout,
        rps=rps,
        duration=duration,
    )


def canary_shift(service: str, weights: Mapping[str, Any], *, configuration: Configuration = None) -> Any:
    """Set how much of the traffic each version gets.

    Answers: what changed.
    """
    return carry_out("canary shift", "action", configuration, service=service, weights=weights)


def apply(
    *, policies: Mapping[str, Any] | None = None, file: str | None = None, configuration: Configuration = None
) -> Any:
    """Set policies, as `meshctl apply` does.

    Answers: what changed.
    """
    return carry_out("apply", "action", configuration, policies=policies, file=file)


def delete(owner: str, kind: str, *, configuration: Configuration = None) -> Any:
    """Take a policy away.

    Answers: what changed.
    """
    return carry_out("delete", "action", configuration, owner=owner, kind=kind)


def rollback(*, revision: int | None = None, configuration: Configuration = None) -> Any:
    """Return to the policies of an earlier revision.

    Answers: what changed.
    """
    return carry_out("rollback", "action", configuration, revision=revision)


def circuit_open(service: str, *, configuration: Configuration = None) -> Any:
    """Hold the circuits to a service open.

    Answers: what changed.
    """
    return carry_out("circuit open", "action", configuration, service=service)


def circuit_close(service: str, *, configuration: Configuration = None) -> Any:
    """Hold the circuits to a service closed.

    Answers: what changed.
    """
    return carry_out("circuit close", "action", configuration, service=service)


def circuit_auto(service: str, *, configuration: Configuration = None) -> Any:
    """Let the circuits to a service work by themselves.

    Answers: what changed.
    """
    return carry_out("circuit auto", "action", configuration, service=service)


def scale(service: str, replicas: int, *, version: str | None = None, configuration: Configuration = None) -> Any:
    """Set how many instances run.

    Answers: what changed.
    """
    return carry_out("scale", "action", configuration, service=service, replicas=replicas, version=version)


def restart(*, targets: list[str] | None = None, configuration: Configuration = None) -> Any:
    """Restart services or instances, one after another.

    Answers: what changed.
    """
    return carry_out("restart", "action", configuration, targets=targets)
