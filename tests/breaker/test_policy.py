"""Policies refuse nonsense when they are made, and cooldowns last as long as they say."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failover.breaker import (
    AfterCalls,
    Breakers,
    CircuitBreaker,
    ConsecutiveFailures,
    Cooldown,
    Policy,
    State,
    failures,
)

NO_COUNTS = [0, -1, 1.0, 2.5, True, False, None, "5", math.nan, math.inf, [1], 10**400]
NO_SECONDS = [0, 0.0, -1, -0.1, math.nan, math.inf, -math.inf, True, "30", 10**400, -(10**400), [1.0], 1j]
NO_FACTORS = [0, 0.99, -2, math.nan, math.inf, True, None, "2", 10**400]
NO_SHARES = [-0.01, 1.01, math.nan, math.inf, True, None, "0.5", 10**400]

NONSENSE: list[tuple[Callable[..., Any], str, list[Any]]] = [
    (ConsecutiveFailures, "threshold", NO_COUNTS),
    (AfterCalls, "calls", NO_COUNTS),
    (Cooldown, "seconds", [*NO_SECONDS, None]),
    (Cooldown, "maximum", [*NO_SECONDS, None]),
    (Cooldown, "factor", NO_FACTORS),
    (Cooldown, "jitter", NO_SHARES),
    (Policy, "timeout", NO_SECONDS),
    (Policy, "max_probes", NO_COUNTS),
    (Policy, "successes_to_close", NO_COUNTS),
    (Policy, "failures_to_reopen", NO_COUNTS),
    (Policy, "dry_run", [None, 1, "yes"]),
    (Policy, "probe_lease", [*NO_SECONDS, None]),
    (Policy, "trip", [None, 5, ConsecutiveFailures, Cooldown()]),
    (Policy, "recovery", [None, 30.0, Cooldown, ConsecutiveFailures()]),
    (Policy, "classify", [None, 5, "failure"]),
    (Policy, "fallback", [5, "nothing"]),
    (Policy, "ramp", NO_SECONDS),
]

# Of circuits: a Policy has fields, and they have arguments.
NO_ARGUMENTS_OF_BOTH: list[tuple[str, list[Any]]] = [
    ("policy", [None, 5, Policy, ConsecutiveFailures()]),
    ("clock", [None, 5.0]),
    ("fallback", [5, "nothing"]),
    ("listeners", [[None], ["print"], (print, 5)]),
    ("store", [5, "redis://:secret@127.0.0.1/", object()]),
]
NO_ARGUMENTS: list[tuple[Callable[..., Any], str, list[Any]]] = [
    (CircuitBreaker, "name", [None, 5, b"remote"]),
    *((partial(CircuitBreaker, "b"), field, values) for field, values in NO_ARGUMENTS_OF_BOTH),
    *((Breakers, field, values) for field, values in NO_ARGUMENTS_OF_BOTH),
    (partial(CircuitBreaker, "b"), "random", [None, 0.5]),
    (Breakers, "max_idle", NO_SECONDS),
]

SENSE: list[tuple[Callable[..., Any], str, list[Any]]] = [
    (ConsecutiveFailures, "threshold", [1, 5, 10**9]),
    (AfterCalls, "calls", [1, 20, 10**9]),
    (Cooldown, "seconds", [1e-9, 1, 30.0, 1e9]),
    (Cooldown, "maximum", [1e-9, 1, 300.0, 1e9]),
    (Cooldown, "factor", [1, 1.0, 2, 10.5]),
    (Cooldown, "jitter", [0, 0.0, 0.1, 1, 1.0]),
    (Policy, "timeout", [None, 1e-3, 2, 60.0]),
    (Policy, "max_probes", [1, 100]),
    (Policy, "successes_to_close", [1, 100]),
    (Policy, "failures_to_reopen", [1, 100]),
    (Policy, "dry_run", [False, True]),
    (Policy, "probe_lease", [1e-3, 30, 1e6]),
    (Policy, "ramp", [None, 1e-3, 60]),
]


def shown(value: object) -> str:
    return getattr(value, "__name__", repr(value))[:20]


@pytest.mark.parametrize(
    ("make", "field", "value"),
    [(make, field, value) for make, field, values in [*NONSENSE, *NO_ARGUMENTS] for value in values],
    ids=shown,
)
def test_nonsense_raises_value_error_that_names_the_field(make: Callable[..., Any], field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^{field} must ") as error:
        make(**{field: value})
    assert "secret" not in str(error.value)


def test_nonsense_later_is_told_too() -> None:
    breaker = CircuitBreaker("b")
    none: Any = None
    with pytest.raises(ValueError, match=r"^listeners must "):
        breaker.subscribe(none)
    with pytest.raises(ValueError, match=r"^name must "):
        breaker.name = none
    with pytest.raises(ValueError, match=r"^policy must "):
        Breakers().policy("https://host/", none)
    breaker.trip()
    assert (breaker.name, breaker.state) == ("b", State.OPEN)


@pytest.mark.parametrize(
    ("make", "field", "value"), [(make, field, value) for make, field, values in SENSE for value in values], ids=shown
)
def test_sense_is_taken_as_it_is(make: Callable[..., Any], field: str, value: Any) -> None:
    assert getattr(make(**{field: value}), field) == value


@pytest.mark.parametrize("kind", [ConsecutiveFailures, AfterCalls, Cooldown, Policy])
def test_no_field_goes_unchecked(kind: type[Any]) -> None:
    checked = {field for make, field, _ in NONSENSE if make is kind}
    assert checked == {field.name for field in dataclasses.fields(kind)}


def test_the_defaults_are_those_of_the_contract() -> None:
    policy = Policy()
    assert policy.trip == ConsecutiveFailures(5)
    assert policy.recovery == Cooldown(30.0, factor=1.0, maximum=300.0, jitter=0.0)
    assert (policy.timeout, policy.max_probes, policy.successes_to_close) == (None, 1, 1)
    assert policy.probe_lease == 30.0
    assert policy.classify is failures.classify
    assert AfterCalls() == AfterCalls(20)


def test_a_policy_cannot_change_under_a_running_circuit() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Policy().max_probes = 2  # type: ignore[misc]
    assert hash(Policy()) == hash(Policy())


def never() -> float:
    raise AssertionError("without jitter nothing is drawn")


def test_a_cooldown_grows_by_its_factor_up_to_its_maximum() -> None:
    cooldown = Cooldown(30.0, factor=2.0, maximum=300.0)
    assert [cooldown.duration(n, never) for n in range(1, 8)] == [30, 60, 120, 240, 300, 300, 300]


def test_a_factor_of_one_never_grows() -> None:
    assert {Cooldown(30.0, maximum=300.0).duration(n, never) for n in (1, 2, 1000, 10**6)} == {30.0}


def test_a_maximum_below_the_first_cooldown_limits_growth_only() -> None:
    cooldown = Cooldown(30.0, factor=3.0, maximum=10.0)
    assert [cooldown.duration(n, never) for n in (1, 2, 50)] == [30, 30, 30]


@pytest.mark.parametrize(
    "cooldown",
    [
        Cooldown(30.0, factor=2.0),
        Cooldown(30, factor=2, maximum=300),
        Cooldown(30.0, factor=1e308),
        Cooldown(1e-300, factor=1.5, maximum=1e308),  # the ratio of the two is no float
        Cooldown(1.0, factor=1 + 2**-52, maximum=1e308),
    ],
)
@pytest.mark.parametrize("openings", [1025, 2000, 10**6, 10**9])
def test_a_million_openings_do_not_overflow(cooldown: Cooldown, openings: int) -> None:
    assert cooldown.seconds <= cooldown.duration(openings, never) <= cooldown.maximum


def test_jitter_shortens_and_never_lengthens() -> None:
    cooldown = Cooldown(100.0, factor=2.0, maximum=200.0, jitter=0.1)
    assert cooldown.duration(1, lambda: 0.0) == 100.0
    assert cooldown.duration(1, lambda: 0.5) == pytest.approx(95.0)
    assert cooldown.duration(1, lambda: 1.0) == pytest.approx(90.0)
    assert cooldown.duration(9, lambda: 0.5) == pytest.approx(190.0)


@given(
    seconds=st.floats(1e-6, 1e6),
    factor=st.floats(1, 1e3),
    maximum=st.floats(1e-6, 1e9),
    jitter=st.floats(0, 1),
    openings=st.integers(1, 10**6),
    drawn=st.floats(0, 1),
)
def test_a_cooldown_stays_within_its_bounds_and_never_shrinks(
    seconds: float, factor: float, maximum: float, jitter: float, openings: int, drawn: float
) -> None:
    cooldown = Cooldown(seconds, factor, maximum, jitter)
    now, later = (cooldown.duration(n, lambda: drawn) for n in (openings, openings + 1))
    assert 0 <= now <= max(seconds, maximum)
    assert now <= later
    assert now >= seconds * (1 - jitter * drawn) * (1 - 1e-9)
