"""The picture of a run as SVG: a function of its history and of nothing else. It loads nothing, not even a font."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from failover.console import headline, narrator, svg
from failover.console.charset import fold
from failover.console.event_log import Entry, moment, more
from failover.console.layout import row_width, stretches
from failover.console.markers import EDGE, GROUND, LEFT, RIGHT, SMALL, STYLE, WIDTH, markers
from failover.console.run_history import RunHistory
from failover.console.timeline import timeline
from failover.console.view import Cell, cells_of

_WIDE: Final = 100  # cells in a row at most
_FEW: Final = 300  # cells that may be larger, where a row has fewer
_EVENTS, _LINES = 14, 3  # at most, and of each
_Mark = Callable[[float, float], str]


def picture(history: RunHistory) -> str:
    """The run as an SVG document of bounded size, however long it was."""
    parts, y = [], 28.0
    for section in (_head, _strip, _legend, timeline, _news, _foot):
        drawn, y = section(history, y)
        parts.append(drawn)
    ground = svg.rect(0.5, 0.5, WIDTH - 1, y - 1, fill=GROUND, stroke="#30363d", rx=8.0)
    title = f"RA-GRS failover: {headline.headline(history)}"
    described = f"{headline.headline(history)}. {' '.join(headline.outcome(history))} {headline.latency(history)}"
    return svg.document(WIDTH, y, title, described, STYLE, [ground, *parts])


def _head(history: RunHistory, y: float) -> tuple[str, float]:
    """How the run came out, before all that shows why."""
    room = svg.columns(RIGHT - EDGE, SMALL)
    account = _short(headline.account(history), room - 38)
    many, _, answered = headline.headline(history).partition(", ")
    parts = [
        svg.spans(EDGE, y, [("RA-GRS failover", "b"), (f" · {account}", "d")]),
        svg.path([f"M{EDGE:g} {y + 13:g}H{RIGHT:g}"], "g"),
        svg.spans(
            EDGE, y + 49, [(many, ""), (f", {answered}" if answered else "", "bad" if history.failed else "good")], "h"
        ),
    ]
    if history.start is not None:
        parts.append(svg.text(RIGHT, y, time.strftime("%Y-%m-%d %H:%M", time.localtime(history.start)), "d r"))
    y += 55
    told = [(line, 13.0, "m") for line in headline.outcome(history)] + [(headline.latency(history), SMALL, "d")]
    for sentence, size, style in told:
        for line in fold(sentence, svg.columns(RIGHT - EDGE, size)):
            y += size + 7
            parts.append(svg.text(EDGE, y, line, style))
    return svg.group(parts, "head"), y + 22


def _strip(history: RunHistory, y: float) -> tuple[str, float]:
    """A cell for each read, or where there are too many for each few of them."""
    groups = history.groups
    every = history.settings.pause_every if history.settings and history.per == 1 else 0
    width = row_width(len(groups), every, _WIDE)
    pitch = (RIGHT - LEFT) / (max(width, _WIDE // 2) if len(groups) <= _FEW else _WIDE)
    parts, rows = [], -(-len(groups) // width)
    places: dict[Cell, list[tuple[float, float]]] = {cell: [] for cell in Cell}
    for index, group in enumerate(groups):
        row, column = divmod(index, width)
        places[group.cell].append((LEFT + (column + 0.5) * pitch, y + (row + 0.5) * (pitch + 5)))
    for row in range(rows):
        first = row * width
        parts.append(svg.text(LEFT - 10, y + (row + 0.5) * (pitch + 5) + 4, f"{first * history.per + 1:,}", "d r"))
        for fault, start, end in stretches(groups[first : first + width], lambda group: group.fault):
            below = y + row * (pitch + 5) + pitch + 3.5
            if fault:
                parts.append(svg.rect(LEFT + start * pitch, below - 1, (end - start) * pitch, 2.0, "alarm"))
    parts += [mark for cell in Cell for mark in markers(cell, places[cell], pitch)]
    return svg.group(parts, "strip"), y + rows * (pitch + 5) + (10 if rows else 0)


def _legend(history: RunHistory, y: float) -> tuple[str, float]:
    """What the marks mean, and how many there are of each; below it what else is drawn."""
    kind = narrator.clean(history.settings.fault, 20) if history.settings else ""
    first = [(_mark_of(cell), f"{history.counts[cell]:,} {cell.value}") for cell in cells_of(history.settings)]
    second: list[tuple[_Mark, str]] = []
    if any(group.fault for group in history.groups):
        second.append((_fault_mark, f"fault {kind} is on"))
    if history.probes:
        one = history.probes == 1
        second.append((_probe_mark, f"{history.probes:,} {'probe' if one else 'probes'} while half-open"))
    if history.per > 1:
        second.append((lambda _x, _y: "", f"each mark stands for {history.per:,} reads and shows the worst of them"))
    parts: list[str] = []
    for line in (first, second):
        x, y = LEFT, y + (8 if line is first else 20 if line else 0)
        for mark, name in line:
            wide = 18 + len(name) * SMALL * svg.ADVANCE
            if x + wide > RIGHT and x > LEFT:
                x, y = LEFT, y + 20
            bad = "bad" if history.failed and (mark, name) == first[-1] else ""
            parts += [mark(x, y), svg.text(x + 18, y + 4, name, bad)]
            x += wide + 16
    return svg.group(parts, "legend"), y + 24


def _mark_of(cell: Cell) -> _Mark:
    return lambda x, y: "".join(markers(cell, [(x + 6, y)], 11))


def _fault_mark(x: float, y: float) -> str:
    return svg.rect(x, y, 12.0, 2.0, "alarm")


def _probe_mark(x: float, y: float) -> str:
    cut = svg.rect(x + 5.2, y - 5, 1.6, 10.0, fill=GROUND)
    return svg.rect(x, y - 5, 12.0, 10.0, "open") + cut


def _news(history: RunHistory, y: float) -> tuple[str, float]:
    """What happened, when, and at which read."""
    first, omitted, last = history.log.chosen(_EVENTS)
    which = max([len(each.which) for each in [*first, *last]], default=0)
    at = LEFT + (which + 2) * SMALL * svg.ADVANCE if which else LEFT
    room, parts = svg.columns(RIGHT - at, SMALL), [svg.path([f"M{EDGE:g} {y:g}H{RIGHT:g}"], "g")]
    y += 24
    if which:
        parts += [svg.text(LEFT - 10, y, "time", "d r"), svg.text(LEFT, y, "read", "d")]
        y += 19
    entries: list[Entry | None] = [*first, *([None] if omitted else []), *last]
    for entry in entries:
        if entry is None:
            parts.append(svg.text(at, y, f"… {more(omitted)} …", "d"))
            y += 19
            continue
        parts.append(svg.text(LEFT - 10, y, moment(entry.t), "d r"))
        parts.append(svg.text(LEFT, y, entry.which, "d"))
        lines = fold(entry.text, room)
        for line in lines if len(lines) <= _LINES else [*lines[: _LINES - 1], f"{lines[_LINES - 1][: room - 2]} …"]:
            parts.append(svg.text(at, y, line, "bad" if entry.bad else ""))
            y += 17
        y += 2
    return svg.group(parts, "events"), y


def _foot(history: RunHistory, y: float) -> tuple[str, float]:
    return svg.group([svg.text(EDGE, y + 12, headline.rules(history), "d")], "foot"), y + 30


def _short(told: str, width: int) -> str:
    return told if len(told) <= width else f"{told[: max(1, width) - 1]}…"
