"""The screen: a picture that fits every size at every stage of a run, and the live loop that shows it."""

from __future__ import annotations

import io
import logging
import re
import sys
import threading
from typing import Any

import pyte
import pytest
from rich.cells import cell_len
from rich.console import Console

from failover.console.live import LiveScreen, render
from failover.console.run_history import RunHistory
from failover.demo import events as ev
from tests.clock import Clock
from tests.console.sample_run import ACCOUNT, STAGES, aside, history_at, read, started, trip, whole

SIZES = [(80, 24), (120, 40), (20, 5), (60, 15), (1, 1), (2, 3), (40, 10), (79, 50), (300, 5), (300, 100)]


def _plain(stage: str, width: int = 80, height: int = 24, **options: Any) -> str:
    return render(history_at(stage), width, height, **options).plain


def _on_terminal(picture: object, width: int, height: int, **options: Any) -> tuple[pyte.Screen, str]:
    """What a terminal of this size shows of it, and the bytes it was sent."""
    stream = io.StringIO()
    Console(file=stream, force_terminal=True, width=width, height=height, **options).print(picture, end="")
    screen = pyte.Screen(width, height)
    pyte.Stream(screen).feed(stream.getvalue().replace("\n", "\r\n"))
    return screen, stream.getvalue()


@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_it_fits_every_size_at_every_stage(width: int, height: int, ascii_only: bool) -> None:
    history, seen = RunHistory(), set()
    for stage, event in whole():
        history.apply(event)
        if stage in seen:
            continue
        seen.add(stage)
        lines = render(history, width, height, now=history.run.t + 3, ascii_only=ascii_only).plain.split("\n")
        assert len(lines) == height, stage
        assert max(map(cell_len, lines)) <= width, stage
        assert "\x1b" not in "".join(lines)
        if ascii_only:
            assert "".join(lines).isascii(), stage


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 40), (20, 5)])
def test_a_terminal_neither_wraps_nor_scrolls(stage: str, width: int, height: int) -> None:
    picture = render(history_at(stage), width, height)
    screen, _ = _on_terminal(picture, width, height)
    assert [line.rstrip() for line in screen.display] == [line.rstrip() for line in picture.plain.split("\n")]


@pytest.mark.parametrize("stage", STAGES)
def test_no_color_means_none(stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    screen, _ = _on_terminal(render(history_at(stage), 80, 24), 80, 24)
    for row in screen.buffer.values():
        assert {(cell.fg, cell.bg) for cell in row.values()} <= {("default", "default")}


def test_each_line_keeps_its_style() -> None:
    _, sent = _on_terminal(render(history_at("open"), 80, 24), 80, 24)
    assert f"\x1b[2m{'─' * 80}" in sent


def test_the_80x24_screen_says_what_the_issue_asks_for() -> None:
    screen = _plain("open")
    assert ACCOUNT in screen
    assert "read 221 of 1,000" in screen
    assert "[ OPEN ]" in screen
    assert "the next read is the probe" in screen
    assert "data may be 0.8 s old" in screen
    assert "primary 200    secondary 21    retries 5    failed 0" in screen
    assert "fault 503 is ON" in screen
    assert "p50 2.1  p99 2.1" in screen
    assert "Primary answered 503 five times in a row." in screen
    assert "space pause   f repair the primary   q quit" in screen
    assert "◍" + "○" * 20 in screen
    assert "■" * 70 in screen


@pytest.mark.parametrize(
    ("stage", "lit", "told"),
    [
        ("reading", "[ CLOSED ]", "failures 0 of 5"),
        ("tripping", "[ CLOSED ]", "failures 5 of 5"),
        ("half-open", "[ HALF-OPEN ]", "one read probes the primary"),
        ("reopened", "[ OPEN ]", "20 reads until the probe"),
    ],
)
def test_one_state_is_lit_and_its_count_shown(stage: str, lit: str, told: str) -> None:
    screen = _plain(stage)
    assert lit in screen
    assert told in screen
    assert sum(state in screen for state in ("[ CLOSED ]", "[ OPEN ]", "[ HALF-OPEN ]")) == 1


def test_the_endpoint_is_unmistakable_at_every_size() -> None:
    assert "█▀▀▄ █▀▀▄ ▀█▀ █▄ ▄█ ▄▀▀▄ █▀▀▄ ▀▄ ▄▀" in _plain("reading")
    assert "██████    ██████    ██████  ██      ██" in _plain("reading", 120, 40)
    assert " S E C O N D A R Y " in _plain("open", 60, 15)
    assert "SECONDARY" in _plain("open", 20, 5)
    assert "SECONDARY" in _plain("open", 9, 1)
    assert "N E I T H E R" in _plain("failing", 60, 15)


def test_a_round_begins_a_row_and_so_does_what_the_width_cuts() -> None:
    rows = [line for line in _plain("open", 120, 40).split("\n") if "■" in line or "○" in line or "····" in line]
    assert [int(row.split()[0]) for row in rows[:10]] == [1, 101, 201, 301, 401, 501, 601, 701, 801, 901]
    history = RunHistory()
    history.apply(started(pause_every=30, requests=70))
    for n in range(1, 32):
        history.apply(read(n))
    rows = [line for line in render(history, 80, 24).plain.split("\n") if line[:8].strip().isdigit()]
    assert [row.split() for row in rows] == [["1", "■" * 30], ["31", "■" + "·" * 29], ["61", "·" * 10]]


def test_an_endless_run_shows_its_newest_reads() -> None:
    history = RunHistory()
    history.apply(started(requests=0, pause_every=0))
    for n in range(1, 25_001):
        history.apply(read(n) if n % 1000 else aside(n, 3))
    screen = render(history, 80, 24).plain
    assert "read 25,000" in screen
    assert screen.count("○") == 2  # read 25,000 and the legend


def test_paused_at_the_end_of_a_round_it_says_what_to_do() -> None:
    screen = _plain("paused")
    assert "Paused after read 200" in screen
    assert "Press f: it fails the primary's reads (503)." in screen
    assert "Or in Fiddler tick Rules > RA-GRS: fail primary reads with 503" in screen
    assert "Any key resumes" in screen
    assert "any key resume   f break the primary (503)   q quit" in screen
    assert "about to fail" in _plain("paused, fault on")
    asked = _plain("paused, asked")
    assert "Any key resumes" in asked
    assert "Fiddler" not in asked


def test_a_fault_that_was_ours_is_not_blamed_on_fiddler_when_it_is_off() -> None:
    def screen(*, ours: bool) -> str:
        history = RunHistory()
        history.apply(started())
        history.apply(ev.FaultSwitched(t=0.5, kind="503", on=ours))
        for event in trip(1):
            history.apply(event)
        history.apply(ev.Paused(t=9.0, n=1))
        history.apply(ev.FaultSwitched(t=9.5, kind="503", on=not ours))
        history.apply(ev.FaultSwitched(t=9.6, kind="503", on=False))
        return render(history, 80, 24).plain

    assert "Fault 503 is off again: the primary answers." in screen(ours=True)
    assert "Resume, and watch the next probe close the circuit." in screen(ours=True)
    assert "Fiddler" not in screen(ours=True)
    assert "The primary fails, and not by our fault" in screen(ours=False)


def test_behind_a_proxy_fiddler_comes_first() -> None:
    history = RunHistory()
    history.apply(started(proxy="http://127.0.0.1:8888"))
    history.apply(read(200))
    history.apply(ev.Paused(t=1.0, n=200))
    screen = render(history, 80, 24).plain
    assert screen.index("In Fiddler tick") < screen.index("press f")


def test_without_a_net_it_says_so() -> None:
    assert " NO NET  secondary down" in _plain("no net")
    assert "there is no net" in _plain("no net", 120, 40)
    assert "NO NET" in _plain("no net", 60, 15)


def test_waiting_for_the_replica_shows_progress() -> None:
    screen = _plain("waiting")
    assert "Waiting for the secondary to have the blob too" in screen
    assert "▮" * 14 + "▯" * 26 + "  21 s of at most 60 s" in screen


def test_a_read_that_takes_long_is_seen_to() -> None:
    history = history_at("reading")
    assert "answered in 2.1 ms" in render(history, 80, 24, now=history.run.t + 0.3).plain
    assert "read 201: 1.7 s so far" in render(history, 80, 24, now=history.run.t + 1.74).plain
    assert "1.7 s" in render(history, 60, 15, now=history.run.t + 1.74).plain
    first = history_at("replicated")
    assert "Reading for 2.0 s, no answer yet" in render(first, 80, 24, now=first.run.t + 2).plain


def test_markup_from_outside_is_text() -> None:
    history = history_at("failing")
    assert "\\x1b[31mrefused [bold]" in render(history, 300, 40).plain
    history.apply(started(account="[red]x[/red]"))
    assert "[red]x[/red]" in render(history, 80, 24).plain


def _live(stream: io.StringIO, **options: Any) -> LiveScreen:
    console = Console(file=stream, force_terminal=True, width=80, height=24, **options)
    return LiveScreen(console, clock=Clock(100.0), time_of_day=lambda: 1_760_000_000.0)


def test_the_screen_is_taken_and_given_back_with_a_summary() -> None:
    stream = io.StringIO()
    with _live(stream) as screen:
        assert stream.getvalue().startswith("\x1b7\x1b[?1049h")
        for _, event in whole():
            screen(event)
    _, _, after = stream.getvalue().rpartition("\x1b[?1049l")
    assert "\x1b[?25h" in stream.getvalue()
    assert ACCOUNT in after
    assert "401 of 1,000 reads, 1 failed" in re.sub(r"\x1b\[[\d;]*m", "", after)
    assert "The circuit opened once" in after
    assert "Container ra-grs-1 is deleted." in after


def test_what_is_new_is_drawn_and_what_is_not_costs_nothing() -> None:
    stream = io.StringIO()
    screen = _live(stream)
    screen(started())
    screen(read(1))
    screen._live.start()
    screen._draw()
    drawn = len(stream.getvalue())
    screen._draw()
    assert len(stream.getvalue()) == drawn
    screen(read(2))
    screen._draw()
    assert "read \x1b[1m2\x1b[0m of" in stream.getvalue()[drawn:]
    screen._clock.now += 4.0  # type: ignore[attr-defined]  # the injected clock
    screen._draw()
    assert "read 3: " in stream.getvalue()
    screen._live.stop()


def test_events_may_come_from_many_threads() -> None:
    def look() -> None:
        for _ in range(200):
            screen(ev.SecondarySeen(t=1.0, reachable=True, staleness=1.0))

    with _live(io.StringIO()) as screen:
        threads = [threading.Thread(target=look) for _ in range(8)]
        for thread in threads:
            thread.start()
        for n in range(1, 201):
            screen(read(n))
        for thread in threads:
            thread.join()
        assert screen.history.reads == 200


def test_stopped_and_continued_it_leaves_and_takes_the_screen() -> None:
    stream = io.StringIO()
    with _live(stream) as screen:
        screen(started())
        screen.suspend()
        assert stream.getvalue().endswith("\x1b[?1049l")
        screen.resume()
        assert stream.getvalue().count("\x1b[?1049h") == 2


def test_stopped_before_and_after_it_has_the_screen_it_does_not_touch_it() -> None:
    stream = io.StringIO()
    screen = _live(stream)
    for _ in range(2):
        before = stream.getvalue()
        screen.suspend()
        screen.resume()
        assert stream.getvalue() == before
        if not before:
            with screen:
                screen(started())


def test_stopped_while_it_gives_the_screen_back(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    screen = _live(stream)
    with screen:
        stop = screen._live.stop

        def interrupted() -> None:
            stop()
            screen.suspend()
            screen.resume()

        monkeypatch.setattr(screen._live, "stop", interrupted)
        screen(started())

    taken, left = stream.getvalue().rfind("\x1b[?1049h"), stream.getvalue().rfind("\x1b[?1049l")
    assert taken < left


def test_a_picture_under_way_comes_before_the_screen_is_left() -> None:
    stream = io.StringIO()
    with _live(stream) as screen:
        screen._drawing.acquire()
        stopping = threading.Thread(target=screen.suspend)
        stopping.start()
        screen._console.print("the picture")
        screen._drawing.release()
        stopping.join()
        assert stream.getvalue().index("the picture") < stream.getvalue().rindex("\x1b[?1049l")
        screen.resume()


def test_a_terminal_that_goes_away_ends_the_drawing_and_not_the_run() -> None:
    class Gone(io.StringIO):
        gone = False

        def write(self, text: str) -> int:
            if self.gone:
                raise OSError(5, "Input/output error")
            return super().write(text)

    stream = Gone()
    with _live(stream) as screen:
        stream.gone = True
        screen(started())
        screen._thread.join(10)
        assert not screen._thread.is_alive()
        screen(read(1))
    assert screen.lost


def test_what_others_write_to_stderr_is_shown_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stderr = Terminal()
    monkeypatch.setattr(sys, "stderr", stderr)
    with _live(io.StringIO()):
        logging.lastResort.emit(logging.makeLogRecord({"msg": "from a library"}))  # type: ignore[union-attr]  # it is set
        assert stderr.getvalue() == ""
    assert sys.stderr is stderr
    assert stderr.getvalue() == "from a library\n"


def _half_open(n: int) -> tuple[ev.Event, ...]:
    """Read n probes the primary, in vain."""
    return (
        ev.Transitioned(t=n / 25, n=n, circuit="primary", old="open", new="half-open", reason="20 reads"),
        ev.Retried(t=n / 25, n=n, failures=5, threshold=5, error="503 busy"),
        ev.Transitioned(t=n / 25, n=n, circuit="primary", old="half-open", new="open", reason="probe failed"),
        aside(n, 20, tried_primary=True, attempts=2),
    )


class _Sleeping:
    """A `sleep` that moves the clock and remembers what was to be seen meanwhile."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.screen: LiveScreen | None = None
        self.slept: list[float] = []
        self.seen: list[str] = []

    def __call__(self, seconds: float) -> None:
        assert self.screen is not None
        self.slept.append(seconds)
        for _ in range(2):
            self.clock.now += seconds / 2
            self.seen.append(_now(self.screen))


def _now(screen: LiveScreen) -> str:
    """What it would draw; at a size of its own, since it need not draw the same twice."""
    return screen.picture(81, 24).plain


def _watched() -> tuple[LiveScreen, _Sleeping]:
    clock = Clock()
    sleep = _Sleeping(clock)
    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24)
    sleep.screen = LiveScreen(console, clock=clock, sleep=sleep)
    return sleep.screen, sleep


def test_half_open_is_held_long_enough_to_be_seen() -> None:
    screen, sleep = _watched()
    with screen:
        for event in (started(), *(read(n) for n in range(1, 9)), *trip(9)):
            screen(event)
        assert sleep.slept == []
        for n in (30, 51):
            for event in _half_open(n):
                screen(event)
            assert "[ OPEN ]" in _now(screen), "and then it goes on at once"
            sleep.clock.now += 0.8
    assert len(sleep.slept) == 2
    assert all(0.4 <= seconds <= 0.6 for seconds in sleep.slept)
    for picture in sleep.seen:
        assert "[ HALF-OPEN ]" in picture
        assert "one read probes the primary" in picture
        assert " so far" not in picture, "the wait is not the read's"


def test_a_probe_that_hangs_is_held_no_longer_and_probes_in_a_row_not_each_time() -> None:
    screen, sleep = _watched()
    with screen:
        for event in (started(), *trip(1)):
            screen(event)
        half_open, *rest = _half_open(22)
        screen(half_open)
        sleep.clock.now += 2.0
        assert "[ HALF-OPEN ]" in _now(screen)
        for event in rest:
            screen(event)
        assert sleep.slept == []
        for n in range(23, 28):  # without a rate and with a threshold of 1
            for event in _half_open(n):
                screen(event)
        assert len(sleep.slept) <= 1


def test_what_happens_meanwhile_is_shown_at_once_and_in_order() -> None:
    screen, _ = _watched()
    with screen:
        for event in (started(), *trip(1), *_half_open(22)[:1]):
            screen(event)
        screen(ev.FaultSwitched(t=1.0, kind="503", on=True))
        picture = _now(screen)
        assert "[ HALF-OPEN ]" in picture
        assert "fault 503 is ON" in picture
        for event in _half_open(22)[1:]:
            screen(event)
        assert "[ OPEN ]" in _now(screen)


def test_a_switch_while_the_probe_is_held_is_told_of_the_reads_after_it() -> None:
    """The screen shows it at once; the history, and so the summary, has it after the probe that was over by then."""
    clock = Clock()
    seen: list[str] = []

    def press_f(seconds: float) -> None:
        clock.now += seconds
        screen(ev.FaultSwitched(t=1.0, kind="503", on=True))
        seen.append(_now(screen))

    console = Console(file=io.StringIO(), force_terminal=True, width=80, height=24)
    screen = LiveScreen(console, clock=clock, sleep=press_f)
    with screen:
        for event in (started(), *(read(n) for n in range(1, 22)), *_half_open(22), aside(23, 19)):
            screen(event)
    assert "[ HALF-OPEN ]" in seen[0]
    assert "fault 503 is ON" in seen[0]
    assert [each.which for each in screen.history.log if each.text.startswith("Fault")] == ["23"]
    assert [group.fault for group in screen.history.groups[-2:]] == [False, True]


@pytest.mark.parametrize("below", [0, 1])
def test_the_summary_leaves_room_for_what_follows_it(below: int) -> None:
    left = []
    for height in range(22, 42):
        stream = io.StringIO()
        console = Console(file=stream, force_terminal=True, width=80, height=height)
        with LiveScreen(console, below=below, sleep=lambda _: None) as screen:
            for _, event in whole():
                screen(event)
        _, _, after = stream.getvalue().rpartition("\x1b[?1049l")
        left.append(height - after.count("\n"))
    assert min(left) == 2 + below
