"""When a circuit trips and when it tries again: plain values, checked when they are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from failover.breaker import checks, failures
from failover.breaker.trips import ConsecutiveFailures, Trip

Fallback = Callable[[BaseException, Any], Any]
"""Takes the error and the circuit, gives what the caller gets instead; may be a coroutine function for async calls."""


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
        checks.seconds("seconds", self.seconds)
        checks.seconds("maximum", self.maximum)
        checks.number("factor", self.factor)
        if not 1 <= self.factor <= checks.LARGEST:
            raise ValueError(f"factor must be a finite number from 1, not {self.factor!r}")
        checks.share("jitter", self.jitter)

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
        checks.count("calls", self.calls)


@dataclass(frozen=True, slots=True)
class Policy:
    """All that a circuit is told about its remote.

    trip: what opens the circuit: `ConsecutiveFailures`, `FailureRate`, or one's own (see `failover.breaker.trips`).
    recovery: what lets a probe through again. The Retry-After of the failure that opens the circuit lengthens a
    `Cooldown`, up to its `maximum`.
    timeout: seconds, or None; a call that takes longer is a failure, even where its result is used. An async call is
    cancelled at it, under asyncio and trio.
    max_probes: calls in flight at most while half-open, and last resorts (see `CircuitBreaker.admit`) at any time.
    successes_to_close: probes that must succeed. failures_to_reopen: probes that must fail to open the circuit again.
    probe_lease: seconds after which a probe that never came back gives up its place.
    dry_run: count, log and tell listeners what the circuit would do, and admit every call: one that would have been
    refused is told as refused, and its result does not count. No call is cancelled at `timeout`. A fallback still
    answers calls that failed.
    ramp: seconds, or None; for so long after the circuit has closed it admits a share of the calls, which grows from
    a tenth to all, so that many callers do not trample a remote that has just recovered. Calls held back are refused
    like those of an open circuit, with no `retry_after`: told a time, they would all come at it. Which calls, is
    drawn at random. `reset()` of a closed circuit ends its ramp.
    classify: takes what a call raised or returned, gives SUCCESS, FAILURE or NEUTRAL of
    `failover.breaker.failures`; never asked about cancellation, which is always neutral.
    fallback: see `CircuitBreaker`, whose own goes first.

    `ValueError` naming the field: counts are integers from 1, seconds finite and above 0.
    """

    trip: Trip = ConsecutiveFailures()  # noqa: RUF009 (frozen)
    recovery: Cooldown | AfterCalls = Cooldown()
    timeout: float | None = None
    max_probes: int = 1
    successes_to_close: int = 1
    failures_to_reopen: int = 1
    probe_lease: float = 30.0
    classify: failures.Classifier = failures.classify
    fallback: Fallback | None = None
    ramp: float | None = None
    dry_run: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.trip, type) or not (hasattr(self.trip, "threshold") and hasattr(self.trip, "window")):
            raise ValueError(f"trip must have a threshold and a window(), which {self.trip!r} has not")
        checks.count("trip.threshold", self.trip.threshold)
        if not isinstance(self.recovery, (Cooldown, AfterCalls)):
            raise ValueError(f"recovery must be a Cooldown or AfterCalls, not {self.recovery!r}")  # noqa: TRY004
        if self.timeout is not None:
            checks.seconds("timeout", self.timeout)
        checks.count("max_probes", self.max_probes)
        checks.count("successes_to_close", self.successes_to_close)
        checks.count("failures_to_reopen", self.failures_to_reopen)
        checks.seconds("probe_lease", self.probe_lease)
        if not callable(self.classify):
            raise ValueError(f"classify must be callable, not {self.classify!r}")  # noqa: TRY004 (contract)
        checks.optional_callable("fallback", self.fallback)
        if self.ramp is not None:
            checks.seconds("ramp", self.ramp)
        if not isinstance(self.dry_run, bool):
            raise ValueError(f"dry_run must be True or False, not {self.dry_run!r}")  # noqa: TRY004 (contract)
