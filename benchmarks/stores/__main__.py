"""What idle circuits cost one process over each store: operations per minute, and CPU.

    python -m benchmarks.stores [--seconds 20] [--circuits 1 100 5000] [--stores memory redis blob table]

The servers are real: a Redis (or Valkey), and Azurite. Each figure is taken in a process of its own, which makes its
circuits, waits until all have looked at the store once, and then does nothing. An operation is a command of Redis or a
request to an account. It is measured twice: as most circuits are, which have never opened and so have no record, and
with a record of each, as after an outage of them all.
"""

from __future__ import annotations

import argparse
from typing import Final

from benchmarks.report import on_this_machine, say, table
from benchmarks.stores.idle import idle, measure

STORES: Final = ("memory", "redis", "blob", "table")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stores", description=__doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="how long each process is idle (default 20)")
    parser.add_argument("--circuits", type=int, nargs="+", default=[1, 100, 5000], metavar="N")
    parser.add_argument("--stores", nargs="+", choices=STORES, default=STORES)
    parser.add_argument("--idle", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.idle is not None:
        idle(options.idle)
        return
    say(on_this_machine())
    rows = []
    for kind in options.stores:
        for count in options.circuits:
            for records in (False,) if kind == "memory" else (False, True):
                each_minute, core = measure(kind, count, records, options.seconds)
                rows.append([kind, f"{count:,}", "all" if records else "none", f"{each_minute:,.0f}", f"{core:.2%}"])
    say(table(["store", "circuits", "with a record", "operations a minute", "of a core"], rows))


if __name__ == "__main__":
    main()
