"""What processes use of CPU and memory, by psutil.  I/O; implements ports.ProcessMeter."""

from __future__ import annotations

from collections.abc import Mapping

import psutil

from meshctl.ports import ProcessMeter, Use


class PsutilMeter(ProcessMeter):
    """Remembers the processes that it measured, so that the next time tells what they used since."""

    def __init__(self) -> None:
        self._known: dict[int, psutil.Process] = {}

    def measure(self, pids: Mapping[str, int]) -> Mapping[str, Use]:
        """What those that live use, with every thread of theirs but not their children."""
        found = {}
        for name, pid in pids.items():
            first = pid not in self._known
            try:
                process = self._known.setdefault(pid, psutil.Process(pid))
                with process.oneshot():
                    percent = process.cpu_percent()
                    found[name] = Use(cpu=None if first else percent / 100, memory=process.memory_info().rss)
            except psutil.Error:
                self._known.pop(pid, None)
        for gone in self._known.keys() - set(pids.values()):
            del self._known[gone]
        return found
