"""Any transport, loop and kind of task that works with the bare client: it reads, fails over, and goes on where it can.

Each row is asked of the bare client first, so that it stands for something that works without us.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import pytest
import trio
from azure.core.pipeline.transport import AsyncioRequestsTransport, TrioRequestsTransport
from azure.storage.blob.aio import BlobClient

from failover.breaker import State
from failover.standin import StandIn
from failover.storage import AsyncGeoFailover
from tests.never_worse.transports import AsyncOwnResponse, AsyncOwnTransport, OwnResponse, OwnTransport
from tests.never_worse.world import Fault
from tests.storage.account import KIB, Trail, cut, spoil, status, store
from tests.storage.both_kinds import close, connect_options, each, read, result, retry, service
from tests.storage.virtual import FOREVER, FRESH, OLD, Lab, P

CONTENT: Final = b"0123456789abcdef" * (40 * KIB)
NAMES: Final = ["HelloWorld"]


# Transports and loops of others, over sockets


def _py_task(loop: asyncio.AbstractEventLoop, steps: Any, **options: Any) -> Any:
    return asyncio.tasks._PyTask(steps, loop=loop, **options)  # type: ignore[attr-defined]  # as nest_asyncio's


def _with_py_tasks(steps: Coroutine[Any, Any, None]) -> None:
    async def begin() -> None:
        asyncio.get_running_loop().set_task_factory(_py_task)
        task = asyncio.ensure_future(steps)
        assert type(task) is asyncio.tasks._PyTask  # type: ignore[attr-defined]  # as above
        await task

    asyncio.run(begin())


def _with_uvloop(steps: Coroutine[Any, Any, None]) -> None:
    import uvloop

    loop = uvloop.new_event_loop()
    try:
        loop.run_until_complete(steps)
    finally:
        loop.close()


def _with_trio(steps: Coroutine[Any, Any, None]) -> None:
    async def begin() -> None:
        await steps

    trio.run(begin)


ROWS: dict[str, tuple[Callable[[Coroutine[Any, Any, None]], None], Callable[[], Any]]] = {
    "aiohttp": (asyncio.run, lambda: None),
    "AsyncioRequestsTransport": (asyncio.run, AsyncioRequestsTransport),
    "TrioRequestsTransport": (_with_trio, TrioRequestsTransport),
    "Python's own tasks": (_with_py_tasks, lambda: None),
    "Python's own tasks over requests": (_with_py_tasks, AsyncioRequestsTransport),
}
if sys.platform != "win32":  # uvloop is not made for it
    ROWS["uvloop"] = (_with_uvloop, lambda: None)


@pytest.fixture(params=list(ROWS))
def row(request: pytest.FixtureRequest) -> Any:
    return ROWS[request.param]


def _client(standin: StandIn, transport: Any, policy: Any) -> Any:
    more = {} if transport is None else {"transport": transport}
    return service("aio", standin.primary_url, retry_policy=policy, **connect_options(standin), **more)


@pytest.mark.parametrize("bare", [True, False], ids=["bare", "ours"])
def test_what_is_well_is_read(standin: StandIn, row: Any, bare: bool) -> None:
    run, transport = row
    store(standin, CONTENT)

    async def play() -> None:
        policy = retry("aio", "ExponentialRetry") if bare else AsyncGeoFailover(retry=None)
        client = _client(standin, transport(), policy)
        blob = client.get_blob_client("demo", "HelloWorld")
        assert await read(client) == CONTENT
        assert b"".join([piece async for piece in (await blob.download_blob()).chunks()]) == CONTENT
        assert (await blob.get_blob_properties()).size == len(CONTENT)
        assert await blob.exists()
        assert [found.name async for found in each(client.get_container_client("demo").list_blobs())] == NAMES
        await blob.upload_blob(b"more", overwrite=True)
        assert await read(client) == b"more"
        await close(client)

    run(play())
    assert {hit.endpoint for hit in standin.hits} == {"primary"}


def test_an_outage_is_survived(standin: StandIn, row: Any) -> None:
    run, transport = row
    store(standin, CONTENT)
    policy = AsyncGeoFailover(retry=None)

    async def play() -> None:
        client = _client(standin, transport(), policy)
        spoil(standin, status(503))
        assert await read(client) == CONTENT
        assert (await client.get_blob_client("demo", "HelloWorld").get_blob_properties()).size == len(CONTENT)
        standin.lose_primary()
        assert await read(client) == CONTENT
        await close(client)

    run(play())
    assert policy.primary.state is State.OPEN
    assert policy.secondary.snapshot()["failures"] == 0


def test_a_body_that_breaks_off_arrives_whole(standin: StandIn, row: Any) -> None:
    run, transport = row
    store(standin, CONTENT)
    spoil(standin, cut(300 * KIB), times=1)
    trail = Trail(standin)

    async def play() -> None:
        client = _client(standin, transport(), AsyncGeoFailover(retry=None))
        assert await read(client) == CONTENT
        await close(client)

    run(play())
    assert trail.look() == "PS"


def test_an_endpoint_that_hangs_is_given_up(standin: StandIn, row: Any) -> None:
    run, transport = row
    store(standin, CONTENT)
    spoil(standin, _hang)
    trail = Trail(standin)

    async def play() -> None:
        client = _client(standin, transport(), AsyncGeoFailover(retry=None, attempt_timeout=0.3))
        assert await read(client) == CONTENT
        await close(client)

    run(play())
    assert trail.look() == "PS"


def _hang(exchange: Any) -> None:
    exchange.delay = 3.0


def test_a_retry_waits_as_the_transport_waits(standin: StandIn, row: Any) -> None:
    """Of a client that no other has made: a sub-client's waits by asyncio, with us and without us."""
    run, transport = row
    store(standin, CONTENT)
    spoil(standin, status(503), at="primary+secondary", times=4)

    async def play() -> None:
        linear = retry("aio", "LinearRetry", backoff=0.01, random_jitter_range=0)
        made = transport()
        more = {} if made is None else {"transport": made}
        options = {**connect_options(standin), **more, "retry_policy": AsyncGeoFailover(retry=linear, backoff=0.01)}
        blob = BlobClient(standin.primary_url, "demo", "HelloWorld", **options)
        assert await (await blob.download_blob()).readall() == CONTENT
        await blob.close()

    run(play())


GEVENT: Final = """
from gevent import monkey
monkey.patch_all()
import gevent, json, sys
from azure.storage.blob import BlobServiceClient
from failover.storage import GeoFailover

url, options = json.loads(sys.argv[1])
policy = GeoFailover(retry=None)
client = BlobServiceClient(url, retry_policy=policy, **options)
blob = client.get_blob_client("demo", "HelloWorld")
reads = [gevent.spawn(lambda: blob.download_blob().readall()) for _ in range(32)]
gevent.joinall(reads, raise_error=True, timeout=30)
print({len(each.value) for each in reads}, policy.primary.state.value, policy.secondary.snapshot()["failures"])
"""


def test_greenlets_read_and_fail_over(standin: StandIn) -> None:
    store(standin, CONTENT)
    spoil(standin, status(503))
    program = [sys.executable, "-c", GEVENT, json.dumps([standin.primary_url, connect_options(standin)])]
    paths = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{ {len(CONTENT)} } open 0"


# Responses of a user's own transport


class _Slotted:
    """A response that takes no attribute but the one that the SDK sets, cannot be referred to weakly, and is no child
    of azure-core's."""

    __slots__ = ("_inner", "location_mode")

    def __init__(self, inner: Any) -> None:
        self._inner = inner

    def __getattr__(self, name: str) -> Any:
        if name in _Slotted.__slots__:
            raise AttributeError(name)
        return getattr(self._inner, name)


class _SlottedTransport(OwnTransport):
    def send(self, request: Any, **options: Any) -> Any:
        return _Slotted(super().send(request, **options))


class _AsyncSlottedTransport(AsyncOwnTransport):
    async def send(self, request: Any, **options: Any) -> Any:
        return _Slotted(await super().send(request, **options))


def _plain(response: Any, kind: Callable[[dict[str, str]], Any] = dict) -> Any:
    headers = dict(response._headers.items())
    headers |= {"content-type": headers["Content-Type"]} if "Content-Type" in headers else {}
    response._headers = kind(headers)
    return response


class _PlainTransport(OwnTransport):
    """Whose responses' headers are a plain dict."""

    def send(self, request: Any, **options: Any) -> OwnResponse:
        response: OwnResponse = _plain(super().send(request, **options))
        return response


class _AsyncPlainTransport(AsyncOwnTransport):
    async def send(self, request: Any, **options: Any) -> AsyncOwnResponse:
        response: AsyncOwnResponse = _plain(await super().send(request, **options))
        return response


class _ReadOnlyTransport(OwnTransport):
    """Whose responses' headers are a mapping that is no dict, and knows one spelling of each name."""

    def send(self, request: Any, **options: Any) -> OwnResponse:
        response: OwnResponse = _plain(super().send(request, **options), MappingProxyType)
        return response


class _AsyncReadOnlyTransport(AsyncOwnTransport):
    async def send(self, request: Any, **options: Any) -> AsyncOwnResponse:
        response: AsyncOwnResponse = _plain(await super().send(request, **options), MappingProxyType)
        return response


OWN: dict[str, dict[str, Any]] = {
    "without internal_response": {"sync": OwnTransport, "aio": AsyncOwnTransport},
    "with slots": {"sync": _SlottedTransport, "aio": _AsyncSlottedTransport},
    "with a plain dict for headers": {"sync": _PlainTransport, "aio": _AsyncPlainTransport},
    "with another mapping for headers": {"sync": _ReadOnlyTransport, "aio": _AsyncReadOnlyTransport},
}


@pytest.fixture(params=list(OWN))
def own(request: pytest.FixtureRequest) -> Any:
    return OWN[request.param]


@pytest.mark.parametrize("options", [{}, {"validate_content": True}], ids=["", "checked"])
@pytest.mark.parametrize("bare", [True, False], ids=["bare", "ours"])
def test_a_transport_of_a_users_own_reads(client_kind: str, own: Any, bare: bool, options: Any) -> None:
    with Lab(client_kind, bare=bare, make_transport=own[client_kind]) as lab:
        assert lab.read("fresh", **options) == FRESH
        assert lab.names() == ["fresh", "old"]
        lab.write()
        assert set(lab.trail) == {"P"}


@pytest.mark.parametrize("options", [{}, {"validate_content": True}], ids=["", "checked"])
@pytest.mark.parametrize("fault", ["503", "502", "refuse", "hang", "reset"])
def test_a_transport_of_a_users_own_fails_over(client_kind: str, own: Any, fault: str, options: Any) -> None:
    with Lab(client_kind, Fault(0.0, FOREVER, P, fault), make_transport=own[client_kind], retry=None) as lab:
        assert lab.read("old", **options) == OLD

        async def properties() -> Any:
            return await result(lab.service.get_blob_client("demo", "old").get_blob_properties())

        assert lab.run(properties()).size == len(OLD)
        assert lab.names() == ["old"]


@pytest.mark.parametrize("fault", ["truncated", "body-reset"])
def test_a_transport_of_a_users_own_whose_body_breaks_off(client_kind: str, own: Any, fault: str) -> None:
    """Where its responses take no attributes it is the bare client's behaviour: the SDK asks for the rest."""
    for bare in (True, False):
        with Lab(client_kind, Fault(0.0, 0.5, P, fault), make_transport=own[client_kind], bare=bare) as lab:
            assert lab.read("old") == OLD
