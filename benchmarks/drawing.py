"""What the pictures have in common: two themes that suit GitHub's two, the same bytes from the same figures."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

WIDTH: Final = 830
"""Pixels at which the README shows a picture."""


@dataclass(frozen=True)
class Theme:
    """Colours. lines: by what is drawn, see the pictures."""

    suffix: str
    ground: str
    ink: str
    faint: str
    shade: str
    lines: dict[str, str] = field(default_factory=dict)


LIGHT: Final = Theme(
    "",
    "#ffffff",
    "#1f2328",
    "#d1d9e0",
    "#ffebe9",
    {
        "red": "#cf222e",
        "orange": "#bc4c00",
        "purple": "#8250df",
        "grey": "#59636e",
        "sky": "#54aeff",
        "blue": "#0550ae",
    },
)
DARK: Final = Theme(
    "-dark",
    "#0d1117",
    "#f0f6fc",
    "#3d444d",
    "#2b1416",
    {
        "red": "#ff7b72",
        "orange": "#f0883e",
        "purple": "#d2a8ff",
        "grey": "#9198a1",
        "sky": "#388bfd",
        "blue": "#a5d6ff",
    },
)


def write(name: Path, height: int, paint: Callable[[Any, Theme], None]) -> list[Path]:
    """Let `paint` fill a figure in each theme; gives the files, NAME.svg, NAME.png and NAME-dark of both."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.use("agg")
    files = []
    for theme in (LIGHT, DARK):
        look: Any = {
            "font.family": "DejaVu Sans",  # comes with matplotlib
            "font.size": 9.0,
            "svg.hashsalt": "failover",
            "svg.fonttype": "path",
            "path.simplify": False,
            "text.color": theme.ink,
            "axes.labelcolor": theme.ink,
            "xtick.color": theme.ink,
            "ytick.color": theme.ink,
        }
        with mpl.rc_context(look):
            # SVG counts 72 to the inch and shows them as 96.
            figure = Figure(figsize=(WIDTH / 96, height / 96), facecolor=theme.ground)
            paint(figure, theme)
            base = name.with_name(f"{name.name}{theme.suffix}")
            svg, png = base.with_suffix(".svg"), base.with_suffix(".png")
            figure.savefig(svg, metadata={"Date": None, "Creator": None})
            svg.write_text(_shorter(svg.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
            figure.savefig(png, dpi=2 * 96, metadata={"Software": None})
        files += [svg, png]
    return files


def _shorter(svg: str) -> str:
    """With the coordinates of lines to a tenth of a point, level ones by their length alone, and each on one line."""

    def shorten(line: re.Match[str]) -> str:
        rounded = re.sub(r"-?\d+\.\d{2,}", lambda number: f"{float(number[0]):.1f}".removesuffix(".0"), line[0])
        return re.sub(r"M (\S+) (\S+) L (\S+) \2(?= *[M\"])", _level, re.sub(r" ?\n", " ", rounded))

    return re.sub(r' d="[^"]*"', shorten, svg)


def _level(line: re.Match[str]) -> str:
    return f"M{line[1]} {line[2]}h{float(line[3]) - float(line[1]):.1f}"


def bare(axes: Any, theme: Theme) -> None:
    """No frame, and a faint grid behind the figures."""
    for side in axes.spines.values():
        side.set_visible(False)
    axes.set_facecolor("none")
    axes.tick_params(length=0, which="both")
    axes.grid(True, which="major", axis="y", color=theme.faint, linewidth=0.6)
    axes.set_axisbelow(True)
