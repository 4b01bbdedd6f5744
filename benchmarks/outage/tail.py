"""A primary that limps, or hangs, and what its readers wait: one caller, and fifty, for `benchmarks.outage`."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from azure.core.exceptions import AzureError

from benchmarks.outage.accounts import Accounts, standins
from benchmarks.outage.configurations import HEDGE_AFTER, HEDGED, LEARNED, TAIL, Reader, Setting
from benchmarks.outage.figures import quantile
from benchmarks.outage.server import HANGING, LIMPING
from benchmarks.report import Verdict, say, table
from failover.storage.hedging import LEAST_WAIT, WINDOW

BUDGET: Final = 0.1
"""Share of reads that may be hedged: the default."""
HEALTHY_TIMES: Final = 1.5
"""The demand: what waits longest waits for the hedge, and then so many times as long as a healthy read."""
NOISE: Final = 0.01
"""Seconds that the machine may add to it."""
PATIENT: Final = 5.0
"""Seconds that one attempt may take where the primary limps: GeoFailover's default."""
MANY: Final = 50


@dataclass(frozen=True)
class Size:
    """How much is read. warm: reads before all else, as a policy in production has seen them.

    healthy, limping, hanging: rounds of each caller. pace: seconds from a caller's read to its next, one caller and
    many. most: seconds after which the reads under way are counted with what they have waited by then.
    """

    warm: int = WINDOW
    healthy: int = 5
    rounds: dict[tuple[str, int], int] = field(
        default_factory=lambda: {(LIMPING, 1): 200, (LIMPING, MANY): 20, (HANGING, 1): 60, (HANGING, MANY): 6}
    )
    paces: dict[int, float] = field(default_factory=lambda: {1: 0.02, MANY: 1.0})
    most: float = 120.0


QUICK: Final = Size(
    warm=120,
    healthy=1,
    rounds={(LIMPING, 1): 12, (LIMPING, MANY): 1, (HANGING, 1): 3, (HANGING, MANY): 1},
    paces={1: 0.0, MANY: 0.2},
    most=3.5,
)


@dataclass(frozen=True)
class Tail:
    """What the callers of one configuration waited in one world.

    seconds: of each read, in order of size. unfinished: of them, those that were under way when it was given up.
    healthy: seconds of a median read before. extra: requests beside one for each read, as a share of the reads.
    """

    world: str
    callers: int
    configuration: str
    seconds: list[float]
    failed: int
    unfinished: int
    healthy: float
    slow: float
    extra: float

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def most(self) -> float:
        """Seconds that a read is to wait at most, if hedging does what it is for."""
        after = HEDGE_AFTER if self.configuration == HEDGED else max(LEAST_WAIT, self.slow)
        return after + HEALTHY_TIMES * self.healthy + NOISE


class _Callers:
    """The callers of one configuration."""

    def __init__(self, reader: Reader, callers: int, pace: float) -> None:
        self.reader = reader
        self._callers = callers
        self._pace = pace
        self.seconds: list[float] = []
        self.failed = 0
        self.started: dict[int, float] = {}
        self._threads: list[threading.Thread] = []
        self._over = False

    def begin(self, rounds: int) -> None:
        """Let each caller read so often."""
        self.seconds, self.failed, self.started, self._over = [], 0, {}, False
        self._threads = [
            threading.Thread(target=self._read_on, args=(n, rounds), daemon=True) for n in range(self._callers)
        ]
        for each in self._threads:
            each.start()

    def end(self, until: float) -> int:
        """Wait for them; how many reads are still under way then. Theirs count as long as they have taken."""
        for each in self._threads:
            each.join(max(0.0, until - time.monotonic()))
        self._over = True
        now = time.monotonic()
        waiting = [now - began for began in tuple(self.started.values())]
        self.seconds = sorted([*self.seconds, *waiting])
        return len(waiting)

    def _read_on(self, number: int, rounds: int) -> None:
        # Spread over a pace, so that it is no stampede.
        time.sleep(self._pace * number / self._callers)
        for _ in range(rounds):
            if self._over:
                return
            self.started[number] = began = time.monotonic()
            try:
                self.reader.read()
            except AzureError:
                self.failed += 1
            del self.started[number]
            if self._over:
                return
            self.seconds.append(time.monotonic() - began)
            time.sleep(max(0.0, began + self._pace - time.monotonic()))


def measure_tails(worlds: Sequence[str], setting: Setting, size: Size, progress: Callable[[str], Any]) -> list[Tail]:
    """Each configuration in each world, in turn, at an account of its own: of which each tenth answer is slow.

    Where the primary limps, one attempt may take longer than its slow answers do: a time-out would be the cure.
    """
    found: list[Tail] = []
    for world in worlds:
        of = replace(setting, attempt=max(setting.attempt, PATIENT)) if world == LIMPING else setting
        for callers in (1, MANY):
            for name in TAIL:
                progress(f"{world}, {callers} at once: {name}")
                with standins((world,), of.attempt) as accounts:
                    found.append(_measure(accounts, world, callers, name, of, size))
    return found


def _measure(accounts: Accounts, world: str, callers: int, name: str, setting: Setting, size: Size) -> Tail:
    reader = TAIL[name](accounts, accounts.places[world], setting)
    group = _Callers(reader, callers, size.paces[callers])
    warm = [threading.Thread(target=_read_often, args=(reader, size.warm // 4)) for _ in range(4)]
    for thread in warm:
        thread.start()
    for thread in warm:
        thread.join()
    group.begin(size.healthy * (20 if callers == 1 else 1))
    group.end(time.monotonic() + size.most)
    healthy, before = group.seconds, _requests(reader)
    accounts.switch(True)
    group.begin(size.rounds[world, callers])
    unfinished = group.end(time.monotonic() + size.most)
    reads = len(group.seconds)
    # The budget is one of the last thousand reads: those before this phase are among them.
    extra = (_requests(reader) - before - reads) / max(reads, min(WINDOW, size.warm))
    median, slow = statistics.median(healthy), quantile(healthy, 0.95)
    return Tail(world, callers, name, group.seconds, group.failed, unfinished, median, slow, extra)


def _read_often(reader: Reader, times: int) -> None:
    for _ in range(times):
        reader.read()


def _requests(reader: Reader) -> int:
    return len(reader.watched.hits) + len(reader.watched.elsewhere)


def tail_verdicts(tails: list[Tail]) -> list[Verdict]:
    """What is demanded of hedged reads."""
    found = []
    for each in tails:
        if each.configuration not in (HEDGED, LEARNED):
            continue
        who = f"{each.world}, {'one caller' if each.callers == 1 else f'{each.callers} callers'}, {each.configuration}"
        worst = quantile(each.seconds, 0.99) if each.world == LIMPING else each.seconds[-1]
        what = "p99" if each.world == LIMPING else "worst"
        demand = f"{who}: {what} at most {each.most * 1000:,.0f} ms"
        found.append(Verdict(demand, worst <= each.most, f"{worst * 1000:,.0f} ms"))
        limit = BUDGET + 0.01
        figures = f"{each.extra:.3f}"
        found.append(Verdict(f"{who}: extra requests at most {limit:g} of the reads", each.extra <= limit, figures))
    return found


def report_tails(tails: list[Tail]) -> None:
    """One table for each world."""
    for world in dict.fromkeys(each.world for each in tails):
        of = {LIMPING: "one answer in ten of the primary's takes 3 s", HANGING: "the primary gives no answer"}[world]
        for callers in (1, MANY):
            chosen = [each for each in tails if (each.world, each.callers) == (world, callers)]
            who = "one caller" if callers == 1 else f"{callers} callers"
            say(f"\n{world}: {of}; {who}")
            say(table(["", "reads", "median ms", "p95", "p99", "worst", "failed", "extra"], list(map(_row, chosen))))
    say()
    say(
        "extra: requests beside one for each read, as a share of the last thousand reads.  >: some reads were given up,"
    )
    say("and count as long as they had taken.  Each policy has seen healthy reads before.")


def _row(of: Tail) -> list[str]:
    over = "> " if of.unfinished else ""
    times = [of.median, quantile(of.seconds, 0.95), quantile(of.seconds, 0.99), of.seconds[-1]]
    told = [f"{over if n == 3 else ''}{seconds * 1000:,.0f}" for n, seconds in enumerate(times)]
    return [of.configuration, f"{len(of.seconds):,}", *told, str(of.failed), f"{of.extra:.3f}"]
