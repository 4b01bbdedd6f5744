"""The history of a whole run: exact where it is short, bounded where it is long, and the same sentences told once."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest

from failover.console.layout import Scale, read_ticks, row_width
from failover.console.run_history import GROUPS, RunHistory, Spread
from failover.console.run_state import Cell, Stage
from failover.console.summary import headline, results
from failover.console.wording import moment
from failover.demo import events as ev
from tests.console.sample_run import aside, read, started, trip, whole


def recorded(*events: ev.Event) -> RunHistory:
    history = RunHistory()
    for event in events:
        history.apply(event)
    return history


def told(history: RunHistory) -> list[tuple[str, str]]:
    return [(each.which, each.text) for each in history.log]


def probe(n: int, *, fails: bool) -> list[ev.Event]:
    t, new = 2.0 + n * 0.04, "open" if fails else "closed"
    events: list[ev.Event] = [
        ev.Transitioned(t=t, n=n, circuit="primary", old="open", new="half-open", reason="20 reads")
    ]
    if fails:
        events.append(ev.Retried(t=t, n=n, failures=1, threshold=5, error="503 The server is busy."))
    events.append(ev.Transitioned(t=t, n=n, circuit="primary", old="half-open", new=new, reason="the probe"))
    return [*events, aside(n, 20, tried_primary=True) if fails else read(n)]


def test_a_short_run_is_kept_read_by_read() -> None:
    history = recorded(*(event for _, event in whole()))
    assert (history.reads, history.per, len(history.groups)) == (401, 1, 401)
    assert history.counts == {Cell.PRIMARY: 200, Cell.SECONDARY: 190, Cell.TRIED: 10, Cell.FAILED: 1}
    assert [group.cell for group in history.groups[199:203]] == [
        Cell.PRIMARY,
        Cell.TRIED,
        Cell.SECONDARY,
        Cell.SECONDARY,
    ]
    assert [n for n, group in enumerate(history.groups, start=1) if group.probed] == list(range(222, 401, 21))
    assert {n for n, group in enumerate(history.groups, start=1) if group.fault} == set(range(201, 402))
    assert {group.state for group in history.groups[:200]} == {"closed"}
    assert {group.state for group in history.groups[200:]} == {"open"}
    assert (history.retries, history.opened, history.probes, history.behind) == (14, 1, 9, 0.8)


def test_a_long_run_is_kept_in_groups_that_show_the_worst() -> None:
    history = recorded(started(requests=0))
    for n in range(1, 10_001):
        history.apply(
            read(n, endpoint=None, ok=False, error="both") if n == 7_000 else read(n, ms=80.0 if n == 9 else 2.0)
        )
        assert len(history.groups) <= GROUPS
    assert history.reads == 10_000
    assert history.per == 8
    assert len(history.groups) == math.ceil(10_000 / 8)
    failed = [index for index, group in enumerate(history.groups) if group.cell is Cell.FAILED]
    assert failed == [(7_000 - 1) // 8]
    assert [group.ms for group in history.groups[:3]] == [2.0, 80.0, 2.0]
    assert history.counts[Cell.PRIMARY] == 9_999


def test_quantiles_are_those_of_the_whole_run_to_two_per_cent() -> None:
    spread, chance = Spread(), random.Random(7)
    values = [0.0011, *(chance.lognormvariate(1, 1) for _ in range(4_999))]
    assert spread.quantile(0.5) is None
    for value in values:
        spread.add(value)
    values.sort()
    for part in (0.0001, 0.1, 0.5, 0.99, 1.0):
        exact = values[min(len(values) - 1, int(part * 5_000))]
        assert spread.quantile(part) == pytest.approx(exact, rel=0.02)


def test_the_story_of_an_outage() -> None:
    events: list[ev.Event] = [started(), *(read(n) for n in range(1, 11))]
    events += [ev.FaultSwitched(t=2.4, kind="503", on=True), *trip(11)]
    for first in (12, 33):
        events += [aside(n, 20 - n + first) for n in range(first, first + 20)]
        events += probe(first + 20, fails=first == 12)
    history = recorded(*events, ev.CleanedUp(t=9.0, container="c"))
    until = "the next 20 reads go to the secondary"
    assert told(history) == [
        ("11", "Fault 503 is ON: the primary answers reads with 503."),
        (
            "11",
            "Primary answered 503 five times in a row. The circuit is open: the next 20 reads go to the secondary.",
        ),
        (
            "32",
            f"The probe failed (primary answered 503). The circuit is open again: {until}.",
        ),
        ("53", "The primary answered the probe. The circuit is closed: reads go to the primary again."),
        ("", "Container c is deleted."),
    ]
    assert headline(history) == "53 of 1,000 reads, all answered"
    assert results(history) == [
        "11 by the primary, 42 by the secondary (seen 0.8 s behind at most).",
        "The circuit opened once, was probed twice and is closed again.",
    ]


def test_what_repeats_is_told_once_and_a_new_outage_anew() -> None:
    events: list[ev.Event] = [started()]
    for base in (0, 1000):
        events += trip(base + 1)
        for n in range(base + 22, base + 400, 21):
            events += probe(n, fails=True)
        events += [ev.Paused(t=20.0, n=base + 400), ev.Resumed(t=22.5, n=base + 400)]
        events += probe(base + 421, fails=True)
        events += probe(base + 442, fails=False)
    lines = told(recorded(*events))
    assert [which for which, _ in lines] == ["1", "22–421", "400", "442", "1,001", "1,022–1,421", "1,400", "1,442"]
    assert lines[1][1] == "19 probes failed (primary answered 503): it stayed open."
    assert lines[2][1] == "Paused for 2.5 s."


def test_attempts_that_open_the_circuit_are_told_by_that_and_others_by_themselves() -> None:
    def attempt(n: int, failures: int) -> list[ev.Event]:
        retried = ev.Retried(t=n, n=n, failures=failures, threshold=5, error="timed out")
        return [retried, aside(n, 0, state="closed", tried_primary=True, failures=failures)]

    single = recorded(started(), read(1), *attempt(2, 1), read(3), *attempt(4, 1), read(5), *trip(9))
    assert told(single)[:1] == [
        (
            "2–4",
            "Read 4: the primary did not answer in time (failure 1 of 5): timed out, and 1 before it.",
        )
    ]
    assert [which for which, _ in told(single)] == ["2–4", "9"]
    opening = recorded(
        started(),
        ev.FaultSwitched(t=0.5, kind="503", on=True),
        *(event for n in range(1, 6) for event in attempt(n, n)),
        ev.Transitioned(t=5.0, n=5, circuit="primary", old="closed", new="open", reason="5 in a row"),
    )
    _, (which, text) = told(opening)
    assert which == "5"
    assert text.startswith("Primary did not answer in time five times in a row. The circuit is open")


def test_a_run_of_many_events_keeps_the_first_and_the_last() -> None:
    history = recorded(started(requests=0))
    for n in range(1, 2001, 2):
        for event in trip(n):
            history.apply(event)
        for event in probe(n + 1, fails=False):
            history.apply(event)
    first, omitted, last = history.log.chosen(14)
    assert (len(first), len(last)) == (4, 10)
    assert omitted == 2000 - 14
    assert [each.first for each in first] == [1, 2, 3, 4]
    assert [each.first for each in last] == list(range(1991, 2001))
    assert len(list(history.log)) <= 48


def test_where_there_is_little_room_the_circuit_is_told_first() -> None:
    history = recorded(*(event for _, event in whole()))
    for most in range(1, 14):
        first, omitted, last = history.log.chosen(most)
        assert len(first) + len(last) <= most
        assert [*first, *last][-1].text == "Container ra-grs-1 is deleted."
        assert omitted >= 0
    first, _, last = history.log.chosen(6)
    assert any("The circuit is open" in each.text for each in [*first, *last])


@pytest.mark.parametrize(
    ("events", "line"),
    [
        ([], "Ended before the first read"),
        ([read(1)], "1 of 3 reads, answered"),
        ([read(1), read(2)], "2 of 3 reads, all answered"),
        ([read(1), read(2), read(3)], "3 reads, all answered"),
        ([read(1), read(2, endpoint=None, ok=False, error="both"), read(3)], "3 reads, 1 failed"),
    ],
)
def test_the_headline_says_how_it_came_out(events: list[ev.Event], line: str) -> None:
    assert headline(recorded(started(requests=3), *events)) == line


def test_times_are_read_like_a_watch() -> None:
    assert [moment(t) for t in (0.0, 9.96, 59.96, 3599.9, 3600.0, 37_230.0)] == [
        "0:00.0", "0:10.0", "1:00.0", "59:59.9", "1:00:00", "10:20:30",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("every", "width"),
    [(0, 100), (200, 100), (150, 75), (30, 90), (5, 100), (7, 98), (1000, 100), (101, 100), (61, 61)],
)
def test_rounds_begin_rows(every: int, width: int) -> None:
    assert row_width(1000, every, 100) == width


@pytest.mark.parametrize("values", [[2.0], [1.0, 1.0], [0.0], [3.1, 9.9], [0.5, 30_000.0], [5.0, 10.0], [1e-9, 1e9]])
def test_a_scale_holds_all_values_between_round_numbers(values: list[float]) -> None:
    scale = Scale(values)
    ticks = scale.ticks()
    assert scale.low < scale.high
    assert ticks
    assert all(later > earlier for earlier, later in pairwise(ticks))
    assert scale(scale.low) == 0.0
    assert scale(scale.high) == pytest.approx(1.0)
    assert all(0.0 <= scale(each) <= 1.0 for each in (*values, *ticks))


@pytest.mark.parametrize("room", [8, 12, 28, 37, 68, 69, 108, 110, 288])
def test_the_numbers_below_an_axis_never_collide(room: int) -> None:
    for reads in (*range(1, 1300), 4_999, 9_999, 10_436, 20_000, 999_999, 123_456_789 if room > 12 else 1):
        ticks = read_ticks(reads, room)
        assert ticks[-1][0] == reads
        assert ticks == sorted(set(ticks))
        assert len(ticks) <= 8
        line = " " * room
        for n, at in ticks:
            told = f"{n:,}"
            assert 0 <= at <= room - len(told), (reads, ticks)
            line = f"{line[:at]}{told}{line[at + len(told) :]}"
        assert line.replace("  ", "\n").split() == [f"{n:,}" for n, _ in ticks], (reads, line)
        if room >= 28:
            assert reads <= 1 or ticks[0][0] == 1


def test_a_fault_that_no_read_met_is_not_told_of() -> None:
    """f on and off within a pause, and on again much later."""
    history = recorded(started())
    for n in range(1, 41):
        history.apply(read(n))
    history.apply(ev.Paused(t=3.0, n=40))
    for on in (True, False):
        history.apply(ev.FaultSwitched(t=3.1, kind="503", on=on))
    history.apply(ev.Resumed(t=3.2, n=40))
    for n in range(41, 101):
        history.apply(read(n))
    history.apply(ev.FaultSwitched(t=9.0, kind="503", on=True))
    history.apply(read(101, endpoint="secondary", attempts=6))
    history.apply(ev.FaultSwitched(t=9.5, kind="503", on=False))
    history.apply(read(102))
    faults = [(which, text) for which, text in told(history) if text.startswith("Fault")]
    assert faults == [("101", "Fault 503 is ON: the primary answers reads with 503."), ("102", "Fault 503 is off.")]


def test_of_three_switches_between_two_reads_one_is_told() -> None:
    history = recorded(started(), read(1))
    for on in (True, False, True):
        history.apply(ev.FaultSwitched(t=3.1, kind="503", on=on))
    faults = [(which, text) for which, text in told(history) if text.startswith("Fault")]
    assert faults == [("2", "Fault 503 is ON: the primary answers reads with 503.")]


def test_counts_and_cells_of_a_whole_run() -> None:
    history = RunHistory()
    for _, event in whole():
        history.apply(event)
    assert (history.primary, history.secondary, history.failed) == (200, 200, 1)
    assert history.retries == 5 + 9
    assert history.opened == 1
    assert history.run.stage is Stage.FINISHED
    assert list(history.cells)[199:203] == [Cell.PRIMARY, Cell.TRIED, Cell.SECONDARY, Cell.SECONDARY]
    assert list(history.cells)[221] is Cell.TRIED  # 20 reads went aside, the 21st probed
    assert history.cells[-1] is Cell.FAILED


def test_an_endless_run_takes_bounded_memory() -> None:
    history = RunHistory()
    history.apply(started(requests=0))
    for n in range(1, 30_001):
        history.apply(aside(n, 3, ok=False, endpoint=None, error=f"error {n}") if n % 2 else read(n))
    assert len(history.cells) == 20_000
    assert len(history.latencies) == 1_000
    assert len(history.log.recent) <= 200
    assert (history.reads, history.failed) == (30_000, 15_000)


def test_quantiles_are_of_the_last_thousand_reads() -> None:
    history = RunHistory()
    assert history.quantile(0.5) is None
    for n in range(1, 2001):
        history.apply(read(n, ms=float(n)))
    assert history.quantile(0.5) == 1501.0
    assert history.quantile(0.99) == 1991.0
    assert history.quantile(1.0) == 2000.0


def test_news_are_dated_by_the_time_of_day_where_it_is_known() -> None:
    history = RunHistory()
    assert history.dated(12.34).strip() == "12.3 s"
    history.start = 1_760_000_000.0
    assert len(history.dated(1.0)) == 8
