"""What opens a closed circuit: algorithms that count calls in constant memory and constant time.

One's own is a small class with a `threshold` and a `window()`. This one trips when a budget of failures is used up,
which each success refills by a tenth:

>>> from dataclasses import dataclass
>>> @dataclass(frozen=True)
... class Budget:
...     threshold: int = 3                  # the fewest failures that can trip: told to listeners and the log
...     def window(self):                   # asked anew whenever the circuit closes
...         return BudgetWindow(self.threshold)
>>> class BudgetWindow:
...     def __init__(self, budget):
...         self.budget, self.left, self.failures = budget, float(budget), 0
...     def add(self, failed, now):         # under the circuit's lock: be quick, and do not use the circuit
...         self.failures += failed
...         self.left = self.left - 1 if failed else min(self.budget, self.left + 0.1)
...         return self.left <= 0
>>> from failover.breaker import CircuitBreaker, Policy
>>> breaker = CircuitBreaker("billing", Policy(trip=Budget()))
>>> for _ in range(3):
...     breaker.admit().failed(ConnectionError())
>>> breaker.state
<State.OPEN: 'open'>
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from failover.breaker import checks

_SLICES = 10  # of the time that a window in seconds looks back on


class Window(Protocol):
    """What an algorithm remembers about the calls of one circuit while it is closed."""

    @property
    def failures(self) -> int:
        """The number of failures that count now."""

    def add(self, failed: bool, now: float) -> bool:
        """Count a call that ended at `now` (seconds, by the circuit's clock). Returns True if the circuit is to trip.

        If the calls in a window expire with time, it may also have a method `forget(now)`. `CircuitBreaker.snapshot`
        calls it before it reads `failures`.
        """


class Trip(Protocol):
    """An algorithm that decides when a circuit trips. It is a value that several circuits may share."""

    @property
    def threshold(self) -> int:
        """The smallest number of failures that can trip the circuit, at least 1."""

    def window(self) -> Window | None:
        """A new, empty window for one circuit; None to count failures in a row, up to the threshold."""


@dataclass(frozen=True, slots=True)
class ConsecutiveFailures:
    """Trip at the `threshold`-th failure in a row. A success in between resets the count.

    It needs no window, because the count is part of the circuit's record. A success while nothing has failed needs no
    lock.

    Args:
        threshold: An integer, at least 1.

    Raises:
        ValueError: `threshold` is not such an integer.
    """

    threshold: int = 5

    def __post_init__(self) -> None:
        checks.count("threshold", self.threshold)

    def window(self) -> None:
        """None: the count is part of the circuit's record."""


@dataclass(frozen=True, slots=True)
class FailureRate:
    """Trip if the share `rate` of the last calls failed, once there were at least `minimum` calls.

    The last calls are either the last `calls` calls, or those of the last `seconds` (in steps of a tenth of that time);
    give exactly one of the two. At least one of them must have failed, even if `rate` is 0.

    Args:
        rate: From 0 to 1.
        calls: An integer, at least 1.
        seconds: Finite and above 0.
        minimum: An integer from 1 to `calls`.

    Raises:
        ValueError: A value is out of range, or not exactly one of `calls` and `seconds` is given.
    """

    rate: float
    calls: int | None = None
    seconds: float | None = None
    minimum: int = 20

    def __post_init__(self) -> None:
        checks.share("rate", self.rate)
        checks.count("minimum", self.minimum)
        if (self.calls is None) == (self.seconds is None):
            raise ValueError("calls or seconds must be given, and not both")
        if self.calls is not None:
            checks.count("calls", self.calls)
            if self.minimum > self.calls:
                raise ValueError(
                    f"minimum must be at most calls ({self.calls}), not {self.minimum}: it would never trip"
                )
        if self.seconds is not None:
            checks.seconds("seconds", self.seconds)

    @property
    def threshold(self) -> int:
        """The smallest number of failures that can trip the circuit."""
        about = math.ceil(self.rate * self.minimum)
        return next(failures for failures in (about - 1, about, about + 1) if self.trips(failures, self.minimum))

    def window(self) -> Window:
        """A new, empty window for one circuit."""
        return _LastSeconds(self, self.seconds) if self.seconds is not None else _LastCalls(self, self.calls or 1)

    def trips(self, failures: int, calls: int) -> bool:
        """Whether this many failures among this many calls trip the circuit."""
        # Divided, since 0.07 * 100 is above 7 and 7 / 100 is 0.07.
        return failures > 0 and calls >= self.minimum and failures / calls >= self.rate


class _LastCalls:
    __slots__ = ("_failed", "_rate", "failures")

    def __init__(self, rate: FailureRate, calls: int) -> None:
        self._rate = rate
        self._failed: deque[bool] = deque(maxlen=calls)
        self.failures = 0

    def add(self, failed: bool, now: float) -> bool:  # noqa: ARG002 (the protocol's)
        last = self._failed
        if len(last) == last.maxlen:
            self.failures -= last[0]
        last.append(failed)
        self.failures += failed
        return self._rate.trips(self.failures, len(last))


class _LastSeconds:
    """A ring of slices of time, each with its calls and failures."""

    __slots__ = ("_at", "_calls", "_failures", "_rate", "_slice", "calls", "failures")

    def __init__(self, rate: FailureRate, seconds: float) -> None:
        self._rate = rate
        self._slice = seconds / _SLICES
        self._at: int | None = None
        self._calls = [0] * _SLICES
        self._failures = [0] * _SLICES
        self.calls = self.failures = 0

    def add(self, failed: bool, now: float) -> bool:
        self.forget(now)
        place = (self._at or 0) % _SLICES
        self._calls[place] += 1
        self._failures[place] += failed
        self.calls += 1
        self.failures += failed
        return self._rate.trips(self.failures, self.calls)

    def forget(self, now: float) -> None:
        """Drop the calls that are too old at `now`."""
        at = int(now / self._slice)
        passed = 0 if self._at is None else min(_SLICES, at - self._at)
        for step in range(passed):
            place = (at - step) % _SLICES
            self.calls -= self._calls[place]
            self.failures -= self._failures[place]
            self._calls[place] = self._failures[place] = 0
        if self._at is None or passed > 0:
            self._at = at
