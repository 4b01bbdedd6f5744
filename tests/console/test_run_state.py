"""What is true of a run at this moment: circuits, counts until the next state, who fails the primary."""

from __future__ import annotations

import pytest

from failover.console.frame import render
from failover.console.run_history import RunHistory
from failover.demo import events as ev
from tests.console.sample_run import aside, history_at, read, started, trip


def test_failures_count_while_closed_and_reads_left_while_open() -> None:
    history = history_at("tripping")
    run = history.run
    assert (run.state, run.failures, run.threshold, run.reads_left) == ("closed", 5, 5, None)
    history.apply(ev.Transitioned(t=9.0, n=201, circuit="primary", old="closed", new="open", reason="5 in a row"))
    assert (history.run.state, history.run.failures, history.run.reads_left) == ("open", 0, 20)
    history.apply(aside(202, 19))
    assert history.run.reads_left == 19


def test_a_cooldown_counts_down_between_events() -> None:
    history = RunHistory()
    history.apply(started(secondary_threshold=None, cooldown=30.0))
    history.apply(ev.Transitioned(t=10.0, n=5, circuit="primary", old="closed", new="open", reason="5 in a row"))
    assert history.run.seconds_left(10.0) == 30.0
    assert history.run.seconds_left(39.0) == 1.0
    assert history.run.seconds_left(50.0) == 0.0
    history.apply(aside(6, 0, t=12.0, reads_left=None, seconds_left=55.0))
    assert history.run.seconds_left(12.0) == 55.0
    assert history.run.cooldown == 55.0
    history.apply(read(7))
    assert history.run.seconds_left(13.0) is None


def test_a_read_is_under_way_only_once_its_turn_has_come() -> None:
    history = RunHistory()
    history.apply(started(rate=0.1))
    assert history.run.under_way(1.0) is None
    history.apply(ev.Replicated(t=1.0, seconds=1.0, attempts=1))
    assert history.run.under_way(3.0) == 2.0
    history.apply(read(1, t=3.0, ms=1000.0))  # begun at 2; at one read in 10 s the next begins at 12
    assert history.run.under_way(11.0) == 0.0
    assert history.run.under_way(13.5) == 1.5
    history.apply(ev.Paused(t=14.0, n=1))
    assert history.run.under_way(20.0) is None
    history.apply(ev.Resumed(t=30.0, n=1))
    assert history.run.under_way(30.25) == 0.25


def test_the_net_is_gone_while_the_secondary_is_down_or_its_circuit_open() -> None:
    history = RunHistory()
    assert history.run.net
    history.apply(ev.SecondarySeen(t=1.0, reachable=False, staleness=None, error="refused"))
    assert not history.run.net
    assert "there is no net" in history.log.recent[-1].text
    assert history.log.recent[-1].bad
    history.apply(ev.SecondarySeen(t=2.0, reachable=False, staleness=None, error="refused"))
    assert len(history.log.recent) == 1
    history.apply(ev.SecondarySeen(t=3.0, reachable=True, staleness=0.5))
    assert (history.run.net, history.run.staleness) == (True, 0.5)
    history.apply(ev.Transitioned(t=4.0, n=1, circuit="secondary", old="closed", new="open", reason="5 failures"))
    assert not history.run.net
    assert history.run.state == "closed"


def _retried(n: int) -> ev.Retried:
    return ev.Retried(t=float(n), n=n, failures=1, threshold=5, error="503 busy")


def test_who_fails_the_primary_is_known_whenever_f_is_pressed() -> None:
    history = RunHistory()
    history.apply(started())
    history.apply(read(1))
    assert not history.run.outside
    history.apply(_retried(2))  # Fiddler, or a real outage
    assert history.run.outside
    history.apply(read(2))
    assert not history.run.outside
    on, off = (ev.FaultSwitched(t=3.0, kind="503", on=each) for each in (True, False))
    for event in (on, _retried(3), aside(3, 0), _retried(4)):
        history.apply(event)
        assert not history.run.outside
    history.apply(off)
    history.apply(_retried(4))  # it was on when this read began
    assert not history.run.outside
    history.apply(aside(4, 0))
    history.apply(_retried(5))
    assert history.run.outside
    history.apply(ev.Paused(t=6.0, n=5))
    for event in (on, off, ev.Resumed(t=6.1, n=5)):
        history.apply(event)
    history.apply(_retried(6))
    assert history.run.outside


def test_a_request_that_a_hedged_read_has_left_behind_fails_by_the_fault_that_was_on() -> None:
    history = RunHistory()
    history.apply(started(hedge=0.2, timeout=2.0))
    for event in trip(1):
        history.apply(event)
    history.apply(ev.FaultSwitched(t=3.0, kind="slow", on=True))
    history.apply(ev.Transitioned(t=3.1, n=2, circuit="primary", old="open", new="half-open", reason="20 reads"))
    history.apply(aside(2, 0, t=3.2, state="half-open", hedged=True))
    history.apply(ev.FaultSwitched(t=3.3, kind="slow", on=False))
    history.apply(aside(3, 0, t=3.4, state="half-open"))
    history.apply(ev.Paused(t=3.5, n=3))
    failed = {"circuit": "primary", "old": "half-open", "new": "open", "reason": "the probe failed: it was slow"}
    history.apply(ev.Transitioned(t=4.6, n=3, **failed))
    assert not history.run.outside
    assert history.run.opened_by_fault
    history.apply(ev.Resumed(t=5.5, n=3))
    history.apply(ev.Transitioned(t=5.6, n=4, **failed))
    assert history.run.outside


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("ours", [True, False])
def test_the_badge_speaks_of_our_own_switch_and_another_of_somebody_else(width: int, ours: bool) -> None:
    history = RunHistory()
    history.apply(started())
    history.apply(ev.FaultSwitched(t=0.5, kind="503", on=ours))
    for event in trip(201):
        history.apply(event)
    screen = render(history, width, 24).plain
    assert ("failed from outside" in screen) is not ours
    assert ("own fault 503 is ON" in screen) is ours
    if width >= 100:
        assert ("own fault 503 is off" in screen) is not ours
    assert "not by our fault" in screen.replace("\n", " ") or ours
    small = render(history, 40, 12).plain
    assert ("outside" in small, "503 ON" in small) == (not ours, ours)
