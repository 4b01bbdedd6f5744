"""Hedged reads in programs: they end, fork, cancel, close and fill their pools while losers are under way."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from azure.core.pipeline.transport import AsyncioRequestsTransport, RequestsTransport, TrioRequestsTransport

from failover.storage import AsyncGeoFailover, GeoFailover, hedging
from tests.forking import in_a_fork
from tests.storage.account import CONTENT, HELLO
from tests.storage.async_client import in_loop
from tests.storage.both_kinds import close, connect_options, geo_failover, read, service
from tests.storage.clients import BLOCK, blob_of
from tests.storage.gates import LONG, SOON, Gate, account, eventually, hello, losers
from tests.storage.raw_server import Answer, Asked, Pair, ranged
from tests.storage.test_transports import _Slotted


def client_of(kind: str, pair: Pair, policy: Any, **options: Any) -> Any:
    return service(kind, pair.primary_url, retry_policy=policy, **connect_options(pair), **options)


# --- the end of a program -------------------------------------------------------------------------------------------

SYNC: Final = """
import atexit, json, sys
from azure.storage.blob import BlobServiceClient
from failover.storage import GeoFailover

url, options, how = json.loads(sys.argv[1])
service = BlobServiceClient(url, retry_policy=GeoFailover(hedge_after=0.02, attempt_timeout=60, retry=None), **options)
blob = service.get_blob_client("demo", "HelloWorld")

def read():
    print(blob.download_blob().readall())

if how == "at exit":
    atexit.register(read)
elif how == "in a thread":
    import threading
    threading.Thread(target=read).start()
else:
    read()
    if how == "closed":
        service.close()
    if how == "sys.exit":
        sys.exit(0)
"""

AIO: Final = """
import asyncio, json, sys
from azure.storage.blob.aio import BlobServiceClient
from failover.storage import AsyncGeoFailover

url, options, how = json.loads(sys.argv[1])

async def read():
    policy = AsyncGeoFailover(hedge_after=0.3, attempt_timeout=60, retry=None)
    async with BlobServiceClient(url, retry_policy=policy, use_env_settings=False, **options) as service:
        stream = await service.get_blob_client("demo", "HelloWorld").download_blob()
        print(await stream.readall())
    if how != "asyncio.run":
        # aiohttp begins again where its session is closed under a request. In a loop that is closed while it looks up a
        # proxy or a host that would be told on stderr, as of a bare client.
        while len(asyncio.all_tasks()) > 1:
            await asyncio.sleep(0.001)

if how == "asyncio.run":
    asyncio.run(read())
else:
    if how == "uvloop":
        import uvloop
        loop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    loop.run_until_complete(read())
    loop.close()
"""

GEVENT: Final = """
from gevent import monkey
monkey.patch_all()
import gevent, json, sys
from azure.storage.blob import BlobServiceClient
from failover.storage import GeoFailover

url, options, _ = json.loads(sys.argv[1])
policy = GeoFailover(hedge_after=0.02, hedge_budget=1, attempt_timeout=60, retry=None)
client = BlobServiceClient(url, retry_policy=policy, **options)
blob = client.get_blob_client("demo", "HelloWorld")
beats = []

def beat():
    while True:
        beats.append(1)
        gevent.sleep(0.005)

pulse = gevent.spawn(beat)
gevent.sleep(0)
reads = [gevent.spawn(lambda: blob.download_blob().readall()) for _ in range(8)]
gevent.joinall(reads, raise_error=True, timeout=30)
pulse.kill()
assert len(beats) > 3
print(*{each.value for each in reads})
"""

PROGRAMS: Final = {
    **{how: (SYNC, how) for how in ("just ends", "closed", "sys.exit", "at exit", "in a thread")},
    **{how: (AIO, how) for how in ("asyncio.run", "loop.close")},
    "gevent": (GEVENT, ""),
}
if sys.platform != "win32":  # uvloop is not made for it
    PROGRAMS["uvloop"] = (AIO, "uvloop")


@pytest.mark.parametrize("program", list(PROGRAMS))
def test_a_program_ends_at_once_while_losers_are_under_way(program: str, gate: Gate) -> None:
    code, how = PROGRAMS[program]

    def after_the_other(asked: Asked) -> Answer:
        gate.waiting.acquire(timeout=LONG)
        return hello(asked)

    with account(gate(hello), after_the_other) as pair:
        command = [sys.executable, "-c", code, json.dumps([pair.primary_url, connect_options(pair), how])]
        paths = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        environment = {**os.environ, "PYTHONPATH": paths}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=LONG, check=False, env=environment
        )  # the primary answers nobody before the program has ended
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == repr(HELLO)


# --- closing, cancelling, forking -----------------------------------------------------------------------------------


def test_a_client_is_closed_while_losers_are_under_way(geo_failover: Any, gate: Gate) -> None:
    policy = geo_failover(hedge_after=SOON, attempt_timeout=LONG, retry=None)
    with account(gate(hello)) as pair:
        blob = blob_of(pair, policy)
        assert blob.download_blob().readall() == HELLO
        began = time.monotonic()
        blob.close()
        assert time.monotonic() - began < LONG / 2
        gate.open()
        eventually(lambda: not losers())
        assert policy.primary.snapshot()["failures"] == 0, "it was closed from here"


@in_loop
async def test_a_closed_client_has_no_tasks() -> None:
    gate = Gate()
    policy = AsyncGeoFailover(hedge_after=SOON, attempt_timeout=LONG, retry=None)
    with account(gate(hello)) as pair:
        async with client_of("aio", pair, policy) as client:
            assert await read(client) == HELLO
        for _ in range(100):
            await asyncio.sleep(0.01)
            if len(asyncio.all_tasks()) == 1:
                break
        assert len(asyncio.all_tasks()) == 1
        assert policy.primary.snapshot()["failures"] == 0
        gate.open()


@pytest.mark.parametrize("probing", [False, True])
@in_loop
async def test_a_read_that_is_cancelled_while_both_are_under_way(probing: bool) -> None:
    first, second = Gate(), Gate()
    policy = AsyncGeoFailover(hedge_after=SOON, attempt_timeout=0.5, retry=None)
    with account(first(hello), second(hello)) as pair:
        async with client_of("aio", pair, policy) as client:
            task = asyncio.create_task(read(client))
            while not second.waiting.acquire(blocking=False):
                await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await asyncio.sleep(0)
            while len(asyncio.all_tasks()) > 1:
                await asyncio.sleep(0.005)
            first.open()
            second.open()
            assert await read(client) == HELLO
    assert [circuit.snapshot()["failures"] for circuit in (policy.primary, policy.secondary)] == [0, 0]


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signal wakes a waiting thread of this system")
@pytest.mark.parametrize("both", [False, True])
def test_a_thread_is_interrupted_while_requests_are_under_way(both: bool) -> None:
    first, second = Gate(), Gate()
    policy = GeoFailover(hedge_after=SOON if both else LONG, attempt_timeout=2 * LONG, retry=None)
    main = threading.main_thread().ident
    assert threading.get_ident() == main

    def interrupt() -> None:
        (second if both else first).waiting.acquire(timeout=LONG)
        signal.pthread_kill(main, signal.SIGINT)

    with account(first(hello), second(hello)) as pair:
        thread = threading.Thread(target=interrupt)
        thread.start()
        with pytest.raises(KeyboardInterrupt):
            blob_of(pair, policy).download_blob()
        thread.join()
        first.open()
        second.open()
        eventually(lambda: not losers())
        assert blob_of(pair, GeoFailover(policy.primary, policy.secondary)).download_blob().readall() == HELLO
    assert [circuit.snapshot()["failures"] for circuit in (policy.primary, policy.secondary)] == [0, 0]


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_reads(gate: Gate) -> None:
    """Its parent's idle threads are not there; what they were about to lock is free."""
    policy = GeoFailover(hedge_after=SOON, hedge_budget=1, retry=None)
    over = threading.Event()

    def count() -> None:
        while not over.is_set():
            policy._hedging.begin(SOON)
            policy._hedging.learn(0.001)

    with account(gate(hello)) as pair:
        blob = blob_of(pair, policy)
        assert blob.download_blob().readall() == HELLO
        eventually(lambda: losers() == 1)
        gate.open()
        eventually(lambda: not losers())
        assert hedging._idle, "threads that are idle"
        counters = [threading.Thread(target=count, daemon=True) for _ in range(3)]
        for each in counters:
            each.start()

        def in_child() -> bool:
            fresh = blob_of(pair, GeoFailover(policy.primary, policy.secondary, hedge_after=SOON, retry=None))
            policy._hedging.begin(SOON)
            policy._hedging.take(is_probe=False)
            policy._hedging.learn(0.001)
            return bool(fresh.download_blob().readall() == HELLO)

        try:
            assert all(in_a_fork(in_child) for _ in range(10))
        finally:
            over.set()
            for each in counters:
                each.join(LONG)
        assert blob.download_blob().readall() == HELLO


# --- pools ----------------------------------------------------------------------------------------------------------


def test_a_download_in_parallel(geo_failover: Any, gate: Gate) -> None:
    def big(asked: Asked) -> Answer:
        return ranged(CONTENT, asked)

    policy = geo_failover(hedge_after=SOON, retry=None)
    with account(gate(big), big) as pair:
        blob = blob_of(pair, policy, max_single_get_size=BLOCK // 8, max_chunk_get_size=BLOCK // 8)
        assert blob.download_blob(max_concurrency=8).readall() == CONTENT
        assert len(pair.secondary.asked) == len(CONTENT) // (BLOCK // 8)


def test_a_pool_of_the_programs_own_that_is_full(gate: Gate) -> None:
    """Reads in all its threads, and more in its queue: what they are hedged by is elsewhere."""
    policy = GeoFailover(hedge_after=SOON, hedge_budget=1, retry=None)
    with account(gate(hello)) as pair, ThreadPoolExecutor(2) as pool:
        blob = blob_of(pair, policy)
        reads = [pool.submit(lambda: blob.download_blob().readall()) for _ in range(12)]
        assert [each.result(LONG) for each in reads] == [HELLO] * 12
        gate.open()


def test_no_thread_can_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """As at the limit of the system, or where the interpreter is about to exit: then it is a read like any other."""
    start = threading.Thread.start

    def starts(thread: threading.Thread) -> None:
        if thread.name == "failover-hedge" or isinstance(thread, threading.Timer):
            raise RuntimeError("can't start new thread")
        start(thread)

    over = threading.Event()
    while hedging._idle:  # those that there are already are busy meanwhile
        hedging._in_a_thread(over.wait)
    monkeypatch.setattr(threading.Thread, "start", starts)
    policy = GeoFailover(hedge_after=SOON, retry=None)
    try:
        with account(hello) as pair:
            assert blob_of(pair, policy).download_blob().readall() == HELLO
            assert pair.trail() == "1 at the primary, 0 at the secondary"
    finally:
        over.set()


# --- transports and loops -------------------------------------------------------------------------------------------


def _with_uvloop(steps: Coroutine[Any, Any, None]) -> None:
    import uvloop

    uvloop.new_event_loop().run_until_complete(steps)


def _with_trio(steps: Coroutine[Any, Any, None]) -> None:
    async def begin() -> None:
        await steps

    trio.run(begin)


ROWS: Final[dict[str, tuple[Callable[[Coroutine[Any, Any, None]], None], Callable[[], Any], bool]]] = {
    "aiohttp": (asyncio.run, lambda: None, True),
    "AsyncioRequestsTransport": (asyncio.run, AsyncioRequestsTransport, False),
    "TrioRequestsTransport": (_with_trio, TrioRequestsTransport, False),
}
if sys.platform != "win32":  # uvloop is not made for it
    ROWS["uvloop"] = (_with_uvloop, lambda: None, True)


@pytest.mark.parametrize("name", list(ROWS))
def test_whatever_the_loop_and_the_transport(name: str, gate: Gate) -> None:
    """Hedged where a request can be cancelled; and where it cannot, read as without."""
    run, transport, hedged = ROWS[name]
    made = transport()
    heard: list[Any] = []
    policy = AsyncGeoFailover(
        hedge_after=SOON, retry=None, attempt_timeout=LONG if hedged else 0.3, listeners=[heard.append]
    )
    with account(gate(hello)) as pair:

        async def play() -> None:
            client = client_of("aio", pair, policy, **({} if made is None else {"transport": made}))
            assert await read(client) == HELLO
            gate.open()
            assert await read(client) == HELLO
            await close(client)

        run(play())
    assert next(each.hedged for each in heard if hasattr(each, "hedged")) is hedged


class _Own(RequestsTransport):  # type: ignore[misc]  # azure-core loads it lazily, as Any
    """Whose responses take no attribute, and which notes what it sees of the caller's context."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def send(self, request: Any, **options: Any) -> Any:
        self.seen.append(SPAN.get())
        return _Slotted(super().send(request, **options))


SPAN: Final[contextvars.ContextVar[str]] = contextvars.ContextVar("SPAN", default="none")


def test_a_transport_of_a_users_own_is_hedged_and_sees_the_callers_context(gate: Gate) -> None:
    transport, heard = _Own(), []
    policy = GeoFailover(hedge_after=SOON, retry=None)
    with account(gate(hello)) as pair:
        blob = blob_of(pair, policy, transport=transport)
        token = SPAN.set("the caller's")
        try:
            stream = blob.download_blob(raw_response_hook=lambda _: heard.append(SPAN.get()))
            assert stream.readall() == HELLO
        finally:
            SPAN.reset(token)
        gate.open()
    assert transport.seen == ["the caller's"] * 2
    assert heard == ["the caller's"]


# --- what is left behind --------------------------------------------------------------------------------------------


def _sockets() -> int:
    gc.collect()
    return sum(isinstance(each, socket.socket) and each.fileno() >= 0 for each in gc.get_objects())


def test_nothing_is_left_over(client_kind: str) -> None:
    """One answer in three of the primary's is late, or comes after its reader has gone for good."""
    numbers = iter(range(10**9))
    pause = threading.Event()

    def limping(asked: Asked) -> Answer:
        if next(numbers) % 3 == 0:
            pause.wait(0.06)
        return hello(asked)

    async def play(policy: Any, pair: Pair, count: int) -> None:
        client = client_of(client_kind, pair, policy)
        if client_kind == "aio":
            for _ in range(count // 10):
                assert await asyncio.gather(*(read(client) for _ in range(10))) == [HELLO] * 10
            await close(client)
            await asyncio.sleep(0.2)
            assert len(asyncio.all_tasks()) == 1
        else:
            for _ in range(count):
                assert await read(client) == HELLO
            client.close()

    with account(limping) as pair:

        def reads(count: int) -> Any:
            policy = geo_failover(client_kind, hedge_after=0.01, hedge_budget=1, retry=None)
            steps = play(policy, pair, count)
            if client_kind == "aio":
                asyncio.run(steps)
            else:
                with pytest.raises(StopIteration):
                    steps.send(None)
            eventually(lambda: not losers())
            return policy

        reads(20)
        pair.primary.cut()
        pair.secondary.cut()
        before = (_sockets(), len(gc.get_objects()))
        policy = reads(200)
        pair.primary.cut()
        pair.secondary.cut()
        eventually(lambda: _sockets() <= before[0])
        assert len(gc.get_objects()) < before[1] + 3000
        assert policy.secondary.snapshot()["failures"] == policy.primary.snapshot()["failures"] == 0
        assert sum(thread.name == "failover-hedge" for thread in threading.enumerate()) <= 20
