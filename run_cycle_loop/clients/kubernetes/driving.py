"""Asynchronous work done step by step from a single thread: a wait that can be looked away from without losing it.

A blocking read cannot be left and taken up again; a task can, and it is also the only thing that a deadline ends for
certain, however slowly the other side dribbles. No thread is started, except for a moment to look a host name up.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")


class Driver:
    """An event loop of our own, which runs only while one of its methods does; for one thread at a time."""

    def __init__(self, alarm: int | None = None) -> None:
        """Nothing runs yet.

        Args:
            alarm: a descriptor that is readable once somebody wants to be heard, such as a signal.
        """
        self._loop = asyncio.new_event_loop()
        self._alarm = alarm

    def run(self, work: Coroutine[Any, Any, _T], *, within: float, heeding: bool = False) -> _T:
        """What the work comes to.

        Args:
            work: what is to be done.
            within: seconds.
            heeding: whether the alarm ends it.

        Raises:
            TimeoutError: it was not done within so many seconds.
            InterruptedError: the alarm rang.
        """
        task = self._loop.create_task(_bounded(work, within))
        if self._alarm is None or not heeding:
            return self._loop.run_until_complete(task)
        self._loop.add_reader(self._alarm, task.cancel)
        try:
            return self._loop.run_until_complete(task)
        except asyncio.CancelledError:
            raise InterruptedError from None
        finally:
            self._loop.remove_reader(self._alarm)

    def begin(self, work: Coroutine[Any, Any, _T]) -> asyncio.Task[_T]:
        """Start work that goes on whenever the driver runs."""
        return self._loop.create_task(work)

    def attend(self, task: asyncio.Task[_T], seconds: float | None) -> bool:
        """Wait for a task, for so many seconds at most; whether it is done."""
        self._loop.run_until_complete(asyncio.wait({task}, timeout=seconds))
        return task.done()

    def abandon(self, task: asyncio.Task[_T]) -> None:
        """Cancel a task and see it end; what it comes to is of no interest."""
        if self._loop.is_closed():
            return
        task.cancel()
        self.attend(task, None)
        if not task.cancelled():
            task.exception()

    def monotonic(self) -> float:
        """Seconds that never step."""
        return self._loop.time()

    @property
    def is_closed(self) -> bool:
        """Whether nothing can be run any more."""
        return self._loop.is_closed()

    def close(self) -> None:
        """Abandon what is left, and the loop."""
        if self._loop.is_closed():
            return
        for task in asyncio.all_tasks(self._loop):
            self.abandon(task)
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


async def _bounded(work: Coroutine[Any, Any, _T], seconds: float) -> _T:
    async with asyncio.timeout(seconds):
        return await work
