"""The dashboard on a terminal: takes events from any thread, draws the picture of them about twelve times a second."""

from __future__ import annotations

import io
import math
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import TextIO

from rich.console import Console, ConsoleDimensions, ConsoleOptions, RenderResult
from rich.live import Live

from failover.console.frame import render
from failover.console.render_context import Picture
from failover.console.run_history import RunHistory
from failover.console.summary import summary
from failover.demo import events as ev

__all__ = ["LiveScreen", "TrueSize", "can_draw", "render"]

_REFRESH = 1 / 12  # seconds between two looks for something new
_KEPT_LINES = 50
_PATIENCE = 0.5  # seconds that Ctrl-Z waits for a picture under way
# The alternate screen, the cursor, and that a paste is marked as one, so that no letter of it is taken for a key.
# Leaving the screen twice does no harm where the cursor's place has been marked.
_MARK, _TAKE, _LEAVE = "\x1b7", "\x1b[?1049h\x1b[?25l\x1b[?2004h", "\x1b[?2004l\x1b[?25h\x1b[?1049l"
_MARK_PASTES = "\x1b[?2004h"
_HOLD = 0.5  # seconds for which a half-open circuit is to be seen; the probe itself takes milliseconds
_BETWEEN = 0.4  # seconds from one hold to the next at least: without a rate, probes follow each other fast
_OF_A_PROBE = (ev.Retried, ev.Transitioned, ev.Read)
_BESIDE_IT = (ev.SecondarySeen, ev.FaultSwitched, ev.Noted)
_PROMPT = 2  # rows that the shell takes below the summary


class TrueSize(Console):
    """A console that is as large as its terminal is, whatever COLUMNS and LINES say; they say it where nobody knows."""

    @property  # type: ignore[misc]  # nobody sets it
    def size(self) -> ConsoleDimensions:
        """Columns and rows, now."""
        try:
            columns, rows = os.get_terminal_size(self.file.fileno())
        except (OSError, ValueError):  # no terminal, or it is gone
            columns = rows = 0
        return ConsoleDimensions(columns, rows) if columns > 0 and rows > 0 else super().size


def can_draw(console: Console) -> bool:
    """Whether its terminal can move its cursor, as TERM, TTY_COMPATIBLE and TTY_INTERACTIVE have it."""
    return console.is_terminal and console.is_interactive and not console.is_dumb_terminal


class LiveScreen:
    """A sink for events that draws them on the whole terminal while its context is open.

    Events may come from any thread. On leaving, the terminal shows again what it showed before, and below
    it a summary of the run. While the circuit is half-open the run is held for a moment, once the probe has been
    measured, so that the state can be seen. A terminal that goes away meanwhile (hang-up) ends the drawing, not the
    run: `lost` is True then. What others write to a stderr on the same terminal meanwhile is shown after the screen is
    gone.
    """

    def __init__(
        self,
        console: Console,
        *,
        below: int = 0,
        clock: Callable[[], float] = time.monotonic,
        time_of_day: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Draw on `console`; `below` rows of it are left for what is written after the summary.

        `clock` in seconds, monotonic; `time_of_day` in seconds since the epoch; `sleep` waits.
        """
        self.history = RunHistory()
        self._shown = RunHistory()  # the same, which lags behind while a half-open circuit is held
        self.lost = False
        self._console = console
        self._below = below + _PROMPT
        self._clock = clock
        self._time_of_day = time_of_day
        self._ascii = console.options.ascii_only or console.legacy_windows
        self._sleep = sleep
        self._zero: float | None = None  # what the clock showed at t = 0
        self._probe: list[ev.Event] | None = None  # while the circuit is half-open: what has come of it
        self._probed_at = self._held_until = -math.inf
        self._holding = False
        self._lock = threading.RLock()  # a signal's handler may come while the main thread holds it
        self._quit = threading.Event()
        self._drawn: tuple[int, int, Picture] | None = None
        self._drawing = threading.Lock()
        self._suspended = False
        self._taken = False
        self._live = Live(
            _Whole(self),
            console=console,
            screen=True,
            auto_refresh=False,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._thread = threading.Thread(target=self._keep_drawing, name="screen", daemon=True)
        self._stderr: _Held | None = None

    def __call__(self, event: ev.Event) -> None:
        """Take in an event; it is on the screen within a twelfth of a second, or once the probe has been seen."""
        with self._lock:
            if self._zero is None:
                self._zero = self._clock() - event.t
                self._shown.start = self._time_of_day() - event.t
            self.history.apply(event)
            if self._probe is None or not isinstance(event, (*_OF_A_PROBE, *_BESIDE_IT)):
                self._take_in(event)
                return
            if isinstance(event, _BESIDE_IT):
                self._shown.apply(event)
                return
            self._probe.append(event)
            if not isinstance(event, ev.Read):
                return
            left = self._left_to_hold()
        if left > 0:
            self._sleep(left)
        with self._lock:
            self._held_until = self._clock()
            self._take_in()

    def _take_in(self, *events: ev.Event) -> None:
        """Under the lock: what was kept back of a probe, and these."""
        kept, self._probe, self._holding = self._probe or [], None, False
        for event in (*kept, *events):
            self._shown.apply(event)
        for event in events:
            if isinstance(event, ev.Transitioned) and (event.circuit, event.new) == (ev.PRIMARY, ev.HALF_OPEN):
                self._probe, self._probed_at = [], self._clock()

    def _left_to_hold(self) -> float:
        """Under the lock: for how many seconds the half-open circuit is to be seen still."""
        now = self._clock()
        if self.lost or not self._taken or now - self._held_until < _BETWEEN:
            return 0.0
        self._holding = True
        return _HOLD - (now - self._probed_at)

    def __enter__(self) -> LiveScreen:
        """Take the screen."""
        if sys.stderr is not None and sys.stderr.isatty():
            self._stderr = _Held(sys.stderr)
            sys.stderr = self._stderr
        self._control(_MARK)
        self._taken = True
        self._live.start()
        self._control(_MARK_PASTES)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Give the screen back, and leave the summary on it."""
        try:
            try:
                self._quit.set()
                self._thread.join(2.0)
            finally:  # an impatient second Ctrl-C ends the wait, and the terminal is still given back
                self._live.stop()
                self._taken = False
                self._control(_LEAVE)  # if Ctrl-Z and fg came just now, it was taken again
            if not self.lost:
                width, height = self._console.size
                kept = summary(self.history, width, height - self._below, ascii_only=self._ascii)
                for line in kept.lines:
                    self._console.print(line, soft_wrap=True)
        except (OSError, ValueError):
            self.lost = True
        finally:
            self._give_back_stderr()

    def suspend(self) -> None:
        """Show the terminal as it was before, while the process is stopped (Ctrl-Z): at any time, also before and after
        the screen is taken."""
        with self._lock:
            self._suspended = True
        drawn = self._drawing.acquire(timeout=_PATIENCE)  # a picture under way would come after
        if self._taken:
            self._control(_LEAVE)
        if drawn:
            self._drawing.release()

    def resume(self) -> None:
        """Take the screen again."""
        if self._taken:
            self._control(_TAKE)
        with self._lock:
            self._drawn = None
            self._suspended = False

    def _control(self, codes: str) -> None:
        """Past the console, which holds back what is written while it is in the middle of something else."""
        if self._console.legacy_windows:
            return
        try:
            try:
                os.write(self._console.file.fileno(), codes.encode())
            except io.UnsupportedOperation:
                self._console.file.write(codes)
        except (OSError, ValueError):
            self.lost = True

    def picture(self, width: int, height: int) -> Picture:
        """The screen at this size, now."""
        if self._drawn is not None and self._drawn[:2] == (width, height):
            return self._drawn[2]
        return self._paint(width, height)

    def _paint(self, width: int, height: int) -> Picture:
        with self._lock:
            now = None if self._zero is None or self._holding else self._clock() - self._zero
            return render(self._shown, width, height, now=now, ascii_only=self._ascii)

    def _keep_drawing(self) -> None:
        try:
            while not self._quit.wait(_REFRESH):
                self._draw()
        except (OSError, ValueError):  # the terminal is gone; ValueError is what a closed file raises
            self.lost = True

    def _draw(self) -> None:
        """Draw, if anything has changed: a still screen costs nothing and can be selected with the mouse."""
        with self._drawing:
            if self._suspended:
                return
            width, height = self._console.size
            drawn = (width, height, self._paint(width, height))
            if drawn != self._drawn:
                self._drawn = drawn
                self._live.refresh()

    def _give_back_stderr(self) -> None:
        if self._stderr is None:
            return
        if sys.stderr is self._stderr:
            sys.stderr = self._stderr.stream
        for line in self._stderr.lines:
            self._stderr.stream.write(line)
        self._stderr.stream.flush()


class _Whole:
    """The screen's picture as a renderable; drawn anew where the terminal has another size than it was drawn for."""

    def __init__(self, screen: LiveScreen) -> None:
        self._screen = screen

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        yield self._screen.picture(options.max_width, options.height or console.height)


class _Held(io.TextIOBase):
    """Keeps the last of what is written, for later. Logging and warnings would write across the picture."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.lines: deque[str] = deque(maxlen=_KEPT_LINES)

    def write(self, text: str) -> int:
        if text:
            self.lines.append(text)
        return len(text)
