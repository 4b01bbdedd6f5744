"""Bodies that trickle are given up where another endpoint can send the rest; and each byte is counted once."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest

from failover.standin import StandIn
from failover.storage import ReadEnded, Retry
from tests.clock import Clock
from tests.storage.account import HELLO, KIB, MIB, cut, spoil, status, store
from tests.storage.both_kinds import (
    at_once,
    both_kinds,
    close,
    connect_options,
    each,
    geo_failover,
    read,
    result,
    run,
    run_in_thread,
    service,
)
from tests.storage.raw_server import Answer, Asked, Pair, RawServer, ranged

CONTENT: Final = bytes(range(256)) * (4 * KIB)
"""1 MiB."""
FAST: Final = 256 * KIB
"""Bytes that come before the trickle: one block of the SDK's."""
SECOND: Final = "/devstoreaccount1-secondary"


def trickling(asked: Asked, *, fast: int = FAST, pause: float = 0.02, size: int = 1) -> Answer:
    """A body that begins fast and then goes on with `size` bytes each `pause` seconds: 50 bytes a second."""
    whole = ranged(CONTENT, asked)
    rest = whole.body[fast:]
    pieces = (rest[at : at + size] for at in range(0, len(rest), size))
    return Answer(whole.head, whole.body[:fast], trickle=pieces, pause=pause)


@pytest.fixture
def pair() -> Iterator[Pair]:
    """A primary whose bodies trickle, and a secondary that is well."""
    with RawServer(trickling) as first, RawServer(lambda asked: ranged(CONTENT, asked), path=SECOND) as second:
        yield Pair(first, second)


def _policy(kind: str, **settings: Any) -> Any:
    return geo_failover(kind, attempt_timeout=0.2, retry=None, **settings)


@pytest.mark.parametrize("fast", [0, FAST])
@both_kinds
async def test_a_body_that_trickles_goes_on_at_the_other_endpoint(client_kind: str, fast: int) -> None:
    told: list[Any] = []
    first = RawServer(lambda asked: trickling(asked, fast=fast))
    second = RawServer(lambda asked: ranged(CONTENT, asked), path=SECOND)
    with first, second:
        policy = _policy(client_kind, listeners=[told.append])
        client = service(client_kind, first.url, retry_policy=policy, **connect_options(Pair(first, second)))
        began = time.monotonic()
        assert await read(client) == CONTENT
        assert time.monotonic() - began < 10, "an hour, at the primary's pace"
        await close(client)
    assert [(one.endpoint, one.error) for one in told if isinstance(one, Retry)] == [
        ("primary", "the body came too slowly")
    ]
    assert [one.endpoint for one in told if isinstance(one, ReadEnded)] == ["secondary"]


@both_kinds
async def test_a_body_in_chunks_that_trickles(client_kind: str, pair: Pair) -> None:
    """As a listing or a proxy sends it, without a length."""

    def chunked(asked: Asked) -> Answer:
        whole = ranged(CONTENT, asked, length=False, extra="\nTransfer-Encoding: chunked")
        pieces = (b"1\r\n%c\r\n" % byte for byte in whole.body)
        return Answer(whole.head, trickle=pieces, pause=0.02)

    pair.primary.answer = chunked
    client = service(client_kind, pair.primary_url, retry_policy=_policy(client_kind), **connect_options(pair))
    assert await read(client) == CONTENT
    await close(client)
    assert len(pair.secondary.asked) == 1


@pytest.mark.parametrize("way", ["chunks", "readinto", "read"])
@both_kinds
async def test_however_the_body_is_read(client_kind: str, way: str, pair: Pair, tmp_path: Path) -> None:
    client = service(client_kind, pair.primary_url, retry_policy=_policy(client_kind), **connect_options(pair))
    stream = await result(client.get_blob_client("demo", "HelloWorld").download_blob())
    if way == "chunks":
        content = b"".join([piece async for piece in each(stream.chunks())])
    elif way == "read":
        pieces = []
        while piece := await result(stream.read(100 * KIB)):
            pieces.append(piece)
        content = b"".join(pieces)
    else:
        with (tmp_path / "blob").open("w+b") as file:
            await result(stream.readinto(file))
            file.seek(0)
            content = file.read()
    await close(client)
    assert content == CONTENT


def test_in_many_threads(pair: Pair) -> None:
    client = service("sync", pair.primary_url, retry_policy=_policy("sync"), **connect_options(pair))
    with client, ThreadPoolExecutor(8) as threads:
        for future in [threads.submit(lambda: run_in_thread(read(client))) for _ in range(16)]:
            assert future.result(30) == CONTENT
    assert not [thread.name for thread in threading.enumerate() if "watch" in thread.name.lower()]


def test_in_many_tasks(pair: Pair) -> None:
    async def read_all() -> list[bytes]:
        client = service("aio", pair.primary_url, retry_policy=_policy("aio"), **connect_options(pair))
        contents = await asyncio.gather(*(read(client) for _ in range(16)))
        await close(client)
        return contents

    assert asyncio.run(read_all()) == [CONTENT] * 16


GEVENT: Final = """
from gevent import monkey
monkey.patch_all()
import gevent, json, sys
from azure.storage.blob import BlobServiceClient
from failover.storage import GeoFailover

url, options = json.loads(sys.argv[1])
policy = GeoFailover(attempt_timeout=0.2, retry=None)
client = BlobServiceClient(url, retry_policy=policy, **options)
blob = client.get_blob_client("demo", "HelloWorld")
beats = []

def beat():
    while True:
        beats.append(1)
        gevent.sleep(0.01)

pulse = gevent.spawn(beat)
reads = [gevent.spawn(lambda: blob.download_blob().readall()) for _ in range(8)]
gevent.joinall(reads, raise_error=True, timeout=30)
pulse.kill()
whole = bytes(range(256)) * 4096
print([each.value == whole for each in reads], len(beats) > 10, policy.primary.state.value)
"""


def _run_gevent(pair: Pair) -> str:
    program = [sys.executable, "-c", GEVENT, json.dumps([pair.primary_url, connect_options(pair)])]
    paths = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        program, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "PYTHONPATH": paths}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_in_greenlets(pair: Pair) -> None:
    """Eight trickling bodies are given up, while other greenlets go on."""
    assert _run_gevent(pair) == f"{[True] * 8} True open"


# Where nobody is faster


@both_kinds
async def test_bodies_that_trickle_everywhere_are_read_on(client_kind: str) -> None:
    """400 bytes, at 200 bytes a second, from either endpoint: slow, and what there is."""

    def slow(asked: Asked) -> Answer:
        whole = ranged(CONTENT[:400], asked)
        pieces = (whole.body[at : at + 4] for at in range(0, len(whole.body), 4))
        return Answer(whole.head, trickle=pieces, pause=0.02)

    with RawServer(slow) as first, RawServer(slow, path=SECOND) as second:
        client = service(
            client_kind, first.url, retry_policy=_policy(client_kind), **connect_options(Pair(first, second))
        )
        assert await read(client) == CONTENT[:400]
        await close(client)
        assert len(first.asked) + len(second.asked) == 3, "from the primary, the secondary, and the primary to its end"


@both_kinds
async def test_a_slow_body_of_the_only_endpoint_is_read_to_its_end(client_kind: str) -> None:
    def slow(asked: Asked) -> Answer:
        whole = ranged(CONTENT[:400], asked)
        pieces = (whole.body[at : at + 4] for at in range(0, len(whole.body), 4))
        return Answer(whole.head, trickle=pieces, pause=0.02)

    with RawServer(slow) as first, RawServer(slow, path=SECOND) as second:
        client = service(
            client_kind, first.url, retry_policy=_policy(client_kind), **connect_options(Pair(first, second))
        )
        client.location_mode = "secondary"
        assert await read(client) == CONTENT[:400]
        await close(client)
        assert (len(first.asked), len(second.asked)) == (0, 1)


@both_kinds
async def test_a_reader_that_takes_its_time_is_not_the_endpoints_fault(client_kind: str) -> None:
    told: list[Any] = []
    content = CONTENT * 2
    with RawServer(lambda asked: ranged(content, asked)) as first, RawServer(trickling, path=SECOND) as second:
        policy = _policy(client_kind, listeners=[told.append])
        client = service(client_kind, first.url, retry_policy=policy, **connect_options(Pair(first, second)))
        stream = await result(client.get_blob_client("demo", "HelloWorld").download_blob())
        pieces = []
        async for piece in each(stream.chunks()):
            pieces.append(piece)
            time.sleep(0.15)  # of 8 pieces, together longer than twice the time-out
        assert b"".join(pieces) == content
        await close(client)
    assert [one for one in told if isinstance(one, Retry)] == []


# Hooks


@pytest.mark.parametrize("option", ["raw_response_hook", "progress_hook"])
@pytest.mark.parametrize("size", [3 * MIB + 100 * KIB, 40 * MIB])
@both_kinds
async def test_each_byte_is_counted_once(client_kind: str, size: int, option: str, standin: StandIn) -> None:
    """Also those of a body that was resumed elsewhere."""
    content = b"0123456789abcdef" * (size // 16)
    store(standin, content)
    spoil(standin, cut(1 * MIB), times=2)
    counted: list[int] = []

    def count(response: Any) -> None:
        counted.append(int(response.http_response.headers["Content-Length"]))

    def progress(current: int, total: int) -> None:
        counted.append(current - sum(counted))

    async def progress_async(current: int, total: int) -> None:
        progress(current, total)

    hook: Any = count if option == "raw_response_hook" else progress_async if client_kind == "aio" else progress
    client = service(
        client_kind, standin.primary_url, retry_policy=geo_failover(client_kind), **connect_options(standin)
    )
    assert await read(client, **{option: hook}) == content
    await close(client)
    assert {hit.endpoint for hit in standin.hits} == {"primary", "secondary"}
    assert sum(counted) == len(content)


@both_kinds
async def test_the_progress_of_a_download_is_that_of_the_answer_that_is_used(client_kind: str) -> None:
    told: list[tuple[int, int, int]] = []

    def hook(response: Any) -> None:
        context = response.context
        told.append(
            (response.http_response.status_code, context["download_stream_current"], context["data_stream_total"])
        )

    policy = geo_failover(client_kind, retry=at_once(client_kind, 1))
    with StandIn(60.0, clock=Clock()) as behind:
        store(behind)
        spoil(behind, status(503), times=2)
        client = service(client_kind, behind.primary_url, retry_policy=policy, **connect_options(behind))
        assert await read(client, raw_response_hook=hook) == HELLO
        await close(client)
    assert [code for code, *_ in told] == [503, 503, 404, 206]
    assert told[-1][1:] == (len(HELLO), len(HELLO))


@both_kinds
async def test_the_options_of_a_call_hold_for_the_rest_of_its_body(client_kind: str, standin: StandIn) -> None:
    store(standin, CONTENT)
    spoil(standin, cut(100 * KIB), times=1)
    sent: list[str] = []

    def hook(request: Any) -> None:
        sent.append(request.http_request.headers["x-ms-client-request-id"])

    policy = geo_failover(client_kind)
    client = service(client_kind, standin.primary_url, retry_policy=policy, **connect_options(standin))
    assert await read(client, raw_request_hook=hook, client_request_id="mine") == CONTENT
    await close(client)
    assert [hit.endpoint for hit in standin.hits][-2:] == ["primary", "secondary"]
    assert sent == ["mine"] * 2


def test_a_hook_hears_where_an_answer_comes_from(client_kind: str, standin: StandIn) -> None:
    store(standin)
    heard: list[Any] = []

    async def play() -> None:
        client = service(
            client_kind, standin.primary_url, retry_policy=geo_failover(client_kind), **connect_options(standin)
        )
        await read(client, raw_response_hook=lambda response: heard.append(response.http_response.location_mode))
        spoil(standin, status(503))
        await read(client, raw_response_hook=lambda response: heard.append(response.http_response.location_mode))
        await close(client)

    run(client_kind, play())
    assert heard[0] == "primary"
    assert heard[-1] == "secondary"
