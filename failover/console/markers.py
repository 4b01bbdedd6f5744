"""What the picture is drawn with: its measures, its colours, and a mark for each way in which a read can end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from failover.console import svg
from failover.console.view import Cell
from failover.demo import events as ev

WIDTH: Final = 900.0
EDGE, LEFT, RIGHT = 24.0, 76.0, 876.0  # the margin, and where what goes by reads begins and ends
SMALL: Final = 12.0  # the font's size

GROUND: Final = "#0d1117"
STYLE: Final = (
    f"text{{font:{SMALL:g}px {svg.FONTS};fill:#c9d1d9}}"
    ".h{font-size:26px;font-weight:700;fill:#f0f6fc}.b{font-weight:700;fill:#f0f6fc}.m{font-size:13px}"
    ".d{fill:#8b949e}.r{text-anchor:end}.c{text-anchor:middle}.bad{fill:#ff7b72;font-weight:700}"
    ".good{fill:#3fb950;font-weight:700}.on{fill:#0d1117;font-weight:700}.g{fill:none;stroke:#30363d}"
    ".closed{fill:#3fb950}.open{fill:#e083f0}.half{fill:#39c5cf}.alarm{fill:#f85149}.shade{fill:#f85149;opacity:.13}"
    ".p{fill:none;stroke:#3fb950}.s,.t{fill:none;stroke:#e083f0;stroke-linecap:round}.x{fill:none;stroke:#ff7b72}"
    f".o{{fill:none;stroke:{GROUND};stroke-linecap:round}}.cut{{fill:none;stroke:{GROUND}}}"
)
STATES: Final = {ev.CLOSED: "closed", ev.OPEN: "open", ev.HALF_OPEN: "half"}  # classes, as in STYLE
MARKERS: Final = {Cell.PRIMARY: "p", Cell.SECONDARY: "s", Cell.HEDGED: "t", Cell.TRIED: "t", Cell.FAILED: "x"}


def markers(cell: Cell, places: list[tuple[float, float]], pitch: float) -> Iterator[str]:
    """All marks of one kind: squares, rings, discs and crosses, told apart without their colours."""
    size, style = 0.74 * pitch, MARKERS[cell]
    if not places:
        return
    starts = [f"M{svg.number(x - size / 2)} {svg.number(y)}" for x, y in places]
    half, whole = svg.number(size / 2), svg.number(size)
    if cell is Cell.PRIMARY:
        yield svg.path([f"{start}h{whole}" for start in starts], style, stroke_width=size)
    elif cell is Cell.FAILED:
        cross = f"m0-{half}l{whole} {whole}m0-{whole}l-{whole} {whole}"
        yield svg.path([start + cross for start in starts], style, stroke_width=2)
    else:
        dots = [f"M{svg.number(x)} {svg.number(y)}h.01" for x, y in places]  # as round as their line's ends
        yield svg.path(dots, style, stroke_width=size if cell is Cell.SECONDARY else 1.1 * size)
        if cell is Cell.SECONDARY:
            yield svg.path(dots, "o", stroke_width=0.42 * size)
        elif cell is Cell.HEDGED:  # a disc in two halves
            slits = [f"M{svg.number(x)} {svg.number(y - size / 2)}v{whole}" for x, y in places]
            yield svg.path(slits, "cut", stroke_width=0.2 * size)
