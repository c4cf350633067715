"""What must hold between faults and services: names, and where a fault can be made.  Pure.

For faults of the topology and for those that a command asks for.
"""

from __future__ import annotations

from collections.abc import Mapping

from meshctl.spec.fault_schema import Fault
from meshctl.spec.report import Report, quote
from meshctl.spec.schema import Mesh, Service
from meshctl.spec.validate_limits import may_be_instance
from meshctl.spec.validate_routes import GATEWAY


def check_fault(fault: Fault, mesh: Mesh, report: Report) -> None:
    """Report what keeps a fault from being made."""
    label = f"the fault {quote(fault.name)}" if fault.name else "the fault"
    if fault.service == GATEWAY:
        _check_gateway(fault, mesh, label, report)
        return
    service = mesh.services.get(fault.service)
    if service is None:
        known = [*mesh.services, *([GATEWAY] if mesh.gateway is not None else [])]
        message = f"{label} is for {quote(fault.service)}, which is no service{report.suggest(fault.service, known)}"
        report.add("unknown-service", message, fault.where, f"services: {', '.join(sorted(known))}")
        return
    if service.protocol == "tcp" or service.is_job:
        why = "speaks plain TCP, in which no requests are seen" if service.protocol == "tcp" else "takes no calls"
        message = f"{label} is for requests, but {quote(service.name)} {why}"
        hint = "`meshctl inject latency` slows its connections" if service.protocol == "tcp" else ""
        report.add("fault-place", message, fault.where, hint)
        return
    _check_target(fault, service, label, report)
    _check_side(fault, service, label, report)
    _check_callers(fault, service, mesh.services, label, report)


def _check_gateway(fault: Fault, mesh: Mesh, label: str, report: Report) -> None:
    if mesh.gateway is None:
        report.add("unknown-service", f"{label} is for the gateway, and there is none", fault.where, "name a service")
    elif fault.version or fault.instance or fault.callers:
        message = f"{label} is for what comes in through the gateway, which has no callers, versions or instances"
        report.add("fault-place", message, fault.where, "name the service that is called, or narrow it by path")
    elif fault.reset:
        message = f"{label} cannot reset requests at the gateway, which answers their sender itself"
        report.add("fault-place", message, fault.where, "reset those of the services behind it")


def _check_target(fault: Fault, service: Service, label: str, report: Report) -> None:
    if fault.version and service.versions and fault.version not in service.versions:
        suggestion = report.suggest(fault.version, service.versions)
        message = f"{label} names {quote(fault.version)}, which is no version of {quote(service.name)}{suggestion}"
        report.add("unknown-version", message, fault.where, f"versions: {', '.join(service.versions)}")
    if fault.instance and not may_be_instance(fault.instance, service):
        message = f"{quote(fault.instance)} cannot be an instance of {quote(service.name)}"
        known = ", ".join(f"{service.name}-{version}-1" for version in service.versions) or f"{service.name}-ext-1"
        hint = f"instances are named by service, version and number: {known} and so on"
        report.add("unknown-instance", message, fault.where, hint)


def _check_side(fault: Fault, service: Service, label: str, report: Report) -> None:
    if fault.side == "callee":
        if service.address is not None:
            message = f"{quote(service.name)} lies outside the mesh and has no sidecar for {label}"
            report.add("fault-place", message, fault.where, "make it at the callers: `side: caller` (--side caller)")
        elif fault.callers and service.policies.security.mtls != "strict":
            message = f"{label} is for some callers, which {quote(service.name)} cannot tell apart without mTLS"
            report.add("fault-place", message, fault.where, "make it at these callers: `side: caller` (--side caller)")
        return
    if fault.instance:
        message = f"{label} names an instance, which is chosen only after the caller's side is passed"
        report.add("fault-place", message, fault.where, "remove `side: caller` (--side caller)")
    if fault.reset:
        message = f"{label} cannot reset requests at the caller, whose application the sidecar answers itself"
        report.add("fault-place", message, fault.where, "remove `side: caller` (--side caller)")


def _check_callers(fault: Fault, service: Service, services: Mapping[str, Service], label: str, report: Report) -> None:
    for name in fault.callers:
        if name == GATEWAY:
            continue
        caller = services.get(name)
        callers = sorted(other.name for other in services.values() if service.name in other.upstreams)
        hint = f"its callers: {', '.join([*callers, GATEWAY])}"
        if caller is None:
            suggestion = report.suggest(name, services)
            message = f"{label} is for requests from {quote(name)}, which is no service{suggestion}"
            report.add("unknown-service", message, fault.where, hint)
        elif service.name not in caller.upstreams:
            message = f"{label} is for requests from {quote(name)}, which does not call {quote(service.name)}"
            report.add("route-caller", message, fault.where, hint)
