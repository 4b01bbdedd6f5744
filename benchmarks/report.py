"""What all reports have: the machine they come from, tables, and demands with the figures that meet them."""

from __future__ import annotations

import os
import platform
import sys
from dataclasses import dataclass
from pathlib import Path


def on_this_machine() -> str:
    """The machine and Python, two lines."""
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    machine = f"{_processor()}, {os.cpu_count()} cores{load}, {platform.system()} {platform.release()}"
    return f"{machine}\n{platform.python_implementation()} {platform.python_version()}"


def say(text: str = "") -> None:
    """A line on standard output, at once."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def table(head: list[str], rows: list[list[str]]) -> str:
    """Columns as wide as they must be; the first to the left, all others to the right."""
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(len(head))]

    def line(row: list[str]) -> str:
        cells = [text.ljust(width) if n == 0 else text.rjust(width) for n, (text, width) in enumerate(zip(row, widths))]  # noqa: B905 (both are of the head's length)
        return "  ".join(cells).rstrip()

    return "\n".join([line(head), line(["-" * width for width in widths]), *map(line, rows)])


@dataclass(frozen=True)
class Verdict:
    """A demand, whether the figures meet it, and those figures. holds None: they were not measured."""

    demand: str
    holds: bool | None
    figures: str

    def __str__(self) -> str:
        word = "NOT MEASURED" if self.holds is None else "holds" if self.holds else "DOES NOT HOLD"
        return f"{self.demand}: {self.figures}: {word}"


def _processor() -> str:
    cpus = Path("/proc/cpuinfo")
    names = [line for line in cpus.read_text().splitlines() if line.startswith("model name")] if cpus.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.processor() or platform.machine()
