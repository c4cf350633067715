"""The probes of meshctl for Chaos Toolkit; each returns when it is done.  I/O.

One function for each verb, with the arguments that the table of verbs has; a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from meshctl.chaostoolkit.mesh import Configuration, carry_out


def call(
    service: str,
    *,
    path: str | None = None,
    method: str | None = None,
    headers: Mapping[str, Any] | None = None,
    body: str | None = None,
    source: str | None = None,
    timeout: str | float | None = None,
    configuration: Configuration = None,
) -> Any:
    """Send one request as a service would.

    Answers: `status`, `headers`, `body`, `duration_ms`, `instance`, `version`; `status` is 0 without an answer.
    """
    return carry_out(
        "call",
        "probe",
        configuration,
        service=service,
        path=path,
        method=method,
        headers=headers,
        body=body,
        source=source,
        timeout=timeout,
    )


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
    """Send requests at a steady rate, whatever becomes of them, and tell what came of them.

    Answers: `requests`, `failures`, `success` (0 to 1), `rate`, `p50_ms`, `p95_ms`, `p99_ms`, `max_ms`, `statuses`.
    """
    return carry_out(
        "load",
        "probe",
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


def success(
    service: str,
    *,
    source: str | None = None,
    version: str | None = None,
    window: str | float | None = None,
    configuration: Configuration = None,
) -> Any:
    """The share of requests that succeeded.

    Answers: 0 to 1; null without traffic.
    """
    return carry_out("success", "probe", configuration, service=service, source=source, version=version, window=window)


def latency(
    service: str,
    *,
    source: str | None = None,
    version: str | None = None,
    window: str | float | None = None,
    quantile: str | None = None,
    configuration: Configuration = None,
) -> Any:
    """A quantile of how long requests took.

    Answers: milliseconds; null without traffic.
    """
    return carry_out(
        "latency",
        "probe",
        configuration,
        service=service,
        source=source,
        version=version,
        window=window,
        quantile=quantile,
    )


def rate(
    service: str,
    *,
    source: str | None = None,
    version: str | None = None,
    window: str | float | None = None,
    configuration: Configuration = None,
) -> Any:
    """How many requests a second there are.

    Answers: requests a second.
    """
    return carry_out("rate", "probe", configuration, service=service, source=source, version=version, window=window)


def requests(
    service: str,
    *,
    source: str | None = None,
    version: str | None = None,
    window: str | float | None = None,
    configuration: Configuration = None,
) -> Any:
    """How many requests there were.

    Answers: a number.
    """
    return carry_out("requests", "probe", configuration, service=service, source=source, version=version, window=window)


def failures(
    service: str,
    *,
    source: str | None = None,
    version: str | None = None,
    window: str | float | None = None,
    configuration: Configuration = None,
) -> Any:
    """How many requests failed.

    Answers: a number.
    """
    return carry_out("failures", "probe", configuration, service=service, source=source, version=version, window=window)


def retries(
    service: str,
    *,
    source: str | None = None,
    version: str | None = None,
    window: str | float | None = None,
    configuration: Configuration = None,
) -> Any:
    """How many tries there were for each request, beside the first.

    Answers: retries per request: 0 for none; null without traffic.
    """
    return carry_out("retries", "probe", configuration, service=service, source=source, version=version, window=window)


def tries(service: str, *, window: str | float | None = None, configuration: Configuration = None) -> Any:
    """How many requests reached the instances of a service for each one that entered at the gateway.

    Answers: a ratio; null without traffic at the gateway.
    """
    return carry_out("tries", "probe", configuration, service=service, window=window)


def reasons(
    service: str,
    *,
    source: str | None = None,
    version: str | None = None,
    window: str | float | None = None,
    configuration: Configuration = None,
) -> Any:
    """Why requests ended without a plain answer, by Envoy's response flags.

    Answers: requests by flag.
    """
    return carry_out("reasons", "probe", configuration, service=service, source=source, version=version, window=window)


def circuit_state(service: str, *, source: str | None = None, configuration: Configuration = None) -> Any:
    """The state of the circuits to a service: the worst of its callers', or one caller's.

    Answers: `closed`, `half_open` or `open`.
    """
    return carry_out("circuit state", "probe", configuration, service=service, source=source)


def instances(service: str, *, version: str | None = None, configuration: Configuration = None) -> Any:
    """How many instances are ready.

    Answers: a number.
    """
    return carry_out("instances", "probe", configuration, service=service, version=version)


def weights(service: str, *, configuration: Configuration = None) -> Any:
    """The weights of a service's versions.

    Answers: percent by version.
    """
    return carry_out("weights", "probe", configuration, service=service)


def faults(*, configuration: Configuration = None) -> Any:
    """How many faults are on.

    Answers: a number.
    """
    return carry_out("faults", "probe", configuration)
