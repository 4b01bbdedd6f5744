"""Play seeded faults against the bare SDK and against `GeoFailover`, in virtual time, and compare call by call.

    python -m tests.never_worse --seeds 2000 --jobs 2
    python -m tests.never_worse --seed 17 --form alone --kind aio --trace
    python -m tests.never_worse --seeds 200 --hedge 0.1

Exits with 1 where ours lost, spoiled or delayed a call that the SDK answered. A seed always gives the same.
"""

from __future__ import annotations

import argparse
import functools
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from tests.never_worse.play import Report, play_seed
from tests.never_worse.schedule import FORMS
from tests.never_worse.sides import KINDS

_SHOWN: Final = 20  # violations in full


def _reports(work: Callable[[int], Report], seeds: Iterable[int], jobs: int) -> Iterator[Report]:
    if jobs == 1:
        yield from map(work, seeds)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap(work, seeds)


def main() -> int:
    """Options in, exit code out."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seeds", type=int, default=200, help="play so many, from --first on")
    options.add_argument("--first", type=int, default=0)
    options.add_argument("--seed", type=int, help="play this one")
    options.add_argument("--form", choices=FORMS, help="play this form alone")
    options.add_argument("--kind", choices=KINDS, help="play this kind of client alone")
    options.add_argument("--hedge", type=float, metavar="SECONDS", help="let ours hedge reads after so long")
    options.add_argument("--jobs", type=int, default=1, help="processes")
    options.add_argument("--trace", action="store_true", help="print each call and request, in one process")
    chosen = options.parse_args()
    seeds = [chosen.seed] if chosen.seed is not None else range(chosen.first, chosen.first + chosen.seeds)
    work = functools.partial(play_seed, form=chosen.form, kind=chosen.kind, trace=chosen.trace, hedge=chosen.hedge)
    total, shown, began = Report(), 0, time.monotonic()
    for done, report in enumerate(_reports(work, seeds, 1 if chosen.trace else chosen.jobs), 1):
        total.add(report)
        for each in report.violations:
            print(*(each.text if shown < _SHOWN else each.text[:3]), sep="\n", flush=True)
            shown += 1
        if done % 100 == 0:
            rate = done / (time.monotonic() - began)
            print(f"{done:,} seeds, {rate:.1f}/s, {len(total.violations)} violations", flush=True)
    print(*total.lines(), sep="\n")
    return 1 if total.violations else 0


if __name__ == "__main__":
    sys.exit(main())
