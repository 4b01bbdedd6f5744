"""What every section of the screen is drawn from, and the lines of text that come of it."""

from __future__ import annotations

from dataclasses import dataclass

from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.text import Text

from failover.console.charset import Charset
from failover.console.run_history import RunHistory
from failover.console.run_state import RunState

WIDE = 78  # columns that block letters, or the diagram, and a column beside them need
WIDEST = 120  # the same with letters twice as large
NARROW = 40  # below this, margins and row numbers give way to what they stand beside
MARGIN = 2
ENDLESS = 1_000  # rows; no terminal has more


@dataclass(frozen=True, slots=True)
class RenderContext:
    """One picture to be drawn, `width` columns wide, of the moment `now` seconds after the start."""

    history: RunHistory
    width: int
    now: float
    charset: Charset

    @property
    def run(self) -> RunState:
        """What is true of the run at this moment."""
        return self.history.run

    @property
    def margin(self) -> str:
        """The blank columns at the left; none on a narrow screen."""
        return "" if self.width < NARROW else " " * MARGIN


@dataclass(frozen=True)
class Picture:
    """Lines of text, drawn as they stand: never wrapped, and nothing after the last one that would scroll."""

    lines: tuple[Text, ...]

    @property
    def plain(self) -> str:
        """The picture without its styles."""
        return "\n".join(line.plain for line in self.lines)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draw the lines one by one; as one long text they would cost several times as much."""
        for index, line in enumerate(self.lines):
            if index:
                yield Segment.line()
            if line.spans:
                yield from line.render(console)
            else:  # which forgets the style of a line that has but one
                yield Segment(line.plain, console.get_style(line.style))
