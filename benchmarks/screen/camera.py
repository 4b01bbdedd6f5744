"""Runs the program on a pseudo-terminal, presses its keys, and films the screen."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.screen.picture import Film, Look, Screen

if TYPE_CHECKING:
    from tests.terminal import Terminal

COLUMNS, ROWS = 80, 24
RATE: Final = 5  # frames a second
LOOK: Final = 2.5  # seconds that a viewer needs for what a pause tells, and for the last frame
_LATE: Final = 60.0  # seconds after which a step will not come any more


def record(folder: Path, *options: str, look: float = LOOK) -> Film:
    """Run the program with these options, and film it from the first read until the circuit has closed again.

    Args:
        folder: where its log goes.
        options: the program's. They must leave it time: a pause, and then 60 reads until the next one.
        look: seconds to stay at what is to be read.
    """
    from tests.terminal import Terminal

    with Terminal(*options, folder=folder, columns=COLUMNS, rows=ROWS) as terminal:
        terminal.watched = False  # to look at each row as it comes would be too slow to keep up
        camera = _Camera(terminal)
        terminal.until("answered in")
        camera.until("Paused after")
        camera.stay(look)
        terminal.press("f")
        camera.until("is ON")
        camera.stay(look * 0.8)
        terminal.press(" ")
        camera.until("The probe failed")
        camera.stay(0.4)
        still = len(camera.shots) - 1
        terminal.press("f")
        camera.until("[ CLOSED ]")
        camera.stay(0.9)
        camera.end(look)
        terminal.press("q")
        terminal.ended()
    return camera.film(still)


@dataclass(frozen=True)
class _Shot:
    at: float  # seconds, monotonic
    screen: Screen


class _Camera:
    """Keeps each screen that was complete."""

    def __init__(self, terminal: Terminal) -> None:
        self.shots: list[_Shot] = []
        self._terminal = terminal
        self._over = 0.0

    def until(self, words: str) -> None:
        """Film until the screen shows these words."""
        self._run(lambda: words in self._terminal.screen.text)

    def stay(self, seconds: float) -> None:
        """Film for so long."""
        over = time.monotonic() + seconds
        self._run(lambda: time.monotonic() >= over)

    def end(self, seconds: float) -> None:
        """Let the last screen stand for so long."""
        self._over = self.shots[-1].at + seconds

    def film(self, still: int) -> Film:
        """What was filmed; `still` is the shot for who wants no motion."""
        first = self.shots[0].at
        frames: list[int] = []
        shown = 0
        for n in range(int((self._over - first) * RATE)):
            while shown + 1 < len(self.shots) and self.shots[shown + 1].at <= first + n / RATE:
                shown += 1
            frames.append(shown)
        return Film(RATE, [self.shots[n].screen for n in frames], self.shots[still].screen)

    def _run(self, done: Callable[[], bool]) -> None:
        late = time.monotonic() + _LATE
        while True:
            more = self._terminal.read()
            screen = self._terminal.screen
            # The program draws from the upper left to the lower right, always all of it.
            complete = screen.alternate and (screen.cursor.y, screen.cursor.x) == (screen.lines - 1, screen.columns)
            if complete:
                shot = photograph(self._terminal)
                if not self.shots or shot != self.shots[-1].screen:
                    self.shots.append(_Shot(time.monotonic(), shot))
                if done():
                    return
            if not more or time.monotonic() > late:
                raise RuntimeError(f"the program did not come so far:\n{screen.text}")


def photograph(terminal: Terminal) -> Screen:
    """The screen as it is now."""
    screen = terminal.screen
    rows = []
    for y in range(screen.lines):
        cells = [screen.buffer[y][x] for x in range(screen.columns)]
        looks = [(each.data, Look(each.fg, each.bold, each.italics, each.reverse)) for each in cells]
        runs = groupby(looks, key=lambda cell: cell[1])
        rows.append(tuple(("".join(character for character, _ in run), look) for look, run in runs))
    return tuple(rows)
