"""What the suites of other libraries demand of a breaker, told again in this project's words and with its clock.

One section for each library: what it demands and has a meaning here. What cannot be expressed is named with the reason.
"""

from __future__ import annotations

import asyncio

import pytest

from failover.breaker import (
    NEUTRAL,
    Breakers,
    CircuitBreaker,
    CircuitOpen,
    ConsecutiveFailures,
    Cooldown,
    FailureRate,
    Policy,
    Refusal,
    State,
    Transition,
    failures,
)
from tests.breaker.circuits import state
from tests.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.admit().failed(OSError("down"))


def succeed(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.admit().succeeded()


def is_refused(breaker: CircuitBreaker) -> bool:
    try:
        breaker.admit().released()
    except CircuitOpen:
        return True
    return False


# --- Polly (.NET) -----------------------------------------------------------------------------------------------------
# Not expressed: the break duration computed from a context object (a Cooldown grows by its factor), and a state
# provider apart from the circuit (here the circuit is its own).


def test_polly_isolate_holds_until_it_is_closed_by_hand(clock: Clock) -> None:
    breaker = CircuitBreaker("b", Policy(recovery=Cooldown(1.0)), clock=clock)
    breaker.isolate()
    clock.now += 1e6
    with pytest.raises(CircuitOpen) as refused:
        breaker.admit()
    assert refused.value.reason is Refusal.ISOLATED
    breaker.reset()
    assert not is_refused(breaker)


def test_polly_a_minimum_throughput_keeps_it_closed(clock: Clock) -> None:
    breaker = CircuitBreaker("b", Policy(FailureRate(0.5, seconds=10, minimum=4)), clock=clock)
    fail(breaker, 3)
    assert breaker.state is State.CLOSED
    fail(breaker)
    assert state(breaker) is State.OPEN


def test_polly_failures_of_an_earlier_window_do_not_count(clock: Clock) -> None:
    breaker = CircuitBreaker("b", Policy(FailureRate(0.5, seconds=10, minimum=4)), clock=clock)
    fail(breaker, 3)
    clock.now += 11
    fail(breaker)
    assert breaker.state is State.CLOSED


def test_polly_handled_and_unhandled_errors() -> None:
    policy = Policy(ConsecutiveFailures(1), classify=failures.classifier(_not_found))
    breaker = CircuitBreaker("b", policy)
    with pytest.raises(LookupError):
        breaker.call(dict[str, int]().__getitem__, "key")
    assert breaker.state is State.CLOSED


def _not_found(outcome: object) -> failures.Verdict | None:
    return NEUTRAL if isinstance(outcome, LookupError) else None


def test_polly_a_failure_while_open_does_not_lengthen_the_break(clock: Clock) -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(1), Cooldown(10.0)), clock=clock)
    late = breaker.admit()
    fail(breaker)
    clock.now += 9
    late.failed(OSError())
    clock.now += 1
    assert breaker.admit().is_probe


# --- resilience4j (Java) ----------------------------------------------------------------------------------------------
# Not expressed: slow calls as a rate of their own (Policy.timeout makes each a failure), a METRICS_ONLY and a DISABLED
# state (`dry_run` is the first, no circuit the second), and a transition to half-open by a timer, without a call.


def test_resilience4j_a_window_of_calls_must_be_filled_to_the_minimum() -> None:
    breaker = CircuitBreaker("b", Policy(FailureRate(0.5, calls=10, minimum=5)))
    fail(breaker, 4)
    assert breaker.state is State.CLOSED
    succeed(breaker)
    assert state(breaker) is State.OPEN, "the fifth call fills it, and four of five failed"


def test_resilience4j_permitted_calls_in_half_open_are_exact(clock: Clock) -> None:
    policy = Policy(ConsecutiveFailures(1), Cooldown(10.0), max_probes=3, successes_to_close=3)
    breaker = CircuitBreaker("b", policy, clock=clock)
    fail(breaker)
    clock.now += 10
    probes = [breaker.admit() for _ in range(3)]
    assert is_refused(breaker)
    for probe in probes:
        probe.succeeded()
    assert breaker.state is State.CLOSED


def test_resilience4j_a_released_permission_is_free_again(clock: Clock) -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(1), Cooldown(10.0)), clock=clock)
    fail(breaker)
    clock.now += 10
    breaker.admit().released()
    assert breaker.admit().is_probe


def test_resilience4j_more_failures_than_allowed_reopen_it(clock: Clock) -> None:
    policy = Policy(ConsecutiveFailures(1), Cooldown(10.0), max_probes=5, successes_to_close=5, failures_to_reopen=2)
    breaker = CircuitBreaker("b", policy, clock=clock)
    fail(breaker)
    clock.now += 10
    succeed(breaker, 2)
    fail(breaker)
    assert breaker.state is State.HALF_OPEN
    fail(breaker)
    assert state(breaker) is State.OPEN


def test_resilience4j_a_registry_gives_one_circuit_a_name() -> None:
    breakers = Breakers()
    assert breakers.on("backend") is breakers.on("backend")
    assert breakers.on("backend") is not breakers.on("other")


# --- gobreaker (Go) ---------------------------------------------------------------------------------------------------
# Not expressed: clearing the counts of a closed circuit at fixed intervals (a window in seconds slides).


def test_gobreaker_a_result_of_an_earlier_generation_is_ignored(clock: Clock) -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(2), Cooldown(10.0)), clock=clock)
    late = [breaker.admit() for _ in range(3)]
    fail(breaker, 2)
    clock.now += 10
    succeed(breaker)
    for permit in late:
        permit.failed(OSError())
    assert breaker.state is State.CLOSED
    assert breaker.snapshot()["failures"] == 0


def test_gobreaker_too_many_requests_is_told_apart_from_open(clock: Clock) -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(1), Cooldown(10.0)), clock=clock)
    fail(breaker)
    with pytest.raises(CircuitOpen) as refused:
        breaker.admit()
    assert refused.value.reason is Refusal.OPEN
    clock.now += 10
    breaker.admit()
    with pytest.raises(CircuitOpen) as refused:
        breaker.admit()
    assert refused.value.reason is Refusal.PROBES_TAKEN


def test_gobreaker_state_changes_are_told_with_old_and_new(clock: Clock) -> None:
    told: list[tuple[str, str]] = []

    def listen(event: object) -> None:
        if isinstance(event, Transition):
            told.append((event.old.value, event.new.value))

    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(1), Cooldown(10.0)), clock=clock, listeners=[listen])
    fail(breaker)
    clock.now += 10
    succeed(breaker)
    assert told == [("closed", "open"), ("open", "half-open"), ("half-open", "closed")]


# --- Failsafe (Java) --------------------------------------------------------------------------------------------------
# Not expressed: thresholds of their own for half-open as "3 of 5" (they are two counts here, whichever comes first).


def test_failsafe_successes_to_close_need_not_be_in_a_row_of_one_probe(clock: Clock) -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(3), Cooldown(10.0), successes_to_close=2), clock=clock)
    fail(breaker, 3)
    clock.now += 10
    succeed(breaker)
    assert breaker.state is State.HALF_OPEN
    succeed(breaker)
    assert state(breaker) is State.CLOSED


def test_failsafe_the_remaining_delay_is_told(clock: Clock) -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(1), Cooldown(10.0)), clock=clock)
    fail(breaker)
    clock.now += 4
    assert breaker.snapshot()["retry_after"] == pytest.approx(6.0)
    clock.now += 60
    assert breaker.snapshot()["retry_after"] == 0.0


# --- pybreaker and aiobreaker (Python) --------------------------------------------------------------------------------
# Not expressed: setting the state by `breaker.state = ...`, and another fail_max for a live circuit (make another one).


def test_pybreaker_the_call_that_trips_it_raises_its_own_error() -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(2)))

    def down() -> None:
        raise OSError("down")

    for _ in range(2):
        with pytest.raises(OSError, match="down"):
            breaker.call(down)
    with pytest.raises(CircuitOpen):
        breaker.call(down)


def test_pybreaker_listeners_can_be_added_and_removed() -> None:
    breaker = CircuitBreaker("b")
    told: list[object] = []
    breaker.subscribe(told.append)
    breaker.trip()
    breaker.unsubscribe(told.append)
    breaker.reset()
    assert len(told) == 1


def test_aiobreaker_coroutines_and_functions_share_one_count() -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(2)))

    async def adown() -> None:
        raise OSError("down")

    with pytest.raises(OSError, match="down"):
        asyncio.run(breaker.acall(adown))
    fail(breaker)
    assert breaker.state is State.OPEN


# --- circuitbreaker and purgatory (Python) ----------------------------------------------------------------------------
# Not expressed: a monitor of all circuits of a process (a Breakers lists its own; there is no global state).


def test_circuitbreaker_a_success_starts_the_count_anew() -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(3)))
    for _ in range(5):
        fail(breaker, 2)
        succeed(breaker)
    assert breaker.state is State.CLOSED


def test_circuitbreaker_a_decorated_generator_is_guarded() -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(1)))

    @breaker
    def lines() -> object:
        yield "one"
        raise OSError("broke off")

    with pytest.raises(OSError, match="broke off"):
        list(lines())  # type: ignore[call-overload]
    assert breaker.state is State.OPEN


def test_purgatory_a_circuit_is_a_block_too(clock: Clock) -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(1), Cooldown(10.0)), clock=clock)
    with pytest.raises(OSError, match="down"), breaker:
        raise OSError("down")
    with pytest.raises(CircuitOpen), breaker:
        raise AssertionError("it must not run")
    clock.now += 10
    with breaker:
        assert state(breaker) is State.HALF_OPEN
    assert state(breaker) is State.CLOSED
