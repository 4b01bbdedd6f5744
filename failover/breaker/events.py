"""What a circuit tells its listeners: frozen values, one for each thing that can happen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from failover.breaker.failures import Verdict
from failover.breaker.machine import State


@dataclass(frozen=True, slots=True)
class Transition:
    """The circuit `name` went from state `old` to state `new`; `reason` says why in plain words."""

    name: str
    old: State
    new: State
    reason: str


@dataclass(frozen=True, slots=True)
class CallFailed:
    """A failure was counted: number `failures` of the `threshold` that opens the circuit.

    While half-open the count stays as it was when the circuit opened: one failed probe opens it again.
    """

    name: str
    error: BaseException
    failures: int
    threshold: int


@dataclass(frozen=True, slots=True)
class CallRefused:
    """A call was turned away. `retry_after` as in `CircuitOpen`, `failures` and `threshold` as in `CallFailed`."""

    name: str
    retry_after: float | None
    failures: int
    threshold: int


@dataclass(frozen=True, slots=True)
class CallEnded:
    """An admitted call has ended, late ones included; told only to listeners with a true attribute `each_call`."""

    name: str
    verdict: Verdict


BreakerEvent = Transition | CallFailed | CallRefused | CallEnded
Listener = Callable[[BreakerEvent], object]
