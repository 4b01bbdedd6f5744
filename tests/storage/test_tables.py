"""Clients of tables, which sign before they retry: their reads fail over, their writes stay. Against Azurite."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import AzureError, HttpResponseError
from azure.data import tables
from azure.data.tables import aio

from failover.breaker import State
from failover.storage import protect
from tests.servers import Azurite
from tests.storage.both_kinds import both_kinds, close, each, geo_failover, result, transport
from tests.storage.clients import TEACHING
from tests.storage.raw_server import Relay


@pytest.fixture
def relay(azurite: Azurite) -> Iterator[Relay]:
    relay = Relay(azurite.table_url)
    yield relay
    relay.lose()


def noting(kind: str) -> tuple[Any, list[str]]:
    """A transport, and where it sends what to."""
    sent: list[str] = []
    inner = transport(kind)
    send = inner.send

    def note(request: Any, **options: Any) -> Any:
        sent.append(f"{request.method} {'S' if '-secondary' in request.url else 'P'}")
        return send(request, **options)

    inner.send = note
    return inner, sent


def connect(kind: str, azurite: Azurite, relay: Relay, **options: Any) -> tuple[Any, list[str]]:
    sender, sent = noting(kind)
    client = (aio if kind == "aio" else tables).TableServiceClient(
        relay.url,
        credential=AzureNamedKeyCredential(azurite.account_name, azurite.account_key),
        secondary_hostname=azurite.table_url.partition("://")[2] + "-secondary",
        transport=sender,
        retry_total=0,
        **options,
    )
    return client, sent


async def filled(service: Any) -> Any:
    table = await result(service.create_table(f"t{uuid.uuid4().hex}"))
    for number in range(5):
        await result(table.create_entity({"PartitionKey": "p", "RowKey": str(number), "n": number}))
    return table


@both_kinds
async def test_reads_fail_over_and_writes_stay(client_kind: str, azurite: Azurite, relay: Relay) -> None:
    service, sent = connect(client_kind, azurite, relay)
    before = await filled(service)
    policy = geo_failover(client_kind, policy=TEACHING)
    assert protect(protect(service, policy)) is service
    protect(before)
    after = service.get_table_client(before.table_name)
    assert (await result(after.get_entity("p", "1")))["n"] == 1
    relay.lose()
    sent.clear()

    for table in (after, before):
        assert (await result(table.get_entity("p", "1")))["n"] == 1
        assert [entity["n"] async for entity in each(table.list_entities(results_per_page=2))] == [0, 1, 2, 3, 4]
    assert before.table_name in [table.name async for table in each(service.list_tables())]
    assert {*sent} == {"GET P", "GET S"}
    assert policy.primary.state is State.OPEN

    sent.clear()
    writes: Final[list[Callable[[], Any]]] = [
        lambda: after.upsert_entity({"PartitionKey": "p", "RowKey": "9"}),
        lambda: before.delete_entity("p", "1"),
        lambda: service.create_table("other"),
    ]
    for write in writes:
        with pytest.raises(AzureError):
            await result(write())
    assert {each.partition(" ")[2] for each in sent} == {"P"}
    await close(service)


@both_kinds
async def test_a_listing_that_the_secondary_began_is_its(client_kind: str, azurite: Azurite, relay: Relay) -> None:
    service, sent = connect(client_kind, azurite, relay)
    table = await filled(service)
    protect(service, geo_failover(client_kind, policy=TEACHING))
    relay.lose()
    pages = each(table.list_entities(results_per_page=2).by_page())
    first = [entity["n"] async for entity in each(await anext(pages))]
    relay.restore()
    sent.clear()
    assert first + [entity["n"] async for page in pages async for entity in each(page)] == [0, 1, 2, 3, 4]
    assert sent == ["GET S", "GET S"]
    await close(service)


@both_kinds
async def test_tables_are_listed_whatever_the_retry(client_kind: str, azurite: Azurite, relay: Relay) -> None:
    """Their clients expect of any retry policy what their own one does."""
    service, _ = connect(client_kind, azurite, relay)
    table = await filled(service)
    protect(service, geo_failover(client_kind, retry=None, policy=TEACHING))
    for _ in range(2):
        assert [entity["n"] async for entity in each(table.list_entities(results_per_page=2))] == [0, 1, 2, 3, 4]
        assert table.table_name in [found.name async for found in each(service.list_tables())]
        relay.lose()
    await close(service)


@both_kinds
async def test_a_table_client_that_no_service_has_made(client_kind: str, azurite: Azurite, relay: Relay) -> None:
    service, _ = connect(client_kind, azurite, relay)
    name = (await filled(service)).table_name
    sender, sent = noting(client_kind)
    table = (aio if client_kind == "aio" else tables).TableClient(
        relay.url,
        name,
        credential=AzureNamedKeyCredential(azurite.account_name, azurite.account_key),
        secondary_hostname=azurite.table_url.partition("://")[2] + "-secondary",
        transport=sender,
    )
    protect(table, geo_failover(client_kind))
    relay.lose()
    assert (await result(table.get_entity("p", "1")))["n"] == 1
    assert set(sent) == {"GET P", "GET S"}
    await close(table)
    await close(service)


@both_kinds
async def test_what_cannot_be_done_is_said(client_kind: str, azurite: Azurite, relay: Relay) -> None:
    service, _ = connect(client_kind, azurite, relay)
    with pytest.raises(ValueError, match="max_staleness"):
        protect(service, geo_failover(client_kind, max_staleness=60.0))
    with pytest.raises(ValueError, match="session"):
        protect(service, geo_failover(client_kind, consistency="session"))
    await result(service.get_table_client("x").close())
    cosmos = (aio if client_kind == "aio" else tables).TableServiceClient(
        "https://mine.table.cosmos.azure.com", credential=AzureNamedKeyCredential("mine", "a2V5")
    )
    with pytest.raises(TypeError, match="Cosmos"):
        protect(cosmos)
    with pytest.raises(HttpResponseError):
        await result(service.get_table_client("absent").get_entity("p", "1"))
    await close(cosmos)
    await close(service)
