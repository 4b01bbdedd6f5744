"""`preflight`: whether a failover would work, before it must, and in plain words what is in its way."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import pytest
from azure.core.credentials import AzureNamedKeyCredential
from azure.data import tables
from azure.data.tables import aio as tables_aio
from azure.storage import queue
from azure.storage.queue import aio as queue_aio

from failover.breaker import State
from failover.standin import Exchange, StandIn
from failover.storage import Preflight, apreflight, preflight, protect
from tests.servers import Azurite, credential
from tests.storage.account import Trail, sas_of, spoil, status, store
from tests.storage.both_kinds import both_kinds, close, connect_options, geo_failover, service
from tests.storage.data_lake import DFS, KEY, data_lake
from tests.storage.data_lake import transport as routed


async def fly(kind: str, client: Any, **options: Any) -> Preflight:
    return await apreflight(client, **options) if kind == "aio" else preflight(client, **options)


def connect(kind: str, account: Any, **options: Any) -> Any:
    return service(kind, account.primary_url, **{**connect_options(account), **options})


@both_kinds
async def test_all_is_well(client_kind: str, account: Any) -> None:
    store(account)
    client = connect(client_kind, account)
    for each in (client, client.get_container_client("demo"), client.get_blob_client("demo", "HelloWorld")):
        found = await fly(client_kind, each)
        assert found == Preflight(account.primary_url, account.secondary_url, "Standard_RAGRS", True, found.staleness)
        assert found.staleness is not None
        assert 0 <= found.staleness < 60
    await close(client)


@both_kinds
async def test_it_goes_past_circuits_and_retries(client_kind: str, standin: StandIn) -> None:
    policy = geo_failover(client_kind)
    client = protect(connect(client_kind, standin), policy)
    policy.primary.trip()
    policy.secondary.trip()
    trail = Trail(standin)
    spoil(standin, status(503))
    found = await fly(client_kind, client)
    assert trail.look() == "PSS"
    assert policy.primary.state is State.OPEN
    assert found.kind == "Standard_RAGRS", "the secondary has told it"
    assert found.secondary_is_readable
    assert len(found.problems) == 1
    assert "gives no answer: 503 ServerBusy" in found.problems[0]
    await close(client)


Change = Callable[[Exchange], object]


def _no_secret(found: Preflight, *secrets: str) -> None:
    said = repr(found) + str(found.primary_error) + str(found.secondary_error) + "".join(found.problems)
    for secret in secrets:
        assert secret not in said


SECONDARY: Final[dict[str, tuple[Change, bool | None, str]]] = {
    "refused": (lambda exchange: exchange.fail(403, "AuthenticationFailed"), False, "whole and not expired"),
    "a firewall": (lambda exchange: exchange.fail(403, "AuthorizationFailure"), None, "may not ask"),
    "busy": (lambda exchange: exchange.fail(503, "ServerBusy"), False, "503 ServerBusy"),
}


@pytest.mark.parametrize("name", SECONDARY)
@both_kinds
async def test_what_the_secondary_says(client_kind: str, name: str, standin: StandIn) -> None:
    change, readable, words = SECONDARY[name]
    spoil(standin, change, at="secondary")
    client = connect(client_kind, standin)
    found = await fly(client_kind, client)
    assert found.secondary_is_readable is readable
    assert found.secondary_error is not None
    assert len(found.problems) == 1
    assert words in found.problems[0]
    assert standin.secondary_url.partition("://")[2] in found.problems[0]
    _no_secret(found, standin.account_key)
    await close(client)


@both_kinds
async def test_a_secondary_that_is_out_of_reach(client_kind: str, standin: StandIn) -> None:
    standin.lose_secondary()
    client = connect(client_kind, standin)
    found = await fly(client_kind, client)
    assert (found.kind, found.secondary_is_readable, found.staleness) == ("Standard_RAGRS", False, None)
    assert "connection refused" in found.problems[0]
    assert "may this machine reach that host" in found.problems[0]
    await close(client)


@both_kinds
async def test_a_credential_for_one_container(client_kind: str, standin: StandIn) -> None:
    """It may not ask about the account; what it may read, it reads at the secondary too."""
    store(standin)
    standin.interfere = lambda exchange: (
        exchange.fail(403, "AuthorizationResourceTypeMismatch")
        if exchange.request.query.get("restype") in ("service", "account")
        else None
    )
    client = connect(client_kind, standin)
    for each in (
        client.get_container_client("demo"),
        client.get_blob_client("demo", "HelloWorld"),
        client.get_blob_client("demo", "absent"),
    ):
        found = await fly(client_kind, each)
        assert (found.kind, found.secondary_is_readable, found.staleness, found.problems) == (None, True, None, ())
    found = await fly(client_kind, client)
    assert found.secondary_is_readable is None
    assert "try it with a client of a container" in found.problems[0]
    await close(client)


@both_kinds
async def test_an_account_of_another_kind(client_kind: str) -> None:
    with StandIn(0.0, sku="Standard_\x1b[2JLRS") as account:
        client = connect(client_kind, account)
        found = await fly(client_kind, client)
        assert "--sku Standard_RAGRS" in found.problems[0]
        assert found.problems[0].isprintable()
        await close(client)


@pytest.mark.parametrize(("lag", "words"), [(3600.0, "60 minutes behind"), (math.inf, "has never synchronised")])
@both_kinds
async def test_a_secondary_that_is_far_behind(client_kind: str, lag: float, words: str, standin: StandIn) -> None:
    def old(exchange: Exchange) -> None:
        if exchange.request.query.get("comp") == "stats":
            text = "Thu, 01 Jan 2026 00:00:00 GMT" if lag < math.inf else ""
            exchange.reply.headers["Date"] = "Thu, 01 Jan 2026 01:00:00 GMT"
            exchange.reply = type(exchange.reply)(
                200, exchange.reply.headers, f"<LastSyncTime>{text}</LastSyncTime>".encode()
            )

    standin.interfere = old
    client = connect(client_kind, standin)
    found = await fly(client_kind, client)
    assert found.staleness == lag
    assert words in found.problems[0]
    await close(client)


@both_kinds
async def test_a_sas_is_used_and_never_shown(client_kind: str, standin: StandIn) -> None:
    store(standin)
    sas = sas_of(standin)
    signature = sas.partition("sig=")[2].partition("&")[0]
    client = service(
        client_kind,
        f"{standin.primary_url}?{sas}",
        secondary_hostname=standin.secondary_url.partition("://")[2],
    )
    for each in (client, client.get_blob_client("demo", "HelloWorld")):
        found = await fly(client_kind, each)
        assert found.problems == ()
        _no_secret(found, signature)
    standin.lose_secondary()
    standin.lose_primary()
    found = await fly(client_kind, client)
    assert len(found.problems) == 2
    _no_secret(found, signature)
    await close(client)


@both_kinds
async def test_no_known_secondary(client_kind: str) -> None:
    client = service(client_kind, "https://files.example.invalid", credential="sv=1&sig=SECRET")
    found = await fly(client_kind, client)
    assert found.secondary is None
    assert "does not resolve" in found.problems[0]
    assert "secondary_endpoint=" in found.problems[-1]
    _no_secret(found, "SECRET")
    await close(client)


@both_kinds
async def test_a_secondary_that_the_policy_or_the_caller_names(client_kind: str, standin: StandIn) -> None:
    client = service(client_kind, standin.primary_url, credential=credential(standin))
    assert (await fly(client_kind, client)).secondary_is_readable is False
    found = await fly(client_kind, client, secondary_endpoint=standin.secondary_url)
    assert found.problems == ()
    protect(client, geo_failover(client_kind, secondary_endpoint=standin.secondary_url))
    assert await fly(client_kind, client) == found
    await close(client)


@both_kinds
async def test_data_lake(client_kind: str) -> None:
    with data_lake({"a": b"x"}) as lake:
        from azure.storage import filedatalake
        from azure.storage.filedatalake import aio

        package: Any = aio if client_kind == "aio" else filedatalake
        client = package.DataLakeServiceClient(DFS, credential=KEY, transport=routed(client_kind, lake))
        found = await fly(client_kind, client.get_file_client("fs", "a"))
        assert found.primary == "https://mine.blob.core.windows.net"
        assert found.secondary == "https://mine-secondary.blob.core.windows.net"
        assert found.secondary_is_readable
        await close(client)


@both_kinds
async def test_queues_and_tables(client_kind: str, azurite: Azurite) -> None:
    second = "-secondary"
    clients = [
        (queue_aio if client_kind == "aio" else queue).QueueServiceClient(
            azurite.queue_url,
            credential=credential(azurite),
            secondary_hostname=azurite.queue_url.partition("://")[2] + second,
        ),
        (tables_aio if client_kind == "aio" else tables).TableServiceClient(
            azurite.table_url,
            credential=AzureNamedKeyCredential(azurite.account_name, azurite.account_key),
            secondary_hostname=azurite.table_url.partition("://")[2] + second,
        ),
    ]
    for client in clients:
        found = await fly(client_kind, client)
        assert (found.kind, found.secondary_is_readable) == (None, True), found
        await close(client)


@both_kinds
async def test_bad_input(client_kind: str, standin: StandIn) -> None:
    other = "sync" if client_kind == "aio" else "aio"
    with pytest.raises(TypeError, match="protect"):
        await fly(client_kind, 5)
    client = connect(client_kind, standin)
    with pytest.raises(TypeError, match="aio"):
        await fly(other, client)
    with pytest.raises(ValueError, match="secondary_endpoint"):
        await fly(client_kind, client, secondary_endpoint="https://a?sig=SECRET")
    await close(client)
