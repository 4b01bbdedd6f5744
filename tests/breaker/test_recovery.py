"""What lets a circuit try again: enough probes that succeed, cooldowns that grow, what the remote asks for."""

from __future__ import annotations

import email.message
import email.utils
import io
import time
import urllib.error
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failover.breaker import (
    FAILURE,
    AfterCalls,
    CircuitBreaker,
    CircuitOpen,
    ConsecutiveFailures,
    Cooldown,
    FailureRate,
    Policy,
    State,
)
from failover.breaker.retry_after import retry_after_of
from tests.breaker.circuits import half_open, state
from tests.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


class Answer:
    """A response, as most clients make them."""

    def __init__(self, headers: Any = None, status_code: int = 503) -> None:
        self.headers = headers
        self.status_code = status_code


class RemoteError(OSError):
    """An error that carries the response, as most clients make them."""

    def __init__(self, headers: Any = None, **more: Any) -> None:
        super().__init__("busy")
        self.response = Answer(headers)
        self.__dict__.update(more)


def circuit(clock: Clock, recovery: Any = Cooldown(10.0, maximum=100.0), **policy: Any) -> CircuitBreaker:  # noqa: B008 (frozen)
    return CircuitBreaker("b", Policy(trip=ConsecutiveFailures(1), recovery=recovery, **policy), clock=clock)


def fail(breaker: CircuitBreaker, error: BaseException | None = None) -> None:
    breaker.admit().failed(error or OSError("down"))


def wait(breaker: CircuitBreaker) -> Any:
    return breaker.snapshot()["retry_after"]


# --- probes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("probes", [1, 3])
def test_so_many_probes_must_succeed(probes: int, clock: Clock) -> None:
    breaker = half_open(clock, successes_to_close=3, max_probes=probes)
    for _ in range(2):
        breaker.admit().succeeded()
        assert state(breaker) is State.HALF_OPEN
    breaker.admit().succeeded()
    assert state(breaker) is State.CLOSED


def test_probes_that_succeed_at_once_close_it_together(clock: Clock) -> None:
    breaker = half_open(clock, successes_to_close=3, max_probes=3)
    permits = [breaker.admit() for _ in range(3)]
    for permit in permits:
        assert state(breaker) is State.HALF_OPEN
        permit.succeeded()
    assert state(breaker) is State.CLOSED


def test_a_failed_probe_forgets_the_successes_before_it(clock: Clock) -> None:
    breaker = half_open(clock, successes_to_close=3)
    breaker.admit().succeeded()
    breaker.admit().succeeded()
    fail(breaker)
    assert state(breaker) is State.OPEN
    clock.now += 10.0
    breaker.admit().succeeded()
    breaker.admit().succeeded()
    assert state(breaker) is State.HALF_OPEN
    breaker.admit().succeeded()
    assert state(breaker) is State.CLOSED


def test_neutral_probes_are_no_successes(clock: Clock) -> None:
    breaker = half_open(clock, successes_to_close=2)
    breaker.admit().succeeded()
    for _ in range(5):
        breaker.admit().released()
    assert state(breaker) is State.HALF_OPEN
    breaker.admit().succeeded()
    assert state(breaker) is State.CLOSED


# --- growth and jitter ------------------------------------------------------------------------------------------------


def test_the_cooldown_grows_to_its_cap_and_starts_anew_after_recovery(clock: Clock) -> None:
    breaker = circuit(clock, Cooldown(10.0, factor=3.0, maximum=50.0))
    for _ in range(2):
        lengths = []
        for _ in range(4):
            fail(breaker)
            lengths.append(wait(breaker))
            clock.now += wait(breaker) - 0.5
            with pytest.raises(CircuitOpen):
                breaker.admit()
            clock.now += 0.5
        assert lengths == [10.0, 30.0, 50.0, 50.0]
        breaker.admit().succeeded()
        assert state(breaker) is State.CLOSED


def test_jitter_shortens_each_cooldown_by_its_own_share(clock: Clock) -> None:
    draws = iter([0.0, 0.5, 1.0])
    policy = Policy(trip=ConsecutiveFailures(1), recovery=Cooldown(10.0, factor=2.0, maximum=30.0, jitter=0.2))
    breaker = CircuitBreaker("b", policy, clock=clock, random=lambda: next(draws))
    lengths = []
    for _ in range(3):
        fail(breaker)
        lengths.append(wait(breaker))
        clock.now += wait(breaker)
    assert lengths == pytest.approx([10.0, 20.0 * 0.9, 30.0 * 0.8])


def test_without_jitter_nothing_is_drawn(clock: Clock) -> None:
    def never() -> float:
        raise AssertionError

    breaker = CircuitBreaker("b", clock=clock, random=never)
    breaker.trip()
    assert wait(breaker) == 30.0


# --- Retry-After ------------------------------------------------------------------------------------------------------

NOW = 784_111_777.0  # 1994-11-06 08:49:37 UTC, the moment of RFC 9110's examples
DATES = ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"]


def message(**headers: str) -> email.message.Message:
    made = email.message.Message()
    for name, value in headers.items():
        made[name.replace("_", "-")] = value
    return made


@pytest.mark.parametrize(
    "error",
    [
        RemoteError({"Retry-After": "60"}),
        RemoteError({"retry-after": " 60 "}),
        RemoteError(message(RETRY_AFTER="60")),
        RemoteError(retry_after=60),
        RemoteError({"Retry-After": "5"}, retry_after=60.0),
        urllib.error.HTTPError("http://a/", 503, "busy", message(Retry_After="60"), io.BytesIO()),
        CircuitOpen("another", 60.0),
    ],
    ids=["dict", "lower", "message", "attribute", "attribute-first", "urllib", "circuit"],
)
def test_what_the_error_asks_for_lengthens_the_cooldown(error: Exception, clock: Clock) -> None:
    breaker = circuit(clock, classify=lambda _: FAILURE)
    fail(breaker, error)
    assert wait(breaker) == 60.0
    clock.now += 59.5
    with pytest.raises(CircuitOpen) as refusal:
        breaker.admit()
    assert refusal.value.retry_after == 0.5
    clock.now += 0.5
    assert breaker.admit().is_probe


@pytest.mark.parametrize("way", ["call", "decorator"])
def test_a_result_that_is_a_failure_asks_too(way: str, clock: Clock) -> None:
    breaker = circuit(clock)
    answer = Answer({"Retry-After": "60"})
    run = breaker.call if way == "call" else lambda fn: breaker(fn)()
    assert run(lambda: answer) is answer
    assert wait(breaker) == 60.0


def test_every_way_in_passes_it_on(clock: Clock) -> None:
    error = RemoteError({"Retry-After": "60"})

    def boom() -> None:
        raise error

    def block(breaker: CircuitBreaker) -> None:
        with breaker:
            boom()

    ways: list[Callable[[CircuitBreaker], Any]] = [
        lambda breaker: breaker.call(boom),
        lambda breaker: breaker(boom)(),
        lambda breaker: breaker.execute(boom),
        block,
    ]
    for way in ways:
        breaker = circuit(clock)
        with pytest.raises(RemoteError):
            way(breaker)
        assert wait(breaker) == 60.0


@pytest.mark.parametrize("date", DATES)
def test_a_date_is_counted_from_the_responses_own(date: str, monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        here = email.utils.formatdate(NOW - 60, usegmt=True)
        breaker = circuit(clock)
        fail(breaker, RemoteError({"Retry-After": date, "Date": here}))
        assert wait(breaker) == 60.0
        before = email.utils.formatdate(NOW + 45, usegmt=True)
        assert retry_after_of(RemoteError({"Retry-After": before, "Date": date})) == 45.0
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("date", DATES)
def test_without_a_date_header_this_machines_clock_must_do(
    date: str, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setattr(time, "time", lambda: NOW - 70.0)
    breaker = circuit(clock)
    fail(breaker, RemoteError({"Retry-After": date}))
    assert wait(breaker) == 70.0


def test_with_a_date_header_this_machines_clock_does_not_matter(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    def never() -> float:
        raise AssertionError

    monkeypatch.setattr(time, "time", never)
    there = email.utils.formatdate(NOW - 20, usegmt=True)
    assert retry_after_of(RemoteError({"Retry-After": DATES[0], "Date": there})) == 20.0


def test_it_lengthens_up_to_the_cap(clock: Clock) -> None:
    breaker = circuit(clock)
    fail(breaker, RemoteError({"Retry-After": "86400"}))
    assert wait(breaker) == 100.0


def test_it_never_shortens(clock: Clock) -> None:
    breaker = circuit(clock)
    fail(breaker, RemoteError({"Retry-After": "3"}))
    assert wait(breaker) == 10.0


def test_a_cap_below_the_first_cooldown_does_not_shorten_it(clock: Clock) -> None:
    breaker = circuit(clock, Cooldown(10.0, maximum=2.0))
    fail(breaker, RemoteError({"Retry-After": "5"}))
    assert wait(breaker) == 10.0
    breaker = circuit(clock, Cooldown(10.0, maximum=2.0))
    fail(breaker, RemoteError({"Retry-After": "500"}))
    assert wait(breaker) == 10.0


def test_jitter_does_not_shorten_what_was_asked_for(clock: Clock) -> None:
    policy = Policy(trip=ConsecutiveFailures(1), recovery=Cooldown(10.0, jitter=1.0))
    breaker = CircuitBreaker("b", policy, clock=clock, random=lambda: 0.9)
    fail(breaker, RemoteError({"Retry-After": "7"}))
    assert wait(breaker) == 7.0


def test_a_failed_probe_asks_and_the_next_cooldown_does_not_remember(clock: Clock) -> None:
    breaker = circuit(clock)
    for error, length in ((None, 10.0), (RemoteError({"Retry-After": "60"}), 60.0), (None, 10.0)):
        fail(breaker, error)
        assert wait(breaker) == length
        clock.now += length


def test_only_the_failure_that_opens_it_asks(clock: Clock) -> None:
    policy = Policy(trip=ConsecutiveFailures(2), recovery=Cooldown(10.0))
    breaker = CircuitBreaker("b", policy, clock=clock)
    late = breaker.admit()
    fail(breaker, RemoteError({"Retry-After": "60"}))
    fail(breaker)
    assert wait(breaker) == 10.0
    late.failed(RemoteError({"Retry-After": "60"}))
    assert wait(breaker) == 10.0


def test_a_failure_rate_takes_it_too(clock: Clock) -> None:
    policy = Policy(trip=FailureRate(0.5, calls=4, minimum=2), recovery=Cooldown(10.0))
    breaker = CircuitBreaker("b", policy, clock=clock)
    breaker.admit().succeeded()
    fail(breaker, RemoteError({"Retry-After": "60"}))
    assert wait(breaker) == 60.0


def test_after_calls_goes_by_calls_whatever_is_asked(clock: Clock) -> None:
    breaker = circuit(clock, AfterCalls(3))
    fail(breaker, RemoteError({"Retry-After": "60"}))
    assert wait(breaker) is None
    for _ in range(3):
        with pytest.raises(CircuitOpen) as refusal:
            breaker.admit()
        assert refusal.value.retry_after is None
    assert breaker.admit().is_probe


class Raising:
    """Whatever is asked of it, it raises."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


GARBAGE = [
    "", " ", "soon", "-5", "+5", "1e3", "6.5", "0x10", "١٢", "²", "9" * 5000, "0", "nan", "inf", "1,2", "60 s",
    "Sun, 06 Nov", "Sun, 99 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 0000 08:49:37 GMT", "Sun, 06 Nov 99999 08:49:37 GMT",
    b"60", 60, None, ["60"], object(), "\x00", "\ud800", DATES[0] + "\r\n",
]  # fmt: skip


@pytest.mark.parametrize("value", GARBAGE, ids=lambda value: repr(value)[:20])
def test_a_garbage_header_is_ignored(value: Any, clock: Clock) -> None:
    breaker = circuit(clock)
    fail(breaker, RemoteError({"Retry-After": value}))
    assert (state(breaker), wait(breaker)) == (State.OPEN, 10.0)


@pytest.mark.parametrize("value", ["soon", "0", b"60", DATES[0][:12]], ids=repr)
def test_a_garbage_date_is_ignored_with_what_depends_on_it(value: Any, clock: Clock) -> None:
    breaker = circuit(clock)
    fail(breaker, RemoteError({"Retry-After": "60", "Date": value}))
    assert wait(breaker) == 60.0
    breaker = circuit(clock)
    fail(breaker, RemoteError({"Retry-After": DATES[0], "Date": value}))
    assert wait(breaker) == 10.0


@pytest.mark.parametrize(
    "headers",
    [None, 5, "Retry-After: 60", [("Retry-After", "60")], Raising(), {}, type("H", (), {"get": 5})()],
    ids=["none", "number", "text", "list", "raising", "empty", "no-get"],
)
def test_garbage_instead_of_headers_is_ignored(headers: Any, clock: Clock) -> None:
    breaker = circuit(clock)
    fail(breaker, RemoteError(headers))
    assert (state(breaker), wait(breaker)) == (State.OPEN, 10.0)


@pytest.mark.parametrize("told", [True, -1, 0, float("nan"), float("inf"), 10**400, "60", None])
def test_a_garbage_attribute_is_ignored(told: Any, clock: Clock) -> None:
    breaker = circuit(clock)
    fail(breaker, RemoteError(retry_after=told))
    assert (state(breaker), wait(breaker)) == (State.OPEN, 10.0)


@settings(max_examples=300, deadline=None, database=None)
@given(st.text() | st.binary() | st.integers() | st.floats(), st.none() | st.text())
def test_no_header_raises_or_shortens(value: Any, date: Any) -> None:
    breaker = circuit(Clock())
    fail(breaker, RemoteError({"Retry-After": value, "Date": date}))
    assert 10.0 <= wait(breaker) <= 100.0
