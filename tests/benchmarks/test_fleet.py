"""benchmarks.fleet keeps to the laws of circuits, and gives the same figures for the same seed."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.fleet.clients import Case, Outcome, simulate
from benchmarks.fleet.hedged import BUDGET, TWICE, hedged_verdicts, simulate_all
from benchmarks.fleet.picture import draw
from benchmarks.fleet.remote import Recovery, Remote
from benchmarks.fleet.report import cases, outcomes, row

OPTIONS = argparse.Namespace(clients=[1, 25], seed=3, outage=80.0, jitter=0.1, ramp=60.0, refresh=1.0)


@pytest.fixture(scope="module", autouse=True)
def _unheard() -> Iterator[None]:
    """As outside of pytest, which keeps what is logged: of 100,000 failures."""
    logger = logging.getLogger("failover.breaker")
    logger.propagate = False
    yield
    logger.propagate = True


@pytest.fixture(scope="module")
def found() -> list[Outcome]:
    return list(outcomes(cases(OPTIONS), workers=1))


def test_the_same_seed_gives_the_same_table_in_any_number_of_processes(found: list[Outcome]) -> None:
    again = list(outcomes([each.case for each in found[-2:]], workers=2))
    assert [row(each) for each in again] == [row(each) for each in found[-2:]]
    assert [each.course for each in again] == [each.course for each in found[-2:]]
    other = simulate(replace(found[-1].case, seed=4))
    assert row(other) != row(found[-1])


def test_every_circuit_pays_its_threshold_alone_and_at_most_that_together(found: list[Outcome]) -> None:
    for each in found:
        threshold = each.case.threshold * each.case.clients
        assert each.first <= threshold if each.case.shared else each.first >= threshold
        assert each.hits >= each.first


def test_shared_circuits_hit_the_dead_primary_less_and_know_sooner(found: list[Outcome]) -> None:
    by_case = {each.case: each for each in found}
    for case, shared in by_case.items():
        if case.shared:
            alone = by_case[replace(case, shared=False)]
            assert shared.hits <= alone.hits
            assert shared.detect <= alone.detect


def test_one_fleet_sends_one_probe_for_each_cooldown() -> None:
    case = Case(30, shared=True, cooldown=10.0, factor=1.0, recovery=Recovery(outage=100.0))
    outcome = simulate(case)
    # A place is claimed by one call and taken by that client's next: up to 10 s later for the slowest of them.
    assert 100 / (10 + 10 + 1) - 1 <= outcome.hits - outcome.first <= 100 / 10
    alone = simulate(replace(case, shared=False))
    assert alone.hits - alone.first > 10 * (outcome.hits - outcome.first) / 2


def test_a_ramp_keeps_a_fleet_below_a_capacity_that_grows_as_fast() -> None:
    slow = Recovery(outage=20.0, cold=0.3, full=1.5, warm_up=60.0)
    case = Case(200, shared=True, cooldown=10.0, factor=1.0, recovery=slow)
    stampede, ramped = simulate(case), simulate(replace(case, ramp=60.0))
    assert stampede.shed > 50
    assert stampede.peak > 2
    assert ramped.shed < stampede.shed / 10
    assert ramped.peak < 1.3


def test_a_primary_answers_what_it_can_and_not_more() -> None:
    remote = Remote(Recovery(outage=10.0, cold=0.5, full=1.0, warm_up=10.0), load=100.0)
    assert remote.answers(-1.0)
    assert not remote.answers(5.0)
    assert (remote.capacity(5.0), remote.capacity(10.0), remote.capacity(15.0)) == (0.0, 50.0, 75.0)
    answered = sum(remote.answers(10.0 + n / 80) for n in range(80))
    assert 50 <= answered <= 68
    assert remote.shed == 80 - answered
    assert (remote.hits_while_dead, remote.falls) == (1, 0)


def test_a_stampede_pushes_it_down_again() -> None:
    remote = Remote(Recovery(outage=10.0, cold=0.5, crushing=2.0, down_again=5.0), load=100.0)
    answers = [remote.answers(10.0 + n / 300) for n in range(300)]
    assert remote.falls == 1
    assert not any(answers[150:])
    assert remote.capacity(14.0) == 0.0
    assert remote.capacity(16.5) > 0.0


def test_the_picture_shows_the_largest_fleet(found: list[Outcome], tmp_path: Path) -> None:
    files = draw(found, tmp_path / "fleet")
    assert [file.name for file in files] == ["fleet.svg", "fleet.png", "fleet-dark.svg", "fleet-dark.png"]
    assert max(file.stat().st_size for file in files) < 250_000


# Hedging


def test_the_budget_bounds_what_a_fleet_asks_of_the_secondary() -> None:
    none, unbounded, within, new = simulate_all(100, seed=3)
    assert (none.secondary, none.late) == (0.0, 1.0)
    assert unbounded.secondary == 1.0
    assert within.secondary < TWICE * BUDGET
    assert new.secondary < TWICE * BUDGET
    assert unbounded.late < within.late < 1.0
    assert all(each.holds for each in hedged_verdicts([none, unbounded, within, new]))
    assert [each.holds for each in hedged_verdicts([replace(within, secondary=0.2)])] == [False]
