"""What only an event loop can ask of AsyncGeoFailover: cancellation, many tasks, circuits shared with threads."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from azure.core.exceptions import AzureError, ResourceNotFoundError
from azure.core.pipeline import PipelineContext, PipelineRequest
from azure.core.rest import HttpRequest
from azure.storage.blob import BlobServiceClient as SyncBlobServiceClient
from azure.storage.blob.aio import BlobClient, BlobServiceClient

from failover.breaker import AfterCalls, CircuitBreaker, ConsecutiveFailures, Policy, State
from failover.standin import Exchange, StandIn
from failover.storage import AsyncGeoFailover, BothEndpointsDown, GeoFailover, ReadEnded, Retry
from tests.servers import Account, credential
from tests.storage.account import CONTENT, HELLO, KIB, MIB, Trail, cut, delay, spoil, status, store
from tests.storage.async_client import in_loop
from tests.storage.clients import TEACHING, blob_of
from tests.storage.raw_server import Answer, Pair, RawServer, ranged

ONE_PROBE = Policy(recovery=AfterCalls(1))


def service_of(account: Account, policy: Any, **options: Any) -> BlobServiceClient:
    return BlobServiceClient(
        account.primary_url,
        credential=credential(account),
        secondary_hostname=account.secondary_url.partition("://")[2],
        retry_policy=policy,
        **options,
    )


async def read(blob: BlobClient) -> bytes:
    return await (await blob.download_blob()).readall()


async def until(happened: Callable[[], bool]) -> None:
    async def wait() -> None:
        while not happened():
            await asyncio.sleep(0.005)

    await asyncio.wait_for(wait(), 10)


async def cancelled(task: asyncio.Task[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


# Without aiohttp


def test_failover_storage_needs_no_aiohttp() -> None:
    code = (
        "import sys; sys.modules['aiohttp'] = None\n"
        "from failover.storage import AsyncGeoFailover, GeoFailover\n"
        "AsyncGeoFailover(retry=None); GeoFailover(retry=None)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@in_loop
async def test_each_kind_of_policy_is_for_its_kind_of_client(standin: StandIn) -> None:
    with pytest.raises(TypeError, match="AsyncGeoFailover for those of its aio packages"):
        service_of(standin, GeoFailover(retry=None))
    with pytest.raises(TypeError, match="AsyncGeoFailover for those of its aio packages"):
        SyncBlobServiceClient(standin.primary_url, retry_policy=AsyncGeoFailover(retry=None))


# Cancellation


@in_loop
async def test_a_cancelled_request_counts_neither_way_and_gives_the_probes_place_back(standin: StandIn) -> None:
    store(standin)
    heard: list[Any] = []
    policy = AsyncGeoFailover(retry=None, policy=ONE_PROBE, listeners=[heard.append])
    async with service_of(standin, policy) as service:
        blob = service.get_blob_client("demo", "HelloWorld")
        policy.primary.trip()
        assert await blob.exists()
        heard.clear()
        spoil(standin, delay(20))
        probe = asyncio.create_task(read(blob))
        await until(lambda: policy.primary.state is State.HALF_OPEN)
        assert await read(blob) == HELLO  # from the secondary: the place is taken

        await cancelled(probe)

        assert policy.primary.snapshot()["opened"] == 1
        assert not [each for each in heard if isinstance(each, Retry)]
        standin.interfere = None
        policy.primary.admit().released()  # at once, and for whoever shares the circuit
        assert await read(blob) == HELLO
        assert policy.primary.state is State.CLOSED


@in_loop
async def test_a_closed_circuit_does_not_count_cancelled_reads(standin: StandIn) -> None:
    store(standin)
    policy = AsyncGeoFailover(retry=None, policy=Policy(trip=ConsecutiveFailures(1)))
    async with service_of(standin, policy) as service:
        blob = service.get_blob_client("demo", "HelloWorld")
        spoil(standin, delay(20))
        for _ in range(3):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(read(blob), 0.1)

    assert policy.primary.snapshot()["failures"] == 0
    assert policy.primary.state is State.CLOSED


@in_loop
async def test_a_cancelled_body_counts_neither_way() -> None:
    def stall(asked: Any) -> Answer:
        answer = ranged(CONTENT, asked)
        return Answer(answer.head, answer.body[: 300 * KIB], then="hang")

    with RawServer(stall) as primary, RawServer(lambda asked: ranged(CONTENT, asked)) as secondary:
        heard: list[Any] = []
        policy = AsyncGeoFailover(retry=None, policy=ONE_PROBE, attempt_timeout=30, listeners=[heard.append])
        async with service_of(Pair(primary, secondary), policy) as service:
            blob = service.get_blob_client("demo", "HelloWorld")
            policy.primary.trip()
            assert await read(blob) == CONTENT
            heard.clear()
            probe = asyncio.create_task(read(blob))
            await until(lambda: bool(primary.asked))
            await asyncio.sleep(0.05)  # so that it waits for the rest of the body

            await cancelled(probe)

            assert policy.primary.state is State.HALF_OPEN
            policy.primary.admit().released()
            assert not [each for each in heard if isinstance(each, (Retry, ReadEnded))]


@in_loop
async def test_cancelled_while_it_waits_to_try_again(standin: StandIn) -> None:
    store(standin)
    policy = AsyncGeoFailover(retry=None, policy=TEACHING, backoff=30)
    async with service_of(standin, policy) as service:
        spoil(standin, status(503))
        waiting = asyncio.create_task(read(service.get_blob_client("demo", "HelloWorld")))
        await until(lambda: policy.primary.snapshot()["failures"] == 1)

        await cancelled(waiting)

    assert policy.primary.snapshot()["failures"] == 1


@in_loop
async def test_a_reader_that_is_cancelled_does_not_disturb_the_others(standin: StandIn) -> None:
    store(standin, CONTENT)
    policy = AsyncGeoFailover(retry=None, policy=TEACHING)
    async with service_of(standin, policy) as service:
        blob = service.get_blob_client("demo", "HelloWorld")
        tasks = [asyncio.create_task(read(blob)) for _ in range(20)]
        await asyncio.sleep(0.01)
        for task in tasks[::2]:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)

    assert all(each == CONTENT for each in results[1::2])
    assert all(each == CONTENT or isinstance(each, asyncio.CancelledError) for each in results[::2])
    assert policy.primary.snapshot()["failures"] == 0


# The loop's end, and bodies that nobody reads


def test_a_loop_that_ends_with_a_body_open_gives_the_probes_place_back(
    standin: StandIn, recwarn: pytest.WarningsRecorder
) -> None:
    store(standin, CONTENT)
    policy = AsyncGeoFailover(retry=None, policy=ONE_PROBE)
    left: list[Any] = []

    async def begin() -> None:
        service = service_of(standin, policy)
        client: Any = service.get_blob_client("demo", "HelloWorld")
        policy.primary.trip()
        assert await client.exists()
        body = await client._client.blob.download()
        await anext(body)
        left.append(body)
        await service.close()

    asyncio.run(begin())
    assert policy.primary.state is State.HALF_OPEN
    left.clear()
    gc.collect()

    # The policy's next request, whatever becomes of it, gives it back.
    assert policy._seen is not None
    url, _, transport, _ = policy._seen
    request = PipelineRequest(HttpRequest("PUT", url), PipelineContext(transport, retry_total=0))
    with pytest.raises(ValueError, match="closed"):  # the transport
        asyncio.run(policy.send(request))
    policy.primary.admit().released()
    assert not [each for each in recwarn.list if "never awaited" in str(each.message)]


# Many at once


@in_loop
async def test_fifty_tasks_while_the_primary_dies_and_returns(standin: StandIn) -> None:
    contents = {f"b{n}": bytes([n]) * 5000 for n in range(10)}
    for name, content in contents.items():
        store(standin, content, name)
    policy = AsyncGeoFailover(retry=None, policy=TEACHING)
    done = 0

    async def reads(n: int) -> bool:
        nonlocal done
        blob = service.get_blob_client("demo", f"b{n % 10}")
        right = True
        for _ in range(12):
            right &= await read(blob) == contents[f"b{n % 10}"]
            done += 1
        return right

    async with service_of(standin, policy) as service:
        tasks = [asyncio.create_task(reads(n)) for n in range(50)]
        for n, change in enumerate([standin.lose_primary, standin.restore_primary] * 2, 1):
            while done < 110 * n:
                await asyncio.sleep(0.005)
            await asyncio.to_thread(change)
        assert all(await asyncio.gather(*tasks))
        assert policy.primary.snapshot()["opened"] >= 1
        for _ in range(21):
            assert await service.get_blob_client("demo", "b1").exists()

    assert policy.primary.state is State.CLOSED
    assert policy.secondary.snapshot()["opened"] == 0


@in_loop
async def test_nothing_blocks_the_loop(standin: StandIn) -> None:
    # A read that waits (for an answer, between tries, for the Last Sync Time) lets the loop go on.
    store(standin)
    policy = AsyncGeoFailover(retry=None, policy=TEACHING, backoff=1.0, attempt_timeout=5, max_staleness=3600)
    late: list[float] = []

    async def tick() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.01)
            late.append(time.perf_counter() - before)

    async with service_of(standin, policy) as service:
        blob = service.get_blob_client("demo", "HelloWorld")

        def busy(exchange: Exchange) -> None:
            exchange.fail(503)
            exchange.delay = 1.0

        spoil(standin, busy, times=2)
        ticking = asyncio.create_task(tick())
        assert await asyncio.gather(*(read(blob) for _ in range(5))) == [HELLO] * 5
        ticking.cancel()

    assert len(late) > 10
    assert max(late) < 0.8


@in_loop
async def test_many_reads_ask_for_the_last_sync_time_once(standin: StandIn) -> None:
    store(standin)
    policy = AsyncGeoFailover(retry=None, policy=TEACHING, max_staleness=3600)
    policy.primary.isolate()
    async with service_of(standin, policy) as service:
        blob = service.get_blob_client("demo", "HelloWorld")
        trail = Trail(standin)
        assert await asyncio.gather(*(read(blob) for _ in range(10))) == [HELLO] * 10
        assert trail.look() == "S" * 11
        assert await policy.staleness() >= 0


@in_loop
async def test_a_cancelled_question_for_the_last_sync_time_is_asked_again(standin: StandIn) -> None:
    store(standin)
    policy = AsyncGeoFailover(retry=None, policy=TEACHING, max_staleness=3600)
    policy.primary.isolate()
    async with service_of(standin, policy) as service:
        blob = service.get_blob_client("demo", "HelloWorld")
        trail = Trail(standin)
        spoil(standin, delay(20), at="secondary", times=1)
        first = asyncio.create_task(read(blob))
        await until(lambda: trail.look() == "S")
        others = [asyncio.create_task(read(blob)) for _ in range(3)]
        await asyncio.sleep(0.01)

        await cancelled(first)

        assert await asyncio.gather(*others) == [HELLO] * 3


# Shared with threads


@in_loop
async def test_circuits_shared_with_a_sync_client(standin: StandIn) -> None:
    store(standin)
    first = AsyncGeoFailover(retry=None, policy=TEACHING)
    second = GeoFailover(first.primary, first.secondary)
    other = blob_of(standin, second)
    trail = Trail(standin)
    spoil(standin, status(503))
    async with service_of(standin, first) as service:
        blob = service.get_blob_client("demo", "HelloWorld")
        assert await read(blob) == HELLO
        assert await asyncio.to_thread(lambda: other.download_blob().readall()) == HELLO
        assert await read(blob) == HELLO
        assert trail.look() == "PPSPPSPS"

        assert other.download_blob().readall() == HELLO
        assert await read(blob) == HELLO

    assert trail.look() == "SS"
    assert second.primary.state is State.OPEN


@in_loop
async def test_threads_and_tasks_share_one_probe(standin: StandIn) -> None:
    store(standin)
    primary, secondary = CircuitBreaker("primary", ONE_PROBE), CircuitBreaker("secondary", ONE_PROBE)
    blocking = blob_of(standin, GeoFailover(primary, secondary))
    primary.trip()
    blocking.exists()
    go_on = threading.Event()
    spoil(standin, lambda _: go_on.wait(10))
    trail = Trail(standin)
    async with service_of(standin, AsyncGeoFailover(primary, secondary)) as service:
        blob = service.get_blob_client("demo", "HelloWorld")
        tasks = [asyncio.create_task(read(blob)) for _ in range(10)]
        threads = [asyncio.create_task(asyncio.to_thread(lambda: blocking.download_blob().readall())) for _ in range(5)]
        await asyncio.wait([*tasks, *threads], timeout=2, return_when=asyncio.FIRST_COMPLETED)
        while sum(each.done() for each in [*tasks, *threads]) < 14:
            await asyncio.sleep(0.01)
        go_on.set()
        assert await asyncio.gather(*tasks, *threads) == [HELLO] * 15

    assert sorted(trail.look()) == ["P"] + ["S"] * 14
    assert primary.state is State.CLOSED


# What is the async SDK's own


@in_loop
async def test_listeners_are_called_in_the_loops_thread(standin: StandIn) -> None:
    store(standin)
    threads: set[int] = set()
    policy = AsyncGeoFailover(retry=None, policy=TEACHING, listeners=[lambda _: threads.add(threading.get_ident())])
    async with service_of(standin, policy) as service:
        spoil(standin, cut(3))
        for _ in range(6):
            assert await read(service.get_blob_client("demo", "HelloWorld")) == HELLO

    assert threads == {threading.get_ident()}


@in_loop
async def test_a_body_by_the_pieces_of_the_transport(standin: StandIn) -> None:
    # What others of the SDK's clients use: `iter_bytes` and `iter_raw`.
    store(standin, CONTENT)
    for way in ("iter_bytes", "iter_raw"):
        policy = AsyncGeoFailover(retry=None, policy=TEACHING)
        async with service_of(standin, policy) as service:
            client: Any = service.get_blob_client("demo", "HelloWorld")
            spoil(standin, cut(600 * KIB), times=1)
            trail = Trail(standin)
            request = HttpRequest("GET", client.url, headers={"x-ms-range": f"bytes=0-{MIB - 1}"})
            answer = await client._pipeline.run(request, stream=True)
            assert b"".join([piece async for piece in getattr(answer.http_response, way)()]) == CONTENT
            assert trail.look() == "PS"
            assert policy.primary.snapshot()["failures"] == 1


@in_loop
async def test_a_long_body_is_not_kept(standin: StandIn) -> None:
    content = bytes(32 * MIB)
    store(standin, content, "large")
    async with service_of(
        standin, AsyncGeoFailover(retry=None), max_single_get_size=MIB, max_chunk_get_size=MIB
    ) as service:
        stream = await service.get_blob_client("demo", "large").download_blob()
        tracemalloc.start()
        size = 0
        async for piece in stream.chunks():
            size += len(piece)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert size == len(content)
    assert peak < 24 * MIB  # the stand-in's own copies are in it


@in_loop
async def test_an_outage_in_async_code(standin: StandIn) -> None:
    store(standin)
    policy = AsyncGeoFailover(retry=None, policy=TEACHING, primary_attempts=None)
    async with service_of(standin, policy) as service:
        blob = service.get_blob_client("demo", "HelloWorld")
        trail = Trail(standin)
        spoil(standin, status(503))
        assert await read(blob) == HELLO
        for _ in range(20):
            assert await read(blob) == HELLO
        assert trail.look() == "PPPPPS" + "S" * 20
        standin.interfere = None
        assert await read(blob) == HELLO
        assert trail.look() == "P"
        assert policy.primary.state is State.CLOSED
        with pytest.raises(ResourceNotFoundError):
            await read(service.get_blob_client("demo", "another"))
        standin.lose_primary()
        standin.lose_secondary()
        with pytest.raises(BothEndpointsDown):
            await read(blob)
        with pytest.raises(AzureError):
            await policy.staleness()
