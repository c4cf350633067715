"""``meshctl doctor``: the table of its checks, and the run through it.  I/O, by the checks.

A DoctorContext enters, a wire.DoctorReport leaves.  Works with no mesh running and with no topology.
"""

from __future__ import annotations

import inspect

from meshctl.adapters.doctor_context import Check, DoctorContext
from meshctl.adapters.doctor_machine import (
    check_clock,
    check_disk,
    check_envoy,
    check_open_files,
    check_proxy_variables,
    check_python,
)
from meshctl.adapters.doctor_mesh import check_commands, check_ports, check_sockets, check_state, check_topology
from meshctl.wire.models import DoctorCheck, DoctorReport

CHECKS: tuple[Check, ...] = (
    check_envoy,
    check_python,
    check_topology,
    check_commands,
    check_ports,
    check_state,
    check_sockets,
    check_disk,
    check_open_files,
    check_clock,
    check_proxy_variables,
)
"""The checks in the order in which they are shown; a check that does not apply finds nothing."""


async def run_checks(context: DoctorContext) -> DoctorReport:
    """Run every check; the report is ok when none of them found an error."""
    checks: list[DoctorCheck] = []
    for check in CHECKS:
        found = check(context)
        checks.extend(await found if inspect.isawaitable(found) else found)
    return DoctorReport(ok=all(check.level != "error" for check in checks), checks=checks)
