"""A body that breaks off is a failure of the endpoint that sent it, and the read still ends with the right bytes."""

from __future__ import annotations

import gc
import gzip
import random
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import ContentSettings

from failover.breaker import ConsecutiveFailures, Policy, State
from failover.standin import Exchange, StandIn
from failover.storage import BothEndpointsDown, GeoFailover
from failover.storage.body import Body
from failover.storage.read import Read
from tests.clock import Clock
from tests.storage.account import CONTENT, KIB, MIB, Trail, cut, spoil, store
from tests.storage.clients import BLOCK, TEACHING, blob_of, forbid_sleep, replace_sdk_sleep


@pytest.fixture(autouse=True)
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK sleeps a second when it notices a broken body: it never should."""
    forbid_sleep(monkeypatch)


@pytest.fixture
def delivered(client_kind: str) -> Callable[[int], int]:
    """How much of a body that breaks off is handed out: requests gives whole blocks, aiohttp all that came."""
    return (lambda size: size // BLOCK * BLOCK) if client_kind == "sync" else lambda size: size


@pytest.fixture
def policy(geo_failover: Any) -> Any:
    return geo_failover(retry=None, policy=TEACHING)


def spans(account: StandIn, change: Callable[[Exchange], object], **where: Any) -> list[str]:
    """Spoil, and note at whose door which range was asked for."""
    seen: list[str] = []
    spoil(account, change, **where)
    inner = account.interfere

    def interfere(exchange: Exchange) -> None:
        if exchange.request.method == "GET":
            seen.append(f"{exchange.request.endpoint[0].upper()} {exchange.request.headers.get('x-ms-range')}")
        assert inner is not None
        inner(exchange)

    account.interfere = interfere
    return seen


@pytest.mark.parametrize("after", [0, 1, BLOCK - 1, BLOCK, 600 * KIB, MIB - 1])
def test_the_other_endpoint_sends_the_rest(
    standin: StandIn, policy: Any, after: int, delivered: Callable[[int], int]
) -> None:
    store(standin, CONTENT)
    seen = spans(standin, cut(after), times=1)
    blob = blob_of(standin, policy, connection_data_block_size=BLOCK)

    assert blob.download_blob().readall() == CONTENT

    assert seen == [f"P bytes=0-{32 * MIB - 1}", f"S bytes={delivered(after)}-{MIB - 1}"]
    assert policy.primary.snapshot()["failures"] == 1
    assert policy.primary.snapshot()["last_error"] == "the body broke off"
    assert policy.secondary.snapshot()["failures"] == 0


@pytest.mark.parametrize("broken_range", [0, 1, 2, 3])
def test_any_range_may_break(standin: StandIn, policy: Any, broken_range: int) -> None:
    store(standin, CONTENT)
    blob = blob_of(standin, policy, max_single_get_size=BLOCK, max_chunk_get_size=BLOCK)
    first = broken_range * BLOCK

    def change(exchange: Exchange) -> None:
        if exchange.request.headers["x-ms-range"].startswith(f"bytes={first}-"):
            exchange.cut_after = 1000

    trail = Trail(standin)
    spoil(standin, change)

    assert blob.download_blob().readall() == CONTENT
    assert trail.look() == "P" * (broken_range + 1) + "S" + "P" * (3 - broken_range)


def test_a_part_of_a_blob_ends_where_it_should(standin: StandIn, policy: Any, delivered: Callable[[int], int]) -> None:
    store(standin, CONTENT)
    seen = spans(standin, cut(BLOCK + 7), times=1)

    part = blob_of(standin, policy).download_blob(offset=1000, length=3 * BLOCK).readall()

    assert part == CONTENT[1000 : 1000 + 3 * BLOCK]
    assert seen[1] == f"S bytes={1000 + delivered(BLOCK + 7)}-{1000 + 3 * BLOCK - 1}"


def test_both_endpoints_break_in_turn(standin: StandIn, policy: Any, delivered: Callable[[int], int]) -> None:
    store(standin, CONTENT)
    seen = spans(standin, cut(BLOCK + 5), at="primary+secondary", times=3)

    assert blob_of(standin, policy).download_blob().readall() == CONTENT

    step = delivered(BLOCK + 5)
    assert [each.replace(f"-{MIB - 1}", "") for each in seen] == [
        f"P bytes=0-{32 * MIB - 1}",
        f"S bytes={step}",
        f"P bytes={2 * step}",
        f"S bytes={3 * step}",
    ]
    assert (policy.primary.snapshot()["failures"], policy.secondary.snapshot()["failures"]) == (2, 0)


def test_a_body_that_nobody_can_send_ends_as_the_sdks(
    standin: StandIn, monkeypatch: pytest.MonkeyPatch, geo_failover: Any
) -> None:
    slept: list[float] = []
    replace_sdk_sleep(monkeypatch, slept.append)
    store(standin, CONTENT)
    policy = geo_failover(retry=None, policy=Policy(trip=ConsecutiveFailures(100)))
    spoil(standin, cut(0), at="primary+secondary")
    trail = Trail(standin)

    with pytest.raises(HttpResponseError):
        blob_of(standin, policy).download_blob()

    assert trail.look() == "PSP" * 3  # of each of its tries
    assert slept == [1, 1]
    assert policy.primary.snapshot()["last_error"] == "the body broke off"


def test_headers_are_no_success_so_that_breaks_open_the_circuit(standin: StandIn, policy: Any) -> None:
    store(standin, CONTENT)
    blob = blob_of(standin, policy)
    spoil(standin, cut(300 * KIB))
    trail = Trail(standin)

    for n in range(5):
        assert policy.primary.snapshot()["failures"] == n
        assert blob.download_blob().readall() == CONTENT
    assert policy.primary.state is State.OPEN
    for _ in range(20):
        assert blob.download_blob().readall() == CONTENT
    assert trail.look() == "PS" * 5 + "S" * 20
    assert blob.download_blob().readall() == CONTENT  # a probe whose body breaks
    assert trail.look() == "PS"
    assert policy.primary.snapshot()["state"] == "open"


def test_a_lost_endpoint_breaks_a_body_too(standin: StandIn, policy: Any) -> None:
    store(standin, CONTENT)
    blob: Any = blob_of(standin, policy)
    body = blob._client.blob.download()
    got = next(body)
    # What the sockets hold already still arrives.
    standin.lose_primary()

    assert got + b"".join(body) == CONTENT


def test_a_replica_of_another_version_is_not_mixed_in(
    policy: Any, monkeypatch: pytest.MonkeyPatch, geo_failover: Any
) -> None:
    clock = Clock()
    with StandIn(10.0, clock=clock) as account:
        store(account, CONTENT[::-1])
        clock.advance(10)
        store(account, CONTENT)
        spoil(account, cut(600 * KIB), times=1)
        trail = Trail(account)

        assert blob_of(account, policy).download_blob().readall() == CONTENT
        assert trail.look() == "PSP"
        assert policy.secondary.snapshot()["failures"] == 0

        spoil(account, cut(100))
        replace_sdk_sleep(monkeypatch, lambda _: None)
        with pytest.raises(HttpResponseError, match=r"Connection broken|not completed"):
            blob_of(account, geo_failover(retry=None, policy=Policy(trip=ConsecutiveFailures(100)))).download_blob()
        assert trail.look().startswith("PSPSP")


def test_a_secondary_that_does_not_have_it_yet(policy: Any) -> None:
    with StandIn(10.0, clock=Clock()) as account:
        store(account, CONTENT)
        spoil(account, cut(BLOCK + 7), times=2)
        trail = Trail(account)

        assert blob_of(account, policy).download_blob().readall() == CONTENT
        assert trail.look() == "PSPSP"


@pytest.mark.parametrize("decompress", [True, False])
@pytest.mark.parametrize("after", [0, 300 * KIB, 900 * KIB])
def test_a_compressed_body(standin: StandIn, policy: Any, decompress: bool, after: int) -> None:
    packed = gzip.compress(CONTENT)
    store(standin, packed, content_settings=ContentSettings(content_encoding="gzip"))
    seen = spans(standin, cut(after), times=1)

    read = blob_of(standin, policy).download_blob(decompress=decompress).readall()

    assert read == (CONTENT if decompress else packed)
    # What was decompressed does not tell where it broke: the whole is asked for again.
    assert seen[1:] == [f"S bytes=0-{len(packed) - 1}"]


def test_a_body_that_cannot_be_decoded_is_no_failure_of_an_endpoint(
    standin: StandIn, policy: Any, client_kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One blob stored under a wrong Content-Encoding must not open the circuits for all the others.
    store(standin, CONTENT, content_settings=ContentSettings(content_encoding="gzip"))
    replace_sdk_sleep(monkeypatch, lambda _: None)
    trail = Trail(standin)

    # The async SDK lets zlib's error through, and does not ask again.
    with pytest.raises(HttpResponseError if client_kind == "sync" else zlib.error):
        blob_of(standin, policy).download_blob()

    assert trail.look() == ("PPP" if client_kind == "sync" else "P")
    assert policy.primary.snapshot()["failures"] == 0


@pytest.mark.parametrize("after", [0, 600 * KIB, MIB - 1])
def test_a_checked_body_that_breaks(standin: StandIn, policy: Any, after: int) -> None:
    store(standin, CONTENT)
    spoil(standin, cut(after), times=1)
    trail = Trail(standin)

    assert blob_of(standin, policy).download_blob(validate_content=True).readall() == CONTENT

    assert trail.look() == "PP"


def test_a_checked_body_with_wrong_bytes_is_asked_for_again(standin: StandIn, policy: Any) -> None:
    store(standin, CONTENT)

    def flip(exchange: Exchange) -> None:
        exchange.reply.body = b"!" + exchange.reply.body[1:]

    spoil(standin, flip)
    trail = Trail(standin)
    blob = blob_of(standin, policy)

    assert blob.download_blob(validate_content=True).readall() == CONTENT
    assert trail.look() == "PPS"
    assert policy.primary.snapshot()["last_error"] == "the body does not match its MD5"

    spoil(standin, flip, at="primary+secondary")
    with pytest.raises(BothEndpointsDown, match="does not match its MD5"):
        blob.download_blob(validate_content=True)


def test_checked_ranges(standin: StandIn, policy: Any) -> None:
    store(standin, CONTENT)
    spoil(standin, cut(100), times=3)
    blob = blob_of(standin, policy, max_single_get_size=BLOCK, max_chunk_get_size=BLOCK)

    assert blob.download_blob(validate_content=True).readall() == CONTENT


def test_a_read_leaves_nothing_to_the_garbage_collector(standin: StandIn, policy: Any) -> None:
    # What leads back to itself waits for it, with its response and all: it took a tenth of a thread's reads.
    store(standin, CONTENT)
    blob = blob_of(standin, policy)
    gc.collect()
    gc.disable()
    try:
        before = _reads_alive()  # of other tests, whose tracebacks or clients are alive
        for _ in range(3):
            assert blob.download_blob().readall() == CONTENT
        next(iter(blob.download_blob().chunks()))  # and is given up
        left = _reads_alive() - before
    finally:
        gc.enable()
    assert not left


def _reads_alive() -> set[int]:
    return {id(each) for each in gc.get_objects() if isinstance(each, (Read, Body))}


class Placing(RequestsTransport):  # type: ignore[misc]  # azure-core loads it lazily, as Any
    """A transport that puts a function of its own in the place of its responses' method."""

    opened = 0

    def send(self, request: Any, **kwargs: Any) -> Any:
        response: Any = super().send(request, **kwargs)
        whole = response.stream_download

        def counted(*args: Any, **options: Any) -> Any:
            self.opened += 1
            return whole(*args, **options)

        response.stream_download = counted
        return response


@pytest.mark.parametrize("size", [KIB, MIB])
def test_a_transport_with_an_opener_of_its_own(standin: StandIn, size: int) -> None:
    content = random.Random(1).randbytes(size)
    store(standin, content)
    spoil(standin, cut(size // 2), times=1)
    trail = Trail(standin)
    transport = Placing(use_env_settings=False, connection_data_block_size=BLOCK)

    assert blob_of(standin, GeoFailover(retry=None), transport=transport).download_blob().readall() == content

    assert trail.look() == "PS"
    assert transport.opened == 2
