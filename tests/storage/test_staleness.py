"""How old an answer of the secondary's may be: the Last Sync Time, asked for as seldom as possible."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import pytest
from azure.core.exceptions import AzureError

from failover.standin import Exchange, StandIn
from failover.storage import BothEndpointsDown
from failover.storage.staleness import staleness, stats_request
from tests.clock import Clock
from tests.storage.account import HELLO, Trail, sas_of, spoil, status, store
from tests.storage.clients import TEACHING, blob_of, noting_transport


@pytest.fixture
def world() -> Clock:
    """The account's clock."""
    return Clock(1_700_000_000.0)


@pytest.fixture
def ours() -> Clock:
    """This machine's, which says something else."""
    return Clock(50.0)


@pytest.fixture
def account(world: Clock) -> Iterator[StandIn]:
    """Ten seconds behind, with a blob that has arrived."""
    with StandIn(10.0, clock=world, wall_clock=world) as account:
        store(account)
        world.advance(10)
        yield account


def limited(geo_failover: Any, seconds: float, ours: Clock) -> Any:
    return geo_failover(retry=None, policy=TEACHING, max_staleness=seconds, clock=ours)


def test_a_secondary_that_is_fresh_enough_answers(account: StandIn, ours: Clock, geo_failover: Any) -> None:
    policy = limited(geo_failover, 10, ours)
    blob = blob_of(account, policy)
    policy.primary.trip()
    trail = Trail(account)

    assert blob.download_blob().readall() == HELLO

    assert trail.look() == "SS"  # the question, and the read
    assert blob.download_blob().readall() == HELLO
    assert trail.look() == "S"


def test_one_answer_lasts_until_it_is_too_old(account: StandIn, world: Clock, ours: Clock, geo_failover: Any) -> None:
    policy = limited(geo_failover, 15, ours)
    blob = blob_of(account, policy)
    policy.primary.trip()
    trail = Trail(account)

    for _ in range(3):
        assert blob.exists()
    assert trail.look() == "SSSS"
    for clock in (world, ours):
        clock.advance(4.9)
    assert blob.exists()
    assert trail.look() == "S"
    for clock in (world, ours):
        clock.advance(0.2)
    assert blob.exists()
    assert trail.look() == "SS"


def test_a_secondary_that_is_too_old_is_refused(account: StandIn, world: Clock, ours: Clock, geo_failover: Any) -> None:
    policy = limited(geo_failover, 9, ours)
    blob = blob_of(account, policy)
    account.lose_primary()
    trail = Trail(account)

    with pytest.raises(BothEndpointsDown) as refused:
        blob.download_blob()
    assert refused.value.secondary == "its Last Sync Time is 10 s old, and max_staleness is 9 s"
    assert trail.look() == "S"
    # Asked again after a second at the earliest.
    with pytest.raises(BothEndpointsDown, match="10 s old"):
        blob.download_blob()
    assert trail.look() == ""
    ours.advance(1)
    with pytest.raises(BothEndpointsDown, match="10 s old"):
        blob.download_blob()
    assert trail.look() == "S"
    assert policy.secondary.snapshot()["failures"] == 0


def test_while_the_primary_is_down_the_secondary_ages(
    account: StandIn, world: Clock, ours: Clock, geo_failover: Any
) -> None:
    policy = limited(geo_failover, 30, ours)
    blob = blob_of(account, policy)
    account.lose_primary()

    for _ in range(4):
        assert blob.download_blob().readall() == HELLO
        for clock in (world, ours):
            clock.advance(5)
    for clock in (world, ours):
        clock.advance(1)
    with pytest.raises(BothEndpointsDown, match="31 s old"):
        blob.download_blob()
    account.restore_primary()
    policy.primary.reset()
    assert blob.download_blob().readall() == HELLO


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("<LastSyncTime></LastSyncTime>", "its Last Sync Time is unknown, and max_staleness is 60 s"),
        ("<LastSyncTime>soon</LastSyncTime>", "its Last Sync Time cannot be had"),
        ("<Nothing/>", "its Last Sync Time cannot be had"),
    ],
)
def test_an_unknown_last_sync_time_is_too_old(
    account: StandIn, ours: Clock, body: str, words: str, geo_failover: Any
) -> None:
    policy = limited(geo_failover, 60, ours)
    blob = blob_of(account, policy)
    account.lose_primary()

    def change(exchange: Exchange) -> None:
        if exchange.request.query.get("comp") == "stats":
            exchange.reply.body = body.encode()

    spoil(account, change, at="secondary")
    for _ in range(2):
        with pytest.raises(BothEndpointsDown, match=words):
            blob.download_blob()
        ours.advance(1)
    account.interfere = None

    assert blob.download_blob().readall() == HELLO


def test_a_secondary_that_does_not_tell_is_refused(account: StandIn, ours: Clock, geo_failover: Any) -> None:
    policy = limited(geo_failover, 60, ours)
    blob = blob_of(account, policy)
    account.lose_primary()
    spoil(account, status(403), at="secondary")

    with pytest.raises(BothEndpointsDown, match="its Last Sync Time cannot be had"):
        blob.download_blob()
    account.lose_secondary()
    ours.advance(1)
    with pytest.raises(BothEndpointsDown, match="its Last Sync Time cannot be had: connection refused"):
        blob.download_blob()


def test_without_a_limit_nobody_asks(account: StandIn, geo_failover: Any) -> None:
    policy = geo_failover(retry=None, policy=TEACHING)
    policy.primary.trip()
    trail = Trail(account)

    assert blob_of(account, policy).exists()

    assert trail.look() == "S"


def test_neither_clock_matters(account: StandIn, world: Clock, ours: Clock, geo_failover: Any) -> None:
    policy = geo_failover(retry=None, policy=TEACHING, clock=ours)
    blob = blob_of(account, policy)
    blob.exists()

    assert policy.staleness() == 10
    ours.advance(100_000)
    assert policy.staleness() == 10
    account.lose_primary()
    world.advance(25)
    assert policy.staleness() == 35


def test_staleness_asks_the_secondary_whatever_the_circuits_say(account: StandIn, geo_failover: Any) -> None:
    policy = geo_failover(retry=None, attempt_timeout=3.0)
    transport = noting_transport(policy)
    with pytest.raises(AzureError, match="No secondary endpoint is known yet"):
        policy.staleness()
    blob_of(account, policy, transport=transport, credential=sas_of(account)).exists()
    policy.secondary.isolate()
    before = policy.secondary.snapshot()
    trail = Trail(account)

    assert policy.staleness() == 10
    assert trail.look() == "S"
    assert transport.options[-1]["connection_timeout"] == transport.options[-1]["read_timeout"] == 3.0
    assert "sig=" in transport.sent[-1][1]
    account.lose_secondary()
    with pytest.raises(AzureError):
        policy.staleness()
    assert policy.secondary.snapshot() == before


def test_the_request_for_it_takes_the_sas_and_no_more() -> None:
    like = "https://a.blob.core.windows.net/c/b?snapshot=5&comp=tags&timeout=3&sv=1&se=2%3A00&sig=a%2Fb%2B%3D&sp=r&st=t"

    request = stats_request("https://a-secondary.blob.core.windows.net", like=like, version="2026-02-06")

    assert request.url == (
        "https://a-secondary.blob.core.windows.net/?restype=service&comp=stats&sv=1&se=2%3A00&sig=a%2Fb%2B%3D&sp=r&st=t"
    )
    assert (request.method, request.headers["x-ms-version"]) == ("GET", "2026-02-06")
    assert "x-ms-version" not in stats_request("https://a", like=like, version=None).headers


def test_what_an_answer_tells() -> None:
    def told(then: str, now: str = "Thu, 16 Nov 2023 00:00:30 GMT", code: int = 200) -> Any:
        return staleness(code, {"Date": now}, f"<a><LastSyncTime>{then}</LastSyncTime></a>")

    assert told("Thu, 16 Nov 2023 00:00:10 GMT") == 20
    assert told(" Thu, 16 Nov 2023 00:00:10 GMT\n") == 20
    assert told("Thu, 16 Nov 2023 00:00:40 GMT") == 0
    assert told("") == math.inf
    for args in (("nonsense",), ("Thu, 16 Nov 2023 00:00:10 GMT", ""), ("Thu, 16 Nov 2023 00:00:10 GMT", "x", 500)):
        with pytest.raises(AzureError):
            told(*args)
