"""Listeners that want to hear of each call that ends, for those who measure; all others do not pay for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from failover.breaker import (
    FAILURE,
    NEUTRAL,
    SUCCESS,
    CallEnded,
    CallFailed,
    CircuitBreaker,
    ConsecutiveFailures,
    Policy,
    Transition,
    failures,
)
from tests.breaker.locks import locks_taken


class Each:
    """A listener that asks for each call."""

    each_call = True

    def __init__(self) -> None:
        self.heard: list[object] = []

    def __call__(self, event: object) -> None:
        self.heard.append(event)

    def verdicts(self) -> list[Any]:
        return [event.verdict for event in self.heard if isinstance(event, CallEnded)]


async def _zero() -> int:
    return 0


def block(breaker: CircuitBreaker) -> None:
    with breaker:
        pass


WAYS: dict[str, Callable[[CircuitBreaker], object]] = {
    "call": lambda breaker: breaker.call(int),
    "decorator": lambda breaker: breaker(int)(),
    "execute": lambda breaker: breaker.execute(int),
    "with": block,
    "permit": lambda breaker: breaker.admit().succeeded(),
    "acall": lambda breaker: asyncio.run(breaker.acall(_zero)),
    "coroutine function": lambda breaker: asyncio.run(breaker(_zero)()),
    "generator": lambda breaker: list(breaker(lambda: (yield 1))()),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("late", [False, True])
def test_a_success_is_told_in_every_way_in(way: str, late: bool) -> None:
    each, other = Each(), Each()
    breaker = CircuitBreaker("b", listeners=[] if late else [each])
    if late:
        breaker.subscribe(each)
    other.each_call = False
    breaker.subscribe(other)
    WAYS[way](breaker)
    [event] = each.heard
    assert isinstance(event, CallEnded)
    assert (event.name, event.verdict) == ("b", SUCCESS)
    assert event.seconds is not None
    assert 0 <= event.seconds < 5
    assert other.heard == []


def test_every_verdict_is_told_and_a_failure_before_what_follows_from_it() -> None:
    each = Each()
    breaker = CircuitBreaker("b", Policy(trip=ConsecutiveFailures(1)), listeners=[each])
    breaker.admit().released()
    late = breaker.admit()
    breaker.admit().failed(OSError("down"))
    late.failed(OSError("late"))
    assert each.verdicts() == [NEUTRAL, FAILURE, FAILURE]
    assert [type(event) for event in each.heard] == [CallEnded, CallFailed, Transition, CallEnded, CallEnded]


def test_without_such_a_listener_a_success_is_not_told_and_takes_no_lock() -> None:
    breaker = CircuitBreaker("b", listeners=[print])
    assert locks_taken(breaker) == 0
    breaker.subscribe(Each())
    assert locks_taken(breaker) > 0


def test_a_result_of_a_type_never_seen_is_judged_once() -> None:
    seen: list[object] = []

    def classify(outcome: object) -> failures.Verdict:
        seen.append(outcome)
        return FAILURE if outcome == "bad" else SUCCESS

    breaker = CircuitBreaker("b", Policy(classify=classify))
    for result in ("good", "bad", "good"):
        breaker.call(str, result)
    assert seen == ["good", "bad", "good"]
