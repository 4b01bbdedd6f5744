"""Large downloads whose primary dies half-way, and readers that do not read on."""

from __future__ import annotations

import gc
import random
import threading
from typing import Any

import pytest
from azure.core.exceptions import AzureError
from azure.core.pipeline.transport import _requests_basic

from failover.breaker import AfterCalls, Policy, State
from failover.standin import StandIn
from failover.storage import GeoFailover, Retry
from tests.servers import Account, Azurite
from tests.storage.raw import (
    BLOCK,
    MIB,
    TEACHING,
    Relay,
    Trail,
    blob_of,
    connect,
    cut,
    forbid_sleep,
    spoil,
    store,
)
from tests.storage.test_geo_bodies import CONTENT


@pytest.fixture(autouse=True)
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_sleep(monkeypatch)


@pytest.fixture
def policy() -> GeoFailover:
    return GeoFailover(policy=TEACHING)


# Large downloads


@pytest.mark.parametrize("sizes", [{}, {"max_single_get_size": 4 * MIB}], ids=["defaults", "ten ranges"])
@pytest.mark.parametrize("dies", [False, True])
def test_forty_mebibytes_by_four_threads(account: Account, sizes: dict[str, int], dies: bool) -> None:
    content = random.Random(40).randbytes(40 * MIB)
    store(account, content, "large")
    relay = Relay(account.primary_url) if isinstance(account, Azurite) else None
    lose = account.lose_primary if isinstance(account, StandIn) else relay.lose if relay else None
    assert lose is not None
    seen: list[object] = []
    policy = GeoFailover(policy=TEACHING, listeners=[seen.append])

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


def half_open(account: StandIn, policy: GeoFailover) -> Any:
    """A client whose next read is a probe."""
    store(account, CONTENT)
    client = blob_of(account, policy)
    policy.primary.trip()
    client.exists()
    return client


def test_an_abandoned_body_gives_the_probes_place_back(standin: StandIn) -> None:
    policy = GeoFailover(policy=Policy(recovery=AfterCalls(1)))
    client = half_open(standin, policy)
    trail = Trail(standin)

    body = client._client.blob.download()
    next(body)
    assert client.exists()
    assert trail.look() == "PS"
    assert policy.primary.state is State.HALF_OPEN
    gc.disable()  # at once, and not when the collector comes round
    try:
        del body
        assert client.exists()
    finally:
        gc.enable()

    assert trail.look() == "P"
    assert policy.primary.snapshot()["state"] == "closed"


def test_a_body_may_be_collected_while_the_circuit_decides(standin: StandIn) -> None:
    # The collector runs in whatever thread allocates, and so perhaps in one that holds the circuit's lock and is
    # about to replace the record that it has read.
    policy = GeoFailover(policy=Policy(recovery=AfterCalls(1)))
    bodies = [half_open(standin, policy)._client.blob.download()]
    next(bodies[0])
    changed: list[bool] = []

    def collect() -> None:
        with policy.primary._lock:
            before = policy.primary._record
            bodies.clear()
            gc.collect()
            changed.append(policy.primary._record is not before)

    thread = threading.Thread(target=collect, daemon=True)
    thread.start()
    thread.join(10)

    assert changed == [False]


@pytest.mark.parametrize("where", ["request", "body"])
def test_an_interrupted_read_gives_the_probes_place_back(
    standin: StandIn, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = GeoFailover(policy=Policy(recovery=AfterCalls(1)))
    client = half_open(standin, policy)
    trail = Trail(standin)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        if where == "body":
            patch.setattr(_requests_basic.StreamDownloadGenerator, "__next__", interrupt)
        with pytest.raises(KeyboardInterrupt):
            client.download_blob(raw_request_hook=interrupt if where == "request" else None)
    # At once, and not when the collector comes round: another client may share the circuit.
    policy.primary.admit().released()

    assert client.download_blob().readall() == CONTENT
    assert trail.look() == ("P" if where == "request" else "PP")
    assert policy.primary.state is State.CLOSED


def test_an_error_that_is_no_endpoints_gives_the_probes_place_back(standin: StandIn) -> None:
    policy = GeoFailover(policy=Policy(recovery=AfterCalls(1)))
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


def test_chunks_and_read_and_readinto(standin: StandIn, policy: GeoFailover) -> None:
    store(standin, CONTENT)
    service = connect(standin, policy, max_single_get_size=BLOCK, max_chunk_get_size=BLOCK)
    blob = service.get_blob_client("demo", "HelloWorld")
    spoil(standin, cut(1000))

    assert b"".join(blob.download_blob().chunks()) == CONTENT
    stream = blob.download_blob()
    assert stream.read(1000) + stream.read() == CONTENT
