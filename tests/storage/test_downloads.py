"""Large downloads whose primary dies half-way, and readers that do not read on."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import pytest
from azure.core.exceptions import AzureError
from azure.core.pipeline.transport import _aiohttp, _requests_basic

from failover.breaker import AfterCalls, CircuitBreaker, Policy, State
from failover.standin import StandIn
from failover.storage import Retry
from tests.servers import Account, Azurite
from tests.storage.account import CONTENT, MIB, Trail, cut, spoil, store
from tests.storage.async_client import run
from tests.storage.clients import BLOCK, TEACHING, blob_of, connect, forbid_sleep
from tests.storage.raw_server import Relay


@pytest.fixture(autouse=True)
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_sleep(monkeypatch)


@pytest.fixture
def policy(geo_failover: Any) -> Any:
    return geo_failover(retry=None, policy=TEACHING)


# Large downloads


@pytest.mark.parametrize("sizes", [{}, {"max_single_get_size": 4 * MIB}], ids=["defaults", "ten ranges"])
@pytest.mark.parametrize("dies", [False, True])
def test_forty_mebibytes_by_four_threads(
    account: Account, sizes: dict[str, int], dies: bool, geo_failover: Any
) -> None:
    content = random.Random(40).randbytes(40 * MIB)
    store(account, content, "large")
    relay = Relay(account.primary_url) if isinstance(account, Azurite) else None
    lose = account.lose_primary if isinstance(account, StandIn) else relay.lose if relay else None
    assert lose is not None
    seen: list[object] = []
    policy = geo_failover(retry=None, policy=TEACHING, listeners=[seen.append])

    def progress(so_far: int, total: int | None) -> None:
        if dies and so_far >= 20 * MIB:
            lose()

    if relay is None:
        blob = blob_of(account, policy, "large", **sizes)
    else:
        secondary = account.secondary_url.partition("://")[2]
        behind = Behind(relay.url, account.secondary_url, account.account_name, account.account_key)
        blob = blob_of(behind, policy, "large", secondary_hostname=secondary, **sizes)

    read = blob.download_blob(max_concurrency=4, progress_hook=progress).readall()

    assert len(read) == len(content)
    assert read == content
    assert {each.endpoint for each in seen if isinstance(each, Retry)} == ({"primary"} if dies else set())
    lose()


class Behind:
    """An account as it is seen behind a relay."""

    def __init__(self, primary_url: str, secondary_url: str, account_name: str, account_key: str) -> None:
        self.primary_url, self.secondary_url = primary_url, secondary_url
        self.account_name, self.account_key = account_name, account_key


# Readers that do not read on


def half_open(account: StandIn, policy: Any) -> Any:
    """A client whose next read is a probe."""
    store(account, CONTENT)
    client = blob_of(account, policy)
    policy.primary.trip()
    client.exists()
    return client


@pytest.fixture
def where_it_lives(client_kind: str) -> Callable[[Callable[[], None]], None]:
    """Calls a function in the thread in which a client's connections live."""

    def call(function: Callable[[], None]) -> None:
        async def step() -> None:
            function()

        run(step()) if client_kind == "aio" else function()

    return call


def test_an_abandoned_body_gives_the_probes_place_back(
    standin: StandIn, geo_failover: Any, where_it_lives: Callable[[Callable[[], None]], None]
) -> None:
    policy = geo_failover(retry=None, policy=Policy(recovery=AfterCalls(1)))
    client = half_open(standin, policy)
    trail = Trail(standin)

    bodies = [client._client.blob.download()]
    next(bodies[0])
    assert client.exists()
    assert trail.look() == "PS"
    assert policy.primary.state is State.HALF_OPEN
    gc.disable()  # at once, and not when the collector comes round
    try:
        where_it_lives(bodies.clear)
        assert client.exists()
    finally:
        gc.enable()

    assert trail.look() == "P"
    assert policy.primary.snapshot()["state"] == "closed"


def test_a_body_may_be_collected_while_the_circuit_decides(standin: StandIn, geo_failover: Any) -> None:
    # The collector runs in whatever thread allocates, and so perhaps in one that holds the circuit's lock and is
    # about to replace the record that it has read.
    bodies: list[Any] = []
    changed: list[bool] = []

    def now() -> float:
        if bodies:
            before = primary.state
            bodies.clear()
            gc.collect()
            changed.append(primary.state is not before)
        return 0.0

    primary = CircuitBreaker("primary", Policy(recovery=AfterCalls(1)), clock=now)
    policy = geo_failover(primary, retry=None)
    client = half_open(standin, policy)
    body = client._client.blob.download()
    next(body)
    bodies.append(body)
    del body
    assert primary.state is State.HALF_OPEN

    thread = threading.Thread(target=primary.trip, daemon=True)
    thread.start()
    thread.join(10)

    assert not thread.is_alive()
    assert changed == [False]
    assert primary.snapshot()["state"] == "open"


@pytest.mark.parametrize("where", ["request", "body"])
def test_an_interrupted_read_gives_the_probes_place_back(
    standin: StandIn, where: str, monkeypatch: pytest.MonkeyPatch, client_kind: str, geo_failover: Any
) -> None:
    policy = geo_failover(retry=None, policy=Policy(recovery=AfterCalls(1)))
    client = half_open(standin, policy)
    trail = Trail(standin)

    # An event loop interrupts by cancelling: how a task is cancelled from outside, see `test_event_loops`.
    interruption = KeyboardInterrupt if client_kind == "sync" else asyncio.CancelledError

    def interrupt(*_: object) -> None:
        raise interruption

    with monkeypatch.context() as patch:
        if where == "body":
            patch.setattr(_requests_basic.StreamDownloadGenerator, "__next__", interrupt)
            patch.setattr(_aiohttp.AioHttpStreamDownloadGenerator, "__anext__", interrupt)
        # What `concurrent.futures` makes of a cancelled coroutine is another error of that name.
        with pytest.raises((interruption, CancelledError)):
            client.download_blob(raw_request_hook=interrupt if where == "request" else None)
    # At once, and not when the collector comes round: another client may share the circuit.
    policy.primary.admit().released()

    assert client.download_blob().readall() == CONTENT
    assert trail.look() == ("P" if where == "request" else "PP")
    assert policy.primary.state is State.CLOSED


def test_an_error_that_is_no_endpoints_gives_the_probes_place_back(standin: StandIn, geo_failover: Any) -> None:
    policy = geo_failover(retry=None, policy=Policy(recovery=AfterCalls(1)))
    client = half_open(standin, policy)

    def refuse(_request: object) -> None:
        raise AzureError("cannot be signed")

    with pytest.raises(AzureError, match="cannot be signed"):
        client.download_blob(raw_request_hook=refuse)
    with pytest.raises(ZeroDivisionError):
        client.download_blob(raw_request_hook=lambda _: 1 // 0)
    assert policy.primary.snapshot()["opened"] == 1
    assert client.exists()

    assert policy.primary.state is State.CLOSED


def test_chunks_and_read_and_readinto(standin: StandIn, policy: Any) -> None:
    store(standin, CONTENT)
    service = connect(standin, policy, max_single_get_size=BLOCK, max_chunk_get_size=BLOCK)
    blob = service.get_blob_client("demo", "HelloWorld")
    spoil(standin, cut(1000))

    assert b"".join(blob.download_blob().chunks()) == CONTENT
    stream = blob.download_blob()
    assert stream.read(1000) + stream.read() == CONTENT
