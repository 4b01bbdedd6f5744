"""Two processes share their circuits over a real Redis, and one of them loses its network: the other is fine."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import pytest

from failover.breaker import CircuitBreaker, ConsecutiveFailures, Cooldown, Policy
from failover.breaker.stores import open_store
from failover.standin import StandIn
from tests.redis_server import RedisServer, run_redis
from tests.storage.account import HELLO, store
from tests.storage.both_kinds import close, geo_failover, read, run, service
from tests.storage.raw_server import Relay

pytestmark = pytest.mark.redis

REFRESH: Final = 0.05  # seconds; the store's own is 1
COOLDOWN: Final = 3.0  # seconds, for 30
AWAY: Final = 2.0  # seconds, for 20
PAUSE: Final = 0.02  # seconds from one read to the next


@dataclass(frozen=True)
class Job:
    """A process's reads: with which kind of client, of which endpoints, and over which store."""

    kind: str
    primary_url: str
    secondary_url: str
    store_url: str
    account: dict[str, str]
    fail_fast: bool


def read_on(job: Job, line: Connection) -> None:
    """Read until told to end; then say what became of each read: when it began, its seconds, and its error."""
    shared = open_store(job.store_url)
    shared.refresh = REFRESH
    policy = Policy(trip=ConsecutiveFailures(5), recovery=Cooldown(COOLDOWN))
    circuits = [CircuitBreaker(name, policy, store=shared) for name in ("one", "two")]
    settings: dict[str, Any] = {"retry": None} if job.fail_fast else {}
    # A failing read of the process that is cut off shall not wait for the SDK's backoff.
    call: dict[str, Any] = {} if job.fail_fast else {"retry_total": 0}
    geo = geo_failover(job.kind, *circuits, **settings)

    async def play() -> list[tuple[float, float, str]]:
        client = service(
            job.kind,
            job.primary_url,
            credential=job.account,
            secondary_hostname=job.secondary_url.partition("://")[2],
            retry_policy=geo,
        )
        outcomes: list[tuple[float, float, str]] = []
        line.send("ready")
        while not line.poll(PAUSE):  # blocks the loop too: nothing else runs in it
            began = time.monotonic()
            try:
                assert await read(client, **call) == HELLO
                error = ""
            except Exception as caught:
                error = f"{type(caught).__name__}: {caught}"
            outcomes.append((began, time.monotonic() - began, error))
        await close(client)
        return outcomes

    line.send(run(job.kind, play()))


@contextmanager
def process(job: Job) -> Iterator[Any]:
    """A process at work; what it gives is its end of the line."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    worker = context.Process(target=read_on, args=(job, theirs), daemon=True)
    worker.start()
    try:
        assert ours.poll(30)
        assert ours.recv() == "ready"
        yield ours
    finally:
        worker.terminate()
        worker.join()


def end(line: Any) -> list[tuple[float, float, str]]:
    line.send("end")
    assert line.poll(30)
    outcomes: list[tuple[float, float, str]] = line.recv()
    return outcomes


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with run_redis(tmp_path) as server:
        yield server


@pytest.fixture
def relays(standin: StandIn) -> Iterator[tuple[Relay, Relay]]:
    """The way of one of the processes to both endpoints."""
    with ExitStack() as stack:
        both = Relay(standin.primary_url), Relay(standin.secondary_url)
        for relay in both:
            stack.callback(relay.lose)
        yield both


def _jobs(kind: str, standin: StandIn, relays: tuple[Relay, Relay], url: str, *, fail_fast: bool) -> tuple[Job, Job]:
    key = {"account_name": standin.account_name, "account_key": standin.account_key}
    healthy = Job(kind, standin.primary_url, standin.secondary_url, url, key, fail_fast)
    return healthy, Job(kind, relays[0].url, relays[1].url, url, key, fail_fast)


@pytest.mark.parametrize("fail_fast", [False, True], ids=["", "without retries"])
def test_a_process_without_a_network_does_not_take_the_others_down(
    client_kind: str, fail_fast: bool, standin: StandIn, relays: tuple[Relay, Relay], redis: RedisServer
) -> None:
    store(standin)
    healthy, cut_off = _jobs(client_kind, standin, relays, redis.url, fail_fast=fail_fast)
    with process(healthy) as one, process(cut_off) as other:
        time.sleep(0.3)
        for relay in relays:
            relay.lose()
        lost = time.monotonic()
        time.sleep(AWAY)
        for relay in relays:
            relay.restore()
        back = time.monotonic()
        time.sleep(0.5)
        theirs, ours = end(other), end(one)

    assert [error for _, _, error in ours if error] == []
    assert max(seconds for _, seconds, _ in ours) < 1
    assert len([began for began, _, _ in ours if lost < began < back]) > 5
    failed = [began for began, _, error in theirs if error]
    assert len(failed) > 10, "it was cut off"
    assert max(failed) < back, "its first read after that is answered"
