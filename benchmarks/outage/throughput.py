"""Reads per second of a healthy account through GeoFailover, beside the bare SDK: pairs of short runs, in turn."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlsplit

from azure.storage.blob import BlobServiceClient
from azure.storage.blob.aio import BlobServiceClient as AsyncBlobServiceClient

from benchmarks.outage.accounts import BLOB, CONTENT, Place
from failover.storage import AsyncGeoFailover, GeoFailover

SHARE: Final = 0.95
"""The demand: of the bare SDK's reads per second."""
HEDGED_SHARE: Final = 0.9
"""In threads, with hedging on: each request is handed to another thread."""

LARGE: Final = 64 * 1024 * 1024
"""Bytes of the blob of `large_downloads`."""
_LARGE_BLOB: Final = "Large"

_Block = Callable[[int], float]
"""Makes so many reads, gives the seconds."""


@dataclass(frozen=True)
class Throughput:
    """bare, ours: reads per second, the median of the blocks. ratios: ours to bare, pair by pair, in order of size.

    than, what: what the two are. share: the demand.
    """

    how: str
    bare: float
    ours: float
    ratios: list[float]
    than: str = "bare SDK"
    what: str = "GeoFailover"
    share: float = SHARE

    @property
    def ratio(self) -> float:
        return statistics.median(self.ratios)

    @property
    def spread(self) -> tuple[float, float]:
        """The middle half of the ratios."""
        quarters = statistics.quantiles(self.ratios, n=4)
        return quarters[0], quarters[2]


def compare(how: str, bare: _Block, ours: _Block, reads: int, pairs: int) -> Throughput:
    """`pairs` pairs of blocks of `reads` reads, the one first and then the other."""
    for block in (bare, ours):
        block(reads)  # connects, and warms up
    taken: dict[_Block, list[float]] = {bare: [], ours: []}
    for turn in range(pairs):
        gc.collect()
        for block in (bare, ours) if turn % 2 else (ours, bare):
            taken[block].append(block(reads))
    ratios = sorted(one / other for one, other in zip(taken[bare], taken[ours], strict=True))
    return Throughput(how, reads / statistics.median(taken[bare]), reads / statistics.median(taken[ours]), ratios)


def in_threads(place: Place, threads: int, reads: int, pairs: int) -> Throughput:
    """By so many threads, all of one client."""
    with _threads(place, threads, {}) as bare, _threads(place, threads, {"retry_policy": GeoFailover()}) as ours:
        return compare(f"{threads} thread{'s' if threads > 1 else ''}", bare, ours, reads, pairs)


def in_tasks(place: Place, tasks: int, reads: int, pairs: int) -> Throughput:
    """By so many tasks of one event loop, all of one `aio` client."""
    with asyncio.Runner() if hasattr(asyncio, "Runner") else _Runner() as runner:
        bare, close_bare = _tasks(runner, place, tasks, {})
        ours, close_ours = _tasks(runner, place, tasks, {"retry_policy": AsyncGeoFailover()})
        try:
            return compare(f"aio, {tasks} tasks", bare, ours, reads, pairs)
        finally:
            close_bare()
            close_ours()


def hedged(place: Place, after: float, reads: int, pairs: int) -> Iterator[Throughput]:
    """With hedging on, beside the bare SDK and beside `GeoFailover` without it."""
    what = f"hedge_after={after:g}"
    for than, make in (("bare SDK", None), ("GeoFailover", GeoFailover)):
        for threads in (1, 16):
            on: Any = {"retry_policy": GeoFailover(hedge_after=after)}
            off: Any = {} if make is None else {"retry_policy": make()}
            with _threads(place, threads, off) as one, _threads(place, threads, on) as other:
                of = compare(f"{threads} thread{'s' if threads > 1 else ''}", one, other, reads, pairs)
                yield replace(of, than=than, what=what, share=HEDGED_SHARE)
        with asyncio.Runner() if hasattr(asyncio, "Runner") else _Runner() as runner:
            off = {} if make is None else {"retry_policy": AsyncGeoFailover()}
            one, close_one = _tasks(runner, place, 16, off)
            other, close_other = _tasks(runner, place, 16, {"retry_policy": AsyncGeoFailover(hedge_after=after)})
            try:
                yield replace(compare("aio, 16 tasks", one, other, reads, pairs), than=than, what=what)
            finally:
                close_one()
                close_other()


def large_downloads(place: Place, connections: int, pairs: int) -> Throughput:
    """Of a blob of 64 MiB, over so many connections of one client."""
    with BlobServiceClient(place.primary, use_env_settings=False, **_options(place)) as service:
        service.get_blob_client(place.container, _LARGE_BLOB).upload_blob(bytes(LARGE), overwrite=True)
    bare, ours = (_large(place, connections, options) for options in ({}, {"retry_policy": GeoFailover()}))
    return compare(f"64 MiB, {connections} connection{'s' if connections > 1 else ''}", bare, ours, 1, pairs)


def _large(place: Place, connections: int, options: dict[str, Any]) -> _Block:
    service = BlobServiceClient(place.primary, use_env_settings=False, **_options(place), **options)
    blob = service.get_blob_client(place.container, _LARGE_BLOB)

    def block(reads: int) -> float:
        began = time.perf_counter()
        for _ in range(reads):
            if len(blob.download_blob(max_concurrency=connections).readall()) != LARGE:
                raise RuntimeError("a read was short")
        return time.perf_counter() - began

    return block


def _options(place: Place) -> dict[str, Any]:
    secondary = urlsplit(place.secondary)
    return {"credential": place.credential, "secondary_hostname": secondary.netloc + secondary.path}


@contextmanager
def _threads(place: Place, threads: int, options: dict[str, Any]) -> Iterator[_Block]:
    service = BlobServiceClient(place.primary, use_env_settings=False, **_options(place), **options)
    blob = service.get_blob_client(place.container, BLOB)

    def read(times: int) -> None:
        for _ in range(times):
            if len(blob.download_blob().readall()) != len(CONTENT):
                raise RuntimeError("a read was short")

    with service, ThreadPoolExecutor(threads) as pool:

        def block(reads: int) -> float:
            began = time.perf_counter()
            if threads == 1:
                read(reads)
            else:
                list(pool.map(read, [reads // threads] * threads))
            return time.perf_counter() - began

        yield block


def _tasks(runner: Any, place: Place, tasks: int, options: dict[str, Any]) -> tuple[_Block, Callable[[], None]]:
    service = AsyncBlobServiceClient(place.primary, **_options(place), **options)
    blob = service.get_blob_client(place.container, BLOB)

    async def read(times: int) -> None:
        for _ in range(times):
            if len(await (await blob.download_blob()).readall()) != len(CONTENT):
                raise RuntimeError("a read was short")

    async def together(times: int) -> None:
        await asyncio.gather(*(read(times) for _ in range(tasks)))

    def block(reads: int) -> float:
        began = time.perf_counter()
        runner.run(together(reads // tasks))
        return time.perf_counter() - began

    return block, lambda: runner.run(service.close())


class _Runner:
    """`asyncio.Runner`, which Python 3.10 has not."""

    def __enter__(self) -> _Runner:
        self._loop = asyncio.new_event_loop()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.close()

    def run(self, steps: Awaitable[Any]) -> Any:
        return self._loop.run_until_complete(steps)
