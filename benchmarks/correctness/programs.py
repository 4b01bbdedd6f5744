"""What must hold of a circuit breaker in programs as they are: worker processes, slow listeners, coroutines astray."""

from __future__ import annotations

import asyncio
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
from benchmarks.correctness.driving import LOCKS, Hung, Tasks, Threads, once, start
from benchmarks.libraries.library import Failure, Unsupported, Wish

_CHILD_SECONDS: Final = 2  # after which a forked child that hangs is ended
_PLACES: Final = 12  # locks of one call that a fork is tried at


def coroutine_called(bench: Bench) -> None:
    """A coroutine function, given to what calls plain functions."""
    call = bench.library.call(Wish(threshold=2))
    if call is None:
        raise Unsupported("it has nothing that calls a function")
    _coroutine(call)


def coroutine_made(bench: Bench) -> None:
    """A plain function that gives a coroutine, as `lambda: request()` does."""
    guard = bench.library.make(Wish(threshold=2), "sync")
    _coroutine(lambda fn: guard(lambda: fn())())  # so that it is no coroutine function


def _coroutine(call: Callable[[Callable[[], Any]], Any]) -> None:
    async def request() -> None:
        raise Failure

    loop = asyncio.new_event_loop()
    refused = 0
    for _ in range(2):
        try:
            made = call(request)
            with contextlib.suppress(Failure):
                loop.run_until_complete(made)
        except TypeError:
            refused += 1
    try:
        admits = call(lambda: "fine") == "fine"
    except Exception:  # noqa: BLE001 (a refusal of any library's kind)
        admits = False
    if refused:
        must(admits, "it refuses coroutines, and counts that against the remote")
    else:
        must(not admits, "a coroutine counts as a success before it has run: failures are not counted")


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


def slow_listener(bench: Bench) -> None:
    entered, leave = threading.Event(), threading.Event()

    def listener() -> None:
        if not entered.is_set():
            entered.set()
            leave.wait(driving.LIMIT * 10)

    driver = bench.driver(Wish(threshold=100, listener=listener))
    call = driver.launch()
    call.outcome = Failure()
    call.release()
    try:
        must(entered.wait(driving.LIMIT), "the listener was told of nothing")
        for outcome in ("fine", Failure()):
            once(driver, outcome)
    except Hung:
        must(False, "while a listener hears of one call all others wait")
    finally:
        leave.set()
    call.wait()


def slow_listener_open(bench: Bench) -> None:
    """As above, while calls are refused."""
    entered, leave = threading.Event(), threading.Event()
    armed = threading.Event()

    def listener() -> None:
        if armed.is_set() and not entered.is_set():
            entered.set()
            leave.wait(driving.LIMIT * 10)

    driver = bench.driver(Wish(threshold=2, listener=listener))
    trip(driver)
    armed.set()
    driver.launch()
    try:
        if not entered.wait(driving.LIMIT):
            raise Unsupported("it tells listeners of no refusal")
        must(not start(driver).ran, "it is not open")
    except Hung:
        must(False, "while a listener hears of one refusal all others wait")
    finally:
        leave.set()


def slow_listener_loop(bench: Bench) -> None:
    """As above, while calls of an event loop are refused, and the listener is busy with a thread's."""
    entered, leave = threading.Event(), threading.Event()
    armed = threading.Event()

    def listener() -> None:
        if armed.is_set() and not entered.is_set():
            entered.set()
            leave.wait(driving.LIMIT * 10)

    if bench.library.ways != ("sync", "async"):
        raise Unsupported("it has not both kinds of calls")
    guard = bench.library.make(Wish(threshold=2, listener=listener), "both")
    in_thread, in_loop = Threads(guard), Tasks(guard)
    trip(in_thread)
    armed.set()
    in_thread.launch()
    try:
        if not entered.wait(driving.LIMIT):
            raise Unsupported("it tells listeners of no refusal")
        must(not start(in_loop).ran, "it is not open")
    except Hung:
        must(False, "while a listener hears of a thread's call, the event loop waits")
    finally:
        leave.set()


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
