"""Where the reads of a run go: how many make a row, how the milliseconds are scaled, which share one state."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

from failover.console.run_history import Group

_NICE = (1.0, 2.0, 5.0)
_TEN = 10
_TICKS, _GAP = 6, 2  # numbers below an axis at most, and blanks between two of them at least


def row_width(cells: int, every: int, most: int) -> int:
    """How many of `cells` cells make a row of at most `most`, such that rounds of `every` reads (0: none) begin rows.

    A short round shares its row with the next ones.
    """
    if every:
        for width in range(most, max(most // 2, 1) - 1, -1):
            if every % width == 0 or width % every == 0:
                return width
    if cells <= most // 2:
        return max(1, most // 2)
    return most // _TEN * _TEN or most


def stretches(groups: list[Group], of: Callable[[Group], Any]) -> Iterator[tuple[Any, int, int]]:
    """What neighbours share, with the index of the first of them and that after the last."""
    start = 0
    for index in range(1, len(groups) + 1):
        if index == len(groups) or of(groups[index]) != of(groups[start]):
            yield of(groups[start]), start, index
            start = index


class Scale:
    """Milliseconds on a logarithmic scale from 0 (`low`) to 1 (`high`), both round numbers."""

    def __init__(self, values: list[float]) -> None:
        least, most = max(min(values, default=1.0), 0.001), max(max(values, default=1.0), 0.001)
        self.low = max(nice for nice in _nice(least, most) if nice <= least * 1.0001)
        self.high = min(nice for nice in _nice(least, most) if nice > self.low and nice >= most)

    def __call__(self, ms: float) -> float:
        """Where `ms` is: 0 to 1."""
        share = math.log(max(ms, 0.001) / self.low) / math.log(self.high / self.low)
        return min(1.0, max(0.0, share))

    def ticks(self) -> list[float]:
        """The values that have a line: powers of ten, or where there are few of them also what is between."""
        within = [
            nice for nice in _nice(self.low, self.high) if self.low <= nice * 1.0001 and nice <= self.high * 1.0001
        ]
        return within if len(within) <= 5 else [nice for nice in within if math.log10(nice) % 1 in (0.0, 1.0)]


def _nice(least: float, most: float) -> list[float]:
    first, last = math.floor(math.log10(least)) - 1, math.ceil(math.log10(most)) + 1
    return [round(digit * 10.0**power, 6) for power in range(first, last + 1) for digit in _NICE]


def read_ticks(reads: int, room: int) -> list[tuple[int, int]]:
    """What stands below an axis `room` characters wide: numbers of reads, and in which column each begins.

    The first read, round ones, and the last, each below its read and with blanks before the next one. Where there is
    room for one only, it is the last.
    """
    first, last = _placed(1, reads, room), _placed(reads, reads, room)
    if reads <= 1 or not _apart(first, last):
        return [last]
    for step in (int(digit * 10**power) for power in itertools.count() for digit in _NICE):
        if step >= reads:
            break
        if reads / step <= _TICKS:
            inner = [_placed(n, reads, room) for n in range(step, reads, step)]
            inner = [each for each in inner if _apart(first, each) and _apart(each, last)]
            if all(_apart(one, following) for one, following in itertools.pairwise(inner)):
                return [first, *inner, last]
    return [first, last]


def _placed(n: int, reads: int, room: int) -> tuple[int, int]:
    wide = len(f"{n:,}")
    return n, max(0, min(room - wide, round((n - 0.5) / max(reads, 1) * room - wide / 2)))


def _apart(one: tuple[int, int], following: tuple[int, int]) -> bool:
    return one[1] + len(f"{one[0]:,}") + _GAP <= following[1]
