"""`--report`: the run as a picture, and that in a file which is whole or not there at all.

The picture is SVG, a function of the history and of nothing else. It loads nothing, not even a font.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final, TypeVar

from failover.console import svg
from failover.console.event_log import Entry
from failover.console.layout import Scale, read_ticks, row_width, stretches
from failover.console.narrator import more_events
from failover.console.render_context import fold
from failover.console.run_history import Group, RunHistory
from failover.console.run_state import Cell
from failover.console.sinks import tell_stderr
from failover.console.summary import account, headline, latency, results, rules
from failover.console.wording import clean, moment
from failover.demo import events as ev

_WIDTH: Final = 900.0
_EDGE, _LEFT, _RIGHT = 24.0, 76.0, 876.0  # the margin, and where what goes by reads begins and ends
_SMALL: Final = 12.0  # the font's size

_GROUND: Final = "#0d1117"
_STYLE: Final = (
    f"text{{font:{_SMALL:g}px {svg.FONTS};fill:#c9d1d9}}"
    ".h{font-size:26px;font-weight:700;fill:#f0f6fc}.b{font-weight:700;fill:#f0f6fc}.m{font-size:13px}"
    ".d{fill:#8b949e}.r{text-anchor:end}.c{text-anchor:middle}.bad{fill:#ff7b72;font-weight:700}"
    ".good{fill:#3fb950;font-weight:700}.on{fill:#0d1117;font-weight:700}.g{fill:none;stroke:#30363d}"
    ".closed{fill:#3fb950}.open{fill:#e083f0}.half{fill:#39c5cf}.alarm{fill:#f85149}.shade{fill:#f85149;opacity:.13}"
    ".p{fill:none;stroke:#3fb950}.s,.t{fill:none;stroke:#e083f0;stroke-linecap:round}.x{fill:none;stroke:#ff7b72}"
    f".o{{fill:none;stroke:{_GROUND};stroke-linecap:round}}.cut{{fill:none;stroke:{_GROUND}}}"
)
_STATES: Final = {ev.CLOSED: "closed", ev.OPEN: "open", ev.HALF_OPEN: "half"}  # classes, as in _STYLE
_MARKERS: Final = {Cell.PRIMARY: "p", Cell.SECONDARY: "s", Cell.HEDGED: "t", Cell.TRIED: "t", Cell.FAILED: "x"}

_WIDE: Final = 100  # cells in a row at most
_FEW: Final = 300  # cells that may be larger, where a row has fewer
_EVENTS, _LINES = 14, 3  # at most, and of each
_LANE, _CHART = 14.0, 100.0  # heights
_Marker = Callable[[float, float], str]
_Shared = TypeVar("_Shared")


def picture(history: RunHistory) -> str:
    """The run as an SVG document of bounded size, however long it was."""
    parts, y = [], 28.0
    for section in (_head, _strip, _legend, _timeline, _news, _foot):
        drawn, y = section(history, y)
        parts.append(drawn)
    ground = svg.rect(0.5, 0.5, _WIDTH - 1, y - 1, fill=_GROUND, stroke="#30363d", rx=8.0)
    title = f"RA-GRS failover: {headline(history)}"
    described = f"{headline(history)}. {' '.join(results(history))} {latency(history)}"
    return svg.document(_WIDTH, y, title, described, _STYLE, [ground, *parts])


def _head(history: RunHistory, y: float) -> tuple[str, float]:
    """How the run came out, before all that shows why."""
    room = svg.columns(_RIGHT - _EDGE, _SMALL)
    which = _short(account(history), room - 38)
    many, _, answered = headline(history).partition(", ")
    parts = [
        svg.spans(_EDGE, y, [("RA-GRS failover", "b"), (f" · {which}", "d")]),
        svg.path([f"M{_EDGE:g} {y + 13:g}H{_RIGHT:g}"], "g"),
        svg.spans(
            _EDGE, y + 49, [(many, ""), (f", {answered}" if answered else "", "bad" if history.failed else "good")], "h"
        ),
    ]
    if history.start is not None:
        parts.append(svg.text(_RIGHT, y, time.strftime("%Y-%m-%d %H:%M", time.localtime(history.start)), "d r"))
    y += 55
    told = [(line, 13.0, "m") for line in results(history)] + [(latency(history), _SMALL, "d")]
    for sentence, size, style in told:
        for line in fold(sentence, svg.columns(_RIGHT - _EDGE, size)):
            y += size + 7
            parts.append(svg.text(_EDGE, y, line, style))
    return svg.group(parts, "head"), y + 22


def _strip(history: RunHistory, y: float) -> tuple[str, float]:
    """A cell for each read, or where there are too many for each few of them."""
    groups = history.groups
    every = history.settings.pause_every if history.settings and history.per == 1 else 0
    width = row_width(len(groups), every, _WIDE)
    pitch = (_RIGHT - _LEFT) / (max(width, _WIDE // 2) if len(groups) <= _FEW else _WIDE)
    parts, rows = [], -(-len(groups) // width)
    places: dict[Cell, list[tuple[float, float]]] = {cell: [] for cell in Cell}
    for index, group in enumerate(groups):
        row, column = divmod(index, width)
        places[group.cell].append((_LEFT + (column + 0.5) * pitch, y + (row + 0.5) * (pitch + 5)))
    for row in range(rows):
        first = row * width
        parts.append(svg.text(_LEFT - 10, y + (row + 0.5) * (pitch + 5) + 4, f"{first * history.per + 1:,}", "d r"))
        for fault, start, end in stretches(groups[first : first + width], lambda group: group.fault):
            below = y + row * (pitch + 5) + pitch + 3.5
            if fault:
                parts.append(svg.rect(_LEFT + start * pitch, below - 1, (end - start) * pitch, 2.0, "alarm"))
    parts += [mark for cell in Cell for mark in _markers(cell, places[cell], pitch)]
    return svg.group(parts, "strip"), y + rows * (pitch + 5) + (10 if rows else 0)


def _legend(history: RunHistory, y: float) -> tuple[str, float]:
    """What the marks mean, and how many there are of each; below it what else is drawn."""
    kind = clean(history.settings.fault, 20) if history.settings else ""
    first = [(_marker_of(cell), f"{history.counts[cell]:,} {cell.value}") for cell in history.run.cells()]
    second: list[tuple[_Marker, str]] = []
    if any(group.fault for group in history.groups):
        second.append((_fault_marker, f"fault {kind} is on"))
    if history.probes:
        one = history.probes == 1
        second.append((_probe_marker, f"{history.probes:,} {'probe' if one else 'probes'} while half-open"))
    if history.per > 1:
        second.append((lambda _x, _y: "", f"each mark stands for {history.per:,} reads and shows the worst of them"))
    parts: list[str] = []
    for line in (first, second):
        x, y = _LEFT, y + (8 if line is first else 20 if line else 0)
        for mark, name in line:
            wide = 18 + len(name) * _SMALL * svg.ADVANCE
            if x + wide > _RIGHT and x > _LEFT:
                x, y = _LEFT, y + 20
            bad = "bad" if history.failed and (mark, name) == first[-1] else ""
            parts += [mark(x, y), svg.text(x + 18, y + 4, name, bad)]
            x += wide + 16
    return svg.group(parts, "legend"), y + 24


def _marker_of(cell: Cell) -> _Marker:
    return lambda x, y: "".join(_markers(cell, [(x + 6, y)], 11))


def _fault_marker(x: float, y: float) -> str:
    return svg.rect(x, y, 12.0, 2.0, "alarm")


def _probe_marker(x: float, y: float) -> str:
    cut = svg.rect(x + 5.2, y - 5, 1.6, 10.0, fill=_GROUND)
    return svg.rect(x, y - 5, 12.0, 10.0, "open") + cut


def _markers(cell: Cell, places: list[tuple[float, float]], pitch: float) -> Iterator[str]:
    """All marks of one kind: squares, rings, discs and crosses, told apart without their colours."""
    size, style = 0.74 * pitch, _MARKERS[cell]
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


def _timeline(history: RunHistory, y: float) -> tuple[str, float]:
    """From the first read to the last: when the fault was on, where the circuit was, how long each read took."""
    groups = history.groups
    if not groups:
        return "", y
    step = (_RIGHT - _LEFT) * history.per / history.reads
    faults = [(left, wide) for on, left, wide in _spans(groups, step, lambda group: group.fault) if on]
    circuit = y + (_LANE + 5 if faults else 0)
    chart = circuit + _LANE + 24
    bottom = chart + _CHART
    parts, labels = [svg.text(_LEFT - 10, circuit + 11, "circuit", "d r")], []
    if faults:
        parts.append(svg.text(_LEFT - 10, y + 11, "fault", "d r"))
        parts += [_boxes(faults, y, bottom - y, "shade"), _boxes(faults, y, _LANE, "alarm")]
        told = f"{clean(history.settings.fault, 20)} is on" if history.settings else ""
        labels += [each for left, wide in faults for each in _label(left, y, wide, told, "alarm")]
    by_state: dict[str, list[tuple[float, float]]] = {state: [] for state in _STATES}
    for state, left, wide in _spans(groups, step, lambda group: group.state):
        by_state[state].append((left, wide))
        labels += _label(left, circuit, wide, state if state == ev.CLOSED else state.upper(), _STATES[state])
    parts += [
        _boxes(spans, circuit + (12 if state == ev.CLOSED else 0), 1 if state == ev.CLOSED else _LANE, _STATES[state])
        for state, spans in by_state.items()
    ]
    cuts = [_LEFT + (i + 0.5) * step for i, group in enumerate(groups) if group.probed]
    lines = svg.path([f"M{svg.number(at)} {svg.number(circuit)}v{_LANE:g}" for at in cuts], "cut")
    parts.append(svg.group([lines], "probes", stroke_width=min(1.5, 300 / len(cuts))) if cuts else "")
    parts += [*labels, *_chart(groups, history.reads, step, chart)]
    return svg.group(parts, "timeline"), bottom + 42


def _spans(groups: list[Group], step: float, of: Callable[[Group], _Shared]) -> Iterator[tuple[_Shared, float, float]]:
    """What neighbours share, with where that begins and how wide it is."""
    for shared, start, end in stretches(groups, of):
        left = _LEFT + start * step
        yield shared, left, max(0.6, min(_RIGHT, _LEFT + end * step) - left)


def _boxes(spans: list[tuple[float, float]], y: float, height: float, style: str) -> str:
    """All boxes of one kind, as one path."""
    high = svg.number(height)
    return svg.path(
        [f"M{svg.number(x)} {svg.number(y)}h{svg.number(wide)}v{high}h-{svg.number(wide)}z" for x, wide in spans], style
    )


def _label(x: float, y: float, width: float, told: str, style: str) -> Iterator[str]:
    """The name of a stretch of a lane, in it, where there is room. It covers the cuts that probes make."""
    long, solid = len(told) * _SMALL * svg.ADVANCE, style != _STATES[ev.CLOSED]
    if long + 10 <= width:
        if solid:
            yield svg.rect(x, y, long + 9, _LANE, style)
        yield svg.text(x + 6, y + (11 if solid else 9), told, "on" if solid else "")


def _chart(groups: list[Group], reads: int, step: float, y: float) -> list[str]:
    scale, bottom = Scale([group.ms for group in groups]), y + _CHART
    parts = [svg.text(_LEFT - 10, bottom + 18, "read", "d r"), svg.text(_LEFT - 10, y - 11, "ms", "d r")]
    for tick in scale.ticks():
        at = bottom - scale(tick) * _CHART
        parts.append(svg.path([f"M{svg.number(_LEFT)} {svg.number(at)}H{svg.number(_RIGHT)}"], "g"))
        parts.append(svg.text(_LEFT - 10, at + 4, f"{tick:,g}", "d r"))
    for cell in Cell:
        spots = [(_LEFT + (i + 0.5) * step, bottom - scale(each.ms) * _CHART) for i, each in enumerate(groups)
                 if each.cell is cell]  # fmt: skip
        if cell in (Cell.HEDGED, Cell.TRIED, Cell.FAILED):
            parts += list(_markers(cell, spots, min(9.0, max(6.0, step))))
        elif spots:
            drawn = "".join(f"M{svg.number(min(px, _RIGHT - 1))} {svg.number(py)}h.01" for px, py in spots)
            wide = min(5.0, max(2.2, 0.35 * step))
            parts.append(svg.path([drawn], _MARKERS[cell], stroke_width=wide, stroke_linecap="round"))
    for n, _ in read_ticks(reads, svg.columns(_RIGHT - _LEFT, _SMALL)):
        at = _LEFT + (n - 0.5) / reads * (_RIGHT - _LEFT)
        parts.append(svg.text(at, bottom + 18, f"{n:,}", "d" if n == 1 else "d c" if n < reads else "d r"))
    return parts


def _news(history: RunHistory, y: float) -> tuple[str, float]:
    """What happened, when, and at which read."""
    first, omitted, last = history.log.chosen(_EVENTS)
    which = max([len(each.which) for each in [*first, *last]], default=0)
    at = _LEFT + (which + 2) * _SMALL * svg.ADVANCE if which else _LEFT
    room, parts = svg.columns(_RIGHT - at, _SMALL), [svg.path([f"M{_EDGE:g} {y:g}H{_RIGHT:g}"], "g")]
    y += 24
    if which:
        parts += [svg.text(_LEFT - 10, y, "time", "d r"), svg.text(_LEFT, y, "read", "d")]
        y += 19
    entries: list[Entry | None] = [*first, *([None] if omitted else []), *last]
    for entry in entries:
        if entry is None:
            parts.append(svg.text(at, y, f"… {more_events(omitted)} …", "d"))
            y += 19
            continue
        parts.append(svg.text(_LEFT - 10, y, moment(entry.t), "d r"))
        parts.append(svg.text(_LEFT, y, entry.which, "d"))
        lines = fold(entry.text, room)
        for line in lines if len(lines) <= _LINES else [*lines[: _LINES - 1], f"{lines[_LINES - 1][: room - 2]} …"]:
            parts.append(svg.text(at, y, line, "bad" if entry.bad else ""))
            y += 17
        y += 2
    return svg.group(parts, "events"), y


def _foot(history: RunHistory, y: float) -> tuple[str, float]:
    return svg.group([svg.text(_EDGE, y + 12, rules(history), "d")], "foot"), y + 30


def _short(told: str, width: int) -> str:
    return told if len(told) <= width else f"{told[: max(1, width) - 1]}…"


class Report:
    """A sink whose context, when it ends, writes the picture of the run so far to `file`.

    Raises `OSError` at once where it cannot be written. What is in the file stays there until the new picture is
    complete; a disk that is full by then is told on stderr and changes nothing else. A run that an error ended
    before its first read leaves no picture.
    """

    def __init__(self, file: Path, *, time_of_day: Callable[[], float] = time.time) -> None:
        """Write to `file`. `time_of_day` in seconds since the epoch."""
        self.history = RunHistory()
        self.written = False
        self._file = file
        self._time_of_day = time_of_day
        self._replaced = _is_replaceable(file)
        if self._replaced:
            beside = self._beside()
            beside.touch(exist_ok=False)
            beside.unlink()

    def __call__(self, event: ev.Event) -> None:
        """Take in what happened."""
        if self.history.start is None:
            self.history.start = self._time_of_day() - event.t
        self.history.apply(event)

    def __enter__(self) -> Report:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not self.history.reads:
            return
        try:
            self._write(picture(self.history).encode())
            self.written = True
        except OSError as problem:
            why = problem.strerror or type(problem).__name__
            tell_stderr(f"--report {clean(str(self._file))} could not be written: {why}.")

    def _write(self, drawn: bytes) -> None:
        if not self._replaced:
            self._file.write_bytes(drawn)
            return
        beside = self._beside()
        try:
            beside.write_bytes(drawn)
            with suppress(OSError):
                shutil.copymode(self._file, beside)
            beside.replace(os.path.realpath(self._file))  # a link stays one
        except OSError:
            with suppress(OSError):
                beside.unlink()
            raise

    def _beside(self) -> Path:
        return Path(os.path.realpath(self._file)).with_name(f".report-{secrets.token_hex(6)}.tmp")


def _is_replaceable(file: Path) -> bool:
    """Whether a new file may take its place; a device or a pipe stays one. Raises `OSError` if neither can be."""
    try:
        mode = file.stat().st_mode
    except FileNotFoundError:
        return True
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not os.access(file, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return stat.S_ISREG(mode)
