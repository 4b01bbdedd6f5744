"""Plain output: a line for each event, the reads' in the form that the design fixes."""

from __future__ import annotations

import io
import re

import pytest

from failover.console.sinks import PlainLines
from failover.demo import events as ev
from tests.console.sample_run import aside, read, started, trip, whole

_READ = re.compile(r"^ *\d+  (primary|secondary|neither) ")


def _lines(*happened: ev.Event) -> list[str]:
    stream = io.StringIO()
    sink = PlainLines(stream)
    for event in happened:
        sink(event)
    return stream.getvalue().splitlines()


def test_a_read_is_exactly_the_line_of_the_design() -> None:
    assert _lines(aside(201, 20, ms=2.1)) == ["   201  secondary  open       2.1 ms"]
    assert _lines(read(1, ms=12.34)) == ["     1  primary    closed    12.3 ms"]
    assert _lines(read(7, state="half-open", ms=2034.1)) == ["     7  primary    half-open 2034.1 ms"]
    assert _lines(read(1234567)) == ["1234567  primary    closed     2.1 ms"]


def test_a_failed_read_says_why() -> None:
    failed = aside(201, 3, endpoint=None, ok=False, ms=9.8, error="reason")
    assert _lines(failed) == ["   201  neither    open       9.8 ms  failed: reason"]


def test_each_event_is_one_line_and_only_reads_look_like_reads() -> None:
    for _, event in whole():
        (line,) = _lines(event)
        assert bool(_READ.match(line)) is isinstance(event, ev.Read), line
        assert "\x1b" not in line
        if not isinstance(event, ev.Read):
            assert line.startswith(str(ev.as_log(event)["event"])), line
            assert len(line.split()) > 1, line


def test_events_read_as_sentences() -> None:
    first, _, *others = _lines(started(), ev.FaultSwitched(t=0.5, kind="503", on=True), *trip(201))
    lines = [first, *others]
    assert lines[0] == "started     stand-in account on 127.0.0.1 (no Azure account is set)"
    assert lines[1] == "retry       Read 201: the primary answered 503 (failure 1 of 5)"
    assert lines[6] == (
        "transition  primary closed -> open: Primary answered 503 five times in a row. "
        "The circuit is open: the next 20 reads go to the secondary."
    )
    assert lines[7] == "secondary   answers; what it holds may be 0.8 s old"


def test_a_pause_says_what_to_do() -> None:
    (*_, line) = _lines(started(), read(200), ev.Paused(t=1.0, n=200))
    assert line.startswith("paused      Paused after read 200.")
    assert "RA-GRS: fail primary reads with 503" in line
    assert "Any key resumes" in line
    assert "RA-GRS: the secondary is a copy in another region that may be read." in line
    (*_, line) = _lines(started(), *(ev.Paused(t=n / 100, n=n) for n in (200, 400)))
    assert "another region" not in line


@pytest.mark.parametrize("proxy", [None, "http://127.0.0.1:8888"])
def test_a_pause_after_our_own_fault_is_off_says_that_the_probe_closes_the_circuit(proxy: str | None) -> None:
    on, off = (ev.FaultSwitched(t=1.0, kind="503", on=each) for each in (True, False))
    (*_, line) = _lines(started(proxy=proxy), on, *trip(1), off, ev.Paused(t=9.0, n=1))
    assert "Fault 503 is off again: the primary answers. Resume, and watch the next probe close the circuit." in line
    assert "Fiddler" not in line
    (*_, line) = _lines(started(proxy=proxy), on, off, *trip(1), ev.Paused(t=9.0, n=1))
    assert "Fiddler" in line


def test_text_from_outside_stays_on_its_line() -> None:
    (line,) = _lines(aside(1, 3, endpoint=None, ok=False, error="one\ntwo\x1b[2J\r   2  primary  closed"))
    assert line.endswith("failed: one two\\x1b[2J 2 primary closed")


def test_a_stream_that_knows_ascii_only() -> None:
    raw = io.BytesIO()
    sink = PlainLines(io.TextIOWrapper(raw, encoding="ascii"))
    sink(ev.Noted(t=0.0, text="Größe 漢"))
    assert raw.getvalue() == b"note        Gr\\xf6\\xdfe \\u6f22\n"  # written: each line is flushed


def test_a_reader_that_went_away_is_the_callers_affair() -> None:
    class Closed(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        PlainLines(Closed())(read(1))
