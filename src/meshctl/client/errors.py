"""What only a client meets.  Pure, and light to import."""

from __future__ import annotations

from meshctl.errors import NotRunningError


class DisconnectedError(NotRunningError):
    """The control plane ended while it was being talked to, without saying good-bye."""
