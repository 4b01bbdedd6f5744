"""What processes count together: the successes that close a circuit and the failures that open it again, each once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failover.breaker import AfterCalls, State
from tests.breaker.circuits import state
from tests.breaker.distributed.fleet import POLICY, Fleet, Process


def open_fleet(size: int = 2, **policy: Any) -> Fleet:
    """All open, all know it, and no probe is due."""
    fleet = Fleet(size, replace(POLICY, **policy))
    fleet.processes[0].circuit.trip()
    fleet.look()
    assert fleet.states() == ["open"] * size
    return fleet


def last_resort(process: Process) -> None:
    process.circuit.admit(last_resort=True).succeeded()


def test_last_resorts_that_succeed_at_once_in_two_processes_close_the_circuit_together() -> None:
    fleet = open_fleet(successes_to_close=2)
    a, b = fleet
    last_resort(a)
    assert fleet.states() == ["open", "open"]
    last_resort(b)  # had not heard of the first
    a.look()
    assert fleet.states() == ["closed", "closed"]


def test_who_comes_later_counts_on_from_what_is_stored() -> None:
    fleet = open_fleet(1, successes_to_close=2)
    last_resort(fleet.processes[0])
    late = fleet.new()
    assert state(late.circuit) is State.OPEN
    last_resort(late)
    fleet.look()
    assert (late.state, *fleet.states()) == (State.CLOSED, "closed")


def test_a_success_whose_answer_was_lost_counts_once() -> None:
    fleet = open_fleet(successes_to_close=3)
    a, b = fleet
    a.side.loses_answers = True
    last_resort(a)
    a.side.loses_answers = False
    last_resort(b)
    fleet.look()
    assert fleet.states() == ["open", "open"], "two have succeeded, and three must"
    last_resort(a)
    fleet.look()
    assert fleet.states() == ["closed", "closed"]


def test_last_resorts_beside_a_probe_count_with_it() -> None:
    fleet = open_fleet(successes_to_close=2)
    a, b = fleet
    fleet.wait(10.0)
    probe = a.circuit.admit()
    b.look()
    last_resort(b)
    probe.succeeded()  # had not heard of it
    b.look()
    assert fleet.states() == ["closed", "closed"]


def test_a_success_of_the_outage_before_is_none_of_this_one() -> None:
    fleet = open_fleet(successes_to_close=2)
    a, b = fleet
    last_resort(a)
    a.circuit.trip()
    fleet.look()
    last_resort(b)
    fleet.look()
    assert fleet.states() == ["open", "open"]


def test_failed_probes_of_two_processes_open_it_again_together() -> None:
    fleet = open_fleet(max_probes=2, failures_to_reopen=2)
    a, b = fleet
    fleet.wait(10.0)
    first, second = a.circuit.admit(), b.circuit.admit()
    first.failed(OSError())
    assert fleet.states() == ["half-open", "half-open"]
    second.failed(OSError())  # had not heard of the first
    a.look()
    assert fleet.states() == ["open", "open"]
    assert [process.circuit.snapshot()["opened"] for process in fleet] == [2, 2]


def test_a_failed_probe_whose_answer_was_lost_counts_once() -> None:
    fleet = open_fleet(max_probes=2, failures_to_reopen=3)
    a, b = fleet
    fleet.wait(10.0)
    first, second = a.circuit.admit(), b.circuit.admit()
    a.side.loses_answers = True
    first.failed(OSError())
    a.side.loses_answers = False
    second.failed(OSError())
    fleet.look()
    assert fleet.states() == ["half-open", "half-open"], "two have failed, and three must"


# What one of three processes does: its last resort succeeds, fails, or it looks; and whether its answers are lost.
DOES = st.tuples(st.integers(0, 2), st.sampled_from(["succeeds", "fails", "looks"]), st.booleans())


@pytest.mark.parametrize("needed", [2, 4])
@given(st.lists(DOES, max_size=14))
@settings(max_examples=150, deadline=None)
def test_every_success_of_a_last_resort_counts_once(needed: int, acts: list[tuple[int, str, bool]]) -> None:
    fleet = open_fleet(3, successes_to_close=needed, recovery=AfterCalls(1000))
    successes = 0
    for number, what, lost in acts:
        process = fleet.processes[number]
        if process.state is State.CLOSED:
            break
        process.side.loses_answers = lost
        if what == "looks":
            process.look()
        else:
            permit = process.circuit.admit(last_resort=True)
            if what == "succeeds":
                permit.succeeded()
                successes += 1
            else:
                permit.failed(OSError())
        process.side.loses_answers = False
    for _ in range(3):
        fleet.look()
    assert set(fleet.states()) == {"closed" if successes >= needed else "open"}, successes


@given(
    ends=st.lists(st.sampled_from(["succeeded", "failed", "released"]), min_size=4, max_size=4),
    order=st.permutations(range(4)),
    lost=st.lists(st.booleans(), min_size=4, max_size=4),
    looks=st.lists(st.integers(0, 3), max_size=6),
    needed=st.integers(1, 4),
    allowed=st.integers(1, 4),
)
@settings(max_examples=150, deadline=None)
def test_every_result_of_a_probe_counts_once(
    ends: list[str], order: list[int], lost: list[bool], looks: list[int], needed: int, allowed: int
) -> None:
    fleet = open_fleet(4, max_probes=4, successes_to_close=needed, failures_to_reopen=allowed)
    fleet.wait(10.0)
    probes = [process.circuit.admit() for process in fleet]
    looking = iter(looks)
    successes = failures = 0
    for number in order:
        process = fleet.processes[number]
        if successes >= needed or failures >= allowed:
            break  # it is over, whether this one has heard of it or not
        if lost[number]:
            process.look()  # or the write would fail, too: a decision made without the store yields to what is there
        process.side.loses_answers = lost[number]
        if ends[number] == "failed":
            probes[number].failed(OSError())
            failures += 1
        else:
            getattr(probes[number], ends[number])()
            successes += ends[number] == "succeeded"
        process.side.loses_answers = False
        if (at := next(looking, None)) is not None:
            fleet.processes[at].look()
    for _ in range(3):
        fleet.look()
    wanted = "closed" if successes >= needed else "open" if failures >= allowed else "half-open"
    assert set(fleet.states()) == {wanted}, (successes, failures)
