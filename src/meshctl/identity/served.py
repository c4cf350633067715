"""What a sidecar says of the certificates that it uses.  Pure.

The text of ``GET /certs`` on Envoy's admin interface enters, serials leave.  Source:
https://www.envoyproxy.io/docs/envoy/latest/api-v3/admin/v3/certs.proto.
"""

from __future__ import annotations

import json


def read_served_serials(text: str) -> frozenset[str]:
    """The serials of the certificates that a sidecar proves itself with, as 32 hexadecimal digits.

    Raises ValueError when the text is not such an answer.
    """
    answer = json.loads(text)
    try:
        chains = [item.get("cert_chain", ()) for item in answer.get("certificates", ())]
        # Envoy writes the number without its leading zeros. Only the first of a chain is the sidecar's own.
        return frozenset(f"{int(chain[0]['serial_number'], 16):032x}" for chain in chains if chain)
    except (AttributeError, KeyError, IndexError, TypeError) as error:
        raise ValueError("this is no list of certificates as Envoy gives it") from error
