"""What programs do with circuits that a circuit by itself never shows: calls inside calls, forks, slow listeners."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import copy
import functools
import gc
import logging
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time
import types
import weakref
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trio

from failover.breaker import (
    BreakerEvent,
    Breakers,
    CallFailed,
    CallRefused,
    CircuitBreaker,
    CircuitOpen,
    ConsecutiveFailures,
    Cooldown,
    FailureRate,
    FailureReported,
    Permit,
    Policy,
    Refusal,
    State,
    Transition,
)
from failover.breaker.dispatcher import MOST_EVENTS
from tests.breaker.circuits import PATIENCE, half_open, state
from tests.clock import Clock
from tests.forking import in_a_fork

ROOT = Path(__file__).parent.parent.parent


@pytest.fixture
def clock() -> Clock:
    return Clock()


# --- calls inside calls on the same circuit ---------------------------------------------------------------------------


class Client:
    """A client whose methods call each other, each of them guarded, in every way there is."""

    def __init__(self, breaker: CircuitBreaker) -> None:
        self.breaker = breaker
        self.down = False
        self.requests = 0

    def request(self) -> str:
        self.requests += 1
        if self.down:
            raise OSError("down")
        return "answer"

    async def arequest(self) -> str:
        await asyncio.sleep(0)
        return self.request()

    def functions(self) -> str:
        return self.breaker(lambda: self.breaker(self.request)())()

    def calls(self) -> str:
        return self.breaker.call(self.breaker.call, self.request)

    def executes(self) -> str:
        return self.breaker.execute(lambda: self.breaker.execute(self.request))

    def blocks(self) -> str:
        with self.breaker, self.breaker:
            return self.request()

    def permits(self) -> str:
        with self.breaker.admit(), self.breaker.admit():
            return self.request()

    def generators(self) -> str:
        def inner() -> Iterator[str]:
            yield self.request()

        def outer() -> Iterator[str]:
            yield from self.breaker(inner)()

        return "".join(self.breaker(outer)())

    def tasks(self) -> str:
        async def outer() -> str:
            return await asyncio.create_task(self.breaker(self.arequest)())

        return asyncio.run(self.breaker(outer)())

    def gathered(self) -> str:
        async def outer() -> str:
            return (await asyncio.gather(*(self.breaker.acall(self.arequest) for _ in range(3))))[0]

        return asyncio.run(self.breaker.acall(outer))

    def async_blocks(self) -> str:
        async def outer() -> str:
            async with self.breaker, self.breaker:
                return await self.arequest()

        return asyncio.run(outer())

    def async_generators(self) -> str:
        async def inner() -> AsyncIterator[str]:
            yield await self.arequest()

        async def outer() -> AsyncIterator[str]:
            async for item in self.breaker(inner)():
                yield item

        async def collect() -> str:
            return "".join([item async for item in self.breaker(outer)()])

        return asyncio.run(collect())


NESTED = [
    Client.functions,
    Client.calls,
    Client.executes,
    Client.blocks,
    Client.permits,
    Client.generators,
    Client.tasks,
    Client.gathered,
    Client.async_blocks,
    Client.async_generators,
]
nested_ways = pytest.mark.parametrize("nested", NESTED, ids=lambda nested: nested.__name__)


@nested_ways
@pytest.mark.parametrize("max_probes", [1, 2])
def test_methods_that_call_each_other_recover_at_the_first_probe(
    nested: Callable[[Client], str], max_probes: int, clock: Clock
) -> None:
    breaker = CircuitBreaker("b", Policy(recovery=Cooldown(30.0), max_probes=max_probes), clock=clock)
    client = Client(breaker)
    client.down = True
    while state(breaker) is State.CLOSED:
        with pytest.raises(OSError, match="down"):
            nested(client)
    client.down = False
    client.requests = 0
    clock.now += 30.0
    assert nested(client) == "answer"
    assert client.requests >= 1
    assert state(breaker) is State.CLOSED


# Tasks that fail side by side are three calls while the circuit is steady: see `failover.breaker.circuit`.
@pytest.mark.parametrize("nested", [each for each in NESTED if each is not Client.gathered])
def test_an_error_that_passes_through_both_counts_once(nested: Callable[[Client], str]) -> None:
    breaker = CircuitBreaker("b")
    client = Client(breaker)
    client.down = True
    for count in (1, 2, 3):
        with pytest.raises(OSError, match="down"):
            nested(client)
        assert breaker.snapshot()["failures"] == count


@nested_ways
def test_a_probe_that_fails_inside_opens_the_circuit_once(nested: Callable[[Client], str], clock: Clock) -> None:
    breaker = half_open(clock)
    opened = breaker.snapshot()["opened"]
    client = Client(breaker)
    client.down = True
    with pytest.raises(OSError, match="down"):
        nested(client)
    assert (state(breaker), breaker.snapshot()["opened"]) == (State.OPEN, opened + 1)


def test_an_error_raised_from_the_inner_ones_counts_once_too() -> None:
    breaker = CircuitBreaker("b")
    inner = breaker(Client.request)
    client = Client(breaker)
    client.down = True

    @breaker
    def outer() -> None:
        try:
            inner(client)
        except OSError:
            raise ConnectionError("wrapped")  # noqa: B904 (as people write it)

    with pytest.raises(ConnectionError):
        outer()
    assert breaker.snapshot()["failures"] == 1


def test_one_error_object_raised_again_and_again_counts_each_time() -> None:
    """As `Mock(side_effect=error)` does."""
    breaker, error = CircuitBreaker("b", Policy(ConsecutiveFailures(3))), OSError("the same")

    @breaker
    def fails() -> None:
        raise error

    for count in (1, 2, 3):
        with pytest.raises(OSError, match="the same"):
            fails()
        assert breaker.snapshot()["failures"] == count
        if count == 1:
            breaker.call(int)
            with pytest.raises(OSError, match="the same"):
                fails()
    assert breaker.state is State.OPEN


def test_a_task_that_outlives_the_call_that_started_it_is_on_its_own(clock: Clock) -> None:
    breaker = half_open(clock)

    async def main() -> None:
        async def background() -> None:
            await over.wait()
            for _ in range(5):
                with pytest.raises(OSError, match="down"):
                    await breaker.acall(down)

        async def down() -> None:
            raise OSError("down")

        async def outer() -> asyncio.Task[None]:
            return asyncio.create_task(background())

        over = asyncio.Event()
        task = await breaker.acall(outer)
        assert state(breaker) is State.CLOSED
        over.set()
        await task

    asyncio.run(main())
    assert state(breaker) is State.OPEN


def test_a_long_job_does_not_go_on_calling_when_the_circuit_has_opened_meanwhile() -> None:
    breaker = CircuitBreaker("b")
    with breaker:
        breaker.call(int)
        breaker.trip()
        with pytest.raises(CircuitOpen):
            breaker.call(int)


def test_in_the_window_of_a_rate_too_a_nested_call_counts_once() -> None:
    breaker = CircuitBreaker("b", Policy(FailureRate(0.5, calls=10, minimum=10)))
    client = Client(breaker)
    client.down = True
    with pytest.raises(OSError, match="down"):
        client.functions()
    assert breaker.snapshot()["failures"] == 1


# --- slow listeners and log handlers ----------------------------------------------------------------------------------


class SlowHandler(logging.Handler):
    def __init__(self, seconds: float) -> None:
        super().__init__()
        self.seconds = seconds

    def emit(self, record: logging.LogRecord) -> None:
        time.sleep(self.seconds)


@pytest.mark.parametrize("kind", ["listener", "log handler"])
def test_no_call_waits_for_the_events_of_others(kind: str) -> None:
    slow = 0.002
    breaker = CircuitBreaker("b", listeners=[lambda _: time.sleep(slow)] if kind == "listener" else [])
    handler = SlowHandler(slow)
    if kind == "log handler":
        logging.getLogger("failover.breaker").addHandler(handler)
    breaker.trip()
    longest: list[float] = []

    def work() -> None:
        mine = 0.0
        for _ in range(100):
            began = time.perf_counter()
            with pytest.raises(CircuitOpen):
                breaker.call(int)
            mine = max(mine, time.perf_counter() - began)
        longest.append(mine)

    threads = [threading.Thread(target=work) for _ in range(16)]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    finally:
        logging.getLogger("failover.breaker").removeHandler(handler)
    assert len(longest) == 16
    # All events one after the other are 3.2 s; one takes 2 ms, and a loaded machine its time.
    assert max(longest) < 1.0


def test_a_listener_that_hangs_holds_up_one_call_and_the_queue_is_bounded(caplog: pytest.LogCaptureFixture) -> None:
    go_on, told = threading.Event(), []
    first = threading.Event()

    def listener(event: BreakerEvent) -> None:
        first.set()
        go_on.wait(PATIENCE)
        told.append(event)

    breaker = CircuitBreaker("its listener hangs", listeners=[listener])
    held = threading.Thread(target=breaker.trip)
    held.start()
    assert first.wait(PATIENCE)
    for _ in range(MOST_EVENTS + 500):
        with pytest.raises(CircuitOpen):
            breaker.admit()
    breaker.reset()
    assert breaker.snapshot()["events_dropped"] == 501, "the transition took a refusal's place"
    go_on.set()
    held.join(PATIENCE)
    over = time.monotonic() + PATIENCE
    while len(told) < MOST_EVENTS + 1 and time.monotonic() < over:
        time.sleep(0.01)
    assert [type(event) for event in told] == [Transition, *[CallRefused] * (MOST_EVENTS - 1), Transition]
    # Of this circuit: that of the test before may still be telling.
    assert caplog.text.count('circuit "its listener hangs" drops events') == 1


def test_a_loop_is_held_up_by_its_own_events_alone() -> None:
    go_on, first = threading.Event(), threading.Event()

    def listener(event: BreakerEvent) -> None:
        if threading.current_thread() is not main_thread:
            first.set()
            go_on.wait(PATIENCE)

    main_thread = threading.current_thread()
    breaker = CircuitBreaker("b", listeners=[listener])
    other = threading.Thread(target=breaker.trip)
    other.start()
    assert first.wait(PATIENCE)

    async def main() -> float:
        began = time.perf_counter()
        for _ in range(100):
            with pytest.raises(CircuitOpen):
                await breaker.acall(asyncio.sleep, 0)
        return time.perf_counter() - began

    assert asyncio.run(main()) < 5
    go_on.set()
    other.join(PATIENCE)


def test_a_listener_may_use_the_circuit_and_hears_of_it_in_order() -> None:
    told: list[State] = []

    def listener(event: BreakerEvent) -> None:
        assert isinstance(event, Transition)
        if event.new is State.OPEN:
            breaker.reset()
        told.append(event.new)

    breaker = CircuitBreaker("b", listeners=[listener])
    breaker.trip()
    assert told == [State.OPEN, State.CLOSED]


# --- forks ------------------------------------------------------------------------------------------------------------


class SlowWindow:
    """Is at work, under the circuit's lock, nearly all the time."""

    def __init__(self) -> None:
        self.failures = 0

    def add(self, failed: bool, now: float) -> bool:
        time.sleep(0.0005)
        self.failures += failed
        return False


class SlowTrip:
    threshold = 1000

    def window(self) -> SlowWindow:
        return SlowWindow()


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.usefixtures("unlogged")
@pytest.mark.parametrize("trip", [ConsecutiveFailures(10**6), SlowTrip(), FailureRate(1.0, seconds=60, minimum=10**6)])
def test_a_child_can_use_a_circuit_whatever_other_threads_did(trip: Any) -> None:
    heard: list[BreakerEvent] = []

    def listener(event: BreakerEvent) -> None:
        heard.append(event)
        time.sleep(0.0005)

    breaker = CircuitBreaker("b", Policy(trip), listeners=[listener])
    breakers = Breakers(Policy(trip), listeners=[listener], max_idle=60.0)
    over = threading.Event()

    def work() -> None:
        number = 0
        while not over.is_set():
            number += 1
            breaker.admit().failed(OSError())
            breakers.on(f"host-{number % 50}").admit().failed(OSError())

    def in_child() -> bool:
        del heard[:]
        breaker.admit().failed(OSError("in the child"))
        breakers.on("host-1").admit().released()
        breaker.trip()
        mine = [event for event in heard if isinstance(event, (CallFailed, Transition))]
        return breaker.state is State.OPEN and len(mine) == 2

    threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        assert all(in_a_fork(in_child) for _ in range(30))
    finally:
        over.set()
        for thread in threads:
            thread.join(PATIENCE)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.usefixtures("unlogged")
def test_a_listener_that_forks_leaves_two_working_circuits() -> None:
    answers: list[bool] = []
    heard: list[BreakerEvent] = []

    def listener(event: BreakerEvent) -> None:
        heard.append(event)
        if not answers:
            answers.append(False)
            answers[0] = in_a_fork(in_child)

    def in_child() -> bool:
        breaker.reset()
        return breaker.state is State.CLOSED

    breaker = CircuitBreaker("b", listeners=[listener])
    breaker.trip()
    breaker.reset()
    assert answers == [True]
    assert len(heard) == 2


# --- what is kept of a failed call ------------------------------------------------------------------------------------


class Upload:
    """Two megabytes, in a real program."""


def test_no_frame_of_a_failed_call_is_kept() -> None:
    breaker = CircuitBreaker("b")
    kept: list[weakref.ref[Upload]] = []

    @breaker
    def upload() -> None:
        body = Upload()
        kept.append(weakref.ref(body))
        raise OSError("reset by peer") from ValueError(body)

    gc.disable()
    try:
        for _ in range(3):
            with pytest.raises(OSError, match="reset"):
                upload()
        gc.collect()  # the cause and the frames of this test hold each other
        assert [ref() for ref in kept] == [None] * 3
    finally:
        gc.enable()
    assert breaker.snapshot()["last_error"] == "OSError: reset by peer"


class ResponseError(Exception):
    """As of an HTTP library: holds the request, with its body."""

    def __init__(self, request: Upload, status: int) -> None:
        super().__init__(f"it answered {status}", request)
        self.request = request
        self.status = status

    def __str__(self) -> str:
        return f"it answered {self.status}"


def test_what_an_error_holds_is_not_kept_and_its_type_is() -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(1)))
    body = Upload()
    kept = weakref.ref(body)
    breaker.admit().failed(ResponseError(body, 503))
    del body
    gc.collect()
    assert kept() is None
    with pytest.raises(CircuitOpen) as refused:
        breaker.admit()
    last = refused.value.last_error
    assert isinstance(last, ResponseError)
    assert (str(last), last.status, last.__traceback__) == ("it answered 503", 503, None)


def test_the_last_error_goes_when_the_circuit_closes() -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(1)))
    breaker.admit().failed(OSError("down"))
    breaker.admit(last_resort=True).succeeded()
    assert breaker.snapshot()["last_error"] is None


# --- pickling and copying ---------------------------------------------------------------------------------------------


def over_the_wire(error: BaseException) -> Any:
    return pickle.loads(pickle.dumps(error))  # noqa: S301 (written right here)


class UnreadableError(Exception):
    """Can be written and not be read: its arguments are others than those of its `__init__`."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(f"{code}: {text}")


def refusal(error: BaseException) -> CircuitOpen:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(1)), clock=Clock())
    breaker.admit().failed(error)
    try:
        breaker.admit()
    except CircuitOpen as refused:
        return refused
    raise AssertionError


def raise_refusal() -> None:
    class LocalError(Exception):
        """Cannot even be written."""

    raise refusal(LocalError("from far away"))


@pytest.mark.parametrize("error", [OSError(5, "input/output"), UnreadableError(7, "odd"), FailureReported("in words")])
@pytest.mark.parametrize("through", [over_the_wire, copy.copy, copy.deepcopy])
def test_a_refusal_can_be_pickled_and_copied_whatever_the_error(error: BaseException, through: Any) -> None:
    before = refusal(error)
    after = through(before)
    assert isinstance(after, CircuitOpen)
    assert str(after) == str(before)
    assert (after.name, after.retry_after, after.reason) == ("b", 30.0, Refusal.OPEN)


def test_a_refusal_arrives_from_a_process_pool() -> None:
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        with pytest.raises(CircuitOpen, match="LocalError: from far away"):
            pool.submit(raise_refusal).result(PATIENCE)
        assert pool.submit(int).result(PATIENCE) == 0, "the pool is not broken"


@pytest.mark.parametrize("through", [pickle.dumps, copy.copy, copy.deepcopy])
def test_circuits_and_permits_say_that_they_cannot_be_copied(through: Any) -> None:
    breaker = CircuitBreaker("b")
    for thing in (breaker, breaker.admit()):
        with pytest.raises(TypeError, match="neither copied nor pickled"):
            through(thing)


# --- functions of the wrong kind --------------------------------------------------------------------------------------


async def coroutine() -> int:
    return 1


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


MISUSES: dict[str, Callable[[CircuitBreaker], object]] = {
    "call": lambda breaker: breaker.call(coroutine),
    "call of a lambda": lambda breaker: breaker.call(lambda: coroutine()),
    "execute": lambda breaker: breaker.execute(coroutine),
    "decorated lambda": lambda breaker: breaker(lambda: coroutine())(),
    "generator function": lambda breaker: breaker.call(generator),
    "async generator function": lambda breaker: breaker.call(async_generator),
    "acall": lambda breaker: asyncio.run(breaker.acall(int)),  # type: ignore[arg-type]
    "aexecute": lambda breaker: asyncio.run(breaker.aexecute(int)),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("misuse", MISUSES)
@pytest.mark.parametrize("kind", ["steady", "probe", "rate"])
def test_a_function_of_the_wrong_kind_is_a_type_error_and_counts_nothing(misuse: str, kind: str, clock: Clock) -> None:
    rate = Policy(FailureRate(0.1, calls=5, minimum=1))
    breaker = half_open(clock) if kind == "probe" else CircuitBreaker("b", rate if kind == "rate" else Policy())
    for _ in range(10):
        with pytest.raises(TypeError, match=r"acall|decorate|call and execute"):
            MISUSES[misuse](breaker)
    assert (state(breaker), breaker.snapshot()["failures"]) == (
        State.HALF_OPEN if kind == "probe" else State.CLOSED,
        0,
    )
    assert breaker.admit().is_probe == (kind == "probe"), "the probe's place was given back"


def test_a_function_may_return_a_generator_that_it_has_prepared() -> None:
    breaker = CircuitBreaker("b")
    assert list(breaker.call(lambda: (number for number in range(3)))) == [0, 1, 2]


class Service:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(1)))

    @breaker
    @classmethod
    def made(cls, number: int) -> tuple[type, int]:
        return cls, number

    @breaker
    @staticmethod
    def still(number: int) -> int:
        return number

    @classmethod
    @breaker
    def inner(cls) -> type:
        return cls

    @breaker
    @classmethod
    async def later(cls) -> type:
        return cls

    @breaker
    @classmethod
    def fails(cls) -> None:
        raise OSError("down")


def test_class_and_static_methods_can_be_decorated() -> None:
    service: Any = Service()
    assert service.made(1) == Service.made(1) == (Service, 1)
    assert service.still(2) == Service.still(2) == 2
    assert service.inner() is Service
    assert asyncio.run(service.later()) is Service
    assert Service.breaker.state is State.CLOSED
    with pytest.raises(OSError, match="down"):
        service.fails()
    assert state(Service.breaker) is State.OPEN


@pytest.mark.parametrize("thing", [None, 5, "name", property(id)])
def test_what_cannot_be_called_is_a_type_error_at_decoration(thing: Any) -> None:
    with pytest.raises(TypeError, match="guards functions and methods"):
        CircuitBreaker("b")(thing)
    with pytest.raises(TypeError, match="guards functions and methods"):
        CircuitBreaker("b").guard()(thing)


@pytest.mark.parametrize("wrap", [lambda fn: fn, functools.partial], ids=["function", "partial"])
def test_a_generator_based_coroutine_is_a_coroutine_function(wrap: Callable[[Any], Any]) -> None:
    """`inspect` calls it a generator function; it is awaited, and it fails after its first step."""
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(2), recovery=Cooldown(10.0)), clock=(clock := Clock()))
    down = True

    @types.coroutine
    def old(answer: str) -> Generator[Any, Any, str]:
        yield from asyncio.sleep(0).__await__()
        if down:
            raise OSError("down")
        return answer

    guarded: Any = breaker(wrap(old))

    async def main() -> object:
        return await guarded("fine")

    for _ in range(2):
        with pytest.raises(OSError, match="down"):
            asyncio.run(main())
    with pytest.raises(CircuitOpen):
        asyncio.run(main())
    clock.now += 10.0
    with pytest.raises(OSError, match="down"):  # its first step is no success of a probe
        asyncio.run(main())
    assert state(breaker) is State.OPEN
    clock.now += 10.0
    down = False
    assert asyncio.run(main()) == "fine"
    assert state(breaker) is State.CLOSED
    assert asyncio.run(_acall(breaker, old)) == "fine"
    for call in (old, lambda answer: old(answer)):
        with pytest.raises(TypeError, match="acall"):
            breaker.call(call, "fine")
    assert breaker.snapshot()["failures"] == 0


async def _acall(breaker: CircuitBreaker, fn: Callable[..., Any]) -> object:
    return await breaker.acall(fn, "fine")


# --- event loops ------------------------------------------------------------------------------------------------------


def test_a_time_out_under_trio() -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(1), timeout=0.01))

    async def main() -> None:
        assert await breaker.acall(coroutine) == 1
        assert breaker.state is State.CLOSED
        with pytest.raises(TimeoutError):
            await breaker.acall(trio.sleep_forever)

    trio.run(main)
    assert state(breaker) is State.OPEN


def test_without_a_loop_a_time_out_says_so_at_once_and_counts_nothing() -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(1), timeout=1.0))
    call = breaker.acall(coroutine)
    with pytest.raises(TypeError, match="asyncio or trio"):
        call.send(None)
    assert (breaker.state, breaker.snapshot()["failures"]) == (State.CLOSED, 0)


# --- blocks that are left elsewhere -----------------------------------------------------------------------------------


def test_a_block_that_is_left_in_another_context_says_what_to_use() -> None:
    breaker = CircuitBreaker("b")

    def dependency() -> Iterator[None]:
        with breaker:
            yield

    steps = dependency()
    contextvars.copy_context().run(next, steps)
    with pytest.raises(RuntimeError, match=r"with breaker\.admit\(\)"):
        contextvars.copy_context().run(next, steps)


def test_many_permits_left_elsewhere_leave_nothing_behind() -> None:
    breaker = CircuitBreaker("b")
    for _ in range(100):
        permit = breaker.admit()
        permit.__enter__()
        contextvars.copy_context().run(permit.__exit__, None, None, None)
    depth, link = 0, breaker.admit().__enter__()
    while link is not None and depth < 1000:
        depth, link = depth + 1, link._outer  # type: ignore[assignment]
    assert depth == 1


# --- what is new ------------------------------------------------------------------------------------------------------


def test_failures_to_reopen(clock: Clock) -> None:
    breaker = half_open(clock, failures_to_reopen=3, max_probes=5, successes_to_close=2)
    for _ in range(2):
        breaker.admit().failed(OSError())
        assert breaker.state is State.HALF_OPEN
    breaker.admit().succeeded()
    breaker.admit().failed(OSError())
    assert state(breaker) is State.OPEN
    clock.now += 10.0
    breaker.admit().failed(OSError())
    assert state(breaker) is State.HALF_OPEN, "each half-open time begins anew"


def test_a_dry_run_admits_every_call_and_tells_what_it_would_have_done(clock: Clock) -> None:
    told: list[BreakerEvent] = []
    breaker = CircuitBreaker(
        "b", Policy(ConsecutiveFailures(2), Cooldown(10.0), dry_run=True), clock=clock, listeners=[told.append]
    )
    ran = 0

    def work() -> None:
        nonlocal ran
        ran += 1
        raise OSError("down")

    for _ in range(5):
        with pytest.raises(OSError, match="down"):
            breaker.call(work)
    assert ran == 5
    assert [type(event) for event in told] == [CallFailed, CallFailed, Transition, *[CallRefused] * 3]
    breaker.isolate()
    assert breaker.call(int) == 0
    assert breaker.snapshot()["dry_run"] is True
    breaker.reset()
    breaker.trip()
    clock.now += 10.0
    with pytest.raises(OSError, match="down"):
        breaker.call(work)
    assert state(breaker) is State.OPEN, "its probe failed"
    clock.now += 10.0
    breaker.call(int)
    assert state(breaker) is State.CLOSED


def test_a_dry_run_cancels_no_call_at_its_time_out() -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(1), timeout=0.001, dry_run=True))

    async def slow() -> str:
        await asyncio.sleep(0.05)
        return "late"

    assert asyncio.run(breaker.acall(slow)) == "late"
    assert breaker.state is State.OPEN, "it counted as a failure"


def test_a_guards_fallback_knows_the_calls_arguments() -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(2)), fallback=lambda *_: "the circuit's")

    def cached(error: BaseException, key: str, *, default: str) -> str:
        return f"{type(error).__name__} {key} {default}"

    @breaker.guard(fallback=cached)
    def get(key: str, *, default: str) -> str:
        raise OSError("down")

    async def acached(error: BaseException, key: str) -> str:
        return f"{type(error).__name__} {key}"

    @breaker.guard(fallback=acached)
    async def aget(key: str) -> str:
        return key

    assert get("a", default="x") == "OSError a x"
    assert get("b", default="y") == "OSError b y"
    assert get("c", default="z") == "CircuitOpen c z"
    assert asyncio.run(aget("d")) == "CircuitOpen d"
    with pytest.raises(TypeError, match="generator"):
        breaker.guard(fallback=cached)(generator)
    with pytest.raises(ValueError, match="fallback must be callable"):
        breaker.guard(fallback="cached")  # type: ignore[arg-type]


def test_a_refusal_says_why_as_a_field(clock: Clock) -> None:
    breaker = CircuitBreaker("b", Policy(recovery=Cooldown(10.0), ramp=60.0), clock=clock, random=lambda: 0.99)

    def why() -> Refusal:
        try:
            breaker.admit()
        except CircuitOpen as refused:
            return refused.reason
        raise AssertionError

    breaker.trip()
    assert why() is Refusal.OPEN
    breaker.isolate()
    assert why() is Refusal.ISOLATED
    breaker.reset()
    assert why() is Refusal.RAMPING
    breaker.trip()
    clock.now += 10.0
    permit = breaker.admit()
    assert isinstance(permit, Permit)
    assert why() is Refusal.PROBES_TAKEN


def test_the_failures_of_a_snapshot_grow_old_without_calls(clock: Clock) -> None:
    breaker = CircuitBreaker("b", Policy(FailureRate(0.9, seconds=30, minimum=10)), clock=clock)
    for _ in range(3):
        breaker.admit().failed(OSError())
    assert breaker.snapshot()["failures"] == 3
    clock.now += 31
    assert breaker.snapshot()["failures"] == 0


def test_importing_the_library_imports_no_event_loop_and_no_process_pool() -> None:
    code = "import sys, failover.breaker; print(sorted({'asyncio', 'trio', 'multiprocessing'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
