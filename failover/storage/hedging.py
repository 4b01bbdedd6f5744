"""Hedged reads: a read without an answer after a while also goes to the other endpoint, and the first answer is used.

See "The Tail at Scale" (Dean and Barroso, 2013). Only the transport runs in parallel. Everything else in the pipeline
(signing, logging, the caller's hooks) runs in the caller's thread or task, and once for the answer that is used. A
request in flight is a `Run`: in a thread of this package, or in a task of the caller's event loop.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import contextvars
import math
import os
import threading
import time
import weakref
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any, Final, Literal

from failover.breaker.forks import ForkSafeLock
from failover.storage import _sdk

After = float | Literal["p95"] | None
"""Seconds without an answer after which a read is hedged; "p95": as long as 95 of 100 answers take; None: never."""

WINDOW: Final = 1000
"""Reads over which the budget and the 95th percentile are taken."""
LEAST_SEEN: Final = 100
"""Answers before there is a 95th percentile."""
LEAST_WAIT: Final = 0.01
"""Seconds that "p95" stands for at least: less is no tail, but noise."""
FREE: Final = 5
"""Hedges that the budget grants however few reads there were: as many failures open a circuit by default."""

_LEARN_EVERY: Final = 50  # answers from one look at the percentile to the next
_IDLE: Final = 10.0  # seconds after which a thread that nobody needs ends


class Outpaced(Exception):  # noqa: N818 (no error: it ends a pass through the pipeline whose answer is not there yet)
    """The other endpoint may be asked now, or has answered first."""


class Hedging:
    """When reads are hedged, and how many of them: what the clients of one policy share.

    Args:
        after: See `After`.
        budget: Share of reads that may be hedged, above 0, at most 1.

    Raises:
        ValueError: One of them is out of range.
    """

    def __init__(self, after: After, budget: float) -> None:
        check_after("hedge_after", after)
        if isinstance(budget, bool) or not isinstance(budget, (int, float)) or not 0 < budget <= 1:
            raise ValueError(f"hedge_budget must be a share of reads above 0 and at most 1, not {budget!r}")
        self.after: After = after
        self._budget = budget
        self._lock = ForkSafeLock()
        self._hedges: deque[int] = deque(maxlen=WINDOW)  # of each of the last reads
        self._seconds: deque[float] = deque(maxlen=WINDOW)
        self._unlearned = 0
        self._p95 = math.inf

    def begin(self, after: After) -> float | None:
        """Count a read. Returns the seconds after which it is hedged; inf: only a probe is, at once; None: never."""
        with self._lock:
            self._hedges.append(0)
        return self._learned() if after == "p95" else after

    def take(self, *, is_probe: bool) -> bool:
        """Count a hedge, if the budget allows one. That of a probe it allows in any case: there are few."""
        with self._lock:
            allowed = max(self._budget * len(self._hedges), FREE)
            if sum(self._hedges) + 1 > allowed and not is_probe:
                return False
            self._hedges[-1] += 1
            return True

    def learn(self, seconds: float) -> None:
        """Take down how long an answer took that a read has waited for. Each does: "p95" is made where it is wanted."""
        self._seconds.append(seconds)  # without the lock: one step, as all of a deque's
        self._unlearned += 1

    def _learned(self) -> float:
        with self._lock:
            if self._unlearned >= _LEARN_EVERY and len(self._seconds) >= LEAST_SEEN:
                self._unlearned = 0
                known = sorted(self._seconds)
                self._p95 = max(LEAST_WAIT, known[math.ceil(0.95 * len(known)) - 1])
        return self._p95


def check_after(name: str, after: object) -> None:
    """Raise `ValueError`, naming the setting, where it is no `After`."""
    if after is None or after == "p95":
        return
    numeric = isinstance(after, (int, float)) and not isinstance(after, bool) and math.isfinite(after)
    if not numeric or after <= 0:  # type: ignore[operator]  # it is a number
        raise ValueError(f'{name} must be seconds above 0, "p95", or None, not {after!r}')


class Run:
    """One request on its way through the transport.

    Attributes:
        response: What it came to, once `is_done`.
        error: What it raised instead.
        is_done: It has come back.
        seconds: How long that took.
        task: The event loop's, where there is one.
    """

    task: asyncio.Task[None] | None = None

    def __init__(self) -> None:
        self.response: Any = None
        self.error: BaseException | None = None
        self.is_done = False
        self.seconds = 0.0
        self._began = time.perf_counter()
        self._lock = threading.Lock()
        self._then: Callable[[Run], object] | None = None

    @property
    def age(self) -> float:
        """Seconds since it was sent."""
        return time.perf_counter() - self._began

    def ends(self, response: Any = None, error: BaseException | None = None) -> None:
        """It has come back."""
        self.seconds = time.perf_counter() - self._began
        self.response, self.error = response, error
        with self._lock:
            self.is_done = True
            then, self._then = self._then, None
        if then is not None:
            then(self)

    def when_done(self, then: Callable[[Run], object]) -> None:
        """Call `then` as soon as it has come back, in whichever thread that is."""
        with self._lock:
            if not self.is_done:
                self._then = then
                return
        then(self)

    def expires(self, instead: Callable[[Run], object]) -> None:
        """Let what waits for it wait no longer; `instead` is called when it has come back after all."""
        with self._lock:
            if self.is_done:
                return
            then, self._then = self._then, instead
        if then is not None:
            then(self)


class Race(ABC):
    """The requests of one read that are under way at the same time.

    Args:
        after: Seconds that the first of them may take until the other endpoint may be asked; None: as long as it takes.
        is_good: Whether a request that has come back is worth no further waiting.
    """

    def __init__(self, after: float | None, is_good: Callable[[Run], bool]) -> None:
        self.after = after
        self._is_good = is_good
        self._has_begun = False

    async def send(self, run: Run | None, send: Callable[[], Any], hold: Callable[[Run | None], None]) -> Any:
        """What a request comes to, as if it were sent here.

        Args:
            run: It is under way already; None: `send` sends it now.
            send: Called in another thread; in an event loop it gives a coroutine.
            hold: Takes the run while there is one, so that it can be waited for again, and None once it is of no use.

        Raises:
            Outpaced: It has not come back within `after`, or another one has, and is good.
        """
        if run is None:
            came = await self._next(0) if self._has_begun else None
            if came is not None and self._is_good(came):
                raise Outpaced
            self._has_begun = True
            run = self._start(send)
            hold(run)
        while not run.is_done:
            came = await self._next(self.after)
            if came is None or (came is not run and self._is_good(came)):
                raise Outpaced
        hold(None)
        if run.error is not None:
            raise run.error
        return run.response

    @abstractmethod
    def stop(self, run: Run) -> None:
        """End a request whose answer nobody wants, if that is possible."""

    @abstractmethod
    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call something after so many seconds."""

    @abstractmethod
    def _start(self, send: Callable[[], Any]) -> Run:
        """Send a request."""

    @abstractmethod
    async def _next(self, seconds: float | None) -> Run | None:
        """The next that has come back; None: none has within so many seconds."""


class ThreadRace(Race):
    """Requests in threads."""

    def __init__(self, after: float | None, is_good: Callable[[Run], bool]) -> None:
        super().__init__(after, is_good)
        self._arrived: SimpleQueue[Run] = SimpleQueue()

    def stop(self, run: Run) -> None:
        """A thread cannot be stopped: its request's time-outs end it."""

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, call)
        timer.daemon = True
        with contextlib.suppress(RuntimeError):  # no thread can be had: the request's own time-outs end it
            timer.start()

    def _start(self, send: Callable[[], Any]) -> Run:
        run, context = Run(), contextvars.copy_context()

        def work() -> None:
            try:
                run.ends(context.run(send))
            except BaseException as error:  # noqa: BLE001 (raised where it is waited for)
                run.ends(error=error)
            self._arrived.put(run)

        _in_a_thread(work)
        return run

    async def _next(self, seconds: float | None) -> Run | None:
        try:
            return self._arrived.get(timeout=seconds)
        except Empty:
            return None


class TaskRace(Race):
    """Requests in tasks of asyncio's running loop."""

    def __init__(self, after: float | None, is_good: Callable[[Run], bool]) -> None:
        super().__init__(after, is_good)
        self._loop = asyncio.get_running_loop()
        if self._loop not in _loops:
            _loops.add(self._loop)
            _end_left_over()
        self._arrived: deque[Run] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def stop(self, run: Run) -> None:
        if run.task is not None:
            run.task.cancel()

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        self._loop.call_later(seconds, call)

    def _start(self, send: Callable[[], Any]) -> Run:
        run = Run()

        async def work() -> None:
            try:
                run.ends(await send())
            except BaseException as error:  # noqa: BLE001 (raised where it is waited for)
                run.ends(error=error)
            self._arrived.append(run)
            self._wake()

        run.task = self._loop.create_task(work())
        _sdk.leave_alone(run.task)
        _tasks.add(run.task)
        run.task.add_done_callback(_tasks.discard)
        return run

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _next(self, seconds: float | None) -> Run | None:
        if not self._arrived and seconds != 0:
            self._waiter = self._loop.create_future()
            timer = None if seconds is None else self._loop.call_later(seconds, self._wake)
            try:
                await self._waiter
            finally:
                if timer is not None:
                    timer.cancel()
        return self._arrived.popleft() if self._arrived else None


_tasks: Final[set[asyncio.Task[None]]] = set()  # a loop holds its tasks weakly
_loops: Final[weakref.WeakSet[asyncio.AbstractEventLoop]] = weakref.WeakSet()


def _end_left_over() -> None:
    """End what was under way in loops whose programs have closed them before: it holds connections."""
    for task in list(_tasks):
        if task.get_loop().is_closed():
            _tasks.discard(task)
            task.get_coro().close()


atexit.register(_end_left_over)


def task_race(after: float | None, is_good: Callable[[Run], bool]) -> Race | None:
    """A race in tasks; None where the running event loop is not one of asyncio."""
    try:
        return TaskRace(after, is_good)
    except RuntimeError:
        return None


# Not a ThreadPoolExecutor's, which the interpreter waits for when it exits.
_idle: Final[list[SimpleQueue[Callable[[], object]]]] = []
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_idle.clear)  # whose threads the child has not


def _in_a_thread(work: Callable[[], object]) -> None:
    """Let a thread that is idle do some work, or a new one; or do it here, where none can be had."""
    try:
        _idle.pop().put(work)
    except IndexError:
        try:
            threading.Thread(target=_work, args=(work,), name="failover-hedge", daemon=True).start()
        except RuntimeError:  # there are too many, or the interpreter is about to exit
            work()


def _work(work: Callable[[], object]) -> None:
    mine: SimpleQueue[Callable[[], object]] = SimpleQueue()
    while True:
        work()
        del work  # and what it holds
        _idle.append(mine)
        try:
            work = mine.get(timeout=_IDLE)
        except Empty:
            if not _is_removed(mine):  # somebody has just taken it, to put some work there
                work = mine.get()
                continue
            return


def _is_removed(mine: SimpleQueue[Callable[[], object]]) -> bool:
    try:
        _idle.remove(mine)
    except ValueError:
        return False
    return True
