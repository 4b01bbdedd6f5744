"""The run so far as data: everything that the screen shows, folded from events. No rich, no clock, no thread.

A run may be endless (`--requests 0`), so everything here is bounded: the last cells, the last latencies, the
last sentences, and counters.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from enum import Enum

from failover.console.narrator import Narrator
from failover.demo import events as ev

_CELLS = 20_000  # more than the largest terminals hold
_LATENCIES = 1_000
_NEWS = 200


class Stage(Enum):
    """How far the run is."""

    STARTING = "starting"
    WAITING = "waiting"
    READING = "reading"
    FINISHED = "finished"


class Cell(Enum):
    """How one read ended."""

    PRIMARY = "primary"
    SECONDARY = "secondary"
    HEDGED = "secondary, asked beside the primary"
    TRIED = "secondary after trying the primary"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class News:
    """One of the last sentences, `t` seconds after the start; `bad` when it tells of trouble."""

    t: float
    text: str
    topic: str
    bad: bool


@dataclass
class View:
    """The run so far. `apply` each event, in order, then read the attributes.

    `start` is the time of day of t = 0, in seconds since the epoch; without it, news are dated by their t.
    """

    start: float | None = None

    settings: ev.Started | None = None
    stage: Stage = Stage.STARTING
    uploaded: ev.Uploaded | None = None
    waiting: ev.Waiting | None = None
    t: float = 0.0

    last: ev.Read | None = None
    state: str = ev.CLOSED
    failures: int = 0
    threshold: int = 0
    reads_left: int | None = None
    retries: int = 0
    primary: int = 0
    secondary: int = 0
    hedged: int = 0
    failed: int = 0

    fault: str = "503"
    fault_on: bool = False
    opened_by_fault: bool = False
    paused: ev.Paused | None = None
    pauses: int = 0
    finished: ev.Finished | None = None
    cleaned_up: ev.CleanedUp | None = None

    secondary_seen: ev.SecondarySeen | None = None
    secondary_state: str = ev.CLOSED
    opened: int = 0

    cells: deque[Cell] = field(default_factory=lambda: deque(maxlen=_CELLS))
    latencies: deque[tuple[float, Cell]] = field(default_factory=lambda: deque(maxlen=_LATENCIES))
    news: deque[News] = field(default_factory=lambda: deque(maxlen=_NEWS))

    _narrator: Narrator = field(default_factory=Narrator, repr=False)
    _probe_at: float | None = None
    _cooldown: float | None = None
    _idle_until: float | None = None
    _attempt: ev.Retried | None = None

    @property
    def reads(self) -> int:
        """How many reads are over."""
        return self.last.n if self.last else 0

    @property
    def net(self) -> bool:
        """Whether the secondary would answer, as far as anybody knows."""
        return self.secondary_state != ev.OPEN and (self.secondary_seen is None or self.secondary_seen.reachable)

    @property
    def outside(self) -> bool:
        """Whether somebody else fails the primary: it fails while this program's own fault is off."""
        return self._narrator.outside

    @property
    def staleness(self) -> float | None:
        """How old what the secondary holds may be, in seconds; None when nobody knows."""
        return self.secondary_seen.staleness if self.secondary_seen and self.secondary_seen.reachable else None

    @property
    def retrying(self) -> ev.Retried | None:
        """The last failed attempt of the read that is under way; None before its first."""
        return self._attempt

    @property
    def cooldown(self) -> float | None:
        """Seconds for which the open circuit stays so, as far as known; None where reads are counted, or closed."""
        return self._cooldown if self.state == ev.OPEN else None

    def seconds_left(self, now: float | None = None) -> float | None:
        """Seconds from `now` until the primary is probed; None where reads are counted, or the circuit is closed."""
        if self._probe_at is None or self.state != ev.OPEN:
            return None
        return max(0.0, self._probe_at - (self.t if now is None else now))

    def under_way(self, now: float) -> float | None:
        """For how many seconds, `now` seconds after the start, the next read has been under way; None while none is.

        A run with a rate waits between reads; that time is not the read's.
        """
        if self.stage is not Stage.READING or self.paused or self._idle_until is None:
            return None
        return max(0.0, now - self._idle_until)

    def quantile(self, part: float) -> float | None:
        """The milliseconds that `part` (0 to 1) of the last thousand reads did not exceed; None before the first."""
        ranked = sorted(ms for ms, _ in self.latencies)
        return ranked[min(len(ranked) - 1, int(part * len(ranked)))] if ranked else None

    def dated(self, t: float) -> str:
        """The moment t as a person reads it: the local time of day, or seconds since the start."""
        if self.start is None:
            return f"{t:6.1f} s"
        return time.strftime("%H:%M:%S", time.localtime(self.start + t))

    def apply(self, event: ev.Event) -> None:
        """Take in what happened. An event of a kind that is not known here changes nothing but the time."""
        self.t = max(self.t, event.t)
        match event:
            case ev.Started():
                self.settings = event
                self.threshold = event.retry_threshold
                self.fault = event.fault
            case ev.Uploaded():
                self.uploaded = event
                self.stage = Stage.WAITING
            case ev.Waiting():
                self.waiting = event
                self.stage = Stage.WAITING
            case ev.Replicated():
                self.stage = Stage.READING
                self._idle_until = event.t
            case ev.Read():
                self._read(event)
            case ev.Retried():
                self.retries += 1
                self.failures, self.threshold = event.failures, event.threshold
                self._attempt = event
            case ev.Transitioned():
                self._transition(event)
            case ev.FaultSwitched():
                self.fault, self.fault_on = event.kind, event.on
            case ev.Paused():
                self.paused = event
                self.pauses += 1
            case ev.Resumed():
                self.paused = None
                self._idle_until = event.t
            case ev.SecondarySeen():
                self.secondary_seen = event
            case ev.Finished():
                self.finished, self.paused = event, None
                self.stage = Stage.FINISHED
            case ev.CleanedUp():
                self.cleaned_up = event
        self._tell(event)

    def _read(self, event: ev.Read) -> None:
        self.stage = Stage.READING
        self.last, self._attempt = event, None
        self.state, self.failures = event.state, event.failures
        self.reads_left = event.reads_left
        if event.seconds_left is None:
            self._probe_at = None
        else:
            self._probe_at = event.t + event.seconds_left
            self._cooldown = max(self._cooldown or 0.0, event.seconds_left)
        cell = cell_of(event)
        self.hedged += event.hedged
        self.cells.append(cell)
        self.latencies.append((event.ms, cell))
        if cell is Cell.FAILED:
            self.failed += 1
        elif cell is Cell.PRIMARY:
            self.primary += 1
        else:
            self.secondary += 1
        rate = self.settings.rate if self.settings else 0.0
        begun = event.t - event.ms / 1000
        self._idle_until = max(event.t, begun + 1 / rate) if rate > 0 else event.t

    def _transition(self, event: ev.Transitioned) -> None:
        if event.circuit == ev.SECONDARY:
            self.secondary_state = event.new
            return
        self.state = event.new
        self.failures = 0
        self.reads_left = self._probe_at = self._cooldown = None
        if event.new == ev.OPEN:
            self.opened += event.old == ev.CLOSED
            self.opened_by_fault = self.fault_on
            if self.settings:
                self.reads_left = self.settings.secondary_threshold
                self._cooldown = self.settings.cooldown
                self._probe_at = None if self._cooldown is None else event.t + self._cooldown

    def _tell(self, event: ev.Event) -> None:
        said = self._narrator.tell(event)
        if said is None or isinstance(event, (ev.Started, ev.Waiting)):
            return  # the head line and the progress bar say these
        if self.news and self.news[-1].topic == said.topic:
            self.news.pop()
        self.news.append(News(event.t, said.text, said.topic, said.bad))


def cell_of(read: ev.Read) -> Cell:
    """How this read ended."""
    if not read.ok or read.endpoint is None:
        return Cell.FAILED
    if read.endpoint == ev.PRIMARY:
        return Cell.PRIMARY
    if read.hedged:
        return Cell.HEDGED
    return Cell.TRIED if read.tried_primary else Cell.SECONDARY


def cells_of(settings: ev.Started | None) -> tuple[Cell, ...]:
    """The ways in which a read of this run can end, from the best to the worst."""
    hedges = settings is not None and settings.hedge is not None
    return tuple(cell for cell in Cell if hedges or cell is not Cell.HEDGED)
