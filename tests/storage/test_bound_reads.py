"""Who may answer what the SDK or its caller has bound to one endpoint; and the endpoints of clients made otherwise."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceModifiedError, ResourceNotFoundError
from azure.storage.blob._generated.models import ModifiedAccessConditions

from failover.breaker import AfterCalls, Policy
from failover.standin import Exchange, StandIn
from failover.storage import BothEndpointsDown
from tests.clock import Clock
from tests.servers import Account
from tests.storage.account import HELLO, Trail, plain, spoil, status, store
from tests.storage.clients import BLOCK, TEACHING, blob_of, connect, container_of

CONTENT = random.Random(2).randbytes(4 * BLOCK)
RANGES: dict[str, Any] = {"max_single_get_size": BLOCK, "max_chunk_get_size": BLOCK}


@pytest.fixture
def policy(geo_failover: Any) -> Any:
    return geo_failover(retry=None, policy=TEACHING)


# Ranges


@pytest.mark.parametrize("first", ["primary", "secondary"])
def test_later_ranges_may_come_from_the_other_endpoint(standin: StandIn, policy: Any, first: str) -> None:
    store(standin, CONTENT)
    if first == "secondary":
        policy.primary.trip()
    conditions: list[str | None] = []

    def then_lose_it(exchange: Exchange) -> None:
        conditions.append(exchange.request.headers.get("if-match"))
        if exchange.request.headers["x-ms-range"].startswith(f"bytes={2 * BLOCK}-"):
            exchange.fail(503)

    spoil(standin, then_lose_it, at=first)
    trail = Trail(standin)
    download = blob_of(standin, policy, **RANGES).download_blob()
    policy.primary.reset()

    assert download.readall() == CONTENT
    here, there = ("P", "S") if first == "primary" else ("S", "P")
    assert trail.look() == here + here + here + here + there + here
    assert conditions[0] is None
    assert len(set(conditions[1:])) == 1
    assert conditions[1] is not None


def test_a_range_of_another_version_is_an_answer_of_the_primarys(standin: StandIn, policy: Any) -> None:
    store(standin, CONTENT)
    download = blob_of(standin, policy, **RANGES).download_blob()
    store(standin, CONTENT[::-1])
    trail = Trail(standin)

    with pytest.raises(ResourceModifiedError):
        download.readall()

    assert trail.look() == "P"


@pytest.mark.parametrize("lost", [False, True])
def test_a_range_that_the_secondary_has_no_more_is_gone(lost: bool, geo_failover: Any) -> None:
    # What the secondary has replaced, the primary has not either: a replica never goes back.
    clock = Clock()
    policy = geo_failover(retry=None, policy=Policy(recovery=AfterCalls(1)))
    with StandIn(1.0, clock=clock) as account:
        store(account, CONTENT)
        clock.advance(1)
        policy.primary.trip()
        download = blob_of(account, policy, **RANGES).download_blob()
        store(account, CONTENT[::-1])
        clock.advance(1)
        if lost:
            account.lose_primary()
        trail = Trail(account)

        with pytest.raises(ResourceModifiedError):
            download.readall()

        assert trail.look() == "S"


READS: dict[str, Callable[[Any, str], object]] = {
    "no range": lambda blob, etag: blob.get_blob_properties(
        use_location="primary", etag=etag, match_condition=MatchConditions.IfNotModified
    ),
    "any version": lambda blob, _: blob.download_blob(
        use_location="primary", match_condition=MatchConditions.IfPresent
    ),
    "the whole": lambda blob, etag: blob._client.blob.download(
        use_location="primary", modified_access_conditions=ModifiedAccessConditions(if_match=etag)
    ),
    "no condition": lambda blob, _: blob.download_blob(use_location="primary"),
}


@pytest.mark.parametrize("read", READS)
def test_only_a_range_of_one_version_may_move(standin: StandIn, policy: Any, read: str) -> None:
    store(standin)
    blob = blob_of(standin, policy)
    etag = blob.get_blob_properties().etag
    spoil(standin, status(503))
    trail = Trail(standin)

    with pytest.raises(HttpResponseError) as failed:
        READS[read](blob, etag)

    assert failed.value.status_code == 503
    assert trail.look() == "PP"


# Pages


@pytest.mark.parametrize("first", ["primary", "secondary"])
def test_pages_stay_where_the_first_came_from(standin: StandIn, policy: Any, first: str) -> None:
    for n in range(6):
        store(standin, HELLO, f"b{n}")
    if first == "secondary":
        policy.primary.trip()
    trail = Trail(standin)
    pages = container_of(standin, policy).list_blobs(results_per_page=2).by_page()

    assert [each.name for each in next(pages)] == ["b0", "b1"]
    policy.primary.reset()
    assert [each.name for each in next(pages)] == ["b2", "b3"]
    assert trail.look() == ("PP" if first == "primary" else "SS")
    spoil(standin, status(503), at=first)
    with pytest.raises(HttpResponseError) as failed:
        next(pages)
    assert failed.value.status_code == 503
    assert trail.look() == ("PP" if first == "primary" else "SS")


# The caller's own choice


@pytest.mark.parametrize("location", ["primary", "secondary"])
def test_use_location_stays(account: Account, policy: Any, location: str) -> None:
    store(account)
    blob = blob_of(account, policy)
    assert blob.get_blob_properties(use_location=location).size == len(HELLO)
    getattr(policy, location).isolate()

    with pytest.raises(BothEndpointsDown):
        blob.get_blob_properties(use_location=location)


def test_no_of_the_endpoint_that_was_asked_for_is_no(policy: Any, geo_failover: Any) -> None:
    with StandIn(10.0, clock=Clock()) as account:
        store(account)
        blob = blob_of(account, policy)
        trail = Trail(account)

        with pytest.raises(ResourceNotFoundError):
            blob.get_blob_properties(use_location="secondary")
        service = connect(account, geo_failover(retry=None))
        service.location_mode = "secondary"
        with pytest.raises(ResourceNotFoundError):
            service.get_blob_client("demo", "HelloWorld").download_blob()
        blob.location_mode = "secondary"
        assert not blob.exists()

        assert trail.look() == "SSS"


@pytest.mark.parametrize("name", ["demo", "devstoreaccount1", "devstoreaccount1-secondary"])
def test_a_client_set_to_the_secondary_stays_there(account: Account, policy: Any, name: str) -> None:
    with plain(account) as service:
        container = service.get_container_client(name)
        if not container.exists():
            container.create_container()
        container.upload_blob("blob", CONTENT, overwrite=True)
    blob = connect(account, policy, **RANGES).get_blob_client(name, "blob")
    blob.location_mode = "secondary"
    trail = Trail(account) if isinstance(account, StandIn) else None

    assert blob.download_blob().readall() == CONTENT
    assert blob.get_blob_properties().size == len(CONTENT)

    assert trail is None or trail.look() == "SSSSS"
    policy.secondary.isolate()
    with pytest.raises(BothEndpointsDown, match="Primary: not asked, the read is bound to the other"):
        blob.exists()
