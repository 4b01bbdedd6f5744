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
    """Probe the remote some time after the circuit opened.

    Args:
        seconds: Length of the first cooldown, finite and above 0.
        factor: Each failed probe multiplies the length by this, until the circuit closes. At least 1.
        maximum: Seconds at which the growth ends. If it is below `seconds`, the first cooldown still lasts `seconds`.
        jitter: Each cooldown is shortened by a random share of its length, from 0 to `jitter`, so that many processes
            do not probe at the same time and no cooldown is longer than `maximum`. From 0 to 1.

    Raises:
        ValueError: A value is out of range.
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
        """Seconds of the cooldown after the `openings`-th opening (from 1) since the circuit was last closed."""
        most = max(self.maximum, self.seconds)
        try:
            grown = min(most, self.seconds * float(self.factor) ** (openings - 1))
        except OverflowError:  # from 2.0 ** 1024
            grown = most
        return grown * (1 - self.jitter * random()) if self.jitter else grown


@dataclass(frozen=True, slots=True)
class AfterCalls:
    """Probe the remote after `calls` calls have been refused: the next call is the probe.

    Use it if callers have an alternative in the meantime, and for demonstrations, because the pattern does not depend
    on the rate of the calls.

    Args:
        calls: An integer, at least 1.

    Raises:
        ValueError: `calls` is not such an integer.
    """

    calls: int = 20

    def __post_init__(self) -> None:
        checks.count("calls", self.calls)


@dataclass(frozen=True, slots=True)
class Policy:
    """When a circuit trips, when it tries again, and how it judges a call.

    Args:
        trip: What opens the circuit: `ConsecutiveFailures`, `FailureRate`, or your own (see `failover.breaker.trips`).
        recovery: What admits a probe again: `Cooldown` or `AfterCalls`. If the failure that opens the circuit has a
            Retry-After, that lengthens a `Cooldown`, up to its `maximum`.
        timeout: Seconds, or None. A call that takes longer counts as a failure, even if its result is used. An async
            call is cancelled after this time, under asyncio and trio.
        max_probes: The largest number of calls in flight while the circuit is half-open, and of last resorts at any
            time (see `CircuitBreaker.admit`).
        successes_to_close: Probes that must succeed to close the circuit.
        failures_to_reopen: Probes that must fail to open the circuit again.
        probe_lease: Seconds after which a probe that has not finished loses its place.
        dry_run: Count, log and inform listeners of what the circuit would do, but admit every call. A call that would
            have been refused is reported as refused, and its result does not count. No call is cancelled at `timeout`.
            A fallback still replaces calls that failed.
        ramp: Seconds, or None. For this time after the circuit has closed, it admits a growing share of the calls, from
            a tenth to all, so that many callers do not overload a remote that has just recovered. Which calls are
            admitted is random. The others are refused as by an open circuit, but without `retry_after`, so that they do
            not all return at the same time. `reset()` on a closed circuit ends its ramp.
        classify: Takes what a call raised or returned, and returns SUCCESS, FAILURE or NEUTRAL of
            `failover.breaker.failures`. It is not called for a cancellation, which is always neutral.
        fallback: See `CircuitBreaker`. A fallback of the circuit takes precedence.

    Raises:
        ValueError: A field is out of range; the text names it. Counts are integers of at least 1; seconds are finite
            and above 0.
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
