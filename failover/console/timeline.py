"""Fault, circuit and latency from the first read to the last, one below the other: a part of the picture."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from failover.console import narrator, svg
from failover.console.layout import Scale, read_ticks, stretches
from failover.console.markers import LEFT, MARKERS, RIGHT, SMALL, STATES, markers
from failover.console.run_history import Group, RunHistory
from failover.console.view import Cell
from failover.demo import events as ev

_LANE, _CHART = 14.0, 100.0  # heights
_Shared = TypeVar("_Shared")


def timeline(history: RunHistory, y: float) -> tuple[str, float]:
    """From the first read to the last: when the fault was on, where the circuit was, how long each read took."""
    groups = history.groups
    if not groups:
        return "", y
    step = (RIGHT - LEFT) * history.per / history.reads
    faults = [(left, wide) for on, left, wide in _spans(groups, step, lambda group: group.fault) if on]
    circuit = y + (_LANE + 5 if faults else 0)
    chart = circuit + _LANE + 24
    bottom = chart + _CHART
    parts, labels = [svg.text(LEFT - 10, circuit + 11, "circuit", "d r")], []
    if faults:
        parts.append(svg.text(LEFT - 10, y + 11, "fault", "d r"))
        parts += [_boxes(faults, y, bottom - y, "shade"), _boxes(faults, y, _LANE, "alarm")]
        told = f"{narrator.clean(history.settings.fault, 20)} is on" if history.settings else ""
        labels += [each for left, wide in faults for each in _label(left, y, wide, told, "alarm")]
    by_state: dict[str, list[tuple[float, float]]] = {state: [] for state in STATES}
    for state, left, wide in _spans(groups, step, lambda group: group.state):
        by_state[state].append((left, wide))
        labels += _label(left, circuit, wide, state if state == ev.CLOSED else state.upper(), STATES[state])
    parts += [
        _boxes(spans, circuit + (12 if state == ev.CLOSED else 0), 1 if state == ev.CLOSED else _LANE, STATES[state])
        for state, spans in by_state.items()
    ]
    cuts = [LEFT + (i + 0.5) * step for i, group in enumerate(groups) if group.probed]
    lines = svg.path([f"M{svg.number(at)} {svg.number(circuit)}v{_LANE:g}" for at in cuts], "cut")
    parts.append(svg.group([lines], "probes", stroke_width=min(1.5, 300 / len(cuts))) if cuts else "")
    parts += [*labels, *_chart(groups, history.reads, step, chart)]
    return svg.group(parts, "timeline"), bottom + 42


def _spans(groups: list[Group], step: float, of: Callable[[Group], _Shared]) -> Iterator[tuple[_Shared, float, float]]:
    """What neighbours share, with where that begins and how wide it is."""
    for shared, start, end in stretches(groups, of):
        left = LEFT + start * step
        yield shared, left, max(0.6, min(RIGHT, LEFT + end * step) - left)


def _boxes(spans: list[tuple[float, float]], y: float, height: float, style: str) -> str:
    """All boxes of one kind, as one path."""
    high = svg.number(height)
    return svg.path(
        [f"M{svg.number(x)} {svg.number(y)}h{svg.number(wide)}v{high}h-{svg.number(wide)}z" for x, wide in spans], style
    )


def _label(x: float, y: float, width: float, told: str, style: str) -> Iterator[str]:
    """The name of a stretch of a lane, in it, where there is room. It covers the cuts that probes make."""
    long, solid = len(told) * SMALL * svg.ADVANCE, style != STATES[ev.CLOSED]
    if long + 10 <= width:
        if solid:
            yield svg.rect(x, y, long + 9, _LANE, style)
        yield svg.text(x + 6, y + (11 if solid else 9), told, "on" if solid else "")


def _chart(groups: list[Group], reads: int, step: float, y: float) -> list[str]:
    scale, bottom = Scale([group.ms for group in groups]), y + _CHART
    parts = [svg.text(LEFT - 10, bottom + 18, "read", "d r"), svg.text(LEFT - 10, y - 11, "ms", "d r")]
    for tick in scale.ticks():
        at = bottom - scale(tick) * _CHART
        parts.append(svg.path([f"M{svg.number(LEFT)} {svg.number(at)}H{svg.number(RIGHT)}"], "g"))
        parts.append(svg.text(LEFT - 10, at + 4, f"{tick:,g}", "d r"))
    for cell in Cell:
        spots = [(LEFT + (i + 0.5) * step, bottom - scale(each.ms) * _CHART) for i, each in enumerate(groups)
                 if each.cell is cell]  # fmt: skip
        if cell in (Cell.HEDGED, Cell.TRIED, Cell.FAILED):
            parts += list(markers(cell, spots, min(9.0, max(6.0, step))))
        elif spots:
            drawn = "".join(f"M{svg.number(min(px, RIGHT - 1))} {svg.number(py)}h.01" for px, py in spots)
            wide = min(5.0, max(2.2, 0.35 * step))
            parts.append(svg.path([drawn], MARKERS[cell], stroke_width=wide, stroke_linecap="round"))
    for n, _ in read_ticks(reads, svg.columns(RIGHT - LEFT, SMALL)):
        at = LEFT + (n - 0.5) / reads * (RIGHT - LEFT)
        parts.append(svg.text(at, bottom + 18, f"{n:,}", "d" if n == 1 else "d c" if n < reads else "d r"))
    return parts
