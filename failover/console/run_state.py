"""What is true of a run at this moment, folded from its events: no screen, no clock, no thread.

`run_history.py` keeps what happened before.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from failover.console.wording import cause
from failover.demo import events as ev

ANOTHER = "another process"  # begins the reason of what another process has found out
_SLOW = "took its time"  # a cause that no attempt reports: the answer came, and counts as a failure


class Stage(Enum):
    """How far the run is."""

    STARTING = "starting"
    WAITING = "waiting"
    READING = "reading"
    FINISHED = "finished"


class Cell(Enum):
    """How one read ended, from the best to the worst."""

    PRIMARY = "primary"
    SECONDARY = "secondary"
    HEDGED = "secondary, asked beside the primary"
    TRIED = "secondary after trying the primary"
    FAILED = "failed"

    @classmethod
    def of(cls, read: ev.Read) -> Cell:
        """How this read ended."""
        if not read.ok or read.endpoint is None:
            return cls.FAILED
        if read.endpoint == ev.PRIMARY:
            return cls.PRIMARY
        if read.hedged:
            return cls.HEDGED
        return cls.TRIED if read.tried_primary else cls.SECONDARY


@dataclass
class RunState:
    """The run at this moment. `apply` each event, in order, then read the attributes.

    Attributes:
        t: Seconds since the start, of the latest event.
        last: The last read that is over.
        state: That of the primary's circuit.
        failures: What it counts while it is closed, of the `threshold` that open it.
        reads_left: Reads until the primary is probed, while the circuit is open; None where time decides.
        probe: The read that probed last; 0 before the first.
        probing: Whether it is under way.
        probed_by_another: Whether the probe that is under way is another process's.
        causes: What the primary did instead of answering, since it answered last.
        fault: The kind that f switches.
        outside: Whether the primary fails though this program's own fault is off: somebody else fails it.
        own: Whether this program's own fault was on at some time during the read that is under way, or during a request
            that a hedged read has left behind, which may still fail.
        failing_since: The first of the reads that have failed in a row; None while the last one was answered.
        hedging_since: The first of the reads that have been hedged in a row; None while the last one was not.
        pauses: How many there were.
    """

    t: float = 0.0
    settings: ev.Started | None = None
    stage: Stage = Stage.STARTING
    waiting: ev.Waiting | None = None

    last: ev.Read | None = None
    failing_since: int | None = None
    hedging_since: int | None = None

    state: str = ev.CLOSED
    failures: int = 0
    threshold: int = 0
    reads_left: int | None = None
    probe: int = 0
    probing: bool = False
    probed_by_another: bool = False
    causes: set[str] = field(default_factory=set)
    secondary_state: str = ev.CLOSED
    secondary_seen: ev.SecondarySeen | None = None

    fault: str = "503"
    fault_on: bool = False
    outside: bool = False
    own: bool = False
    paused: ev.Paused | None = None
    pauses: int = 0

    _opened_by_fault: bool = False
    _own_until: float = 0.0  # seconds since the start
    _probe_at: float | None = None
    _cooldown: float | None = None
    _idle_until: float | None = None

    @property
    def reads(self) -> int:
        """How many reads are over."""
        return self.last.n if self.last else 0

    @property
    def opened_by_fault(self) -> bool:
        """Whether the circuit opened while our own fault was on, and nobody else fails the primary since."""
        return self._opened_by_fault and not self.outside

    @property
    def why(self) -> str:
        """What the primary did instead of answering, as the rest of a sentence; empty where no attempt reported it."""
        if self.causes <= {_SLOW}:
            return ""
        return next(iter(self.causes)) if len(self.causes) == 1 else "failed"

    @property
    def net(self) -> bool:
        """Whether the secondary would answer, as far as anybody knows."""
        return self.secondary_state != ev.OPEN and (self.secondary_seen is None or self.secondary_seen.reachable)

    @property
    def staleness(self) -> float | None:
        """How old what the secondary holds may be, in seconds; None when nobody knows."""
        return self.secondary_seen.staleness if self.secondary_seen and self.secondary_seen.reachable else None

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

    def cells(self) -> tuple[Cell, ...]:
        """The ways in which a read of this run can end, from the best to the worst."""
        hedges = self.settings is not None and self.settings.hedge is not None
        return tuple(cell for cell in Cell if hedges or cell is not Cell.HEDGED)

    def apply(self, event: ev.Event) -> None:
        """Take in what happened. An event of a kind that is not known here changes nothing but the time."""
        self.t = max(self.t, event.t)
        match event:
            case ev.Started():
                self.settings = event
                self.threshold, self.fault = event.retry_threshold, event.fault
            case ev.Uploaded():
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
                self.failures, self.threshold = event.failures, event.threshold
                self.causes.add(cause(event.error))
                self.outside = not self.own
            case ev.Transitioned(circuit=ev.SECONDARY):
                self.secondary_state = event.new
            case ev.Transitioned():
                self._transition(event)
            case ev.FaultSwitched():
                self.fault, self.fault_on = event.kind, event.on
                self.own = self.own or event.on
                if not event.on and self.settings and self.settings.hedge is not None:
                    self._own_until = event.t + self.settings.timeout
            case ev.Paused():
                self.paused = event
                self.pauses += 1
            case ev.Resumed():
                self.paused = None
                self.own = self._fails_itself(event.t)
                self._idle_until = event.t
            case ev.SecondarySeen():
                self.secondary_seen = event
            case ev.Finished():
                self.paused = None
                self.stage = Stage.FINISHED

    def _read(self, event: ev.Read) -> None:
        self.stage = Stage.READING
        self.last = event
        self.failing_since = None if event.ok else self.failing_since or event.n
        self.hedging_since = self.hedging_since or event.n if event.ok and event.hedged else None
        self.state, self.failures = event.state, event.failures
        if event.ok and event.state == ev.CLOSED:
            if event.failures == 0:
                self.causes.clear()
            elif event.endpoint == ev.PRIMARY:
                self.causes.add(_SLOW)
        self.outside = self.outside and not (event.endpoint == ev.PRIMARY and not event.failures)
        self.own = self._fails_itself(event.t)
        self.reads_left = event.reads_left
        if event.seconds_left is None:
            self._probe_at = None
        else:
            self._probe_at = event.t + event.seconds_left
            self._cooldown = max(self._cooldown or 0.0, event.seconds_left)
        rate = self.settings.rate if self.settings else 0.0
        begun = event.t - event.ms / 1000
        self._idle_until = max(event.t, begun + 1 / rate) if rate > 0 else event.t

    def _fails_itself(self, now: float) -> bool:
        """Whether our own fault is on, or a hedged read may have left a request behind that it was on for."""
        return self.fault_on or now < self._own_until

    def _transition(self, event: ev.Transitioned) -> None:
        by_another = event.reason.startswith(ANOTHER)
        self.state = event.new
        self.failures = 0
        self.reads_left = self._probe_at = self._cooldown = None
        self.probing = event.new == ev.HALF_OPEN and not by_another
        self.probed_by_another = event.new == ev.HALF_OPEN and by_another
        if self.probing:
            self.probe = event.n
            return
        self.causes.clear()
        if event.new == ev.CLOSED:
            self.outside = False
        elif event.new == ev.OPEN:
            self.outside = self.outside if by_another else not self.own
            self._opened_by_fault = self._fails_itself(event.t)
            if self.settings:
                self.reads_left = self.settings.secondary_threshold
                self._cooldown = self.settings.cooldown
                self._probe_at = None if self._cooldown is None else event.t + self._cooldown
