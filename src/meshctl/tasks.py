"""Long-lived asyncio tasks that are held, named, and never fail in silence.  I/O layer; imports nothing of meshctl.

Enters: coroutines with names.  Leaves: a call of ``on_error`` for every task that ends with an exception.
asyncio keeps only a weak reference to a task, so that one which nobody holds may vanish half-way
(https://docs.python.org/3/library/asyncio-task.html#asyncio.create_task); a bag is the holder.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class TaskBag:
    """Holds the tasks of one object until they end or the object is closed.

    Args:
        on_error: called in the event loop with the task's name and its exception; a cancelled task is no error. It
            must not raise.
    """

    def __init__(self, on_error: Callable[[str, BaseException], None]) -> None:
        self._on_error = on_error
        self._tasks: set[asyncio.Task[Any]] = set()
        self._closed = False

    def __len__(self) -> int:
        return len(self._tasks)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the tasks that run now, sorted."""
        return tuple(sorted(task.get_name() for task in self._tasks))

    def spawn(self, name: str, coro: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """
        Run a coroutine as a task that the bag holds.

        Raises:
            RuntimeError: the bag is closed; the coroutine was not started.
        """
        if self._closed:
            coro.close()
            raise RuntimeError(f"the bag that should hold task {name!r} is closed")
        task = asyncio.create_task(coro, name=name)  # noqa: TID251 - this is the holder that the ban points to
        self._tasks.add(task)
        task.add_done_callback(self._forget)
        return task

    async def close(self) -> None:
        """
        Cancel every task and return when all have ended. May be called twice, and from a task of the bag itself,
        which is then the one task that is not cancelled.
        """
        self._closed = True
        current = asyncio.current_task()
        while others := [task for task in self._tasks if task is not current]:
            for task in others:
                task.cancel()
            await asyncio.wait(others)
            # Callbacks of finished tasks run in the loop's next turn.
            await asyncio.sleep(0)

    def _forget(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._on_error(task.get_name(), error)
