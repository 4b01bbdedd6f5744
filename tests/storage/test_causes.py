"""Each way in which an endpoint really fails, in words: made with the SDK's transport, and never with a URL in it."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import urllib3
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    DecodeError,
    HttpResponseError,
    IncompleteReadError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.core.pipeline.transport import AioHttpTransport, RequestsTransport
from azure.core.rest import HttpRequest

from failover.storage.causes import describe_status, failure_cause, is_endpoint_failure, is_timeout
from tests.servers import make_certificate
from tests.storage.raw_server import Answer, RawServer

SECRET = "?sv=1&sig=SECRET%2F"


def sync_fetch(url: str, *, stream: bool = False, **options: Any) -> BaseException:
    with RequestsTransport(**{"read_timeout": 0.3, "connection_timeout": 0.3, **options}) as transport:
        try:
            response = transport.send(HttpRequest("GET", url + SECRET), stream=stream)
            for _ in response.stream_download(None):
                pass
        except Exception as error:
            return error
    raise AssertionError("the request went well")


def aio_fetch(url: str, *, stream: bool = False, **options: Any) -> BaseException:
    async def get() -> None:
        async with AioHttpTransport(**{"read_timeout": 0.3, "connection_timeout": 0.3, **options}) as transport:
            response: Any = await transport.send(HttpRequest("GET", url + SECRET), stream=stream)
            async for _ in response.stream_download(None):
                pass

    try:
        asyncio.run(get())
    except Exception as error:
        return error
    raise AssertionError("the request went well")


Fetch = Callable[..., BaseException]


@pytest.fixture
def fetch(client_kind: str) -> Fetch:
    """What the SDK's transport raises for a request of a URL, whose query holds a secret."""
    return sync_fetch if client_kind == "sync" else aio_fetch


def served(answer: Answer, *, stream: bool = False) -> Callable[[Fetch], BaseException]:
    # A machine under load may take a while for what is there; only what hangs is waited for in vain.
    timeout = 0.3 if answer.then == "hang" else 10

    def make(fetch: Fetch) -> BaseException:
        with RawServer(lambda _: answer) as server:
            return fetch(server.url, stream=stream, read_timeout=timeout)

    return make


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as once:
        return int(once.getsockname()[1])


def refused(fetch: Fetch) -> BaseException:
    return fetch(f"http://127.0.0.1:{closed_port()}/c/b")


def unresolved(fetch: Fetch) -> BaseException:
    return fetch("http://no-such-account.blob.invalid/c/b", connection_timeout=10)


def no_connection(fetch: Fetch) -> BaseException:
    # A listener whose queue is full answers no further SYN.
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(8)]
        for each in waiting:
            each.setblocking(False)
            with suppress(BlockingIOError):
                each.connect(full.getsockname())
        error = fetch(f"http://127.0.0.1:{full.getsockname()[1]}/c/b")
        for each in waiting:
            each.close()
    return error


HEAD = "HTTP/1.1 200 OK\nContent-Length: 100"
CHUNKED = "HTTP/1.1 200 OK\nTransfer-Encoding: chunked"
FAILURES: dict[str, tuple[Callable[[Fetch], BaseException], str, bool]] = {
    "refused": (refused, "connection refused", False),
    "unresolved": (unresolved, "its name does not resolve", False),
    "no connection": (no_connection, "no connection within 0.3 s", True),
    "no answer": (served(Answer("", b"", "hang")), "no answer within 0.3 s", True),
    "hangs up": (served(Answer("", b"", "close")), "connection reset", False),
    "reset": (served(Answer("", b"", "reset")), "connection reset", False),
    "no HTTP": (served(Answer("220 smtp ready", b"", "close")), "the answer broke off", False),
    "short": (served(Answer(HEAD, b"x" * 9, "close")), "the body broke off", False),
    "short stream": (served(Answer(HEAD, b"x" * 9, "close"), stream=True), "the body broke off", False),
    "reset body": (served(Answer(HEAD, b"x" * 9, "reset"), stream=True), "", False),
    "silent body": (served(Answer(HEAD, b"x" * 9, "hang"), stream=True), "no answer within 0.3 s", True),
    "chunks": (served(Answer(CHUNKED, b"5\r\nabc", "close")), "the body broke off", False),
    "broken chunk": (served(Answer(CHUNKED, b"zz\r\nabc", "close"), stream=True), "the answer broke off", False),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_in_words(name: str, fetch: Fetch) -> None:
    make, words, silent = FAILURES[name]
    error = make(fetch)

    said = failure_cause(error, 0.3)

    if words:
        assert said == words
    else:  # which of the two depends on how far the reader was
        assert said in {"connection reset", "the body broke off"}
    assert is_endpoint_failure(error)
    assert is_timeout(error) is silent
    assert not [word for word in ("SECRET", "sig=", "127.0.0.1", "http:") if word in said]


def test_a_dead_proxy(client_kind: str) -> None:
    proxy = f"http://127.0.0.1:{closed_port()}"
    request = HttpRequest("GET", "http://127.0.0.1:1/c/b" + SECRET)

    async def get() -> None:
        async with AioHttpTransport() as transport:
            await transport.send(request, proxy=proxy)

    def ask() -> None:
        with RequestsTransport() as transport:
            transport.send(request, proxies={"http": proxy})

    with pytest.raises(AzureError) as failed:
        asyncio.run(get()) if client_kind == "aio" else ask()

    assert failure_cause(failed.value) == "the proxy did not connect"
    assert is_endpoint_failure(failed.value)


@pytest.fixture
def tls(tmp_path: Path) -> Iterator[int]:
    """The port of a server with a certificate that nobody signed."""
    certificate, key = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            with suppress(OSError), context.wrap_socket(near, server_side=True) as connection:
                connection.recv(65536)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n0123456789")
                # Without TLS's goodbye, as a proxy does that is closed.
                socket.socket(fileno=connection.detach()).close()

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def test_a_certificate_that_is_not_trusted(tls: int, fetch: Fetch) -> None:
    error = fetch(f"https://127.0.0.1:{tls}/c/b")

    assert failure_cause(error).startswith("its certificate is not trusted (")
    assert "self" in failure_cause(error)
    assert is_endpoint_failure(error)


def test_no_tls_where_it_should_be(fetch: Fetch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.sendall(b"this is no TLS" * 10)
                connection.recv(65536)

        threading.Thread(target=talk, daemon=True).start()
        error = fetch(f"https://127.0.0.1:{listener.getsockname()[1]}/c/b")

    assert failure_cause(error).startswith("TLS failed (")
    assert is_endpoint_failure(error)


@pytest.mark.parametrize("decompress", [True, False])
def test_tls_that_ends_in_the_middle_of_a_body(tls: int, decompress: bool) -> None:
    with RequestsTransport(connection_verify=False) as transport:
        with pytest.warns(urllib3.exceptions.InsecureRequestWarning):
            response = transport.send(HttpRequest("GET", f"https://127.0.0.1:{tls}/c/b{SECRET}"), stream=True)
        body = response.stream_download(None, decompress=decompress)
        with pytest.raises(Exception) as broken:  # noqa: PT011  # which one is what is asked below
            list(body)

    assert is_endpoint_failure(broken.value)
    assert "SECRET" not in failure_cause(broken.value)


def test_tls_that_ends_in_the_middle_of_an_event_loops_body(tls: int) -> None:
    error = aio_fetch(f"https://127.0.0.1:{tls}/c/b", stream=True, connection_verify=False)

    assert isinstance(error, AzureError)
    assert is_endpoint_failure(error)
    assert "SECRET" not in failure_cause(error)


def answered(status: int) -> HttpResponseError:
    class _Response:
        status_code, reason = status, "Busy"

    return HttpResponseError("with an answer", response=_Response())  # type: ignore[arg-type]  # enough of one


@pytest.mark.parametrize(
    ("error", "fails"),
    [
        (ServiceRequestError("x"), True),
        (ServiceResponseError("x"), True),
        (IncompleteReadError("x"), True),
        (HttpResponseError("a body that cannot be read has no answer"), True),
        (urllib3.exceptions.SSLError("x"), True),
        (DecodeError("x"), False),
        (ClientAuthenticationError("x"), False),
        (AzureError("x"), False),
        (ValueError("x"), False),
        (OSError("x"), False),
        (KeyboardInterrupt(), False),
        (answered(503), False),
    ],
)
def test_whose_fault_it_is(error: BaseException, fails: bool) -> None:
    assert is_endpoint_failure(error) is fails


def test_words_for_what_has_no_cause() -> None:
    assert failure_cause(DecodeError("x")) == "the body cannot be decoded"
    assert failure_cause(ServiceRequestError("x")) == "no connection"
    assert failure_cause(ServiceResponseError("x")) == "the answer broke off"
    assert failure_cause(ZeroDivisionError("SECRET")) == "ZeroDivisionError"


def test_the_callers_own_troubles_are_not_taken_for_the_endpoints(fetch: Fetch) -> None:
    try:
        socket.create_connection(("127.0.0.1", closed_port()))
    except ConnectionRefusedError:  # whose handler makes the request
        error = served(Answer(HEAD, b"x", "close"))(fetch)

    assert failure_cause(error) == "the body broke off"


def test_an_older_azure_cores_time_outs() -> None:
    # Before 1.37 it wrapped them as it wraps what can be tried again at once.
    read = ServiceResponseError("x", error=urllib3.exceptions.ReadTimeoutError(None, "", "x"))  # type: ignore[arg-type]
    connect = ServiceRequestError("x", error=urllib3.exceptions.ConnectTimeoutError())

    assert is_timeout(read)
    assert is_timeout(connect)
    assert failure_cause(read, 2) == "no answer within 2 s"
    assert failure_cause(connect, 2.5) == "no connection within 2.5 s"
    assert failure_cause(connect) == "no connection"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((503, "Service Unavailable", {"x-ms-error-code": "ServerBusy"}), "503 ServerBusy"),
        ((503, "Service Unavailable", {}), "503 Service Unavailable"),
        ((503, None, {}), "503"),
        ((503, "a\x1b[31m\nb", {}), "503 a?[31m?b"),
        ((503, "x" * 500, {}), "503 " + "x" * 80),
    ],
)
def test_a_status_in_words(args: tuple[int, str | None, dict[str, str]], words: str) -> None:
    assert describe_status(*args) == words
