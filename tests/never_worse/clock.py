"""Virtual time, for threads and for event loops: a sleep takes none, and the clock is later after it.

Threads that share a `ThreadClock` run one at a time, in the order in which their sleeps end, so that what they do
together is the same on every machine. A `LoopClock` does the same for the tasks of an event loop.
"""

from __future__ import annotations

import asyncio
import heapq
import selectors
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, TypeVar

T = TypeVar("T")

_STUCK: Final = 60.0  # real seconds after which a thread that never gets its turn says so

_own = threading.local()
_real_sleep: Final = time.sleep


class ThreadClock:
    """The time of one side, in seconds, for code that blocks."""

    def __init__(self, now: float = 0.0) -> None:
        self.now = now
        self._turns: list[tuple[float, int, threading.Event]] = []
        self._numbers = 0
        self._together = False

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Be `seconds` later; let the other threads run that wake up before."""
        if not self._together:
            self.now += max(0.0, seconds)
            return
        self._wait(self._queue(self.now + max(0.0, seconds)))

    def run(self, work: Callable[[], T]) -> T:
        """What `work` returns; its `time.sleep` is this clock's."""
        before, _own.clock = getattr(_own, "clock", None), self
        try:
            return work()
        finally:
            _own.clock = before

    def run_together(self, works: Sequence[Callable[[], T]]) -> list[T]:
        """What `works` return, each in a thread of its own, all begun now."""
        results: list[Any] = [None] * len(works)
        errors: list[BaseException] = []

        def body(index: int, turn: threading.Event) -> None:
            try:
                self._wait(turn, first=True)
                results[index] = self.run(works[index])
            except BaseException as error:
                errors.append(error)
            finally:
                self._pass_on()

        self._together = True
        turns = [self._queue(self.now) for _ in works]
        threads = [threading.Thread(target=body, args=each, daemon=True) for each in enumerate(turns)]
        for thread in threads:
            thread.start()
        self._pass_on()
        for thread in threads:
            thread.join(_STUCK * 2)
        self._together = False
        if errors:
            raise errors[0]
        return results

    def _queue(self, until: float) -> threading.Event:
        turn = threading.Event()
        self._numbers += 1
        heapq.heappush(self._turns, (until, self._numbers, turn))
        return turn

    def _wait(self, turn: threading.Event, *, first: bool = False) -> None:
        if not first:
            self._pass_on()
        if not turn.wait(_STUCK):
            raise RuntimeError("a thread never got its turn: another one sleeps while it holds a lock")

    def _pass_on(self) -> None:
        if self._turns:
            until, _, turn = heapq.heappop(self._turns)
            self.now = max(self.now, until)
            turn.set()


def _sleep(seconds: Any) -> None:
    clock: ThreadClock | None = getattr(_own, "clock", None)
    (_real_sleep if clock is None else clock.sleep)(seconds)


@contextmanager
def virtual_sleep() -> Iterator[None]:
    """Let `time.sleep` be virtual in threads that a `ThreadClock` runs, as long as this lasts.

    The SDK has no other place to put a clock in: it sleeps by `time.sleep` before it asks again for a body that broke
    off, and between a sub-client's tries.
    """
    time.sleep = _sleep
    try:
        yield
    finally:
        time.sleep = _real_sleep


class _Jump(selectors.DefaultSelector):
    """Waits for no timer: `clock` is later at once."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(0)
        if ready or (timeout is not None and timeout <= 0):
            return ready
        if timeout is None:
            ready = super().select(_STUCK)
            if not ready:
                raise RuntimeError("every task waits for something that is no timer")
            return ready
        self.now += timeout
        return []


class LoopClock(asyncio.SelectorEventLoop):
    """An event loop in virtual time; called, it tells the time in seconds."""

    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)

    def time(self) -> float:
        return self._jump.now

    def __call__(self) -> float:
        return self._jump.now

    @property
    def now(self) -> float:
        """Seconds; set to another time between two runs."""
        return self._jump.now

    @now.setter
    def now(self, now: float) -> None:
        self._jump.now = now

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What `work` returns."""
        return self.run_until_complete(work)
