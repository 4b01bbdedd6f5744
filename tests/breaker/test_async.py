"""What must hold of a circuit that coroutines go through, each way in, alone and with fifty tasks at once."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextvars
import functools
import gc
import inspect
import sys
import threading
import traceback
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from failover.breaker import (
    FAILURE,
    NEUTRAL,
    AfterCalls,
    CallFailed,
    CircuitBreaker,
    CircuitOpen,
    ConsecutiveFailures,
    Cooldown,
    FailureRate,
    Policy,
    State,
    Verdict,
    failures,
)
from tests.breaker.circuits import PATIENCE, half_open, state
from tests.clock import Clock

Work = Callable[[], Awaitable[Any]]
Run = Callable[[CircuitBreaker, Work], Coroutine[Any, Any, Any]]


async def by_acall(breaker: CircuitBreaker, fn: Work) -> Any:
    return await breaker.acall(fn)


async def by_decorator(breaker: CircuitBreaker, fn: Work) -> Any:
    return await breaker(fn)()


async def by_block(breaker: CircuitBreaker, fn: Work) -> Any:
    async with breaker:
        return await fn()


async def by_sync_block(breaker: CircuitBreaker, fn: Work) -> Any:
    with breaker:
        return await fn()


async def by_aexecute(breaker: CircuitBreaker, fn: Work) -> Any:
    return await breaker.aexecute(fn)


async def by_permit(breaker: CircuitBreaker, fn: Work) -> Any:
    permit = breaker.admit()
    try:
        result = await fn()
    except BaseException as error:
        permit.failed(error)
        raise
    permit.succeeded()
    return result


WAYS: list[Run] = [by_acall, by_decorator, by_block, by_sync_block, by_aexecute, by_permit]
every_way = pytest.mark.parametrize("run", WAYS)
# Those that can cancel what they run, and that see its result.
calling_ways = pytest.mark.parametrize("run", [by_acall, by_decorator, by_aexecute])


@pytest.fixture
def clock() -> Clock:
    return Clock()


def in_loop(main: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(asyncio.wait_for(main, PATIENCE))


async def boom() -> None:
    raise OSError("down")


async def good() -> str:
    return "answer"


async def fail(breaker: CircuitBreaker, times: int = 1, run: Run = by_acall) -> None:
    for _ in range(times):
        with pytest.raises(OSError, match="down"):
            await run(breaker, boom)


async def turns(count: int = 5) -> None:
    """Let all other tasks run until they wait."""
    for _ in range(count):
        await asyncio.sleep(0)


# --- a whole life -----------------------------------------------------------------------------------------------------


@every_way
def test_a_whole_life(run: Run, clock: Clock) -> None:
    breaker = CircuitBreaker("b", Policy(recovery=Cooldown(10.0)), clock=clock)
    made = 0

    async def counted() -> str:
        nonlocal made
        made += 1
        return "answer"

    async def main() -> None:
        assert await run(breaker, counted) == "answer"
        await fail(breaker, 4, run)
        assert await run(breaker, counted) == "answer"
        await fail(breaker, 4, run)
        assert state(breaker) is State.CLOSED
        await fail(breaker, 1, run)
        assert state(breaker) is State.OPEN
        with pytest.raises(CircuitOpen) as refusal:
            await run(breaker, counted)
        assert (refusal.value.retry_after, str(refusal.value.last_error)) == (10.0, "down")
        assert made == 2
        clock.now += 10.0
        await fail(breaker, 1, run)
        assert state(breaker) is State.OPEN
        clock.now += 10.0
        assert await run(breaker, counted) == "answer"
        assert state(breaker) is State.CLOSED

    in_loop(main())


@pytest.mark.parametrize("timeout", [None, 5.0])
@every_way
def test_an_exception_is_the_same_object_with_its_traceback(run: Run, timeout: float | None) -> None:
    breaker = CircuitBreaker("b", Policy(timeout=timeout))
    error = OSError("down")

    async def deep() -> None:
        raise error

    async def shallow() -> None:
        await deep()

    with pytest.raises(OSError, match="down") as caught:
        in_loop(run(breaker, shallow))
    assert caught.value is error
    assert [frame.name for frame in traceback.extract_tb(error.__traceback__)][-2:] == ["shallow", "deep"]
    assert (error.__cause__, error.__context__) == (None, None)


@pytest.mark.parametrize("timeout", [None, 5.0])
def test_arguments_named_like_our_parameters_arrive(timeout: float | None) -> None:
    breaker = CircuitBreaker("b", Policy(timeout=timeout))

    async def echo(*args: Any, **kwargs: Any) -> Any:
        return args, kwargs

    async def main() -> None:
        names = {"fn": 1, "self": 2, "breaker": 3, "on_open": 4}
        assert await breaker.acall(echo, 0, **names) == ((0,), names)
        assert await breaker(echo)(0, **names) == ((0,), names)

    in_loop(main())


def test_a_decorated_coroutine_function_keeps_its_face() -> None:
    breaker = CircuitBreaker("b")

    class Client:
        @breaker
        async def read(self, name: str) -> tuple[object, str]:
            """Reads."""
            return self, name

        @staticmethod
        @breaker
        async def fixed() -> str:
            return "fixed"

    assert inspect.iscoroutinefunction(Client.read)
    assert (Client.read.__name__, Client.read.__doc__) == ("read", "Reads.")
    assert list(inspect.signature(Client.read).parameters) == ["self", "name"]
    client = Client()
    assert in_loop(client.read("x")) == (client, "x")
    assert in_loop(Client.fixed()) == "fixed"
    assert in_loop(breaker(functools.partial(client.read, "y"))()) == (client, "y")


@pytest.mark.parametrize("timeout", [None, 5.0])
def test_what_raises_before_it_can_be_awaited_is_a_failure(timeout: float | None, clock: Clock) -> None:
    def raises() -> Awaitable[None]:
        raise OSError("down")

    breaker = half_open(clock, timeout=timeout)
    with pytest.raises(OSError, match="down"):
        in_loop(breaker.acall(raises))
    assert state(breaker) is State.OPEN


@calling_ways
def test_results_are_classified(run: Run, clock: Clock) -> None:
    def classify(outcome: object) -> Verdict:
        return {"bad": FAILURE, "nothing": NEUTRAL}.get(str(outcome), Verdict.SUCCESS)

    async def main() -> None:
        for answer, after in (("nothing", State.HALF_OPEN), ("bad", State.OPEN), ("good", State.CLOSED)):
            breaker = half_open(clock, classify=classify)

            async def fn(answer: str = answer) -> str:
                return answer

            assert await run(breaker, fn) == answer
            assert state(breaker) is after
        breaker = CircuitBreaker("b", Policy(classify=classify, trip=ConsecutiveFailures(1)))

        async def bad() -> str:
            return "bad"

        assert await run(breaker, bad) == "bad"
        assert state(breaker) is State.OPEN

    in_loop(main())


# --- half-open --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probes", [1, 3])
@every_way
def test_half_open_admits_exactly_so_many_of_fifty_tasks(run: Run, probes: int, clock: Clock) -> None:
    breaker = half_open(clock, max_probes=probes, successes_to_close=probes)
    inside = 0

    async def main() -> None:
        gate = asyncio.Event()

        async def probe() -> str:
            nonlocal inside
            inside += 1
            await gate.wait()
            return "answer"

        tasks = [asyncio.ensure_future(run(breaker, probe)) for _ in range(50)]
        await turns()
        # The rest have been refused at once: they wait for nobody.
        assert (inside, sum(task.done() for task in tasks)) == (probes, 50 - probes)
        assert state(breaker) is State.HALF_OPEN
        gate.set()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert sum(result == "answer" for result in ended) == probes
        assert sum(isinstance(result, CircuitOpen) for result in ended) == 50 - probes
        assert (inside, state(breaker)) == (probes, State.CLOSED)

    in_loop(main())


def test_of_fifty_tasks_exactly_twenty_are_turned_away_before_the_probe() -> None:
    breaker = CircuitBreaker("b", Policy(recovery=AfterCalls(20)))
    breaker.trip()

    async def main() -> None:
        order: list[str] = []
        gate = asyncio.Event()

        async def probe() -> None:
            order.append("probe")
            await gate.wait()

        async def one() -> None:
            try:
                await breaker.acall(probe)
            except CircuitOpen:
                order.append("refused")

        tasks = [asyncio.ensure_future(one()) for _ in range(50)]
        await turns()
        assert order == ["refused"] * 20 + ["probe"] + ["refused"] * 29
        gate.set()
        await asyncio.gather(*tasks)

    in_loop(main())


def test_fifty_tasks_are_inside_a_closed_circuit_at_once() -> None:
    breaker = CircuitBreaker("b", Policy(timeout=PATIENCE))
    inside = 0

    async def main() -> None:
        gate = asyncio.Event()

        async def work() -> None:
            nonlocal inside
            inside += 1
            if inside == 50:
                gate.set()
            await gate.wait()

        await asyncio.gather(*(breaker.acall(work) for _ in range(50)))

    in_loop(main())
    assert inside == 50


# --- cancellation -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [None, 5.0])
@every_way
def test_cancellation_is_neutral_and_gives_the_place_back(run: Run, timeout: float | None, clock: Clock) -> None:
    breaker = half_open(clock, timeout=timeout)

    async def main() -> None:
        probe = asyncio.ensure_future(run(breaker, asyncio.Event().wait))
        await turns()
        with pytest.raises(CircuitOpen):
            await run(breaker, good)
        probe.cancel()
        with pytest.raises(asyncio.CancelledError):
            await probe
        assert state(breaker) is State.HALF_OPEN
        assert await run(breaker, good) == "answer"
        assert state(breaker) is State.CLOSED

    in_loop(main())


@pytest.mark.parametrize(
    "kind",
    [asyncio.CancelledError, concurrent.futures.CancelledError, KeyboardInterrupt, SystemExit, GeneratorExit],
)
@every_way
def test_whatever_stops_the_caller_counts_neither_way(run: Run, kind: type[BaseException], clock: Clock) -> None:
    async def stop() -> None:
        raise kind

    strict: dict[str, Any] = {"classify": lambda _: FAILURE}  # never asked about these
    closed = CircuitBreaker("b", Policy(trip=ConsecutiveFailures(1), **strict))
    for breaker in (half_open(clock, **strict), closed):
        before = breaker.snapshot()["opened"]
        coroutine = run(breaker, stop)
        with pytest.raises(kind):  # by hand: a loop would be stopped by some of these
            coroutine.send(None)
        assert state(breaker) is not State.OPEN
        assert breaker.snapshot()["opened"] == before
        assert breaker.admit() is not None


def test_a_cancelled_call_leaves_the_count_as_it_was() -> None:
    breaker = CircuitBreaker("b")

    async def main() -> None:
        await fail(breaker, 3)
        task = asyncio.ensure_future(breaker.acall(asyncio.Event().wait))
        await turns()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    in_loop(main())
    assert breaker.snapshot()["failures"] == 3


# --- late results -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends_well", [True, False])
@every_way
def test_results_belong_to_the_era_in_which_they_were_admitted(run: Run, ends_well: bool, clock: Clock) -> None:
    breaker = CircuitBreaker("b", Policy(recovery=Cooldown(10.0)), clock=clock)

    async def main() -> None:
        gate = asyncio.Event()

        async def late() -> None:
            await gate.wait()
            if not ends_well:
                raise OSError("late")

        old = [asyncio.ensure_future(run(breaker, late)) for _ in range(10)]
        await turns()
        breaker.trip()
        clock.now += 4.0
        gate.set()
        await asyncio.wait(old)
        assert (state(breaker), breaker.snapshot()["retry_after"]) == (State.OPEN, 6.0)
        gate.clear()
        clock.now += 6.0
        assert await run(breaker, good) == "answer"
        old = [asyncio.ensure_future(run(breaker, late)) for _ in range(10)]
        await turns()
        breaker.reset()
        await fail(breaker, 3, run)
        gate.set()
        await asyncio.wait(old)
        assert (state(breaker), breaker.snapshot()["failures"]) == (State.CLOSED, 3)

    in_loop(main())


@every_way
def test_a_hung_probe_gives_up_its_place_after_its_lease(run: Run, clock: Clock) -> None:
    breaker = half_open(clock, probe_lease=7.0)

    async def main() -> None:
        hung = asyncio.ensure_future(run(breaker, asyncio.Event().wait))
        await turns()
        clock.now += 6.5
        with pytest.raises(CircuitOpen):
            await run(breaker, good)
        clock.now += 0.5
        assert await run(breaker, good) == "answer"
        assert state(breaker) is State.CLOSED
        hung.cancel()
        await asyncio.wait([hung])

    in_loop(main())


@every_way
def test_a_loop_closed_with_probes_in_flight_leaves_no_place_taken(
    run: Run, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    breaker = half_open(clock, probe_lease=7.0, max_probes=2, successes_to_close=1)
    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda *_: None)  # it would say that tasks were destroyed
    tasks: list[asyncio.Future[Any]] = []

    async def main() -> None:
        tasks.extend(asyncio.ensure_future(run(breaker, asyncio.Event().wait)) for _ in range(2))
        await turns()

    loop.run_until_complete(main())
    loop.close()
    with pytest.raises(CircuitOpen):
        in_loop(run(breaker, good))
    clock.now += 7.0
    assert in_loop(run(breaker, good)) == "answer"
    assert state(breaker) is State.CLOSED
    tasks.clear()
    unraisable: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", unraisable.append)
    gc.collect()  # closes the coroutines, whose late end changes nothing
    monkeypatch.undo()
    assert not unraisable
    assert (state(breaker), breaker.snapshot()["failures"]) == (State.CLOSED, 0)


def test_a_coroutine_that_is_thrown_away_gives_its_place_back_at_once(clock: Clock) -> None:
    breaker = half_open(clock)
    waits = breaker.acall(asyncio.sleep, 0)
    contextvars.copy_context().run(waits.send, None)  # as a task does; here we are outside of it
    with pytest.raises(CircuitOpen):
        breaker.admit()
    waits.close()
    assert breaker.admit().is_probe


@every_way
def test_a_coroutine_that_is_never_started_admits_nothing(run: Run, clock: Clock) -> None:
    breaker = half_open(clock)
    run(breaker, good).close()
    assert state(breaker) is State.OPEN
    assert breaker.admit().is_probe


# --- Policy.timeout ---------------------------------------------------------------------------------------------------

SHORT = 0.01  # real seconds: the loop's own clock cancels


@calling_ways
def test_a_call_is_cancelled_at_the_timeout_and_is_a_failure(run: Run) -> None:
    told: list[object] = []
    breaker = CircuitBreaker("b", Policy(timeout=SHORT, trip=ConsecutiveFailures(1)), listeners=[told.append])
    ended: list[str] = []

    async def hangs() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await run(breaker, hangs)
        await asyncio.sleep(0)  # the caller was not cancelled

    in_loop(main())
    assert (ended, state(breaker)) == (["cancelled"], State.OPEN)
    assert isinstance(told[0], CallFailed)
    assert isinstance(told[0].error, TimeoutError)


@calling_ways
def test_a_probe_that_is_cancelled_at_the_timeout_opens_the_circuit_again(run: Run, clock: Clock) -> None:
    breaker = half_open(clock, timeout=SHORT)
    with pytest.raises(TimeoutError):
        in_loop(run(breaker, asyncio.Event().wait))
    assert (state(breaker), breaker.snapshot()["opened"]) == (State.OPEN, 2)


@calling_ways
def test_an_answer_in_time_leaves_no_timer_behind(run: Run) -> None:
    breaker = CircuitBreaker("b", Policy(timeout=2 * SHORT))

    async def main() -> None:
        assert await run(breaker, good) == "answer"
        await asyncio.sleep(4 * SHORT)  # would be cancelled

    in_loop(main())


@calling_ways
def test_a_cancellation_from_outside_stays_one(run: Run) -> None:
    breaker = CircuitBreaker("b", Policy(timeout=PATIENCE, trip=ConsecutiveFailures(1)))

    async def main() -> None:
        task = asyncio.ensure_future(run(breaker, asyncio.Event().wait))
        await turns()
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    in_loop(main())
    assert state(breaker) is State.CLOSED


@calling_ways
def test_a_cancellation_that_comes_with_the_answer_is_not_lost(run: Run) -> None:
    """As it was with the `wait_for` of 3.10: the task went on as if nobody had cancelled it."""
    breaker = CircuitBreaker("b", Policy(timeout=PATIENCE))

    async def main() -> None:
        answered: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(run(breaker, lambda: answered))
        await turns()
        answered.set_result("answer")
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    in_loop(main())


@calling_ways
def test_a_timeout_of_the_calls_own_passes_through(run: Run) -> None:
    breaker = CircuitBreaker("b", Policy(timeout=PATIENCE, trip=ConsecutiveFailures(1)))
    own = asyncio.TimeoutError("the call's own")

    async def times_out() -> None:
        raise own

    with pytest.raises(asyncio.TimeoutError) as caught:
        in_loop(run(breaker, times_out))
    assert caught.value is own
    assert state(breaker) is State.OPEN


@calling_ways
def test_a_call_that_does_not_let_itself_be_cancelled_is_used_and_counts_as_too_slow(run: Run, clock: Clock) -> None:
    breaker = CircuitBreaker("b", Policy(timeout=SHORT, trip=ConsecutiveFailures(1)), clock=clock)

    async def stubborn() -> str:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            clock.now += 1.0
        return "answer"

    assert in_loop(run(breaker, stubborn)) == "answer"
    assert (state(breaker), "TooSlow" in repr(breaker._last_error)) == (State.OPEN, True)


@every_way
def test_a_slow_answer_is_used_and_counts_as_a_failure(run: Run, clock: Clock) -> None:
    """By the circuit's clock: blocks and permits are not cancelled."""
    breaker = CircuitBreaker("b", Policy(timeout=5.0, trip=ConsecutiveFailures(1)), clock=clock)

    async def slow() -> str:
        clock.now += 5.5
        return "answer"

    assert in_loop(run(breaker, slow)) == "answer"
    assert state(breaker) is State.OPEN


# --- context ----------------------------------------------------------------------------------------------------------

variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")


@pytest.mark.parametrize("timeout", [None, 5.0])
@every_way
def test_a_call_runs_in_its_callers_context_and_task(run: Run, timeout: float | None) -> None:
    breaker = CircuitBreaker("b", Policy(timeout=timeout))

    async def main() -> None:
        variable.set("the caller's")

        async def work() -> None:
            assert variable.get() == "the caller's"
            assert asyncio.current_task() is task
            variable.set("the call's")

        task = asyncio.current_task()
        await run(breaker, work)
        assert variable.get() == "the call's"

    in_loop(main())


def test_blocks_of_many_tasks_do_not_mix(clock: Clock) -> None:
    """Each leaves its own: a block entered in an era that is over counts for nothing."""
    breaker = CircuitBreaker("b", Policy(trip=ConsecutiveFailures(1), recovery=Cooldown(10.0)), clock=clock)

    async def main() -> None:
        gates = [asyncio.Event() for _ in range(3)]

        async def work(number: int) -> None:
            async with breaker:
                await gates[number].wait()
                raise OSError(str(number))

        async def one(number: int) -> None:
            with pytest.raises(OSError, match=str(number)):
                await work(number)

        old = asyncio.ensure_future(one(0))
        await turns()
        breaker.reset()
        new = asyncio.ensure_future(one(1))
        await turns()
        gates[0].set()
        await old
        assert state(breaker) is State.CLOSED
        gates[1].set()
        await new
        assert state(breaker) is State.OPEN

    in_loop(main())


def test_a_task_started_in_a_block_belongs_to_it() -> None:
    breaker = CircuitBreaker("b")

    async def main() -> None:
        async def child() -> None:
            await fail(breaker, 1, by_block)

        async with breaker:
            await asyncio.gather(child(), child())
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        in_loop(main())
    assert breaker.snapshot()["failures"] == 1


def test_one_failure_in_a_gather_counts_once() -> None:
    told: list[object] = []
    breaker = CircuitBreaker("b", listeners=[told.append])

    async def main() -> None:
        with pytest.raises(OSError, match="down"):
            await asyncio.gather(breaker.acall(good), breaker.acall(boom), breaker.acall(asyncio.sleep, 0))

    in_loop(main())
    assert [type(event) for event in told] == [CallFailed]


if sys.version_info >= (3, 11):  # which brought task groups

    @pytest.mark.parametrize("timeout", [None, PATIENCE])
    def test_what_a_task_group_cancels_counts_neither_way(timeout: float | None, clock: Clock) -> None:
        breaker = half_open(clock, timeout=timeout, max_probes=2)
        closed = CircuitBreaker("c", Policy(timeout=timeout))

        async def main() -> None:
            groups: Any = asyncio
            try:
                async with groups.TaskGroup() as group:
                    group.create_task(breaker.acall(asyncio.Event().wait))
                    group.create_task(closed.acall(asyncio.Event().wait))
                    await turns()
                    group.create_task(closed.acall(boom))
            except BaseException as error:
                assert type(error).__name__ == "ExceptionGroup"  # noqa: PT017 (3.10 has no such name)

        in_loop(main())
        assert closed.snapshot()["failures"] == 1
        assert state(breaker) is State.HALF_OPEN
        assert [breaker.admit().is_probe for _ in range(2)] == [True, True]


# --- threads and loops ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trip", [ConsecutiveFailures(10**6), FailureRate(1.0, calls=10**6, minimum=10**6)], ids=str)
def test_one_circuit_serves_threads_and_event_loops_at_once(trip: Any) -> None:
    breaker = CircuitBreaker("b", Policy(trip=trip))
    together = threading.Barrier(6)
    problems: list[BaseException] = []

    def sync() -> None:
        def down() -> None:
            raise OSError("down")

        for _ in range(200):
            with pytest.raises(OSError, match="down"):
                breaker.call(down)

    async def tasks() -> None:
        async def one(way: Run) -> None:
            for _ in range(10):
                await fail(breaker, 1, way)
                await asyncio.sleep(0)

        await asyncio.gather(*(one(WAYS[number % len(WAYS)]) for number in range(20)))

    def guarded(work: Callable[[], object]) -> None:
        try:
            together.wait(PATIENCE)
            work()
        except BaseException as error:
            problems.append(error)

    works: list[Callable[[], object]] = [sync, sync, sync, *[lambda: in_loop(tasks())] * 3]
    threads = [threading.Thread(target=guarded, args=(work,), daemon=True) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert not problems
    assert breaker.snapshot()["failures"] == 6 * 200


def test_half_open_admits_exactly_so_many_of_threads_and_loops_at_once(clock: Clock) -> None:
    breaker = half_open(clock, max_probes=2, successes_to_close=2)
    together = threading.Barrier(10)
    go_on = threading.Event()
    lock = threading.Lock()
    inside: list[str] = []
    refused: list[str] = []
    refused_all = threading.Event()

    def note(where: list[str], what: str) -> None:
        with lock:
            where.append(what)
            if len(refused) == 5 + 5 * 10 - 2:
                refused_all.set()

    def work() -> None:
        note(inside, "thread")
        assert go_on.wait(PATIENCE)

    async def awork() -> None:
        note(inside, "task")
        while not go_on.is_set():
            await asyncio.sleep(0.001)

    def sync() -> None:
        try:
            breaker.call(work)
        except CircuitOpen:
            note(refused, "thread")

    async def one() -> None:
        try:
            await breaker.acall(awork)
        except CircuitOpen:
            note(refused, "task")

    async def tasks() -> None:
        await asyncio.gather(*(one() for _ in range(10)))

    def start(number: int) -> None:
        together.wait(PATIENCE)
        sync() if number % 2 else in_loop(tasks())

    threads = [threading.Thread(target=start, args=(number,), daemon=True) for number in range(10)]
    for thread in threads:
        thread.start()
    assert refused_all.wait(PATIENCE), "the rest are refused while the probes are inside"
    assert (len(inside), state(breaker)) == (2, State.HALF_OPEN)
    go_on.set()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert (len(inside), len(refused), state(breaker)) == (2, 53, State.CLOSED)


@every_way
def test_the_loop_goes_on_while_a_thread_is_in_a_slow_call_or_listener(run: Run, clock: Clock) -> None:
    breaker = CircuitBreaker("b", Policy(recovery=Cooldown(10.0)), clock=clock)
    in_listener, go_on = threading.Event(), threading.Event()

    def slow(event: object) -> None:
        in_listener.set()
        assert go_on.wait(PATIENCE)

    breaker.subscribe(slow)
    thread = threading.Thread(target=breaker.trip, daemon=True)
    thread.start()
    assert in_listener.wait(PATIENCE)
    try:
        with pytest.raises(CircuitOpen):
            asyncio.run(asyncio.wait_for(run(breaker, good), 5.0))
        clock.now += 10.0
        assert asyncio.run(asyncio.wait_for(run(breaker, good), 5.0)) == "answer"
    finally:
        go_on.set()
        thread.join(PATIENCE)


def test_an_async_call_awaits_nothing_but_the_call(clock: Clock) -> None:
    """Whatever it ends in, it never gives the loop a turn of its own: it cannot wait."""
    closed, refusing = CircuitBreaker("c"), CircuitBreaker("o")
    refusing.trip()
    for run in WAYS:
        for breaker, fn, kind in (
            (closed, good, StopIteration),
            (closed, boom, OSError),
            (half_open(clock), good, StopIteration),
            (half_open(clock), boom, OSError),
            (refusing, good, CircuitOpen),
        ):
            with pytest.raises(kind):
                run(breaker, fn).send(None)


# --- what a user's functions may do -----------------------------------------------------------------------------------


@every_way
def test_a_listener_that_raises_changes_nothing(run: Run, clock: Clock) -> None:
    breaker = CircuitBreaker("b", Policy(trip=ConsecutiveFailures(1)), clock=clock, listeners=[lambda _: 1 / 0])
    in_loop(fail(breaker, 1, run))
    assert state(breaker) is State.OPEN
    with pytest.raises(CircuitOpen):
        in_loop(run(breaker, good))


@every_way
def test_a_classifier_that_raises_leaves_it_to_the_default(run: Run) -> None:
    def defective(outcome: object) -> Verdict:
        raise ZeroDivisionError

    breaker = CircuitBreaker("b", Policy(trip=ConsecutiveFailures(1), classify=defective))
    assert in_loop(run(breaker, good)) == "answer"
    in_loop(fail(breaker, 1, run))
    assert state(breaker) is State.OPEN


@every_way
def test_a_call_that_re_enters_its_own_circuit(run: Run, clock: Clock) -> None:
    breaker = half_open(clock)

    async def outer() -> Any:
        if run is by_permit:  # a permit by itself is no call that others could be inside
            with pytest.raises(CircuitOpen):
                await run(breaker, good)
            return "answer"
        assert await run(breaker, good) == "answer"
        assert state(breaker) is State.HALF_OPEN, "the outer call decides"
        return "answer"

    assert in_loop(run(breaker, outer)) == "answer"
    assert state(breaker) is State.CLOSED


@calling_ways
@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit])
def test_an_interrupted_classifier_gives_the_probes_place_back(
    run: Run, kind: type[BaseException], clock: Clock
) -> None:
    def interrupted(outcome: object) -> Verdict:
        if outcome == "answer":
            raise kind
        return failures.classify(outcome)

    breaker = half_open(clock, classify=interrupted)
    with pytest.raises(kind):
        run(breaker, good).send(None)
    assert breaker.admit().is_probe
