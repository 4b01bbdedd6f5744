"""What `failover.storage._sdk` relies on, against the installed SDK; and what is done where that is not there.

See docs/sdk-internals.md. These tests also run against the oldest supported azure-storage-blob.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import gzip
import inspect
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import AzureError
from azure.core.pipeline import transport as core
from azure.core.pipeline.policies import AsyncHTTPPolicy, HTTPPolicy
from azure.core.pipeline.transport import AioHttpTransport, AsyncioRequestsTransport, RequestsTransport
from azure.core.rest import HttpRequest
from azure.data.tables import TableServiceClient
from azure.storage.blob import BlobServiceClient, ExponentialRetry, LinearRetry
from azure.storage.blob.aio import BlobServiceClient as AsyncBlobServiceClient
from azure.storage.blob.aio import ExponentialRetry as AsyncExponentialRetry
from azure.storage.filedatalake import DataLakeFileClient, DataLakeServiceClient
from azure.storage.queue import QueueServiceClient

from failover.standin import StandIn
from failover.storage import _sdk
from tests.servers import credential
from tests.storage.account import CONTENT, HELLO, KIB, MIB, cut, spoil, store
from tests.storage.async_client import in_loop
from tests.storage.clients import BLOCK
from tests.storage.raw_server import Answer, Asked, RawServer, ranged

REQUESTS: list[Any] = [core.HttpRequest, HttpRequest]
"""azure-core's two kinds of request, each of which gets responses of its own kind."""


class Bare:
    """What has none of the insides that are looked for."""


class Slots:
    """A response of a transport of somebody's own, which takes no attributes."""

    __slots__ = ("__weakref__", "_body", "ended")

    def __init__(self, body: bytes = b"") -> None:
        self._body = body
        self.ended = False

    def body(self) -> bytes:
        return self._body

    def close(self) -> None:
        self.ended = True

    def stream_download(self, _pipeline: Any, **_: Any) -> Iterator[bytes]:
        yield self._body


@pytest.fixture
def served() -> Iterator[RawServer]:
    """A server of one blob."""
    with RawServer(lambda asked: ranged(CONTENT, asked)) as server:
        yield server


@pytest.fixture(params=REQUESTS, ids=["first kind", "second kind"])
def make_request(request: pytest.FixtureRequest) -> Any:
    """Makes a GET of azure-core's."""
    return lambda url: request.param("GET", url)


# The pipeline


class Probe(HTTPPolicy[Any, Any]):
    """Notes what passes."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def send(self, request: Any) -> Any:
        self.seen.append(request.http_request.method)
        return self.next.send(request)


class AsyncProbe(AsyncHTTPPolicy[Any, Any]):
    """`Probe` of an event loop."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    async def send(self, request: Any) -> Any:
        self.seen.append(request.http_request.method)
        return await self.next.send(request)


def test_the_probe_stands_before_the_transport_of_each_sub_client(standin: StandIn) -> None:
    store(standin)
    policy, probe = ExponentialRetry(), Probe()
    service = BlobServiceClient(standin.primary_url, credential=credential(standin), retry_policy=policy)
    container = service.get_container_client("demo")

    before = _sdk.insert_before_transport(policy, probe)
    assert _sdk.insert_before_transport(policy, probe) is before  # once
    assert before.next is probe
    assert not hasattr(probe.next, "next")
    assert container.exists()
    blob = container.get_blob_client("HelloWorld")  # which puts a transport of its own there
    assert before.next is not probe
    assert _sdk.insert_before_transport(policy, probe) is before
    assert blob.download_blob().readall() == HELLO

    assert probe.seen == ["GET", "GET"]


@in_loop
async def test_the_probe_stands_before_the_transport_of_an_event_loop(standin: StandIn) -> None:
    store(standin)
    policy, probe = AsyncExponentialRetry(), AsyncProbe()
    async with AsyncBlobServiceClient(
        standin.primary_url, credential=credential(standin), retry_policy=policy
    ) as service:
        blob = service.get_blob_client("demo", "HelloWorld")
        before = _sdk.insert_before_transport(policy, probe)
        assert _sdk.insert_before_transport(policy, probe) is before
        assert await blob.exists()

    assert probe.seen == ["HEAD"]


class Options(HTTPPolicy[Any, Any]):
    """A retry policy that notes where each request is bound to."""

    def __init__(self) -> None:
        self.bound: list[str | None] = []

    def send(self, request: Any) -> Any:
        self.bound.append(_sdk.bound_location(request.context.options))
        for name in ("retry_to_secondary", "location_mode", "hosts"):
            request.context.options.pop(name, None)
        response = self.next.send(request)
        _sdk.set_location(response.http_response, "primary")
        return response


def test_the_location_that_a_request_is_bound_to(standin: StandIn) -> None:
    store(standin, CONTENT)
    policy = Options()
    service = BlobServiceClient(
        standin.primary_url,
        credential=credential(standin),
        secondary_hostname=standin.secondary_url.partition("://")[2],
        retry_policy=policy,
        max_single_get_size=MIB // 2,
        max_chunk_get_size=MIB // 4,
    )
    blob = service.get_blob_client("demo", "HelloWorld")

    blob.exists()
    assert policy.bound == [None]
    blob.exists(use_location="primary")
    assert policy.bound == [None, "primary"]
    policy.bound.clear()
    assert blob.download_blob().readall() == CONTENT
    assert policy.bound == [None, "primary", "primary"]  # later ranges


def test_a_request_without_the_sdks_options_is_not_bound() -> None:
    assert _sdk.bound_location({}) is None
    assert _sdk.bound_location({"location_mode": "secondary"}) is None
    assert _sdk.bound_location({"retry_to_secondary": False}) is None


def test_a_sub_clients_transport_hides_the_clients() -> None:
    own = RequestsTransport()
    service = BlobServiceClient("https://mine.blob.core.windows.net", transport=own)
    sub = service.get_container_client("c").get_blob_client("b")

    assert sub._pipeline._transport is not own
    assert _sdk.own_transport(sub._pipeline._transport) is own
    assert _sdk.own_transport(own) is own


def test_an_async_sub_clients_transport_hides_the_clients() -> None:
    own = AioHttpTransport()
    service = AsyncBlobServiceClient("https://mine.blob.core.windows.net", transport=own)
    sub = service.get_container_client("c").get_blob_client("b")

    assert _sdk.own_transport(sub._pipeline._transport) is own


def test_a_transport_of_somebodys_own_stands_for_itself() -> None:
    class Wrapping:
        _transport = RequestsTransport()  # its own affair

    for transport in (Bare(), Wrapping()):
        assert _sdk.own_transport(transport) is transport


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, (20, 60, False, False)),
        ({"connection_timeout": 33, "read_timeout": 120}, (33, 120, True, True)),
        ({"read_timeout": 7.5}, (20, 7.5, False, True)),
    ],
)
@pytest.mark.parametrize("client", [BlobServiceClient, AsyncBlobServiceClient])
def test_the_time_outs_of_a_client(client: Any, options: dict[str, Any], expected: tuple[Any, ...]) -> None:
    service = client("https://mine.blob.core.windows.net", **options)

    for each in (service, service.get_blob_client("c", "b")):
        assert tuple(_sdk.client_timeouts(each._pipeline._transport)) == expected


def test_the_time_outs_of_a_transport_that_a_user_has_made() -> None:
    assert tuple(_sdk.client_timeouts(RequestsTransport())) == (300, 300, False, False)
    assert tuple(_sdk.client_timeouts(RequestsTransport(read_timeout=3))) == (300, 3, False, True)
    assert tuple(_sdk.client_timeouts(AioHttpTransport(connection_timeout=3))) == (3, 300, True, False)


def test_time_outs_that_are_not_known() -> None:
    class Odd:
        class connection_config:  # noqa: N801 (the name of an attribute)
            timeout, read_timeout = (1, 2), None

    for transport in (Bare(), Odd()):
        assert tuple(_sdk.client_timeouts(transport)) == (None, None, False, False)


def test_idle_connections_are_dropped(served: RawServer) -> None:
    with RequestsTransport() as transport:

        def ask() -> int:
            transport.send(HttpRequest("GET", served.url)).read()
            return served.connections

        assert [ask(), ask()] == [1, 1]
        _sdk.drop_idle_connections(transport)
        assert [ask(), ask()] == [2, 2]


def test_a_connection_in_use_is_not_dropped(served: RawServer) -> None:
    with RequestsTransport() as transport:
        response = transport.send(HttpRequest("GET", served.url), stream=True)
        body = response.iter_bytes()
        first = next(body)

        _sdk.drop_idle_connections(transport)

        assert first + b"".join(body) == CONTENT


def test_connections_of_which_nothing_is_known_are_left_alone() -> None:
    _sdk.drop_idle_connections(Bare())
    _sdk.drop_idle_connections(RequestsTransport())  # not open yet
    _sdk.drop_idle_connections(AioHttpTransport())


@in_loop
async def test_a_full_pool_of_aiohttp(served: RawServer) -> None:
    import aiohttp

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=1), auto_decompress=False) as session:
        transport = AioHttpTransport(session=session, session_owner=False)
        assert not _sdk.waits_for_connection(transport)
        response: Any = await transport.send(HttpRequest("GET", served.url), stream=True)
        assert _sdk.waits_for_connection(transport)
        await response.read()
        assert not _sdk.waits_for_connection(transport)


@pytest.mark.parametrize("kind", [RequestsTransport, AioHttpTransport])
@in_loop
async def test_a_transport_that_is_closed(kind: Any) -> None:
    async def step(name: str) -> bool:
        done = getattr(transport, name)()
        if inspect.isawaitable(done):
            await done
        return _sdk.is_closed(transport)

    transport = kind()
    assert not _sdk.is_closed(transport)
    assert not await step("open")
    assert await step("close")


@in_loop
async def test_a_session_of_a_users_own_that_is_closed() -> None:
    import aiohttp

    session = aiohttp.ClientSession()
    transport = AioHttpTransport(session=session, session_owner=False)
    assert not _sdk.is_closed(transport)
    await session.close()
    assert _sdk.is_closed(transport)


def test_a_transport_of_which_nothing_is_known_is_open() -> None:
    assert not _sdk.is_closed(Bare())


def test_a_pool_of_which_nothing_is_known_is_not_full() -> None:
    for transport in (Bare(), RequestsTransport(), AioHttpTransport()):
        assert not _sdk.waits_for_connection(transport)


# A response: where it comes from, its end, its whole body


def test_where_a_response_comes_from(served: RawServer, make_request: Any) -> None:
    with RequestsTransport() as transport:
        response = transport.send(make_request(served.url))
    _sdk.set_location(response, "secondary")
    assert response.location_mode == "secondary"

    _sdk.set_location(Slots(), "secondary")


def test_headers_of_requests_find_any_case(served: RawServer, make_request: Any) -> None:
    with RequestsTransport() as transport:
        headers = transport.send(make_request(served.url)).headers
    assert _sdk.finds_any_case(headers)
    assert headers["etag"] == headers["ETag"]


@in_loop
async def test_headers_of_aiohttp_find_any_case(served: RawServer, make_request: Any) -> None:
    async with AioHttpTransport() as transport:
        headers = (await transport.send(make_request(served.url))).headers
    assert _sdk.finds_any_case(headers)
    assert headers["etag"] == headers["ETag"]


def test_headers_of_which_nothing_is_known_find_one_case() -> None:
    assert not _sdk.finds_any_case({"ETag": "0x1"})


def test_a_closed_response_gives_its_connection_up(make_request: Any) -> None:
    with (
        RawServer(lambda asked: Answer(ranged(CONTENT, asked).head, CONTENT[:KIB], then="hang")) as server,
        RequestsTransport() as transport,
    ):
        response = transport.send(make_request(server.url), stream=True)
        _sdk.close(response)
        assert response.internal_response.raw.closed


def test_a_response_that_is_at_its_end_gives_its_connection_back(served: RawServer, make_request: Any) -> None:
    with RequestsTransport() as transport:
        for _ in range(2):
            response = transport.send(make_request(served.url), stream=True)
            _sdk.load(response)
            _sdk.close(response)

    assert served.connections == 1


@in_loop
async def test_a_closed_response_of_an_event_loop_gives_its_connection_up() -> None:
    for request in REQUESTS:
        with RawServer(lambda asked: Answer(ranged(CONTENT, asked).head, CONTENT[:KIB], then="hang")) as server:
            async with AioHttpTransport() as transport:
                response: Any = await transport.send(request("GET", server.url), stream=True)
                _sdk.close(response)
                assert response.internal_response.closed
                assert response.internal_response.connection is None


def test_a_response_without_insides_is_closed_by_its_own_method() -> None:
    class Awaited:
        closed = False

        async def close(self) -> None:
            self.closed = True

    response, awaited = Slots(), Awaited()
    for each in (response, awaited, Bare()):
        _sdk.close(each)

    assert response.ended
    assert not awaited.closed  # nobody could wait for it


def test_the_whole_body_of_a_threads_response(served: RawServer, make_request: Any) -> None:
    with RequestsTransport() as transport:
        for stream in (True, False):
            response: Any = transport.send(make_request(served.url), stream=stream)
            _sdk.load(response)
            _sdk.load(response)  # once more is no harm
            assert _whole(response) == CONTENT

    _sdk.load(Slots(b"x"))


def _whole(response: Any) -> bytes:
    body: bytes = response.body() if hasattr(response, "body") else response.content
    return body


TRANSPORTS: dict[str, Any] = {"aiohttp": AioHttpTransport, "requests in a loop": AsyncioRequestsTransport}


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("stream", [True, False])
@in_loop
async def test_the_whole_body_of_an_event_loops_response(
    served: RawServer, make_request: Any, transport: str, stream: bool
) -> None:
    async with TRANSPORTS[transport]() as opened:
        response: Any = await opened.send(make_request(served.url), stream=stream)
        await _sdk.aload(response, _nothing)
        await _sdk.aload(response, _nothing)  # once more is no harm
        assert _whole(response) == CONTENT


def _nothing(_seconds: float, _size: int) -> None:
    """Hears nothing."""


@in_loop
async def test_the_whole_body_of_a_response_that_takes_no_attributes() -> None:
    class Own:
        __slots__ = ("_body",)

        async def load_body(self) -> None:
            self._body = b"x"

        def body(self) -> bytes:
            return self._body

    response = Own()
    await _sdk.aload(response, _nothing)
    assert response.body() == b"x"


@in_loop
async def test_aiohttp_tells_how_long_each_piece_took(served: RawServer) -> None:
    # On the responses of azure-core's second kind, which are those that the storage SDK gets.
    seen: list[tuple[float, int]] = []
    async with AioHttpTransport() as transport:
        response: Any = await transport.send(HttpRequest("GET", served.url), stream=True)
        await _sdk.aload(response, lambda *each: seen.append(each))

    assert sum(size for _, size in seen) == len(CONTENT)
    assert all(seconds >= 0 for seconds, _ in seen)


@in_loop
async def test_a_body_that_has_arrived_is_known_of_aiohttp() -> None:
    body = CONTENT[:KIB]
    for sent in (body, body[:-1]):
        answer = Answer(f"HTTP/1.1 200 OK\nContent-Length: {KIB}", sent, then="hang")
        with RawServer(functools.partial(_always, answer)) as server:
            async with AioHttpTransport() as transport:
                response: Any = await transport.send(HttpRequest("GET", server.url), stream=True)
                content = response.internal_response.content
                while content.total_bytes < len(sent):
                    await asyncio.sleep(0.001)
                assert _sdk.has_arrived(response) is (sent == body)


@pytest.mark.parametrize(
    ("head", "sent"),
    [
        ("", CONTENT[:KIB]),  # it ends with its connection
        ("\nTransfer-Encoding: chunked", b"400\r\n%b\r\n0\r\n\r\n" % CONTENT[:KIB]),
    ],
)
@in_loop
async def test_a_body_that_may_be_cut_short_has_not_arrived(head: str, sent: bytes) -> None:
    answer = Answer(f"HTTP/1.1 200 OK{head}", sent, then="close")
    with RawServer(functools.partial(_always, answer)) as server:
        async with AioHttpTransport() as transport:
            response: Any = await transport.send(HttpRequest("GET", server.url), stream=True)
            content = response.internal_response.content
            while not content.is_eof():
                await asyncio.sleep(0.001)
            assert not _sdk.has_arrived(response)


def _always(answer: Answer, _asked: Asked) -> Answer:
    return answer


def test_a_body_of_a_thread_is_not_known_to_have_arrived(served: RawServer, make_request: Any) -> None:
    with RequestsTransport() as transport:
        assert not _sdk.has_arrived(transport.send(make_request(served.url), stream=True))


# A client that exists already


CLIENTS: dict[str, tuple[Callable[[], Any], int]] = {
    "blob": (lambda: BlobServiceClient("https://a.blob.core.windows.net"), 1),
    "blob of aio": (lambda: AsyncBlobServiceClient("https://a.blob.core.windows.net"), 1),
    "queue": (lambda: QueueServiceClient("https://a.queue.core.windows.net", credential="sig=x"), 1),
    "data lake": (lambda: DataLakeServiceClient("https://a.dfs.core.windows.net"), 2),
    "file": (lambda: DataLakeFileClient("https://a.dfs.core.windows.net", "fs", "f"), 2),
    "file of a data lake": (
        lambda: DataLakeServiceClient("https://a.dfs.core.windows.net").get_file_client("fs", "f"),
        1,
    ),
    "tables": (lambda: TableServiceClient("https://a.table.core.windows.net?sig=x"), 1),
}


@pytest.mark.parametrize("name", CLIENTS)
def test_the_retry_policy_stands_where_we_look_for_it(name: str) -> None:
    make, pipelines = CLIENTS[name]
    client = make()
    places = _sdk.retry_places(client)
    assert len(places) == pipelines
    for place in places:
        assert "Retry" in type(place.retry).__name__
        assert place.retry.next is place.next
        assert place.policies[place.at - 1].next is place.retry
        assert place.is_async is (name == "blob of aio")
        assert not place.is_useless
        assert place.replacement is None
        assert place.signs_first is False  # a SAS in the URL is no policy
    assert _sdk.package_of(client) is not None
    assert set(_sdk.hosts_of(client)) == {"primary", "secondary"}
    assert not _sdk.is_cosmos(client)
    assert _sdk.is_async_client(client) is (name == "blob of aio")


def test_tables_sign_first_and_may_be_cosmos_dbs() -> None:
    key = AzureNamedKeyCredential("a", "a2V5")
    client = TableServiceClient("https://a.table.cosmos.azure.com", credential=key)
    assert _sdk.retry_places(client)[0].signs_first
    assert _sdk.is_cosmos(client)


class _Answer:
    def __init__(self, name: str) -> None:
        self.name = name
        self.next: Any = None

    def send(self, _request: Any) -> str:
        return self.name


def test_what_is_replaced_hands_over_in_its_own_pipeline_alone() -> None:
    retry: Any = LinearRetry()
    rest, other_rest = _Answer("rest"), _Answer("another client's")
    before = _Answer("before")
    place = _sdk.RetryPlace([before, retry, rest], 1, None)
    other = _Answer("the other one")
    other.next = rest
    kind = type(retry)

    place.replace(other)

    assert before.next is other
    assert isinstance(retry, kind)
    retry.next = rest
    assert retry.send(None) == "the other one"
    assert _sdk.RetryPlace([before, retry, rest], 1, None).replacement is other
    assert _sdk.RetryPlace([before, retry, other_rest], 1, None).replacement is None
    alone = _sdk.copy_of_retry(retry)
    assert type(alone) is kind
    assert type(_sdk.copy_of_retry(LinearRetry())) is LinearRetry


def test_a_client_is_told_when_it_is_made_and_no_more() -> None:
    made: list[Any] = []
    _sdk.wrap_clients(made.append)
    try:
        client = BlobServiceClient("https://a.blob.core.windows.net")
    finally:
        _sdk.unwrap_clients()
    BlobServiceClient("https://a.blob.core.windows.net")
    assert made == [client]


def test_where_tables_look_for_the_location() -> None:
    own: dict[str, Any] = {"location_mode": "primary"}
    others: dict[str, Any] = {}  # of a retry policy that says nothing there
    for context in (own, others):
        _sdk.set_location_in_context(context, "secondary")
        assert context == {"location_mode": "secondary"}


def test_where_a_response_comes_from_is_unknown_where_it_takes_no_word() -> None:
    response = Bare()
    assert _sdk.location_of(response) is None
    _sdk.set_location(response, "secondary")
    assert _sdk.location_of(response) == "secondary"


# A response: how its body is opened

WAYS: dict[str, Callable[[Any], Any]] = {
    "stream_download": lambda response: response.stream_download(None),
    "iter_bytes": lambda response: response.iter_bytes(),
    "iter_raw": lambda response: response.iter_raw(),
}


def ways_of(response: Any) -> list[str]:
    return [way for way in WAYS if hasattr(response, way)]


def test_a_threads_body_goes_through_us_however_it_is_opened(served: RawServer, make_request: Any) -> None:
    opened: list[str] = []

    def wrap(way: str, pieces: Any, _args: Any, _kwargs: Any) -> Iterator[bytes]:
        opened.append(way)
        return iter([piece.swapcase() for piece in pieces])

    with RequestsTransport() as transport:
        ways = ways_of(transport.send(make_request(served.url)))
        for way in ways:
            response = transport.send(make_request(served.url), stream=True)
            assert _sdk.wrap_stream_download(response, wrap)
            assert b"".join(WAYS[way](response)) == CONTENT.swapcase()

    assert opened == ways
    assert "stream_download" in ways


@pytest.mark.parametrize("transport", TRANSPORTS)
@in_loop
async def test_an_event_loops_body_goes_through_us_however_it_is_opened(
    served: RawServer, make_request: Any, transport: str
) -> None:
    opened: list[str] = []

    async def pieces_of(pieces: Any) -> Any:
        async for piece in pieces:
            yield piece.swapcase()

    def wrap(way: str, pieces: Any, _args: Any, _kwargs: Any) -> Any:
        opened.append(way)
        return pieces_of(pieces)

    async with TRANSPORTS[transport]() as sender:
        ways = ways_of(await sender.send(make_request(served.url)))
        for way in ways:
            response = await sender.send(make_request(served.url), stream=True)
            assert _sdk.wrap_stream_download(response, wrap)
            assert b"".join([piece async for piece in WAYS[way](response)]) == CONTENT.swapcase()

    assert opened == ways
    assert "stream_download" in ways


@in_loop
async def test_aiohttps_read_goes_through_us_too() -> None:
    # So the SDK reads up to 12.24, and to check an MD5. What the response keeps is decoded when it is asked for.
    packed = gzip.compress(HELLO)

    def answer(asked: Asked) -> Answer:
        return ranged(packed, asked, extra="\nContent-Encoding: gzip")

    opened: list[str] = []

    def wrap(way: str, pieces: Any, _args: Any, _kwargs: Any) -> Any:
        opened.append(way)
        return pieces

    with RawServer(answer) as server:
        async with AioHttpTransport() as transport:
            response: Any = await transport.send(HttpRequest("GET", server.url), stream=True)
            assert _sdk.wrap_stream_download(response, wrap)
            assert await response.read() == HELLO
            assert await response.read() == HELLO

    assert opened == ["iter_raw"]


def test_what_a_transport_has_put_in_the_place_of_a_method_goes_first(served: RawServer, make_request: Any) -> None:
    asked: list[dict[str, Any]] = []

    def placed(_pipeline: Any, **kwargs: Any) -> Iterator[bytes]:
        asked.append(kwargs)
        return iter([b"placed"])

    with RequestsTransport() as transport:
        response: Any = transport.send(make_request(served.url), stream=True)
        response.stream_download = placed
        assert _sdk.wrap_stream_download(response, lambda _way, pieces, _args, _kwargs: pieces)
        assert list(response.stream_download(None, decompress=False)) == [b"placed"]

    assert asked == [{"decompress": False}]


def test_a_response_that_takes_no_attributes_is_as_it_was() -> None:
    response = Slots(b"x")

    assert not _sdk.wrap_stream_download(response, lambda *_: pytest.fail("was opened"))

    assert list(response.stream_download(None)) == [b"x"]


def test_a_response_of_somebodys_own_has_the_ways_that_it_has() -> None:
    class Own(Bare):
        def iter_bytes(self) -> Iterator[bytes]:
            yield b"own"

    response: Any = Own()

    assert _sdk.wrap_stream_download(response, lambda way, pieces, _args, _kwargs: [way, *pieces])

    assert response.iter_bytes() == ["iter_bytes", b"own"]
    assert not hasattr(response, "stream_download")


def test_a_response_that_goes_through_us_leaves_nothing_to_the_garbage_collector(
    served: RawServer, make_request: Any
) -> None:
    with RequestsTransport() as transport:
        response = transport.send(make_request(served.url))
    _sdk.wrap_stream_download(response, lambda _way, pieces, _args, _kwargs: pieces)
    left = weakref.ref(response)
    gc.disable()
    try:
        del response
        assert left() is None
    finally:
        gc.enable()


# A response: the socket


def test_each_read_of_the_socket_is_told(make_request: Any) -> None:
    def drip(asked: Asked) -> Answer:
        head = ranged(CONTENT[: 4 * KIB], asked).head
        return Answer(head, trickle=[CONTENT[n * KIB : (n + 1) * KIB] for n in range(4)], pause=0.02)

    seen: list[tuple[float, int]] = []
    with RawServer(drip) as server, RequestsTransport(connection_data_block_size=BLOCK) as transport:
        response: Any = transport.send(make_request(server.url), stream=True)
        _sdk.time_socket_reads(response, lambda *each: seen.append(each))
        pieces = list(response.stream_download(None))

    assert pieces == [CONTENT[: 4 * KIB]]  # blocks as large as the transport's
    assert [size for _, size in seen if size] == [KIB] * 4
    assert sum(seconds for seconds, _ in seen) > 0.04


def test_what_the_told_one_raises_ends_the_body(served: RawServer, make_request: Any) -> None:
    def refuse(_seconds: float, _size: int) -> None:
        raise TimeoutError("too slow")

    with RequestsTransport() as transport:
        response: Any = transport.send(make_request(served.url), stream=True)
        _sdk.time_socket_reads(response, refuse)
        with pytest.raises(Exception, match="too slow"):
            list(response.stream_download(None))


@pytest.mark.parametrize("decompress", [True, False])
@pytest.mark.parametrize("framing", ["length", "chunks", "close"])
@pytest.mark.parametrize("encoded", [True, False])
def test_a_timed_body_is_the_same(decompress: bool, framing: str, encoded: bool) -> None:
    sent = gzip.compress(CONTENT) if encoded else CONTENT
    head = "HTTP/1.1 200 OK" + ("\nContent-Encoding: gzip" if encoded else "")
    if framing == "chunks":
        body = b"".join(b"%x\r\n%s\r\n" % (len(each), each) for each in (sent[:1000], sent[1000:])) + b"0\r\n\r\n"
        answer = Answer(f"{head}\nTransfer-Encoding: chunked", body)
    elif framing == "length":
        answer = Answer(f"{head}\nContent-Length: {len(sent)}", sent)
    else:
        answer = Answer(head, sent, then="close")

    with RawServer(lambda _: answer) as server, RequestsTransport() as transport:
        response: Any = transport.send(HttpRequest("GET", server.url), stream=True)
        _sdk.time_socket_reads(response, _nothing)
        read = b"".join(response.stream_download(None, decompress=decompress))

    assert read == (CONTENT if decompress else sent)


def test_a_body_of_which_nothing_is_known_is_not_timed() -> None:
    class Inner:
        raw = Bare()

    class Response:
        internal_response = Inner()

    response, raw = Response(), Inner.raw
    _sdk.time_socket_reads(response, _nothing)
    _sdk.time_socket_reads(Bare(), _nothing)
    _sdk.time_socket_reads(Slots(), _nothing)

    assert response.internal_response.raw is raw


# What the SDK lets through


def test_the_sdk_lets_requests_errors_through(standin: StandIn) -> None:
    store(standin, CONTENT)
    spoil(standin, cut(BLOCK))
    service = BlobServiceClient(standin.primary_url, credential=credential(standin), retry_policy=LinearRetry(1))
    blob: Any = service.get_blob_client("demo", "HelloWorld")

    with pytest.raises((AzureError, *_sdk.UNWRAPPED_ERRORS)) as broken:
        blob._client.blob.download(validate_content=True, range=f"bytes=0-{MIB - 1}", range_get_content_md5=True)

    assert isinstance(broken.value, _sdk.UNWRAPPED_ERRORS)
