"""Between a circuit's own record, in this process's time, and what is written down for all. No lock, no I/O."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from failover.breaker.machine import Context, Event, Record, State, closed, step
from failover.breaker.policy import AfterCalls, Cooldown, Policy
from failover.breaker.written import Place, Written

_REMEMBERED: Final = 86_400.0  # seconds for which a record is kept beyond the time that it tells of

# What others must know of a record: its era, the numbers of this process's probes, and the successes.
Key: TypeAlias = "tuple[int, frozenset[int], int]"


@dataclass(frozen=True, slots=True)
class Foreign:
    """Another process's place, and when it lapses in this process's time."""

    holder: str
    number: int
    until: float


def key_of_record(record: Record) -> Key:
    """Two records with the same key need no publishing between them: a closed circuit's count is its own."""
    return record.era, frozenset(number for number, _ in record.probes if number), record.successes


def write_down(record: Record, epoch: str, holder: str, foreign: tuple[Foreign, ...], now: float) -> Written:
    """`record` at `now`, with the places of others in the same epoch; those that lapsed are left out."""
    places: list[Place] = []
    if record.state is State.HALF_OPEN:
        places = [Place(each.holder, each.number, each.until - now) for each in foreign if each.until > now]
        places += [Place(holder, number, until - now) for number, until in record.probes if number and until > now]
    waits = record.state is State.OPEN and math.isfinite(record.retry_at)
    return Written(
        state=record.state,
        epoch=epoch,
        wait=max(0.0, record.retry_at - now) if waits else None,
        isolated=record.isolated,
        failures=record.failures,
        opened=record.opened,
        openings=record.openings,
        successes=record.successes,
        places=tuple(places),
        ramp=None if record.ramp_until is None else max(0.0, record.ramp_until - now),
    )


def foreign_of(written: Written, holder: str, age: float, now: float, policy: Policy) -> tuple[Foreign, ...]:
    """The places of others, as of `now`; none lasts longer than the policy's lease."""
    places = [each for each in written.places if each.holder != holder]
    return tuple(Foreign(p.holder, p.number, now + min(p.left, policy.probe_lease) - age) for p in places)


def adopted(
    record: Record,
    written: Written,
    foreign: tuple[Foreign, ...],
    age: float,
    now: float,
    policy: Policy,
    random: Callable[[], float],
) -> Record:
    """What `record` becomes when the fleet is in another epoch: a new era here, in which calls under way are late."""
    if written.state is State.CLOSED:
        left = min(written.ramp or 0.0, policy.ramp or 0.0) - age
        return closed(replace(record, opened=written.opened), now + left if left > 0 else None)
    new = Record(
        state=written.state,
        era=record.era + 1,
        failures=written.failures,
        opened=written.opened,
        openings=written.openings,
        issued=record.issued,
        # A last resort under way holds its place for as long as the outage lasts, whoever moves the circuit on.
        last_resorts=() if written.isolated or record.state is State.CLOSED else record.last_resorts,
    )
    if written.state is State.HALF_OPEN:
        return replace(new, successes=written.successes, probes=tuple((0, each.until) for each in foreign))
    if written.isolated or isinstance(policy.recovery, AfterCalls):
        return replace(new, isolated=written.isolated)
    return replace(new, retry_at=now + max(0.0, _wait(written, policy.recovery, random) - age))


def _wait(written: Written, recovery: Cooldown, random: Callable[[], float]) -> float:
    if written.wait is None:  # of a process that counts calls
        return recovery.duration(max(1, written.openings), random)
    return min(written.wait, max(recovery.maximum, recovery.seconds))


def merged(
    record: Record, written: Written, foreign: tuple[Foreign, ...], holder: str, known: Key
) -> tuple[Record, Key]:
    """Half-open here and there: others' places and successes as written, and what is new here since `known`.

    A place of ours that is no longer written was given away, and a success of such a probe is late; or that success is
    written already and the answer was lost. The key is that of what is written.
    """
    written_ours = {place.number for place in written.places if place.holder == holder}
    ours = tuple(
        (number, until)
        for number, until in record.probes
        if number and (number in written_ours or number not in known[1])
    )
    numbers = {number for number, _ in ours}
    ended = (known[1] - {number for number, _ in record.probes}) & written_ours
    new = replace(
        record,
        probes=(*((0, each.until) for each in foreign), *ours),
        reserved=tuple(number for number in record.reserved if number in numbers),
        successes=written.successes + min(max(0, record.successes - known[2]), len(ended)),
    )
    return new, (record.era, frozenset(written_ours & (numbers | known[1])), written.successes)


def with_place(record: Record, context: Context) -> Record | None:
    """`record` with a place for a probe of this process, or None where no call could be one now."""
    if not step(record, Event.CALL, replace(context, shared=True)).claim:
        return None
    taken = step(record, Event.CALL, context)
    if taken.ticket is None:
        return None
    return replace(taken.record, reserved=(*record.reserved, taken.ticket.probe))


def change(written: Written) -> str:
    """Why a circuit that adopts this changes, in plain words."""
    if written.state is State.OPEN:
        return "isolated in another process" if written.isolated else "another process found it open"
    if written.state is State.HALF_OPEN:
        return "another process probes it"
    return "another process closed it"


def keep(written: Written) -> float | None:
    """Seconds for which the record is worth keeping; None: as long as nobody resets it."""
    if written.isolated:
        return None
    return _REMEMBERED + max([written.wait or 0.0, *(place.left for place in written.places)])
