"""What the value of an option must be, and what is said of one that is not."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import typer

from failover.console.wording import clean

SHORTEST: Final = 0.001  # seconds; less is none to a socket
LONGEST: Final = 86400.0  # seconds; what sockets take is not endless


def positive(value: str | float) -> float:
    """A number of seconds above 0."""
    seconds = _number(value)
    if not SHORTEST <= seconds <= LONGEST:
        raise typer.BadParameter(f"must be a number of seconds above 0 ({SHORTEST:g} at least), {LONGEST:g} at most.")
    return seconds


def from_zero(value: str | float) -> float:
    """A finite number from 0."""
    number = _number(value)
    if not (math.isfinite(number) and number >= 0):
        raise typer.BadParameter("must be a finite number from 0.")
    return number


def whole(least: int, most: int | None = None) -> Callable[[str | int], int]:
    """What makes a whole number in these bounds of a value."""

    def parse(value: str | int) -> int:
        text = str(value).strip()
        if not re.fullmatch(r"[+-]?[0-9]{1,15}", text) or int(text) < least or (most is not None and int(text) > most):
            bounds = f"from {least}{'' if most is None else f' to {most:,}'}"
            raise typer.BadParameter(f"{clean(text, 10)!r}: must be a whole number {bounds}.")
        return int(text)

    return parse


def _number(value: str | float) -> float:
    try:
        return float(value)
    except ValueError:
        raise typer.BadParameter(f"{clean(str(value), 10)!r} is not a number.") from None


def one_of(*choices: str) -> Callable[[str], str]:
    """A check that a value is one of these."""

    def check(value: str) -> str:
        if value not in choices:
            raise typer.BadParameter(f"{value[:40]!r}: choose {', '.join(choices[:-1])} or {choices[-1]}.")
        return value

    return check


def ranges(values: list[str] | None) -> list[str]:
    """Pairs FIRST:LAST of reads, counted from 1."""
    for value in values or []:
        match = re.fullmatch(r"([0-9]{1,15}):([0-9]{1,15})", value)
        if match is None:
            raise typer.BadParameter(f"{value[:40]!r} is not FIRST:LAST, such as 201:400.")
        if not 1 <= int(match[1]) <= int(match[2]):
            raise typer.BadParameter(f"{value!r}: reads are counted from 1, and FIRST comes before LAST.")
    return values or []


def proxy_url(value: str | None) -> str | None:
    """The URL of a proxy; what is said of a bad one does not repeat it: it may hold a password."""
    if value is None:
        return None
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good or not value.isprintable() or " " in value:
        raise typer.BadParameter("must look like http://127.0.0.1:8888.")
    return value


def svg_file(value: Path | None) -> Path | None:
    """A file whose name does not promise another kind of picture, or None."""
    if value is not None and value.suffix.lower() not in ("", ".svg"):
        raise typer.BadParameter(f"the picture is an SVG: call it {clean(value.stem, 100)}.svg.")
    return value
