"""What the loss and the recovery of a primary cost a fleet, simulated in virtual time: `python -m benchmarks.fleet`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Final

from benchmarks.fleet.hedged import hedged_verdicts, report_hedged, simulate_all
from benchmarks.fleet.remote import Recovery
from benchmarks.fleet.report import cases, outcomes, report
from benchmarks.report import say

SIZES: Final = (1, 10, 100, 1_000, 10_000)
QUICK: Final = (1, 10, 100)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fleet", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="up to 100 clients")
    parser.add_argument("--clients", type=int, nargs="+", help="sizes of the fleet (1 10 100 1000 10000)")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same table (1)")
    parser.add_argument("--outage", type=float, default=Recovery().outage, help="seconds (80)")
    parser.add_argument("--jitter", type=float, default=0.1, help="of the cooldown, where there is one (0.1)")
    parser.add_argument("--ramp", type=float, default=60.0, help="seconds, where there is one (60)")
    parser.add_argument("--refresh", type=float, default=1.0, help="seconds between two looks at shared state (1)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes (one for each core)")
    parser.add_argument("--picture", type=Path, metavar="NAME", help="draw NAME.svg and NAME.png, and NAME-dark")
    options = parser.parse_args()
    options.clients = options.clients or list(QUICK if options.quick else SIZES)
    return options


def main() -> int:
    options = _options()
    began, found = time.monotonic(), []
    for outcome in outcomes(cases(options), options.workers):
        found.append(outcome)
        sys.stderr.write(f"{len(found)} of {8 * len(options.clients)}, {time.monotonic() - began:.0f} s\n")
    report(found)
    hedged = simulate_all(max(options.clients), options.seed)
    report_hedged(hedged)
    say()
    verdicts = hedged_verdicts(hedged)
    for verdict in verdicts:
        say(str(verdict))
    if options.picture:
        from benchmarks.fleet.picture import draw

        for file in draw(found, options.picture):
            say(f"wrote {file}")
    return 0 if all(verdict.holds for verdict in verdicts) else 1


if __name__ == "__main__":
    sys.exit(main())
