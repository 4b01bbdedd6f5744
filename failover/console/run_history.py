"""The whole run, folded once from its events: all that live screen, plain lines, summary and report are drawn from.

A run may be endless (`--requests 0`), so everything here is bounded: reads are grouped, and the last of them and of
the sentences are kept besides.
"""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from dataclasses import dataclass, field

from failover.console.event_log import EventLog
from failover.console.narrator import Said
from failover.console.run_state import Cell, RunState
from failover.demo import events as ev

GROUPS = 2_000  # at most, an even number
_CELLS = 20_000  # more than the largest terminals hold
_LATENCIES = 1_000
_ORDER = tuple(Cell)  # from the best to the worst
_STATES = (ev.CLOSED, ev.HALF_OPEN, ev.OPEN)
_EXACT = 1.02  # latencies are counted in steps of two per cent


@dataclass(frozen=True, slots=True)
class Group:
    """Some reads that follow each other, told as one: in each respect the worst of them.

    `state` is that of the primary's circuit; `probed`: one of them probed the primary; `fault`: it was on.
    """

    cell: Cell
    ms: float
    fault: bool
    state: str
    probed: bool

    def joined(self, other: Group) -> Group:
        """Both as one."""
        return Group(
            max(self.cell, other.cell, key=_ORDER.index),
            max(self.ms, other.ms),
            self.fault or other.fault,
            max(self.state, other.state, key=_STATES.index),
            self.probed or other.probed,
        )


class Spread:
    """How long reads took, to two per cent, however many they are."""

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, ms: float) -> None:
        """Count one that took `ms` milliseconds."""
        self._counts[round(math.log(max(ms, 0.001), _EXACT))] += 1

    def quantile(self, part: float) -> float | None:
        """The milliseconds that `part` (0 to 1) of the reads did not exceed; None before the first."""
        left = int(part * self._counts.total())
        for step in sorted(self._counts):
            left -= self._counts[step]
            if left < 0:
                return float(_EXACT**step)
        return float(_EXACT ** max(self._counts)) if self._counts else None


@dataclass
class RunHistory:
    """The run so far. `apply` each event, in order, then read the attributes.

    Attributes:
        start: The time of day of t = 0, in seconds since the epoch, where somebody knows it.
        run: What is true at this moment.
        log: What happened, in sentences.
        counts: How many reads ended in each way.
        retries: Failed attempts at the primary.
        hedged: Reads that asked both endpoints at the same time.
        opened: How often the primary's circuit opened; a probe that failed does not count.
        probes: How often it was probed.
        groups: The reads, as groups of `per` each, of which the last may hold fewer; `per` is 1 until there are more
            than `GROUPS`.
        cells: How the last reads ended, one by one.
        latencies: How long the last thousand took, in milliseconds, and how they ended.
        slowest: The read that took longest.
        spread: How long all reads took; `spreads`: those that an endpoint answered.
        behind: Seconds, the most that the secondary was seen to be.
    """

    start: float | None = None
    run: RunState = field(default_factory=RunState)
    log: EventLog = field(default_factory=EventLog)
    counts: Counter[Cell] = field(default_factory=Counter)
    retries: int = 0
    hedged: int = 0
    opened: int = 0
    probes: int = 0
    groups: list[Group] = field(default_factory=list)
    per: int = 1
    cells: deque[Cell] = field(default_factory=lambda: deque(maxlen=_CELLS))
    latencies: deque[tuple[float, Cell]] = field(default_factory=lambda: deque(maxlen=_LATENCIES))
    slowest: ev.Read | None = None
    spread: Spread = field(default_factory=Spread)
    spreads: dict[str, Spread] = field(default_factory=lambda: {ev.PRIMARY: Spread(), ev.SECONDARY: Spread()})
    behind: float | None = None
    _probed: bool = False

    @property
    def settings(self) -> ev.Started | None:
        """What the run goes by; None before its first event."""
        return self.run.settings

    @property
    def reads(self) -> int:
        """How many reads are over."""
        return self.run.reads

    @property
    def whole(self) -> bool:
        """Whether all reads that were asked for are over."""
        return self.settings is not None and 0 < self.settings.requests <= self.reads

    @property
    def primary(self) -> int:
        """How many reads the primary answered."""
        return self.counts[Cell.PRIMARY]

    @property
    def secondary(self) -> int:
        """How many reads the secondary answered."""
        return sum(self.counts[each] for each in (Cell.SECONDARY, Cell.HEDGED, Cell.TRIED))

    @property
    def failed(self) -> int:
        """How many reads nobody answered."""
        return self.counts[Cell.FAILED]

    def quantile(self, part: float) -> float | None:
        """The milliseconds that `part` (0 to 1) of the last thousand reads did not exceed; None before the first."""
        ranked = sorted(ms for ms, _ in self.latencies)
        return ranked[min(len(ranked) - 1, int(part * len(ranked)))] if ranked else None

    def dated(self, t: float) -> str:
        """The moment t as a person reads it: the local time of day, or seconds since the start."""
        if self.start is None:
            return f"{t:6.1f} s"
        return time.strftime("%H:%M:%S", time.localtime(self.start + t))

    def apply(self, event: ev.Event) -> Said | None:
        """Take in what happened, and return its sentence, if it has one."""
        said = self.log.add(event, self.run)
        self.run.apply(event)
        match event:
            case ev.Read():
                self._read(event)
            case ev.Retried():
                self.retries += 1
            case ev.Transitioned(circuit=ev.PRIMARY, old=old, new=new):
                self.opened += new == ev.OPEN and old == ev.CLOSED
                self.probes += new == ev.HALF_OPEN
                self._probed = self._probed or new == ev.HALF_OPEN
            case ev.SecondarySeen() if event.staleness is not None:
                self.behind = max(event.staleness, self.behind or 0.0)
        return said

    def _read(self, event: ev.Read) -> None:
        cell = Cell.of(event)
        self.counts[cell] += 1
        self.hedged += event.hedged
        self.cells.append(cell)
        self.latencies.append((event.ms, cell))
        self.spread.add(event.ms)
        if event.endpoint is not None:
            self.spreads[event.endpoint].add(event.ms)
        if self.slowest is None or event.ms > self.slowest.ms:
            self.slowest = event
        group = Group(cell, event.ms, self.run.fault_on, event.state, self._probed)
        self._probed = False
        if (event.n - 1) % self.per:
            self.groups[-1] = self.groups[-1].joined(group)
            return
        if len(self.groups) == GROUPS:
            self.groups = merged(self.groups, 2)
            self.per *= 2
        self.groups.append(group)


def merged(groups: list[Group], factor: int) -> list[Group]:
    """Each `factor` of them as one."""
    if factor == 1:
        return list(groups)
    told = []
    for at in range(0, len(groups), factor):
        whole = groups[at]
        for each in groups[at + 1 : at + factor]:
            whole = whole.joined(each)
        told.append(whole)
    return told
