"""What every section of the screen is drawn from: the view, the width, the moment, and the characters to be used."""

from __future__ import annotations

from dataclasses import dataclass

from failover.console.charset import Charset
from failover.console.view import View

WIDE = 78  # columns that block letters, or the diagram, and a column beside them need
WIDEST = 120  # the same with letters twice as large
NARROW = 40  # below this, margins and row numbers give way to what they stand beside
MARGIN = 2
ENDLESS = 1_000  # rows; no terminal has more


@dataclass(frozen=True, slots=True)
class RenderContext:
    """One picture to be drawn, `width` columns wide, of the moment `now` seconds after the start."""

    view: View
    width: int
    now: float
    charset: Charset

    @property
    def margin(self) -> str:
        """The blank columns at the left; none on a narrow screen."""
        return "" if self.width < NARROW else " " * MARGIN
