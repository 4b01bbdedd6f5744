"""What several tests of circuits share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from failover.breaker import CircuitBreaker, Cooldown, Policy, State
from tests.clock import Clock

PATIENCE = 30.0  # seconds after which a test that hangs says so; none waits that long when all is well


def state(breaker: CircuitBreaker) -> State:
    """Its state now. (After one assert on `breaker.state` mypy takes it to stay.)"""
    return breaker.state


def until_told(breaker: CircuitBreaker) -> None:
    """Wait for what was left to the dispatcher's own thread."""
    over = time.monotonic() + PATIENCE
    while not breaker._events.is_idle:
        assert time.monotonic() < over, "events are left"
        time.sleep(0.001)


def wait_for(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Look again and again, for what other threads, processes and servers bring about."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.005)


def half_open(clock: Clock, **policy: Any) -> CircuitBreaker:
    """A circuit whose next call is a probe."""
    policy.setdefault("recovery", Cooldown(10.0))
    breaker = CircuitBreaker("b", Policy(**policy), clock=clock)
    breaker.trip()
    clock.now += 10.0
    return breaker
