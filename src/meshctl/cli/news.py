"""What a person is told of the mesh's events while it comes up, runs and goes down, and how one line of it looks.

Enters: events, in order.  Leaves: text, or nothing for what only ``meshctl events`` shows.  Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from meshctl.wire.models import Event

_STEPS = ("instance.started", "instance.draining", "job.started", "mesh.ready", "mesh.stopped")
"""Steps on the way to something that is told: that a process exists, say, is no news when its readiness will be. That
a mesh is ready or has stopped is told by the command that waited for it."""

_RECOVERED = "instance.healthy"


@dataclass(slots=True, kw_only=True)
class News:
    """Chooses and words the events of one stream; the column of names grows with the longest that is known.

    ``told`` are messages that the reader has already.
    """

    told: frozenset[str] = frozenset()
    width: int = 0
    _troubled: set[str] = field(default_factory=set)

    def align(self, names: Iterable[str]) -> None:
        """Make room for the names that are going to come."""
        self.width = max([self.width, *(len(name) for name in names)])

    def tell(self, event: Event) -> str | None:
        """The event in one line that begins with whom it is about; None when it is no news."""
        return self.describe(event) if self._is_news(event) else None

    def describe(self, event: Event) -> str:
        """``checkout-v1-1  ready after 0.3 s``, with the level behind the name unless it is info."""
        self.align([event.subject])
        level = "" if event.level == "info" else f"{event.level}: "
        return f"{event.subject:<{self.width}}  {level}{strip_subject(event)}".rstrip()

    def _is_news(self, event: Event) -> bool:
        if event.level != "info":
            self._troubled.add(event.subject)
            return True
        if event.kind == _RECOVERED:
            # Every instance becomes healthy a moment after it is ready: that is told of those that were not.
            recovered = event.subject in self._troubled
            self._troubled.discard(event.subject)
            return recovered
        if event.message in self.told:
            return False
        return event.kind not in _STEPS and not event.kind.startswith("sidecar.")


def strip_subject(event: Event) -> str:
    """The message without the name that it begins with, for lines that show the name already."""
    rest = event.message.removeprefix(event.subject)
    # `cart` is not the beginning of `cart-v1-1`.
    return rest.removeprefix(":").lstrip() if rest.startswith((":", " ")) else event.message
