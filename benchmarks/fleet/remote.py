"""A primary that dies, comes back with little capacity, and can be pushed down again by those that come back to it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

_SLICES: Final = 10  # of a second
_BURST: Final = 0.25  # seconds
_AT_ONCE: Final = 5.0
_FEW: Final = 20  # requests in one second that push nothing down


@dataclass(frozen=True)
class Recovery:
    """Capacities are shares of the load that all clients together make in normal times.

    The primary dies at 0 and is back after `outage` seconds with the capacity `cold`, which grows to `full` within
    `warm_up` seconds. Requests beyond its capacity fail. Where more than `crushing` times its capacity comes within
    one second, it is down for `down_again` seconds more and begins cold again.
    """

    outage: float = 80.0
    cold: float = 0.25
    full: float = 1.5
    warm_up: float = 120.0
    crushing: float = 2.5
    down_again: float = 10.0


class Remote:
    """The primary. `load`: requests per second in normal times. Time must not go back.

    hits_while_dead: requests from 0 until it was back. shed: those that failed after that. falls: how often it was
    pushed down again. arrivals, failed, room: by tenth of a second, the requests, those that failed, and its capacity.
    """

    def __init__(self, recovery: Recovery, load: float) -> None:
        self._recovery = recovery
        self._load = load
        self._downs = [(0.0, recovery.outage)]  # when it went down, and when it was back
        self._budget = 0.0
        self._refilled_at = -math.inf
        self._summed_at = 0  # the tenth for which `_before` has the requests of the nine before it
        self._before = 0
        self.hits_while_dead = 0
        self.shed = 0
        self.falls = 0
        self.arrivals: dict[int, int] = {}
        self.failed: dict[int, int] = {}
        self.room: dict[int, float] = {}

    def capacity(self, now: float) -> float:
        """Requests per second that it can answer."""
        of = self._recovery
        if now < 0:
            return of.full * self._load
        back_at = next(back for down, back in reversed(self._downs) if down <= now)
        if now < back_at:
            return 0.0
        warm = min(1.0, (now - back_at) / of.warm_up)
        return (of.cold + (of.full - of.cold) * warm) * self._load

    def answers(self, now: float) -> bool:
        """A request arrives at `now`; False: it fails."""
        at = math.floor(now * _SLICES)
        answered = self._answers(now, at)
        if not answered:
            self.failed[at] = self.failed.get(at, 0) + 1
        return answered

    def _answers(self, now: float, at: int) -> bool:
        capacity = self.capacity(now)
        self.arrivals[at] = self.arrivals.get(at, 0) + 1
        self.room[at] = capacity
        if 0 <= now < self._recovery.outage:
            self.hits_while_dead += 1
            return False
        if now >= 0 and capacity and self._is_crushed(at, capacity):
            self.falls += 1
            self._downs.append((now, now + self._recovery.down_again))
            capacity = 0.0
        # A burst may use what a short while left unused, and where requests are few, a few may come at once.
        most = max(_AT_ONCE, capacity * _BURST)
        self._budget = min(most, self._budget + (now - self._refilled_at) * capacity) if capacity else 0.0
        self._refilled_at = now
        if self._budget < 1.0:
            self.shed += now >= 0
            return False
        self._budget -= 1.0
        return True

    def _is_crushed(self, at: int, capacity: float) -> bool:
        if at != self._summed_at:
            self._summed_at = at
            self._before = self._in_a_second(at - _SLICES + 1) - self.arrivals[at]
        return self._before + self.arrivals[at] > max(_FEW, self._recovery.crushing * capacity)

    def _in_a_second(self, first: int) -> int:
        return _in_slices(self.arrivals, first)

    def peak(self) -> float:
        """The most requests in one second since the end of the outage, by what it could answer in that second."""
        since = math.ceil(self._recovery.outage * _SLICES)
        seconds = ((self._in_a_second(at - _SLICES + 1), self.room[at]) for at in self.arrivals if at >= since)
        return max((arrived / room for arrived, room in seconds if room), default=0.0)

    def course(self) -> list[tuple[float, float, float, float]]:
        """Second by second: when it began, requests, failures and capacity, all as shares of the normal load."""
        if not self.arrivals:
            return []
        first, last = min(self.arrivals) // _SLICES, max(self.arrivals) // _SLICES
        return [
            (
                second,
                self._in_a_second(second * _SLICES) / self._load,
                _in_slices(self.failed, second * _SLICES) / self._load,
                self._capacity_seen(second) / self._load,
            )
            for second in range(first, last)
        ]

    def _capacity_seen(self, second: int) -> float:
        """Its capacity when the last request of that second came; by the plan where none came."""
        for at in range((second + 1) * _SLICES - 1, second * _SLICES - 1, -1):
            if at in self.room:
                return self.room[at]
        return self.capacity(second)


def _in_slices(counts: dict[int, int], first: int) -> int:
    return sum(counts.get(at, 0) for at in range(first, first + _SLICES))
