"""A soak: many reads by many threads while faults switch at random, and what is left behind afterwards.

    python -m tests.faults.soak --reads 200000 --threads 16 --seed 1
    python -m tests.faults.soak --reads 100000 --hedge 0.05

Every read must return the right bytes; `BothEndpointsDown` is right only where both endpoints were out. Prints
progress and a table, and exits with 1 where anything was wrong. The servers have a process of their own, so that
what leaks here is ours. `test_soak.py` runs ten seconds of it.
"""

from __future__ import annotations

import argparse
import gc
import logging
import random
import socket
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from azure.core.exceptions import AzureError

from failover.breaker import ConsecutiveFailures, Cooldown, Policy
from failover.storage import BothEndpointsDown, GeoFailover, ReadEnded, Retry
from tests.faults.endpoints import CONTENTS, COOLDOWN, KINDS, SILENCE, Account, serving
from tests.storage.account import KIB
from tests.storage.clients import connect

WEIGHTS: Final = (50, 40, 10)
RANGE: Final = 16 * KIB  # what one request asks for: the largest blob takes seven
BLOCK: Final = KIB  # what the SDK takes of a body at once: a break leaves something to go on from
CALM: Final = (4.0, 8.0)  # seconds from one fault of the secondary's to the next: the primary's must be survived
QUARTERS: Final = 4
LONGEST: Final = 180.0
"""Seconds that a read may take: where both endpoints were slow at once, it waits at the primary for the SDK's own 60 s,
and then for its three retries (84 s), as it would without us."""


# --- what is left behind ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Holdings:
    """What the process holds while no read is under way."""

    threads: int
    sockets: int
    objects: int
    mib: float

    @classmethod
    def now(cls) -> Holdings:
        gc.collect()
        everything = gc.get_objects()
        sockets = sum(isinstance(each, socket.socket) and each.fileno() >= 0 for each in everything)
        return cls(threading.active_count(), sockets, len(everything), _resident())

    def exceed(self, before: Holdings) -> list[str]:
        """What has grown by more than chance."""
        limits = {
            "threads": before.threads,
            "sockets": max(before.sockets + 4, 24),  # a pool keeps ten connections to each endpoint
            "objects": before.objects * 1.05 + 2000,
            "mib": before.mib * 1.2 + 16,
        }
        return [
            f"{name} {getattr(before, name):,.0f} -> {getattr(self, name):,.0f}"
            for name, limit in limits.items()
            if getattr(self, name) > limit
        ]


def _hedging_threads() -> int:
    return sum(each.name == "failover-hedge" for each in threading.enumerate())


def _resident() -> float:
    """MiB of memory in use, 0 where the system does not tell it in a file."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096 / KIB**2
    return 0.0


# --- the reads -------------------------------------------------------------------------------------------------


class Soak:
    """`threads` threads that read while `run` switches faults; ends after `reads` of them or `seconds`.

    hedge: seconds after which reads are hedged, as many as are slow; None: never.
    """

    def __init__(
        self,
        account: Account,
        *,
        reads: int,
        threads: int,
        seed: int,
        seconds: float = float("inf"),
        hedge: float | None = None,
    ) -> None:
        self._account = account
        self._total, self._threads, self._seconds = reads, threads, seconds
        self._random = random.Random(seed)
        self._seed = seed
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._gate = threading.Event()
        self._busy, self._stop = 0, False
        self._under_way: dict[int, float] = {}
        self.done = 0
        self.outcomes: Counter[str] = Counter()
        self.phases: Counter[str] = Counter()
        self.retries: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.holdings: list[Holdings] = []
        self.slowest = 0.0
        recovery = Cooldown(COOLDOWN, jitter=0.2)
        self._calm_until = time.monotonic() + 2.0
        self.policy = GeoFailover(
            policy=Policy(trip=ConsecutiveFailures(5), recovery=recovery, probe_lease=5.0),
            attempt_timeout=SILENCE,
            hedge_after=hedge,
            hedge_budget=1.0,
            listeners=[self._hear],
        )
        self.service = connect(
            account,
            self.policy,
            max_single_get_size=RANGE,
            max_chunk_get_size=RANGE,
            connection_data_block_size=BLOCK,
        )

    def _hear(self, event: object) -> None:
        if isinstance(event, ReadEnded):
            with self._lock:
                self.outcomes[f"requests answered by {event.endpoint or 'nobody'}"] += 1
                self.outcomes["requests hedged"] += event.hedged
        elif isinstance(event, Retry):
            with self._lock:
                self.retries[event.error] += 1

    def _read_on(self, seed: int) -> None:
        rng = random.Random(seed)
        names = list(CONTENTS)
        while not self._stop:
            self._gate.wait()
            with self._lock:
                if self._stop or not self._gate.is_set():
                    continue
                self._busy += 1
            try:
                if not self.read(rng.choices(names, WEIGHTS)[0]):
                    time.sleep(0.02)  # as anybody does who was told that nobody answers
            finally:
                with self._lock:
                    self._busy -= 1
                    self.done += 1

    def read(self, name: str) -> bool:
        """Read and judge once; True where the bytes are right."""
        began, outcome, wrong = time.monotonic(), "right", None
        self._under_way[threading.get_ident()] = began
        try:
            if self.service.get_blob_client("demo", name).download_blob().readall() != CONTENTS[name]:
                outcome = wrong = "the wrong bytes"
        except BothEndpointsDown as error:
            outcome = "both endpoints down"
            if not self._account.both_out(began, time.monotonic()):
                wrong = f"{outcome}, although one was well: {error}"
        except AzureError as error:
            outcome = wrong = f"{type(error).__name__}: {error}"
        except Exception as error:
            outcome = wrong = f"{type(error).__name__}: {error}"
        ended = time.monotonic()
        took, excusable = ended - began, self._account.both_out(began, ended)
        with self._lock:
            self._under_way.pop(threading.get_ident(), None)
            self.outcomes[outcome] += 1
            self.outcomes["no excuse to fail"] += not excusable
            self.slowest = max(self.slowest, took)
            if wrong is not None:
                under_way = sorted((round(ended - each, 2) for each in self._under_way.values()), reverse=True)
                self.wrong.append(
                    f"seed {self._seed}, read {self.done}, {name}, {took:.2f} s, {ended - self._began:.1f} s on, "
                    f"faults {self._account.faults}, out before {self._account.since(ended)} s, reads under way for "
                    f"{under_way} s: {wrong}"
                )
        return outcome == "right"

    def run(self, say: Callable[[str], object] = lambda _: None) -> None:
        """All of it. `self.wrong` says what should not have been."""
        self._began = began = time.monotonic()
        workers = [
            threading.Thread(target=self._read_on, args=(self._random.random(),), name=f"reader {n}", daemon=True)
            for n in range(self._threads)
        ]
        for worker in workers:
            worker.start()
        over = threading.Event()
        witness = threading.Thread(target=self._account.witness, args=(over,), name="witness", daemon=True)
        witness.start()
        try:
            for quarter in range(1, QUARTERS + 1):
                until = time.monotonic() + self._seconds / QUARTERS
                self._gate.set()
                while self.done < self._total * quarter / QUARTERS and time.monotonic() < until:
                    self._switch()
                    time.sleep(self._random.uniform(0.05, 0.4))
                self._rest()
                self.holdings.append(Holdings.now())
                rate = self.done / (time.monotonic() - began)
                say(f"{self.done:>8,} reads, {rate:,.0f}/s, {len(self.wrong)} wrong, {self.holdings[-1]}")
                for each in self.wrong[-3:]:
                    say(each)
        finally:
            self._stop = True
            self._gate.set()
            over.set()
            for worker in workers:
                worker.join(60)
            witness.join(60)
            self.service.close()
        self.wrong += [f"grown: {each}" for each in self.holdings[-1].exceed(self.holdings[0])]

    def _switch(self) -> None:
        rng = self._random
        primary = "well" if rng.random() < 0.4 else rng.choices(KINDS, (3, 1, 3, 5, 1, 2, 1))[0]
        secondary = "well"
        if time.monotonic() >= self._calm_until:
            # What trickles holds a probe's place for longer than the memory is.
            secondary = rng.choice(KINDS[:-1])
            self._calm_until = time.monotonic() + rng.uniform(*CALM)
        self.phases[f"primary {primary}"] += 1
        self.phases[f"secondary {secondary}"] += 1
        self._account.switch(primary=primary, secondary=secondary)

    def _rest(self) -> None:
        """No fault and no read, and both circuits closed again: one that is stuck is wrong."""
        self._gate.clear()
        deadline = time.monotonic() + LONGEST
        while self._busy and time.monotonic() < deadline:
            time.sleep(0.05)
        if self._busy:
            self.wrong.append(f"{self._busy} reads have not ended within {LONGEST:g} s")
        for broken, circuit in (("primary", self.policy.secondary), ("secondary", self.policy.primary)):
            # The one is asked only while the other is out.
            self._account.switch(primary="well", secondary="well")
            self._account.switch(**{broken: "down"})
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline and not (self.read("blob13") and circuit.state.value == "closed"):
                time.sleep(0.05)
            if circuit.state.value != "closed":
                self.wrong.append(f"a circuit is stuck: {circuit.snapshot()}")
        self._account.switch(primary="well", secondary="well")
        deadline = time.monotonic() + 30
        while _hedging_threads() and time.monotonic() < deadline:  # they end when they have been idle for a while
            time.sleep(0.05)
        if _hedging_threads():
            self.wrong.append(f"{_hedging_threads()} threads of losers are left over")

    def table(self) -> list[str]:
        """What happened, for people."""
        parts = {"outcome": self.outcomes, "phases with": self.phases, "failed tries": self.retries}
        lines = [f"{n:>9,}  {title}: {what}" for title, part in parts.items() for what, n in part.most_common()]
        lines.append(f"{self._account.late:>9,}  times the machine was too busy for an endpoint that was well")
        lines.append(f"{self.slowest:>9.2f}  seconds took the slowest read")
        lines += [f"           quarter {n}: {each}" for n, each in enumerate(self.holdings, 1)]
        return lines


def main() -> int:
    """Options in, exit code out."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--reads", type=int, default=200_000)
    options.add_argument("--threads", type=int, default=16)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--hedge", type=float, metavar="SECONDS", help="hedge reads (never)")
    chosen = options.parse_args()
    logging.getLogger("azure").addHandler(logging.NullHandler())  # it warns of each body that breaks off
    with serving() as account:
        soak = Soak(account, reads=chosen.reads, threads=chosen.threads, seed=chosen.seed, hedge=chosen.hedge)
        began = time.monotonic()
        soak.run(lambda line: print(line, flush=True))
        took = time.monotonic() - began
    print(*soak.table(), sep="\n")
    print(f"seed {chosen.seed}: {soak.done:,} reads in {took:.0f} s, {len(soak.wrong)} wrong")
    print(*soak.wrong[:50], sep="\n")
    return 1 if soak.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
