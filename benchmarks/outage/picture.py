"""Draws how long reads took through an outage, all configurations in one figure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from benchmarks.drawing import Theme, bare, write
from benchmarks.outage.configurations import OURS
from benchmarks.outage.figures import Reading, Run, cost

KIND: Final = "503"
HEIGHT: Final = 470
LOOKS: Final = {
    "SDK default": ("red", "SDK, default"),
    "SDK retry_to_secondary": ("orange", "SDK, retry_to_secondary"),
    "old sample": ("purple", "old sample"),
    "SDK tuned": ("grey", "SDK, tuned"),
    "GeoFailover, demo": ("sky", "GeoFailover, demo's policy"),
    OURS: ("blue", "GeoFailover"),
}
_LONG: Final = 0.1  # seconds from which a read is drawn from its beginning to its end
_APART: Final = 0.44  # decades between two labels
_SLICE: Final = 5.0  # seconds of which the line through the dots is the median
_DOT: Final = 0.05  # seconds: a line of no length is not drawn


def draw(run: Run, name: Path) -> list[Path]:
    """NAME.svg, NAME.png and NAME-dark of both, of the outage in which the primary answered 503."""
    return write(name, HEIGHT, lambda figure, theme: _paint(figure, theme, run))


def _paint(figure: Any, theme: Theme, run: Run) -> None:
    all_readings = [each for series in run.series if series.kind == KIND for each in series.readings]
    first = min(each.start for each in all_readings)
    last = max(each.end for each in all_readings if math.isfinite(each.end))
    axes = figure.add_axes((0.068, 0.105, 0.69, 0.745))
    bare(axes, theme)
    axes.set_yscale("log")
    axes.set_xlim(first, last)
    axes.set_ylim(0.001, 300)
    axes.set_yticks([0.001 * 10**n for n in range(6)], ["1 ms", "10 ms", "100 ms", "1 s", "10 s", "100 s"])
    axes.minorticks_off()
    axes.set_xlabel("seconds since the primary went out", loc="left")
    axes.axvspan(0, run.outage, color=theme.shade, linewidth=0, zorder=0)
    axes.text(run.outage / 2, 180, "primary out: it answers 503", ha="center", va="center", fontsize=9)
    figure.text(0.012, 0.945, "How long a read takes when the primary goes out", fontsize=13, weight="bold")
    figure.text(
        0.012, 0.895, "Each dot is a read; each line a slow one, from its beginning to its end; ✕ a read that failed."
    )
    for name, (colour, _) in LOOKS.items():
        _draw_reads(axes, run.of(KIND, name).readings, theme.lines[colour], ours=name == OURS)
    _label(axes, theme, run)


def _draw_reads(axes: Any, readings: list[Reading], colour: str, *, ours: bool) -> None:
    from matplotlib.patches import PathPatch
    from matplotlib.path import Path as Line

    for long in (False, True):
        points, codes = [], []
        for each in readings:
            if math.isfinite(each.end) and (each.seconds >= _LONG) is long:
                points += [(each.start, each.seconds), (each.end if long else each.start + _DOT, each.seconds)]
                codes += [Line.MOVETO, Line.LINETO]
        if points:
            width = (2.2 if ours else 1.8) if not long else 2.0
            dots = PathPatch(
                Line(points, codes),
                edgecolor=colour,
                linewidth=width,
                facecolor="none",
                alpha=1.0 if long else 0.55,
                zorder=3,
            )
            dots.set_capstyle("round")
            axes.add_patch(dots)
    middles = list(_middles([each for each in readings if each.seconds < _LONG]))
    if middles:
        axes.plot(*zip(*middles, strict=True), color=colour, linewidth=2.4 if ours else 1.2, zorder=4 + ours)
    failed = [each for each in readings if each.endpoint is None and math.isfinite(each.end)]
    if failed:
        axes.plot(
            [each.end for each in failed],
            [each.seconds for each in failed],
            "x",
            color=colour,
            markersize=6,
            markeredgewidth=1.8,
            zorder=4,
        )


def _middles(quick: list[Reading]) -> Iterator[tuple[float, float]]:
    """The median of each 5 s in which at least 5 reads were quick; nan in between, where the line breaks."""
    if not quick:
        return
    first, last = (math.floor(each.start / _SLICE) for each in (quick[0], quick[-1]))
    slices: dict[int, list[float]] = {n: [] for n in range(first, last + 1)}
    for each in quick:
        slices[math.floor(each.start / _SLICE)].append(each.seconds)
    for n, seconds in slices.items():
        yield (n + 0.5) * _SLICE, statistics.median(seconds) if len(seconds) >= 5 else math.nan


def _label(axes: Any, theme: Theme, run: Run) -> None:
    """At the right, each at the height of its reads in the outage, moved apart where they would touch."""
    right = axes.get_xlim()[1]
    costs = {name: cost(run.of(KIND, name), run.outage) for name in LOOKS}
    # One that fails is labelled where it does.
    at = {name: of.worst if of.failed else of.median for name, of in costs.items()}
    upwards = sorted(LOOKS, key=lambda name: (at[name], name != OURS))
    heights = _apart([math.log10(at[name]) for name in upwards], _APART)
    for name, height in zip(upwards, heights, strict=True):
        of, (colour, text) = costs[name], LOOKS[name]
        lost = f", {of.failed} of {of.reads} failed" if of.failed else ""
        style = {"color": theme.lines[colour], "va": "center", "annotation_clip": False}
        axes.annotate(
            text,
            (right, 10**height),
            (8, 5.5),
            textcoords="offset points",
            weight="bold" if name == OURS else "normal",
            **style,
        )
        figures = f"median {_time(of.median)}{lost}"
        axes.annotate(figures, (right, 10**height), (8, -5.5), textcoords="offset points", fontsize=7.5, **style)


def _apart(heights: list[float], least: float) -> list[float]:
    """The same in order, none nearer to the next than `least`, each group about where it was."""
    placed = list(heights)
    for _ in range(200):
        for n in range(len(placed) - 1):
            short = least - (placed[n + 1] - placed[n])
            if short > 0:
                placed[n] -= short / 2
                placed[n + 1] += short / 2
    return placed


def _time(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.1f} ms"
