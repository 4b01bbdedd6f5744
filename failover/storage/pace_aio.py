"""`failover.storage.pace` for event loops: one timer of a loop looks on, for all that is waited for in it.

`asyncio.timeout` would do. But its timer, made and cancelled for each answer and each piece of a body, is a fiftieth of
what a healthy read takes.
"""

from __future__ import annotations

import asyncio
import time
import types
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, Final, TypeAlias, TypeVar

from failover.storage.pace import LONGEST_NAP, SHORTEST_NAP, Trickled

T = TypeVar("T")

E = TypeVar("E", bound="BaseException | None")

Task: TypeAlias = "asyncio.Task[Any]"

# Cancellations that somebody has asked for: Python 3.10 does not count them.
_cancelling: Final[Callable[[Task], int]] = getattr(asyncio.Task, "cancelling", lambda _: 0)
_uncancel: Final[Callable[[Task], int]] = getattr(asyncio.Task, "uncancel", lambda _: 0)


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


class LoopWatch:
    """Ends what tasks await for too long; those of one loop, until it is used in another."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        # Until when each awaits, for how long in all, and how often somebody else had asked to cancel it before.
        self._waits: dict[Task, tuple[float, float, int]] = {}
        self._late: dict[Task, tuple[float, float, int]] = {}
        self._looks_on = False
        self._was_used = False

    async def timed(self, seconds: float | None, work: Awaitable[T]) -> tuple[T, float | None]:
        """What `work` gives, and how many of the `seconds` are left; None: as long as it takes.

        After them it is cancelled, and this raises `Trickled`.
        """
        began = time.monotonic()
        task = self.begin(seconds)
        try:
            result = await work
        except BaseException as error:
            ended = self.end(task, error)
            if ended is not error:
                raise ended from None
            raise
        self.end(task, None)
        return result, None if seconds is None else seconds - (time.monotonic() - began)

    def begin(self, seconds: float | None) -> Task | None:
        """Let this task be cancelled after so many seconds, unless `end` is called before; None: never."""
        task = asyncio.current_task()
        if seconds is None or task is None:
            return None
        if task.get_loop() is not self._loop:
            self._loop = task.get_loop()
            self._waits, self._late = {}, {}
            self._looks_on = False
        self._waits[task] = (time.monotonic() + seconds, seconds, _cancelling(task))
        self._was_used = True
        if not self._looks_on:
            self._look_after(min(LONGEST_NAP, seconds), task.get_loop())
        return task

    def end(self, task: Task | None, error: E) -> E | Trickled:
        """What this task's wait, which `begin` has begun, ended with: `error`, or `Trickled` where it was late.

        error: what was raised, or None.
        """
        if task is None or self._waits.pop(task, None) is not None or task not in self._late:
            return error
        _, seconds, before = self._late.pop(task)
        is_nobody_elses = _uncancel(task) <= before
        return Trickled(seconds) if is_nobody_elses and isinstance(error, asyncio.CancelledError) else error

    def _look_after(self, seconds: float, loop: asyncio.AbstractEventLoop) -> None:
        self._looks_on = True
        loop.call_later(seconds, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        if loop is not self._loop:
            return
        waits = self._waits
        now, left = time.monotonic(), LONGEST_NAP
        for task, wait in list(waits.items()):
            if wait[0] <= now:
                self._late[task] = waits.pop(task)
                task.cancel()
            else:
                left = min(left, wait[0] - now)
        # Once more after the last: reads follow each other.
        self._looks_on = bool(waits) or self._was_used
        self._was_used = False
        if self._looks_on:
            self._look_after(max(left, SHORTEST_NAP), loop)
