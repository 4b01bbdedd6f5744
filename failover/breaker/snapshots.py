"""A circuit as a dict that is JSON as it stands, for a status page or a log."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from failover.breaker.errors import describe
from failover.breaker.machine import Record, State, ramp_of
from failover.breaker.policy import AfterCalls

if TYPE_CHECKING:
    from failover.breaker.circuit import CircuitBreaker


def snapshot_of(breaker: CircuitBreaker) -> dict[str, Any]:
    """`CircuitBreaker.snapshot`.

    retry_after: seconds, None where no time is known. calls_left: calls that are turned away before the probe, None
    where the recovery goes by time. ramp: the share of calls admitted while it grows, from 0.1 to 1, else None. era:
    how often the circuit changed. opened: how often it opened. last_error: one line, or None.
    """
    record, recovery, last = breaker._record, breaker.policy.recovery, breaker._last_error
    calls_left = None
    if record.state is State.OPEN and not record.isolated and isinstance(recovery, AfterCalls):
        calls_left = recovery.calls - record.refused
    return {
        "name": breaker.name,
        "state": record.state.value,
        "failures": record.failures,
        "threshold": breaker._threshold,
        "retry_after": wait_left(breaker, record),
        "calls_left": calls_left,
        "isolated": record.isolated,
        "ramp": ramp_of(record, breaker.policy, breaker._clock()),
        "era": record.era,
        "opened": record.opened,
        "last_error": None if last is None else describe(last),
    }


def wait_left(breaker: CircuitBreaker, record: Record) -> float | None:
    """Seconds until a call may be the probe; None where no time is known."""
    if record.state is not State.OPEN or not math.isfinite(record.retry_at):
        return None
    return max(0.0, record.retry_at - breaker._clock())
