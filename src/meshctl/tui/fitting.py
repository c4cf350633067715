"""Which columns of a table fit a terminal.  Pure.

Columns with the highest ``drop`` go first, 0 never goes; what then fits beside the rest comes back. When what never
goes is still too wide, the widest are narrowed.
"""

from __future__ import annotations

from collections.abc import Sequence

GAP = 2
"""Spaces between two columns."""

_NARROWEST = 4


def fit(drops: Sequence[int], widths: Sequence[int], limit: int) -> tuple[list[int], list[int]]:
    """The indices of the columns to show within ``limit``, and the width of every column, narrowed where needed."""
    shown = list(range(len(drops)))
    narrowed = list(widths)

    def total() -> int:
        return sum(narrowed[i] for i in shown) + GAP * max(0, len(shown) - 1)

    while total() > limit:
        droppable = [i for i in shown if drops[i] > 0]
        if not droppable:
            widest = max(shown, key=lambda i: narrowed[i], default=None)
            if widest is None or narrowed[widest] <= _NARROWEST:
                break
            narrowed[widest] -= 1
            continue
        shown.remove(max(droppable, key=lambda i: (drops[i], i)))
    for i in sorted(set(range(len(drops))) - set(shown), key=lambda i: (drops[i], i)):
        # A wide column may have made more room than was needed.
        if total() + GAP + narrowed[i] <= limit:
            shown = sorted([*shown, i])
    return shown, narrowed
