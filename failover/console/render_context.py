"""What every part of the screen is drawn from and with: the run, the width, the moment; characters, styles, lines.

There is an ASCII set for terminals that have no other characters.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, RenderResult
from rich.segment import Segment
from rich.text import Text

from failover.console.run_history import RunHistory
from failover.console.run_state import Cell, RunState
from failover.demo import events as ev

WIDE = 78  # columns that block letters, or the diagram, and a column beside them need
WIDEST = 120  # the same with letters twice as large
NARROW = 40  # below this, margins and row numbers give way to what they stand beside
MARGIN = 2
ENDLESS = 1_000  # rows; no terminal has more

# Green and magenta stay apart for most eyes, and on light and dark grounds alike. No colour stands alone: the
# character, the word or the brackets beside it say the same.
CELL_STYLES = {
    Cell.PRIMARY: "green",
    Cell.SECONDARY: "magenta",
    Cell.HEDGED: "bold magenta",
    Cell.TRIED: "bold magenta",
    Cell.FAILED: "bold red",
}
STATE_STYLES = {ev.CLOSED: "bold reverse green", ev.OPEN: "bold reverse magenta", ev.HALF_OPEN: "bold reverse cyan"}
ALARM = "bold reverse red"


@dataclass(frozen=True, slots=True)
class Charset:
    """One set of characters. Each is one column wide, but for the arrows."""

    cells: dict[Cell, str]
    unread: str
    rule: str
    separator: str
    ellipsis: str
    full: str
    empty: str
    bars: str  # from the lowest to a whole line
    arrow: str
    both_ways: str
    corners: tuple[str, str, str, str]  # from the upper left, clockwise
    upright: str
    entering: str


UNICODE = Charset(
    cells={Cell.PRIMARY: "■", Cell.SECONDARY: "○", Cell.HEDGED: "◐", Cell.TRIED: "◍", Cell.FAILED: "✕"},
    unread="·",
    rule="─",
    separator="·",
    ellipsis="…",
    full="▮",
    empty="▯",
    bars="▁▂▃▄▅▆▇█",
    arrow="──▶",
    both_ways="◀──▶",
    corners=("╭", "╮", "╯", "╰"),
    upright="│",
    entering="╭▶",
)
ASCII = Charset(
    cells={Cell.PRIMARY: "#", Cell.SECONDARY: "o", Cell.HEDGED: "%", Cell.TRIED: "@", Cell.FAILED: "X"},
    unread=".",
    rule="-",
    separator="-",
    ellipsis="~",
    full="#",
    empty="-",
    bars="_.:-=+*#",
    arrow="-->",
    both_ways="<-->",
    corners=("+", "+", "+", "+"),
    upright="|",
    entering="+>",
)


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


def cut(line: Text, width: int, ellipsis: str) -> Text:
    """The line, no wider than `width` columns; what is lost is marked by the ellipsis."""
    if line.cell_len <= width:
        return line
    if width <= 1:
        return Text(ellipsis[:width])
    line = line.copy()
    line.truncate(width - 1, overflow="crop")
    return line.append(ellipsis)


def fold(text: str, width: int) -> list[str]:
    """The text in lines no wider than `width` columns, broken between words where it can be."""
    width = max(1, width)
    lines: list[str] = []
    line = ""
    for word in text.split():
        joined = f"{line} {word}" if line else word
        if cell_len(joined) <= width:
            line = joined
            continue
        if line:
            lines.append(line)
        while cell_len(word) > width:
            head = Text(word)
            head.truncate(max(width, 2), overflow="crop")
            taken = len(head.plain.rstrip()) or 1
            lines.append(word[:taken])
            word = word[taken:]
        line = word
    return [*lines, line] if line or not lines else lines


def gauge(part: int, whole: int, charset: Charset, longest: int) -> str:
    """`part` of `whole` as a row of marks: one each where there is room, else in proportion."""
    if whole <= 0 or longest <= 0:
        return ""
    length = min(whole, longest)
    done = min(length, part if whole <= longest else -(-part * length // whole))
    return charset.full * max(0, done) + charset.empty * (length - max(0, done))


def columns(values: list[tuple[float, str]], top: float, height: int, charset: Charset) -> list[Text]:
    """A column chart `height` lines high, one column for each (value, style); `top` fills it."""
    steps = len(charset.bars)
    levels = [min(height * steps, max(1, round(value / top * height * steps))) if top > 0 else 1 for value, _ in values]
    lines = []
    for row in range(height - 1, -1, -1):
        filled = [min(steps, max(0, level - row * steps)) for level in levels]
        lines.append(
            runs(
                (charset.bars[fill - 1] if fill else " ", style)
                for fill, (_, style) in zip(filled, values, strict=True)
            )
        )
    return lines


def runs(characters: Iterable[tuple[str, str]]) -> Text:
    """A line of (character, style), with one span for each run of a style: a screen of thousands draws fast."""
    line = Text()
    for style, run in groupby(characters, key=itemgetter(1)):
        line.append("".join(character for character, _ in run), style)
    return line
