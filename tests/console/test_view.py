"""The view folds events into what the screen shows: counters, states, cells, sentences, all of it bounded."""

from __future__ import annotations

import pytest

from failover.console.frame import render
from failover.console.narrator import FIDDLER_RULE, Narrator, advice, cause, clean, seconds
from failover.console.view import Cell, Stage, View
from failover.demo import events as ev
from tests.console.sample_run import aside, read, started, trip, view_of, whole


def test_counts_and_cells_of_a_whole_run() -> None:
    view = View()
    for _, event in whole():
        view.apply(event)
    assert (view.primary, view.secondary, view.failed) == (200, 200, 1)
    assert view.retries == 5 + 9
    assert view.opened == 1
    assert view.stage is Stage.FINISHED
    assert list(view.cells)[199:203] == [Cell.PRIMARY, Cell.TRIED, Cell.SECONDARY, Cell.SECONDARY]
    assert list(view.cells)[221] is Cell.TRIED  # 20 reads went aside, the 21st probed
    assert view.cells[-1] is Cell.FAILED


def test_failures_count_while_closed_and_reads_left_while_open() -> None:
    view = view_of("tripping")
    assert (view.state, view.failures, view.threshold, view.reads_left) == ("closed", 5, 5, None)
    view.apply(ev.Transitioned(t=9.0, n=201, circuit="primary", old="closed", new="open", reason="5 in a row"))
    assert (view.state, view.failures, view.reads_left) == ("open", 0, 20)
    view.apply(aside(202, 19))
    assert view.reads_left == 19


def test_a_cooldown_counts_down_between_events() -> None:
    view = View()
    view.apply(started(secondary_threshold=None, cooldown=30.0))
    view.apply(ev.Transitioned(t=10.0, n=5, circuit="primary", old="closed", new="open", reason="5 in a row"))
    assert view.seconds_left(10.0) == 30.0
    assert view.seconds_left(39.0) == 1.0
    assert view.seconds_left(50.0) == 0.0
    view.apply(aside(6, 0, t=12.0, reads_left=None, seconds_left=55.0))
    assert view.seconds_left(12.0) == 55.0
    assert view.cooldown == 55.0
    view.apply(read(7))
    assert view.seconds_left(13.0) is None


def test_a_read_is_under_way_only_once_its_turn_has_come() -> None:
    view = View()
    view.apply(started(rate=0.1))
    assert view.under_way(1.0) is None
    view.apply(ev.Replicated(t=1.0, seconds=1.0, attempts=1))
    assert view.under_way(3.0) == 2.0
    view.apply(read(1, t=3.0, ms=1000.0))  # begun at 2; at one read in 10 s the next begins at 12
    assert view.under_way(11.0) == 0.0
    assert view.under_way(13.5) == 1.5
    view.apply(ev.Paused(t=14.0, n=1))
    assert view.under_way(20.0) is None
    view.apply(ev.Resumed(t=30.0, n=1))
    assert view.under_way(30.25) == 0.25


def test_the_net_is_gone_while_the_secondary_is_down_or_its_circuit_open() -> None:
    view = View()
    assert view.net
    view.apply(ev.SecondarySeen(t=1.0, reachable=False, staleness=None, error="refused"))
    assert not view.net
    assert "there is no net" in view.news[-1].text
    assert view.news[-1].bad
    view.apply(ev.SecondarySeen(t=2.0, reachable=False, staleness=None, error="refused"))
    assert len(view.news) == 1
    view.apply(ev.SecondarySeen(t=3.0, reachable=True, staleness=0.5))
    assert (view.net, view.staleness) == (True, 0.5)
    view.apply(ev.Transitioned(t=4.0, n=1, circuit="secondary", old="closed", new="open", reason="5 failures"))
    assert not view.net
    assert view.state == "closed"


def test_an_endless_run_takes_bounded_memory() -> None:
    view = View()
    view.apply(started(requests=0))
    for n in range(1, 30_001):
        view.apply(aside(n, 3, ok=False, endpoint=None, error=f"error {n}") if n % 2 else read(n))
    assert len(view.cells) == 20_000
    assert len(view.latencies) == 1_000
    assert len(view.news) <= 200
    assert (view.reads, view.failed) == (30_000, 15_000)


def test_quantiles_are_of_the_last_thousand_reads() -> None:
    view = View()
    assert view.quantile(0.5) is None
    for n in range(1, 2001):
        view.apply(read(n, ms=float(n)))
    assert view.quantile(0.5) == 1501.0
    assert view.quantile(0.99) == 1991.0
    assert view.quantile(1.0) == 2000.0


def test_the_opening_is_told_in_the_words_of_the_issue_and_stands_for_the_retries_before_it() -> None:
    view = View()
    view.apply(started())
    view.apply(ev.FaultSwitched(t=9.9, kind="503", on=True))
    for event in trip(201):
        view.apply(event)
    assert [each.text for each in view.news][1:] == [
        "Primary answered 503 five times in a row. The circuit is open: the next 20 reads go to the secondary."
    ]


def test_a_row_of_failed_reads_is_one_piece_of_news() -> None:
    view = View()
    for n in range(1, 51):
        view.apply(aside(n, 3, ok=False, endpoint=None, error="both are down"))
    assert [each.text for each in view.news] == ["Reads 1 to 50 failed: both are down"]


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ("open", "half-open", "The circuit is half-open: read 7 probes the primary."),
        (
            "half-open",
            "closed",
            "The primary answered the probe. The circuit is closed: reads go to the primary again.",
        ),
        (
            "half-open",
            "open",
            "The probe failed (why). The circuit is open again: the next 20 reads go to the secondary.",
        ),
        (
            "closed",
            "open",
            "Why (not by our fault: that is off). The circuit is open: the next 20 reads go to the secondary.",
        ),
        ("open", "closed", "The circuit is closed (why): reads go to the primary."),
    ],
)
def test_each_transition_has_its_sentence(old: str, new: str, told: str) -> None:
    narrator = Narrator()
    narrator.tell(started())
    said = narrator.tell(ev.Transitioned(t=1.0, n=7, circuit="primary", old=old, new=new, reason="why"))
    assert said is not None
    assert said.text == told


def test_a_failed_probe_is_no_step_towards_the_threshold() -> None:
    narrator = Narrator()
    narrator.tell(ev.Transitioned(t=1.0, n=7, circuit="primary", old="open", new="half-open", reason="why"))
    said = narrator.tell(ev.Retried(t=1.0, n=7, failures=1, threshold=5, error="503 busy"))
    assert said is not None
    assert said.text == "Read 7: the primary answered 503 (it was the probe)"


def test_failures_of_several_kinds_are_told_without_a_kind() -> None:
    narrator = Narrator()
    narrator.tell(started(secondary_threshold=None, cooldown=12.0))
    narrator.tell(ev.FaultSwitched(t=0.5, kind="503", on=True))
    for failures, error in ((1, "503 busy"), (2, "Connection timed out")):
        narrator.tell(ev.Retried(t=1.0, n=1, failures=failures, threshold=2, error=error))
    said = narrator.tell(ev.Transitioned(t=1.0, n=1, circuit="primary", old="closed", new="open", reason="two"))
    assert said is not None
    assert said.text == "Primary failed twice in a row. The circuit is open: for 12 s reads go to the secondary."


@pytest.mark.parametrize(
    ("error", "told"),
    [
        ("503 Server Busy", "answered 503"),
        ("no answer within 2 s", "did not answer in time"),
        ("no connection within 2 s", "could not be connected to"),
        ("connection refused", "refused the connection"),
        ("connection reset", "cut the connection"),
        ("the body broke off", "broke off its answer"),
        ("its name does not resolve", "could not be found"),
        ("its certificate is not trusted (expired)", "could not be trusted"),
        ("the proxy did not connect", "could not be reached through the proxy"),
        ("something else", "failed"),
    ],
)
def test_causes_in_words(error: str, told: str) -> None:
    assert cause(error) == told


def test_text_from_outside_cannot_command_the_terminal() -> None:
    assert clean("a\x1b[31m\x07b\x00") == "a\\x1b[31m\\x07b\\x00"
    assert clean("two\r\nlines\tand  blanks") == "two lines and blanks"
    assert (
        clean("\x9b31m \u202e right to left \ud800 \U000e0041") == "\\x9b31m \\u202e right to left \\ud800 \\U000e0041"
    )
    assert len(clean("x" * 10_000)) == 300
    clean("\ud800 ü 漢").encode()


@pytest.mark.parametrize(
    ("value", "told"),
    [(-1.0, "0.0 s"), (0.84, "0.8 s"), (12.0, "12 s"), (600.0, "10 min"), (9e3, "2 h"), (9e5, "10 days")],
)
def test_durations(value: float, told: str) -> None:
    assert seconds(value) == told


@pytest.mark.parametrize("fault_on", [False, True])
@pytest.mark.parametrize("state", ["closed", "open", "half-open"])
def test_advice_names_the_way_that_fits(state: str, fault_on: bool) -> None:
    alone = advice(fault="503", fault_on=fault_on, opened_by_fault=False, state=state, proxy=False)
    behind = advice(fault="503", fault_on=fault_on, opened_by_fault=False, state=state, proxy=True)
    if fault_on:
        assert alone == behind
        assert FIDDLER_RULE not in " ".join(alone)
        return
    assert f"Rules > {FIDDLER_RULE}" in " ".join(behind)
    assert f"Rules > {FIDDLER_RULE}" in " ".join(alone)
    if state == "closed":
        assert "f" in alone[0].split()[1]
        assert behind[0].startswith("In Fiddler tick")
        assert "press f" in behind[1]
    else:
        assert behind[0].startswith("In Fiddler untick")


def test_news_are_dated_by_the_time_of_day_where_it_is_known() -> None:
    view = View()
    assert view.dated(12.34).strip() == "12.3 s"
    view.start = 1_760_000_000.0
    assert len(view.dated(1.0)) == 8


def _retried(n: int) -> ev.Retried:
    return ev.Retried(t=float(n), n=n, failures=1, threshold=5, error="503 busy")


def test_who_fails_the_primary_is_known_whenever_f_is_pressed() -> None:
    view = View()
    view.apply(started())
    view.apply(read(1))
    assert not view.outside
    view.apply(_retried(2))  # Fiddler, or a real outage
    assert view.outside
    view.apply(read(2))
    assert not view.outside
    on, off = (ev.FaultSwitched(t=3.0, kind="503", on=each) for each in (True, False))
    for event in (on, _retried(3), aside(3, 0), _retried(4)):
        view.apply(event)
        assert not view.outside
    view.apply(off)
    view.apply(_retried(4))  # it was on when this read began
    assert not view.outside
    view.apply(aside(4, 0))
    view.apply(_retried(5))
    assert view.outside
    view.apply(ev.Paused(t=6.0, n=5))
    for event in (on, off, ev.Resumed(t=6.1, n=5)):
        view.apply(event)
    view.apply(_retried(6))
    assert view.outside


def test_the_opening_says_when_it_was_not_by_our_fault() -> None:
    view = View()
    view.apply(started())
    for event in trip(201):
        view.apply(event)
    assert view.news[-1].text.startswith("Primary answered 503 five times in a row (not by our fault: that is off).")


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("ours", [True, False])
def test_the_badge_speaks_of_our_own_switch_and_another_of_somebody_else(width: int, ours: bool) -> None:
    view = View()
    view.apply(started())
    view.apply(ev.FaultSwitched(t=0.5, kind="503", on=ours))
    for event in trip(201):
        view.apply(event)
    screen = render(view, width, 24).plain
    assert ("failed from outside" in screen) is not ours
    assert ("own fault 503 is ON" in screen) is ours
    if width >= 100:
        assert ("own fault 503 is off" in screen) is not ours
    assert "not by our fault" in screen.replace("\n", " ") or ours
    small = render(view, 40, 12).plain
    assert ("outside" in small, "503 ON" in small) == (not ours, ours)


def test_why_there_are_two_endpoints_is_told_in_the_first_pause_and_not_again() -> None:
    view = View()
    view.apply(started())
    for n in (200, 400):
        view.apply(read(n))
        view.apply(ev.Paused(t=n / 10, n=n))
        for width, height in ((80, 24), (120, 40), (60, 30)):
            assert ("copy in another region" in render(view, width, height).plain) is (n == 200)
        assert "Press f" in render(view, 40, 12).plain  # where there is little room, what can be done goes first
        view.apply(ev.Resumed(t=n / 10 + 1, n=n))


@pytest.mark.parametrize(
    ("old", "new", "reason", "told"),
    [
        (
            "open",
            "half-open",
            "another process probes it",
            "The circuit is half-open: another process probes the primary.",
        ),
        ("half-open", "open", "another process found it open", "The probe of another process failed."),
        ("closed", "open", "another process found it open", "Another process found that the primary fails."),
        ("half-open", "closed", "another process closed it", "The primary answered another process."),
        ("open", "half-open", "20 calls were turned away", "The circuit is half-open: a read of this process probes"),
        ("half-open", "closed", "the probe succeeded", "The primary answered the probe."),
        (
            "closed",
            "open",
            "why",
            "Why (not by our fault: that is off). The circuit is open: reads go to the secondary until",
        ),
    ],
)
def test_what_another_process_did_is_told_as_that(old: str, new: str, reason: str, told: str) -> None:
    view = View()
    view.apply(started(shared=True))
    view.apply(ev.Transitioned(t=1.0, n=7, circuit="primary", old=old, new=new, reason=reason))
    assert view.news[-1].text.startswith(told)
    assert view.outside is (reason == "why")


def test_a_fault_that_another_process_switched_is_told_as_that() -> None:
    view = View()
    for on, told in ((True, "ON: the primary answers reads with 503."), (False, "off.")):
        view.apply(ev.FaultSwitched(t=1.0, kind="503", on=on, by_another=True))
        assert view.news[-1].text == f"Another process switched fault 503 {told}"
        assert view.fault_on is on
