"""When a circuit trips and when it tries again: plain values, checked when they are made."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

from failover.breaker import failures

# Compared with, unlike math.isfinite, an integer of any size.
_LARGEST = sys.float_info.max


def _count(field: str, value: object) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{field} must be an integer from 1, not {value!r}")


def _number(field: str, value: object) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ValueError(f"{field} must be a number, not {value!r}")  # noqa: TRY004 (contract)


def _seconds(field: str, value: float) -> None:
    _number(field, value)
    if not 0 < value <= _LARGEST:
        raise ValueError(f"{field} must be finite and above 0 seconds, not {value!r}")


def _share(field: str, value: float) -> None:
    _number(field, value)
    if not 0 <= value <= 1:
        raise ValueError(f"{field} must lie in 0 to 1, not {value!r}")


@dataclass(frozen=True, slots=True)
class ConsecutiveFailures:
    """Trip at the `threshold`-th failure in a row; a success in between starts the count anew.

    `threshold` is an integer from 1, else `ValueError`.
    """

    threshold: int = 5

    def __post_init__(self) -> None:
        _count("threshold", self.threshold)


@dataclass(frozen=True, slots=True)
class Cooldown:
    """Probe the remote `seconds` after the circuit opened.

    Each opening that follows a failed probe multiplies the time by `factor`, until the circuit closes; growth
    ends at `maximum` seconds. `jitter` is the share of the time, drawn at random from 0 to `jitter`, by which
    each single cooldown is shortened, so that many processes do not probe in step and `maximum` stays one.

    `ValueError` unless seconds are finite and above 0, `factor` is at least 1 and `jitter` lies in 0 to 1.
    A `maximum` below `seconds` limits only growth: the first cooldown always lasts `seconds`.
    """

    seconds: float = 30.0
    factor: float = 1.0
    maximum: float = 300.0
    jitter: float = 0.0

    def __post_init__(self) -> None:
        _seconds("seconds", self.seconds)
        _seconds("maximum", self.maximum)
        _number("factor", self.factor)
        if not 1 <= self.factor <= _LARGEST:
            raise ValueError(f"factor must be a finite number from 1, not {self.factor!r}")
        _share("jitter", self.jitter)

    def duration(self, openings: int, random: Callable[[], float]) -> float:
        """The length in seconds of the cooldown after the `openings`-th opening (from 1) without a closing."""
        most = max(self.maximum, self.seconds)
        try:
            grown = min(most, self.seconds * float(self.factor) ** (openings - 1))
        except OverflowError:  # from 2.0 ** 1024
            grown = most
        return grown * (1 - self.jitter * random()) if self.jitter else grown


@dataclass(frozen=True, slots=True)
class AfterCalls:
    """Probe the remote after `calls` calls have been turned away: the next one is the probe.

    `calls` is an integer from 1, else `ValueError`. For callers that have somewhere else to go meanwhile, and
    for demonstrations: the pattern is the same at any speed.
    """

    calls: int = 20

    def __post_init__(self) -> None:
        _count("calls", self.calls)


@dataclass(frozen=True, slots=True)
class Policy:
    """All that a circuit is told about its remote.

    trip: what opens the circuit. recovery: what lets a probe through again.
    timeout: seconds, or None; a call that takes longer is a failure, even where its result is used.
    max_probes: calls in flight at most while half-open. successes_to_close: probes that must succeed.
    probe_lease: seconds after which a probe that never came back gives up its place.
    classify: takes what a call raised or returned, gives SUCCESS, FAILURE or NEUTRAL of
    `failover.breaker.failures`; never asked about cancellation, which is always neutral.

    `ValueError` naming the field: counts are integers from 1, seconds finite and above 0.
    """

    trip: ConsecutiveFailures = ConsecutiveFailures()
    recovery: Cooldown | AfterCalls = Cooldown()
    timeout: float | None = None
    max_probes: int = 1
    successes_to_close: int = 1
    probe_lease: float = 30.0
    classify: failures.Classifier = failures.classify

    def __post_init__(self) -> None:
        if not isinstance(self.trip, ConsecutiveFailures):
            raise ValueError(f"trip must be a ConsecutiveFailures, not {self.trip!r}")  # noqa: TRY004 (contract)
        if not isinstance(self.recovery, (Cooldown, AfterCalls)):
            raise ValueError(f"recovery must be a Cooldown or AfterCalls, not {self.recovery!r}")  # noqa: TRY004
        if self.timeout is not None:
            _seconds("timeout", self.timeout)
        _count("max_probes", self.max_probes)
        _count("successes_to_close", self.successes_to_close)
        _seconds("probe_lease", self.probe_lease)
        if not callable(self.classify):
            raise ValueError(f"classify must be callable, not {self.classify!r}")  # noqa: TRY004
