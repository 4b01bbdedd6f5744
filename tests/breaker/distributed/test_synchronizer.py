"""What a fleet agrees on, several processes played in one: each promise of "Shared state", races, and bad days."""

from __future__ import annotations

import json
import logging
import threading
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failover.breaker import AfterCalls, CircuitBreaker, CircuitOpen, ConsecutiveFailures, Cooldown, State, Transition
from failover.breaker.distributed.record import ProbeLease, SharedRecord, UnreadableRecord, decode, encode
from failover.breaker.distributed.worker import worker_of
from failover.breaker.stores import open_store
from failover.breaker.stores.memory import MemoryStore
from tests.breaker.circuits import state
from tests.breaker.distributed.fleet import POLICY, Fleet, Process, Side, boom
from tests.clock import Clock


def all_are(fleet: Fleet, wanted: State) -> bool:
    return {process.state for process in fleet} == {wanted}


# --- tripping -------------------------------------------------------------------------------------------------


def test_one_process_that_trips_opens_every_process() -> None:
    fleet = Fleet()
    a, b, c = fleet
    a.fail()
    assert fleet.states() == ["open", "closed", "closed"]
    fleet.look()
    assert all_are(fleet, State.OPEN)
    assert [event.reason for event in b.events if isinstance(event, Transition)] == ["another process found it open"]
    with pytest.raises(CircuitOpen):
        c.circuit.call(int)


def test_a_closed_circuit_makes_no_store_operation_per_call() -> None:
    a, b, _ = fleet = Fleet()
    fleet.look()
    before = a.side.operations
    for _ in range(100):
        a.circuit.call(int)
        a.fail(1)
    assert a.side.operations == before
    assert state(a.circuit) is State.CLOSED
    b.fail(1)
    assert fleet.world.read(["remote"]) == {}


def test_a_cooldown_is_measured_from_the_trip_whoever_hears_of_it_when() -> None:
    fleet = Fleet(2)
    a, b = fleet
    fleet.look()
    a.fail()
    fleet.wait(4.0)
    b.look()
    late = fleet.new()
    fleet.wait(1.0)
    later = fleet.new()
    waits = [process.circuit.snapshot()["retry_after"] for process in (a, b, late, later)]
    assert waits == pytest.approx([5.0, 5.0, 5.0, 5.0])


def test_a_process_that_comes_after_the_cooldown_may_be_the_one_that_probes() -> None:
    fleet = Fleet(1)
    fleet.processes[0].fail()
    fleet.wait(12.0)
    late = fleet.new()
    assert state(late.circuit) is State.OPEN
    assert late.circuit.call(int) == 0
    assert state(late.circuit) is State.CLOSED


def test_an_age_in_whole_seconds_does_not_shorten_a_cooldown_that_was_seen_to_begin() -> None:
    fleet = Fleet(2)
    a, b = fleet
    fleet.look()
    a.fail()
    fleet.wait(0.2)
    fleet._store_clock.now += 0.8  # the store says 1 s; b looked 0.2 s ago and there was nothing
    b.look()
    assert b.circuit.snapshot()["retry_after"] == pytest.approx(9.8)


def test_of_two_that_trip_at_once_the_first_decides() -> None:
    fleet = Fleet(2)
    a, b = fleet
    a.fail()
    fleet.wait(3.0)
    b.fail()  # had not heard of it
    assert b.circuit.snapshot()["retry_after"] == pytest.approx(7.0)
    assert b.circuit.snapshot()["opened"] == 1


def test_calls_under_way_when_another_process_trips_are_late() -> None:
    fleet = Fleet(2)
    a, b = fleet
    good, bad = b.circuit.admit(), b.circuit.admit()
    a.fail()
    b.look()
    good.succeeded()
    assert state(b.circuit) is State.OPEN
    a.circuit.reset()
    b.look()
    bad.failed(OSError())
    assert b.circuit.snapshot()["failures"] == 0


def test_growth_of_the_cooldown_is_the_fleets() -> None:
    fleet = Fleet(3, replace(POLICY, recovery=Cooldown(10.0, factor=2.0)))
    for number, process in enumerate(fleet):
        process.fail()
        fleet.look()
        assert process.circuit.snapshot()["retry_after"] == pytest.approx(10.0 * 2**number)
        fleet.wait(10.0 * 2**number)


# --- probing --------------------------------------------------------------------------------------------------


def open_fleet(size: int = 3, **policy: Any) -> Fleet:
    """All open, the cooldown over."""
    fleet = Fleet(size, replace(POLICY, **policy))
    fleet.processes[0].fail()
    fleet.look()
    fleet.wait(10.0)
    return fleet


@pytest.mark.parametrize("places", [1, 2, 5])
@pytest.mark.parametrize("looks", [True, False])
def test_the_fleet_sends_max_probes_probes(places: int, looks: bool) -> None:
    fleet = open_fleet(4, max_probes=places)
    permits = []
    for _ in range(4):
        for process in fleet:
            permits.append(process.admitted())
            if looks:
                fleet.look()
    assert sum(permit is not None for permit in permits) == places
    assert all(permit is None or permit.is_probe for permit in permits)


def test_a_probe_that_succeeds_closes_all() -> None:
    fleet = open_fleet()
    assert fleet.processes[1].circuit.call(int) == 0
    fleet.look()
    assert all_are(fleet, State.CLOSED)


def test_a_probe_that_fails_keeps_all_open_for_another_cooldown() -> None:
    fleet = open_fleet()
    fleet.processes[1].fail(1)
    fleet.look()
    assert all_are(fleet, State.OPEN)
    fleet.wait(9.9)
    assert all(process.admitted() is None for process in fleet)
    fleet.wait(0.2)
    assert sum(process.admitted() is not None for process in fleet) == 1


def test_a_neutral_probe_gives_its_place_to_any_process() -> None:
    fleet = open_fleet()
    a, b, _ = fleet
    permit = a.circuit.admit()
    assert b.admitted() is None
    permit.released()
    b.look()
    assert b.admitted() is not None


def test_successes_are_counted_for_the_fleet_also_when_they_come_at_once() -> None:
    fleet = open_fleet(2, max_probes=2, successes_to_close=2)
    a, b = fleet
    first, second = a.circuit.admit(), b.circuit.admit()
    first.succeeded()
    assert state(a.circuit) is State.HALF_OPEN
    second.succeeded()  # had not heard of the first
    assert state(b.circuit) is State.CLOSED
    a.look()
    assert state(a.circuit) is State.CLOSED


def test_a_failed_probe_beats_a_success_that_is_not_enough() -> None:
    fleet = open_fleet(2, max_probes=2, successes_to_close=2)
    a, b = fleet
    first, second = a.circuit.admit(), b.circuit.admit()
    first.succeeded()
    second.failed(OSError())
    fleet.look()
    assert all_are(fleet, State.OPEN)
    assert a.circuit.snapshot()["opened"] == 2


def test_a_process_killed_while_it_probes_loses_the_place_after_the_lease() -> None:
    fleet = open_fleet(2, probe_lease=5.0)
    a, b = fleet
    assert a.admitted() is not None  # and is never heard of again
    fleet.wait(2.0)
    b.look()
    fleet.wait(2.9)
    assert b.admitted() is None
    late = fleet.new()
    assert late.admitted() is None
    fleet.wait(0.2)
    assert late.admitted() is not None
    assert b.admitted() is None


def test_a_claimed_place_that_no_call_takes_lapses_too() -> None:
    fleet = open_fleet(2, recovery=AfterCalls(1), probe_lease=5.0)
    a, b = fleet
    assert a.admitted() is None  # the one that is turned away; the place is claimed for the next
    assert b.admitted() is None
    assert b.admitted() is None
    fleet.wait(5.1)
    assert b.admitted() is not None
    assert a.admitted() is None


@pytest.mark.parametrize("taken", [True, False])
def test_a_process_suspended_for_longer_than_the_lease(taken: bool) -> None:
    fleet = open_fleet(2, probe_lease=5.0)
    a, b = fleet
    permit = a.circuit.admit()
    fleet.wait(60.0)  # a does nothing meanwhile, and hears nothing
    if taken:
        other = b.circuit.admit()
        permit.succeeded()
        assert fleet.states() == ["half-open", "half-open"], "its place was given away: what it brings is late"
        other.failed(OSError())
        a.look()
        assert state(a.circuit) is State.OPEN
    else:
        permit.succeeded()
        b.look()
        assert all_are(fleet, State.CLOSED)


def test_a_result_after_the_lease_does_not_undo_what_others_found() -> None:
    fleet = open_fleet(2, probe_lease=5.0)
    a, b = fleet
    permit = a.circuit.admit()
    fleet.wait(6.0)
    b.circuit.admit().failed(OSError())
    permit.succeeded()
    assert fleet.states() == ["open", "open"]


# --- by calls -------------------------------------------------------------------------------------------------


def by_calls(size: int, calls: int) -> Fleet:
    fleet = Fleet(size, replace(POLICY, recovery=AfterCalls(calls)))
    fleet.processes[0].fail()
    fleet.look()
    return fleet


def test_after_calls_turns_exactly_so_many_away() -> None:
    (a,) = by_calls(1, 20)
    for _ in range(2):
        assert [a.admitted() for _ in range(20)] == [None] * 20
        probe = a.admitted()
        assert probe is not None
        probe.failed(OSError())


def test_after_calls_the_first_to_finish_probes_and_all_count_anew() -> None:
    fleet = by_calls(3, 5)
    a, b, c = fleet
    for process, times in ((a, 4), (b, 5), (c, 3)):
        assert [process.admitted() for _ in range(times)] == [None] * times
    assert a.admitted() is None  # b has the place
    probe = b.admitted()
    assert probe is not None
    probe.failed(OSError())
    fleet.look()
    assert [process.circuit.snapshot()["calls_left"] for process in fleet] == [5, 5, 5]


def test_after_calls_counts_from_the_version_a_process_saw() -> None:
    fleet = by_calls(2, 5)
    a, b = fleet
    for _ in range(3):
        a.admitted()
    b.circuit.trip()  # a new version
    a.look()
    assert a.circuit.snapshot()["calls_left"] == 5


# --- by hand --------------------------------------------------------------------------------------------------


def test_orders_are_shared() -> None:
    fleet = Fleet()
    a, b, c = fleet
    a.circuit.trip()
    fleet.look()
    assert all_are(fleet, State.OPEN)
    b.circuit.reset()
    fleet.look()
    assert all_are(fleet, State.CLOSED)
    c.circuit.isolate()
    fleet.look()
    fleet.wait(1e6)
    assert all_are(fleet, State.OPEN)
    assert all(process.admitted() is None for process in fleet)
    assert fleet.new().circuit.snapshot()["isolated"]
    a.circuit.reset()
    fleet.look()
    assert all_are(fleet, State.CLOSED)


def test_an_order_outlives_a_race_with_a_trip() -> None:
    fleet = Fleet(2)
    a, b = fleet
    a.fail()
    b.circuit.isolate()  # had not heard of it
    a.look()
    assert [process.circuit.snapshot()["isolated"] for process in fleet] == [True, True]


@pytest.mark.parametrize("order", ["isolate", "reset"])
def test_an_order_of_a_process_that_has_just_started(order: str) -> None:
    fleet = Fleet(2)
    fleet.processes[0].fail()
    late = fleet.new()
    late.side.world.read(["remote"])
    getattr(late.circuit, order)()
    fleet.look()
    assert all_are(fleet, State.OPEN if order == "isolate" else State.CLOSED)


def test_a_reset_makes_others_forget_their_failures() -> None:
    fleet = Fleet(2)
    a, b = fleet
    b.fail(1)
    a.circuit.reset()
    b.look()
    b.fail(1)
    assert state(b.circuit) is State.CLOSED


def test_a_process_that_starts_does_not_forget_failures_for_an_old_record() -> None:
    fleet = Fleet(1)
    fleet.processes[0].circuit.trip()
    fleet.processes[0].circuit.reset()
    late = fleet.new()
    late.fail(1)
    late.look()
    late.fail(1)
    assert state(late.circuit) is State.OPEN


# --- a broken store -------------------------------------------------------------------------------------------


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING and "store" in r.getMessage()]


def test_unreachable_from_the_start_each_decides_alone_with_one_warning(caplog: pytest.LogCaptureFixture) -> None:
    fleet = Fleet(0)
    side = Side(fleet.world)
    side.down = True
    circuit = CircuitBreaker("remote", POLICY, clock=fleet.clock, store=side)
    for _ in range(2):
        with pytest.raises(OSError, match="down"):
            circuit.call(boom)
    assert state(circuit) is State.OPEN
    for _ in range(3):
        worker_of(side).turn(refresh=True)
    fleet.wait(10.0)
    assert circuit.call(int) == 0
    assert state(circuit) is State.CLOSED
    assert len(warnings(caplog)) == 1


def test_a_trip_while_the_store_is_down_is_published_when_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    fleet = Fleet(2)
    a, b = fleet
    fleet.look()
    a.side.down = True
    a.fail()
    a.look()
    assert fleet.states() == ["open", "closed"]
    fleet.wait(4.0)
    a.side.down = False
    fleet.look()
    assert fleet.states() == ["open", "open"]
    assert b.circuit.snapshot()["retry_after"] == pytest.approx(6.0)
    assert len(warnings(caplog)) == 1


def test_a_change_is_dropped_when_others_went_on_meanwhile() -> None:
    fleet = Fleet(2)
    a, b = fleet
    b.circuit.trip()
    fleet.look()
    a.side.down = True
    a.look()
    a.circuit.isolate()
    b.circuit.reset()
    a.look()
    assert a.circuit.snapshot()["isolated"]
    a.side.down = False
    a.look()
    assert all_are(fleet, State.CLOSED)


@pytest.mark.parametrize("when", ["closed", "open", "half-open"])
def test_a_store_lost_in_any_state_and_back(when: str) -> None:
    fleet = Fleet(2)
    a, b = fleet
    probe = None
    if when != "closed":
        a.fail()
    fleet.look()
    if when == "half-open":
        fleet.wait(10.0)
        probe = a.circuit.admit()
        fleet.look()
    a.side.down = b.side.down = True
    fleet.look()
    assert fleet.states() == [when, when], "nobody forgets what was known"
    if when == "closed":
        assert a.circuit.call(int) == 0
    elif when == "open":
        assert a.admitted() is None
        fleet.wait(10.0)
        assert a.circuit.call(int) == 0, "alone, it probes alone"
    else:
        assert probe is not None
        assert b.admitted() is None, "the place of another process is known still"
        probe.succeeded()
    assert state(a.circuit) is State.CLOSED
    a.side.down = b.side.down = False
    fleet.look()
    fleet.look()
    assert all_are(fleet, State.CLOSED)


def test_an_open_circuit_stays_open_when_the_store_forgets_it() -> None:
    fleet = Fleet(2)
    fleet.processes[0].fail()
    fleet.look()
    fleet.wait(4.0)
    fleet.world._records.clear()
    fleet.look()
    fleet.look()
    assert all_are(fleet, State.OPEN)
    late = fleet.new()
    assert late.circuit.snapshot()["retry_after"] == pytest.approx(6.0), "published again, and no longer than it was"


def test_a_write_whose_answer_was_lost_is_known_again() -> None:
    fleet = Fleet(2)
    a, b = fleet
    fleet.look()
    a.side.loses_answers = True
    a.fail()
    a.side.loses_answers = False
    a.circuit.reset()
    fleet.look()
    fleet.look()
    assert all_are(fleet, State.CLOSED), "the record that it found was its own: its later order goes over it"
    b.fail()
    a.look()
    assert state(a.circuit) is State.OPEN


def test_a_success_whose_answer_was_lost_counts_once() -> None:
    fleet = open_fleet(1, max_probes=2, successes_to_close=2)
    (a,) = fleet
    first, second = a.circuit.admit(), a.circuit.admit()
    a.side.loses_answers = True
    first.succeeded()
    a.side.loses_answers = False
    a.look()
    assert state(a.circuit) is State.HALF_OPEN
    second.succeeded()
    assert state(a.circuit) is State.CLOSED


def test_a_claim_whose_answer_was_lost_is_decided_here() -> None:
    fleet = open_fleet(1)
    (a,) = fleet
    a.side.loses_answers = True
    assert a.circuit.call(int) == 0
    assert state(a.circuit) is State.CLOSED
    a.side.loses_answers = False
    a.look()
    assert state(a.circuit) is State.CLOSED, "the claim that it found was its own"
    a.look()
    assert decode(fleet.held().body).state is State.CLOSED


class Defect(Side):
    def read(self, names: Any) -> Any:
        raise ZeroDivisionError("user's store\nwith a second line")


def test_a_store_that_raises_anything_delays_and_fails_no_call(caplog: pytest.LogCaptureFixture) -> None:
    circuit = CircuitBreaker("remote", POLICY, store=Defect(MemoryStore()))
    assert circuit.call(int) == 0
    circuit.trip()
    assert len(warnings(caplog)) == 1
    assert "\n" not in warnings(caplog)[0]


# --- garbage --------------------------------------------------------------------------------------------------

GOOD = json.loads(encode(SharedRecord(State.OPEN, "e", wait=5.0)))
WRONG: list[dict[str, Any]] = [
    {"format": 2},
    {"format": "1"},
    {"format": 10**400},
    {"state": "ajar"},
    {"state": []},
    {"epoch": ""},
    {"epoch": "x" * 65},
    {"wait": -1},
    {"wait": "5"},
    {"wait": float("nan")},
    {"wait": float("inf")},
    {"wait": 10**400},
    {"opened": -1},
    {"opened": True},
    {"failures": 1.5},
    {"places": 3},
    {"places": [["h", 1]]},
    {"places": [["h", 1, -1]]},
    {"places": [[1, 1, 1]]},
    {"failed": -1},
    {"last_resorts": 3},
    {"last_resorts": [["h"]]},
    {"last_resorts": [["h", -1]]},
]
GARBAGE = [
    b"",
    b"x",
    b"\xff\xfe",
    b"null",
    b"[]",
    b"{}",
    b"[" * 16_000,
    b"9" * 16_000,
    encode(SharedRecord(State.OPEN, "e"))[:-7],
    *(json.dumps({**GOOD, **wrong}).encode() for wrong in WRONG),
]


@pytest.mark.parametrize("body", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_is_left_alone_and_the_circuit_decides_alone(body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    fleet = Fleet(0)
    fleet.world.compare_and_set("remote", body, None)
    fleet.processes = [fleet.new(), fleet.new()]
    a = fleet.processes[0]
    a.fail()
    fleet.look()
    fleet.look()
    assert fleet.states() == ["open", "closed"]
    fleet.wait(10.0)
    assert a.circuit.call(int) == 0
    assert state(a.circuit) is State.CLOSED
    fleet.look()
    assert fleet.held().body == body
    assert len(warnings(caplog)) == 0
    alone = [r.getMessage() for r in caplog.records if "decides alone" in r.getMessage()]
    assert len(alone) == 2, "one per process"
    assert all(len(text) < 300 and text.isprintable() for text in alone)


def test_after_garbage_a_good_record_is_shared_again() -> None:
    fleet = Fleet(0)
    version = fleet.world.compare_and_set("remote", b"x", None)
    fleet.processes = [fleet.new(), fleet.new()]
    fleet.world.compare_and_set("remote", encode(SharedRecord(State.OPEN, "e", wait=5.0)), version)
    fleet.look()
    assert all_are(fleet, State.OPEN)
    fleet.wait(5.0)
    fleet.processes[0].circuit.call(int)
    fleet.look()
    assert all_are(fleet, State.CLOSED)


def test_a_wait_or_lease_without_end_is_cut_to_the_policys() -> None:
    fleet = Fleet(0)
    version = fleet.world.compare_and_set("remote", encode(SharedRecord(State.OPEN, "e", wait=1e300)), None)
    late = fleet.new()
    assert late.circuit.snapshot()["retry_after"] == 300.0
    places = (ProbeLease("other", 1, 1e300),)
    fleet.world.compare_and_set("remote", encode(SharedRecord(State.HALF_OPEN, "f", places=places)), version)
    late.look()
    fleet.wait(30.1)
    assert late.admitted() is not None


def test_a_record_survives_being_written_and_read() -> None:
    record = SharedRecord(
        State.HALF_OPEN, "e", None, False, 3, 4, 5, 6, (ProbeLease("h", 1, 2.5), ProbeLease("i", 2, 0.0))
    )
    record = replace(record, failed=7, last_resorts=(("h", 1), ("i", 2)))
    assert decode(encode(record)) == record
    with pytest.raises(UnreadableRecord):
        decode(encode(record)[:-1])


def test_fields_of_a_later_minor_version_are_no_garbage() -> None:
    assert decode(json.dumps({**GOOD, "new": 1}).encode()).wait == 5.0


def test_processes_whose_recovery_differs_still_probe() -> None:
    fleet = Fleet(1, replace(POLICY, recovery=AfterCalls(5)))
    fleet.processes[0].fail()
    other = fleet.new(POLICY)
    assert other.circuit.snapshot()["retry_after"] == pytest.approx(10.0)


# --- one process, several circuits or threads -----------------------------------------------------------------


def test_two_circuits_of_one_name_in_one_process_are_one() -> None:
    store, clock = MemoryStore(clock=Clock()), Clock()
    a, b = (CircuitBreaker("remote", POLICY, clock=clock, store=store) for _ in "ab")
    a.trip()
    assert state(b) is State.OPEN
    clock.now += 10
    probe = b.admit()
    with pytest.raises(CircuitOpen):
        a.admit()
    probe.succeeded()
    assert [a.state, b.state] == [State.CLOSED, State.CLOSED]
    other = CircuitBreaker("another", POLICY, clock=clock, store=store)
    other.trip()
    assert state(a) is State.CLOSED


def test_a_circuit_that_nobody_holds_is_forgotten() -> None:
    import gc
    import weakref

    store = MemoryStore()
    gone = weakref.ref(CircuitBreaker("remote", POLICY, store=store))
    gc.collect()
    assert gone() is None
    worker_of(store).turn(refresh=True)
    assert worker_of(store)._members == {}


def test_a_listener_that_uses_its_circuit_meanwhile() -> None:
    store, clock = MemoryStore(), Clock()
    CircuitBreaker("remote", POLICY, clock=clock, store=store).trip()
    states: list[Any] = []
    late: list[CircuitBreaker] = []

    def listen(event: Any) -> None:
        states.append(event.new)
        if late and event.new is State.OPEN:
            late[0].reset()

    late.append(CircuitBreaker("remote", POLICY, clock=clock, store=store, listeners=[listen]))
    assert states == [State.OPEN]
    late[0].reset()
    CircuitBreaker("remote", POLICY, clock=clock, store=store).trip()
    assert states[-1] is State.CLOSED


def test_threads_of_several_processes_send_one_probe() -> None:
    for _ in range(10):
        fleet = open_fleet(3)
        barrier = threading.Barrier(12)
        admitted: list[Any] = []

        def ask(process: Process, barrier: threading.Barrier = barrier, admitted: list[Any] = admitted) -> None:
            barrier.wait()
            for _ in range(10):
                permit = process.admitted()
                if permit is not None:
                    admitted.append(permit)

        threads = [threading.Thread(target=ask, args=[process]) for process in fleet for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(admitted) == 1


# --- any order of things --------------------------------------------------------------------------------------

STEPS = st.lists(
    st.tuples(
        st.integers(0, 2),
        st.sampled_from(
            ["call", "call", "good", "bad", "neutral", "look", "wait", "trip", "reset", "isolate", "cut", "lose"]
        ),
    ),
    max_size=60,
)


@pytest.mark.parametrize("cuts", [False, True])
@pytest.mark.parametrize("places", [1, 2])
@settings(max_examples=150, deadline=None)
@given(steps=STEPS)
def test_whatever_happens_probes_are_few_and_all_agree_in_the_end(
    steps: list[tuple[int, str]], places: int, cuts: bool
) -> None:
    logging.disable(logging.CRITICAL)
    fleet = Fleet(3, replace(POLICY, max_probes=places, successes_to_close=places))
    under_way: list[tuple[int, float, Any]] = []
    for number, what in steps:
        process = fleet.processes[number]
        if what == "call":
            permit = process.admitted()
            if permit is not None:
                under_way.append((number, fleet.clock.now + 30.0, permit))
        elif what in ("good", "bad", "neutral"):
            mine = [each for each in under_way if each[0] == number]
            if mine:
                under_way.remove(mine[0])
                {"good": mine[0][2].succeeded, "neutral": mine[0][2].released}.get(
                    what, lambda permit=mine[0][2]: permit.failed(OSError())
                )()
        elif what == "look":
            process.look()
        elif what == "wait":
            fleet.wait(4.0)
        elif what == "cut":
            process.side.down = cuts and not process.side.down
        elif what == "lose":
            process.side.loses_answers = cuts and not process.side.loses_answers
        else:
            getattr(process.circuit, what)()
        if not cuts:
            held = fleet.world.read(["remote"]).get("remote")
            now = decode(held.body) if held else None
            if now is not None and now.state is State.HALF_OPEN:
                live = [place for place in now.places if place.left > held.age]  # type: ignore[union-attr]
                assert len(live) <= places
    for process in fleet:
        process.side.down = process.side.loses_answers = False
    for _ in range(3):
        fleet.look()
    logging.disable(logging.NOTSET)
    assert len(set(fleet.states())) == 1
    held = fleet.world.read(["remote"]).get("remote")
    assert held is None or decode(held.body).state is fleet.processes[0].state
    isolated = {process.circuit.snapshot()["isolated"] for process in fleet}
    assert len(isolated) == 1


def test_memory_by_url_is_shared_in_a_process() -> None:
    a, b = (CircuitBreaker("remote", POLICY, store=open_store("memory://here")) for _ in "ab")
    a.isolate()
    assert b.snapshot()["isolated"]
    assert ConsecutiveFailures(2) == POLICY.trip
