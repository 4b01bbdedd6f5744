"""Every sentence about a run, each told in one way wherever it is shown."""

from __future__ import annotations

import io
import re

import pytest

from failover.console.frame import render
from failover.console.narrator import FIDDLER_RULE, advice
from failover.console.report import picture
from failover.console.run_history import RunHistory
from failover.console.sinks import PlainLines
from failover.console.summary import summary
from failover.console.wording import cause, clean, seconds
from failover.demo import events as ev
from tests.console.sample_run import aside, read, started, trip, whole


def test_the_opening_is_told_in_the_words_of_the_issue_and_stands_for_the_retries_before_it() -> None:
    history = RunHistory()
    history.apply(started())
    history.apply(ev.FaultSwitched(t=9.9, kind="503", on=True))
    for event in trip(201):
        history.apply(event)
    assert [each.text for each in history.log.recent][1:] == [
        "Primary answered 503 five times in a row. The circuit is open: the next 20 reads go to the secondary."
    ]


def test_a_row_of_failed_reads_is_one_piece_of_news() -> None:
    history = RunHistory()
    for n in range(1, 51):
        history.apply(aside(n, 3, ok=False, endpoint=None, error="both are down"))
    assert [each.text for each in history.log.recent] == ["Reads 1 to 50 failed: both are down"]


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
    history = RunHistory()
    history.apply(started())
    said = history.apply(ev.Transitioned(t=1.0, n=7, circuit="primary", old=old, new=new, reason="why"))
    assert said is not None
    assert said.text == told


def test_a_failed_probe_is_no_step_towards_the_threshold() -> None:
    history = RunHistory()
    history.apply(ev.Transitioned(t=1.0, n=7, circuit="primary", old="open", new="half-open", reason="why"))
    said = history.apply(ev.Retried(t=1.0, n=7, failures=1, threshold=5, error="503 busy"))
    assert said is not None
    assert said.text == "Read 7: the primary answered 503 (it was the probe)"


def test_failures_of_several_kinds_are_told_without_a_kind() -> None:
    history = RunHistory()
    history.apply(started(secondary_threshold=None, cooldown=12.0))
    history.apply(ev.FaultSwitched(t=0.5, kind="503", on=True))
    for failures, error in ((1, "503 busy"), (2, "Connection timed out")):
        history.apply(ev.Retried(t=1.0, n=1, failures=failures, threshold=2, error=error))
    said = history.apply(ev.Transitioned(t=1.0, n=1, circuit="primary", old="closed", new="open", reason="two"))
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


def test_the_opening_says_when_it_was_not_by_our_fault() -> None:
    history = RunHistory()
    history.apply(started())
    for event in trip(201):
        history.apply(event)
    assert history.log.recent[-1].text.startswith(
        "Primary answered 503 five times in a row (not by our fault: that is off)."
    )


def test_why_there_are_two_endpoints_is_told_in_the_first_pause_and_not_again() -> None:
    history = RunHistory()
    history.apply(started())
    for n in (200, 400):
        history.apply(read(n))
        history.apply(ev.Paused(t=n / 10, n=n))
        for width, height in ((80, 24), (120, 40), (60, 30)):
            assert ("copy in another region" in render(history, width, height).plain) is (n == 200)
        assert "Press f" in render(history, 40, 12).plain  # where there is little room, what can be done goes first
        history.apply(ev.Resumed(t=n / 10 + 1, n=n))


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
    history = RunHistory()
    history.apply(started(shared=True))
    history.apply(ev.Transitioned(t=1.0, n=7, circuit="primary", old=old, new=new, reason=reason))
    assert history.log.recent[-1].text.startswith(told)
    assert history.run.outside is (reason == "why")


def test_a_fault_that_another_process_switched_is_told_as_that() -> None:
    history = RunHistory()
    for on, told in ((True, "ON: the primary answers reads with 503."), (False, "off.")):
        history.apply(ev.FaultSwitched(t=1.0, kind="503", on=on, by_another=True))
        assert history.log.recent[-1].text == f"Another process switched fault 503 {told}"
        assert history.run.fault_on is on


def test_screen_lines_summary_and_picture_tell_the_same() -> None:
    """A sentence of the log is one of the plain lines, and one of the short list tells of one of them or of several."""
    stream, history = io.StringIO(), RunHistory()
    plain = PlainLines(stream)
    for _, event in whole():
        plain(event)
        history.apply(event)
    lines, told = stream.getvalue(), {each.text for each in history.log.recent}
    for entry in history.log.recent:  # a line has the subject of its sentence in front
        assert re.sub(r"^(The secondary|Read 401) |\.$", "", entry.text) in lines
    several = [each.text for each in history.log if each.text not in told]
    assert several == ["Paused for 0.2 s.", "9 probes failed (primary answered 503): it stayed open."]
    drawn = " ".join(re.sub("<[^>]*>", " ", picture(history)).split())
    kept = " ".join(summary(history, 200, 60).plain.split())
    for entry in history.log:
        text = entry.text.partition("[bold]")[0]  # what comes then is too long for a line
        assert text in kept
        assert text in drawn


def test_of_a_circuit_that_another_process_probes_the_screen_does_not_say_that_a_read_of_ours_does() -> None:
    history = RunHistory()
    for event in (started(shared=True), *trip(1)):
        history.apply(event)
    reason = "another process probes it"
    history.apply(ev.Transitioned(t=3.0, n=7, circuit="primary", old="open", new="half-open", reason=reason))
    for width, height in ((120, 40), (80, 24), (60, 15), (40, 12)):
        screen = render(history, width, height).plain
        assert "probed by another process" in screen
        assert "one read probes" not in screen
    history.apply(ev.Transitioned(t=4.0, n=9, circuit="primary", old="half-open", new="closed", reason=reason))
    history.apply(ev.Transitioned(t=5.0, n=9, circuit="primary", old="open", new="half-open", reason="20 reads"))
    assert "one read probes the primary" in render(history, 80, 24).plain


def failed_probe(n: int, *errors: str, reason: str = "the probe failed: why") -> list[ev.Event]:
    half_open = ev.Transitioned(t=float(n), n=n, circuit="primary", old="open", new="half-open", reason="20 reads")
    tries = [ev.Retried(t=float(n), n=n, failures=1, threshold=5, error=each) for each in errors]
    reopened = ev.Transitioned(t=float(n), n=n, circuit="primary", old="half-open", new="open", reason=reason)
    return [half_open, *tries, reopened, aside(n, 20, tried_primary=True)]


@pytest.mark.parametrize(
    ("probes", "told"),
    [
        ([["503 busy"], ["503 busy"]], " (primary answered 503)"),
        ([["503 busy"], ["timed out"]], ""),
        ([["503 busy"], []], ""),
        ([["503 busy"], [], ["503 busy"]], ""),
    ],
)
def test_several_probes_are_told_a_cause_that_each_of_them_met(probes: list[list[str]], told: str) -> None:
    history = RunHistory()
    history.apply(started())
    for n, errors in enumerate(probes, start=30):
        for event in failed_probe(n, *errors):
            history.apply(event)
    assert [each.text for each in history.log] == [f"{len(probes)} probes failed{told}: it stayed open."]


def test_slow_answers_count_among_the_failures_that_opened_the_circuit() -> None:
    history = RunHistory()
    history.apply(started())
    for n in range(1, 4):
        history.apply(ev.Retried(t=1.0, n=n, failures=n, threshold=5, error="timed out"))
        history.apply(aside(n, 0, state="closed", reads_left=None, failures=n))
    history.apply(read(4, failures=4, ms=1500.0))
    opening = ev.Transitioned(t=1.0, n=5, circuit="primary", old="closed", new="open", reason="5 in a row")
    said = history.apply(opening)
    assert said is not None
    assert said.text.startswith("Primary failed five times in a row")


def test_lines_and_screen_advise_to_switch_the_same_fault() -> None:
    """Also where another process has switched on a fault of another kind."""
    stream, history = io.StringIO(), RunHistory()
    plain = PlainLines(stream)
    switched = ev.FaultSwitched(t=1.0, kind="timeout", on=True, by_another=True)
    for event in (started(shared=True), switched, *trip(1), ev.Paused(t=9.0, n=1)):
        plain(event)
        history.apply(event)
    advised = "Press f to switch fault timeout off: the primary answers again,"
    assert advised in stream.getvalue()
    assert advised in render(history, 80, 24).plain
