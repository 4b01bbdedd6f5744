"""Translates between a circuit's own record, in this process's time, and the stored one. No lock, no I/O."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from failover.breaker.distributed.record import ProbeLease, SharedRecord
from failover.breaker.machine import Context, Event, Record, State, closed, step
from failover.breaker.policy import AfterCalls, Cooldown, Policy

_KEPT: Final = 86_400.0  # seconds for which a record is kept beyond the time that it tells of


class PublicPart(NamedTuple):
    """What others must know of a record; where it is the same before and after, nothing needs to be published.

    A closed circuit's count of failures is its own. `probes`: the numbers of this process's.
    """

    era: int = -1
    probes: frozenset[int] = frozenset()
    successes: int = 0
    by_last_resort: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class RemoteProbe:
    """A probe of another process, and when its lease ends in this process's time."""

    holder: str
    number: int
    until: float


@dataclass(frozen=True, slots=True)
class RemotePart:
    """What other processes have in a stored record: the probes under way, and successes of last resorts by holder."""

    probes: tuple[RemoteProbe, ...] = ()
    last_resorts: tuple[tuple[str, int], ...] = ()


def public_part(record: Record) -> PublicPart:
    """Of `record`."""
    numbers = frozenset(number for number, _ in record.probes if number)
    return PublicPart(record.era, numbers, record.successes, record.by_last_resort, record.failed)


def to_shared(record: Record, epoch: str, holder: str, remote: RemotePart, now: float) -> SharedRecord:
    """`record` as of `now`, with the part of others in the same epoch. Leases that have ended are left out."""
    places: list[ProbeLease] = []
    if record.state is State.HALF_OPEN:
        places = [ProbeLease(each.holder, each.number, each.until - now) for each in remote.probes if each.until > now]
        places += [ProbeLease(holder, number, until - now) for number, until in record.probes if number and until > now]
    waits = record.state is State.OPEN and math.isfinite(record.retry_at)
    return SharedRecord(
        state=record.state,
        epoch=epoch,
        wait=max(0.0, record.retry_at - now) if waits else None,
        isolated=record.isolated,
        failures=record.failures,
        opened=record.opened,
        openings=record.openings,
        successes=record.successes,
        failed=record.failed,
        last_resorts=(*remote.last_resorts, *(((holder, record.by_last_resort),) if record.by_last_resort else ())),
        places=tuple(places),
        ramp=None if record.ramp_until is None else max(0.0, record.ramp_until - now),
    )


def remote_part(shared: SharedRecord, holder: str, age: float, now: float, policy: Policy) -> RemotePart:
    """That of others. No probe lasts longer than the policy's lease, whatever the record says."""
    places = [each for each in shared.places if each.holder != holder]
    return RemotePart(
        tuple(RemoteProbe(p.holder, p.number, now + min(p.left, policy.probe_lease) - age) for p in places),
        tuple((other, count) for other, count in shared.last_resorts if other != holder),
    )


def _stored_last_resorts(shared: SharedRecord, holder: str) -> int:
    return dict(shared.last_resorts).get(holder, 0)


def adopt(
    record: Record,
    shared: SharedRecord,
    remote: RemotePart,
    holder: str,
    age: float,
    now: float,
    policy: Policy,
    random: Callable[[], float],
) -> Record:
    """What `record` becomes when the fleet is in another epoch: a new era, in which calls under way are stale."""
    if shared.state is State.CLOSED:
        left = min(shared.ramp or 0.0, policy.ramp or 0.0) - age
        return closed(replace(record, opened=shared.opened), now + left if left > 0 else None)
    new = Record(
        state=shared.state,
        era=record.era + 1,
        failures=shared.failures,
        opened=shared.opened,
        openings=shared.openings,
        successes=shared.successes,
        by_last_resort=_stored_last_resorts(shared, holder),
        failed=shared.failed,
        issued=record.issued,
        # A last resort under way holds its place for as long as the outage lasts, whoever moves the circuit on.
        last_resorts=() if shared.isolated or record.state is State.CLOSED else record.last_resorts,
    )
    if shared.state is State.HALF_OPEN:
        return replace(new, probes=tuple((0, each.until) for each in remote.probes))
    if shared.isolated or isinstance(policy.recovery, AfterCalls):
        return replace(new, isolated=shared.isolated)
    return replace(new, retry_at=now + max(0.0, _wait(shared, policy.recovery, random) - age))


def _wait(shared: SharedRecord, recovery: Cooldown, random: Callable[[], float]) -> float:
    if shared.wait is None:  # written by a process that counts calls
        return recovery.duration(max(1, shared.openings), random)
    return min(shared.wait, max(recovery.maximum, recovery.seconds))


def merge(
    record: Record, shared: SharedRecord, remote: RemotePart, holder: str, known: PublicPart
) -> tuple[Record, PublicPart]:
    """Merge two records of one epoch: others' probes and what is counted as stored, and ours since `known`.

    A probe of ours whose place is no longer stored lost it to another process, and its result is stale; or its result
    is stored already and the answer to that write was lost. A last resort has no place there; the stored number of ours
    tells what is stored already.

    Returns:
        The merged record, and the public part of what is stored.
    """
    stored_ours = {place.number for place in shared.places if place.holder == holder}
    ours = tuple(
        (number, until)
        for number, until in record.probes
        if number and (number in stored_ours or number not in known.probes)
    )
    numbers = {number for number, _ in ours}
    ended = len((known.probes - {number for number, _ in record.probes}) & stored_ours)
    stored_last_resorts = _stored_last_resorts(shared, holder)
    by_probes = (record.successes - known.successes) - (record.by_last_resort - known.by_last_resort)
    by_last_resort = max(0, record.by_last_resort - stored_last_resorts)
    new = replace(
        record,
        probes=(*((0, each.until) for each in remote.probes), *ours),
        reserved=tuple(number for number in record.reserved if number in numbers),
        successes=shared.successes + min(max(0, by_probes), ended) + by_last_resort,
        by_last_resort=stored_last_resorts + by_last_resort,
        failed=shared.failed + min(max(0, record.failed - known.failed), ended),
    )
    places = frozenset(stored_ours & (numbers | known.probes))
    return new, PublicPart(record.era, places, shared.successes, stored_last_resorts, shared.failed)


def claim_probe(record: Record, context: Context) -> Record | None:
    """`record` with a place reserved for a probe of this process. None: no call could be a probe now."""
    if not step(record, Event.CALL, replace(context, shared=True)).claim:
        return None
    taken = step(record, Event.CALL, context)
    if taken.ticket is None:
        return None
    return replace(taken.record, reserved=(*record.reserved, taken.ticket.probe))


def adoption_reason(shared: SharedRecord) -> str:
    """Why a circuit that adopts this changes, in plain words."""
    if shared.state is State.OPEN:
        return "isolated in another process" if shared.isolated else "another process found it open"
    if shared.state is State.HALF_OPEN:
        return "another process probes it"
    return "another process closed it"


def seconds_to_keep(shared: SharedRecord) -> float | None:
    """For how long the record is worth keeping. None: until somebody resets it."""
    if shared.isolated:
        return None
    return _KEPT + max([shared.wait or 0.0, *(place.left for place in shared.places)])
