"""Draws a film of a terminal's screen as an SVG that moves by CSS alone, as an <img> may.

Each row of the screen is a strip of all that stood in it, one below the other, behind a window one row high. An
animation moves the strip; so a line is in the file once, however long it is shown. Where a browser is told to reduce
motion, and where a program knows no animation, the strips stand at the still.

Words are text, set to the width of their cells. All other characters are drawn, so that they meet whatever the font.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Final, NamedTuple, TypeAlias

from benchmarks.drawing import DARK, LIGHT, WIDTH, Theme
from failover.console import svg

CELL, LINE = 10, 20  # pixels
_SIDE, _TOP = 15, 15
_APART: Final = LINE + 10  # from one line of a strip to the next; no neighbour shines in when the picture is scaled
_BASELINE: Final = 15
_SIZE: Final = 16.5  # pixels, of the font

COLOURS: Final = {  # as pyte names them: its brown is the terminal's yellow
    LIGHT.suffix: {
        "green": "#1a7f37",
        "magenta": "#a626a4",
        "red": "#cf222e",
        "cyan": "#1b7c83",
        "brown": "#9a6700",
        "faint": "#6e7781",
    },
    DARK.suffix: {
        "green": "#3fb950",
        "magenta": "#e275d2",
        "red": "#ff7b72",
        "cyan": "#39c5cf",
        "brown": "#d29922",
        "faint": "#8b949e",
    },
}

# Characters as areas and as lines, from the upper left corner of a cell. Both end where the next cell begins.
_AREAS: Final = {
    "■": "1 6h8v8h-8z",
    "▮": "2 4h6v13h-6z",
    "·": "4 9h2v2h-2z",
    "▶": "1 5l8 5l-8 5z",
    "◀": "9 5l-8 5l8 5z",
    "▀": "0 0h10v10h-10z",
    "▄": "0 10h10v10h-10z",
    **{bar: f"0 {svg.number(20 - 2.5 * n)}h10v{svg.number(2.5 * n)}h-10z" for n, bar in enumerate("▁▂▃", 1)},
    **{bar: f"0 {svg.number(20 - 2.5 * n)}h10v{svg.number(2.5 * n)}h-10z" for n, bar in enumerate("▅▆▇█", 5)},
    "◍": "1.5 10a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0z",
}
_LINES: Final = {
    "○": "1.8 10a3.2 3.2 0 1 0 6.4 0a3.2 3.2 0 1 0-6.4 0z",
    "▯": "2.5 4.5h5v12h-5z",
    "✕": "2 7l6 6m0-6l-6 6",
    "─": "0 10h10",
    "│": "5 0v20",
    "╭": "5 20v-5q0-5 5-5",
    "╮": "0 10q5 0 5 5v5",
    "╯": "5 0v5q0 5-5 5",
    "╰": "5 0v5q0 5 5 5",
}
DRAWN: Final = frozenset({*_AREAS, *_LINES})
_WORD: Final = f"[^ {''.join(sorted(DRAWN))}]+"
_WORDS: Final = re.compile(f"{_WORD}(?: {_WORD})*")


class Look(NamedTuple):
    """How a cell looks. colour: as pyte names it; reverse: ground and colour change places."""

    colour: str
    bold: bool
    faint: bool
    reverse: bool

    @property
    def name(self) -> str:
        return "faint" if self.faint else self.colour


Row: TypeAlias = "tuple[tuple[str, Look], ...]"
Screen: TypeAlias = "tuple[Row, ...]"


@dataclass(frozen=True)
class Film:
    """rate: frames a second. still: what is shown where nothing may move."""

    rate: float
    frames: list[Screen]
    still: Screen


def draw(film: Film, name: Path) -> list[Path]:
    """NAME.svg and NAME-dark.svg."""
    files = []
    for theme in (LIGHT, DARK):
        file = name.with_name(f"{name.name}{theme.suffix}.svg")
        file.write_text(picture(film, theme), encoding="utf-8", newline="\n")
        files.append(file)
    return files


def picture(film: Film, theme: Theme) -> str:
    """The whole file."""
    height = len(film.still) * LINE + 2 * _TOP
    frame = svg.rect(0.5, 0.5, float(WIDTH - 1), float(height - 1), "window", rx=8)
    clip = f'<clipPath id="line"><rect width="{WIDTH - 2 * _SIDE}" height="{LINE}"/></clipPath>'
    rows, rules = [], []
    for y in range(len(film.still)):
        shown = [screen[y] for screen in film.frames]
        lines = list(dict.fromkeys([film.still[y], *shown]))  # the still's stands first, where the strip is at rest
        strip = [
            svg.group(_line(line), f"line-{y}-{n}", transform=f"translate(0 {n * _APART})" if n else "")
            for n, line in enumerate(lines)
            if any(text.strip() or look.reverse for text, look in line)
        ]
        if not strip:
            continue
        moving = svg.group(strip, f"strip-{y}")
        at = f"translate({_SIDE} {_TOP + y * LINE})"
        rows.append(svg.group([moving], f"row-{y}", transform=at, clip_path="url(#line)"))
        if len(lines) > 1:
            rules.append(_motion(y, [lines.index(line) for line in shown], film.rate))
    words = " ".join(words for row in film.still for text, _ in row for words in _WORDS.findall(text))
    title = "The live screen of circuitbreaker.py"
    return svg.document(WIDTH, height, title, words, _style(theme, rules), [frame, clip, *rows])


def _motion(y: int, places: list[int], rate: float) -> str:
    """Where the strip of row y is, frame by frame."""
    steps, n = [], 0
    for place, run in groupby(places):
        steps.append(f"{100 * n / len(places):.3f}%{{transform:translateY({-place * _APART}px)}}")
        n += len(list(run))
    return (
        f"@keyframes move-{y}{{{''.join(steps)}}}\n"
        f"#strip-{y}{{animation:move-{y} {svg.number(len(places) / rate)}s step-end infinite}}"
    )


def _style(theme: Theme, rules: list[str]) -> str:
    colours = {"default": theme.ink, "ground": theme.ground, **COLOURS[theme.suffix]}
    return "\n".join(
        [
            f"\ntext{{font:{_SIZE}px {svg.FONTS};white-space:pre}}",
            ".bold{font-weight:700}",
            f".window{{fill:{theme.ground};stroke:{theme.faint}}}",
            *(f".{name}{{fill:{colour}}}.{name}-line{{stroke:{colour}}}" for name, colour in colours.items()),
            "path[class$=line]{fill:none;stroke-width:1.4}",
            *rules,
            "@media(prefers-reduced-motion:reduce){g{animation:none!important}}\n",
        ]
    )


def _line(row: Row) -> list[str]:
    """What stands in one line, from its own upper left corner: areas and lines by colour, and words."""
    parts: list[str] = []
    shapes: dict[str, list[str]] = {}
    x = 0
    for text, look in row:
        if look.reverse:
            parts.append(svg.rect(float(x * CELL), 0.0, float(len(text) * CELL), float(LINE), look.name))
        colour = "ground" if look.reverse else look.name
        for column, character in enumerate(text, x):
            if character in _AREAS:
                shapes.setdefault(colour, []).append(_moved(_AREAS[character], column))
            elif character in _LINES:
                shapes.setdefault(f"{colour}-line", []).append(_moved(_LINES[character], column))
        for words in _WORDS.finditer(text):
            told, width = words[0], len(words[0]) * CELL
            style = f"{colour} bold" if look.bold else colour
            length = {"textLength": width} if len(told) > 1 else {}
            parts.append(svg.text(float((x + words.start()) * CELL), float(_BASELINE), told, style, **length))
        x += len(text)
    return [*parts, *(svg.path(steps, style) for style, steps in shapes.items())]


def _moved(shape: str, column: int) -> str:
    x, rest = re.split(r"(?<=\d) ", shape, maxsplit=1)
    return f"M{svg.number(float(x) + column * CELL)} {rest}"
