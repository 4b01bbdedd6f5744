"""What must hold of a circuit breaker, each as a function that tries it on any library."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import math
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from benchmarks.correctness.driving import LOCKS, WALL, Clock, Driver, Hung, Tasks, Threads, once, start
from benchmarks.libraries.library import Failure, Ignored, Library, Unsupported, Wish


class Wrong(Exception):  # noqa: N818 (the check's finding, not its failure)
    """It does not hold, and why."""


@dataclass(frozen=True)
class Bench:
    """One library, used in one way."""

    library: Library
    way: str

    def driver(self, wish: Wish) -> Driver:
        return (Threads if self.way == "sync" else Tasks)(self.library.make(wish, self.way))

    def timed(self, wish: Wish) -> tuple[Driver, Callable[[float], None]]:
        """A driver, and what lets seconds pass for its circuit: its own clock where it takes one, else a sleep."""
        clock = Clock()
        try:
            return self.driver(replace(wish, clock=clock)), lambda seconds: setattr(clock, "now", clock.now + seconds)
        except Unsupported:
            return self.driver(wish), time.sleep


def must(holds: object, reason: str) -> None:
    if not holds:
        raise Wrong(reason)


def trip(driver: Driver, failures: int = 2) -> None:
    for _ in range(failures):
        once(driver, Failure())
    must(not once(driver).ran, f"{failures} failures in a row did not open it")


SOON: Final = Wish(threshold=2, cooldown=0.2)


def half_open(bench: Bench, wish: Wish = SOON) -> tuple[Driver, Callable[[float], None]]:
    driver, passes = bench.timed(wish)
    trip(driver)
    passes(wish.cooldown * 1.5)
    return driver, passes


def side_by_side(bench: Bench) -> None:
    driver = bench.driver(Wish())
    calls = [driver.launch() for _ in range(10)]
    must(all(call.settled() and call.ran for call in calls), "of ten calls some waited until others had ended")
    for call in calls:
        call.end()


def no_lock(bench: Bench) -> None:
    if LOCKS.taken is None:
        raise RuntimeError("locks are not counted in this process")

    async def acall() -> None:
        pass

    guarded = bench.library.make(Wish(), bench.way)(acall if bench.way == "async" else (lambda: None))
    loop = asyncio.new_event_loop()

    def one() -> int:
        before = LOCKS.taken or 0
        if bench.way == "async":
            loop.run_until_complete(guarded())
        else:
            guarded()
        return (LOCKS.taken or 0) - before

    one()  # what is made at the first call is not of each call
    taken = one()
    must(not taken, f"a call that succeeded took {taken} locks, though nothing had failed")


def probes_only(bench: Bench) -> None:
    for probes in (1, 2):
        try:
            driver, _ = half_open(bench, replace(SOON, probes=probes))
        except Unsupported:
            continue
        calls = [driver.launch() for _ in range(10)]
        waited = sum(not call.settled() for call in calls)
        must(not waited, f"{waited} of ten calls waited for the probe instead of being refused")
        ran = sum(call.ran for call in calls)
        must(ran == probes, f"of ten calls {ran} were admitted at once, not {probes}")
        for call in calls:
            call.end()
        must(once(driver).ran, "the probes succeeded and it did not close")


def _late(bench: Bench, wish: Wish, calls: int = 1) -> tuple[Driver, Callable[[float], None], list[Any]]:
    """A tripped circuit, with calls under way that it admitted before."""
    driver, passes = bench.timed(wish)
    late = [start(driver)]
    try:
        late += [start(driver) for _ in range(calls - 1)]
        trip(driver)
    except Hung as hung:
        raise Unsupported("its calls go one after the other: none can be late") from hung
    return driver, passes, late


def late_success(bench: Bench) -> None:
    driver, _, (late,) = _late(bench, Wish(threshold=2))
    late.end()
    must(not once(driver).ran, "a success admitted before the trip closed it")
    driver, passes, (late,) = _late(bench, SOON)
    passes(0.3)
    probe = start(driver)
    must(probe.ran, "no probe was admitted after the cooldown")
    late.end()
    probe.end(Failure())
    must(not once(driver).ran, "a success admitted before the trip closed it while it was half-open")


def late_failure_open(bench: Bench) -> None:
    driver, passes, (late,) = _late(bench, Wish(threshold=2, cooldown=1.0))
    passes(0.8)
    late.end(Failure())
    passes(0.4)
    must(once(driver).ran, "a failure admitted before the trip lengthened the cooldown")


def late_failure_closed(bench: Bench) -> None:
    driver, passes, late = _late(bench, replace(SOON, cooldown=0.3), calls=3)
    passes(0.45)
    must(once(driver).ran, "no probe was admitted after the cooldown")
    for call in late:
        call.end(Failure())
    must(once(driver).ran, "failures admitted before the trip opened it again after it had recovered")


def cancelled_closed(bench: Bench) -> None:
    for cancel in bench.driver(Wish()).cancellations():
        driver = bench.driver(Wish(threshold=2))
        for _ in range(2):
            cancel(start(driver))
        must(once(driver).ran, "cancelled calls opened it")
        driver = bench.driver(Wish(threshold=2))
        once(driver, Failure())
        cancel(start(driver))
        once(driver, Failure())
        must(not once(driver).ran, "a cancelled call counted as a success: it reset the count")


def cancelled_probe(bench: Bench) -> None:
    for cancel in bench.driver(Wish()).cancellations():
        driver, _ = half_open(bench)
        cancel(start(driver))
        must(once(driver, Failure()).ran, "after a cancelled probe no other is admitted")
        must(not once(driver).ran, "a cancelled probe closed it")


def neutral_closed(bench: Bench) -> None:
    driver = bench.driver(Wish(threshold=2, ignore=True))
    for _ in range(2):
        once(driver, Ignored())
    must(once(driver).ran, "neutral errors opened it")
    once(driver, Failure())
    once(driver, Ignored())
    once(driver, Failure())
    must(not once(driver).ran, "a neutral error counted as a success: it reset the count")


def neutral_probe(bench: Bench) -> None:
    driver, passes = half_open(bench, replace(SOON, ignore=True))
    once(driver, Ignored())
    if not once(driver, Failure()).ran:
        # Open again until the next cooldown, as interlock-cb ends a round of probes: not closed, and so allowed here.
        passes(0.3)
        must(once(driver).ran, "after a probe with a neutral error no other is ever admitted")
        return
    must(not once(driver).ran, "a neutral error closed the half-open circuit")


def hung_probe(bench: Bench) -> None:
    wish = replace(SOON, lease=0.3)
    driver, passes = bench.timed(wish)
    trip(driver)
    passes(0.3)
    must(start(driver).ran, "no probe was admitted after the cooldown")
    # A day, where a day costs nothing: whatever its lease is.
    passes(0.5 if passes is time.sleep else 86_400.0)
    must(once(driver).ran, "a probe that never came back keeps all others out")


def nested(bench: Bench) -> None:
    """Methods that call each other through one circuit: after an outage they must find their way back."""
    guard = bench.library.make(SOON, bench.way)
    down = [True]

    def request() -> str:
        if down[0]:
            raise Failure
        return "answer"

    async def arequest() -> str:
        return request()

    inner = guard(arequest if bench.way == "async" else request)

    def outer() -> Any:
        return inner()

    async def aouter() -> Any:
        return await inner()

    method = guard(aouter if bench.way == "async" else outer)
    loop = asyncio.new_event_loop()

    def call() -> object:
        try:
            return loop.run_until_complete(method()) if bench.way == "async" else method()
        except Exception as error:  # noqa: BLE001 (a failure, or a refusal of any library's kind)
            return error

    for _ in range(5):
        call()
    down[0] = False
    ends = []
    for _ in range(3):
        time.sleep(SOON.cooldown * 1.5)
        ends.append(call())
    must("answer" in ends, "a call inside a probe is refused: after three cooldowns no request has reached the remote")


class _Body:
    """What a failed call was working with."""


def frames(bench: Bench) -> None:
    guard = bench.library.make(Wish(), bench.way)
    kept: list[weakref.ref[_Body]] = []

    def upload() -> None:
        body = _Body()
        kept.append(weakref.ref(body))
        raise Failure

    async def aupload() -> None:
        upload()

    guarded = guard(aupload if bench.way == "async" else upload)
    loop = asyncio.new_event_loop()
    with contextlib.suppress(Failure):
        loop.run_until_complete(guarded()) if bench.way == "async" else guarded()
    gc.collect()
    must(kept[0]() is None, "the frames of a failed call are kept, and all that it was working with")


class _FromListenerError(Exception):
    """What the listener of the check raises."""


class _Capture(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += self.format(record) + "\n"


def bad_listener(bench: Bench) -> None:
    told = 0

    def listener() -> None:
        nonlocal told
        told += 1
        raise _FromListenerError

    capture = _Capture()
    logging.getLogger().addHandler(capture)
    try:
        driver, passes = bench.timed(replace(SOON, listener=listener))
        calls = [once(driver, "fine"), once(driver, Failure()), once(driver, Failure())]
        must(told, "the listener was told of nothing")
        refused = once(driver)
        passes(0.3)
        calls.append(once(driver, "fine"))
    finally:
        logging.getLogger().removeHandler(capture)
    must(not any(isinstance(call.error, _FromListenerError) for call in calls), "the caller got the listener's error")
    must(all(call.ran for call in calls) and not refused.ran, "it did not open, or did not try again")
    must(calls[0].result == calls[-1].result == "fine", "a result was lost")
    must(once(driver, Failure()).ran and once(driver).ran, "it did not close")
    must(_FromListenerError.__name__ in capture.text, "what the listener raised is not in the log")


def wall_clock(bench: Bench) -> None:
    driver = bench.driver(Wish(threshold=2, cooldown=60.0))
    trip(driver)
    WALL.moved += 3600
    must(not once(driver).ran, "an hour forward on the wall clock ended a cooldown of a minute")
    driver = bench.driver(SOON)
    trip(driver)
    WALL.moved -= 7200
    time.sleep(0.5)
    must(once(driver).ran, "an hour back on the wall clock lengthened the cooldown by it")


def injected_clock(bench: Bench) -> None:
    clock = Clock()
    driver = bench.driver(Wish(threshold=2, cooldown=3600.0, clock=clock))
    trip(driver)
    clock.now += 3599.0
    must(not once(driver).ran, "it does not go by the clock it was given")
    clock.now += 2.0
    must(once(driver).ran, "it does not go by the clock it was given")


def nonsense(bench: Bench) -> None:
    values: dict[str, tuple[Any, ...]] = {"threshold": (0, -1, 1.5), "cooldown": (0.0, -1.0, math.nan, math.inf)}
    for field, wrong in values.items():
        name = bench.library.fields[field]
        for value in wrong:
            try:
                bench.library.make(Wish(**{field: value}), bench.way)
            except ValueError as error:
                must(name in str(error), f"{name}={value}: the ValueError does not name the field: {error}")
            except Exception as error:
                raise Wrong(f"{name}={value} raises {type(error).__name__}, not ValueError") from error
            else:
                raise Wrong(f"{name}={value} is accepted")
