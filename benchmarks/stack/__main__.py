"""Failover in other libraries: what each survives, and what it costs.

    python -m benchmarks.stack [--libraries adlfs pandas ...] [--seconds 5]

It needs the extra `stack`, and prints the table of docs/in-your-stack.md. Each library reads a blob of 64 KiB from the
stand-in account, in a process of its own: after one healthy read the primary has a fault, and three reads must return
the right bytes. The cost is taken in another process, where reads with and without failover take turns.
"""

from __future__ import annotations

import argparse
import sys

from benchmarks.report import on_this_machine, say
from benchmarks.stack.reader import LIBRARIES
from benchmarks.stack.survival import FAULTS, row


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stack", description="Failover in other libraries.")
    names = [library.name for library in LIBRARIES]
    parser.add_argument("--libraries", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--seconds", type=float, default=5.0, help="for which pairs of reads are compared (5)")
    parser.add_argument("--faults", nargs="+", choices=list(FAULTS), default=list(FAULTS), help="all by default")
    options = parser.parse_args()
    head = ["library", "version", "how", *options.faults, "cost per read"]
    for line in (head, ["---"] * len(head)):
        say(f"| {' | '.join(line)} |")
    failed = False
    for library in LIBRARIES:
        if library.name in options.libraries:
            cells = row(library, options.seconds, options.faults)
            failed |= any(cell.startswith("no") for cell in cells[3:])
            say(f"| {' | '.join(cells)} |")
    say()
    say(" · ".join(on_this_machine().splitlines()))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
