"""The cases of the fleet, what each costs, and the table."""

from __future__ import annotations

import argparse
import itertools
import math
import multiprocessing
from collections.abc import Iterator
from typing import Final

from benchmarks.fleet.clients import Case, Outcome, simulate
from benchmarks.fleet.remote import Recovery
from benchmarks.report import say, table

HEAD: Final = ["clients", "state", "jitter", "ramp", "hits", "detect s", "recover s", "peak", "shed", "pushed down"]


def cases(options: argparse.Namespace) -> list[Case]:
    """For each size: each with its own state and shared, without and with jitter, without and with a ramp."""
    recovery = Recovery(outage=options.outage)
    varied = itertools.product(options.clients, (False, True), (0.0, options.jitter), (None, options.ramp))
    return [
        Case(clients, shared, jitter, ramp, seed=options.seed, refresh=options.refresh, recovery=recovery)
        for clients, shared, jitter, ramp in varied
    ]


def row(of: Outcome) -> list[str]:
    """A line of the table."""
    case = of.case
    return [
        f"{case.clients:,}",
        "shared" if case.shared else "own",
        f"{case.jitter:g}" if case.jitter else "-",
        f"{case.ramp:g} s" if case.ramp else "-",
        f"{of.hits:,}",
        _seconds(of.detect),
        _seconds(of.recover),
        f"{of.peak:.2f}",
        f"{of.shed:,}",
        f"{of.falls}",
    ]


def _seconds(seconds: float) -> str:
    return "never" if math.isinf(seconds) else f"{seconds:.1f}"


def outcomes(all_cases: list[Case], workers: int) -> Iterator[Outcome]:
    """In the order of the cases; the largest are begun first. With one worker in this process."""
    if workers == 1:
        yield from map(simulate, all_cases)
        return
    # Each case in a process of its own: what a fleet of circuits leaves behind goes with it.
    with multiprocessing.get_context("spawn").Pool(workers, maxtasksperchild=1) as pool:
        largest_first = sorted(range(len(all_cases)), key=lambda n: -all_cases[n].clients)
        begun = {n: pool.apply_async(simulate, (all_cases[n],)) for n in largest_first}
        for n in range(len(all_cases)):
            yield begun[n].get()


def report(found: list[Outcome]) -> None:
    """The model in words, then the table."""
    case = found[0].case
    of, policy, (least, most) = case.recovery, case.policy(), case.periods
    say(f"seed {case.seed}; each client calls every {least:g} to {most:g} s; {policy.trip}")
    say(f"{policy.recovery}, jitter as below; shared state is looked at every {case.refresh:g} s")
    say(f"The primary is dead for {of.outage:g} s and comes back with {of.cold:.0%} of the capacity that is needed")
    say(f"and {of.full:.0%} after {of.warm_up:g} s. {of.crushing:g} times its capacity in a second push it down again.")
    say()
    say(table(HEAD, [row(each) for each in found]))
    say()
    say("hits: requests to the dead primary.  detect: from its death until every circuit was open.  recover: from its")
    say("return until the last call that it did not answer, or that a ramp held back.  peak: the most requests in one")
    say("second after its return, by what it could answer.  shed: requests that failed after its return.")
    say("Of few clients each call is a peak.")
