"""Transports in front of a `World`: a user's own, for threads and for event loops, and the SDK's over a false socket.

`OwnTransport` and `AsyncOwnTransport` stand on azure-core's public interfaces alone. `sdk_transport` gives azure-core's
own `RequestsTransport`, whose session has an adapter that asks the world: so requests, urllib3 and azure-core make
their own errors and responses.
"""

from __future__ import annotations

import asyncio
import io
import json
import socket
from collections.abc import AsyncIterator, Iterator, MutableMapping
from contextvars import ContextVar
from typing import Any, Final

import requests
from azure.core.configuration import ConnectionConfiguration
from azure.core.exceptions import (
    HttpResponseError,
    IncompleteReadError,
    ServiceRequestError,
    ServiceRequestTimeoutError,
    ServiceResponseError,
    ServiceResponseTimeoutError,
)
from azure.core.pipeline.transport import AsyncHttpTransport, HttpTransport, RequestsTransport
from azure.core.rest import AsyncHttpResponse, HttpRequest, HttpResponse
from requests.adapters import HTTPAdapter
from requests.structures import CaseInsensitiveDict
from urllib3 import HTTPConnectionPool, HTTPResponse
from urllib3.connection import HTTPConnection
from urllib3.exceptions import ConnectTimeoutError, MaxRetryError, NewConnectionError, ProtocolError, ReadTimeoutError

from tests.never_worse.clock import LoopClock, ThreadClock
from tests.never_worse.world import Reply, World

CALLER: Final[ContextVar[str]] = ContextVar("CALLER", default="")
"""Which of several callers at once asks."""

CONNECT: Final = 20.0
"""Seconds: the SDK's own `connection_timeout`, for a client that sets none."""
SILENCE: Final = 60.0
"""Seconds: the SDK's own `read_timeout`."""
FOREVER: Final = 1e6


def _azure_error(kind: str) -> Exception:
    cause: Exception
    if kind == "refuse":
        cause = ConnectionRefusedError(111, "Connection refused")
        error: Any = ServiceRequestError(cause, error=cause)
    elif kind == "dns":
        cause = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        error = ServiceRequestError(cause, error=cause)
    elif kind == "connect-timeout":
        cause = TimeoutError("timed out")
        error = ServiceRequestTimeoutError(cause, error=cause)
    elif kind == "read-timeout":
        cause = TimeoutError("timed out")
        error = ServiceResponseTimeoutError(cause, error=cause)
    elif kind == "truncated":
        cause = EOFError("the body ended early")
        error = IncompleteReadError(cause, error=cause)
    else:
        cause = ConnectionResetError(104, "Connection reset by peer")
        error = ServiceResponseError(cause, error=cause)
    error.__cause__ = cause
    return error  # type: ignore[no-any-return]  # azure-core's, untyped


def _body_of(request: Any) -> bytes:
    content = request.content if hasattr(request, "content") else request.data
    if content is None:
        return b""
    if isinstance(content, str):
        return content.encode()
    return bytes(content) if isinstance(content, (bytes, bytearray)) else bytes(content.read())


def _timeouts(config: ConnectionConfiguration, options: MutableMapping[str, Any]) -> tuple[float, float]:
    connect = options.pop("connection_timeout", config.timeout)
    silence = options.pop("read_timeout", config.read_timeout)
    if isinstance(connect, tuple):
        connect, silence = connect
    return (FOREVER if connect is None else connect, FOREVER if silence is None else silence)


class _Base:
    """What both kinds of response have in common: all that is no I/O."""

    def __init__(self, request: HttpRequest, reply: Reply, clock: Any) -> None:
        self._request = request
        self._reply = reply
        self._clock = clock
        self._headers = CaseInsensitiveDict(reply.headers)
        self._content: bytes | None = None
        self._closed = self._consumed = False
        self._encoding: str | None = None

    @property
    def request(self) -> HttpRequest:
        return self._request

    @property
    def status_code(self) -> int:
        return self._reply.status

    @property
    def headers(self) -> MutableMapping[str, str]:
        return self._headers

    @property
    def reason(self) -> str:
        return self._reply.reason

    @property
    def content_type(self) -> str | None:
        return self._headers.get("content-type")

    @property
    def is_closed(self) -> bool:
        return self._closed

    @property
    def is_stream_consumed(self) -> bool:
        return self._consumed

    @property
    def encoding(self) -> str | None:
        return self._encoding

    @encoding.setter
    def encoding(self, value: str | None) -> None:
        self._encoding = value

    @property
    def url(self) -> str:
        return self._request.url

    @property
    def content(self) -> bytes:
        if self._content is None:
            raise RuntimeError("the body has not been read")
        return self._content

    def body(self) -> bytes:
        """The SDK still asks for this."""
        return self.content

    def text(self, encoding: str | None = None) -> str:
        return self.content.decode(encoding or self._encoding or "utf-8-sig")

    def json(self) -> Any:
        return json.loads(self.content)

    def raise_for_status(self) -> None:
        if self.status_code >= 400:
            raise HttpResponseError(response=self)


class Stream:
    """A body, as the SDK wants it: with the length and the response beside its pieces."""

    def __init__(self, response: Any, pieces: Any) -> None:
        self.response = response
        self.content_length = int(response.headers.get("Content-Length", 0))
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces  # type: ignore[no-any-return]  # of a thread's response

    def __next__(self) -> bytes:
        return next(self._pieces)  # type: ignore[no-any-return]  # of a thread's response

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._pieces  # type: ignore[no-any-return]  # of a loop's response

    async def __anext__(self) -> bytes:
        piece: bytes = await anext(self._pieces)
        return piece


class OwnResponse(_Base, HttpResponse):
    """A response for threads."""

    def __enter__(self) -> OwnResponse:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._closed = True

    def body(self) -> bytes:
        return self.read()

    def read(self) -> bytes:
        if self._content is None:
            self._content = b"".join(self.iter_raw())
        return self._content

    def iter_raw(self, **_: Any) -> Iterator[bytes]:
        self._consumed = True
        first, second = self._reply.halves()
        yield from first
        if self._reply.silence:
            self._clock.sleep(self._reply.silence)
        yield from second
        if self._reply.body_fault:
            raise _azure_error(self._reply.body_fault)

    def iter_bytes(self, **_: Any) -> Iterator[bytes]:
        return self.iter_raw()

    def stream_download(self, _pipeline: Any, **_: Any) -> Stream:
        return Stream(self, self.iter_raw())


class OwnTransport(HttpTransport[Any, Any]):
    """A transport as a user may write one, for threads."""

    def __init__(self, world: World, clock: ThreadClock, node: int) -> None:
        self._world = world
        self._node = node
        self._clock = clock
        self.connection_config = ConnectionConfiguration(connection_timeout=CONNECT, read_timeout=SILENCE)

    def __enter__(self) -> OwnTransport:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def open(self) -> None:
        pass

    def close(self) -> None:
        pass

    def send(self, request: Any, *, stream: bool = False, **options: Any) -> OwnResponse:
        connect, silence = _timeouts(self.connection_config, options)
        body, caller = _body_of(request), CALLER.get()
        reply = self._world.ask(request, body, self._clock.now, connect, silence, caller, self._node)
        self._clock.sleep(reply.delay)
        if reply.fault:
            raise _azure_error(reply.fault)
        response = OwnResponse(request, reply, self._clock)
        if not stream:
            response.read()
            response.close()
        return response


class AsyncOwnResponse(_Base, AsyncHttpResponse):
    """A response for event loops."""

    async def __aenter__(self) -> AsyncOwnResponse:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        self._closed = True

    async def read(self) -> bytes:
        if self._content is None:
            self._content = b"".join([each async for each in self.iter_raw()])
        return self._content

    async def load_body(self) -> None:
        """The SDK still asks for this."""
        await self.read()

    async def iter_raw(self, **_: Any) -> AsyncIterator[bytes]:
        self._consumed = True
        first, second = self._reply.halves()
        for each in first:
            yield each
        if self._reply.silence:
            await asyncio.sleep(self._reply.silence)
        for each in second:
            yield each
        if self._reply.body_fault:
            raise _azure_error(self._reply.body_fault)

    async def iter_bytes(self, **_: Any) -> AsyncIterator[bytes]:
        async for each in self.iter_raw():
            yield each

    def stream_download(self, _pipeline: Any, **_: Any) -> Stream:
        return Stream(self, self.iter_raw())


class AsyncOwnTransport(AsyncHttpTransport[Any, Any]):
    """A transport as a user may write one, for event loops."""

    def __init__(self, world: World, clock: LoopClock, node: int) -> None:
        self._world = world
        self._node = node
        self._clock = clock
        self.connection_config = ConnectionConfiguration(connection_timeout=CONNECT, read_timeout=SILENCE)

    async def __aenter__(self) -> AsyncOwnTransport:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def open(self) -> None:
        pass

    async def close(self) -> None:
        pass

    async def send(self, request: Any, *, stream: bool = False, **options: Any) -> AsyncOwnResponse:
        connect, silence = _timeouts(self.connection_config, options)
        body, caller = _body_of(request), CALLER.get()
        reply = self._world.ask(request, body, self._clock.now, connect, silence, caller, self._node)
        await asyncio.sleep(reply.delay)
        if reply.fault:
            raise _azure_error(reply.fault)
        response = AsyncOwnResponse(request, reply, self._clock)
        if not stream:
            await response.read()
            await response.close()
        return response


# --- the SDK's own transport -----------------------------------------------------------------------------------


class _File(io.RawIOBase):
    """The false socket's file: gives a body, as far as it comes."""

    def __init__(self, reply: Reply, clock: ThreadClock) -> None:
        first, second = reply.halves()
        self._data, self._rest = b"".join(first), b"".join(second)
        self._reply = reply
        self._clock = clock

    def readable(self) -> bool:
        return True

    def read(self, size: int | None = -1) -> bytes:
        wanted = len(self._reply.body) if size is None or size < 0 else size
        if not self._data and self._reply.silence:
            self._clock.sleep(self._reply.silence)
            self._reply.silence = 0.0
            self._data, self._rest = self._rest, b""
            if self._reply.body_fault == "read-timeout":
                raise TimeoutError("timed out")
        if not self._data and wanted and self._reply.body_fault == "body-reset":
            raise ConnectionResetError(104, "Connection reset by peer")
        data, self._data = self._data[:wanted], self._data[wanted:]
        return data

    def read1(self, size: int | None = -1) -> bytes:
        return self.read(size)


class _Adapter(HTTPAdapter):
    """Asks the world."""

    def __init__(self, world: World, clock: ThreadClock, node: int) -> None:
        super().__init__()
        self._world = world
        self._node = node
        self._clock = clock

    def send(
        self,
        request: Any,
        stream: bool = False,
        timeout: Any = None,
        verify: Any = True,
        cert: Any = None,
        proxies: Any = None,
    ) -> requests.Response:
        connect, silence = timeout
        reply = self._world.ask(
            request,
            _body_of_prepared(request),
            self._clock.now,
            FOREVER if connect is None else connect,
            FOREVER if silence is None else silence,
            CALLER.get(),
            self._node,
        )
        self._clock.sleep(reply.delay)
        if reply.fault:
            raise _requests_error(reply.fault, request)
        raw = HTTPResponse(
            body=_File(reply, self._clock),
            headers=reply.headers,
            status=reply.status,
            reason=reply.reason,
            preload_content=False,
            request_method=request.method,
            enforce_content_length=True,
        )
        return self.build_response(request, raw)


def _body_of_prepared(request: Any) -> bytes:
    body = request.body
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode()
    return bytes(body) if isinstance(body, (bytes, bytearray)) else bytes(body.read())


def _requests_error(kind: str, request: Any) -> Exception:
    pool = HTTPConnectionPool("account")
    if kind in ("refuse", "dns"):
        cause: Any = (
            ConnectionRefusedError(111, "Connection refused")
            if kind == "refuse"
            else socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        )
        lost = NewConnectionError(HTTPConnection("account"), f"Failed to establish a new connection: {cause}")
        lost.__cause__ = cause
        return requests.ConnectionError(MaxRetryError(pool, request.url, lost), request=request)
    if kind == "connect-timeout":
        late = MaxRetryError(pool, request.url, ConnectTimeoutError(None, "timed out"))
        return requests.ConnectTimeout(late, request=request)
    if kind == "read-timeout":
        return requests.ReadTimeout(ReadTimeoutError(pool, request.url, "Read timed out."), request=request)
    broken = ProtocolError("Connection aborted.", ConnectionResetError(104, "Connection reset by peer"))
    return requests.ConnectionError(broken, request=request)


def sdk_transport(world: World, clock: ThreadClock, node: int) -> RequestsTransport:
    """azure-core's own transport, over a false socket."""
    session = requests.Session()
    session.trust_env = False
    session.mount("https://", _Adapter(world, clock, node))
    # What a client that makes its own transport gives it.
    return RequestsTransport(
        session=session,
        session_owner=False,
        connection_timeout=CONNECT,
        read_timeout=SILENCE,
        connection_data_block_size=512,
    )
