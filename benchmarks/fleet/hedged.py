"""A fleet whose primary slows down for all: what hedging without a bound asks of the secondary, and within the budget.

The decisions are those of the real budget. Each read wants a hedge then, so what a client decides of its n-th read is
the same for all that have read as much before, and is found out once.
"""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from benchmarks.report import Verdict, say, table
from failover.storage.hedging import WINDOW, Hedging

BUDGET: Final = 0.1
"""Share of reads: the default."""
TWICE: Final = 2
"""The demand: what the secondary gets stays below so many times its share, which is the budget's."""
AFTER: Final = 0.1
"""Seconds, for `hedge_after`."""
PERIODS: Final = (0.1, 10.0)
"""Seconds from one read of a client to its next: of the busiest and of the least busy one."""
SLOW: Final = 600.0
"""Seconds for which each answer of the primary takes `TAKES` seconds."""
TAKES: Final = 2.0
ROOM: Final = 0.5
"""Reads that the secondary can answer at once, as a share of all: what is more waits for over a second."""


@dataclass(frozen=True)
class Hedged:
    """What came of it. Loads are shares of the fleet's reads.

    primary, secondary: on average while the primary is slow. second: of the secondary's in its busiest second. late:
    reads that took over a second.
    """

    clients: int
    name: str
    primary: float
    secondary: float
    second: float
    late: float
    course: list[float] = field(repr=False, compare=False)


def decisions(budget: float, reads: int, before: int) -> list[bool]:
    """Of each of so many reads in a row that want a hedge, whether there is one; after `before` that wanted none."""
    hedging = Hedging(AFTER, budget)
    for _ in range(before):
        hedging.begin(AFTER)
    found = []
    for _ in range(reads):
        hedging.begin(AFTER)
        found.append(hedging.take(is_probe=False))
    return found


def simulate(clients: int, name: str, budget: float, before: int, seed: int) -> Hedged:
    """One fleet."""
    draws = random.Random(f"{seed} {clients}")
    least, most = PERIODS
    periods = [least * (most / least) ** ((n + 0.5) / clients) for n in range(clients)]
    chosen = decisions(budget, int(SLOW / min(periods)) + 2, before)
    reads, hedges = [0] * (int(SLOW) + 1), [0] * (int(SLOW) + 1)
    for period in periods:
        at = draws.random() * period
        for is_hedged in chosen:
            if at >= SLOW:
                break
            second = int(at)
            reads[second] += 1
            hedges[second] += is_hedged
            at += period
    normal = sum(1 / period for period in periods)
    total = sum(reads)
    late = sum(all_of_it - min(extra, ROOM * normal) for all_of_it, extra in zip(reads, hedges, strict=True)) / total
    loads = [extra / normal for extra in hedges]
    return Hedged(clients, name, 1.0, sum(hedges) / total, max(loads), late, loads)


def simulate_all(clients: int, seed: int) -> list[Hedged]:
    """Without hedging, without a bound, and within the budget: of clients that have read much before, and new ones."""
    return [
        Hedged(clients, "no hedging", 1.0, 0.0, 0.0, 1.0, []),
        simulate(clients, "unbounded", 1.0, WINDOW, seed),
        simulate(clients, f"budget {BUDGET:g}", BUDGET, WINDOW, seed),
        simulate(clients, f"budget {BUDGET:g}, new clients", BUDGET, 0, seed),
    ]


def report_hedged(found: Iterable[Hedged]) -> None:
    """The model in words, then the table."""
    rows = [
        [each.name, f"{each.clients:,}", *(f"{n:.2f}" for n in (each.primary, each.secondary, each.second, each.late))]
        for each in found
    ]
    least, most = PERIODS
    say(f"\nhedging: each client reads every {least:g} to {most:g} s. For {SLOW:g} s each answer of the primary takes")
    say(f"{TAKES:g} s; reads are hedged after {AFTER:g} s, and the secondary can answer {ROOM:.0%} of them at once.")
    say()
    say(table(["", "clients", "primary", "secondary", "its worst second", "reads over 1 s"], rows))
    say()
    say("primary, secondary: requests meanwhile, by the fleet's reads.  worst second: those of the secondary.")


def hedged_verdicts(found: Iterable[Hedged]) -> list[Verdict]:
    """What is demanded of the budget."""
    return [
        Verdict(
            f"hedging, {each.name}: on average the secondary gets less than {TWICE * BUDGET:g} of the reads",
            each.secondary < TWICE * BUDGET,
            f"{each.secondary:.3f}, in its busiest second {each.second:.2f}",
        )
        for each in found
        if each.name.startswith("budget")
    ]
