"""The whole run as data that stays small however long it goes: what the summary and the picture are drawn from."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field

from failover.console.event_log import EventLog
from failover.console.view import Cell, cell_of
from failover.demo import events as ev

GROUPS = 2_000  # at most, an even number
_CELLS = tuple(Cell)  # from the best to the worst
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
            max(self.cell, other.cell, key=_CELLS.index),
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

    The reads are kept as `groups` of `per` each, of which the last may hold fewer; `per` is 1 until there are more
    than `GROUPS`. `start` is the time of day of t = 0, in seconds since the epoch, where somebody knows it.
    """

    start: float | None = None
    settings: ev.Started | None = None
    t: float = 0.0
    reads: int = 0
    counts: Counter[Cell] = field(default_factory=Counter)
    retries: int = 0
    hedged: int = 0
    opened: int = 0
    probes: int = 0
    state: str = ev.CLOSED
    groups: list[Group] = field(default_factory=list)
    per: int = 1
    slowest: ev.Read | None = None
    spread: Spread = field(default_factory=Spread)
    spreads: dict[str, Spread] = field(default_factory=lambda: {ev.PRIMARY: Spread(), ev.SECONDARY: Spread()})
    behind: float | None = None  # seconds, the most that the secondary was seen to be
    fault_on: bool = False
    cleaned_up: ev.CleanedUp | None = None
    log: EventLog = field(default_factory=EventLog)
    _probing: bool = False

    @property
    def whole(self) -> bool:
        """Whether all reads that were asked for are over."""
        return self.settings is not None and 0 < self.settings.requests <= self.reads

    @property
    def failed(self) -> int:
        """How many reads nobody answered."""
        return self.counts[Cell.FAILED]

    def apply(self, event: ev.Event) -> None:
        """Take in what happened."""
        self.t = max(self.t, event.t)
        self.log.apply(event)
        match event:
            case ev.Started():
                self.settings = event
            case ev.Read():
                self._read(event)
            case ev.Retried():
                self.retries += 1
            case ev.Transitioned(circuit=ev.PRIMARY):
                self.state = event.new
                self.opened += event.new == ev.OPEN and event.old == ev.CLOSED
                if event.new == ev.HALF_OPEN:
                    self.probes += 1
                    self._probing = True
            case ev.FaultSwitched():
                self.fault_on = event.on
            case ev.SecondarySeen() if event.staleness is not None:
                self.behind = max(event.staleness, self.behind or 0.0)
            case ev.CleanedUp():
                self.cleaned_up = event

    def _read(self, event: ev.Read) -> None:
        self.reads = event.n
        cell = cell_of(event)
        self.counts[cell] += 1
        self.hedged += event.hedged
        self.state = event.state
        if event.endpoint is not None:
            self.spreads[event.endpoint].add(event.ms)
        self.spread.add(event.ms)
        if self.slowest is None or event.ms > self.slowest.ms:
            self.slowest = event
        group = Group(cell, event.ms, self.fault_on, event.state, self._probing)
        self._probing = False
        if (self.reads - 1) % self.per:
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
