"""The rules: the table is total, does what the diagram above it shows, and touches nothing but its arguments."""

from __future__ import annotations

import ast
import copy
import inspect
from collections.abc import Iterator
from dataclasses import FrozenInstanceError, replace
from itertools import product
from pathlib import Path

import pytest

from failover.breaker import AfterCalls, CircuitBreaker, ConsecutiveFailures, Cooldown, Policy, machine
from failover.breaker.errors import ImpossibleEvent
from failover.breaker.machine import RESULTS, TABLE, Context, Event, Record, State, Ticket, step

CLOSED, OPEN, HALF_OPEN = State.CLOSED, State.OPEN, State.HALF_OPEN
ORDERS = {Event.TRIP, Event.RESET, Event.ISOLATE}
ADMITTING = {Event.CALL, Event.LAST_RESORT}
OF_LAST_RESORT = {Event.LAST_RESORT_SUCCESS, Event.LAST_RESORT_END}
LEASE = 10.0

RECOVERIES: tuple[Cooldown | AfterCalls, ...] = (Cooldown(5.0, factor=2.0), AfterCalls(2))
POLICIES = [
    Policy(
        ConsecutiveFailures(threshold),
        recovery,
        max_probes=probes,
        successes_to_close=successes,
        probe_lease=LEASE,
        ramp=None if threshold == 1 else 20.0,
    )
    for threshold in (1, 2)
    for recovery in RECOVERIES
    for probes in (1, 2)
    for successes in (1, 2)
]

Edge = tuple[State, State]


# --- the diagram, read as a person reads it: from each arrowhead back along the line to where it begins ---------------

_HEADS = {">": (0, 1), "<": (0, -1), "^": (-1, 0), "v": (1, 0)}
_LINES = {"-": "h", "|": "v", "+": "hv"}


def edges_of_the_diagram() -> set[Edge]:
    rows = [row.ljust(80) for row in inspect.cleandoc(machine.__doc__ or "").splitlines()]
    top = next(at for at, row in enumerate(rows) if "+--" in row)
    bottom = max(at for at, row in enumerate(rows) if "--+" in row)
    grid = rows[top : bottom + 1]
    owner: dict[tuple[int, int], State] = {}
    for state in State:
        label = f"| {state.name.replace('_', '-')} |"
        at = next(at for at, row in enumerate(grid) if label in row)
        left = grid[at].index(label)
        owner |= {(y, x): state for y in (at - 1, at, at + 1) for x in range(left, left + len(label))}
    found = set()
    for y, row in enumerate(grid):
        for x, char in enumerate(row):
            if char in _HEADS and (y, x) not in owner:
                dy, dx = _HEADS[char]
                target = next(owner[y + n * dy, x + n * dx] for n in (1, 2) if (y + n * dy, x + n * dx) in owner)
                found.add((_begin(grid, owner, y, x, (-dy, -dx)), target))
    return found


def _begin(grid: list[str], owner: dict[tuple[int, int], State], y: int, x: int, direction: tuple[int, int]) -> State:
    while True:
        y, x = y + direction[0], x + direction[1]
        if (y, x) in owner:
            return owner[y, x]
        if grid[y][x] == "+":
            along = "v" if direction[0] == 0 else "h"
            turns = [(1, 0), (-1, 0)] if along == "v" else [(0, 1), (0, -1)]
            direction = next(
                (dy, dx)
                for dy, dx in turns
                if 0 <= y + dy < len(grid) and along in _LINES.get(grid[y + dy][x + dx], "")
            )


# --- every record that a few steps can reach --------------------------------------------------------------------------


def tickets(record: Record) -> Iterator[Ticket]:
    """All that can come back to `record`, late ones among them."""
    yield Ticket(record.era - 1)
    yield Ticket(record.era - 1, 1)
    if record.state is CLOSED:
        yield Ticket(record.era)
    for number, _ in record.last_resorts:
        yield Ticket(record.era, last_resort=number)
        yield Ticket(record.era - 1, last_resort=number)
    if record.issued:
        yield Ticket(record.era, last_resort=record.issued)
    if record.state is HALF_OPEN:
        yield from (Ticket(record.era, number) for number in range(1, record.issued + 1))


def moves(record: Record, policy: Policy, now: float) -> Iterator[tuple[Event, Context]]:
    for event in (event for event in Event if event not in OF_LAST_RESORT):
        for ticket in tickets(record) if event in RESULTS else (None,):
            for later in (now, now + 5.0, now + 40.0):
                yield event, Context(policy, later, lambda: 0.5, ticket)


def explore(policy: Policy, depth: int = 6) -> Iterator[tuple[Record, Event, Context, Record, Ticket | None]]:
    """Each step that is possible from any record within `depth` steps of a new circuit."""
    seen: set[Record] = set()
    edge = [(Record(), 0.0)]
    for _ in range(depth):
        ahead = []
        for record, now in edge:
            for event, context in moves(record, policy, now):
                outcome = step(record, event, context)
                yield record, event, context, outcome.record, outcome.ticket
                # The era and the two counts only grow: records that differ in them alone behave alike.
                alike = replace(outcome.record, era=0, opened=0)
                if alike not in seen:
                    seen.add(alike)
                    ahead.append((outcome.record, context.now))
        edge = ahead[:300]


def test_the_table_is_total() -> None:
    assert set(TABLE) == set(product(State, Event))


def test_only_results_of_plain_calls_in_an_open_circuit_are_impossible() -> None:
    assert {key for key, rule in TABLE.items() if rule is None} == {(OPEN, event) for event in RESULTS}


def test_the_diagram_is_read_rightly() -> None:
    between = {(CLOSED, OPEN), (OPEN, HALF_OPEN), (HALF_OPEN, OPEN), (HALF_OPEN, CLOSED), (OPEN, CLOSED)}
    assert edges_of_the_diagram() == between


# The diagram's arrows with their labels: what makes each happen, and nothing else does.
ARROWS = {
    (CLOSED, OPEN, Event.FAILURE),
    (OPEN, HALF_OPEN, Event.CALL),
    (OPEN, HALF_OPEN, Event.LAST_RESORT),
    (OPEN, CLOSED, Event.SUCCESS),  # of a last resort: those of other calls are stale
    (HALF_OPEN, OPEN, Event.FAILURE),
    (HALF_OPEN, CLOSED, Event.SUCCESS),
}
GOALS = {Event.TRIP: OPEN, Event.ISOLATE: OPEN, Event.RESET: CLOSED}


def test_the_table_does_what_the_diagram_shows() -> None:
    """That a few steps go along each arrow; that no step goes elsewhere, is found out below with more of them."""
    by_calls: set[tuple[State, State, Event]] = set()
    by_hand: set[tuple[State, Event]] = set()
    for policy in POLICIES:
        for old, event, _, new, _ in explore(policy, depth=4):
            if event in ORDERS:
                by_hand.add((old.state, event))
            elif old.state is not new.state:
                by_calls.add((old.state, new.state, event))
    assert {(old, new) for old, new, _ in by_calls} == edges_of_the_diagram()
    assert by_calls == ARROWS
    assert by_hand == set(product(State, ORDERS))
    assert set(GOALS) == set(ORDERS)


@pytest.mark.parametrize("policy", POLICIES)
def test_what_holds_after_every_step(policy: Policy) -> None:
    steps = 0
    for old, event, context, new, ticket in explore(policy):
        steps += 1
        if event in ORDERS:
            assert new.state is GOALS[event]
        elif new.state is not old.state:
            assert (old.state, new.state, event) in ARROWS
        assert (new is old) or (new != old), "who holds a record can see by identity that nothing has happened"
        assert new.era >= old.era
        assert new.opened >= old.opened
        assert new.issued >= old.issued
        if new.state is not old.state:
            assert new.era > old.era, "a ticket of the old state would count in the new one"
            assert new.opened - old.opened == (new.state is OPEN)
        elif event in RESULTS:
            assert new.era == old.era
        assert len(new.probes) <= policy.max_probes
        assert not new.probes or new.state is HALF_OPEN
        assert not new.isolated or new.state is OPEN
        assert len(new.last_resorts) <= policy.max_probes
        if context.ticket is not None and context.ticket.last_resort and event is not Event.SUCCESS:
            assert replace(new, last_resorts=()) == replace(old, last_resorts=()), "only its success changes anything"
        if old.state is not new.state and (event in ORDERS or new.state is CLOSED or old.state is CLOSED):
            assert not new.last_resorts, "they belong to one outage"
        if new.state is CLOSED:
            assert new.failures < policy.trip.threshold
            assert (new.openings, new.refused, new.successes) == (0, 0, 0)
        if new.state is not CLOSED:
            assert new.successes < policy.successes_to_close
        if isinstance(policy.recovery, AfterCalls):
            assert new.refused <= policy.recovery.calls
        if event not in ADMITTING:
            assert ticket is None
        elif ticket is not None and ticket.last_resort:
            assert event is Event.LAST_RESORT
            assert (ticket.last_resort, context.now + LEASE) in new.last_resorts
            assert (new.state, new.era, new.probes, new.refused) == (old.state, old.era, old.probes, old.refused)
        elif ticket is not None:
            assert ticket.era == new.era
            assert bool(ticket.probe) == (new.state is HALF_OPEN)
            assert not ticket.probe or (ticket.probe, context.now + LEASE) in new.probes
        late = context.ticket is not None and context.ticket.era != old.era and not context.ticket.last_resort
        if event in RESULTS and late:
            assert new is old, "a late result changes nothing"
        if old.isolated and event is not Event.RESET:
            assert new is old, "isolated is open until reset"
    assert steps > 500


@pytest.mark.parametrize("policy", POLICIES[:4])
def test_step_is_pure(policy: Policy) -> None:
    for old, event, context, new, ticket in explore(policy, depth=4):
        before = copy.deepcopy(old)
        again = step(old, event, context)
        assert (again.record, again.ticket) == (new, ticket)
        assert old == before


@pytest.mark.parametrize("event", [event for event in Event if event in RESULTS])
def test_an_impossible_event_names_state_and_event_and_changes_nothing(event: Event) -> None:
    context = Context(Policy(), 0.0, lambda: 0.5)
    opened = step(Record(), Event.TRIP, context).record
    before = copy.deepcopy(opened)
    with pytest.raises(ImpossibleEvent, match=rf"{event.name}.*open"):
        step(opened, event, replace(context, ticket=Ticket(opened.era)))
    assert opened == before


def test_an_impossible_event_leaves_the_circuit_usable() -> None:
    breaker = CircuitBreaker("b", clock=lambda: 0.0)
    permit = breaker.admit()
    breaker.trip()
    before = breaker.snapshot()
    permit._record = breaker._record  # forged: no call is admitted in an era that begins open
    with pytest.raises(ImpossibleEvent):
        permit.failed(ValueError())
    assert breaker.snapshot() == before
    breaker.reset()
    assert breaker.call(lambda: 5) == 5


def test_records_and_tickets_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        Record().failures = 3  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        Ticket(1).era = 2  # type: ignore[misc]


def test_the_rules_import_no_clock_no_lock_and_no_io() -> None:
    tree = ast.parse(Path(machine.__file__).read_text(encoding="utf-8"))
    imported = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    imported |= {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    assert imported == {
        "__future__", "math", "collections.abc", "dataclasses", "enum", "typing",
        "failover.breaker.errors", "failover.breaker.policy",
    }  # fmt: skip
