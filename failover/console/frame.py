"""The picture of a run: `render(history, width, height)` is a function of its arguments and of nothing else.

The screen is a stack of sections. Which of them are there, and how high, is decided by one table (`_STEPS`):
the rows of the terminal are dealt out in its order until none is left.
"""

from __future__ import annotations

from collections.abc import Callable

from rich.text import Text

from failover.console.footer import box, box_rows, footer, news
from failover.console.header import circuit, circuit_rows, rule, title, word, word_rows
from failover.console.reads import counts, latency, legend, strip, strip_rows
from failover.console.render_context import ASCII, ENDLESS, UNICODE, Picture, RenderContext, cut
from failover.console.run_history import RunHistory

_Draw = Callable[[RenderContext, int], list[Text]]


def _blank(_context: RenderContext, _rows: int) -> list[Text]:
    return []


# From top to bottom. A section asked for n lines returns n or fewer, and the rest stays blank; a line may be too wide.
_SECTIONS: dict[str, _Draw] = {
    "title": title,
    "rule": rule,
    "gap 1": _blank,
    "word": word,
    "gap 2": _blank,
    "circuit": circuit,
    "gap 3": _blank,
    "strip": strip,
    "legend": legend,
    "gap 4": _blank,
    "latency": latency,
    "gap 5": _blank,
    "counts": counts,
    "gap 6": _blank,
    "news": news,
    "gap 7": _blank,
    "box": box,
    "fill": _blank,
    "rule 2": rule,
    "footer": footer,
}
# Who gets rows first: a section, and the height that it grows to in this step.
_STEPS = (
    ("word", 1), ("circuit", 1), ("box", 1), ("footer", 1), ("strip", 1), ("counts", 1), ("box", 12), ("news", 1),
    ("title", 1), ("word", 2), ("circuit", 2), ("strip", 2), ("rule 2", 1), ("rule", 1), ("legend", 1), ("word", 3),
    ("strip", 4), ("latency", 1), ("gap 2", 1), ("gap 6", 1), ("gap 3", 1), ("gap 1", 1), ("news", 4),
    ("gap 4", 1), ("word", 5), ("latency", 3), ("strip", 10), ("gap 5", 1), ("gap 7", 1), ("news", 8), ("latency", 5),
    ("strip", 20), ("news", 14), ("strip", 40), ("news", 24), ("strip", ENDLESS), ("fill", ENDLESS),
)  # fmt: skip
_BOX = 6  # rows of the box at the end of a round; where it takes the news' place, nothing else is to move
_SHORT, _TALL = 24, 30  # rows that a pause's box and the news before it have room on together


def render(
    history: RunHistory, width: int, height: int, *, now: float | None = None, ascii_only: bool = False
) -> Picture:
    """The screen as exactly `height` lines of at most `width` columns (both at least 1).

    `now` is the time in seconds since the start of the run, for what goes on between two events; without it, time
    stands still at the last event. `ascii_only` is for terminals whose encoding has nothing else.
    """
    width, height = max(1, width), max(1, height)
    context = RenderContext(history, width, history.run.t if now is None else now, ASCII if ascii_only else UNICODE)
    lines: list[Text] = []
    for name, rows in _deal(context, height).items():
        drawn = _SECTIONS[name](context, rows)[:rows] if rows else []
        lines += drawn + [Text()] * (rows - len(drawn))
    return Picture(tuple(cut(line, width, context.charset.ellipsis) for line in lines))


def _deal(context: RenderContext, height: int) -> dict[str, int]:
    """How many of the `height` rows each section gets, from top to bottom."""
    paused = box_rows(context)
    most = {
        "box": paused,
        "gap 7": min(1, paused),
        "circuit": circuit_rows(context),
        "strip": strip_rows(context),
        "latency": 5,
        "news": 0 if paused and height < _TALL else ENDLESS,
        "fill": ENDLESS,
    }
    heights = word_rows(context)
    rows = dict.fromkeys(_SECTIONS, 0)
    held = _BOX if not paused and _SHORT <= height < _TALL else 0
    most["news"] = 0 if held else most["news"]
    free = height - held
    for name, target in _STEPS:
        more = min(target, most.get(name, target)) - rows[name]
        if name == "word" and (target not in heights or more > free):
            continue  # letters are whole or not at all
        more = min(more, free)
        if more > 0:
            rows[name] += more
            free -= more
    rows["news"] += held
    return rows
