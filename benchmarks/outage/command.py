"""What an outage of the primary costs a reader, with GeoFailover and without: `python -m benchmarks.outage`."""

from __future__ import annotations

import argparse
import logging
import math
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Final

from benchmarks.outage.accounts import azurite, standins
from benchmarks.outage.configurations import HEDGE_AFTER, OURS, Setting, production
from benchmarks.outage.figures import Run
from benchmarks.outage.report import report, report_throughput, throughput_verdicts, verdicts
from benchmarks.outage.ring import Timing, measure
from benchmarks.outage.server import HEALTHY, KINDS, WORLDS
from benchmarks.outage.tail import QUICK as QUICK_TAIL
from benchmarks.outage.tail import Size, Tail, measure_tails, report_tails, tail_verdicts
from benchmarks.outage.throughput import Throughput, hedged, in_tasks, in_threads, large_downloads
from benchmarks.report import on_this_machine, say
from failover.breaker import Cooldown
from failover.demo.account import BadSettings
from failover.storage.geo import PRODUCTION

assert isinstance(PRODUCTION.recovery, Cooldown)  # noqa: S101 (a constant of ours)

SETTING: Final = Setting(attempt=1.0, cooldown=PRODUCTION.recovery.seconds)
QUICK: Final = Timing(before=0.5, outage=2.0, after=2.5, linger=0.2, pace=0.0)
FULL: Final = Timing(before=30.0, outage=400.0, after=330.0, linger=20.0)


def _progress(quiet: bool) -> Callable[[str, float], None]:
    told = -math.inf

    def progress(what: str, left: float) -> None:
        nonlocal told
        if not quiet and time.monotonic() - told >= 10:
            told = time.monotonic()
            sys.stderr.write(f"{what}; {left:.0f} s left at most\n")
            sys.stderr.flush()

    return progress


def _run(
    options: argparse.Namespace, setting: Setting, timing: Timing
) -> tuple[Run | None, list[Throughput], list[Tail]]:
    size = QUICK_TAIL if options.quick else Size()
    tails = measure_tails(options.worlds, setting, size, _say_aside)
    accounts = azurite if options.account == "azurite" else standins
    threshold = production(setting).trip.threshold
    with accounts((HEALTHY, *options.kinds), setting.attempt) as places:
        measured = []
        if options.pairs:
            place = places.places[HEALTHY]
            for threads in (1, 16):
                _say_aside(f"reads per second, {threads} at once")
                measured.append(in_threads(place, threads, options.block, options.pairs))
            _say_aside("reads per second, aio")
            measured.append(in_tasks(place, 16, options.block, options.pairs))
            for connections in (1, 4):
                _say_aside(f"downloads of 64 MiB, {connections} at once")
                measured.append(large_downloads(place, connections, max(2, options.pairs // 20)))
            if options.worlds:
                _say_aside("reads per second, hedged")
                measured += hedged(place, HEDGE_AFTER, options.block, options.pairs)
        run = measure(places, setting, timing, threshold, _progress(options.quick)) if options.kinds else None
    return run, measured, tails


def _say_aside(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.outage", description=__doc__)
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--quick", action="store_true", help="some seconds: to see that it works, not for figures")
    length.add_argument("--full", action="store_true", help="an outage of 400 s and its recovery, more pairs of blocks")
    parser.add_argument(
        "--kinds", nargs="+", choices=(*KINDS, *WORLDS), metavar="KIND", help=", ".join((*KINDS, *WORLDS))
    )
    parser.add_argument(
        "--account",
        choices=("stand-in", "azurite"),
        default="stand-in",
        help="azurite: the one of AZURE_STORAGE_CONNECTION_STRING, with the faults in the client's transport",
    )
    parser.add_argument("--outage", type=float, metavar="SECONDS", help="how long the primary is out (105)")
    parser.add_argument(
        "--attempt",
        type=float,
        metavar="SECONDS",
        help="time-out of one attempt, for all configurations (1)",
    )
    parser.add_argument("--cooldown", type=float, metavar="SECONDS", help="of GeoFailover's default policy (30)")
    parser.add_argument("--pairs", type=int, help="pairs of blocks for reads per second (201); 0: leave that out")
    parser.add_argument("--block", type=int, default=40, help="reads in one block (40)")
    parser.add_argument("--picture", type=Path, metavar="NAME", help="draw NAME.svg and NAME.png, and NAME-dark")
    parser.add_argument("--save", type=Path, metavar="FILE", help="write each read of the outage, as JSON")
    parser.add_argument("--load", type=Path, metavar="FILE", help="report and draw what --save wrote, measure nothing")
    options = parser.parse_args()
    chosen = options.kinds or [*KINDS, *(WORLDS if options.account == "stand-in" else ())]
    options.kinds = [kind for kind in chosen if kind in KINDS]
    options.worlds = [kind for kind in chosen if kind in WORLDS]
    if options.worlds and options.account != "stand-in":
        parser.error(f"{' and '.join(WORLDS)} are worlds of the stand-in alone")
    if options.pairs is None:
        options.pairs = 3 if options.quick else 801 if options.full else 201
    if options.quick:
        options.block = 16
    return options


def main() -> int:
    options = _options()
    logging.getLogger("azure").setLevel(logging.CRITICAL)  # it warns of each body that broke off
    timing = QUICK if options.quick else FULL if options.full else Timing()
    if options.outage is not None:
        timing = replace(timing, outage=options.outage)
    cooldown = options.cooldown or (1.0 if options.quick else SETTING.cooldown)
    attempt = options.attempt or (0.3 if options.quick else SETTING.attempt)
    setting = Setting(attempt, cooldown)
    measured: list[Throughput] = []
    tails: list[Tail] = []
    about = {"machine": on_this_machine(), "versions": _versions(), "settings": _settings(options, setting)}
    run: Run | None
    if options.load:
        run = Run.load(options.load)
    else:
        try:
            run, measured, tails = _run(options, setting, timing)
        except BadSettings as bad:
            sys.stderr.write(f"{bad}\n")
            return 2
    if run is not None:
        run.about = run.about or about
        about = run.about
    if options.save and run is not None:
        run.save(options.save)
    for line in about.values():
        say(line)
    if run is not None:
        report(run)
    if tails:
        report_tails(tails)
    if measured:
        report_throughput(measured)
    say()
    found = [*(() if run is None else verdicts(run)), *tail_verdicts(tails), *throughput_verdicts(measured)]
    for verdict in found:
        say(str(verdict))
    for file in _pictures(run, tails, options.picture):
        say(f"wrote {file}")
    return 0 if all(verdict.holds is not False for verdict in found) else 1


def _pictures(run: Run | None, tails: list[Tail], name: Path | None) -> Iterator[Path]:
    if name is None:
        return
    if run is not None:
        from benchmarks.outage.picture import draw

        yield from draw(run, name)
    if tails:
        from benchmarks.outage.tail_picture import draw as draw_tails

        yield from draw_tails(tails, name.with_name(f"{name.name}-tail" if run is not None else name.name))


def _settings(options: argparse.Namespace, setting: Setting) -> str:
    policy = production(setting)
    return (
        f"account: {options.account}; one attempt may take {setting.attempt:g} s in every configuration (the SDK's own "
        f"time-out is 60 s)\n{OURS}: {policy.trip}, {policy.recovery}\n"
        f"{OURS}, demo: the demonstration's policy: 20 reads at the secondary, then a probe; slow answers are failures"
    )


def _versions() -> str:
    """The SDK's packages, one line."""
    return ", ".join(f"{name} {metadata.version(name)}" for name in ("azure-storage-blob", "azure-core"))
