"""A mixed load while one endpoint at a time is faulty: no read may fail, for the other endpoint could answer it.

    python -m tests.faults.mixed --seconds 60 --threads 32 --tasks 200 --seed 1

Threads and tasks read all the time, each kind through a client of its own. The fault moves between the endpoints
without a pause: what it left behind on the one, an open circuit, is there while the other is faulty. Exits with 1
where a read failed or got the wrong bytes. The servers have a process of their own. `test_mixed.py` runs some seconds
of it.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from azure.storage.blob import ExponentialRetry
from azure.storage.blob.aio import BlobServiceClient as AsyncBlobServiceClient
from azure.storage.blob.aio import ExponentialRetry as AsyncExponentialRetry

from failover.storage import AsyncGeoFailover, GeoFailover
from tests.faults.endpoints import CONTENTS, MORE_KINDS, SILENCE, Account, serving
from tests.servers import credential
from tests.storage.account import KIB
from tests.storage.clients import connect

_WEIGHTS: Final = (50, 40, 10)
_RANGE: Final = 32 * KIB  # what one request asks for: the largest blob takes four
_PHASE: Final = (0.3, 2.5)  # seconds for which a fault lasts
_HARMFUL: Final = [kind for kind in MORE_KINDS if kind != "slow"]
_PAUSE: Final = (0.1, 1.0)  # seconds of a reader's between two reads: two cores are enough for all
_OVER: Final = 60.0  # seconds that the last reads may take
_OPTIONS: Final[dict[str, Any]] = {"max_single_get_size": _RANGE, "max_chunk_get_size": _RANGE}


def _retry(kind: Any) -> Any:
    """The SDK's, but for its patience: a read that meets the fault at both endpoints, while it moves, waits for it."""
    return kind(initial_backoff=1, increment_base=2, random_jitter_range=1)


class Mixed:
    """Readers, in threads and in tasks, while `run` moves the fault about."""

    def __init__(self, account: Account, *, seconds: float, threads: int, tasks: int, seed: int) -> None:
        self._account = account
        self._seconds, self._threads, self._tasks = seconds, threads, tasks
        self._seed = seed
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._stop = False
        self._began = time.monotonic()
        self.reads: Counter[str] = Counter()
        self.phases: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.excused: list[str] = []
        self.slowest = 0.0

    def run(self, say: Callable[[str], object] = lambda _: None) -> None:
        """All of it. `self.wrong` says what should not have been."""
        policy = GeoFailover(attempt_timeout=SILENCE, retry=_retry(ExponentialRetry))
        service = connect(self._account, policy, **_OPTIONS)
        readers = [threading.Thread(target=self._read_on, args=(service, n), daemon=True) for n in range(self._threads)]
        readers.append(threading.Thread(target=asyncio.run, args=(self._read_in_tasks(),), daemon=True))
        over = threading.Event()
        witness = threading.Thread(target=self._account.witness, args=(over,), daemon=True)
        for each in (*readers, witness):
            each.start()
        try:
            said = self._began = time.monotonic()
            while time.monotonic() - self._began < self._seconds:
                self._move()
                if time.monotonic() - said > 10:
                    said = time.monotonic()
                    say(f"{said - self._began:4.0f} s, {sum(self.reads.values()):,} reads, {len(self.wrong)} wrong")
        finally:
            self._stop = True
            self._account.switch(primary="well", secondary="well")
            until = time.monotonic() + _OVER
            for each in readers:
                each.join(max(0.0, until - time.monotonic()))
            over.set()
            witness.join(_OVER)
            service.close()
        if any(each.is_alive() for each in readers):
            self.wrong.append(f"a read has not ended {_OVER:g} s after all was well")

    def _move(self) -> None:
        """Let another fault be on, at one endpoint, for a while."""
        at, kind = self._random.choice(("primary", "secondary")), self._random.choice(_HARMFUL)
        self.phases[f"{at}: {kind}"] += 1
        self._account.switch(primary="well", secondary="well")  # never both, not even for a moment
        self._account.switch(**{at: kind})
        time.sleep(self._random.uniform(*_PHASE))

    # --- readers -----------------------------------------------------------------------------------------------

    def _read_on(self, service: Any, number: int) -> None:
        rng = random.Random(f"{self._seed} thread {number}")
        while not self._stop:
            name = rng.choices(list(CONTENTS), _WEIGHTS)[0]
            began = time.monotonic()
            try:
                came: Any = service.get_blob_client("demo", name).download_blob().readall()
            except Exception as error:
                came = error
            self._judge("thread", name, began, came)
            time.sleep(rng.uniform(*_PAUSE))

    async def _read_in_tasks(self) -> None:
        secondary = urlsplit(self._account.secondary_url)
        async with AsyncBlobServiceClient(
            self._account.primary_url,
            credential=credential(self._account),
            secondary_hostname=secondary.netloc + secondary.path,
            retry_policy=AsyncGeoFailover(attempt_timeout=SILENCE, retry=_retry(AsyncExponentialRetry)),
            **_OPTIONS,
        ) as service:
            await asyncio.gather(*(self._read_on_in_task(service, n) for n in range(self._tasks)))

    async def _read_on_in_task(self, service: Any, number: int) -> None:
        rng = random.Random(f"{self._seed} task {number}")
        while not self._stop:
            await asyncio.sleep(3 * rng.uniform(*_PAUSE))
            name = rng.choices(list(CONTENTS), _WEIGHTS)[0]
            began = time.monotonic()
            try:
                came: Any = await (await service.get_blob_client("demo", name).download_blob()).readall()
            except Exception as error:
                came = error
            self._judge("task", name, began, came)

    def _judge(self, who: str, name: str, began: float, came: Any) -> None:
        ended = time.monotonic()
        with self._lock:
            self.slowest = max(self.slowest, ended - began)
            if came == CONTENTS[name]:
                self.reads[f"{who}: right"] += 1
                return
            what = f"{type(came).__name__}: {came}" if isinstance(came, Exception) else "the wrong bytes"
            self.reads[f"{who}: {what.partition(':')[0]}"] += 1
            line = (
                f"seed {self._seed}, {ended - self._began:.1f} s on, {name}, {who}, after {ended - began:.2f} s, "
                f"faults {self._account.faults}: {what}"
            )
            late = isinstance(came, Exception) and self._account.was_late(began, ended)
            (self.excused if late else self.wrong).append(line)

    def table(self) -> list[str]:
        """What happened, for people."""
        lines = [f"{n:>9,}  reads, {what}" for what, n in self.reads.most_common()]
        lines += [f"{n:>9,}  times {what}" for what, n in self.phases.most_common()]
        lines.append(f"{self._account.late:>9,}  times the machine was too busy for an endpoint that was well")
        lines.append(f"{len(self.excused):>9,}  reads failed because of that")
        return [*lines, f"{self.slowest:>9.2f}  seconds took the slowest read"]


def main() -> int:
    """Options in, exit code out."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--seconds", type=float, default=60.0)
    options.add_argument("--threads", type=int, default=32)
    options.add_argument("--tasks", type=int, default=200)
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args()
    for name in ("azure", "urllib3", "failover"):  # they warn of each body that breaks off, and of a full pool
        logging.getLogger(name).addHandler(logging.NullHandler())
    with serving() as account:
        mixed = Mixed(account, **vars(chosen))
        mixed.run(lambda line: print(line, flush=True))
    print(*mixed.table(), *mixed.wrong[:50], sep="\n")
    print(f"seed {chosen.seed}: {sum(mixed.reads.values()):,} reads, {len(mixed.wrong)} wrong")
    return 1 if mixed.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
