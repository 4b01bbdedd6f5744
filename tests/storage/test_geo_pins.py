"""Who may answer what the SDK or its caller has bound to one endpoint; and the endpoints of clients made otherwise."""

from __future__ import annotations

import datetime as dt
import random
from collections.abc import Callable
from typing import Any

import pytest
from azure.core import MatchConditions
from azure.core.exceptions import ResourceModifiedError, ResourceNotFoundError
from azure.storage.blob import (
    AccountSasPermissions,
    BlobServiceClient,
    ResourceTypes,
    generate_account_sas,
)
from azure.storage.blob._generated.models import ModifiedAccessConditions

from failover.breaker import AfterCalls, Policy
from failover.standin import Exchange, StandIn
from failover.storage import BothEndpointsDown, GeoFailover, NotReplicated
from tests.servers import Account, Azurite, Clock, credential
from tests.storage.raw import (
    BLOCK,
    HELLO,
    TEACHING,
    Answer,
    Asked,
    Pair,
    RawServer,
    Trail,
    blob_of,
    connect,
    container_of,
    plain,
    ranged,
    spoil,
    status,
    store,
)

CONTENT = random.Random(2).randbytes(4 * BLOCK)
RANGES: dict[str, Any] = {"max_single_get_size": BLOCK, "max_chunk_get_size": BLOCK}


@pytest.fixture
def policy() -> GeoFailover:
    return GeoFailover(policy=TEACHING)


def sas_of(account: Account) -> str:
    soon = dt.datetime.now(dt.timezone.utc) + dt.timedelta(hours=1)
    types, permission = (
        ResourceTypes(service=True, container=True, object=True),
        AccountSasPermissions(read=True, list=True),
    )
    return generate_account_sas(account.account_name, account.account_key, types, permission, soon)


# Ranges


@pytest.mark.parametrize("first", ["primary", "secondary"])
def test_later_ranges_may_come_from_the_other_endpoint(standin: StandIn, policy: GeoFailover, first: str) -> None:
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


def test_a_range_of_another_version_is_an_answer_of_the_primarys(standin: StandIn, policy: GeoFailover) -> None:
    store(standin, CONTENT)
    download = blob_of(standin, policy, **RANGES).download_blob()
    store(standin, CONTENT[::-1])
    trail = Trail(standin)

    with pytest.raises(ResourceModifiedError):
        download.readall()

    assert trail.look() == "P"


@pytest.mark.parametrize("lost", [False, True])
def test_a_range_that_the_secondary_has_no_more_is_the_primarys_to_judge(lost: bool) -> None:
    clock = Clock()
    policy = GeoFailover(policy=Policy(recovery=AfterCalls(1)))
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

        with pytest.raises(NotReplicated if lost else ResourceModifiedError, match="412" if lost else None):
            download.readall()

        assert trail.look() == ("S" if lost else "SP")


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
def test_only_a_range_of_one_version_may_move(standin: StandIn, policy: GeoFailover, read: str) -> None:
    store(standin)
    blob = blob_of(standin, policy)
    etag = blob.get_blob_properties().etag
    spoil(standin, status(503))
    trail = Trail(standin)

    with pytest.raises(BothEndpointsDown, match="Secondary: not asked, the read is bound to the other"):
        READS[read](blob, etag)

    assert trail.look() == "PP"


# Pages


@pytest.mark.parametrize("first", ["primary", "secondary"])
def test_pages_stay_where_the_first_came_from(standin: StandIn, policy: GeoFailover, first: str) -> None:
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
    with pytest.raises(BothEndpointsDown, match="bound to the other"):
        next(pages)
    assert trail.look() == ("PP" if first == "primary" else "SS")


# The caller's own choice


@pytest.mark.parametrize("location", ["primary", "secondary"])
def test_use_location_stays(account: Account, policy: GeoFailover, location: str) -> None:
    store(account)
    blob = blob_of(account, policy)
    assert blob.get_blob_properties(use_location=location).size == len(HELLO)
    getattr(policy, location).isolate()

    with pytest.raises(BothEndpointsDown):
        blob.get_blob_properties(use_location=location)


def test_no_of_the_endpoint_that_was_asked_for_is_no(policy: GeoFailover) -> None:
    with StandIn(10.0, clock=Clock()) as account:
        store(account)
        blob = blob_of(account, policy)
        trail = Trail(account)

        with pytest.raises(ResourceNotFoundError):
            blob.get_blob_properties(use_location="secondary")
        service = connect(account, GeoFailover())
        service.location_mode = "secondary"
        with pytest.raises(ResourceNotFoundError):
            service.get_blob_client("demo", "HelloWorld").download_blob()
        blob.location_mode = "secondary"
        assert not blob.exists()

        assert trail.look() == "SSS"


@pytest.mark.parametrize("name", ["demo", "devstoreaccount1", "devstoreaccount1-secondary"])
def test_a_client_set_to_the_secondary_stays_there(account: Account, policy: GeoFailover, name: str) -> None:
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


# Clients made otherwise


def service_by(way: str, account: Account, policy: GeoFailover) -> BlobServiceClient:
    if way == "hostname":
        return connect(account, policy)
    if way == "url":
        # The SDK guesses no secondary for a path-style URL; ours is at the same host.
        return BlobServiceClient(account.primary_url, credential=credential(account), retry_policy=policy)
    if way == "sas":
        return connect(account, policy, credential=sas_of(account))
    return BlobServiceClient.from_connection_string(
        f"DefaultEndpointsProtocol=http;AccountName={account.account_name};AccountKey={account.account_key};"
        f"BlobEndpoint={account.primary_url};BlobSecondaryEndpoint={account.secondary_url}{'/' * (way == 'slash')};",
        retry_policy=policy,
        **RANGES,
    )


@pytest.mark.parametrize("way", ["hostname", "url", "sas", "connection string", "slash"])
def test_however_the_client_was_made(account: Account, policy: GeoFailover, way: str) -> None:
    if way == "url" and not isinstance(account, Azurite):
        return  # the stand-in's secondary has a port of its own
    store(account, CONTENT)
    service = service_by(way, account, policy)
    blob = service.get_blob_client("demo", "HelloWorld")

    assert blob.download_blob().readall() == CONTENT
    assert service.get_service_stats()["geo_replication"]["status"] == "live"
    policy.primary.isolate()
    assert blob.download_blob().readall() == CONTENT
    assert service.get_service_stats()["geo_replication"]["last_sync_time"]
    assert "HelloWorld" in [each.name for each in service.get_container_client("demo").list_blobs(results_per_page=1)]
    assert policy.staleness() >= 0


def test_endpoints_with_names_of_their_own(policy: GeoFailover) -> None:
    # Host-style: the path begins with the container.
    def answer(asked: Asked) -> Answer:
        if "comp=stats" in asked.target:
            body = b"<StorageServiceStats><GeoReplication><Status>live</Status></GeoReplication></StorageServiceStats>"
            return Answer(f"HTTP/1.1 200 OK\nContent-Type: application/xml\nContent-Length: {len(body)}", body)
        return ranged(CONTENT, asked)

    busy = "HTTP/1.1 503 Busy\nContent-Length: 0"
    with RawServer(lambda _: Answer(busy), path="") as primary, RawServer(answer, path="") as secondary:
        service = connect(Pair(primary, secondary), policy, credential="sv=1&sig=SECRET", **RANGES)

        assert service.get_blob_client("demo", "a b/c").download_blob().readall() == CONTENT
        assert service.get_service_stats()["geo_replication"]["status"] == "live"

    assert [each.target for each in primary.asked] == ["/demo/a%20b/c?sv=1&sig=SECRET"] * 2
    targets = [each.target for each in secondary.asked]
    assert targets[:4] == ["/demo/a%20b/c?sv=1&sig=SECRET"] * 4
    assert targets[4].startswith("/?")


def test_service_stats_are_the_secondarys_alone(standin: StandIn, policy: GeoFailover) -> None:
    service = connect(standin, policy)
    trail = Trail(standin)

    service.get_service_stats()
    spoil(standin, status(503), at="secondary")
    with pytest.raises(BothEndpointsDown, match="Primary: not asked"):
        service.get_service_stats()

    assert trail.look() == "SSS"
