"""How long to wait before a process is started again.  Pure."""

from __future__ import annotations

from meshctl.spec.schema import RestartPolicy


def delay(policy: RestartPolicy, failures: int) -> float:
    """Seconds to wait after so many failures in a row: none for 0, then ``backoff``, doubling up to ``max_backoff``."""
    if failures <= 0:
        return 0.0
    # The exponent is bounded because 2.0**1024 overflows; at 2**60 every policy has met its maximum.
    return float(min(policy.max_backoff, policy.backoff * 2.0 ** min(failures - 1, 60)))
