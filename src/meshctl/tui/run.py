"""Running the application on a terminal, and giving the terminal back whatever happens.  I/O: signals, the terminal."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Sequence

from meshctl.tui.app import INTERRUPTED, TopApp

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_STANDARD = (0, 1, 2)


async def run_app(app: TopApp) -> int:
    """Run until the user leaves or a signal comes; the exit code. An error of the application itself is raised."""
    loop = asyncio.get_running_loop()
    terminals = [descriptor for descriptor in _STANDARD if os.isatty(descriptor)]

    def end(signum: int) -> None:
        if signum == signal.SIGHUP:
            _let_go_of_terminal(terminals)
        app.exit(INTERRUPTED)

    for signum in _SIGNALS:
        loop.add_signal_handler(signum, end, signum)
    try:
        code = await app.run_async()
    finally:
        for signum in _SIGNALS:
            loop.remove_signal_handler(signum)
    error = app._exception  # noqa: SLF001 - the only place where Textual keeps it
    if error is not None:
        raise error
    return INTERRUPTED if code is None else code


def _let_go_of_terminal(terminals: Sequence[int]) -> None:
    """What is still drawn goes nowhere if the terminal is gone, as writing to it would fail; else nothing happens."""
    gone = [descriptor for descriptor in terminals if not os.isatty(descriptor)]
    if gone:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in gone:
            os.dup2(nowhere, descriptor)
        os.close(nowhere)
