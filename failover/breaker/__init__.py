"""A circuit breaker for any remote call. It needs only the standard library."""

from failover.breaker import failures
from failover.breaker.breakers import Breakers
from failover.breaker.circuit import CircuitBreaker, Permit
from failover.breaker.errors import CircuitOpen, FailureReported, Refusal, TooSlow
from failover.breaker.events import BreakerEvent, CallEnded, CallFailed, CallRefused, Listener, Transition
from failover.breaker.failures import FAILURE, NEUTRAL, SUCCESS, Verdict
from failover.breaker.machine import State
from failover.breaker.policy import AfterCalls, Cooldown, Fallback, Policy
from failover.breaker.trips import ConsecutiveFailures, FailureRate, Trip, Window

__all__ = [
    "FAILURE",
    "NEUTRAL",
    "SUCCESS",
    "AfterCalls",
    "BreakerEvent",
    "Breakers",
    "CallEnded",
    "CallFailed",
    "CallRefused",
    "CircuitBreaker",
    "CircuitOpen",
    "ConsecutiveFailures",
    "Cooldown",
    "FailureRate",
    "FailureReported",
    "Fallback",
    "Listener",
    "Permit",
    "Policy",
    "Refusal",
    "State",
    "TooSlow",
    "Transition",
    "Trip",
    "Verdict",
    "Window",
    "failures",
]
