"""A process whose circuits are idle, and what it asks of a store meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from benchmarks import ROOT
from benchmarks.report import say
from failover.breaker import Breakers, State
from failover.breaker.distributed.record import SharedRecord, encode
from failover.breaker.stores import open_store

_NOTHING: Final = encode(SharedRecord(State.CLOSED, "0"))
_LATELY: Final = 12.0  # seconds for which a table's new records are asked for again and again
_SETTLED: Final = 3.0  # seconds without an operation more than a refresh's after which all circuits have looked


def uri(number: int) -> str:
    return f"https://service{number}.example/"


@contextmanager
def server(kind: str, folder: Path) -> Iterator[tuple[str, str, Callable[[], int]]]:
    """URL and connection string of an empty store, and what counts its operations."""
    from tests.breaker.conftest import connection_string
    from tests.breaker.stores.fronts import front
    from tests.redis_server import run_redis
    from tests.servers import run_azurite

    if kind == "memory":
        yield "memory://", "", lambda: 0
    elif kind == "redis":
        import redis

        with run_redis(folder) as running:
            client: Any = redis.Redis(port=running.port)
            asked = iter(range(1, sys.maxsize))  # INFO counts itself
            yield running.url, "", lambda: int(client.info("stats")["total_commands_processed"]) - next(asked)
    else:
        with run_azurite(folder) as azurite:
            url = azurite.primary_url if kind == "blob" else azurite.table_url
            port = url.split(":")[2].split("/")[0]
            with front(int(port)) as counter:
                moved = url.replace(port, str(counter.port))
                account = connection_string(replace(azurite, primary_url=moved, table_url=moved))
                yield f"{kind}://circuits", account, lambda: counter.requests


def fill(url: str, account: str, count: int) -> None:
    """A record of each circuit, as one that has opened and closed leaves it."""
    store = open_store(url, account or None)

    def write(number: int) -> None:
        if store.compare_and_set(uri(number), _NOTHING, None) is None:
            raise RuntimeError("the store was not empty")

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(count)))
    store.close()
    if url.startswith("table"):
        time.sleep(_LATELY)


def measure(kind: str, count: int, records: bool, seconds: float) -> tuple[float, float]:
    """Operations per minute, and the share of a core, of one idle process."""
    with tempfile.TemporaryDirectory() as folder, server(kind, Path(folder)) as (url, account, operations):
        if records:
            fill(url, account, count)
        command = [sys.executable, "-m", "benchmarks.stores", "--idle", str(count)]
        process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603 (our own program)
        with process:
            _tell(process, json.dumps([url, account]))
            _hear(process)
            _wait_until_settled(operations)
            before, started = operations(), time.monotonic()
            _tell(process, "measure")
            time.sleep(seconds)
            passed, done = time.monotonic() - started, operations() - before
            _tell(process, "end")
            busy = float(_hear(process))
        return done / passed * 60, busy / passed


def _tell(process: subprocess.Popen[str], line: str) -> None:
    process.stdin.write(f"{line}\n")  # type: ignore[union-attr]
    process.stdin.flush()  # type: ignore[union-attr]


def _hear(process: subprocess.Popen[str]) -> str:
    return process.stdout.readline()  # type: ignore[union-attr]


def _wait_until_settled(operations: Callable[[], int]) -> None:
    while True:
        before = operations()
        time.sleep(_SETTLED)
        if operations() - before <= 10 * _SETTLED:
            return


def idle(count: int) -> None:
    """The process that is measured."""
    url, account = json.loads(sys.stdin.readline())
    breakers = Breakers(store=open_store(url, account or None))
    for number in range(count):
        breakers.on(uri(number)).call(int)
    say("ready")
    sys.stdin.readline()
    started = time.process_time()
    sys.stdin.readline()
    say(f"{time.process_time() - started}")
