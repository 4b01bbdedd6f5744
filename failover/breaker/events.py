"""The events that listeners of a circuit receive: immutable values, one class for each thing that can happen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from failover.breaker.failures import Verdict
from failover.breaker.machine import Event, Record, State
from failover.breaker.policy import AfterCalls, Policy
from failover.breaker.trips import ConsecutiveFailures


@dataclass(frozen=True, slots=True)
class Transition:
    """The circuit `name` went from state `old` to state `new`; `reason` says why in plain words."""

    name: str
    old: State
    new: State
    reason: str


@dataclass(frozen=True, slots=True)
class CallFailed:
    """A failure was counted: it is number `failures` of the `threshold` that opens the circuit.

    While half-open, and for a last resort, `failures` is the count at which the circuit opened.
    """

    name: str
    error: BaseException
    failures: int
    threshold: int


@dataclass(frozen=True, slots=True)
class CallRefused:
    """A call was refused. `retry_after` is as in `CircuitOpen`, `failures` and `threshold` are as in `CallFailed`."""

    name: str
    retry_after: float | None
    failures: int
    threshold: int


@dataclass(frozen=True, slots=True)
class CallEnded:
    """An admitted call has ended. Stale calls are included.

    Only listeners with a true attribute `each_call` receive this event. `seconds` is how long the call took: 0 for a
    generator, whose time includes that of its reader, and None if the time was not measured because the listener was
    not there yet when the call began.
    """

    name: str
    verdict: Verdict
    seconds: float | None = None


BreakerEvent = Transition | CallFailed | CallRefused | CallEnded
Listener = Callable[[BreakerEvent], object]


def reason(old: Record, event: Event, new: Record, policy: Policy, said: str = "") -> str:
    """Why the circuit went from one state to the other, in plain words. `said`: what the failure said, or nothing."""
    cause = f": {said}" if said else ""
    if event is Event.FAILURE:
        if old.state is State.HALF_OPEN:
            return f"the probe failed{cause}"
        return f"{_failures(new, policy)}{', the last' if new.failures > 1 else ''}{cause}"
    if event is Event.SUCCESS and old.state is State.CLOSED:
        return _failures(new, policy)
    if event is Event.LAST_RESORT_SUCCESS:
        return "the remote answered a call that was made as a last resort"
    if event is Event.SUCCESS:
        count = policy.successes_to_close
        return "the probe succeeded" if count == 1 else f"{count} probes succeeded"
    if event in (Event.CALL, Event.LAST_RESORT):
        if isinstance(policy.recovery, AfterCalls):
            calls = policy.recovery.calls
            return f"{'1 call was' if calls == 1 else f'{calls} calls were'} turned away; the next is the probe"
        return "the cooldown is over; the next call is the probe"
    return {Event.TRIP: "tripped by hand", Event.RESET: "reset by hand", Event.ISOLATE: "isolated by hand"}[event]


def _failures(record: Record, policy: Policy) -> str:
    if record.failures == 1:
        return "1 failure"
    where = "in a row" if isinstance(policy.trip, ConsecutiveFailures) else "among the last calls"
    return f"{record.failures} failures {where}"
