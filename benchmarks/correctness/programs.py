"""What must hold of a circuit breaker in programs as they are: worker processes, and slow listeners."""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import threading
import warnings
from collections.abc import Callable
from typing import Any, Final

from benchmarks.correctness import driving
from benchmarks.correctness.checks import Bench, must, trip
from benchmarks.correctness.driving import LOCKS, Driver, Hung, Tasks, Threads, once, start
from benchmarks.libraries.library import Failure, Unsupported, Wish

_CHILD_SECONDS: Final = 2  # after which a forked child that hangs is ended
_PLACES: Final = 12  # locks of one call that a fork is tried at


class _OfASocketError(Failure):
    """As many libraries' errors, it holds what cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("reset by peer")
        self.socket = threading.Lock()


def refusal_pickled(bench: Bench) -> None:
    """As on its way out of a worker process."""
    driver = bench.driver(Wish(threshold=2))
    for _ in range(2):
        once(driver, _OfASocketError())
    refusal = once(driver).error
    must(refusal is not None, "two failures in a row did not open it")
    try:
        arrived = pickle.loads(pickle.dumps(refusal))  # noqa: S301 (written right here)
    except Exception as error:  # noqa: BLE001 (whatever it is, a process pool breaks of it)
        must(False, f"a refusal does not survive pickling: {error}")
    must(type(arrived) is type(refusal), "a refusal arrives as another error")
    must(str(arrived) == str(refusal), "a refusal loses its text on the way")


class _SlowListener:
    """Keeps the first call that tells it anything waiting, once it is armed, until the block around it ends."""

    def __init__(self) -> None:
        self._armed, self._entered, self._leave = threading.Event(), threading.Event(), threading.Event()

    def __call__(self) -> None:
        if self._armed.is_set() and not self._entered.is_set():
            self._entered.set()
            self._leave.wait(driving.LIMIT * 10)

    def arm(self) -> None:
        self._armed.set()

    def entered(self) -> bool:
        """Whether it is told of something within the limit."""
        return self._entered.wait(driving.LIMIT)

    def __enter__(self) -> _SlowListener:
        return self

    def __exit__(self, *_: object) -> None:
        self._leave.set()


def slow_listener(bench: Bench) -> None:
    with _SlowListener() as listener:
        driver = bench.driver(Wish(threshold=100, listener=listener))
        listener.arm()
        call = driver.launch()
        call.outcome = Failure()
        call.release()
        must(listener.entered(), "the listener was told of nothing")
        try:
            for outcome in ("fine", Failure()):
                once(driver, outcome)
        except Hung:
            must(False, "while a listener hears of one call all others wait")
    call.wait()


def slow_listener_open(bench: Bench) -> None:
    """As above, while calls are refused."""
    with _SlowListener() as listener:
        driver = bench.driver(Wish(threshold=2, listener=listener))
        trip(driver)
        _refused_while_told(listener, driver, driver, "while a listener hears of one refusal all others wait")


def slow_listener_loop(bench: Bench) -> None:
    """As above, while calls of an event loop are refused, and the listener is busy with a thread's."""
    if bench.library.ways != ("sync", "async"):
        raise Unsupported("it has not both kinds of calls")
    with _SlowListener() as listener:
        guard = bench.library.make(Wish(threshold=2, listener=listener), "both")
        in_thread, in_loop = Threads(guard), Tasks(guard)
        trip(in_thread)
        reason = "while a listener hears of a thread's call, the event loop waits"
        _refused_while_told(listener, in_thread, in_loop, reason)


def _refused_while_told(listener: _SlowListener, one: Driver, other: Driver, reason: str) -> None:
    """A refusal of `other`, while the listener is told of one of the same circuit by `one`."""
    listener.arm()
    one.launch()
    if not listener.entered():
        raise Unsupported("it tells listeners of no refusal")
    try:
        must(not start(other).ran, "it is not open")
    except Hung:
        must(False, reason)


def fork(bench: Bench) -> None:
    """In the middle of another thread's failing call, wherever that has just taken a lock."""
    if not hasattr(os, "fork"):
        raise Unsupported("this system has no fork")
    if LOCKS.taken is None:
        raise RuntimeError("locks are not counted in this process")
    guard = bench.library.make(Wish(threshold=100), bench.way)

    def call(error: Exception | None) -> None:
        def work() -> None:
            if error is not None:
                raise error

        with contextlib.suppress(Failure):
            guard(work)()

    def one_of_each() -> None:
        call(None)
        call(Failure())

    for place in range(_PLACES):
        reached, go_on = threading.Event(), threading.Event()

        def failing(place: int = place, reached: Any = reached, go_on: Any = go_on) -> None:
            def stop() -> None:
                reached.set()
                go_on.wait(driving.LIMIT * 10)

            with LOCKS.after(place, stop):
                call(Failure())
            reached.set()

        thread = threading.Thread(target=failing, daemon=True)
        thread.start()
        reached.wait(driving.LIMIT * 10)
        works = _in_child(one_of_each)
        go_on.set()
        thread.join(driving.LIMIT * 10)
        must(works, "a child forked while another thread is in the circuit hangs at its first call")


def _in_child(work: Callable[[], object]) -> bool:
    """Whether a forked child gets to the end of `work`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from 3.12 on Python warns of forks among threads, which are the matter here
        child = os.fork()
    if not child:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(_CHILD_SECONDS)
        try:
            work()
        except BaseException:  # noqa: BLE001 (in a child nothing may get out)
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0
