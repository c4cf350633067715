"""What is so at this moment and not in the topology: instances, their health, ports.  Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from meshctl.plan.policies.mtls import Transport
from meshctl.plan.policies.telemetry import TapPlan
from meshctl.spec.fault_schema import Fault

InstanceHealth = Literal["healthy", "unhealthy", "draining", "starting"]


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceFact:
    """One instance: where its application and its inbound listener are, and how it is.

    ``listening`` is True once its application answers, so that its own sidecar may check it and hand it requests;
    callers get it as an endpoint while it is ``healthy``, and as an unhealthy one while it is ``unhealthy``.
    """

    id: str
    service: str
    version: str
    host: str
    port: int
    inbound_port: int
    listening: bool
    health: InstanceHealth


@dataclass(frozen=True, slots=True, kw_only=True)
class ActiveFault:
    """A fault on requests that is on: ``id`` is what it is known by."""

    id: str
    fault: Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything ``build`` needs beside the Mesh: ``ports`` by the keys of plan.addresses.

    ``system_roots`` is the PEM file of the authorities that this machine trusts;
    ``gateway_pipe`` is the unix socket through which the command line calls any service as the gateway;
    ``circuit_files`` are those in which sidecars keep the state of circuit breakers, by node;
    ``sampling`` is of how many of a million requests load lets a sidecar make spans, by node, where not of all;
    ``faults`` are those that are on, oldest first;
    ``detours`` are ports of loopback at which a caller finds an instance instead of where it is, by caller and id;
    ``cuts`` are names of what cuts off open connections of plain TCP, by caller and service;
    ``renewed`` are services whose connections are to be made anew, their own and those to them;
    ``taps`` says what those who tap a sidecar want of it, by node;
    ``open_services`` were registered without being in the topology, so that every service may call them;
    ``transports`` are how services are reached while that changes, step by step, instead of as their policy says.
    """

    instances: tuple[InstanceFact, ...]
    ports: Mapping[str, int]
    gateway_pipe: str
    system_roots: str = "/etc/ssl/certs/ca-certificates.crt"
    open_services: tuple[str, ...] = ()
    circuit_files: Mapping[str, str] = field(default_factory=dict)
    transports: Mapping[str, Transport] = field(default_factory=dict)
    taps: Mapping[str, TapPlan] = field(default_factory=dict)
    sampling: Mapping[str, int] = field(default_factory=dict)
    faults: tuple[ActiveFault, ...] = ()
    detours: Mapping[tuple[str, str], int] = field(default_factory=dict)
    cuts: Mapping[tuple[str, str], str] = field(default_factory=dict)
    renewed: frozenset[str] = frozenset()
