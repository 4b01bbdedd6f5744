"""What must hold of a breaker, tried on each library: `python -m benchmarks.correctness`."""

from __future__ import annotations

import argparse
import sys

from benchmarks.correctness.report import one_cell, report
from benchmarks.correctness.rows import ROWS


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.correctness", description=__doc__)
    parser.add_argument("--verbose", action="store_true", help="why a cell is no or n/a")
    parser.add_argument(
        "--rows", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="NAME", help=", ".join(ROWS)
    )
    parser.add_argument("--limit", type=float, default=20.0, help="seconds for one cell (20)")
    parser.add_argument("--workers", type=int, default=2, help="cells at once (2)")
    parser.add_argument("--cell", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.cell:
        one_cell(*options.cell)
    holds = report(options.rows, verbose=options.verbose, limit=options.limit, workers=options.workers)
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
