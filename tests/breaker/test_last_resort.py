"""`admit(last_resort=True)`: for a caller that has nowhere else to go."""

from __future__ import annotations

import threading
import uuid

import pytest

from failover.breaker import (
    AfterCalls,
    BreakerEvent,
    CallFailed,
    CircuitBreaker,
    CircuitOpen,
    ConsecutiveFailures,
    Cooldown,
    FailureRate,
    Permit,
    Policy,
    State,
    Transition,
)
from failover.breaker.stores import open_store
from tests.breaker.circuits import half_open, state
from tests.clock import Clock


def opened(clock: Clock, **policy: object) -> CircuitBreaker:
    policy.setdefault("recovery", Cooldown(10.0))
    breaker = CircuitBreaker("b", Policy(**policy), clock=clock)  # type: ignore[arg-type]
    breaker.trip()
    return breaker


def is_refused(breaker: CircuitBreaker) -> bool:
    try:
        breaker.admit(last_resort=True)
    except CircuitOpen:
        return True
    return False


def test_an_open_circuit_admits_it_and_its_success_closes_the_circuit() -> None:
    clock = Clock()
    breaker = opened(clock)
    told: list[BreakerEvent] = []
    breaker.subscribe(told.append)
    permit = breaker.admit(last_resort=True)
    assert (permit.is_last_resort, permit.is_probe) == (True, False)
    assert breaker.state is State.OPEN
    permit.succeeded()
    assert state(breaker) is State.CLOSED
    [transition] = told
    assert isinstance(transition, Transition)
    assert (transition.old, transition.new) == (State.OPEN, State.CLOSED)
    assert "last resort" in transition.reason


def test_one_that_fails_leaves_the_circuit_as_it_is() -> None:
    clock = Clock()
    breaker = opened(clock)
    told: list[BreakerEvent] = []
    breaker.subscribe(told.append)
    clock.now += 9.0
    before = breaker.snapshot()
    error = OSError("still down")
    breaker.admit(last_resort=True).failed(error)
    after = breaker.snapshot()
    assert {key: after[key] for key in after if key != "last_error"} == {
        key: before[key] for key in before if key != "last_error"
    }
    assert "still down" in after["last_error"]
    assert [type(event) for event in told] == [CallFailed]
    clock.now += 1.0
    assert breaker.admit().is_probe, "the cooldown was neither restarted nor lengthened"


def test_one_that_says_nothing_gives_its_place_back() -> None:
    breaker = opened(Clock())
    for _ in range(5):
        breaker.admit(last_resort=True).released()
    assert breaker.state is State.OPEN


def test_at_most_max_probes_are_under_way() -> None:
    breaker = opened(Clock(), max_probes=3)
    permits = [breaker.admit(last_resort=True) for _ in range(3)]
    with pytest.raises(CircuitOpen):
        breaker.admit(last_resort=True)
    permits[1].failed(OSError())
    assert breaker.admit(last_resort=True).is_last_resort
    assert is_refused(breaker)


def test_a_place_is_free_again_after_the_lease_and_who_had_it_is_stale() -> None:
    clock = Clock()
    breaker = opened(clock, probe_lease=5.0)
    hung = breaker.admit(last_resort=True)
    clock.now += 4.9
    assert is_refused(breaker)
    clock.now += 0.1
    breaker.admit(last_resort=True)
    hung.succeeded()
    assert breaker.state is State.OPEN


def race(breaker: CircuitBreaker, barrier: threading.Barrier, permits: list[Permit]) -> None:
    barrier.wait()
    for _ in range(5):
        try:
            permits.append(breaker.admit(last_resort=True))
        except CircuitOpen:
            return


def test_threads_get_exactly_max_probes() -> None:
    for _ in range(50):
        breaker, barrier = opened(Clock(), max_probes=4), threading.Barrier(8)
        permits: list[Permit] = []
        threads = [threading.Thread(target=race, args=(breaker, barrier, permits)) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(permits) == 4


def test_a_closed_circuit_admits_it_as_any_call() -> None:
    breaker = CircuitBreaker("b", Policy(ConsecutiveFailures(2)))
    permits = [breaker.admit(last_resort=True) for _ in range(5)]
    assert not any(permit.is_last_resort for permit in permits)
    permits[0].failed(OSError())
    permits[1].failed(OSError())
    assert breaker.state is State.OPEN, "its failures count as those of any call"


def test_it_is_the_probe_where_one_is_due() -> None:
    clock = Clock()
    breaker = half_open(clock)
    permit = breaker.admit(last_resort=True)
    assert (permit.is_probe, permit.is_last_resort) == (True, False)
    assert breaker.state is State.HALF_OPEN
    beside = breaker.admit(last_resort=True)
    assert (beside.is_probe, beside.is_last_resort) == (False, True)
    assert is_refused(breaker)
    permit.failed(OSError())
    assert state(breaker) is State.OPEN


def test_an_isolated_circuit_refuses_it() -> None:
    breaker = opened(Clock())
    before = breaker.admit(last_resort=True)
    breaker.isolate()
    assert is_refused(breaker)
    before.succeeded()
    assert breaker.state is State.OPEN, "the order came later"


def test_it_passes_where_a_ramp_holds_calls_back_and_changes_nothing_there() -> None:
    clock = Clock()
    policy = Policy(FailureRate(0.1, calls=10, minimum=1), Cooldown(10.0), ramp=60.0)
    breaker = CircuitBreaker("b", policy, clock=clock, random=lambda: 0.99)
    breaker.trip()
    breaker.reset()
    with pytest.raises(CircuitOpen):
        breaker.admit()
    for settle in (Permit.succeeded, Permit.released, lambda permit: permit.failed(OSError())):
        permit = breaker.admit(last_resort=True)
        assert permit.is_last_resort
        assert is_refused(breaker)
        settle(permit)
        assert (breaker.state, breaker.snapshot()["failures"]) == (State.CLOSED, 0)


def test_its_success_counts_also_when_the_circuit_has_tried_again_meanwhile() -> None:
    """An outage is one story: the last resort was begun in it, and shows that it is over."""
    clock = Clock()
    breaker = opened(clock)
    permit = breaker.admit(last_resort=True)
    clock.now += 10.0
    probe = breaker.admit()
    assert probe.is_probe
    probe.failed(OSError())
    assert breaker.state is State.OPEN
    permit.succeeded()
    assert state(breaker) is State.CLOSED


@pytest.mark.parametrize("order", ["trip", "reset", "isolate"])
def test_an_order_makes_it_stale(order: str) -> None:
    breaker = opened(Clock())
    permit = breaker.admit(last_resort=True)
    getattr(breaker, order)()
    now = breaker.snapshot()
    permit.succeeded()
    assert breaker.snapshot() == now


def test_it_is_stale_in_the_next_outage() -> None:
    breaker = opened(Clock(), max_probes=2)
    early, late = breaker.admit(last_resort=True), breaker.admit(last_resort=True)
    early.succeeded()
    assert breaker.state is State.CLOSED
    breaker.trip()
    late.succeeded()
    assert state(breaker) is State.OPEN


def test_as_many_must_succeed_as_of_probes() -> None:
    breaker = opened(Clock(), successes_to_close=3)
    for _ in range(2):
        breaker.admit(last_resort=True).succeeded()
        assert breaker.state is State.OPEN
    breaker.admit(last_resort=True).succeeded()
    assert state(breaker) is State.CLOSED


def test_it_is_no_call_that_was_turned_away() -> None:
    """`AfterCalls(2)`: two calls are turned away, the third is the probe, whatever was asked as a last resort."""
    breaker = opened(Clock(), recovery=AfterCalls(2))
    for _ in range(5):
        breaker.admit(last_resort=True).failed(OSError())
    assert breaker.snapshot()["calls_left"] == 2
    for _ in range(2):
        with pytest.raises(CircuitOpen):
            breaker.admit()
    assert breaker.admit(last_resort=True).is_probe


def test_its_success_closes_the_circuit_for_all_who_share_it() -> None:
    clock, store = Clock(), open_store(f"memory://{uuid.uuid4().hex}")
    here, there = (CircuitBreaker("b", Policy(recovery=Cooldown(10.0)), clock=clock, store=store) for _ in range(2))
    there.trip()
    assert here.state is State.OPEN
    permits = [each.admit(last_resort=True) for each in (here, there)]
    assert all(permit.is_last_resort for permit in permits), "each asks for itself: nothing is claimed"
    permits[0].failed(OSError())
    assert (here.state, there.state) == (State.OPEN, State.OPEN)
    permits[1].succeeded()
    assert (state(here), state(there)) == (State.CLOSED, State.CLOSED)


def test_it_outlasts_another_process_turning_the_circuit_half_open() -> None:
    clock, store = Clock(), open_store(f"memory://{uuid.uuid4().hex}")
    here, there = (CircuitBreaker("b", Policy(recovery=Cooldown(10.0)), clock=clock, store=store) for _ in range(2))
    there.trip()
    permit = here.admit(last_resort=True)
    clock.now += 10.0
    assert there.admit().is_probe
    assert here.state is State.HALF_OPEN
    permit.succeeded()
    assert (state(here), state(there)) == (State.CLOSED, State.CLOSED)
