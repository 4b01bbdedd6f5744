"""Virtual time, for threads and for event loops: a sleep takes none, and the clock is later after it.

Threads that share a `ThreadClock` run one at a time, in the order in which their sleeps end, so that what they do
together is the same on every machine. A `LoopClock` does the same for the tasks of an event loop.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import heapq
import selectors
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, Final, TypeVar

from failover.storage.hedging import Run, ThreadRace

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
        self._callers = 0
        self._closed = False

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """Be `seconds` later; let the other threads run that wake up before."""
        if not self._callers:
            self.now += max(0.0, seconds)
            return
        self.wait(self.queue(self.now + max(0.0, seconds)))

    def run(self, work: Callable[[], T]) -> T:
        """What `work` returns; its `time.sleep` is this clock's."""
        before, _own.clock = getattr(_own, "clock", None), self
        try:
            return work()
        finally:
            _own.clock = before

    def run_together(self, works: Sequence[Callable[[], T]]) -> list[T]:
        """What `works` return, each in a thread of its own, all begun now.

        What they have spawned stands still when all of them have ended, and goes on with the next ones.
        """
        results: list[Any] = [None] * len(works)
        errors: list[BaseException] = []
        ended = threading.Event()

        def body(index: int) -> None:
            try:
                results[index] = works[index]()
            except BaseException as error:
                errors.append(error)
            self._callers -= 1
            if not self._callers:
                ended.set()

        self._callers = len(works)
        for index in range(len(works)):
            self.spawn(functools.partial(body, index))
        self._pass_on()
        ended.wait(_STUCK * 2)
        if errors or not ended.is_set():
            raise errors[0] if errors else RuntimeError("a thread has not ended")
        return results

    def spawn(self, work: Callable[[], object], later: float = 0.0) -> None:
        """Do `work` in a thread of its own, `later` seconds from now, when its turn comes."""
        turn = self.queue(self.now + later)

        def body() -> None:
            with suppress(SystemExit):
                self._await_turn(turn)
                self.run(work)
                if self._callers:
                    self._pass_on()

        threading.Thread(target=body, daemon=True).start()

    def close(self) -> None:
        """End the threads that were spawned and have not come to their ends."""
        self._closed = True
        for _, _, turn in self._turns:
            turn.set()

    def queue(self, until: float) -> threading.Event:
        """A turn at that time."""
        turn = threading.Event()
        self.wake(turn, until)
        return turn

    def wake(self, turn: threading.Event, until: float | None = None) -> None:
        """Let a turn come at that time, or now, if it does not come before."""
        self._numbers += 1
        heapq.heappush(self._turns, (self.now if until is None else until, self._numbers, turn))

    def wait(self, turn: threading.Event) -> None:
        """Let others run until a turn comes."""
        self._pass_on()
        self._await_turn(turn)

    def _await_turn(self, turn: threading.Event) -> None:
        if not turn.wait(_STUCK):
            raise RuntimeError("a thread never got its turn: another one sleeps while it holds a lock")
        if self._closed:
            raise SystemExit

    def _pass_on(self) -> None:
        while self._turns:
            until, _, turn = heapq.heappop(self._turns)
            if not turn.is_set():
                self.now = max(self.now, until)
                turn.set()
                return


class VirtualThreadRace(ThreadRace):
    """Requests in threads that take turns by a clock."""

    def __init__(self, clock: ThreadClock, after: float | None, is_good: Callable[[Run], bool]) -> None:
        super().__init__(after, is_good)
        self._clock = clock
        self._came: deque[Run] = deque()
        self._turn: threading.Event | None = None

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self._clock.spawn(call, seconds)

    def _start(self, send: Callable[[], Any]) -> Run:
        run, context = Run(), contextvars.copy_context()

        def work() -> None:
            try:
                run.ends(context.run(send))
            except BaseException as error:
                run.ends(error=error)
            self._came.append(run)
            if self._turn is not None:
                self._clock.wake(self._turn)

        self._clock.spawn(work)
        return run

    async def _next(self, seconds: float | None) -> Run | None:
        if not self._came and seconds != 0:
            self._turn = threading.Event() if seconds is None else self._clock.queue(self._clock.now + seconds)
            self._clock.wait(self._turn)
            self._turn = None
        return self._came.popleft() if self._came else None


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
