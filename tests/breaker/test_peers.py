"""What the suites of other libraries demand of a breaker, told again in this project's words and with its clock.

One section for each library, read in its newest version: what it demands and has a meaning here. What cannot be
expressed is named with the reason. What each of them demands (a threshold opens, a cooldown ends, nonsense is refused)
stands in the modules of its subject, and once below where a library goes about it in a way of its own.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from failover.breaker import (
    FAILURE,
    NEUTRAL,
    SUCCESS,
    Breakers,
    CallEnded,
    CallFailed,
    CallRefused,
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
from tests.breaker.circuits import state, until_told
from tests.breaker.distributed.fleet import Fleet
from tests.clock import Clock

AT_ONCE = Policy(ConsecutiveFailures(1), Cooldown(10.0))


@pytest.fixture
def clock() -> Clock:
    return Clock()


def fail(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.admit().failed(OSError("down"))


def succeed(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.admit().succeeded()


def ignore(breaker: CircuitBreaker, times: int = 1) -> None:
    for _ in range(times):
        breaker.admit().released()


def is_refused(breaker: CircuitBreaker) -> bool:
    try:
        breaker.admit().released()
    except CircuitOpen:
        return True
    return False


def down() -> None:
    raise OSError("down")


def transitions(breaker: CircuitBreaker) -> list[tuple[str, str]]:
    """Those that are told from now on."""
    told: list[tuple[str, str]] = []

    def listen(event: object) -> None:
        if isinstance(event, Transition):
            told.append((event.old.value, event.new.value))

    breaker.subscribe(listen)
    return told


def in_threads(count: int, work: Callable[[], object]) -> None:
    barrier = threading.Barrier(count)

    def run() -> None:
        barrier.wait()
        work()

    threads = [threading.Thread(target=run) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# --- Polly (.NET) -----------------------------------------------------------------------------------------------------
# Not expressed: a break computed by a function of the user's (a Cooldown grows by its factor, and a Retry-After
# lengthens it); a state provider and a manual control apart from the circuit (here it is its own; `Breakers` orders
# many); a context that callbacks are given (a fallback has the call's arguments); a cancellation token (a cancelled
# task is neutral); a break of no time at all, and an unlimited one (`isolate`). Demanded otherwise: a success never
# opens a circuit there, even if it is the call that makes the failures enough (see resilience4j, which demands it).


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


def test_polly_refused_calls_and_late_failures_are_no_second_break(clock: Clock) -> None:
    breaker = CircuitBreaker("b", AT_ONCE, clock=clock)
    told = transitions(breaker)
    late = breaker.admit()
    fail(breaker)
    assert all(is_refused(breaker) for _ in range(3))
    late.failed(OSError())
    assert told == [("closed", "open")]


def test_polly_a_reset_by_hand_needs_no_time_and_is_told_once(clock: Clock) -> None:
    breaker = CircuitBreaker("b", AT_ONCE, clock=clock)
    fail(breaker)
    told = transitions(breaker)
    breaker.reset()
    breaker.reset()
    succeed(breaker, 3)
    assert told == [("open", "closed")]
    assert breaker.snapshot()["last_error"] is None


def test_polly_a_probe_that_is_never_heard_of_again_is_followed_by_one_more_per_lease(clock: Clock) -> None:
    breaker = CircuitBreaker("b", replace(AT_ONCE, probe_lease=10.0), clock=clock)
    fail(breaker)
    for _ in range(3):
        clock.now += 10
        assert breaker.admit().is_probe
        assert is_refused(breaker)


def test_polly_the_break_grows_with_each_failed_attempt_and_never_overflows(clock: Clock) -> None:
    breaker = CircuitBreaker(
        "b", Policy(ConsecutiveFailures(1), Cooldown(1.0, factor=1e30, maximum=600.0)), clock=clock
    )
    fail(breaker)
    waits = []
    for _ in range(50):
        waits.append(breaker.snapshot()["retry_after"])
        clock.now += 600.0
        fail(breaker)
    assert waits == [1.0, *[600.0] * 49]


def test_polly_a_result_can_open_it_and_no_error_is_made_of_it() -> None:
    policy = Policy(ConsecutiveFailures(1), classify=lambda outcome: FAILURE if outcome == "bad" else SUCCESS)
    breaker = CircuitBreaker("b", policy)
    assert breaker.call(lambda: "good") == "good"
    assert breaker.call(lambda: "bad") == "bad"
    with pytest.raises(CircuitOpen, match="the result was classified as a failure"):
        breaker.call(lambda: "good")


def test_polly_what_is_kept_of_an_error_does_not_grow_with_the_refusals() -> None:
    breaker = CircuitBreaker("b", AT_ONCE)
    with suppress(OSError):
        breaker.call(down)
    refusals: list[CircuitOpen] = []
    for _ in range(50):
        with pytest.raises(CircuitOpen) as refused:
            breaker.call(down)
        refusals.append(refused.value)
    assert len(set(map(id, refusals))) == 50
    assert [refused.last_error.__traceback__ for refused in refusals if refused.last_error] == [None] * 50


def test_polly_an_inner_error_can_be_what_counts() -> None:
    def by_cause(outcome: object) -> failures.Verdict | None:
        return FAILURE if isinstance(getattr(outcome, "__cause__", None), OSError) else NEUTRAL

    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(1), classify=failures.classifier(by_cause)))

    def wrapped(cause: Exception) -> None:
        raise RuntimeError("wrapped") from cause

    for cause, then in ((ValueError(), State.CLOSED), (OSError(), State.OPEN)):
        with pytest.raises(RuntimeError):
            breaker.call(wrapped, cause)
        assert state(breaker) is then


def test_polly_one_order_isolates_several_circuits() -> None:
    breakers = Breakers()
    both = [breakers.on("https://host/one"), breakers.on("https://host/two")]
    breakers.isolate("https://host/")
    assert [is_refused(each) for each in (*both, breakers.on("https://host/three"))] == [True] * 3
    breakers.reset("https://host/")
    assert [is_refused(each) for each in both] == [False] * 2


def test_polly_failures_around_the_end_of_a_window_count_together(clock: Clock) -> None:
    breaker = CircuitBreaker("b", Policy(FailureRate(0.5, seconds=10, minimum=4)), clock=clock)
    clock.now += 8
    fail(breaker, 2)
    clock.now += 4
    fail(breaker)
    assert breaker.state is State.CLOSED
    fail(breaker)
    assert state(breaker) is State.OPEN


# --- resilience4j (Java) ----------------------------------------------------------------------------------------------
# Not expressed: slow calls as a rate of their own (Policy.timeout makes each a failure); METRICS_ONLY, DISABLED and an
# initial state to go to and from at any time (`dry_run` is the first, for good; no circuit the second; `trip()` the
# third); a transition to half-open by a timer or by hand, without a call, and one out of half-open by a timer (only a
# lost probe's place is given away by time); a rate in half-open (it is two counts here, whichever comes first);
# futures that are evaluated twice; a registry's own events and tags; listeners by kind of event.


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


def test_resilience4j_few_failures_among_the_permitted_calls_close_it(clock: Clock) -> None:
    policy = Policy(ConsecutiveFailures(1), Cooldown(10.0), max_probes=4, successes_to_close=3, failures_to_reopen=2)
    breaker = CircuitBreaker("b", policy, clock=clock)
    fail(breaker)
    clock.now += 10
    probes = [breaker.admit() for _ in range(4)]
    probes[0].failed(OSError())
    for probe in probes[1:]:
        assert breaker.state is State.HALF_OPEN
        probe.succeeded()
    assert state(breaker) is State.CLOSED
    assert breaker.snapshot()["failures"] == 0


def test_resilience4j_ignored_errors_use_up_no_permission(clock: Clock) -> None:
    policy = replace(AT_ONCE, max_probes=2, successes_to_close=2, classify=failures.classifier(_not_found))
    breaker = CircuitBreaker("b", policy, clock=clock)
    fail(breaker)
    clock.now += 10
    for _ in range(10):
        with pytest.raises(LookupError):
            breaker.call(dict[str, int]().__getitem__, "key")
    assert breaker.state is State.HALF_OPEN
    succeed(breaker, 2)
    assert state(breaker) is State.CLOSED


def test_resilience4j_the_wait_grows_from_opening_to_opening_and_starts_afresh_after_a_success(clock: Clock) -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(1), Cooldown(5.0, factor=2.0)), clock=clock)
    for wait in (5.0, 10.0, 20.0):
        fail(breaker)
        assert breaker.snapshot()["retry_after"] == wait
        clock.now += wait - 1
        assert is_refused(breaker)
        clock.now += 1
    succeed(breaker)
    fail(breaker)
    assert breaker.snapshot()["retry_after"] == 5.0


def test_resilience4j_every_kind_of_event_is_told() -> None:
    told: list[object] = []

    class Each:
        each_call = True

        def __call__(self, event: object) -> None:
            told.append(event)

    breaker = CircuitBreaker("b", AT_ONCE, listeners=[Each()])
    succeed(breaker)
    ignore(breaker)
    fail(breaker)
    assert is_refused(breaker)
    breaker.reset()
    verdicts = [event.verdict for event in told if isinstance(event, CallEnded)]
    assert verdicts == [SUCCESS, NEUTRAL, FAILURE]
    others = [type(event) for event in told if not isinstance(event, CallEnded)]
    assert others == [CallFailed, Transition, CallRefused, Transition]


def test_resilience4j_slow_calls_open_it(clock: Clock) -> None:
    breaker = CircuitBreaker("b", Policy(FailureRate(0.5, calls=4, minimum=4), timeout=2.0), clock=clock)

    def takes(seconds: float) -> str:
        clock.now += seconds
        return "fine"

    for seconds in (1.0, 3.0, 2.0):
        assert breaker.call(takes, seconds) == "fine"
    assert breaker.state is State.CLOSED
    assert breaker.call(takes, 2.1) == "fine"
    assert state(breaker) is State.OPEN


def test_resilience4j_metrics_only_counts_and_tells_and_never_refuses(clock: Clock) -> None:
    breaker = CircuitBreaker("b", replace(AT_ONCE, dry_run=True), clock=clock)
    told = transitions(breaker)
    fail(breaker)
    assert (breaker.state, is_refused(breaker)) == (State.OPEN, False)
    clock.now += 10
    succeed(breaker)
    breaker.isolate()
    assert not is_refused(breaker)
    assert told == [("closed", "open"), ("open", "half-open"), ("half-open", "closed"), ("closed", "open")]


def test_resilience4j_what_ends_under_a_forced_open_changes_nothing() -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(2)))
    under_way = [breaker.admit() for _ in range(3)]
    breaker.isolate()
    before = breaker.snapshot()
    under_way[0].succeeded()
    under_way[1].failed(OSError())
    under_way[2].released()
    assert breaker.snapshot() == before


def test_resilience4j_calls_leave_a_window_in_seconds_one_by_one(clock: Clock) -> None:
    breaker = CircuitBreaker("b", Policy(FailureRate(1.0, seconds=10, minimum=100)), clock=clock)
    counts = []
    for second in range(30):
        if second < 15:
            fail(breaker)
        counts.append(breaker.snapshot()["failures"])
        clock.now += 1.0
    assert counts[:10] == list(range(1, 11))
    assert max(counts) <= 11
    assert all(later <= earlier for earlier, later in pairwise(counts[15:]))
    assert counts[27:] == [0, 0, 0]


def test_resilience4j_record_and_ignore_are_three_verdicts() -> None:
    kinds: dict[type, failures.Verdict] = {OSError: FAILURE, LookupError: SUCCESS, ValueError: NEUTRAL}
    policy = Policy(ConsecutiveFailures(2), classify=failures.classifier(lambda outcome: kinds.get(type(outcome))))
    breaker = CircuitBreaker("b", policy)
    counts = []
    for kind in (OSError, ValueError, LookupError, OSError, ValueError):

        def raises(kind: type[Exception] = kind) -> None:
            raise kind

        with pytest.raises(kind):
            breaker.call(raises)
        counts.append(breaker.snapshot()["failures"])
    assert counts == [1, 1, 0, 1, 1]


def test_resilience4j_configurations_are_shared_by_name() -> None:
    breakers = Breakers(Policy(ConsecutiveFailures(7)))
    breakers.policy("https://slow/", Policy(ConsecutiveFailures(3)))
    names = ("https://slow/api", "https://slow/", "https://other/")
    assert [breakers.on(name).snapshot()["threshold"] for name in names] == [3, 3, 7]


# --- gobreaker (Go) ---------------------------------------------------------------------------------------------------
# Not expressed: clearing the counts of a closed circuit at fixed intervals, and buckets of a rolling window of the
# user's choice (a window in seconds slides); its counts of all requests (a listener with `each_call` counts what it
# likes); a limit of the requests of a whole half-open period (`max_probes` are in flight at once, `successes_to_close`
# end it); a `readyToTrip` of the counts (an algorithm of one's own is a `Trip`).


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


def test_gobreaker_excluded_calls_never_use_up_a_half_open_circuit(clock: Clock) -> None:
    breaker = CircuitBreaker("b", replace(AT_ONCE, max_probes=3, successes_to_close=3), clock=clock)
    fail(breaker)
    clock.now += 10
    ignore(breaker, 10)
    assert breaker.state is State.HALF_OPEN
    succeed(breaker, 2)
    last = breaker.admit()
    assert breaker.state is State.HALF_OPEN
    last.succeeded()
    assert state(breaker) is State.CLOSED


def test_gobreaker_a_failure_opens_it_again_however_many_succeeded_before(clock: Clock) -> None:
    breaker = CircuitBreaker("b", replace(AT_ONCE, successes_to_close=3), clock=clock)
    for _ in range(2):
        if breaker.state is State.CLOSED:
            fail(breaker)
        clock.now += 10
        succeed(breaker, 2)
        fail(breaker)
        assert breaker.state is State.OPEN
    clock.now += 10
    succeed(breaker, 3)
    assert state(breaker) is State.CLOSED


def test_gobreaker_a_permit_is_done_once() -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(2)))
    permit = breaker.admit()
    permit.failed(OSError())
    for settle in (permit.succeeded, permit.released, lambda: permit.failed(OSError())):
        with pytest.raises(RuntimeError, match="settled before"):
            settle()
    assert breaker.snapshot()["failures"] == 1


def test_gobreaker_whoever_says_that_all_is_well_is_believed() -> None:
    breaker = CircuitBreaker("b", replace(AT_ONCE, classify=lambda _: SUCCESS))
    for _ in range(10):
        with pytest.raises(OSError, match="down"):
            breaker.call(down)
    assert breaker.state is State.CLOSED


def test_gobreaker_counts_are_exact_under_many_threads() -> None:
    breaker = CircuitBreaker("b", Policy(FailureRate(1.0, seconds=60, minimum=10_000)))

    def work() -> None:
        for _ in range(100):
            succeed(breaker)
            fail(breaker)
            ignore(breaker)

    in_threads(10, work)
    assert breaker.snapshot()["failures"] == 1000


def test_gobreaker_processes_with_clocks_of_their_own_agree_on_the_end_of_a_break() -> None:
    fleet = Fleet(2, AT_ONCE)
    here, there = (process.circuit for process in fleet)
    fail(here)
    fleet.look()
    fleet.wait(9.9)
    assert [is_refused(each) for each in (here, there)] == [True, True]
    fleet.wait(0.1)
    assert there.admit().is_probe
    fleet.look()
    assert is_refused(here)


# --- Failsafe (Java) --------------------------------------------------------------------------------------------------
# And its twin in Go, failsafe-go.
# Not expressed: thresholds of their own for half-open as "3 of 5" (they are two counts here, whichever comes first),
# and those that are taken over from the closed state; so many failures within a time, whatever succeeds meanwhile (a
# window in seconds has a rate); a state given by hand as half-open; listeners by kind of event.


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


def test_failsafe_two_of_three() -> None:
    breaker = CircuitBreaker("b", Policy(FailureRate(2 / 3, calls=3, minimum=3)))
    fail(breaker)
    succeed(breaker)
    assert breaker.state is State.CLOSED
    fail(breaker)
    assert state(breaker) is State.OPEN


def test_failsafe_three_of_four_never_come_together_where_each_second_call_succeeds() -> None:
    breaker = CircuitBreaker("b", Policy(FailureRate(3 / 4, calls=4, minimum=4)))
    for _ in range(20):
        succeed(breaker)
        fail(breaker)
        assert breaker.state is State.CLOSED


@pytest.mark.parametrize("inner_first", [True, False])
def test_failsafe_circuits_inside_each_other_count_each_its_own_errors(inner_first: bool) -> None:
    def only(kind: type[Exception]) -> Policy:
        return replace(AT_ONCE, classify=lambda outcome: FAILURE if isinstance(outcome, kind) else NEUTRAL)

    ours, others = CircuitBreaker("ours", only(ValueError)), CircuitBreaker("others", only(KeyError))
    outer, inner = (others, ours) if inner_first else (ours, others)

    @outer
    @inner
    def call() -> None:
        raise ValueError("ours")

    with pytest.raises(ValueError, match="ours"):
        call()
    assert (ours.state, others.state) == (State.OPEN, State.CLOSED)


def test_failsafe_retries_around_it_are_refused_once_it_is_open() -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(3)))
    ends = []
    for _ in range(7):
        try:
            breaker.call(down)
        except (OSError, CircuitOpen) as error:
            ends.append(type(error))
    assert ends == [*[OSError] * 3, *[CircuitOpen] * 4]


def test_failsafe_the_failure_itself_can_tell_the_delay(clock: Clock) -> None:
    breaker = CircuitBreaker("b", AT_ONCE, clock=clock)
    error = OSError("come back later")
    error.retry_after = 25.0  # type: ignore[attr-defined]
    breaker.admit().failed(error)
    assert breaker.snapshot()["retry_after"] == 25.0


def test_failsafe_a_policy_is_made_from_another_one() -> None:
    policy = Policy(ConsecutiveFailures(3), Cooldown(5.0), max_probes=2)
    other = replace(policy, max_probes=4)
    assert (other.trip, other.recovery, other.max_probes) == (policy.trip, policy.recovery, 4)
    assert policy.max_probes == 2


# --- pybreaker and aiobreaker (Python) --------------------------------------------------------------------------------
# Not expressed: setting the state by `breaker.state = ...` or as half-open by hand; another fail_max, and errors that
# are excluded later, for a live circuit (make another one); an error of its own for the call that trips it; a listener
# before each call; Tornado's futures; its storage's own state and namespaces (see the tests of stores). Demanded
# otherwise: an excluded error starts the count anew there, as a success; here it is told which of the two it is.


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


def test_pybreaker_subclasses_and_predicates_exclude_errors() -> None:
    class QualityError(Exception):
        def __init__(self, good: bool) -> None:
            super().__init__()
            self.good = good

    def good(outcome: object) -> failures.Verdict | None:
        return SUCCESS if isinstance(outcome, QualityError) and outcome.good else None

    breaker = CircuitBreaker("b", Policy(classify=failures.classifier(good, _not_found)))
    counts = []
    for error in (QualityError(good=False), KeyError(), QualityError(good=False), QualityError(good=True), OSError()):
        with suppress(Exception), breaker:
            raise error
        counts.append(breaker.snapshot()["failures"])
    assert counts == [1, 1, 2, 0, 1]


def test_pybreaker_a_generator_that_is_sent_values_is_judged_by_its_end() -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(5)))

    @breaker
    def asks() -> Generator[str, str, None]:
        answer = yield "question"
        if answer == "wrong":
            raise OSError(answer)

    bad, good = asks(), asks()
    assert [next(bad), next(good)] == ["question"] * 2
    with pytest.raises(OSError, match="wrong"):
        bad.send("wrong")
    assert breaker.snapshot()["failures"] == 1
    with pytest.raises(StopIteration):
        good.send("right")
    assert breaker.snapshot()["failures"] == 0


def test_pybreaker_a_context_manager_may_be_made_of_a_guarded_generator() -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(5)))

    class Session:
        @contextmanager
        @breaker
        def transaction(self) -> Iterator[None]:
            try:
                yield
            except NotImplementedError:
                raise OSError("translated") from None

    with pytest.raises(OSError, match="translated"), Session().transaction():
        raise NotImplementedError
    assert breaker.snapshot()["failures"] == 1
    with Session().transaction():
        pass
    assert breaker.snapshot()["failures"] == 0


def test_pybreaker_no_failure_is_lost_or_counted_twice_under_threads() -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(3000)))
    guarded = breaker(down)

    def work() -> None:
        for _ in range(500):
            with suppress(OSError):
                guarded()

    in_threads(3, work)
    assert breaker.snapshot()["failures"] == 1500


def test_pybreaker_no_more_failures_are_counted_than_open_it() -> None:
    told: list[object] = []
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(5)), listeners=[told.append])

    def work() -> None:
        for _ in range(200):
            with suppress(OSError, CircuitOpen):
                breaker.call(down)

    in_threads(3, work)
    until_told(breaker)
    assert sum(isinstance(event, CallFailed) for event in told) == 5
    assert breaker.snapshot()["opened"] == 1


def test_pybreaker_threads_that_come_after_the_cooldown_make_one_probe(clock: Clock) -> None:
    for _ in range(20):
        breaker = CircuitBreaker("b", AT_ONCE, clock=clock)
        breaker.trip()
        told = transitions(breaker)
        clock.now += 10

        def work(breaker: CircuitBreaker = breaker) -> None:
            with suppress(OSError, CircuitOpen):
                breaker.call(down)

        in_threads(5, work)
        until_told(breaker)
        assert told == [("open", "half-open"), ("half-open", "open")]


def test_pybreaker_a_failure_takes_back_the_successes_that_were_to_close_it(clock: Clock) -> None:
    breaker = CircuitBreaker("b", replace(AT_ONCE, successes_to_close=3), clock=clock)
    fail(breaker)
    clock.now += 10
    succeed(breaker, 2)
    fail(breaker)
    clock.now += 10
    succeed(breaker, 2)
    assert breaker.state is State.HALF_OPEN


def test_pybreaker_the_name_may_be_given_later() -> None:
    breaker = CircuitBreaker("one", AT_ONCE)
    breaker.name = "two"
    fail(breaker)
    with pytest.raises(CircuitOpen, match="'two'"):
        breaker.admit()


def test_aiobreaker_who_waits_for_as_long_as_he_is_told_is_let_through(clock: Clock) -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(1), Cooldown(7.3)), clock=clock)
    fail(breaker)
    clock.now += 2.2
    with pytest.raises(CircuitOpen) as refused:
        breaker.call(int)
    assert refused.value.retry_after is not None
    clock.now += refused.value.retry_after
    assert breaker.call(int) == 0


def test_aiobreaker_an_opening_by_hand_is_no_failure() -> None:
    breaker = CircuitBreaker("b")
    breaker.trip()
    assert breaker.snapshot()["failures"] == 0
    breaker.reset()
    assert (breaker.state, breaker.snapshot()["failures"]) == (State.CLOSED, 0)


# --- circuitbreaker and purgatory (Python) ----------------------------------------------------------------------------
# Not expressed: a monitor of all circuits of a process (a Breakers lists its own; there is no global state); a fallback
# for generators (they have no result that it could give); settings by subclassing (a Policy is a value). Demanded
# otherwise: a success forgets the last error there; here it is kept, without its frames, until the circuit closes.


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


def test_circuitbreaker_what_is_decorated_stays_of_its_kind() -> None:
    breaker = CircuitBreaker("b")

    def function() -> None: ...

    async def coroutine() -> None: ...

    def generator() -> Iterator[int]:
        yield 1

    async def agenerator() -> AsyncIterator[int]:
        yield 1

    kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    for fn in (function, coroutine, generator, agenerator):
        guarded: Callable[..., Any] = breaker(fn)
        assert [kind(guarded) for kind in kinds] == [kind(fn) for kind in kinds]
        assert (guarded.__name__, guarded.__doc__) == (fn.__name__, fn.__doc__)


@pytest.mark.parametrize("is_async", [False, True])
def test_circuitbreaker_a_fallback_is_called_with_the_calls_arguments_and_the_function_is_not(is_async: bool) -> None:
    breaker = CircuitBreaker("b", AT_ONCE)
    breaker.trip()
    asked: list[object] = []

    def instead(_: BaseException, *args: object, **kwargs: object) -> str:
        asked.append((args, kwargs))
        return "instead"

    def function(*_: object, **__: object) -> str:
        raise AssertionError("it must not run")

    async def coroutine(*_: object, **__: object) -> str:
        raise AssertionError("it must not run")

    guarded: Callable[..., Any] = breaker.guard(fallback=instead)(coroutine if is_async else function)
    answer = guarded("one", two=2)
    assert (asyncio.run(answer) if is_async else answer) == "instead"
    assert asked == [(("one",), {"two": 2})]


def test_circuitbreaker_a_refusal_says_all_in_one_line(clock: Clock) -> None:
    breaker = CircuitBreaker("shop", Policy(ConsecutiveFailures(1), Cooldown(30.0)), clock=clock)
    fail(breaker)
    clock.now += 10
    with pytest.raises(CircuitOpen) as refused:
        breaker.call(int)
    assert str(refused.value) == (
        "circuit 'shop' is open; the next call may be made in 20 s; the last failure: OSError: down"
    )


def test_circuitbreaker_the_count_stands_while_calls_are_refused_and_while_it_probes(clock: Clock) -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(3), Cooldown(10.0)), clock=clock)
    fail(breaker, 3)
    counts = []
    for _ in range(3):
        assert is_refused(breaker)
        counts.append(breaker.snapshot()["failures"])
        clock.now += 10
        fail(breaker)
    assert counts == [3, 3, 3]
    clock.now += 10
    succeed(breaker)
    assert breaker.snapshot()["failures"] == 0


def test_circuitbreaker_the_open_ones_can_be_listed() -> None:
    breakers = Breakers(AT_ONCE)
    for number in range(5):
        breakers.on(f"service-{number}")
    fail(breakers.on("service-3"))
    assert [each.name for each in breakers if each.state is State.OPEN] == ["service-3"]


def test_purgatory_events_come_in_the_order_in_which_things_happen(clock: Clock) -> None:
    told: list[type] = []
    breaker = CircuitBreaker(
        "b", Policy(ConsecutiveFailures(2), Cooldown(10.0)), clock=clock, listeners=[lambda e: told.append(type(e))]
    )
    fail(breaker, 2)
    assert told == [CallFailed, CallFailed, Transition]
    told.clear()
    clock.now += 10
    fail(breaker)
    assert told == [Transition, CallFailed, Transition]
    told.clear()
    clock.now += 10
    succeed(breaker)
    assert told == [Transition, Transition]


def test_purgatory_who_does_not_listen_cannot_be_removed() -> None:
    breaker = CircuitBreaker("b")
    told: list[object] = []
    with pytest.raises(ValueError, match="not subscribed"):
        breaker.unsubscribe(told.append)
    breaker.subscribe(told.append)
    breaker.unsubscribe(told.append)
    breaker.trip()
    assert told == []


def test_purgatory_what_all_exclude_and_what_one_excludes_are_both_excluded() -> None:
    def for_all(outcome: object) -> failures.Verdict | None:
        return NEUTRAL if isinstance(outcome, ValueError) else None

    everybodys = failures.classifier(for_all)
    breaker = CircuitBreaker("b", replace(AT_ONCE, classify=failures.classifier(_not_found, then=everybodys)))
    for error in (ValueError(), KeyError()):
        with suppress(Exception), breaker:
            raise error
        assert breaker.state is State.CLOSED
    with suppress(RuntimeError), breaker:
        raise RuntimeError
    assert state(breaker) is State.OPEN
