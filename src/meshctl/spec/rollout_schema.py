"""What a topology says of the rollouts of a service, as frozen values.  Pure."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from meshctl.errors import Where

OnFailure = Literal["rollback", "freeze"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRules:
    """How rollouts of a service are done; the values here are the built-in ones.

    ``version`` is rolled out when it is new, none when it is empty. Durations are in seconds, ``steps`` whole percent,
    ``alpha`` a probability; each is said in ``rollout_keys``. A ``deadline`` of 0 is none.
    """

    version: str = ""
    steps: tuple[int, ...] = (5, 10, 25, 50, 100)
    interval: float = 10.0
    window: float = 300.0
    max_error_ratio: float = 1.1
    max_p99_ratio: float = 1.2
    alpha: float = 0.01
    min_requests: int = 100
    on_failure: OnFailure = "rollback"
    deadline: float = 3600.0
    count_faults: bool = False
    where: Where = field(default=Where("", 0, 0), compare=False)
