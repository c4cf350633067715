"""Processes that are known by a text in their environment or command line, such as a test's own folder."""

from __future__ import annotations

import os

import psutil


def find_marked(mark: str) -> list[int]:
    """Pids of the processes that run and bear a mark, this one left out."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.pid == os.getpid() or process.status() == psutil.STATUS_ZOMBIE:
                continue
            words = [*process.cmdline(), *process.environ().values()]
        except psutil.Error:  # it is gone, or another user's
            continue
        if any(mark in word for word in words):
            found.append(process.pid)
    return found
