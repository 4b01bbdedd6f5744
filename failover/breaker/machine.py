"""The rules of a circuit, as one table from (state, event) to what happens. No clock, no lock, no I/O.

A circuit is one small frozen `Record`. Whoever holds one asks `step(record, event, ...)` for the next, and gets
back the record that replaces it: the same object where nothing changed. Time comes in as a number.

                    a last resort succeeds
            +-------------------------------+
            v                               |
        +--------+  threshold failures   +------+
        | CLOSED | --------------------> | OPEN | <---------+
        +--------+                       +------+           |
            ^                               | a call, when  |
            | enough probes succeed         | it is time    | enough probes fail
            |                               v               |
            |                         +-----------+         |
            +------------------------ | HALF-OPEN | --------+
                                      +-----------+
    TRIP and ISOLATE lead to OPEN from anywhere, RESET to CLOSED.

Admit, run, settle: CALL admits and hands out a `Ticket`, and SUCCESS, FAILURE or NEUTRAL bring it back. Each
transition begins a new era. A ticket of an earlier era is stale, and so is that of a probe whose lease ran out and
whose place was given away: what they bring says nothing of today, and `step` drops it before it reaches the table.

LAST_RESORT is a call whose caller has nowhere else to go. It is admitted as CALL would, or else takes one of
`max_probes` places of its own, whatever the state. Its success counts as a probe's; its failure changes nothing but to
free the place. Its result counts as long as it holds its place, which it keeps through the eras of one outage: places
are dropped when the circuit closes, when it opens from CLOSED, and by each manual order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum, auto
from typing import Final

from failover.breaker.errors import ImpossibleEvent
from failover.breaker.policy import AfterCalls, Policy


class State(Enum):
    """What a circuit does with a call."""

    CLOSED = "closed"
    """Calls pass."""
    OPEN = "open"
    """Calls are turned away."""
    HALF_OPEN = "half-open"
    """A few calls pass, as probes; the rest are turned away."""


class Event(Enum):
    """What can happen to a circuit."""

    CALL = auto()
    SUCCESS = auto()
    FAILURE = auto()
    NEUTRAL = auto()
    LAST_RESORT = auto()
    LAST_RESORT_SUCCESS = auto()
    """A SUCCESS whose ticket is a last resort's; `step` tells them apart."""
    LAST_RESORT_END = auto()
    """A FAILURE or NEUTRAL whose ticket is a last resort's."""
    TRIP = auto()
    RESET = auto()
    ISOLATE = auto()


RAMP_FROM: Final = 0.1
"""The share of calls that a circuit admits just after it has closed, where its policy has a ramp."""

RESULTS: Final = frozenset({Event.SUCCESS, Event.FAILURE, Event.NEUTRAL})
_OF_LAST_RESORT: Final = {
    Event.SUCCESS: Event.LAST_RESORT_SUCCESS,
    Event.FAILURE: Event.LAST_RESORT_END,
    Event.NEUTRAL: Event.LAST_RESORT_END,
}


@dataclass(frozen=True, slots=True)
class Ticket:
    """The right to make one call: in which era it was given, and which probe or last resort it is (0: none)."""

    era: int
    probe: int = 0
    last_resort: int = 0


@dataclass(frozen=True, slots=True)
class Record:
    """The whole state of a circuit.

    era: grows by one at each transition and each manual order, never shrinks.
    failures: counted while closed, in a row or in the algorithm's window; stay as they were while open and half-open.
    opened: how often the circuit has opened in its life. openings: since it was last closed.
    retry_at: while open, the time from which a call may be the probe (inf: not by time).
    refused: calls turned away in this era, where the recovery counts them. isolated: open until RESET.
    probes: while half-open, number and end of lease of each probe under way. issued: the last number given.
    last_resorts: number and end of lease of each last resort under way.
    successes: of probes and last resorts, in this era; by_last_resort: those of them that were last resorts of this
    process. failed: probes that failed, in this era.
    ramp_until: while closed, the time from which all calls are admitted again, None where they are.

    Where a store is shared, `probes` has those of other processes too, as number 0, and `reserved` the numbers of
    places that were claimed for this one and that no call has taken yet.
    """

    state: State = State.CLOSED
    era: int = 0
    failures: int = 0
    opened: int = 0
    openings: int = 0
    retry_at: float = math.inf
    refused: int = 0
    isolated: bool = False
    probes: tuple[tuple[int, float], ...] = ()
    issued: int = 0
    successes: int = 0
    by_last_resort: int = 0
    failed: int = 0
    reserved: tuple[int, ...] = ()
    ramp_until: float | None = None
    last_resorts: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Counted:
    """What an algorithm's window says after a result: its failures, and whether they are too many."""

    failures: int
    trips: bool


@dataclass(frozen=True, slots=True)
class Context:
    """What a rule may look at beside the record.

    counted: where the policy's algorithm has a window, what it says with this result in it. retry_after: for how many
    seconds the failed remote asks to be left alone, where it does. shared: a probe's place is not free for the taking
    here, it must be claimed from a store.
    """

    policy: Policy
    now: float
    random: Callable[[], float]
    ticket: Ticket | None = None
    counted: Counted | None = None
    retry_after: float | None = None
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """The record that replaces the old one and, for CALL and LAST_RESORT, the ticket; None: the call is turned away.

    claim: it is time to claim a probe's place, for this call or the next.
    """

    record: Record
    ticket: Ticket | None = None
    claim: bool = False


def step(record: Record, event: Event, context: Context) -> Outcome:
    """What `event` makes of `record`.

    Raises `ImpossibleEvent`, naming state and event, for a result that no call can bring.
    """
    if event in RESULTS:
        if is_stale(record, context.ticket):
            return Outcome(record)
        event = result_of(event, context.ticket)
    rule = TABLE[record.state, event]
    if rule is None:
        raise ImpossibleEvent(f"{event.name} of {context.ticket} came to a circuit that is {record.state.value}")
    return rule(record, context)


def result_of(event: Event, ticket: Ticket | None) -> Event:
    """The event that a result is for the table: a last resort's has one of its own."""
    return _OF_LAST_RESORT[event] if ticket is not None and ticket.last_resort else event


def closed(record: Record, ramp_until: float | None) -> Record:
    """What follows `record` when the circuit closes: all counts anew, but those of its whole life."""
    return Record(era=record.era + 1, opened=record.opened, issued=record.issued, ramp_until=ramp_until)


def ramp_of(record: Record, policy: Policy, now: float) -> float | None:
    """The share of calls that a closed circuit admits while it is ramping; None: all, as ever."""
    if record.ramp_until is None or policy.ramp is None or now >= record.ramp_until:
        return None
    return 1.0 - (1.0 - RAMP_FROM) * min(1.0, (record.ramp_until - now) / policy.ramp)


def is_stale(record: Record, ticket: Ticket | None) -> bool:
    """Whether the result that comes with `ticket` says nothing of `record`."""
    if ticket is None:
        return True
    if ticket.last_resort:
        return all(number != ticket.last_resort for number, _ in record.last_resorts)
    if ticket.era != record.era:
        return True
    return bool(ticket.probe) and all(number != ticket.probe for number, _ in record.probes)


def _admit(record: Record, context: Context) -> Outcome:
    share = ramp_of(record, context.policy, context.now)
    if share is None:
        over = record if record.ramp_until is None else replace(record, ramp_until=None)
        return Outcome(over, Ticket(record.era))
    # Drawn, not counted: of a thousand processes with one call each, a tenth is to get through.
    return Outcome(record, Ticket(record.era) if context.random() < share else None)


def _count_success(record: Record, context: Context) -> Outcome:
    if context.counted is None:
        return Outcome(replace(record, failures=0) if record.failures else record)
    return _count(record, context, context.counted)


def _count_failure(record: Record, context: Context) -> Outcome:
    failures = record.failures + 1
    in_a_row = Counted(failures, trips=failures >= context.policy.trip.threshold)
    counted = context.counted or in_a_row
    # A new record also where one failure has left the window for this one: by it the failure is known not to be stale.
    return _count(replace(record, failures=counted.failures), context, counted)


def _count(record: Record, context: Context, counted: Counted) -> Outcome:
    same = counted.failures == record.failures
    now = record if same else replace(record, failures=counted.failures)
    return _open(now, context) if counted.trips else Outcome(now)


def _ignore(record: Record, _: Context) -> Outcome:
    return Outcome(record)


def _refuse_or_probe(record: Record, context: Context) -> Outcome:
    recovery = context.policy.recovery
    if record.isolated:
        return Outcome(record)
    if isinstance(recovery, AfterCalls):
        if record.refused < recovery.calls:
            counted = replace(record, refused=record.refused + 1)
            # The store is asked one call early, so that the next finds the place claimed.
            return Outcome(counted, claim=context.shared and counted.refused == recovery.calls)
    elif context.now < record.retry_at:
        return Outcome(record)
    if context.shared:
        return Outcome(record, claim=True)
    anew = replace(record, refused=0, successes=0, by_last_resort=0, failed=0, probes=())
    half_open = replace(anew, state=State.HALF_OPEN, era=record.era + 1)
    return _probe_if_free(half_open, context)


def _probe_if_free(record: Record, context: Context) -> Outcome:
    running = tuple(probe for probe in record.probes if context.now < probe[1])
    ready = [number for number, _ in running if number in record.reserved]
    if ready:
        left = tuple(number for number in record.reserved if number != ready[0])
        return Outcome(replace(record, reserved=left), Ticket(record.era, ready[0]))
    if len(running) >= context.policy.max_probes:
        return Outcome(record)
    if context.shared:
        return Outcome(record, claim=True)
    number = record.issued + 1
    probes = (*running, (number, context.now + context.policy.probe_lease))
    # None that was reserved is left: it would be ready.
    return Outcome(replace(record, probes=probes, issued=number, reserved=()), Ticket(record.era, number))


def _give_place_back(record: Record, context: Context) -> Outcome:
    assert context.ticket is not None  # noqa: S101 (a result without a ticket is stale and never comes here)
    left = tuple(probe for probe in record.probes if probe[0] != context.ticket.probe)
    return Outcome(replace(record, probes=left))


def _count_probe(record: Record, context: Context) -> Outcome:
    return _count_towards_closing(_give_place_back(record, context).record, context)


def _count_towards_closing(record: Record, context: Context) -> Outcome:
    counted = replace(record, successes=record.successes + 1)
    enough = counted.successes >= context.policy.successes_to_close
    return _close(counted, context) if enough else Outcome(counted)


def _last_resort(record: Record, context: Context) -> Outcome:
    if record.isolated:
        return Outcome(record)
    call = TABLE[record.state, Event.CALL]
    assert call is not None  # noqa: S101 (a call can come in any state)
    usual = call(record, context)
    if usual.ticket is not None:
        return usual
    # `usual.record` is dropped: a call that is admitted after all is none that was turned away.
    running = tuple(place for place in record.last_resorts if context.now < place[1])
    if len(running) >= context.policy.max_probes:
        return Outcome(record)
    number = record.issued + 1
    places = (*running, (number, context.now + context.policy.probe_lease))
    return Outcome(replace(record, last_resorts=places, issued=number), Ticket(record.era, last_resort=number))


def _end_last_resort(record: Record, context: Context) -> Outcome:
    assert context.ticket is not None  # noqa: S101 (a result without a ticket is stale and never comes here)
    left = tuple(place for place in record.last_resorts if place[0] != context.ticket.last_resort)
    return Outcome(replace(record, last_resorts=left))


def _count_last_resort(record: Record, context: Context) -> Outcome:
    ended = _end_last_resort(record, context).record
    return _count_towards_closing(replace(ended, by_last_resort=record.by_last_resort + 1), context)


def _open(record: Record, context: Context) -> Outcome:
    openings = record.openings + 1
    recovery = context.policy.recovery
    if isinstance(recovery, AfterCalls):
        wait = math.inf
    else:
        asked = min(context.retry_after or 0.0, recovery.maximum)
        wait = max(recovery.duration(openings, context.random), asked)
    opened = replace(
        record,
        state=State.OPEN,
        era=record.era + 1,
        opened=record.opened + 1,
        openings=openings,
        retry_at=context.now + wait,
        refused=0,
        isolated=False,
        probes=(),
        successes=0,
        by_last_resort=0,
        failed=0,
        reserved=(),
        ramp_until=None,
        last_resorts=(),
    )
    return Outcome(opened)


def _count_failed_probe(record: Record, context: Context) -> Outcome:
    failed = record.failed + 1
    if failed < context.policy.failures_to_reopen:
        return Outcome(replace(_give_place_back(record, context).record, failed=failed))
    # It is the same outage: a last resort under way may still find the remote well.
    return Outcome(replace(_open(record, context).record, last_resorts=record.last_resorts))


def _restart_cooldown(record: Record, context: Context) -> Outcome:
    if record.isolated:
        return Outcome(record)
    # Not a new opening: the cooldown starts again and does not grow.
    again = replace(record, opened=record.opened - 1, openings=record.openings - 1)
    return _open(again, context)


def _isolate(record: Record, context: Context) -> Outcome:
    if record.isolated:
        return Outcome(record)
    opened = record if record.state is State.OPEN else _open(record, context).record
    return Outcome(replace(opened, era=record.era + 1, isolated=True, retry_at=math.inf, refused=0, last_resorts=()))


def _close(record: Record, context: Context) -> Outcome:
    ramp = context.policy.ramp
    return Outcome(closed(record, None if ramp is None else context.now + ramp))


def _start_anew(record: Record, _: Context) -> Outcome:
    return Outcome(closed(record, None))


_IMPOSSIBLE: Final = None
_CLOSED, _OPEN, _HALF_OPEN = State.CLOSED, State.OPEN, State.HALF_OPEN

TABLE: Final[dict[tuple[State, Event], Callable[[Record, Context], Outcome] | None]] = {
    # CLOSED: every call passes; failures are counted, a success forgets them.
    (_CLOSED, Event.CALL): _admit,  # but for a growing share of them while it is ramping
    (_CLOSED, Event.SUCCESS): _count_success,  # -> OPEN where calls were too few to trip before
    (_CLOSED, Event.FAILURE): _count_failure,  # -> OPEN at the threshold
    (_CLOSED, Event.NEUTRAL): _ignore,
    (_CLOSED, Event.LAST_RESORT): _last_resort,  # one of its own places only where a ramp would refuse it
    (_CLOSED, Event.LAST_RESORT_SUCCESS): _end_last_resort,
    (_CLOSED, Event.LAST_RESORT_END): _end_last_resort,
    (_CLOSED, Event.TRIP): _open,  # -> OPEN
    (_CLOSED, Event.RESET): _start_anew,  # stays closed: the count starts anew, a ramp ends
    (_CLOSED, Event.ISOLATE): _isolate,  # -> OPEN
    # OPEN: calls are turned away until it is time; then the one that asks is the first probe. No call is admitted in
    # an era that begins open, so none can bring a result in it.
    (_OPEN, Event.CALL): _refuse_or_probe,  # -> HALF_OPEN when it is time
    (_OPEN, Event.SUCCESS): _IMPOSSIBLE,
    (_OPEN, Event.FAILURE): _IMPOSSIBLE,
    (_OPEN, Event.NEUTRAL): _IMPOSSIBLE,
    (_OPEN, Event.LAST_RESORT): _last_resort,  # -> HALF_OPEN when it is time
    (_OPEN, Event.LAST_RESORT_SUCCESS): _count_last_resort,  # -> CLOSED when enough
    (_OPEN, Event.LAST_RESORT_END): _end_last_resort,
    (_OPEN, Event.TRIP): _restart_cooldown,  # stays open
    (_OPEN, Event.RESET): _close,  # -> CLOSED
    (_OPEN, Event.ISOLATE): _isolate,  # stays open, until RESET
    # HALF_OPEN: as many probes as the policy allows; enough failures end it, or enough successes.
    (_HALF_OPEN, Event.CALL): _probe_if_free,
    (_HALF_OPEN, Event.SUCCESS): _count_probe,  # -> CLOSED when enough
    (_HALF_OPEN, Event.FAILURE): _count_failed_probe,  # -> OPEN when enough
    (_HALF_OPEN, Event.NEUTRAL): _give_place_back,
    (_HALF_OPEN, Event.LAST_RESORT): _last_resort,
    (_HALF_OPEN, Event.LAST_RESORT_SUCCESS): _count_last_resort,  # -> CLOSED when enough
    (_HALF_OPEN, Event.LAST_RESORT_END): _end_last_resort,
    (_HALF_OPEN, Event.TRIP): _open,  # -> OPEN
    (_HALF_OPEN, Event.RESET): _close,  # -> CLOSED
    (_HALF_OPEN, Event.ISOLATE): _isolate,  # -> OPEN
}
