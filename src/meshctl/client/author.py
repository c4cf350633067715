"""Who changes something, as events and revisions name it.  I/O: asks the system who runs this process."""

from __future__ import annotations

import getpass


def author_of(command: str) -> str:
    """Who gives a command: ``ann@apply``."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # no name for this user id, as in some containers
        user = "somebody"
    return f"{user}@{command}"
