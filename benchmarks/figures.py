"""One measurement and its bound."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One measurement; ``bound`` is what it should not exceed."""

    name: str
    value: float
    bound: float
    unit: str
    note: str = ""

    @property
    def holds(self) -> bool:
        """Whether it is within its bound."""
        return self.value <= self.bound

    def __str__(self) -> str:
        mark = "ok  " if self.holds else "OVER"
        return f"{mark} {self.name:<44} {self.value:8.2f} {self.unit:<3} (at most {self.bound:g})  {self.note}"
