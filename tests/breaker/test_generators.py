"""Generators and async generators are guarded while they are iterated, not while they are made."""

from __future__ import annotations

import asyncio
import functools
import gc
import inspect
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from typing import Any

import pytest

from failover.breaker import (
    FAILURE,
    NEUTRAL,
    SUCCESS,
    CircuitBreaker,
    CircuitOpen,
    ConsecutiveFailures,
    Policy,
    State,
    Verdict,
    failures,
)
from tests.breaker.circuits import PATIENCE, half_open, state
from tests.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


def brittle() -> CircuitBreaker:
    """Opens at the first failure."""
    return CircuitBreaker("b", Policy(trip=ConsecutiveFailures(1)))


def failed_once() -> CircuitBreaker:
    """A success forgets its failure, another failure adds to it, what is neutral leaves it."""
    breaker = CircuitBreaker("b")
    breaker.admit().failed(OSError())
    return breaker


def numbers(last: int = 3, error: BaseException | None = None) -> Generator[int, Any, str]:
    """Gives 1 to `last`, then raises or returns."""
    yield from range(1, last + 1)
    if error is not None:
        raise error
    return "returned"


async def anumbers(last: int = 3, error: BaseException | None = None) -> AsyncGenerator[int, Any]:
    """Gives 1 to `last`, then raises or ends."""
    for number in range(1, last + 1):
        await asyncio.sleep(0)
        yield number
    if error is not None:
        raise error


class Driven:
    """An async generator, driven from sync code as a sync one: so one test does for both."""

    def __init__(self, loop: asyncio.AbstractEventLoop, generator: AsyncGenerator[Any, Any]) -> None:
        self.loop, self.generator = loop, generator

    def _run(self, step: Any) -> Any:
        async def stepped() -> Any:
            return await asyncio.wait_for(step, PATIENCE)

        try:
            return self.loop.run_until_complete(stepped())
        except StopAsyncIteration:
            raise StopIteration from None

    def __iter__(self) -> Driven:
        return self

    def __next__(self) -> Any:
        return self._run(self.generator.__anext__())

    def send(self, value: Any) -> Any:
        return self._run(self.generator.asend(value))

    def throw(self, error: BaseException) -> Any:
        return self._run(self.generator.athrow(error))

    def close(self) -> None:
        self._run(self.generator.aclose())


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.run_until_complete(loop.shutdown_asyncgens())
    loop.close()


Make = Callable[..., Any]


@pytest.fixture(params=["sync", "async"])
def make(request: pytest.FixtureRequest) -> Make:
    """make(breaker, sync function, async function, *arguments): one of the two, guarded and called."""
    if request.param == "sync":
        return lambda breaker, fn, _, *args: breaker(fn)(*args)
    loop = request.getfixturevalue("loop")
    return lambda breaker, _, afn, *args: Driven(loop, breaker(afn)(*args))


# --- an end -----------------------------------------------------------------------------------------------------------


def test_what_it_gives_arrives(make: Make) -> None:
    assert list(make(CircuitBreaker("b"), numbers, anumbers, 4)) == [1, 2, 3, 4]


def test_its_end_is_a_success(make: Make) -> None:
    breaker = failed_once()
    items = make(breaker, numbers, anumbers)
    assert [next(items) for _ in range(3)] == [1, 2, 3]
    assert breaker.snapshot()["failures"] == 1
    assert next(items, "end") == "end"
    assert breaker.snapshot()["failures"] == 0


def test_the_first_item_of_a_probe_is_its_success(make: Make, clock: Clock) -> None:
    """Of an endless feed nobody sees the end, and no reader needs to."""
    breaker = half_open(clock, trip=ConsecutiveFailures(1))
    items = make(breaker, numbers, anumbers, 3, OSError("broke off"))
    assert next(items) == 1
    assert state(breaker) is State.CLOSED
    with pytest.raises(OSError, match="broke off"):
        list(items)
    assert state(breaker) is State.CLOSED, "its result is known; the next one's counts"


def test_readers_that_break_early_let_a_circuit_recover(clock: Clock) -> None:
    breaker = half_open(clock, max_probes=1, successes_to_close=2)

    def feed() -> Generator[int, None, None]:
        number = 0
        while True:
            number += 1
            yield number

    for _ in range(2):
        for _ in breaker(feed)():
            break
    assert state(breaker) is State.CLOSED


def test_a_success_forgets_failures(make: Make) -> None:
    breaker = CircuitBreaker("b")
    breaker.admit().failed(OSError())
    list(make(breaker, numbers, anumbers))
    assert breaker.snapshot()["failures"] == 0


def test_an_empty_one_is_a_success(make: Make, clock: Clock) -> None:
    breaker = half_open(clock)
    assert list(make(breaker, numbers, anumbers, 0)) == []
    assert state(breaker) is State.CLOSED


@pytest.mark.parametrize("after", [0, 2])
def test_a_failure_half_way_counts(make: Make, after: int) -> None:
    breaker, error = brittle(), OSError("down")
    items = make(breaker, numbers, anumbers, after, error)
    for _ in range(after):
        next(items)
    assert state(breaker) is State.CLOSED
    with pytest.raises(OSError, match="down") as caught:
        next(items)
    assert caught.value is error
    assert state(breaker) is State.OPEN
    assert breaker.snapshot()["failures"] == 1
    assert next(items, "end") == "end"


def test_its_return_value_arrives() -> None:
    guarded = CircuitBreaker("b")(numbers)

    def outer() -> Generator[int, None, None]:
        came = yield from guarded(1)
        assert came == "returned"
        yield 100

    assert list(outer()) == [1, 100]


@pytest.mark.parametrize(
    ("verdict", "after"), [(SUCCESS, State.CLOSED), (FAILURE, State.OPEN), (NEUTRAL, State.HALF_OPEN)]
)
def test_its_return_value_is_classified(verdict: Verdict, after: State, clock: Clock) -> None:
    breaker = half_open(clock, classify=lambda outcome: verdict if outcome == "returned" else FAILURE)
    assert list(breaker(numbers)(0)) == []
    assert state(breaker) is after


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_classifier_gives_the_probes_place_back(kind: type[BaseException], clock: Clock) -> None:
    def interrupted(outcome: object) -> Verdict:
        raise kind

    breaker = half_open(clock, classify=interrupted)
    items = breaker(numbers)(0)
    with pytest.raises(kind):
        next(items)
    assert breaker.admit().is_probe


class Stop(BaseException):
    """As KeyboardInterrupt is, which would also stop the loop that drives an async generator."""


@pytest.mark.parametrize("error", [FileNotFoundError("no"), asyncio.CancelledError(), Stop()])
def test_errors_are_classified(make: Make, error: BaseException, clock: Clock) -> None:
    def classify(outcome: object) -> Verdict:
        return NEUTRAL if isinstance(outcome, FileNotFoundError) else failures.classify(outcome)

    breaker = half_open(clock, classify=classify)
    items = make(breaker, numbers, anumbers, 0, error)
    with pytest.raises(type(error)):
        next(items)
    assert state(breaker) is State.HALF_OPEN
    assert breaker.admit().is_probe


def test_its_time_is_its_readers_too(make: Make, clock: Clock) -> None:
    breaker = CircuitBreaker("b", Policy(trip=ConsecutiveFailures(1), timeout=1.0), clock=clock)
    for _ in make(breaker, numbers, anumbers):
        clock.now += 5.0
    assert state(breaker) is State.CLOSED


# --- a beginning ------------------------------------------------------------------------------------------------------


def test_one_that_is_never_started_admits_nothing(make: Make, clock: Clock) -> None:
    breaker = half_open(clock)
    made = make(breaker, numbers, anumbers)
    assert state(breaker) is State.OPEN
    made.close()
    del made
    gc.collect()
    assert (state(breaker), breaker.snapshot()["era"]) == (State.OPEN, 1)


def test_it_is_admitted_at_the_first_next(make: Make, clock: Clock) -> None:
    breaker = half_open(clock)
    first, second = make(breaker, numbers, anumbers), make(breaker, numbers, anumbers)
    assert state(breaker) is State.OPEN
    assert next(second) == 1
    assert state(breaker) is State.CLOSED
    breaker.isolate()
    with pytest.raises(CircuitOpen):
        next(first)
    assert list(second) == [2, 3]


def test_a_refusal_comes_at_the_first_next_and_nothing_is_run(make: Make) -> None:
    breaker = CircuitBreaker("b")
    breaker.isolate()
    ran: list[str] = []

    def fn() -> Generator[int, None, None]:
        ran.append("sync")
        yield 1

    async def afn() -> AsyncGenerator[int, None]:
        ran.append("async")
        yield 1

    items = make(breaker, fn, afn)
    with pytest.raises(CircuitOpen):
        next(items)
    assert ran == []


def test_a_value_sent_too_early_admits_nothing(make: Make, clock: Clock) -> None:
    breaker = half_open(clock)
    with pytest.raises(TypeError, match="just-started"):
        make(breaker, numbers, anumbers).send(1)
    assert state(breaker) is State.OPEN


def test_an_error_thrown_too_early_admits_nothing(make: Make, clock: Clock) -> None:
    breaker = half_open(clock)
    with pytest.raises(OSError, match="early"):
        make(breaker, numbers, anumbers).throw(OSError("early"))
    assert state(breaker) is State.OPEN


def test_arguments_that_do_not_fit_do_not_keep_the_probes_place(make: Make, clock: Clock) -> None:
    breaker = half_open(clock, classify=lambda _: NEUTRAL)
    with pytest.raises(TypeError, match="takes from 0 to 2 positional arguments"):
        next(make(breaker, numbers, anumbers, 1, None, "more"))
    assert breaker.admit().is_probe


def test_results_belong_to_the_era_of_the_first_next(make: Make, clock: Clock) -> None:
    breaker = CircuitBreaker("b", Policy(trip=ConsecutiveFailures(1)))
    old = make(breaker, numbers, anumbers, 1, OSError("late"))
    next(old)
    breaker.reset()
    with pytest.raises(OSError, match="late"):
        next(old)
    assert (state(breaker), breaker.snapshot()["failures"]) == (State.CLOSED, 0)


# --- an early end -----------------------------------------------------------------------------------------------------


def test_an_early_close_is_neutral(make: Make) -> None:
    breaker = failed_once()
    items = make(breaker, numbers, anumbers)
    assert next(items) == 1
    items.close()
    assert breaker.snapshot()["failures"] == 1


def test_closing_closes_the_one_within_before_it_returns(make: Make) -> None:
    ended: list[str] = []

    def fn() -> Generator[int, None, None]:
        try:
            yield 1
        finally:
            ended.append("sync")

    async def afn() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            await asyncio.sleep(0)
            ended.append("async")

    items = make(CircuitBreaker("b"), fn, afn)
    next(items)
    items.close()
    assert len(ended) == 1
    assert next(items, "end") == "end"


def test_a_failure_in_closing_counts(make: Make) -> None:
    def fn() -> Generator[int, None, None]:
        try:
            yield 1
        finally:
            raise OSError("in closing")

    async def afn() -> AsyncGenerator[int, None]:
        try:
            yield 1
        finally:
            raise OSError("in closing")

    breaker = brittle()
    items = make(breaker, fn, afn)
    next(items)
    with pytest.raises(OSError, match="in closing"):
        items.close()
    assert state(breaker) is State.OPEN


def test_one_that_will_not_close_says_so(make: Make) -> None:
    def fn() -> Generator[int, None, None]:
        try:
            yield 1
        except GeneratorExit:
            yield 2

    async def afn() -> AsyncGenerator[int, None]:
        try:
            yield 1
        except GeneratorExit:
            yield 2

    items = make(CircuitBreaker("b"), fn, afn)
    next(items)
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        items.close()


def test_a_loop_that_is_left_is_neutral() -> None:
    breaker = failed_once()
    for number in breaker(numbers)():
        assert number == 1
        break
    gc.collect()
    assert breaker.snapshot()["failures"] == 1


def test_a_garbage_collected_generator_is_neutral() -> None:
    breaker = failed_once()
    items = breaker(numbers)()
    next(items)
    own: list[Any] = [items]
    own.append(own)  # only the collector gets at it
    del items, own
    gc.collect()
    assert breaker.snapshot()["failures"] == 1


def test_a_garbage_collected_async_generator_is_neutral() -> None:
    breaker = failed_once()

    async def main() -> None:
        async for number in breaker(anumbers)():
            assert number == 1
            break
        gc.collect()
        await asyncio.sleep(0.01)  # the loop closes it in a task of its own
        assert breaker.snapshot()["failures"] == 1

    asyncio.run(main())


def test_an_async_generator_left_when_its_loop_ends_is_neutral() -> None:
    breaker = failed_once()
    kept = []

    async def main() -> None:
        items = breaker(anumbers)()
        kept.append(items)
        assert await items.__anext__() == 1

    asyncio.run(main())
    assert breaker.snapshot()["failures"] == 1


@pytest.mark.parametrize("items", [0, 1])
def test_a_cancelled_reader_is_neutral(items: int, clock: Clock) -> None:
    breaker = failed_once() if items else half_open(clock)
    before = breaker.snapshot()["failures"]

    async def waits() -> AsyncGenerator[int, None]:
        for item in range(items):
            yield item
        await asyncio.Event().wait()

    async def read() -> None:
        async for _ in breaker(waits)():
            pass

    async def main() -> None:
        task = asyncio.ensure_future(read())
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        assert breaker.snapshot()["failures"] == before
        assert breaker.admit().is_probe == (not items)

    asyncio.run(main())


# --- send and throw ---------------------------------------------------------------------------------------------------


def echo() -> Generator[Any, Any, None]:
    got = "started"
    while got != "end":
        try:
            got = yield got
        except ValueError as error:
            got = f"caught {error}"


async def aecho() -> AsyncGenerator[Any, Any]:
    got = "started"
    while got != "end":
        try:
            got = yield got
        except ValueError as error:
            got = f"caught {error}"


def test_what_is_sent_and_thrown_arrives(make: Make) -> None:
    breaker = brittle()
    items = make(breaker, echo, aecho)
    assert next(items) == "started"
    assert items.send("one") == "one"
    assert items.throw(ValueError("two")) == "caught two"
    assert items.throw(ValueError("three")) == "caught three"
    assert next(items) is None
    with pytest.raises(StopIteration):
        items.send("end")
    assert state(breaker) is State.CLOSED


def test_a_generator_that_ends_when_thrown_at_is_a_success(make: Make, clock: Clock) -> None:
    def fn() -> Generator[int, None, None]:
        try:
            yield 1
        except ValueError:
            return

    async def afn() -> AsyncGenerator[int, None]:
        try:
            yield 1
        except ValueError:
            return

    breaker = half_open(clock)
    items = make(breaker, fn, afn)
    next(items)
    with pytest.raises(StopIteration):
        items.throw(ValueError())
    assert state(breaker) is State.CLOSED


def test_a_thrown_error_that_it_does_not_catch_comes_back(make: Make) -> None:
    breaker, error = brittle(), OSError("thrown")
    items = make(breaker, echo, aecho)
    next(items)
    with pytest.raises(OSError, match="thrown") as caught:
        items.throw(error)
    assert caught.value is error
    assert state(breaker) is State.OPEN


def test_a_cancellation_thrown_in_is_neutral(make: Make) -> None:
    breaker = failed_once()
    items = make(breaker, echo, aecho)
    next(items)
    with pytest.raises(asyncio.CancelledError):
        items.throw(asyncio.CancelledError())
    assert breaker.snapshot()["failures"] == 1


# --- what it looks like -----------------------------------------------------------------------------------------------


class Source:
    def numbers(self, last: int) -> Generator[int, None, None]:
        """Gives numbers."""
        yield from range(last)

    async def anumbers(self, last: int) -> AsyncGenerator[int, None]:
        """Gives numbers."""
        for number in range(last):
            yield number

    def __call__(self) -> Generator[str, None, None]:
        yield "called"


def test_a_decorated_generator_keeps_its_face_and_kind() -> None:
    breaker = CircuitBreaker("b")
    for name, kind in (("numbers", inspect.isgeneratorfunction), ("anumbers", inspect.isasyncgenfunction)):
        guarded = breaker(getattr(Source, name))
        assert kind(guarded)
        assert (guarded.__name__, guarded.__doc__) == (name, "Gives numbers.")
        assert list(inspect.signature(guarded).parameters) == ["self", "last"]
    assert list(breaker(Source().numbers)(2)) == [0, 1]
    assert list(breaker(functools.partial(Source.numbers, Source()))(3)) == [0, 1, 2]
    called: Any = breaker(Source())
    assert inspect.isgeneratorfunction(called)
    assert list(called()) == ["called"]


def test_fifty_generators_at_once_leave_one_probe(clock: Clock) -> None:
    breaker = half_open(clock)

    async def read() -> int:
        return len([number async for number in breaker(anumbers)()])

    async def main() -> None:
        ended = await asyncio.gather(*(read() for _ in range(50)), return_exceptions=True)
        refused = sum(isinstance(result, CircuitOpen) for result in ended)
        assert ended.count(3) == 50 - refused
        assert refused == 49, "all asked before the first had come"

    asyncio.run(main())
    assert state(breaker) is State.CLOSED
