"""`failover.storage.pace` for event loops: one timer of a loop looks on, for all that is waited for in it.

`asyncio.timeout` would do. But its timer, made and cancelled for each answer and each piece of a body, is a fiftieth of
what a healthy read takes.
"""

from __future__ import annotations

import asyncio
import sys
import time
import types
from collections.abc import Awaitable, Coroutine, Generator
from typing import Any, TypeVar

from failover.storage.pace import LONGEST_NAP, SHORTEST_NAP, Trickled

T = TypeVar("T")


@types.coroutine
def resumed(steps: Coroutine[Any, Any, T], waits_for: Any) -> Generator[Any, Any, T]:
    """What a coroutine returns that has been sent its first None, and then gave `waits_for` to wait for."""
    try:
        while True:
            try:
                sent = yield waits_for
            except BaseException as error:  # noqa: BLE001 (a cancellation is the coroutine's to handle)
                waits_for = steps.throw(error)
            else:
                waits_for = steps.send(sent)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # typeshed's StopIteration


class _Wait:
    """Something that a task awaits, until a time."""

    __slots__ = ("before", "expired", "task", "until")

    def __init__(self, task: asyncio.Task[Any], until: float) -> None:
        self.task = task
        self.until = until
        self.expired = False
        self.before = 0  # cancellations that somebody else has asked for, which Python 3.10 does not count
        if sys.version_info >= (3, 11):
            self.before = task.cancelling()

    def is_ours(self) -> bool:
        """Whether the cancellation that has come is of the one that looks on, and of nobody else."""
        if sys.version_info >= (3, 11):
            return self.expired and self.task.uncancel() <= self.before
        return self.expired


class LoopWatch:
    """Ends what tasks of one loop await for too long."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._waits: set[_Wait] = set()
        self._looks_on = False
        self._was_used = False

    async def timed(self, seconds: float | None, work: Awaitable[T]) -> tuple[T, float | None]:
        """What `work` gives, and how many of the `seconds` are left; None: as long as it takes.

        After them it is cancelled, and this raises `Trickled`.
        """
        task = asyncio.current_task(self.loop)
        if seconds is None or task is None:
            return await work, None
        began = time.monotonic()
        wait = _Wait(task, began + seconds)
        self._waits.add(wait)
        self._was_used = True
        if not self._looks_on:
            self._looks_on = True
            self.loop.call_later(min(LONGEST_NAP, seconds), self._look)
        try:
            result = await work
        except asyncio.CancelledError:
            if wait.is_ours():
                raise Trickled(seconds) from None
            raise
        finally:
            self._waits.discard(wait)
        return result, seconds - (time.monotonic() - began)

    def _look(self) -> None:
        now, left = time.monotonic(), LONGEST_NAP
        for wait in list(self._waits):
            if wait.until <= now:
                self._waits.discard(wait)
                wait.expired = True
                wait.task.cancel()
            else:
                left = min(left, wait.until - now)
        # Once more after the last: reads follow each other.
        self._looks_on = bool(self._waits) or self._was_used
        self._was_used = False
        if self._looks_on:
            self.loop.call_later(max(left, SHORTEST_NAP), self._look)
