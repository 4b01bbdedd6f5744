"""A hedged read is shown as what it is: in the strip, the counts, the sentences, the summary and the log."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterator
from pathlib import Path

import pytest

from failover.console.report import Report
from failover.console.run_history import RunHistory
from failover.console.run_state import Cell
from failover.console.summary import summary
from failover.demo import events as ev
from tests.console.sample_run import read, started


def hedged(n: int, **changes: object) -> ev.Read:
    return read(n, **{"endpoint": "secondary", "ms": 305.0, "attempts": 2, "hedged": True, **changes})


def a_run() -> Iterator[ev.Event]:
    yield started(hedge=0.3, requests=12)
    yield from (read(n) for n in range(1, 5))
    yield from (hedged(n) for n in range(5, 9))
    yield hedged(9, endpoint="primary")
    yield from (read(n) for n in range(10, 13))


def test_the_strip_and_the_counts() -> None:
    history = RunHistory()
    for event in a_run():
        history.apply(event)
    assert list(history.cells)[3:10] == [Cell.PRIMARY, *[Cell.HEDGED] * 4, Cell.PRIMARY, Cell.PRIMARY]
    assert (history.primary, history.secondary, history.hedged, history.failed) == (8, 4, 5, 0)


def test_a_row_of_them_is_one_piece_of_news() -> None:
    history = RunHistory()
    for event in a_run():
        history.apply(event)
    assert [each.text for each in history.log.recent][
        -1
    ] == "Reads 5 to 9 ask the secondary too, after 0.3 s without an answer."


def test_of_one_it_is_told_who_was_quicker() -> None:
    history = RunHistory()
    history.apply(started(hedge=0.3))
    history.apply(hedged(1))
    assert history.log.recent[-1].text == (
        "Read 1 asks the secondary too, after 0.3 s without an answer, and the secondary is quicker."
    )


def test_of_a_probe_it_is_told_that_it_is_one() -> None:
    history = RunHistory()
    history.apply(started(hedge=0.3))
    history.apply(ev.Transitioned(t=3.0, n=7, circuit="primary", old="open", new="half-open", reason="20 reads"))
    history.apply(hedged(7, state="half-open"))
    told = "Read 7 asks the secondary too, while it probes the primary, and the secondary is quicker."
    assert history.log.recent[-1].text == told
    reason = "the probe failed: no answer within 2 s"
    history.apply(ev.Transitioned(t=5.0, n=9, circuit="primary", old="half-open", new="open", reason=reason))
    assert history.log.recent[-1].text.startswith("The probe failed (no answer within 2 s). The circuit is open again")


def test_the_summary_and_the_picture(tmp_path: Path) -> None:
    history, file = RunHistory(), tmp_path / "run.svg"
    with Report(file) as report:
        for event in a_run():
            history.apply(event)
            report(event)
    text = summary(history, 100, 40).plain
    assert "5 asked both at the same time" in text
    assert "◐ hedged" in text
    drawn = "".join(ET.parse(file).getroot().itertext())  # noqa: S314 (our own)
    assert "4 secondary, asked beside the primary" in drawn
    assert "Reads 5 to 9 ask the secondary too" in drawn


def test_a_run_without_hedging_tells_nothing_of_it() -> None:
    history = RunHistory()
    for event in (started(requests=2), read(1), read(2)):
        history.apply(event)
    assert "hedged" not in summary(history, 100, 40).plain


@pytest.mark.parametrize(("event", "logged"), [(read(1), {}), (hedged(1), {"hedged": True})])
def test_the_log_names_it_where_there_is_one(event: ev.Read, logged: dict[str, bool]) -> None:
    assert {key: value for key, value in ev.as_log(event).items() if key == "hedged"} == logged
