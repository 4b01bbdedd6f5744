"""What a circuit adds to a call, beside the bare function, all in one run: `python -m benchmarks.overhead`."""

from __future__ import annotations

import argparse
import logging
import sys
import warnings

from benchmarks.libraries.adapters import about
from benchmarks.overhead import circuits
from benchmarks.overhead.calls import report_calls
from benchmarks.report import say


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overhead", description=__doc__)
    parser.add_argument("--calls", type=int, default=2_000, help="calls in one loop (2,000)")
    parser.add_argument("--rounds", type=int, default=101, help="rounds, of which the median is taken (101)")
    parser.add_argument("--circuits", type=int, default=1_000_000, help="circuits made for memory; 0: none (1,000,000)")
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # of deprecated calls in the libraries
    logging.raiseExceptions = False
    say(about())
    say(f"{options.rounds} rounds of {options.calls:,} calls, all libraries in each round")
    say("ns: processor time, median of the rounds; least: the quietest round")
    say("ratio: to the fastest rival, median of the rounds' ratios")
    holds = report_calls("closed", options.calls, options.rounds)
    holds &= report_calls("open", max(1, options.calls // 10), options.rounds)
    if options.circuits:
        say()
        say(circuits.report(options.circuits))
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
