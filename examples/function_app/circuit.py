"""The circuit that guards the downstream, and the log that tells its story."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Final

from failover.breaker import (
    BreakerEvent,
    CallFailed,
    CallRefused,
    CircuitBreaker,
    ConsecutiveFailures,
    Cooldown,
    Policy,
    State,
    Transition,
)
from settings import Settings
from wanted import MOST_SECONDS

logger = logging.getLogger("function_app")

_STORY: Final = {
    (State.CLOSED, State.OPEN): (logging.ERROR, "Circuit opened after repeated downstream failures."),
    (State.OPEN, State.HALF_OPEN): (logging.INFO, "Cooldown elapsed; circuit moved to half-open."),
    (State.HALF_OPEN, State.CLOSED): (logging.INFO, "Downstream probe succeeded; circuit closed."),
    (State.HALF_OPEN, State.OPEN): (logging.ERROR, "Downstream probe failed; circuit opened again."),
}


def circuit_for(settings: Settings, *, clock: Callable[[], float] = time.monotonic) -> CircuitBreaker:
    """Named after the downstream, since apps that share a store share the circuits of one name."""
    policy = Policy(
        trip=ConsecutiveFailures(settings.threshold),
        recovery=Cooldown(settings.cooldown),
        # No call lasts longer: a probe that has not come back by then died with its worker.
        probe_lease=MOST_SECONDS + 5.0,
    )
    breaker = CircuitBreaker(settings.downstream, policy, clock=clock, store=settings.store)
    breaker.subscribe(partial(tell, breaker))
    return breaker


def tell(breaker: CircuitBreaker, event: BreakerEvent) -> None:
    """A line for each thing that happens to the circuit, also where another instance of the app was the cause."""
    if isinstance(event, CallFailed):
        text = "Downstream failure recorded. failure_count=%d threshold=%d"
        logger.warning(text, event.failures, event.threshold)
    elif isinstance(event, CallRefused):
        if event.retry_after is not None:
            logger.warning("Circuit open; rejecting request during cooldown.")
        elif breaker.snapshot()["isolated"]:
            logger.warning("Circuit opened by hand; rejecting request until it is reset.")
        else:
            logger.warning("Circuit half-open; rejecting request while a probe is in flight.")
    elif isinstance(event, Transition):
        by_hand = breaker.snapshot()["isolated"]
        if not by_hand and (event.old, event.new) in _STORY:
            logger.log(*_STORY[event.old, event.new])
        else:
            logger.warning("Circuit went from %s to %s: %s.", event.old.value, event.new.value, event.reason)
