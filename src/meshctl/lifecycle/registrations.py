"""Instances that someone else started: kept, renewed and expired.  Pure.

Registrations and a time enter; the registrations that then hold leave, sorted by id.  Times are seconds since the
epoch.  An address of a service belongs to one instance, so that registering it anew with another version replaces it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from meshctl.errors import NotFoundError, UsageError
from meshctl.ports import Registration

Registrations = tuple[Registration, ...]

_MAX_PORT = 65535


def register(
    registrations: Registrations,
    service: str,
    *,
    host: str,
    port: int,
    version: str,
    ttl: float | None,
    now: float,
) -> tuple[Registrations, Registration]:
    """Add an instance, or refresh it when the same address and version are registered already.

    Args:
        registrations: those that hold now.
        service: the service it is an instance of.
        host: the host name or address where it listens.
        port: the port where it listens.
        version: the service's version that it runs.
        ttl: seconds after which it expires unless it is renewed; None for never.
        now: seconds since the epoch.

    Returns:
        All registrations, and the one made, whose id ``<service>-ext-<n>`` is kept as long as it is registered.

    Raises:
        UsageError: the port or the TTL cannot be.
    """
    if not 1 <= port <= _MAX_PORT:
        raise UsageError(f"{port} is no port", hint=f"ports are numbers from 1 to {_MAX_PORT}")
    if ttl is not None and not 0 < ttl < float("inf"):
        raise UsageError(f"a TTL of {ttl:g} s cannot be", hint="give more than 0 seconds, or none for no expiry")
    at_address = [item for item in registrations if (item.service, item.host, item.port) == (service, host, port)]
    same = next((item for item in at_address if item.version == version), None)
    others = [item for item in registrations if item not in at_address]
    made = Registration(
        id=same.id if same else _free_id(service, registrations),
        service=service,
        version=version,
        host=host,
        port=port,
        ttl=ttl,
        expires_at=_expiry(ttl, now),
    )
    return _sort([*others, made]), made


def heartbeat(registrations: Registrations, registration_id: str, now: float) -> tuple[Registrations, Registration]:
    """Renew a registration: its TTL counts from ``now``. Raises NotFoundError when it is not registered."""
    found = _find(registrations, registration_id)
    renewed = replace(found, expires_at=_expiry(found.ttl, now))
    return tuple(renewed if item is found else item for item in registrations), renewed


def deregister(registrations: Registrations, registration_id: str) -> Registrations:
    """Remove a registration. Raises NotFoundError when it is not registered."""
    found = _find(registrations, registration_id)
    return tuple(item for item in registrations if item is not found)


def expire(registrations: Registrations, now: float) -> tuple[Registrations, Registrations]:
    """Those that still hold at ``now``, and those whose TTL has passed."""
    expired = tuple(item for item in registrations if item.expires_at is not None and item.expires_at <= now)
    return tuple(item for item in registrations if item not in expired), expired


def next_expiry(registrations: Registrations) -> float | None:
    """When the next registration expires unless it is renewed, in seconds since the epoch; None for never."""
    return min((item.expires_at for item in registrations if item.expires_at is not None), default=None)


def _find(registrations: Registrations, registration_id: str) -> Registration:
    for item in registrations:
        if item.id == registration_id:
            return item
    known = ", ".join(item.id for item in registrations)
    raise NotFoundError(
        f"no instance is registered as {registration_id}",
        hint=f"registered: {known}" if known else "it may have expired: register it again",
    )


def _free_id(service: str, registrations: Registrations) -> str:
    taken = {item.id for item in registrations}
    number = 1
    while f"{service}-ext-{number}" in taken:
        number += 1
    return f"{service}-ext-{number}"


def _expiry(ttl: float | None, now: float) -> float | None:
    return None if ttl is None else now + ttl


def _sort(registrations: Iterable[Registration]) -> Registrations:
    return tuple(sorted(registrations, key=lambda item: item.id))
