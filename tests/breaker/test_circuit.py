"""What must hold of a circuit that sync code goes through, each way in, alone and under fifty threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import inspect
import json
import logging
import pickle
import sys
import threading
import time
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, NamedTuple

import pytest

from failover.breaker import (
    FAILURE,
    NEUTRAL,
    SUCCESS,
    AfterCalls,
    BreakerEvent,
    CallFailed,
    CallRefused,
    CircuitBreaker,
    CircuitOpen,
    ConsecutiveFailures,
    Cooldown,
    FailureReported,
    Permit,
    Policy,
    State,
    Transition,
    Verdict,
    failures,
)
from failover.breaker.stores import open_store
from tests.breaker.circuits import PATIENCE, half_open, state, until_told
from tests.breaker.locks import recording
from tests.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


# --- the four ways through a circuit, as one: run(breaker, fn) calls fn and gives what it gives -----------------------

Run = Callable[[CircuitBreaker, Callable[[], Any]], Any]


def by_call(breaker: CircuitBreaker, fn: Callable[[], Any]) -> Any:
    return breaker.call(fn)


def by_decorator(breaker: CircuitBreaker, fn: Callable[[], Any]) -> Any:
    return breaker(fn)()


def by_block(breaker: CircuitBreaker, fn: Callable[[], Any]) -> Any:
    with breaker:
        return fn()


def by_permit(breaker: CircuitBreaker, fn: Callable[[], Any]) -> Any:
    permit = breaker.admit()
    try:
        result = fn()
    except BaseException as error:
        permit.failed(error)
        raise
    permit.succeeded()
    return result


WAYS = [by_call, by_decorator, by_block, by_permit]
every_way = pytest.mark.parametrize("run", WAYS)


def boom() -> None:
    raise OSError("down")


def fail(breaker: CircuitBreaker, times: int = 1, run: Run = by_call) -> None:
    for _ in range(times):
        with pytest.raises(OSError, match="down"):
            run(breaker, boom)


def raising(error: BaseException) -> Callable[[], Any]:
    def fn() -> Any:
        raise error

    return fn


# --- threads ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def eager_switching() -> Iterator[None]:
    """Threads change places as often as the interpreter lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run work(0) to work(count - 1) at once; raise what any of them raised."""
    errors: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(n,), daemon=True) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    if errors:
        broken = (threading.BrokenBarrierError,)  # what the others see when the first one fails
        raise next((error for error in errors if not isinstance(error, broken)), errors[0])
    assert not any(thread.is_alive() for thread in threads), "threads hang"


def others_may_use(breaker: CircuitBreaker) -> bool:
    """Whether another thread can use the circuit right now: not while this one holds the lock."""

    def take_the_lock() -> None:
        with breaker._lock:
            pass

    other = threading.Thread(target=take_the_lock, daemon=True)
    other.start()
    other.join(1.0)  # only a defect waits that long: what is not free at once is held by the thread that waits here
    return not other.is_alive()


# --- a call -----------------------------------------------------------------------------------------------------------


@every_way
def test_a_result_passes_through(run: Run) -> None:
    result = object()
    assert run(CircuitBreaker("b"), lambda: result) is result


@every_way
def test_the_threshold_opens_the_circuit_and_the_call_is_not_made(run: Run, clock: Clock) -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(3)), clock=clock)
    fail(breaker, 2, run)
    assert state(breaker) is State.CLOSED
    fail(breaker, 1, run)
    assert state(breaker) is State.OPEN
    clock.now += 10.0
    with pytest.raises(CircuitOpen) as refused:
        run(breaker, lambda: pytest.fail("called while open"))
    assert (refused.value.name, refused.value.retry_after) == ("b", 20.0)
    assert isinstance(refused.value.last_error, OSError)


@every_way
def test_a_success_forgets_the_failures_before_it(run: Run) -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(2)))
    for _ in range(5):
        fail(breaker, 1, run)
        run(breaker, lambda: None)
    assert state(breaker) is State.CLOSED
    assert breaker.snapshot()["failures"] == 0


@every_way
def test_a_whole_life(run: Run, clock: Clock) -> None:
    policy = Policy(ConsecutiveFailures(1), Cooldown(10.0, factor=2.0), successes_to_close=2)
    breaker = CircuitBreaker("b", policy, clock=clock)
    fail(breaker, 1, run)
    clock.now += 9.999
    with pytest.raises(CircuitOpen):
        run(breaker, boom)
    clock.now = 1010.0
    fail(breaker, 1, run)
    assert breaker.snapshot()["retry_after"] == 20.0
    clock.now += 20.0
    run(breaker, lambda: None)
    assert state(breaker) is State.HALF_OPEN
    run(breaker, lambda: None)
    assert state(breaker) is State.CLOSED
    assert breaker.snapshot()["opened"] == 2


@every_way
def test_an_exception_is_the_same_object_with_its_traceback(run: Run) -> None:
    error = OSError("down")
    with pytest.raises(OSError, match="down") as caught:
        run(CircuitBreaker("b"), raising(error))
    assert caught.value is error
    assert traceback.extract_tb(error.__traceback__)[-1].name == "fn"
    assert error.__cause__ is None
    assert error.__context__ is None


@pytest.mark.parametrize("timeout", [None, 5.0])
def test_arguments_named_like_our_parameters_arrive(timeout: float | None) -> None:
    def fn(*args: int, **kwargs: int) -> tuple[tuple[int, ...], dict[str, int]]:
        return args, kwargs

    breaker = CircuitBreaker("b", Policy(timeout=timeout))
    names: Any = {"self": 1, "fn": 2, "args": 3, "kwargs": 4, "record": 5, "name": 6}
    assert breaker.call(fn, 7, 8, **names) == ((7, 8), names)
    assert breaker(fn)(7, 8, **names) == ((7, 8), names)


def test_a_call_inside_a_call() -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(2)))
    assert breaker.call(lambda: breaker.call(lambda: 5)) == 5

    def outer() -> None:
        breaker.call(boom)

    with pytest.raises(OSError, match="down"):
        breaker.call(outer)
    assert breaker.snapshot()["failures"] == 1, "the two calls failed by one error"


@every_way
@pytest.mark.parametrize("inner", WAYS)
def test_a_call_inside_a_probe_is_part_of_it(run: Run, inner: Run, clock: Clock) -> None:
    breaker = half_open(clock)

    def probe() -> str:
        with pytest.raises(OSError, match="down"):
            inner(breaker, boom)
        assert state(breaker) is State.HALF_OPEN, "the outer call decides"
        return "done"

    if run is by_permit:  # a permit by itself is no call that others could be inside
        with pytest.raises(CircuitOpen):
            run(breaker, lambda: inner(breaker, int))
        return
    assert run(breaker, probe) == "done"
    assert state(breaker) is State.CLOSED


# --- the decorator ----------------------------------------------------------------------------------------------------


def test_a_decorated_function_keeps_its_face() -> None:
    breaker = CircuitBreaker("b")

    @breaker
    def fetch(url: str, *, tries: int = 3) -> str:
        """Fetch it."""
        return url * tries

    assert (fetch.__name__, fetch.__doc__) == ("fetch", "Fetch it.")
    assert str(inspect.signature(fetch)) == "(url: 'str', *, tries: 'int' = 3) -> 'str'"
    assert inspect.unwrap(fetch) is not fetch
    assert fetch("a", tries=2) == "aa"


def test_methods_static_methods_and_partials_can_be_decorated() -> None:
    breaker = CircuitBreaker("b")

    class Client:
        @breaker
        def get(self, n: int) -> tuple[Client, int]:
            return self, n

        @staticmethod
        @breaker
        def ping(n: int) -> int:
            return n

    client = Client()
    assert client.get(3) == (client, 3)
    assert Client.ping(4) == 4
    assert breaker(functools.partial(pow, 2))(5) == 32


class AwaitedObject:
    async def __call__(self) -> None: ...


class PlainObject:
    def __call__(self) -> int:
        return 5


async def coroutine() -> None: ...


def generator() -> Iterator[int]:
    yield 1


async def async_generator() -> AsyncIterator[int]:
    yield 1


@pytest.mark.parametrize(
    ("fn", "kind"),
    [
        (coroutine, inspect.iscoroutinefunction),
        (generator, inspect.isgeneratorfunction),
        (async_generator, inspect.isasyncgenfunction),
        (functools.partial(coroutine), inspect.iscoroutinefunction),
        (AwaitedObject(), inspect.iscoroutinefunction),
        (functools.partial(generator), inspect.isgeneratorfunction),
    ],
    ids=["coroutine", "generator", "async-generator", "partial", "object", "partial-generator"],
)
def test_a_decorated_function_stays_of_its_kind(fn: Callable[..., object], kind: Callable[[object], bool]) -> None:
    assert kind(CircuitBreaker("b")(fn))


def test_classes_and_callable_objects_are_decorated() -> None:
    breaker = CircuitBreaker("b")
    assert breaker(PlainObject())() == 5
    assert isinstance(breaker(AwaitedObject)(), AwaitedObject)


# --- blocks -----------------------------------------------------------------------------------------------------------


def test_nested_blocks_of_one_circuit_count_once() -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(2)))

    def nested() -> None:
        with breaker, breaker:
            boom()

    with pytest.raises(OSError, match="down"):
        nested()
    assert breaker.snapshot()["failures"] == 1


def test_nested_blocks_belong_each_to_its_own_era(clock: Clock) -> None:
    breaker = CircuitBreaker("b", Policy(recovery=Cooldown(10.0)), clock=clock)
    with breaker:  # admitted while closed
        breaker.trip()
        clock.now += 10.0
        with breaker, breaker:  # a probe, since the outer block is stale, and a block that is part of it
            assert state(breaker) is State.HALF_OPEN
        assert state(breaker) is State.CLOSED
        breaker.trip()
    assert state(breaker) is State.OPEN, "the outer block is late"


def test_blocks_of_several_circuits_may_be_left_in_any_order(clock: Clock) -> None:
    one, two, three = (half_open(clock) for _ in range(3))
    for breaker in (one, two, three):
        breaker.reset()
        breaker.trip()
    clock.now += 10.0

    def rows(breaker: CircuitBreaker) -> Iterator[int]:
        with breaker:
            yield 1
            yield 2

    readers = [rows(breaker) for breaker in (one, two, three, one)][:3]
    for reader in readers:
        assert next(reader) == 1
    assert [breaker.state for breaker in (one, two, three)] == [State.HALF_OPEN] * 3
    for at in (1, 0, 2):
        assert list(readers[at]) == [2]
    assert [breaker.state for breaker in (one, two, three)] == [State.CLOSED] * 3
    with pytest.raises(RuntimeError, match="not entered"):
        one.__exit__(None, None, None)


def test_a_block_left_without_being_entered_says_so() -> None:
    one, two = CircuitBreaker("one"), CircuitBreaker("two")
    with pytest.raises(RuntimeError, match="'one' was not entered"):
        one.__exit__(None, None, None)
    with two, pytest.raises(RuntimeError, match="'one' was not entered"):
        one.__exit__(None, None, None)


def test_blocks_of_different_contexts_do_not_mix(clock: Clock) -> None:
    """As tasks do: each has its own copy of the context."""
    breaker = half_open(clock)
    task = contextvars.copy_context()
    task.run(breaker.__enter__)  # the probe
    with pytest.raises(RuntimeError, match="not entered"):
        breaker.__exit__(None, None, None)
    assert state(breaker) is State.HALF_OPEN
    task.run(breaker.__exit__, None, None, None)
    assert state(breaker) is State.CLOSED


def test_a_refused_block_is_not_entered(clock: Clock) -> None:
    breaker = CircuitBreaker("b", clock=clock)
    breaker.trip()
    with pytest.raises(CircuitOpen), breaker:
        pytest.fail("entered while open")
    with pytest.raises(RuntimeError, match="not entered"):
        breaker.__exit__(None, None, None)


# --- permits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("first", ["succeeded", "failed", "released"])
@pytest.mark.parametrize("second", ["succeeded", "failed", "released"])
def test_a_permit_is_settled_once(first: str, second: str) -> None:
    def settle(permit: Permit, how: str) -> None:
        permit.failed(OSError()) if how == "failed" else getattr(permit, how)()

    permit = CircuitBreaker("b").admit()
    settle(permit, first)
    with pytest.raises(RuntimeError, match="settled before"):
        settle(permit, second)


def test_who_asks_while_it_is_closed_only_is_not_turned_away(clock: Clock) -> None:
    """As a read does with its attempts at one endpoint: giving up is no refusal, which `AfterCalls` would count."""
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(3), AfterCalls(1)), clock=clock)
    tries = 0
    while state(breaker) is State.CLOSED:
        tries += 1
        breaker.admit().failed(OSError("down"))
    assert tries == 3
    assert breaker.snapshot()["calls_left"] == 1
    with pytest.raises(CircuitOpen):
        breaker.admit()
    assert breaker.admit().is_probe


# --- the lock ---------------------------------------------------------------------------------------------------------


@every_way
@pytest.mark.parametrize("timeout", [None, 5.0])
def test_ten_calls_are_inside_at_once(run: Run, timeout: float | None) -> None:
    """No timing: were the lock held during a call, the ten would never meet."""
    breaker = CircuitBreaker("b", Policy(timeout=timeout))
    meeting = threading.Barrier(10)
    in_threads(10, lambda _: run(breaker, lambda: meeting.wait(PATIENCE)))
    assert breaker.snapshot()["failures"] == 0


@every_way
def test_probes_are_inside_at_once(run: Run, clock: Clock) -> None:
    breaker = half_open(clock, max_probes=10, successes_to_close=10)
    meeting = threading.Barrier(10)
    in_threads(10, lambda _: run(breaker, lambda: meeting.wait(PATIENCE)))
    assert state(breaker) is State.CLOSED


@every_way
@pytest.mark.parametrize("timeout", [None, 5.0])
@pytest.mark.parametrize("classify", [None, lambda outcome: FAILURE if isinstance(outcome, Exception) else SUCCESS])
def test_a_closed_circuit_takes_no_lock_while_nothing_fails(run: Run, timeout: float | None, classify: Any) -> None:
    policy = Policy(timeout=timeout, classify=classify) if classify else Policy(timeout=timeout)
    breaker = CircuitBreaker("b", policy)
    lock = recording(breaker)
    for _ in range(100):
        run(breaker, lambda: None)
    assert lock.taken == 0
    fail(breaker, 1, run)
    run(breaker, lambda: None)
    assert lock.taken == 4, "one for the failure, two to tell of it, one to forget it"
    run(breaker, lambda: None)
    assert lock.taken == 4


class TelltaleError(OSError):
    """An error that looks, when it is put into words, whether the lock is free."""

    def __init__(self, look: Callable[[object], object]) -> None:
        super().__init__()
        self.look = look

    def __str__(self) -> str:
        self.look(self)
        return "asked"


def test_no_code_of_the_user_runs_under_the_lock(clock: Clock) -> None:
    free: list[bool] = []  # an assertion in here would be caught and logged, as what a listener raises is

    def ask(_: object) -> Verdict:
        free.append(others_may_use(breaker))
        return FAILURE

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            ask(record)

    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(1), classify=ask), clock=clock, listeners=[ask])
    handler = Handler()
    logging.getLogger("failover.breaker").addHandler(handler)
    try:
        for run in (by_call, by_decorator, by_block):
            with pytest.raises(TelltaleError):
                run(breaker, raising(TelltaleError(ask)))
            breaker.reset()
        breaker.trip()
        with pytest.raises(CircuitOpen):
            breaker.call(boom)
        breaker.reset()
        breaker.call(lambda: "classified as a failure")
    finally:
        logging.getLogger("failover.breaker").removeHandler(handler)
    assert len(free) > 10
    assert all(free)


def test_a_decision_interrupted_by_another_of_the_same_thread_loses_neither(clock: Clock) -> None:
    """As when the garbage collector, in the middle of a decision, closes a generator that sits in a block."""
    interrupt: list[Callable[[], None]] = []

    def interrupted_clock() -> float:
        if interrupt:
            interrupt.pop()()
        return clock.now

    breaker = CircuitBreaker("b", Policy(recovery=Cooldown(10.0), max_probes=2), clock=interrupted_clock)
    breaker.trip()
    clock.now += 10.0
    one, two = breaker.admit(), breaker.admit()
    interrupt.append(two.released)
    in_threads(1, lambda _: one.released())  # in a thread, so that a deadlock fails the test and does not hang it
    assert not interrupt
    breaker.admit()
    breaker.admit()
    with pytest.raises(CircuitOpen):
        breaker.admit()


# --- half-open under threads ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("eager_switching")
@pytest.mark.parametrize("recovery", [Cooldown(10.0), AfterCalls(1)], ids=["cooldown", "after-calls"])
@pytest.mark.parametrize(("run", "probes"), [(by_call, 1), (by_decorator, 3), (by_block, 1), (by_permit, 3)])
def test_half_open_admits_exactly_so_many_of_fifty(
    run: Run, probes: int, recovery: Cooldown | AfterCalls, clock: Clock
) -> None:
    rounds = 25
    policy = Policy(recovery=recovery, max_probes=probes, successes_to_close=probes)
    breaker = CircuitBreaker("b", policy, clock=clock)
    admitted: list[int] = []
    counts: list[tuple[int, State]] = []

    def begin() -> None:
        admitted.clear()
        breaker.trip()
        clock.now += 10.0
        if isinstance(recovery, AfterCalls):
            with pytest.raises(CircuitOpen):
                breaker.admit()

    start = threading.Barrier(50, begin)
    # Those inside wait for those turned away: nobody leaves before all have asked, and nobody waits to be refused.
    all_asked = threading.Barrier(50)
    end = threading.Barrier(50, lambda: counts.append((len(admitted), breaker.state)))

    def work(number: int) -> None:
        def inside() -> None:
            admitted.append(number)
            all_asked.wait(PATIENCE)

        for _ in range(rounds):
            start.wait(PATIENCE)
            try:
                run(breaker, inside)
            except CircuitOpen:
                all_asked.wait(PATIENCE)
            except BaseException:
                start.abort()
                raise
            end.wait(PATIENCE)

    in_threads(50, work)
    assert counts == [(probes, State.CLOSED)] * rounds


@pytest.mark.usefixtures("eager_switching")
def test_of_fifty_at_once_exactly_twenty_are_turned_away_before_the_probe(clock: Clock) -> None:
    told: list[str] = []

    def note(event: BreakerEvent) -> None:
        told.append(event.new.value if isinstance(event, Transition) else "refused")

    breaker = CircuitBreaker("b", Policy(recovery=AfterCalls(20)), clock=clock, listeners=[note])
    all_asked = threading.Barrier(50)

    def work(_: int) -> None:
        for _ in range(20):
            start.wait(PATIENCE)
            try:
                breaker.call(all_asked.wait, PATIENCE)
            except CircuitOpen:
                all_asked.wait(PATIENCE)
            end.wait(PATIENCE)

    start = threading.Barrier(50, breaker.trip)
    rounds: list[list[str]] = []

    def note_round() -> None:
        until_told(breaker)
        rounds.append(told.copy())
        told.clear()

    end = threading.Barrier(50, note_round)
    in_threads(50, work)
    expected = ["open", *["refused"] * 20, "half-open", *["refused"] * 29, "closed"]
    assert rounds == [expected] * 20


@pytest.mark.usefixtures("eager_switching")
@every_way
def test_failures_are_counted_exactly_under_threads(run: Run) -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(10**6)))
    in_threads(10, lambda _: fail(breaker, 100, run))
    assert breaker.snapshot()["failures"] == 1000


# --- eras -------------------------------------------------------------------------------------------------------------


@every_way
def test_a_success_admitted_before_the_trip_does_not_close(run: Run) -> None:
    breaker = CircuitBreaker("b")
    run(breaker, breaker.trip)
    assert state(breaker) is State.OPEN


@every_way
def test_a_success_admitted_before_the_trip_is_no_probe(run: Run, clock: Clock) -> None:
    breaker = CircuitBreaker("b", Policy(recovery=Cooldown(10.0)), clock=clock)

    def slow() -> None:
        breaker.trip()
        clock.now += 10.0
        breaker.admit()

    run(breaker, slow)
    assert state(breaker) is State.HALF_OPEN


@every_way
def test_a_late_failure_does_not_lengthen_the_cooldown(run: Run, clock: Clock) -> None:
    told: list[BreakerEvent] = []
    breaker = CircuitBreaker("b", Policy(recovery=Cooldown(10.0, factor=2.0)), clock=clock, listeners=[told.append])

    def slow() -> None:
        breaker.trip()
        clock.now += 4.0
        boom()

    fail_slowly = pytest.raises(OSError, match="down")
    with fail_slowly:
        run(breaker, slow)
    assert breaker.snapshot()["retry_after"] == 6.0
    assert [type(event) for event in told] == [Transition], "a late failure is not recorded"


@every_way
def test_late_failures_after_recovery_do_not_trip(run: Run) -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(1)))

    def slow() -> None:
        breaker.trip()
        breaker.reset()
        boom()

    with pytest.raises(OSError, match="down"):
        run(breaker, slow)
    assert state(breaker) is State.CLOSED
    assert breaker.snapshot()["failures"] == 0


@every_way
def test_a_late_success_does_not_forget_failures_of_today(run: Run) -> None:
    breaker = CircuitBreaker("b")

    def slow() -> None:
        breaker.reset()
        fail(breaker)

    run(breaker, slow)
    assert breaker.snapshot()["failures"] == 1


@every_way
def test_a_success_forgets_what_failed_while_it_was_under_way(run: Run) -> None:
    breaker = CircuitBreaker("b")
    run(breaker, lambda: fail(breaker, 2))
    assert breaker.snapshot()["failures"] == 0


@every_way
def test_a_failed_probe_ends_the_era_of_its_fellows(run: Run, clock: Clock) -> None:
    breaker = half_open(clock, max_probes=2)
    fellow = breaker.admit()
    run(breaker, lambda: fellow.failed(OSError()))
    assert state(breaker) is State.OPEN


# --- neutral ----------------------------------------------------------------------------------------------------------

CANCELLATIONS = [
    asyncio.CancelledError,
    concurrent.futures.CancelledError,
    KeyboardInterrupt,
    SystemExit,
    GeneratorExit,
]


@every_way
@pytest.mark.parametrize("kind", CANCELLATIONS, ids=lambda kind: f"{kind.__module__}.{kind.__name__}")
def test_cancellation_is_neutral(run: Run, kind: type[BaseException], clock: Clock) -> None:
    def classify(outcome: object) -> Verdict:
        assert not isinstance(outcome, kind), "a classifier is never asked about cancellation"
        return FAILURE

    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(2), Cooldown(10.0), classify=classify), clock=clock)
    fail(breaker)
    with pytest.raises(kind):
        run(breaker, raising(kind()))
    assert breaker.snapshot()["failures"] == 1, "it counts neither way"
    breaker.trip()
    clock.now += 10.0
    for _ in range(3):
        with pytest.raises(kind):
            run(breaker, raising(kind()))
        assert state(breaker) is State.HALF_OPEN
    breaker.admit()  # the place was given back each time


@pytest.mark.parametrize("run", [by_call, by_decorator, by_block])
def test_an_error_classified_neutral_neither_closes_nor_opens(run: Run, clock: Clock) -> None:
    def classify(outcome: object) -> Verdict:
        return NEUTRAL if isinstance(outcome, KeyError) else FAILURE

    breaker = half_open(clock, classify=classify)
    for _ in range(3):
        with pytest.raises(KeyError):
            run(breaker, raising(KeyError("not there")))
        assert state(breaker) is State.HALF_OPEN
    fail(breaker, 1, run)
    assert state(breaker) is State.OPEN


@pytest.mark.parametrize("run", [by_call, by_decorator])
def test_results_are_classified_too(run: Run, clock: Clock) -> None:
    verdicts = {200: SUCCESS, 404: NEUTRAL, 503: FAILURE}
    breaker = half_open(clock, classify=lambda outcome: verdicts[outcome])
    assert run(breaker, lambda: 404) == 404
    assert state(breaker) is State.HALF_OPEN
    assert run(breaker, lambda: 503) == 503
    assert state(breaker) is State.OPEN
    last = breaker.snapshot()["last_error"]
    assert last == "the result was classified as a failure"
    clock.now += 10.0
    assert run(breaker, lambda: 200) == 200
    assert state(breaker) is State.CLOSED
    assert run(breaker, lambda: 503) == 503
    assert breaker.snapshot()["failures"] == 1
    assert run(breaker, lambda: 404) == 404
    assert breaker.snapshot()["failures"] == 1


@pytest.mark.parametrize("run", [by_call, by_decorator])
@pytest.mark.parametrize("timeout", [None, 5.0])
def test_results_that_are_not_plain_are_put_to_the_default_classifier(run: Run, timeout: float | None) -> None:
    breaker = CircuitBreaker("b", Policy(timeout=timeout))
    error = OSError("as an answer")
    assert run(breaker, lambda: error) is error
    assert breaker.snapshot()["failures"] == 1
    assert run(breaker, lambda: 503) == 503
    assert breaker.snapshot()["failures"] == 0


def test_what_is_taken_for_plain_is_a_success_to_the_default_classifier() -> None:
    """The circuit spares itself the question."""
    assert {failures.classify(kind()) for kind in failures.PLAIN if kind.__module__ == "builtins"} == {SUCCESS}


class Row(NamedTuple):
    number: int


class Reply(NamedTuple):
    status_code: int


@pytest.mark.parametrize("run", [by_call, by_decorator])
def test_a_type_is_taken_for_plain_once_it_is_known_to_say_nothing(run: Run) -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(3)))

    def lines() -> Iterator[int]:
        yield 1

    for _ in range(2):
        assert run(breaker, lambda: Row(503)) == (503,)
        assert run(breaker, lambda: Reply(503)) == (503,)
        with pytest.raises(TypeError, match="coroutine"):
            run(breaker, lambda: asyncio.sleep(0))
        assert list(run(breaker, lambda: lines())) == [1]
        asked = asyncio.run(breaker.acall(_gives_coroutine))
        asked.close()
    assert Row in failures.PLAIN
    assert not failures.PLAIN & {Reply, *failures.UNSTARTED}
    assert breaker.snapshot()["failures"] == 0, "the last one was a success"
    for _ in range(3):
        run(breaker, lambda: Reply(503))
    assert breaker.state is State.OPEN


async def _gives_coroutine() -> Any:
    return asyncio.sleep(0)


def test_a_released_permit_counts_neither_way(clock: Clock) -> None:
    breaker = half_open(clock)
    breaker.admit().released()
    assert state(breaker) is State.HALF_OPEN
    breaker.admit().succeeded()
    assert state(breaker) is State.CLOSED


# --- probes that hang -------------------------------------------------------------------------------------------------


def test_a_hung_probe_gives_up_its_place_after_its_lease(clock: Clock) -> None:
    breaker = half_open(clock, probe_lease=7.0)
    breaker.admit()
    clock.now += 6.999
    with pytest.raises(CircuitOpen):
        breaker.admit()
    clock.now = 1017.0
    breaker.admit().succeeded()
    assert state(breaker) is State.CLOSED


@pytest.mark.parametrize("how", ["succeeded", "failed", "released"])
def test_the_late_result_of_an_evicted_probe_is_ignored(how: str, clock: Clock) -> None:
    told: list[BreakerEvent] = []
    breaker = half_open(clock, probe_lease=7.0)
    hung = breaker.admit()
    clock.now += 7.0
    second = breaker.admit()
    breaker.subscribe(told.append)
    hung.failed(OSError("late")) if how == "failed" else getattr(hung, how)()
    assert state(breaker) is State.HALF_OPEN
    assert told == []
    with pytest.raises(CircuitOpen):
        breaker.admit()  # the second one's place was not given away
    second.succeeded()
    assert state(breaker) is State.CLOSED


def test_a_probe_that_outlived_its_lease_still_counts_if_nobody_took_its_place(clock: Clock) -> None:
    breaker = half_open(clock, probe_lease=7.0)
    slow = breaker.admit()
    clock.now += 100.0
    slow.succeeded()
    assert state(breaker) is State.CLOSED


# --- time -------------------------------------------------------------------------------------------------------------


@every_way
def test_an_answer_that_took_too_long_is_used_and_counts_as_a_failure(run: Run, clock: Clock) -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(1), timeout=2.0), clock=clock)

    def answers_after(seconds: float) -> str:
        clock.now += seconds
        return "answer"

    assert run(breaker, lambda: answers_after(2.0)) == "answer"
    assert state(breaker) is State.CLOSED, "exactly the timeout is not longer"
    assert run(breaker, lambda: answers_after(2.5)) == "answer"
    assert state(breaker) is State.OPEN
    assert breaker.snapshot()["last_error"] == "the answer took 2.5 s, over the policy's 2 s"


def test_the_caller_of_a_permit_may_have_measured_better(clock: Clock) -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(1), timeout=2.0), clock=clock)
    permit = breaker.admit()
    clock.now += 100.0
    permit.succeeded(1.5)
    assert state(breaker) is State.CLOSED
    breaker.admit().succeeded(2.5)
    assert state(breaker) is State.OPEN


@every_way
def test_a_slow_probe_does_not_close(run: Run, clock: Clock) -> None:
    breaker = half_open(clock, timeout=2.0)

    def slow() -> None:
        clock.now += 3.0

    run(breaker, slow)
    assert state(breaker) is State.OPEN


def test_the_wall_clock_may_be_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    breaker = CircuitBreaker("b", Policy(recovery=Cooldown(3600.0), timeout=3600.0))
    permit = breaker.admit()
    monkeypatch.setattr(time, "time", lambda: 9e9)
    monkeypatch.setattr(time, "time_ns", lambda: 9 * 10**18)
    permit.succeeded()
    assert breaker.snapshot()["failures"] == 0
    breaker.trip()
    monkeypatch.setattr(time, "time", lambda: 9e10)
    with pytest.raises(CircuitOpen) as refused:
        breaker.admit()
    assert refused.value.retry_after is not None
    assert 3500.0 < refused.value.retry_after <= 3600.0


def test_jitter_is_drawn_anew_for_each_opening(clock: Clock) -> None:
    drawn = iter([0.0, 0.5, 1.0])
    policy = Policy(recovery=Cooldown(10.0, jitter=0.2))
    breaker = CircuitBreaker("b", policy, clock=clock, random=lambda: next(drawn))
    waits = []
    for _ in range(3):
        breaker.trip()
        waits.append(breaker.snapshot()["retry_after"])
        breaker.reset()
    assert waits == pytest.approx([10.0, 9.0, 8.0])


@every_way
def test_exactly_twenty_calls_are_turned_away_between_probes(run: Run) -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(5), AfterCalls(20)))
    fail(breaker, 5, run)
    for _ in range(3):
        for left in range(20, 0, -1):
            assert breaker.snapshot()["calls_left"] == left
            with pytest.raises(CircuitOpen) as refused:
                run(breaker, lambda: pytest.fail("called while open"))
            assert refused.value.retry_after is None
        assert breaker.snapshot()["calls_left"] == 0
        fail(breaker, 1, run)  # the 21st is the probe
    for _ in range(20):
        with pytest.raises(CircuitOpen):
            run(breaker, boom)
    assert run(breaker, lambda: "back") == "back"
    assert state(breaker) is State.CLOSED
    assert breaker.snapshot()["calls_left"] is None


# --- by hand ----------------------------------------------------------------------------------------------------------


def test_isolated_is_open_until_reset(clock: Clock) -> None:
    breaker = half_open(clock)
    probe = breaker.admit()
    breaker.isolate()
    probe.succeeded()
    clock.now += 1e9
    breaker.trip()
    for _ in range(3):
        with pytest.raises(CircuitOpen) as refused:
            breaker.admit()
        assert refused.value.retry_after is None
    assert breaker.snapshot()["isolated"] is True
    breaker.reset()
    assert breaker.call(lambda: 5) == 5


def test_a_circuit_that_counts_calls_can_be_isolated() -> None:
    breaker = CircuitBreaker("b", Policy(recovery=AfterCalls(1)))
    breaker.isolate()
    for _ in range(5):
        with pytest.raises(CircuitOpen):
            breaker.admit()
    assert breaker.snapshot()["calls_left"] is None


def test_reset_forgets_everything_but_the_history(clock: Clock) -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(1), Cooldown(10.0, factor=2.0)), clock=clock)
    fail(breaker)
    breaker.reset()
    snapshot = breaker.snapshot()
    assert (snapshot["state"], snapshot["failures"], snapshot["last_error"], snapshot["opened"]) == (
        "closed",
        0,
        None,
        1,
    )
    fail(breaker)
    assert breaker.snapshot()["retry_after"] == 10.0, "the first cooldown again"


def test_a_snapshot_is_json_whatever_the_error_says(clock: Clock) -> None:
    breaker = CircuitBreaker("b\n\ud800", Policy(ConsecutiveFailures(1)), clock=clock)
    with pytest.raises(OSError, match="surrogate"):
        breaker.call(raising(OSError("surrogate \udcff \x00")))
    snapshot = breaker.snapshot()
    assert json.loads(json.dumps(snapshot, allow_nan=False)) == snapshot
    assert {"state", "failures", "threshold", "retry_after", "era", "opened"} <= set(snapshot)


def test_the_refusal_carries_what_the_caller_needs(clock: Clock) -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(1)), clock=clock)
    fail(breaker)
    with pytest.raises(CircuitOpen) as refused:
        breaker.admit()
    text = "circuit 'b' is open; the next call may be made in 30 s; the last failure: OSError: down"
    assert str(refused.value) == text
    copied = pickle.loads(pickle.dumps(refused.value))  # noqa: S301 (our own bytes)
    assert (str(copied), copied.name, copied.retry_after) == (text, "b", 30.0)
    assert repr(breaker) == "<CircuitBreaker 'b' open>"


# --- listeners --------------------------------------------------------------------------------------------------------


def test_events_say_what_happened_in_order(clock: Clock) -> None:
    told: list[BreakerEvent] = []
    policy = Policy(ConsecutiveFailures(2), Cooldown(10.0))
    breaker = CircuitBreaker("b", policy, clock=clock, listeners=[told.append])
    error = OSError("down")
    for _ in range(2):
        with pytest.raises(OSError, match="down"):
            breaker.call(raising(error))
    with pytest.raises(CircuitOpen):
        breaker.admit()
    clock.now += 10.0
    with pytest.raises(OSError, match="down"):
        breaker.call(raising(error))
    clock.now += 10.0
    breaker.call(lambda: None)
    breaker.trip()
    breaker.reset()
    breaker.isolate()
    closed, opened, half = State.CLOSED, State.OPEN, State.HALF_OPEN
    cooled = "the cooldown is over; the next call is the probe"
    assert told == [
        CallFailed("b", error, 1, 2),
        CallFailed("b", error, 2, 2),
        Transition("b", closed, opened, "2 failures in a row, the last: OSError: down"),
        CallRefused("b", 10.0, 2, 2),
        Transition("b", opened, half, cooled),
        CallFailed("b", error, 2, 2),
        Transition("b", half, opened, "the probe failed: OSError: down"),
        Transition("b", opened, half, cooled),
        Transition("b", half, closed, "the probe succeeded"),
        Transition("b", closed, opened, "tripped by hand"),
        Transition("b", opened, closed, "reset by hand"),
        Transition("b", closed, opened, "isolated by hand"),
    ]


@every_way
@pytest.mark.parametrize("kind", [ValueError, CircuitOpen, concurrent.futures.CancelledError])
def test_a_listener_that_raises_changes_nothing(
    run: Run, kind: type[Exception], clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[BreakerEvent] = []

    def broken(event: BreakerEvent) -> None:
        raise kind(f"cannot take {type(event).__name__}")

    policy = Policy(ConsecutiveFailures(1), Cooldown(10.0))
    breaker = CircuitBreaker("b", policy, clock=clock, listeners=[broken, told.append])
    fail(breaker, 1, run)
    with pytest.raises(CircuitOpen) as refused:
        run(breaker, boom)
    assert refused.value.name == "b"
    clock.now += 10.0
    assert run(breaker, lambda: 5) == 5
    assert state(breaker) is State.CLOSED
    assert len(told) == 5, "the next listener hears of it all the same"
    logged = [record for record in caplog.records if "a listener of circuit" in record.getMessage()]
    assert len(logged) == 5
    assert all(record.levelno == logging.ERROR for record in logged)
    assert "cannot take CallFailed" in logged[0].getMessage()
    assert "in broken" in logged[0].getMessage(), "with where it was raised"


def test_a_listener_may_use_the_circuit(clock: Clock) -> None:
    told: list[str] = []

    def meddle(event: BreakerEvent) -> None:
        told.append(type(event).__name__)
        if isinstance(event, CallFailed):
            assert state(breaker) is State.OPEN, "decided before it is told"
            with pytest.raises(CircuitOpen):
                breaker.call(boom)
        if isinstance(event, Transition) and event.new is State.OPEN:
            breaker.reset()

    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(1)), clock=clock, listeners=[meddle])
    in_threads(1, lambda _: fail(breaker))
    assert state(breaker) is State.CLOSED
    assert told == ["CallFailed", "Transition", "CallRefused", "Transition"]


def test_a_listener_that_interrupts_leaves_the_circuit_working(clock: Clock) -> None:
    told: list[BreakerEvent] = []
    interrupts = [KeyboardInterrupt()]

    def interrupted(_: BreakerEvent) -> None:
        if interrupts:
            raise interrupts.pop()

    breaker = CircuitBreaker("b", clock=clock, listeners=[told.append, interrupted])
    with pytest.raises(KeyboardInterrupt):
        breaker.trip()
    breaker.reset()
    assert [event.new for event in told if isinstance(event, Transition)] == [State.OPEN, State.CLOSED]


@pytest.mark.usefixtures("eager_switching")
def test_events_arrive_in_order_under_threads() -> None:
    told: list[BreakerEvent] = []
    alone = threading.Lock()

    def listen(event: BreakerEvent) -> None:
        assert alone.acquire(blocking=False), "two events are told at once"
        told.append(event)
        alone.release()

    errors: list[BaseException] = []

    def checked(event: BreakerEvent) -> None:
        try:
            listen(event)
        except AssertionError as error:
            errors.append(error)

    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(2), AfterCalls(1)), listeners=[checked])
    refusals: list[int] = []

    def work(number: int) -> None:
        for turn in range(60):  # fewer events than may wait
            try:
                breaker.call(boom if (turn + number) % 3 else int)
            except CircuitOpen:
                refusals.append(1)
            except OSError:
                pass

    in_threads(10, work)
    until_told(breaker)
    assert errors == []
    last = State.CLOSED
    for event in told:
        if isinstance(event, Transition):
            assert event.old is last
            last = event.new
    assert last is breaker.state
    assert breaker.snapshot()["opened"] == sum(isinstance(e, Transition) and e.new is State.OPEN for e in told)
    assert sum(isinstance(event, CallRefused) for event in told) == len(refusals), "each is told, and told once"
    failed = [event.failures for event in told if isinstance(event, CallFailed)]
    assert set(failed) == {1, 2}


def test_subscribing_takes_the_lock() -> None:
    """Else of two subscribers at once one is lost; too rarely to be caught by trying."""
    breaker = CircuitBreaker("b")
    lock = recording(breaker)
    told: list[BreakerEvent] = []
    breaker.subscribe(told.append)
    assert lock.taken == 1
    breaker.trip()
    assert len(told) == 1


# --- classifiers that fail --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("run", [by_call, by_decorator, by_block])
@pytest.mark.parametrize("given", [ValueError("confused"), None, "failure", True], ids=repr)
def test_a_classifier_that_raises_or_gives_no_verdict_leaves_it_to_the_default(
    run: Run, given: object, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def classify(_: object) -> Any:
        if isinstance(given, Exception):
            raise given
        return given

    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(2), Cooldown(10.0), classify=classify), clock=clock)
    fail(breaker, 1, run)
    assert run(breaker, lambda: 5) == 5
    assert breaker.snapshot()["failures"] == 0
    fail(breaker, 2, run)
    assert state(breaker) is State.OPEN
    clock.now += 10.0
    assert run(breaker, lambda: 5) == 5
    assert state(breaker) is State.CLOSED
    logged = [record for record in caplog.records if "the classifier of circuit" in record.getMessage()]
    assert len(logged) == (3 if run is by_block else 5)
    assert all(record.levelno == logging.ERROR for record in logged)


@pytest.mark.parametrize("run", [by_call, by_decorator])
def test_an_interrupted_classifier_gives_the_probes_place_back(run: Run, clock: Clock) -> None:
    def classify(_: object) -> Verdict:
        raise KeyboardInterrupt

    breaker = half_open(clock, classify=classify)
    with pytest.raises(KeyboardInterrupt):
        run(breaker, lambda: 5)
    assert state(breaker) is State.HALF_OPEN
    breaker.admit()


class UnspeakableError(OSError):
    def __str__(self) -> str:
        raise ValueError("cannot say")


@every_way
def test_an_error_that_cannot_be_put_into_words_counts_like_any_other(run: Run, clock: Clock) -> None:
    told: list[BreakerEvent] = []
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(1)), clock=clock, listeners=[told.append])
    with pytest.raises(UnspeakableError):
        run(breaker, raising(UnspeakableError()))
    assert state(breaker) is State.OPEN
    assert [type(event) for event in told] == [CallFailed, Transition]
    assert breaker.snapshot()["last_error"] == "UnspeakableError: its message cannot be shown"


# --- the log ----------------------------------------------------------------------------------------------------------


def test_the_log_is_as_designed(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(2), Cooldown(10.0), successes_to_close=2), clock=clock)
    breaker.call(lambda: None)
    fail(breaker, 2)
    with pytest.raises(CircuitOpen):
        breaker.admit()
    clock.now += 10.0
    breaker.call(lambda: None)
    breaker.call(lambda: None)
    assert {record.name for record in caplog.records} == {"failover.breaker"}
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", 'circuit "b": failure: OSError: down failure_count=1 threshold=2'),
        ("WARNING", 'circuit "b": failure: OSError: down failure_count=2 threshold=2'),
        ("ERROR", 'circuit "b": closed -> open: 2 failures in a row, the last: OSError: down'),
        ("WARNING", 'circuit "b": call refused: failure_count=2 threshold=2'),
        ("INFO", 'circuit "b": open -> half-open: the cooldown is over; the next call is the probe'),
        ("INFO", 'circuit "b": half-open -> closed: 2 probes succeeded'),
    ]


def test_the_log_of_a_circuit_that_counts_calls(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(1), AfterCalls(1)), clock=clock)
    breaker.admit().failed(FailureReported("the service answered 503"))
    with pytest.raises(CircuitOpen):
        breaker.admit()
    breaker.admit().failed(FailureReported("again 503"))
    breaker.trip()
    breaker.reset()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", 'circuit "b": failure: the service answered 503 failure_count=1 threshold=1'),
        ("ERROR", 'circuit "b": closed -> open: 1 failure: the service answered 503'),
        ("WARNING", 'circuit "b": call refused: failure_count=1 threshold=1'),
        ("INFO", 'circuit "b": open -> half-open: 1 call was turned away; the next is the probe'),
        ("WARNING", 'circuit "b": failure: again 503 failure_count=1 threshold=1'),
        ("ERROR", 'circuit "b": half-open -> open: the probe failed: again 503'),
        ("INFO", 'circuit "b": open -> closed: reset by hand'),
    ]


def test_a_refusal_is_logged_with_the_count_at_which_it_was_refused(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    def meddle(event: BreakerEvent) -> None:
        if isinstance(event, CallFailed):
            with pytest.raises(CircuitOpen):
                breaker.admit()
            breaker.reset()

    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(1)), clock=clock, listeners=[meddle])
    fail(breaker)
    assert 'circuit "b": call refused: failure_count=1 threshold=1' in caplog.messages


NASTY = "x\r\nERROR forged line\x1b[31m\x07\x00\x7f\x85\u2028\u202e\ud800"


def test_control_characters_never_reach_the_log(clock: Clock) -> None:
    lines: list[str] = []
    nasty_error = type(NASTY.replace("\x00", "").replace("\ud800", ""), (OSError,), {})

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    def broken(event: BreakerEvent) -> None:
        raise ValueError(f"{NASTY} in {event}")

    def classify(outcome: object) -> Verdict:
        raise ValueError(f"{NASTY} in {outcome}")

    handler = Handler()
    logger = logging.getLogger("failover.breaker")
    logger.addHandler(handler)
    level = logger.level
    logger.setLevel(logging.DEBUG)
    try:
        policy = Policy(ConsecutiveFailures(1), Cooldown(10.0), classify=classify)
        breaker = CircuitBreaker(NASTY, policy, clock=clock, listeners=[broken])
        for _ in range(2):
            with pytest.raises(nasty_error):
                breaker.call(raising(nasty_error(NASTY)))
            with pytest.raises(CircuitOpen):
                breaker.call(boom)
            clock.now += 10.0
        breaker.admit().failed(FailureReported(NASTY))
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert len(lines) > 12
    for text in lines:
        # Only where our own traceback begins and breaks is there a line break.
        assert text.replace("\n", "").isprintable()
        assert not any(line.startswith("ERROR") for line in text.splitlines())


def test_a_message_is_cut_where_it_gets_long(clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    breaker = CircuitBreaker("b", clock=clock)
    breaker.admit().failed(OSError("\n" * 10**6))
    assert len(caplog.messages[0]) < 300


def test_without_logging_set_up_nothing_is_printed() -> None:
    assert any(isinstance(handler, logging.NullHandler) for handler in logging.getLogger("failover.breaker").handlers)


@pytest.mark.parametrize("isolated", [False, True])
def test_a_refusal_that_nobody_hears_of_waits_for_no_lock(isolated: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("failover.breaker"), "propagate", False)  # pytest listens at the root
    breaker = CircuitBreaker("b", Policy(recovery=Cooldown(10.0)), clock=Clock())
    breaker.isolate() if isolated else breaker.trip()
    with concurrent.futures.ThreadPoolExecutor() as pool, breaker._lock, pytest.raises(CircuitOpen) as refused:
        pool.submit(breaker.call, int).result(PATIENCE)
    assert refused.value.retry_after == (None if isolated else 10.0)


# --- a permit as a block ----------------------------------------------------------------------------------------------


def test_a_permits_block_settles_by_how_it_ends() -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(5)))
    with breaker.admit() as permit:
        assert isinstance(permit, Permit)
    with pytest.raises(OSError, match="gone"), breaker.admit():
        raise OSError("gone")
    assert breaker.snapshot()["failures"] == 1
    with pytest.raises(KeyboardInterrupt), breaker.admit():
        raise KeyboardInterrupt
    assert breaker.snapshot()["failures"] == 1
    with breaker.admit():
        pass
    assert breaker.snapshot()["failures"] == 0


def test_a_permit_that_was_settled_by_hand_stays_so_at_the_end_of_its_block() -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(5)))
    with breaker.admit() as permit:
        permit.failed(OSError())
    assert breaker.snapshot()["failures"] == 1
    permit = breaker.admit()
    permit.released()
    with pytest.raises(ValueError, match="ours"), permit:
        raise ValueError("ours")
    assert breaker.snapshot()["failures"] == 1


def test_a_permits_block_may_end_in_another_context(clock: Clock) -> None:
    """As a FastAPI dependency does: what follows its `yield` runs in a context of its own."""
    breaker = CircuitBreaker("b", Policy(recovery=Cooldown(10.0)), clock=clock)
    breaker.trip()
    clock.now += 10.0

    def dependency() -> Iterator[Permit]:
        with breaker.admit() as permit:
            yield permit

    steps = dependency()
    contextvars.copy_context().run(next, steps)
    contextvars.copy_context().run(next, steps, None)
    assert breaker.state is State.CLOSED


# --- listeners that go, names that change -----------------------------------------------------------------------------


def test_an_unsubscribed_listener_hears_nothing_more() -> None:
    breaker = CircuitBreaker("b")
    first: list[BreakerEvent] = []
    second: list[BreakerEvent] = []
    breaker.subscribe(first.append)
    breaker.subscribe(second.append)
    breaker.trip()
    breaker.unsubscribe(first.append)  # as good as the one given: bound methods are made anew each time
    breaker.reset()
    assert (len(first), len(second)) == (1, 2)
    with pytest.raises(ValueError, match="not subscribed"):
        breaker.unsubscribe(first.append)


def test_calls_cost_no_lock_any_more_when_the_last_that_hears_each_is_gone() -> None:
    class Each:
        each_call = True

        def __init__(self) -> None:
            self.heard = 0

        def __call__(self, event: BreakerEvent) -> None:
            self.heard += 1

    breaker, each = CircuitBreaker("b"), Each()
    breaker.subscribe(each)
    breaker.call(int)
    breaker.unsubscribe(each)
    breaker.call(int)
    assert each.heard == 1


def test_the_owner_may_rename_a_circuit_and_all_that_it_says_follows(caplog: pytest.LogCaptureFixture) -> None:
    breaker = CircuitBreaker("unknown yet")
    told: list[BreakerEvent] = []
    breaker.subscribe(told.append)
    breaker.name = "https://a.example"
    assert breaker.name == breaker.snapshot()["name"] == "https://a.example"
    breaker.trip()
    with pytest.raises(CircuitOpen, match=r"https://a\.example"):
        breaker.admit()
    assert {event.name for event in told} == {"https://a.example"}
    assert "https://a.example" in caplog.text
    assert "unknown yet" not in caplog.text


def test_a_shared_circuit_keeps_its_name() -> None:
    breaker = CircuitBreaker("b", store=open_store("memory://named"))
    with pytest.raises(AttributeError, match="shared in a store"):
        breaker.name = "c"
    assert breaker.name == "b"


def test_a_circuit_keeps_its_policy() -> None:
    breaker = CircuitBreaker("b")
    with pytest.raises(AttributeError):
        breaker.policy = Policy(ConsecutiveFailures(1))  # type: ignore[misc]
