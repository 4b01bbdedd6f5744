"""Draws what readers of a primary that limps, or hangs, wait: of each configuration the median, p99 and the worst."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

from benchmarks.drawing import Theme, bare, write
from benchmarks.outage.configurations import HEDGED, LEARNED, OURS
from benchmarks.outage.figures import quantile
from benchmarks.outage.server import HANGING, LIMPING
from benchmarks.outage.tail import Tail

HEIGHT: Final = 330
TITLES: Final = {LIMPING: "Limping: one answer in ten takes 3 s", HANGING: "Hanging: no answer at all"}
LOOKS: Final = {
    "SDK default": ("red", "SDK, default"),
    "SDK tuned": ("grey", "SDK, tuned"),
    OURS: ("sky", "GeoFailover()"),
    LEARNED: ("blue", 'hedge_after="p95"'),
    HEDGED: ("blue", "hedge_after=0.1"),
}
_TICKS: Final = {0.001: "1 ms", 0.01: "10 ms", 0.1: "100 ms", 1.0: "1 s", 10.0: "10 s", 100.0: "100 s"}


def draw(tails: list[Tail], name: Path) -> list[Path]:
    """NAME.svg, NAME.png and NAME-dark of both: the callers of one kind that are most."""
    most = max(each.callers for each in tails)
    chosen = [each for each in tails if each.callers == most]
    return write(name, HEIGHT, lambda figure, theme: _paint(figure, theme, chosen))


def _paint(figure: Any, theme: Theme, tails: list[Tail]) -> None:
    figure.text(0.012, 0.935, "How long reads wait for a primary that limps or hangs", fontsize=13, weight="bold")
    figure.text(
        0.012,
        0.865,
        f"{tails[0].callers} callers. Dot: the median read; bar: up to the 99th of 100; tick: the worst.",
    )
    worlds = [each for each in TITLES if any(tail.world == each for tail in tails)]
    for column, world in enumerate(worlds):
        axes = figure.add_axes((0.165 + 0.43 * column, 0.115, 0.375, 0.62))
        bare(axes, theme)
        axes.grid(False, axis="y")
        axes.grid(True, which="major", axis="x", color=theme.faint, linewidth=0.6)
        axes.set_xscale("log")
        axes.set_xlim(0.001, 200)
        axes.set_ylim(-0.6, len(LOOKS) - 0.4)
        axes.set_xticks(list(_TICKS), list(_TICKS.values()))
        axes.minorticks_off()
        axes.set_title(TITLES[world], loc="left", fontsize=9.5, weight="bold")
        names = list(LOOKS)[::-1]
        axes.set_yticks(range(len(names)), [LOOKS[name][1] for name in names] if column == 0 else [])
        for row, name in enumerate(names):
            _row(axes, theme, row, next(each for each in tails if (each.world, each.configuration) == (world, name)))


def _row(axes: Any, theme: Theme, row: int, of: Tail) -> None:
    colour = theme.lines[LOOKS[of.configuration][0]]
    high, worst = quantile(of.seconds, 0.99), of.seconds[-1]
    axes.plot([of.median, high], [row, row], color=colour, linewidth=5, solid_capstyle="butt", zorder=3)
    axes.plot([of.median], [row], "o", color=colour, markersize=6, zorder=4)
    axes.plot([worst], [row], "|", color=colour, markersize=11, markeredgewidth=1.6, zorder=4)
    told = f"{'over ' if of.unfinished else ''}{_time(worst)}"
    right = math.log10(worst) > 1.2
    axes.annotate(
        told,
        (worst, row),
        (-2 if right else 7, 7 if right else 0),
        textcoords="offset points",
        ha="right" if right else "left",
        va="bottom" if right else "center",
        fontsize=7.5,
        color=colour,
    )


def _time(seconds: float) -> str:
    return f"{seconds:,.0f} s" if seconds >= 10 else f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.0f} ms"
