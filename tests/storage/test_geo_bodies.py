"""A body that breaks off is a failure of the endpoint that sent it, and the read still ends with the right bytes."""

from __future__ import annotations

import gc
import gzip
import random
from collections.abc import Callable
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import ContentSettings

from failover.breaker import ConsecutiveFailures, Policy, State
from failover.standin import Exchange, StandIn
from failover.storage import BothEndpointsDown, GeoFailover
from failover.storage.body import Body
from failover.storage.read import Read
from tests.servers import Clock
from tests.storage.raw import (
    BLOCK,
    KIB,
    MIB,
    TEACHING,
    Trail,
    blob_of,
    cut,
    forbid_sleep,
    replace_sdk_sleep,
    spoil,
    store,
)

CONTENT = random.Random(1).randbytes(MIB)


@pytest.fixture(autouse=True)
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK sleeps a second when it notices a broken body: it never should."""
    forbid_sleep(monkeypatch)


@pytest.fixture
def policy() -> GeoFailover:
    return GeoFailover(policy=TEACHING)


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


@pytest.mark.parametrize(
    ("after", "rest"),
    [(0, 0), (1, 0), (BLOCK - 1, 0), (BLOCK, BLOCK), (600 * KIB, 2 * BLOCK), (MIB - 1, 3 * BLOCK)],
)
def test_the_other_endpoint_sends_the_rest(standin: StandIn, policy: GeoFailover, after: int, rest: int) -> None:
    store(standin, CONTENT)
    seen = spans(standin, cut(after), times=1)
    blob = blob_of(standin, policy, connection_data_block_size=BLOCK)

    assert blob.download_blob().readall() == CONTENT

    assert seen == [f"P bytes=0-{32 * MIB - 1}", f"S bytes={rest}-{MIB - 1}"]
    assert policy.primary.snapshot()["failures"] == 1
    assert policy.primary.snapshot()["last_error"] == "the body broke off"
    assert policy.secondary.snapshot()["failures"] == 0


@pytest.mark.parametrize("broken_range", [0, 1, 2, 3])
def test_any_range_may_break(standin: StandIn, policy: GeoFailover, broken_range: int) -> None:
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


def test_a_part_of_a_blob_ends_where_it_should(standin: StandIn, policy: GeoFailover) -> None:
    store(standin, CONTENT)
    seen = spans(standin, cut(BLOCK + 7), times=1)

    part = blob_of(standin, policy).download_blob(offset=1000, length=3 * BLOCK).readall()

    assert part == CONTENT[1000 : 1000 + 3 * BLOCK]
    assert seen[1] == f"S bytes={1000 + BLOCK}-{1000 + 3 * BLOCK - 1}"


def test_both_endpoints_break_in_turn(standin: StandIn, policy: GeoFailover) -> None:
    store(standin, CONTENT)
    seen = spans(standin, cut(BLOCK + 5), at="primary+secondary", times=3)

    assert blob_of(standin, policy).download_blob().readall() == CONTENT

    assert [each.replace(f"-{MIB - 1}", "") for each in seen] == [
        f"P bytes=0-{32 * MIB - 1}",
        f"S bytes={BLOCK}",
        f"P bytes={2 * BLOCK}",
        f"S bytes={3 * BLOCK}",
    ]
    assert (policy.primary.snapshot()["failures"], policy.secondary.snapshot()["failures"]) == (2, 0)


def test_a_body_that_nobody_can_send_ends(standin: StandIn) -> None:
    store(standin, CONTENT)
    policy = GeoFailover(policy=Policy(trip=ConsecutiveFailures(100)))
    spoil(standin, cut(10), at="primary+secondary")
    trail = Trail(standin)

    with pytest.raises(BothEndpointsDown, match="Primary: the body broke off"):
        blob_of(standin, policy).download_blob()

    assert trail.look() == "P" + "SP" * 5


def test_headers_are_no_success_so_that_breaks_open_the_circuit(standin: StandIn, policy: GeoFailover) -> None:
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


def test_a_lost_endpoint_breaks_a_body_too(standin: StandIn, policy: GeoFailover) -> None:
    store(standin, CONTENT)
    blob: Any = blob_of(standin, policy)
    body = blob._client.blob.download()
    got = next(body)
    # What the sockets hold already still arrives.
    standin.lose_primary()

    assert got + b"".join(body) == CONTENT


def test_a_replica_of_another_version_is_not_mixed_in(policy: GeoFailover) -> None:
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
        with pytest.raises(BothEndpointsDown, match="Secondary: 412 ConditionNotMet"):
            blob_of(account, GeoFailover(policy=TEACHING)).download_blob()


def test_a_secondary_that_does_not_have_it_yet(policy: GeoFailover) -> None:
    with StandIn(10.0, clock=Clock()) as account:
        store(account, CONTENT)
        spoil(account, cut(BLOCK + 7), times=2)
        trail = Trail(account)

        assert blob_of(account, policy).download_blob().readall() == CONTENT
        assert trail.look() == "PSPSP"


@pytest.mark.parametrize("decompress", [True, False])
@pytest.mark.parametrize("after", [0, 300 * KIB, 900 * KIB])
def test_a_compressed_body(standin: StandIn, policy: GeoFailover, decompress: bool, after: int) -> None:
    packed = gzip.compress(CONTENT)
    store(standin, packed, content_settings=ContentSettings(content_encoding="gzip"))
    seen = spans(standin, cut(after), times=1)

    read = blob_of(standin, policy).download_blob(decompress=decompress).readall()

    assert read == (CONTENT if decompress else packed)
    # What was decompressed does not tell where it broke: the whole is asked for again.
    assert seen[1:] == [f"S bytes=0-{len(packed) - 1}"]


def test_a_body_that_cannot_be_decoded_is_no_failure_of_an_endpoint(
    standin: StandIn, policy: GeoFailover, monkeypatch: pytest.MonkeyPatch
) -> None:
    # One blob stored under a wrong Content-Encoding must not open the circuits for all the others.
    store(standin, CONTENT, content_settings=ContentSettings(content_encoding="gzip"))
    replace_sdk_sleep(monkeypatch, lambda _: None)
    trail = Trail(standin)

    with pytest.raises(HttpResponseError):
        blob_of(standin, policy).download_blob()

    assert set(trail.look()) == {"P"}
    assert policy.primary.snapshot()["failures"] == 0


@pytest.mark.parametrize("after", [0, 600 * KIB, MIB - 1])
def test_a_checked_body_that_breaks(standin: StandIn, policy: GeoFailover, after: int) -> None:
    store(standin, CONTENT)
    spoil(standin, cut(after), times=1)
    trail = Trail(standin)

    assert blob_of(standin, policy).download_blob(validate_content=True).readall() == CONTENT

    assert trail.look() == "PP"


def test_a_checked_body_with_wrong_bytes_is_asked_for_again(standin: StandIn, policy: GeoFailover) -> None:
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


def test_checked_ranges(standin: StandIn, policy: GeoFailover) -> None:
    store(standin, CONTENT)
    spoil(standin, cut(100), times=3)
    blob = blob_of(standin, policy, max_single_get_size=BLOCK, max_chunk_get_size=BLOCK)

    assert blob.download_blob(validate_content=True).readall() == CONTENT


def test_a_read_leaves_nothing_to_the_garbage_collector(standin: StandIn, policy: GeoFailover) -> None:
    # What leads back to itself waits for it, with its response and all: it took a tenth of a thread's reads.
    store(standin, CONTENT)
    blob = blob_of(standin, policy)
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            assert blob.download_blob().readall() == CONTENT
        next(iter(blob.download_blob().chunks()))  # and is given up
        left = [each for each in gc.get_objects() if isinstance(each, (Read, Body))]
    finally:
        gc.enable()
    assert left == []
