"""Draws the load on a primary that recovers: own and shared state, without and with a ramp."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

from benchmarks.drawing import Theme, bare, write
from benchmarks.fleet.clients import Outcome

HEIGHT: Final = 520
_TOP: Final = 1.6


def draw(found: list[Outcome], name: Path) -> list[Path]:
    """NAME.svg, NAME.png and NAME-dark of both, of the largest fleet, with jitter."""
    most = max(each.case.clients for each in found)
    chosen = [each for each in found if each.case.clients == most and each.case.jitter]
    return write(name, HEIGHT, lambda figure, theme: _paint(figure, theme, chosen))


def _paint(figure: Any, theme: Theme, chosen: list[Outcome]) -> None:
    case = chosen[0].case
    figure.text(0.012, 0.95, "What a fleet does to a primary that recovers", fontsize=13, weight="bold")
    figure.text(
        0.012,
        0.905,
        f"Load of {case.clients:,} clients (1 is normal) and the capacity of their primary, "
        f"dead for {case.recovery.outage:g} s and cold after that.",
    )
    last = min(each.course[-1][0] for each in chosen)
    for outcome in chosen:
        place = (0.055 + 0.48 * bool(outcome.case.ramp), 0.495 - 0.405 * outcome.case.shared, 0.445, 0.285)
        axes = figure.add_axes(place)
        bare(axes, theme)
        axes.set_xlim(outcome.course[0][0], last)
        axes.set_ylim(0, _TOP)
        axes.set_yticks([0, 0.5, 1, 1.5], ["0", "", "1", ""])
        axes.axvspan(0, case.recovery.outage, color=theme.shade, linewidth=0, zorder=0)
        _draw_course(axes, theme, outcome)
        _tell(axes, outcome)
        if outcome.case.shared:
            axes.set_xlabel("seconds since its death", loc="left")
        else:
            axes.set_xticklabels([])
        if not outcome.case.shared and not outcome.case.ramp:
            _explain(axes, theme, outcome)


def _draw_course(axes: Any, theme: Theme, outcome: Outcome) -> None:
    seconds, load, failed, capacity = zip(*outcome.course, strict=True)
    answered = [all_of_it - lost for all_of_it, lost in zip(load, failed, strict=True)]
    axes.fill_between(seconds, answered, step="post", color=theme.lines["sky"], alpha=0.75, linewidth=0, zorder=2)
    where = [lost > 0 or before > 0 for lost, before in zip(failed, (0, *failed), strict=False)]
    axes.fill_between(
        seconds, answered, load, where=where, step="post", color=theme.lines["red"], linewidth=0, zorder=3
    )
    outage = outcome.case.recovery.outage
    shown = [math.nan if second < outage else room for second, room in zip(seconds, capacity, strict=True)]
    axes.plot(seconds, shown, color=theme.ink, linewidth=1.1, zorder=4)


def _tell(axes: Any, outcome: Outcome) -> None:
    case = outcome.case
    title = f"{'One shared circuit' if case.shared else 'A circuit each'}{', with a ramp' if case.ramp else ''}"
    axes.set_title(title, loc="left", fontsize=9.5, weight="bold", pad=19)
    falls = "" if not outcome.falls else ", down again" if outcome.falls == 1 else f", down again {outcome.falls} times"
    back = "never back" if math.isinf(outcome.recover) else f"back after {outcome.recover:.0f} s"
    said = f"{outcome.hits:,} hits while dead; {outcome.shed:,} failed after that{falls}; {back}"
    axes.annotate(said, (0, 1), (0, 5), xycoords="axes fraction", textcoords="offset points", fontsize=7.5)


def _explain(axes: Any, theme: Theme, outcome: Outcome) -> None:
    of = outcome.case.recovery
    axes.text(of.outage / 2, 1.28, "dead", ha="center", fontsize=8)
    axes.text(of.outage + of.warm_up - 14, of.full - 0.1, "capacity", ha="right", fontsize=8)
    axes.text(of.outage + of.warm_up, 0.3, "answered", ha="center", fontsize=8, zorder=5)
    axes.text(of.outage / 6, 0.62, "failed", fontsize=8, color=theme.lines["red"])
