"""The ramp: for some time after it has closed, a circuit admits a share of the calls that grows to all."""

from __future__ import annotations

import pickle
import random
from dataclasses import replace
from typing import Any

import pytest

from failover.breaker import (
    CallRefused,
    CircuitBreaker,
    CircuitOpen,
    ConsecutiveFailures,
    Cooldown,
    FailureRate,
    Policy,
    State,
)
from tests.breaker.circuits import state
from tests.breaker.distributed.fleet import POLICY, Fleet
from tests.breaker.locks import locks_taken
from tests.clock import Clock


class Dice:
    """A `random` that gives what it is told to."""

    def __init__(self) -> None:
        self.next = 0.0

    def __call__(self) -> float:
        return self.next


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def dice() -> Dice:
    return Dice()


def recovered(clock: Clock, dice: Any, **policy: Any) -> CircuitBreaker:
    """A circuit that a probe has just closed."""
    policy = {"trip": ConsecutiveFailures(2), "recovery": Cooldown(10.0), "ramp": 90.0, **policy}
    breaker = CircuitBreaker("b", Policy(**policy), clock=clock, random=dice)
    breaker.trip()
    clock.now += 10.0
    assert breaker.call(int) == 0
    assert state(breaker) is State.CLOSED
    return breaker


def admits(breaker: CircuitBreaker) -> bool:
    try:
        breaker.call(int)
    except CircuitOpen:
        return False
    return True


@pytest.mark.parametrize(("after", "share"), [(0.0, 0.1), (10.0, 0.2), (45.0, 0.55), (89.0, 0.99)])
def test_the_share_grows_from_a_tenth_to_all(after: float, share: float, clock: Clock, dice: Dice) -> None:
    breaker = recovered(clock, dice)
    clock.now += after
    assert breaker.snapshot()["ramp"] == pytest.approx(share)
    dice.next = share - 0.001
    assert admits(breaker)
    dice.next = share + 0.001
    assert not admits(breaker)


def test_at_its_end_all_are_admitted_and_a_success_takes_no_lock_again(clock: Clock, dice: Dice) -> None:
    breaker = recovered(clock, dice)
    assert locks_taken(breaker) > 0
    dice.next = 0.999
    clock.now += 90.0
    assert admits(breaker)
    assert breaker.snapshot()["ramp"] is None
    assert locks_taken(breaker) == 0


def test_about_so_many_of_many_calls_are_admitted(clock: Clock) -> None:
    breaker = recovered(clock, random.Random(7).random)
    clock.now += 40.0  # half of the way
    assert sum(admits(breaker) for _ in range(10_000)) == pytest.approx(5000, abs=200)


@pytest.mark.parametrize("form", ["call", "decorator", "with", "admit", "generator"])
def test_calls_held_back_are_refused_like_those_of_an_open_circuit(form: str, clock: Clock, dice: Dice) -> None:
    breaker = recovered(clock, dice)
    heard: list[object] = []
    breaker.subscribe(heard.append)
    dice.next = 0.5

    def block() -> None:
        with breaker:
            pytest.fail("the block was entered")

    def numbers() -> Any:
        yield pytest.fail("the generator was begun")

    ways: dict[str, Any] = {
        "call": lambda: breaker.call(pytest.fail, "the call was made"),
        "decorator": breaker(lambda: pytest.fail("the call was made")),
        "with": block,
        "admit": breaker.admit,
        "generator": lambda: next(breaker(numbers)()),
    }
    with pytest.raises(
        CircuitOpen, match="circuit 'b' has just closed and admits only a share of the calls"
    ) as refused:
        ways[form]()
    assert refused.value.retry_after is None
    assert str(pickle.loads(pickle.dumps(refused.value))) == str(refused.value)  # noqa: S301
    assert heard == [CallRefused("b", None, 0, 2)]


def test_failures_count_and_open_it_again(clock: Clock, dice: Dice) -> None:
    breaker = recovered(clock, dice)
    for _ in range(2):
        breaker.admit().failed(OSError())
    assert state(breaker) is State.OPEN
    assert breaker.snapshot()["ramp"] is None


def test_a_call_admitted_before_the_end_of_the_ramp_counts_after_it(clock: Clock, dice: Dice) -> None:
    breaker = recovered(clock, dice)
    early = breaker.admit()
    clock.now += 91.0
    assert admits(breaker)
    early.failed(OSError())
    assert breaker.snapshot()["failures"] == 1


def test_a_window_goes_on_counting(clock: Clock, dice: Dice) -> None:
    breaker = recovered(clock, dice, trip=FailureRate(0.5, calls=4, minimum=4))
    for _ in range(2):
        breaker.admit().succeeded()
        breaker.admit().failed(OSError())
    assert state(breaker) is State.OPEN


def test_a_new_circuit_does_not_ramp(clock: Clock) -> None:
    breaker = CircuitBreaker("b", Policy(ramp=90.0), clock=clock, random=lambda: 0.999)
    assert admits(breaker)
    assert breaker.snapshot()["ramp"] is None


def test_reset_of_an_isolated_circuit_begins_a_ramp_and_a_second_one_ends_it(clock: Clock, dice: Dice) -> None:
    breaker = CircuitBreaker("b", Policy(ramp=90.0), clock=clock, random=dice)
    breaker.isolate()
    breaker.reset()
    assert breaker.snapshot()["ramp"] == pytest.approx(0.1)
    breaker.reset()
    assert breaker.snapshot()["ramp"] is None


# --- shared ---------------------------------------------------------------------------------------------------


def ramping_fleet(size: int = 2) -> Fleet:
    fleet = Fleet(size, replace(POLICY, ramp=90.0))
    fleet.processes[0].fail()
    fleet.look()
    fleet.wait(10.0)
    fleet.processes[0].circuit.call(int)  # a store without I/O gives it the probe's place at once
    assert fleet.processes[0].state is State.CLOSED
    return fleet


def shares(fleet: Fleet) -> list[Any]:
    return [process.circuit.snapshot()["ramp"] for process in fleet]


def test_the_fleet_ramps_from_the_same_moment_whoever_hears_of_it_when() -> None:
    fleet = ramping_fleet(3)
    _, b, c = fleet
    b.look()
    fleet.wait(9.0)
    c.look()
    late = fleet.new()
    assert shares(fleet) == pytest.approx([0.19, 0.19, 0.19], abs=0.02)
    assert late.circuit.snapshot()["ramp"] == pytest.approx(0.19, abs=0.02)


def test_a_process_that_starts_after_the_ramp_admits_all() -> None:
    fleet = ramping_fleet()
    fleet.wait(91.0)
    assert fleet.new().circuit.snapshot()["ramp"] is None


def test_a_second_reset_ends_the_ramp_of_all() -> None:
    fleet = ramping_fleet()
    fleet.look()
    fleet.processes[1].circuit.reset()
    fleet.look()
    assert shares(fleet) == [None, None]


def test_a_process_whose_policy_has_no_ramp_admits_all() -> None:
    fleet = ramping_fleet(1)
    assert fleet.new(POLICY).circuit.snapshot()["ramp"] is None
