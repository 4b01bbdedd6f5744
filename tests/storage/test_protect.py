"""`protect`: failover in clients that somebody else has made, whatever they have made of them before and make later."""

from __future__ import annotations

import asyncio
import copy
import gc
import os
import pickle
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, Final

import pytest
from azure.core import AsyncPipelineClient, PipelineClient
from azure.core.credentials import AccessToken, AzureSasCredential
from azure.core.exceptions import ClientAuthenticationError, ServiceRequestError
from azure.storage import blob
from azure.storage.blob import BlobServiceClient, aio

from failover.breaker import ConsecutiveFailures, Cooldown, Policy, State
from failover.standin import Exchange, StandIn
from failover.storage import AsyncGeoFailover, BothEndpointsDown, GeoFailover, ReadEnded, _sdk, protect
from tests.forking import in_a_fork
from tests.storage.account import HELLO, MIB, Trail, sas_of, spoil, status, store
from tests.storage.both_kinds import (
    at_once,
    both_kinds,
    close,
    connect_options,
    geo_failover,
    read,
    result,
    run,
    service,
)
from tests.storage.data_lake import data_lake
from tests.storage.data_lake import transport as routed

QUICK: Final = Policy(trip=ConsecutiveFailures(2), recovery=Cooldown(1000.0))
SETTLED: Final = "PPSS"
"""The trail of two reads with `QUICK`: the first opens the circuit."""


def connect(kind: str, account: StandIn, **options: Any) -> Any:
    """A service client as its maker has made it, without failover."""
    return service(kind, account.primary_url, **{**connect_options(account), **options})


def quick(kind: str, **settings: Any) -> Any:
    return geo_failover(kind, policy=QUICK, **settings)


async def download(blob_client: Any, **options: Any) -> bytes:
    stream = await result(blob_client.download_blob(**options))
    data: bytes = await result(stream.readall())
    return data


# Which clients

LONE: Final[dict[str, tuple[str, ...]]] = {"ContainerClient": ("demo",), "BlobClient": ("demo", "HelloWorld")}
CLIENTS: Final[dict[str, Callable[[Any], Any]]] = {
    "service": lambda service: service,
    "container of a service": lambda service: service.get_container_client("demo"),
    "blob of a service": lambda service: service.get_blob_client("demo", "HelloWorld"),
    "blob of a container": lambda service: service.get_container_client("demo").get_blob_client("HelloWorld"),
}


def blob_of(client: Any) -> Any:
    """A client of the blob, made by whatever client there is."""
    if hasattr(client, "get_container_client"):
        return client.get_blob_client("demo", "HelloWorld")
    return (
        client
        if hasattr(client, "download_blob") and hasattr(client, "blob_name")
        else client.get_blob_client("HelloWorld")
    )


async def check_failover(kind: str, client: Any, account: StandIn) -> None:
    policy = quick(kind)

    assert protect(client, policy) is client

    trail = Trail(account)
    assert await download(blob_of(client)) == HELLO
    spoil(account, status(503))
    assert await download(blob_of(client)) == HELLO
    assert await download(blob_of(client)) == HELLO
    assert trail.look() == f"P{SETTLED}"
    assert policy.primary.state is State.OPEN


@pytest.mark.parametrize("make", CLIENTS.values(), ids=list(CLIENTS))
@both_kinds
async def test_a_client_that_is_there_fails_over(client_kind: str, make: Any, standin: StandIn) -> None:
    store(standin)
    owner = connect(client_kind, standin)
    await check_failover(client_kind, make(owner), standin)
    await close(owner)


@pytest.mark.parametrize("name", LONE)
@both_kinds
async def test_a_client_that_no_service_has_made(client_kind: str, name: str, standin: StandIn) -> None:
    store(standin)
    made = getattr(aio if client_kind == "aio" else blob, name)
    client = made(standin.primary_url, *LONE[name], **connect_options(standin))
    await check_failover(client_kind, client, standin)
    await close(client)


@both_kinds
async def test_without_a_policy_it_is_the_default_one(client_kind: str, standin: StandIn) -> None:
    store(standin)
    standin.lose_primary()
    client = protect(connect(client_kind, standin))
    assert await read(client) == HELLO
    await close(client)


@both_kinds
async def test_subclients_of_before_and_after(client_kind: str, standin: StandIn) -> None:
    store(standin)
    client = connect(client_kind, standin)
    before = client.get_container_client("demo")
    blob_before = before.get_blob_client("HelloWorld")
    policy = quick(client_kind)

    protect(client, policy)

    spoil(standin, status(503))
    trail = Trail(standin)
    assert await download(blob_before) == HELLO
    # A sub-client of one of before joins the pipeline anew, from a list that knows no failover.
    made_by_old = before.get_blob_client("HelloWorld")
    for each in (made_by_old, blob_before, client.get_blob_client("demo", "HelloWorld"), blob_of(before)):
        assert await download(each) == HELLO
    assert await read(client) == HELLO
    assert trail.look() == "PPSSSSSS"
    await close(client)


@both_kinds
async def test_a_subclients_family_is_protected_with_it(client_kind: str, standin: StandIn) -> None:
    store(standin)
    client = connect(client_kind, standin)
    other = client.get_container_client("demo")

    protect(client.get_blob_client("demo", "HelloWorld"), quick(client_kind))

    spoil(standin, status(503))
    trail = Trail(standin)
    assert await read(client) == HELLO
    assert await download(other.get_blob_client("HelloWorld")) == HELLO
    assert trail.look() == SETTLED
    await close(client)


@both_kinds
async def test_twice_is_once(client_kind: str, standin: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    store(standin)
    client = connect(client_kind, standin)
    before = client.get_container_client("demo")
    policy = quick(client_kind)
    for _ in range(2):
        protect(client, policy)
        protect(client)
        protect(before)
        protect(client.get_container_client("demo"))
        protect(before.get_blob_client("HelloWorld"), policy)
    assert caplog.records == []

    protect(client, quick(client_kind))

    assert ["has a" in each.getMessage() for each in caplog.records] == [True]
    spoil(standin, status(503))
    trail = Trail(standin)
    assert await read(client) == HELLO
    assert await read(client) == HELLO
    assert trail.look() == SETTLED
    assert policy.primary.state is State.OPEN
    await close(client)


@both_kinds
async def test_a_client_made_with_failover_stays_as_it_is(client_kind: str, standin: StandIn) -> None:
    store(standin)
    policy = quick(client_kind)
    client = protect(connect(client_kind, standin, retry_policy=policy))
    standin.lose_primary()
    assert await read(client) == HELLO
    assert policy.primary.state is State.OPEN
    await close(client)


# The client's own retry


@both_kinds
async def test_the_clients_own_retry_goes_on_inside(client_kind: str, standin: StandIn) -> None:
    store(standin)
    heard: list[int] = []
    client = connect(client_kind, standin, retry_policy=at_once(client_kind, 2))
    protect(client, quick(client_kind, primary_attempts=1))
    spoil(standin, status(503), at="primary+secondary")
    trail = Trail(standin)

    with pytest.raises(BothEndpointsDown):
        await read(client, retry_hook=lambda retry_count, **_: heard.append(retry_count))

    assert heard == [0, 1]
    assert trail.look() == "PS" * 3
    await close(client)


@both_kinds
async def test_a_retry_that_the_policy_names_goes_before_it(client_kind: str, standin: StandIn) -> None:
    store(standin)
    client = connect(client_kind, standin, retry_policy=at_once(client_kind, 2))
    protect(client, quick(client_kind, primary_attempts=1, retry=None))
    spoil(standin, status(503), at="primary+secondary")
    trail = Trail(standin)
    with pytest.raises(BothEndpointsDown):
        await read(client)
    assert trail.look() == "PS"
    await close(client)


@both_kinds
async def test_writes_are_retried_by_it(client_kind: str, standin: StandIn) -> None:
    store(standin)
    client = protect(connect(client_kind, standin, retry_policy=at_once(client_kind, 2)))
    spoil(standin, status(503), methods=("PUT",), times=2)
    trail = Trail(standin)
    await result(client.get_blob_client("demo", "other").upload_blob(b"x", overwrite=True))
    assert trail.look(("PUT",)) == "PPP"
    await close(client)


@both_kinds
async def test_one_retry_policy_of_two_clients(client_kind: str, standin: StandIn) -> None:
    """As a program may have it in a constant. The SDK's own clients then disturb one another; protected ones do not."""
    store(standin)
    with StandIn(0.0) as second:
        store(second, b"second")
        constant = at_once(client_kind, 1)
        first_client = connect(client_kind, standin, retry_policy=constant)
        protect(first_client, quick(client_kind))
        second_client = connect(client_kind, second, retry_policy=constant)

        # The second is as it would be without us.
        trail = Trail(second)
        assert await read(second_client) == b"second"
        assert await read(first_client) == HELLO
        spoil(second, status(503), times=1)
        assert await read(second_client) == b"second"
        assert trail.look() == "PPP"

        protect(second_client, quick(client_kind))
        standin.lose_primary()
        second.lose_primary()
        for _ in range(2):
            assert await read(first_client) == HELLO
            assert await read(second_client) == b"second"
        await close(first_client)
        await close(second_client)


class Slotted:
    """A retry policy of a user's own, whose instances take no further attribute."""

    __slots__ = ("next",)
    next: Any

    def send(self, request: Any) -> Any:
        for option in ("hosts", "location_mode", "retry_to_secondary"):  # which the transport does not take
            request.context.options.pop(option, None)
        return self.next.send(request)


def test_a_retry_policy_that_takes_no_attribute(standin: StandIn) -> None:
    store(standin)
    client = protect(connect("sync", standin, retry_policy=Slotted()), quick("sync"))
    standin.lose_primary()
    assert blob_of(client).download_blob().readall() == HELLO
    client.close()


# A policy given


@both_kinds
async def test_one_policy_for_two_clients(client_kind: str, standin: StandIn) -> None:
    store(standin)
    policy = quick(client_kind)
    first, second = (protect(connect(client_kind, standin), policy) for _ in range(2))
    spoil(standin, status(503))
    trail = Trail(standin)
    assert await read(first) == HELLO
    assert await read(second) == HELLO
    assert trail.look() == SETTLED
    await close(first)
    await close(second)


def test_a_policy_of_the_other_kind(client_kind: str, standin: StandIn) -> None:
    store(standin)
    other: Any = AsyncGeoFailover if client_kind == "sync" else GeoFailover

    async def steps() -> None:
        client = connect(client_kind, standin)
        with pytest.raises(TypeError, match="AsyncGeoFailover"):
            protect(client, other())
        assert await read(client) == HELLO, "it is as it was"
        await close(client)

    run(client_kind, steps())


@pytest.mark.parametrize("given", ["policy", GeoFailover, 5])
def test_what_is_no_policy(given: Any, standin: StandIn) -> None:
    with connect("sync", standin) as client, pytest.raises(ValueError, match="policy must be"):
        protect(client, given)


# What cannot be protected


class Bare(BlobServiceClient):
    """A client of a class of a user's own that never made a pipeline."""

    def __init__(self) -> None:
        pass


UNFIT: Final[dict[str, Callable[[BlobServiceClient], Any]]] = {
    "nothing": lambda _: None,
    "a URL": lambda client: client.url,
    "a class": lambda _: BlobServiceClient,
    "a client of another service": lambda _: PipelineClient("https://example.com"),
    "one of another service's aio": lambda _: AsyncPipelineClient("https://example.com"),
    "a pipeline": lambda client: client._pipeline,
    "a client without a pipeline": lambda _: Bare(),
}


@pytest.mark.parametrize("make", UNFIT.values(), ids=list(UNFIT))
def test_what_cannot_be_protected_says_why(make: Any, standin: StandIn) -> None:
    with connect("sync", standin) as client, pytest.raises(TypeError) as raised:
        protect(make(client))
    assert "protect" in str(raised.value)
    assert standin.account_key not in str(raised.value)


# Copies: dask, multiprocessing


def by_pickle(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))  # noqa: S301 (our own)


@pytest.mark.parametrize("duplicate", [by_pickle, copy.deepcopy])
@both_kinds
async def test_copies_are_protected_too(client_kind: str, duplicate: Any, standin: StandIn) -> None:
    store(standin)
    client = connect(client_kind, standin)
    before = client.get_container_client("demo")
    protect(client, quick(client_kind))
    spoil(standin, status(503))
    for original in (client, before):
        other = duplicate(original)
        trail = Trail(standin)
        assert await download(blob_of(other)) == HELLO
        assert await download(blob_of(other)) == HELLO
        assert trail.look() == SETTLED, "it has circuits of its own"
        await close(other)
    await close(client)


def test_a_copy_of_the_clients_retry_is_its_users(standin: StandIn) -> None:
    store(standin)
    own = at_once("sync", 1)
    client = protect(connect("sync", standin, retry_policy=own), quick("sync"))
    with StandIn(0.0) as second:
        store(second, b"second")
        for again in (copy.copy(own), by_pickle(own), own):
            with connect("sync", second, retry_policy=again) as other:
                assert blob_of(other).download_blob().readall() == b"second"
    client.close()


# Life


@pytest.mark.parametrize("has_subclient", [False, True])
def test_a_client_that_nobody_uses_is_freed(has_subclient: bool, standin: StandIn) -> None:
    client = connect("sync", standin)
    before = client.get_container_client("demo") if has_subclient else None
    policy = quick("sync")
    protect(client, policy)
    left = weakref.ref(client), weakref.ref(policy), weakref.ref(client._pipeline._transport)
    gc.collect()
    gc.disable()
    try:
        del client, policy, before
        assert [each() for each in left] == [None, None, None]
    finally:
        gc.enable()


def test_many_threads_protect_one_client_that_is_used(standin: StandIn) -> None:
    store(standin)
    for _ in range(20):
        with connect("sync", standin) as client:
            before = client.get_container_client("demo")
            together = threading.Barrier(4)
            wrong: list[BaseException] = []

            def work(
                number: int,
                client: Any = client,
                before: Any = before,
                together: Any = together,
                wrong: Any = wrong,
            ) -> None:
                try:
                    together.wait()
                    protect(before if number % 2 else client)
                    assert blob_of(client).download_blob().readall() == HELLO
                    assert blob_of(before).download_blob().readall() == HELLO
                except BaseException as error:
                    wrong.append(error)

            threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
            for each in threads:
                each.start()
            for each in threads:
                each.join()
            assert wrong == []
            places = _sdk.retry_places(client) + _sdk.retry_places(before)
            assert len({id(place.replacement or place.retry) for place in places}) == 1


# What the program around it does


@pytest.mark.parametrize("credential", ["anonymous", "sas in the url", "sas", "sas object"])
@both_kinds
async def test_however_the_client_signs(
    client_kind: str, credential: str, standin: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    store(standin)
    sas = sas_of(standin)
    given = {"sas": sas, "sas object": AzureSasCredential(sas)}.get(credential)
    url = f"{standin.primary_url}?{sas}" if credential == "sas in the url" else standin.primary_url
    seen: list[str] = []

    def look(exchange: Exchange) -> None:
        query = exchange.request.query
        seen.append(f"{exchange.request.endpoint} {query.get('sig', 'none')}")
        if exchange.request.endpoint == "primary":
            exchange.fail(503, "ServerBusy")
        elif credential == "anonymous":  # as a container that is public answers
            first = Exchange(exchange.request, exchange.reply)
            exchange.reply = type(exchange.reply)(200, {**first.reply.headers, "ETag": '"0x1"'}, b"")

    client = service(client_kind, url, credential=given, secondary_hostname=standin.secondary_url.partition("://")[2])
    protect(client, quick(client_kind, retry=None))
    standin.interfere = look
    blob_client = client.get_blob_client("demo", "HelloWorld")
    if credential == "anonymous":
        assert await result(blob_client.exists())
    else:
        assert await download(blob_client) == HELLO
    assert [each.partition(" ")[0] for each in seen] == ["primary", "primary", "secondary"]
    assert len({each.partition(" ")[2] for each in seen}) == 1
    assert sas.partition("sig=")[2] not in caplog.text
    await close(client)


class Expiring:
    """A credential whose token was good once and cannot be renewed."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self.is_over = False

    def get_token(self, *_scopes: str, **_options: Any) -> Any:
        def get() -> AccessToken:
            if self.is_over:
                raise ClientAuthenticationError("the sign-in is out of reach")
            return AccessToken("token", int(time.time()) + 1)  # at once to be renewed

        async def aget() -> AccessToken:
            return get()

        return aget() if self._kind == "aio" else get()

    async def close(self) -> None:
        pass


@both_kinds
async def test_a_credential_that_expires_in_the_outage(client_kind: str) -> None:
    with data_lake({"a": b"content"}) as lake:
        credential = Expiring(client_kind)
        url = "https://mine.blob.core.windows.net"
        client = service(client_kind, url, credential=credential, transport=routed(client_kind, lake), retry_total=0)
        policy = quick(client_kind)
        protect(client, policy)
        lake.primary.lose()
        assert await download(client.get_blob_client("fs", "a")) == b"content"
        assert policy.primary.state is State.OPEN
        credential.is_over = True
        with pytest.raises(ClientAuthenticationError, match="out of reach"):
            await download(client.get_blob_client("fs", "a"))
        assert policy.secondary.state is State.CLOSED, "it was not the secondary's doing"
        credential.is_over = False
        assert await download(client.get_blob_client("fs", "a")) == b"content"
        await close(client)


@both_kinds
async def test_a_client_that_is_closed_during_a_read(client_kind: str, standin: StandIn) -> None:
    """What it raises is what the bare client raises, and the circuit does not wait for the read for ever."""
    store(standin, b"x" * MIB)
    ended: list[type[BaseException] | None] = []
    for is_protected in (False, True):
        client = connect(client_kind, standin, retry_total=0)
        policy = quick(client_kind)
        if is_protected:
            protect(client, policy)
        stream = await result(client.get_blob_client("demo", "HelloWorld").download_blob(max_concurrency=1))
        await close(client)
        try:
            assert len(await result(stream.readall())) == MIB
            ended.append(None)
        except Exception as error:
            ended.append(type(error))
        assert policy.primary.state is State.CLOSED
    assert ended[0] is ended[1]


@both_kinds
async def test_a_custom_domain_without_a_known_secondary(client_kind: str, caplog: pytest.LogCaptureFixture) -> None:
    client = protect(service(client_kind, "https://files.example.invalid", credential="sv=1&sig=SECRET", retry_total=0))
    for _ in range(2):
        with pytest.raises(ServiceRequestError):
            await read(client)
    said = [each.getMessage() for each in caplog.records if each.name == "failover.storage"]
    assert len(said) == 1
    assert "secondary_endpoint=" in said[0]
    assert "SECRET" not in caplog.text
    await close(client)


@pytest.mark.parametrize("is_shared", [True, False])
def test_a_policy_in_two_event_loops(is_shared: bool, standin: StandIn) -> None:
    """One after the other and side by side: a policy holds nothing of a loop."""
    store(standin)
    spoil(standin, status(503))
    policy = quick("aio")

    async def reads() -> None:
        client = protect(connect("aio", standin), policy if is_shared else None)
        for _ in range(3):
            assert await asyncio.gather(*(read(client) for _ in range(4))) == [HELLO] * 4
        await close(client)

    asyncio.run(reads())
    threads = [threading.Thread(target=asyncio.run, args=(reads(),)) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert policy.primary.state is (State.OPEN if is_shared else State.CLOSED)


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.parametrize("before", [True, False])
@pytest.mark.usefixtures("unlogged")
def test_fork_before_and_after(before: bool, standin: StandIn) -> None:
    """As gunicorn and Celery do: the client is made, and protected or not, before the workers are there."""
    store(standin)
    standin.lose_primary()
    client = connect("sync", standin)
    if before:
        protect(client, quick("sync"))
        assert blob_of(client).download_blob().readall() == HELLO

    def in_child() -> bool:
        protect(client, quick("sync"))
        return bool(blob_of(client).download_blob().readall() == HELLO)

    assert in_a_fork(in_child)
    protect(client)
    assert blob_of(client).download_blob().readall() == HELLO
    client.close()


# Which endpoint answered


@both_kinds
async def test_hooks_and_events_say_who_answered(client_kind: str, standin: StandIn) -> None:
    store(standin)
    heard: list[str | None] = []
    events: list[Any] = []
    client = connect(client_kind, standin)
    protect(client, quick(client_kind, listeners=[events.append]))

    def hook(response: Any) -> None:
        heard.append(response.http_response.location_mode)

    blob_client = client.get_blob_client("demo", "HelloWorld")
    await download(blob_client, raw_response_hook=hook)
    await result(blob_client.get_blob_properties(raw_response_hook=hook))
    spoil(standin, status(503))
    await download(blob_client, raw_response_hook=hook)
    await result(blob_client.get_blob_properties(raw_response_hook=hook))
    # Each answer is told of, also those that are none for the caller.
    assert heard == ["primary", "primary", "primary", "primary", "secondary", "secondary"]
    ended = [each.endpoint for each in events if isinstance(each, ReadEnded)]
    assert ended == ["primary", "primary", "secondary", "secondary"]
    await close(client)
