"""Metrics: a listener that reports circuits to OpenTelemetry. Needs the extra `otel`.

>>> from failover.breaker import Breakers
>>> from failover.breaker.otel import Metrics
>>> breakers = Breakers(listeners=[Metrics()])  # of the program's own MeterProvider
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from failover.breaker.events import BreakerEvent, CallEnded, CallRefused, Transition
from failover.breaker.forks import ForkSafeLock
from failover.breaker.machine import State

try:
    from opentelemetry.metrics import CallbackOptions, Meter, Observation, get_meter
except ImportError:
    raise ImportError("failover.breaker.otel needs OpenTelemetry: pip install 'opentelemetry-api>=1.20'") from None

STATES: Final = {State.CLOSED: 0, State.HALF_OPEN: 1, State.OPEN: 2}
"""What `circuit_breaker.state` shows: the higher, the worse."""

MOST: Final = 390
"""Circuits told apart at most: with five kinds of transition each, OpenTelemetry's default limit of 2,000 time series
for one metric is not reached, beyond which it drops all attributes."""

OTHERS: Final = "(others)"


@dataclass(slots=True)
class _Known:
    state: State = State.CLOSED
    opened_at: float | None = None
    open_before: float = 0.0

    def open_for(self, now: float) -> float:
        return self.open_before + (0.0 if self.opened_at is None else now - self.opened_at)


class Metrics:
    """A listener for any number of circuits, in any number of threads; one object for all of a program.

    It records, each with the attribute `circuit_breaker.name`:

    - `circuit_breaker.calls`, a counter, by `circuit_breaker.verdict`: success, failure, neutral, refused;
    - `circuit_breaker.transitions`, a counter, by `circuit_breaker.from` and `circuit_breaker.to`;
    - `circuit_breaker.state`, a gauge: 0 closed, 1 half-open, 2 open, from a circuit's first call on;
    - `circuit_breaker.time_open`, a counter of seconds, which grows while a circuit is open.

    From the 391st circuit on all others are counted under the name `(others)`, and their state and time are not told.
    Names are URIs without users, passwords and queries where `Breakers` made the circuits.

    meter: the program's own by default. clock: seconds that only grow, as that of the circuits.

    It hears each call that ends, so that no call goes the way without a lock: see `CircuitBreaker`.
    """

    each_call = True

    def __init__(self, meter: Meter | None = None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = ForkSafeLock()  # re-entrant: an event may come while the garbage collector interrupts another
        self._known: dict[str, _Known] = {}
        meter = get_meter("failover.breaker") if meter is None else meter
        self._calls = meter.create_counter(
            "circuit_breaker.calls", unit="{call}", description="Calls by what came of them"
        )
        self._transitions = meter.create_counter(
            "circuit_breaker.transitions", unit="{transition}", description="Changes of a circuit's state"
        )
        meter.create_observable_gauge(
            "circuit_breaker.state", [self._states], description="0 closed, 1 half-open, 2 open"
        )
        meter.create_observable_counter(
            "circuit_breaker.time_open", [self._times], unit="s", description="Time for which a circuit was open"
        )

    def __call__(self, event: BreakerEvent) -> None:
        """Take one event of a circuit."""
        name = self._name_of(event)
        if isinstance(event, CallEnded):
            self._count(name, event.verdict.value)
        elif isinstance(event, CallRefused):
            self._count(name, "refused")
        elif isinstance(event, Transition):
            ends = {"circuit_breaker.from": event.old.value, "circuit_breaker.to": event.new.value}
            self._transitions.add(1, {"circuit_breaker.name": name, **ends})
            self._note(name, event.new)

    def _name_of(self, event: BreakerEvent) -> str:
        with self._lock:
            if event.name in self._known:
                return event.name
            if len(self._known) >= MOST:
                return OTHERS
            self._known[event.name] = _Known()
            return event.name

    def _count(self, name: str, verdict: str) -> None:
        self._calls.add(1, {"circuit_breaker.name": name, "circuit_breaker.verdict": verdict})

    def _note(self, name: str, state: State) -> None:
        with self._lock:
            known = self._known.get(name)
            if known is None:
                return
            now = self._clock()
            known.open_before = known.open_for(now)
            known.opened_at = now if state is State.OPEN else None
            known.state = state

    def _states(self, _: CallbackOptions) -> Iterable[Observation]:
        with self._lock:
            states = [(name, STATES[known.state]) for name, known in self._known.items()]
        return [Observation(state, {"circuit_breaker.name": name}) for name, state in states]

    def _times(self, _: CallbackOptions) -> Iterable[Observation]:
        with self._lock:
            now = self._clock()
            times = [(name, known.open_for(now)) for name, known in self._known.items()]
        return [Observation(seconds, {"circuit_breaker.name": name}) for name, seconds in times]
