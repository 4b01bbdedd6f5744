"""Calls through a circuit, begun and ended by hand, the same in threads and in tasks: so each check is written once."""

from __future__ import annotations

import asyncio
import datetime as dt
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, Protocol

from benchmarks.libraries.library import Guard

LIMIT: Final = 1.0
"""Seconds: what takes longer is waiting for another call, since nothing here has anything to do."""


class Hung(Exception):  # noqa: N818 (it says what the call did)
    """A call neither ran nor was refused within the limit, or did not end when it was told to."""


class Call:
    """One call. `began`: the guarded function runs. `ended`: the caller has its result, or `error`."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.ended = threading.Event()
        self.outcome: object = None
        self.result: object = None
        self.error: BaseException | None = None
        self.release: Callable[[], object] = lambda: None
        self.cancel: Callable[[], object] = lambda: None

    @property
    def ran(self) -> bool:
        return self.began.is_set()

    def settled(self) -> bool:
        """Whether it is known within the limit that the call runs or was refused."""
        until = time.monotonic() + LIMIT
        while time.monotonic() < until:
            if self.began.wait(0.002) or self.ended.is_set():
                return True
        return False

    def end(self, outcome: object = None) -> None:
        """Let the guarded function return `outcome`, or raise it, and wait for the caller to have it."""
        self.outcome = outcome
        self.release()
        self.wait()

    def wait(self) -> None:
        if not self.ended.wait(LIMIT):
            raise Hung("a call did not end when its function did")

    def finish(self) -> object:
        if isinstance(self.outcome, BaseException):
            raise self.outcome
        return self.outcome


class Driver(Protocol):
    """Makes calls through one circuit."""

    way: str

    def launch(self) -> Call:
        """A call that goes on until it is ended; does not wait for it to begin."""

    def cancellations(self) -> list[Callable[[Call], None]]:
        """The ways in which a call is cancelled here."""


def start(driver: Driver) -> Call:
    """A call that runs, or that was refused; raises `Hung` if it does neither."""
    call = driver.launch()
    if not call.settled():
        raise Hung("a call waited for another one")
    return call


def once(driver: Driver, outcome: object = None) -> Call:
    """A call from its beginning to its end."""
    call = start(driver)
    call.end(outcome)
    return call


class Threads:
    """Each call in a thread of its own."""

    way = "sync"

    def __init__(self, guard: Guard) -> None:
        self._guard = guard

    def launch(self) -> Call:
        call, gate = Call(), threading.Event()
        call.release = gate.set

        def work() -> object:
            call.began.set()
            gate.wait()
            return call.finish()

        def caller() -> None:
            try:
                call.result = self._guard(work)()
            except BaseException as error:  # noqa: BLE001 (whatever it is, the check judges it)
                call.error = error
            call.ended.set()

        threading.Thread(target=caller, daemon=True).start()
        return call

    def cancellations(self) -> list[Callable[[Call], None]]:
        def by(kind: type[BaseException]) -> Callable[[Call], None]:
            return lambda call: call.end(kind())

        return [by(KeyboardInterrupt), by(SystemExit), by(GeneratorExit)]


class Tasks:
    """Each call in a task of its own, in one event loop in a thread of its own."""

    way = "async"

    def __init__(self, guard: Guard) -> None:
        self._guard = guard
        self._loop = asyncio.new_event_loop()
        self._running: set[asyncio.Task[None]] = set()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def launch(self) -> Call:
        call, gate = Call(), asyncio.Event()
        call.release = lambda: self._loop.call_soon_threadsafe(gate.set)

        async def work() -> object:
            call.began.set()
            await gate.wait()
            return call.finish()

        async def caller() -> None:
            try:
                call.result = await self._guard(work)()
            except BaseException as error:  # noqa: BLE001 (as above)
                call.error = error
            call.ended.set()

        def begin() -> None:
            task = self._loop.create_task(caller())
            self._running.add(task)
            call.cancel = lambda: self._loop.call_soon_threadsafe(task.cancel)

        self._loop.call_soon_threadsafe(begin)
        return call

    def cancellations(self) -> list[Callable[[Call], None]]:
        def cancel(call: Call) -> None:
            call.cancel()
            call.wait()

        return [cancel]


class Clock:
    """Seconds that grow when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Wall:
    """The wall clock, which an administrator or NTP may move. To be put up before a library is imported."""

    def __init__(self) -> None:
        self.moved = 0.0

    def put_up(self) -> None:
        wall, true_time, true_ns = self, time.time, time.time_ns

        class Moved(dt.datetime):
            @classmethod
            def now(cls, tz: Any = None) -> Any:
                return super().now(tz) + dt.timedelta(seconds=wall.moved)

            @classmethod
            def utcnow(cls) -> Any:
                return cls.now(dt.timezone.utc).replace(tzinfo=None)

            @classmethod
            def today(cls) -> Any:
                return cls.now()

        time.time = lambda: true_time() + wall.moved
        time.time_ns = lambda: true_ns() + int(wall.moved * 1e9)
        patched: Any = dt
        patched.datetime = Moved


WALL: Final = Wall()


class Locks:
    """How often this process takes a lock of `threading`. To be put up before a library is imported."""

    def __init__(self) -> None:
        self.taken: int | None = None
        self._hook = threading.local()

    @contextmanager
    def after(self, number: int, do: Callable[[], None]) -> Iterator[None]:
        """When this thread has taken so many locks from now on and takes one more, `do` is called, once."""
        self._hook.left, self._hook.do = number, do
        try:
            yield
        finally:
            self._hook.do = None

    def count(self) -> None:
        self.taken = (self.taken or 0) + 1
        do = getattr(self._hook, "do", None)
        if do is not None:
            self._hook.left -= 1
            if self._hook.left < 0:
                self._hook.do = None  # it may take locks itself
                do()

    def put_up(self) -> None:
        self.taken = 0
        locks = self

        class Counted:
            def __init__(self, lock: Any) -> None:
                self._lock = lock

            def acquire(self, *args: Any, **kwargs: Any) -> bool:
                taken = bool(self._lock.acquire(*args, **kwargs))
                locks.count()
                return taken

            def __enter__(self) -> bool:
                return self.acquire()

            def __exit__(self, *_: object) -> None:
                self._lock.release()

            def __getattr__(self, name: str) -> Any:
                return getattr(self._lock, name)

        lock, rlock = threading.Lock, threading.RLock
        patched: Any = threading
        patched.Lock, patched.RLock = lambda: Counted(lock()), lambda: Counted(rlock())


LOCKS: Final = Locks()
