"""The fault of a certificate that is not valid: a sidecar serves one that its peers refuse.  I/O.

Enters: a service.  Leaves: a certificate of the mesh's own authority that becomes valid at the fault's deadline, and
connections made anew, so that peers look at it. A certificate that has expired would stay so; this one is refused for
its validity in the same handshake, by the same check, and mends itself at the deadline, whether the control plane lives
or not. When it lives, the service gets an ordinary one again.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable

from meshctl.control.engine import Engine
from meshctl.control.faults import Faults, Reach
from meshctl.ports import FaultRecord

CERT_KIND = "cert-expired"


class CertFaults:
    """The certificates that are not valid; a ``faults.FaultKind``. ``detail`` of a record has the ``service``."""

    def __init__(self, engine: Engine, faults: Faults, publish: Callable[[FaultRecord], Awaitable[int]]) -> None:
        self._engine = engine
        self._faults = faults
        self._publish = publish
        # What an earlier control plane left has been handed to its sidecar.
        self._handed = {record.id for record in faults.active(CERT_KIND)}

    def services(self) -> frozenset[str]:
        """The services whose certificate is left as it is."""
        return frozenset(_service(record) for record in self._meant())

    def renewed(self) -> frozenset[str]:
        """The services whose connections are made anew: their sidecar has the certificate by now."""
        return frozenset(_service(record) for record in self._meant() if record.id in self._handed)

    async def begin(self, fault: FaultRecord) -> int:
        """Hand it out, then have connections made anew."""
        await self._engine.identity.runner.falsify(_service(fault), fault.ends_at)
        self._handed.add(fault.id)
        return await self._publish(fault)

    async def end(self, fault: FaultRecord) -> int:
        """Hand out an ordinary one."""
        service = _service(fault)
        self._handed.discard(fault.id)
        if self._engine.stopping or service not in self._engine.nodes or service in self.services():
            return 0
        return (await self._engine.identity.runner.rotate(service)).acked

    async def resume(self, fault: FaultRecord) -> None:
        """Nothing is to be made again: it is in the authority's files."""

    def reach(self, _fault: FaultRecord) -> Reach:
        """Everybody who calls the service, and everybody whom it calls."""
        return Reach(own_calls=True)

    def _meant(self) -> list[FaultRecord]:
        return [record for record in self._faults.active(CERT_KIND) if self._faults.is_meant(record)]


def write_detail(service: str) -> str:
    """What a record holds."""
    return json.dumps({"service": service})


def _service(fault: FaultRecord) -> str:
    return str(json.loads(fault.detail)["service"])
