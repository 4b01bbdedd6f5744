"""Reads by many configurations in turn, so that noise meets all alike, through one outage of all their primaries."""

from __future__ import annotations

import math
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from azure.core.exceptions import AzureError

from benchmarks.outage.accounts import Accounts
from benchmarks.outage.configurations import CONFIGURATIONS, Reader, Setting
from benchmarks.outage.figures import Reading, Run, Series
from failover.breaker import State

_TURN: Final = 0.02
"""Seconds that a read has the machine to itself. One that takes longer goes on beside the others', waiting mostly."""


@dataclass(frozen=True)
class Timing:
    """Seconds: before the fault, with it, and after it at most. pace: of one round at least."""

    before: float = 10.0
    outage: float = 105.0
    after: float = 125.0
    linger: float = 5.0
    """Reads go on for so long after the last configuration is back at the primary."""
    pace: float = 0.25
    rounds: int = 8
    """The outage lasts longer where the machine is so busy that there were fewer rounds by then."""


class _Lane(threading.Thread):
    """One configuration at one place: reads when told to, one read at a time."""

    def __init__(self, reader: Reader, series: Series, clock: Callable[[], float]) -> None:
        super().__init__(daemon=True)
        self.reader = reader
        self.series = series
        self._clock = clock
        self._go, self._idle = threading.Event(), threading.Event()
        self._idle.set()
        self.started = math.inf
        self.defect: BaseException | None = None

    @property
    def busy(self) -> bool:
        return not self._idle.is_set()

    def turn(self) -> None:
        """Begin a read, and wait for its end if that is soon."""
        self._idle.clear()
        self._go.set()
        self._idle.wait(_TURN)

    def run(self) -> None:
        while True:
            self._go.wait()
            self._go.clear()
            self.started = self._clock()
            endpoint: str | None = None
            try:
                self.reader.read()
                endpoint = self.reader.watched.last
            except AzureError:
                pass
            except BaseException as error:  # noqa: BLE001 (told by the ring, which ends then)
                self.defect = error
            self.series.readings.append(Reading(self.started, self._clock(), endpoint))
            self._idle.set()


@dataclass
class _Ring:
    lanes: list[_Lane]
    pace: float
    shuffle: random.Random = field(default_factory=lambda: random.Random(1))

    def turn(self) -> None:
        """Each lane that is not busy reads once, in an order that is another one each time."""
        due = time.monotonic() + self.pace
        self.shuffle.shuffle(self.lanes)
        for lane in self.lanes:
            if lane.defect is not None:
                raise lane.defect
            if not lane.busy:
                lane.turn()
        time.sleep(max(0.0, due - time.monotonic()))


def measure(
    accounts: Accounts, setting: Setting, timing: Timing, threshold: int, progress: Callable[[str, float], None]
) -> Run:
    """All configurations at all places through one outage. `progress`: what goes on, and seconds left at most."""
    zero = time.monotonic() + timing.before  # put right when the fault is on

    def clock() -> float:
        return time.monotonic() - zero

    lanes = []
    for kind, place in accounts.places.items():
        for name, make in CONFIGURATIONS.items():
            lane = _Lane(make(accounts, place, setting), Series(kind, name), clock)
            lane.reader.read()  # connects, and all that is done once
            lane.start()
            lanes.append(lane)
    ring = _Ring(list(lanes), timing.pace)
    zero = time.monotonic() + timing.before
    while clock() < 0:
        progress("healthy", timing.outage + timing.after - clock())
        ring.turn()
    while any(lane.busy for lane in lanes):
        time.sleep(0.001)
    off_by = clock()
    zero += off_by
    for lane in lanes:
        lane.series.readings = [_moved(each, off_by) for each in lane.series.readings]
    accounts.switch(True)
    rounds = 0
    while clock() < timing.outage or rounds < timing.rounds:
        progress("primary out", timing.outage + timing.after - clock())
        ring.turn()
        rounds += 1
    for lane in lanes:
        lane.series.probes = _probes(lane.reader)
    outage = clock()
    accounts.switch(False)
    last = outage + timing.after
    while clock() < last:
        away = [lane for lane in lanes if not _is_back(lane.series, outage)]
        progress(f"primary back, {len(away)} of {len(lanes)} not yet", last - clock())
        if not away:
            last = min(last, clock() + timing.linger)
        ring.turn()
    for lane in lanes:
        if lane.busy:
            lane.series.readings.append(Reading(lane.started, math.inf, None))
        lane.series.hits = [at - zero for at in lane.reader.watched.hits]
    return Run(outage, [lane.series for lane in lanes], threshold)


def _moved(reading: Reading, seconds: float) -> Reading:
    return Reading(reading.start - seconds, reading.end - seconds, reading.endpoint)


def _probes(reader: Reader) -> int | None:
    """How often the primary's circuit has probed it: each opening but the first follows a probe."""
    if reader.circuit is None:
        return None
    told = reader.circuit.snapshot()
    return max(0, int(told["opened"]) - 1) + int(told["state"] == State.HALF_OPEN.value)


def _is_back(series: Series, outage: float) -> bool:
    return any(each.start >= outage and each.endpoint == "primary" for each in reversed(series.readings))
