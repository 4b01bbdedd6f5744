"""What is demanded of `GeoFailover` in an outage and without one, and the tables of the figures."""

from __future__ import annotations

import math
from typing import Final

from benchmarks.outage.configurations import CONFIGURATIONS, OURS
from benchmarks.outage.figures import Cost, Run, cost
from benchmarks.outage.server import HEALTHY, KINDS
from benchmarks.outage.throughput import Throughput
from benchmarks.report import Verdict, say, table

MEDIAN_SHARE: Final = 1.1
"""The demand: the median read of an outage takes at most so many times what a healthy one takes."""
QUIETLY: Final = ("503", "reset", "down")
"""The kinds of which that is demanded: the others cost time by what they are."""


def verdicts(run: Run) -> list[Verdict]:
    """What is demanded of GeoFailover in an outage, by this run's figures."""
    kinds = [kind for kind in KINDS if run.has(kind)]
    costs = {kind: cost(run.of(kind, OURS), run.outage) for kind in kinds}
    found = []
    healthy = cost(run.of(HEALTHY, OURS), run.outage).median
    for kind in QUIETLY:
        demand = f"{kind}: a median read takes at most {MEDIAN_SHARE:g} times a healthy one"
        if kind not in costs:
            found.append(Verdict(demand, None, "left out"))
            continue
        share = costs[kind].median / healthy
        found.append(Verdict(demand, share <= MEDIAN_SHARE, f"{share:.2f}"))
    lost = {kind: sum(each.endpoint is None for each in run.of(kind, OURS).readings) for kind in kinds}
    read = sum(len(run.of(kind, OURS).readings) for kind in kinds)
    figures = f"{sum(lost.values())} of {read:,} in {len(kinds)} kinds"
    found.append(Verdict("no read fails", sum(lost.values()) == 0, figures))
    if "timeout" in costs:
        series = run.of("timeout", OURS)
        hits, probes = costs["timeout"].hits, series.probes or 0
        demand = "timeout: at most `threshold` time-outs, and one for each probe"
        figures = f"{hits} in {costs['timeout'].reads:,} reads, threshold {run.threshold}, {probes} probes"
        found.append(Verdict(demand, hits <= run.threshold + probes, figures))
    return found


def throughput_verdicts(measured: list[Throughput]) -> list[Verdict]:
    """What is demanded of GeoFailover while all is well."""
    return [
        Verdict(
            f"healthy, {each.how}{'' if each.what == OURS else f', {each.what}'}: "
            f"at least {each.share:g} of the {each.than}'s reads per second",
            each.ratio >= each.share,
            f"{each.ratio:.3f}",
        )
        for each in measured
    ]


def report(run: Run) -> None:
    """One table for each kind."""
    for kind in (HEALTHY, *KINDS):
        if not run.has(kind):
            continue
        say(f"\n{'no fault, for comparison' if kind == HEALTHY else f'the primary: {kind}'}")
        rows = [[name, *_cells(cost(run.of(kind, name), run.outage), kind)] for name in CONFIGURATIONS]
        say(table(["", "reads", "median ms", "p99 ms", "worst ms", "failed", "hits", "back after s"], rows))
    say()
    say(f"reads: those that began and ended while the fault was on, {run.outage:.0f} s.  >: none ended, the one under")
    say("way had taken so long.  hits: requests to the primary meanwhile.  back after: from the fault's end until the")
    say("primary answered a read again.  A read of over a minute is measured once or twice, as its row says.  Each")
    say("configuration reads one after the other, about four times a second where its reads are quick.")


def _cells(of: Cost, kind: str) -> list[str]:
    over = "> " if of.at_least else ""
    times = [f"{over}{_milliseconds(seconds)}" for seconds in (of.median, of.p99, of.worst)]
    back = "-" if kind == HEALTHY else "not yet" if math.isinf(of.back) else f"{of.back:.1f}"
    return [f"{of.reads:,}", *times, str(of.failed), f"{of.hits:,}", back]


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:,.1f}" if seconds < 0.1 else f"{seconds * 1000:,.0f}"


def report_throughput(measured: list[Throughput]) -> None:
    """Reads per second of a healthy account."""
    say("\nno fault: reads per second")
    rows = [
        [
            each.how,
            each.than,
            f"{each.bare:,.3g}",
            each.what,
            f"{each.ours:,.3g}",
            f"{each.ratio:.3f}",
            "{:.3f} to {:.3f}".format(*each.spread),
        ]
        for each in measured
    ]
    say(table(["", "", "", "", "", "ratio", "its middle half"], rows))
    say("ratio: median of the pairs' ratios, one block of reads right after the other")
