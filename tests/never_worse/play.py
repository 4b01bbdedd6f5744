"""A schedule, played against both sides in step, and what is wrong with ours."""

from __future__ import annotations

import functools
import itertools
import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, Final

from azure.core.exceptions import HttpResponseError, ServiceRequestError, ServiceResponseError

from failover.breaker.stores.memory import MemoryStore
from failover.storage import BothEndpointsDown, NotReplicated
from tests.never_worse.clock import virtual_sleep
from tests.never_worse.schedule import FORMS, Call, Form, Schedule, make
from tests.never_worse.sides import KINDS, Kind, Outcome, Side, our_policy
from tests.never_worse.world import PRIMARY, SECONDARY, Version, World

TOLERANCE: Final = 10.0
"""Seconds by which each read of a call may come later: two attempt time-outs, one for each endpoint."""
SLACK: Final = 1.0
"""Seconds for what is asked meanwhile and answers."""
_RETRIES: Final = 84.0
"""Seconds for which the SDK's default retries wait, which give up no body that breaks off: ours may try harder."""
_DELAYS: Final = (0.1, 1.0, 2.5, 4.0, 5.0, 6.0, 7.5, 8.5, 10.0)
_WAITS: Final = (20.0, 30.0)
"""The same, for who found no place for a last resort: it waits for those who have one, for a lease at most."""
_LATE: Final = (["late"], ["late-error"])
_MOST: Final = 8
_BEFORE: Final = -1  # no request's index: the SDK begins later
BETTER: Final = 1.0
"""Seconds: an answer that comes so much earlier is a better one."""

_OUR_ERRORS: Final = (BothEndpointsDown, NotReplicated)
_TRANSPORT_ERRORS: Final = (ServiceRequestError, ServiceResponseError, HttpResponseError)


@dataclass(frozen=True)
class Violation:
    """A call that ours did worse, for people.

    kind: lost (the SDK answered), wrong (not what the account held), late, type (of the error), late-error. who: form
    and kind of client. text: how to play it again, what came of it, and what was asked.
    """

    kind: str
    who: str
    text: tuple[str, ...]

    @classmethod
    def of(
        cls,
        kind: str,
        schedule: Schedule,
        side: Kind,
        number: int,
        call: Call,
        bare: Outcome,
        ours: Outcome,
        hedge: float | None,
    ) -> Violation:
        replay = f"--seed {schedule.seed} --form {schedule.form} --kind {side}"
        if hedge is not None:
            replay += f" --hedge {hedge:g}"
        text = [
            f"{kind.upper()}: {replay}, call {number} at {bare.began:.2f} s: {call}",
            f"    the SDK: {bare}",
            f"    ours:    {ours}",
            *("    " + each for each in schedule.lines()),
        ]
        for name, outcome in (("the SDK", bare), ("ours", ours)):
            text += [f"    {name} asked:", *(f"      {each}" for each in outcome.trace)]
        return cls(kind, f"{schedule.form}, {side}", tuple(text))


@dataclass
class Report:
    """What came of some schedules."""

    calls: int = 0
    schedules: int = 0
    answered: Counter[str] = field(default_factory=Counter)
    saved: int = 0
    unlucky: int = 0
    at_once: int = 0
    no_place: int = 0
    sooner: int = 0
    seconds: Counter[str] = field(default_factory=Counter)
    violations: list[Violation] = field(default_factory=list)

    def add(self, other: Report) -> None:
        """Count what the other has counted."""
        self.calls += other.calls
        self.schedules += other.schedules
        self.answered += other.answered
        self.saved += other.saved
        self.unlucky += other.unlucky
        self.at_once += other.at_once
        self.no_place += other.no_place
        self.sooner += other.sooner
        self.seconds += other.seconds
        self.violations += other.violations

    def lines(self) -> list[str]:
        """For people."""
        kinds = Counter(f"{each.kind} ({each.who})" for each in self.violations)
        hours = {name: seconds / 3600 for name, seconds in self.seconds.items()}
        worse = "".join(f"; {n} {kind}" for kind, n in kinds.most_common())
        return [
            f"{self.schedules:,} schedules, {self.calls:,} calls",
            *(f"answered by {name}: {n:,} in {hours[name]:.1f} h" for name, n in self.answered.items()),
            f"ours better: {self.saved:,} calls that the SDK lost, {self.sooner:,} over {BETTER:g} s sooner",
            f"as bad as the SDK when a request takes a little longer: {self.unlucky:,} calls",
            f"given up at once, what a secondary does not have of a primary known to be down: {self.at_once:,} calls",
            f"late, since others had the places for a last resort: {self.no_place:,} calls",
            f"ours worse: {len(self.violations):,} calls{worse}",
        ]


def plays(seed: int, form: Form | None, kind: Kind | None) -> Iterator[tuple[Form, Kind]]:
    """What is played of a seed: one call after the other in each kind, and in turn a kind of many at once."""
    if form is not None or kind is not None:
        yield from ((each, which) for each in ([form] if form else FORMS) for which in ([kind] if kind else KINDS))
        return
    yield from (("alone", each) for each in KINDS)
    yield ("together", "fleet")[seed % 2], KINDS[seed // 2 % len(KINDS)]


def play_seed(
    seed: int,
    form: Form | None = None,
    kind: Kind | None = None,
    *,
    trace: bool = False,
    hedge: float | None = None,
) -> Report:
    """All that is played of a seed; with `hedge` seconds, ours hedges."""
    report = Report()
    for each, which in plays(seed, form, kind):
        schedule = make(seed, each)
        if trace:
            print(*schedule.lines(), sep="\n")
        report.add(play(schedule, which, print if trace else None, hedge))
    return report


def play(schedule: Schedule, kind: Kind, say: Any = None, hedge: float | None = None) -> Report:
    """Play a schedule; `say` takes each line of a trace. hedge: seconds, for ours."""
    report = Report(schedules=1)
    bare = Side(kind, schedule)
    ours = Side(kind, schedule, functools.partial(_policies, kind, schedule, hedge))
    try:
        with virtual_sleep(), _quiet():
            for number, calls in enumerate(schedule.rounds):
                now = max(bare.clock.now, ours.clock.now, calls[0].at)
                outcomes = []
                for side in (bare, ours):
                    side.clock.now = now
                    side.world.begin(number)
                    outcomes.append(side.perform(calls))
                rows = list(zip(calls, outcomes[0], outcomes[1], strict=True))
                judged = [judge(*row, ours.world) for row in rows]
                if any(judged):
                    unlucky = _unlucky(kind, schedule, number, judged, outcomes, ours.world)
                    report.unlucky += len(unlucky)
                    judged = [[] if n in unlucky else faults for n, faults in enumerate(judged)]
                for (call, before, after), faults in zip(rows, judged, strict=True):
                    if after.found_no_place and faults in _LATE:
                        # At most `max_probes` are in flight, as the design has it: it costs those who wait.
                        report.no_place += 1
                        faults = []
                    _count(report, before, after)
                    report.violations += [
                        Violation.of(each, schedule, kind, number, call, before, after, hedge) for each in faults
                    ]
                    if say is not None:
                        _tell(say, number, call, before, after, faults, ours)
                ours.world.become(bare.world)
    finally:
        bare.close()
        ours.close()
    return report


@contextmanager
def _quiet() -> Iterator[None]:
    """Each of so many failures is logged, by us and by azure-core."""
    loggers = [logging.getLogger(name) for name in ("failover", "azure")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


def _policies(kind: Kind, schedule: Schedule, hedge: float | None, clock: Any) -> list[Any]:
    store = MemoryStore(clock=clock) if schedule.nodes > 1 else None
    return [our_policy(kind, clock, schedule.seed, store, hedge) for _ in range(schedule.nodes)]


def _unlucky(
    kind: Kind, schedule: Schedule, number: int, judged: list[list[str]], outcomes: list[list[Outcome]], world: World
) -> set[int]:
    """Which calls of a round the SDK would have done as badly had it, or some of its requests, been a little slower.

    Ours asks later, by the time-outs of the endpoints it has asked before, and by waiting for a place where others have
    those for a last resort. That an outage begins just then is nobody's merit. What the SDK was slower does not count.
    """
    calls, (bare, ours) = schedule.rounds[number], outcomes
    bad = {n for n, faults in enumerate(judged) if faults}
    found: set[int] = set()
    if any(call.changes for call in calls):
        return found
    most = max(len(bare[n].trace) for n in bad)
    waited = {n for n in bad if ours[n].found_no_place}
    tried = itertools.product((_BEFORE, *range(min(most, _MOST)), None), (*_DELAYS, *_WAITS) if waited else _DELAYS)
    for index, delay in tried:
        side = Side(kind, schedule)
        try:
            side.world.become(world)
            side.clock.now = bare[0].began + (delay if index == _BEFORE else 0.0)
            side.world.begin(number)
            side.world.delay = (index, delay)
            slower = side.perform(calls)
        finally:
            side.close()
        for n in (waited if delay in _WAITS else bad) - found:
            times = len(slower[n].trace) if index is None else int(index != _BEFORE)
            fair = replace(slower[n], ended=slower[n].ended - times * delay)
            faults = judge(calls[n], fair, ours[n], world)
            if not faults or (n in waited and faults in _LATE):
                found.add(n)
        if found == bad:
            break
    return found


def judge(call: Call, bare: Outcome, ours: Outcome, world: World) -> list[str]:
    """What is worse about ours, by kind of violation."""
    found = []
    if bare.is_answer and not ours.is_answer:
        if not gave_up_at_once(ours):
            found.append("lost")
    elif ours.is_answer:
        if not _is_true(call, ours, world) and not (bare.is_answer and bare.value == ours.value):
            found.append("wrong")
        if bare.is_answer and ours.seconds > bare.seconds + _allowance(bare):
            found.append("late")
    else:
        if not _is_of_its_kind(ours.error, bare.error):
            found.append("type")
        if ours.seconds > bare.seconds + _allowance(bare) + _RETRIES * bare.is_broken and not _got_further(ours, bare):
            found.append("late-error")
    return found


def gave_up_at_once(ours: Outcome) -> bool:
    """Whether ours did not wait for a primary that was known to be down, as the design has it for what only that holds.

    The circuit refused it, the secondary had it not, and the last resort at the primary failed. The SDK knows of no
    outage: it waits up to 84 s and may be lucky.
    """
    asked = {each.endpoint for each in ours.trace}
    return isinstance(ours.error, NotReplicated) and ours.was_open and asked == {PRIMARY, SECONDARY}


def _is_of_its_kind(ours: Exception | None, bare: Exception | None) -> bool:
    """Whether who handles the SDK's error handles ours: which of several faults comes last is a matter of time."""
    if isinstance(ours, HttpResponseError) and ours.response is not None:
        status = ours.status_code or 0
        return status >= 500 or status in (408, 429) or status == getattr(bare, "status_code", None)
    return isinstance(ours, (*_OUR_ERRORS, *_TRANSPORT_ERRORS)) or type(ours) is type(bare)


def _allowance(bare: Outcome) -> float:
    return TOLERANCE * bare.reads + SLACK


def _got_further(ours: Outcome, bare: Outcome) -> bool:
    """Whether ours asked for something that the SDK never came to."""
    return not {each.what for each in ours.trace} <= {each.what for each in bare.trace}


def _count(report: Report, bare: Outcome, ours: Outcome) -> None:
    report.calls += 1
    for name, outcome in (("bare", bare), ("ours", ours)):
        report.answered[name] += outcome.is_answer
        report.seconds[name] += outcome.seconds  # type: ignore[assignment]  # a Counter of floats
    report.at_once += bare.is_answer and gave_up_at_once(ours)
    if ours.is_answer:
        report.saved += not bare.is_answer
        report.sooner += bare.is_answer and bare.seconds > ours.seconds + BETTER


def _is_true(call: Call, outcome: Outcome, world: World) -> bool:
    """Whether the account held, at one of its endpoints, what the call says; a secondary's "no" is not its to say."""
    if call.kind == "list":
        return _is_true_list(outcome, world)
    if outcome.value is True and call.kind != "exists":
        return True  # a write
    primary = world.blob(call.name, PRIMARY, outcome.ended)
    if call.changes:
        return True  # a verdict on a write: compared with the SDK's where that has one
    held = [each for each in world.held_by_secondary(call.name, outcome.began, outcome.ended) if each is not None]
    nos = {_said_by(call, primary)}
    yeses = {said for said in (_said_by(call, each) for each in held) if said != ("status", 416)}
    return outcome.value in nos | yeses


def _said_by(call: Call, version: Version | None) -> Any:
    """What a call gives where this is the blob's version."""
    if version is None or version.data is None:
        return False if call.kind == "exists" else ("status", 404)
    data = version.data
    if call.kind == "exists":
        return True
    if call.kind == "properties":
        return (call.name, version.etag.strip('"'), len(data))
    if call.kind == "range":
        if call.first >= len(data):
            return ("status", 416)
        data = data[call.first : call.first + (call.length or 0)]
    return (data, version.etag)


def _is_true_list(outcome: Outcome, world: World) -> bool:
    listed = {name: (etag, size) for name, etag, size in outcome.value}
    for name in world.blobs:
        states = world.held_by_secondary(name, outcome.began, outcome.ended)
        states.append(world.blob(name, PRIMARY, outcome.ended))
        allowed = {
            None if each is None or each.data is None else (each.etag.strip('"'), len(each.data)) for each in states
        }
        if listed.pop(name, None) not in allowed:
            return False
    return not listed and list(outcome.value) == sorted(outcome.value)


def _tell(say: Any, number: int, call: Call, bare: Outcome, ours: Outcome, faults: list[str], side: Side) -> None:
    policy = side.policies[call.node]
    circuits = f"{policy.primary.state.value}/{policy.secondary.state.value}"
    say(f"call {number} at {bare.began:.2f} s: {call}  [{circuits}] {' '.join(faults).upper()}")
    for name, outcome in (("the SDK", bare), ("ours", ours)):
        say(f"  {name}: {outcome}")
        for each in outcome.trace:
            say(f"      {each}")
