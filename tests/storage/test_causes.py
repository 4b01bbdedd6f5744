"""Each way in which an endpoint really fails, in words: made with the SDK's transport, and never with a URL in it."""

from __future__ import annotations

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
from azure.core.pipeline.transport import RequestsTransport
from azure.core.rest import HttpRequest

from failover.storage.causes import describe_error, describe_status, is_endpoint_failure, is_timeout
from tests.servers import make_certificate
from tests.storage.raw import Answer, Asked, RawServer

SECRET = "?sv=1&sig=SECRET%2F"


def fetch(url: str, *, stream: bool = False, **options: Any) -> BaseException:
    """What the SDK's transport raises for a request of this URL, whose query holds a secret."""
    with RequestsTransport(**{"read_timeout": 0.3, "connection_timeout": 0.3, **options}) as transport:
        try:
            response = transport.send(HttpRequest("GET", url + SECRET), stream=stream)
            for _ in response.stream_download(None):
                pass
        except Exception as error:
            return error
    raise AssertionError("the request went well")


def served(answer: Callable[[Asked], Answer], *, stream: bool = False) -> BaseException:
    with RawServer(answer) as server:
        return fetch(server.url, stream=stream)


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as once:
        return int(once.getsockname()[1])


def refused() -> BaseException:
    return fetch(f"http://127.0.0.1:{closed_port()}/c/b")


def unresolved() -> BaseException:
    return fetch("http://no-such-account.blob.invalid/c/b", connection_timeout=10)


def no_connection() -> BaseException:
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


def through_a_dead_proxy() -> BaseException:
    with RequestsTransport() as transport:
        try:
            transport.send(
                HttpRequest("GET", "http://127.0.0.1:1/c/b" + SECRET),
                proxies={"http": f"http://127.0.0.1:{closed_port()}"},
            )
        except AzureError as error:
            return error
    raise AssertionError("the request went well")


HEAD = "HTTP/1.1 200 OK\nContent-Length: 100"
FAILURES: dict[str, tuple[Callable[[], BaseException], str, bool]] = {
    "refused": (refused, "connection refused", False),
    "unresolved": (unresolved, "its name does not resolve", False),
    "no connection": (no_connection, "no connection within 0.3 s", True),
    "proxy": (through_a_dead_proxy, "the proxy did not connect", False),
    "no answer": (lambda: served(lambda _: Answer("", b"", "hang")), "no answer within 0.3 s", True),
    "hangs up": (lambda: served(lambda _: Answer("", b"", "close")), "connection reset", False),
    "reset": (lambda: served(lambda _: Answer("", b"", "reset")), "connection reset", False),
    "no HTTP": (lambda: served(lambda _: Answer("220 smtp ready", b"", "close")), "the answer broke off", False),
    "short": (lambda: served(lambda _: Answer(HEAD, b"x" * 9, "close")), "the body broke off", False),
    "short stream": (
        lambda: served(lambda _: Answer(HEAD, b"x" * 9, "close"), stream=True),
        "the body broke off",
        False,
    ),
    "reset body": (lambda: served(lambda _: Answer(HEAD, b"x" * 9, "reset"), stream=True), "", False),
    "silent body": (
        lambda: served(lambda _: Answer(HEAD, b"x" * 9, "hang"), stream=True),
        "no answer within 0.3 s",
        True,
    ),
    "chunks": (
        lambda: served(lambda _: Answer("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"5\r\nabc", "close")),
        "the body broke off",
        False,
    ),
    "broken chunk": (
        lambda: served(
            lambda _: Answer("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"zz\r\nabc", "close"), stream=True
        ),
        "the answer broke off",
        False,
    ),
}


@pytest.mark.parametrize("name", FAILURES)
def test_a_failure_in_words(name: str) -> None:
    make, words, silent = FAILURES[name]
    error = make()

    said = describe_error(error, 0.3)

    if words:
        assert said == words
    else:  # which of the two depends on how far the reader was
        assert said in {"connection reset", "the body broke off"}
    assert is_endpoint_failure(error)
    assert is_timeout(error) is silent
    assert not [word for word in ("SECRET", "sig=", "127.0.0.1", "http:") if word in said]


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


def test_a_certificate_that_is_not_trusted(tls: int) -> None:
    error = fetch(f"https://127.0.0.1:{tls}/c/b")

    assert describe_error(error).startswith("its certificate is not trusted (")
    assert "self" in describe_error(error)
    assert is_endpoint_failure(error)


def test_no_tls_where_it_should_be() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def talk() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.sendall(b"this is no TLS" * 10)
                connection.recv(65536)

        threading.Thread(target=talk, daemon=True).start()
        error = fetch(f"https://127.0.0.1:{listener.getsockname()[1]}/c/b")

    assert describe_error(error).startswith("TLS failed (")
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
    assert "SECRET" not in describe_error(broken.value)


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
    assert describe_error(DecodeError("x")) == "the body cannot be decoded"
    assert describe_error(ServiceRequestError("x")) == "no connection"
    assert describe_error(ServiceResponseError("x")) == "the answer broke off"
    assert describe_error(ZeroDivisionError("SECRET")) == "ZeroDivisionError"


def test_the_callers_own_troubles_are_not_taken_for_the_endpoints() -> None:
    try:
        socket.create_connection(("127.0.0.1", closed_port()))
    except ConnectionRefusedError:  # whose handler makes the request
        error = served(lambda _: Answer(HEAD, b"x", "close"))

    assert describe_error(error) == "the body broke off"


def test_an_older_azure_cores_time_outs() -> None:
    # Before 1.37 it wrapped them as it wraps what can be tried again at once.
    read = ServiceResponseError("x", error=urllib3.exceptions.ReadTimeoutError(None, "", "x"))  # type: ignore[arg-type]
    connect = ServiceRequestError("x", error=urllib3.exceptions.ConnectTimeoutError())

    assert is_timeout(read)
    assert is_timeout(connect)
    assert describe_error(read, 2) == "no answer within 2 s"
    assert describe_error(connect, 2.5) == "no connection within 2.5 s"
    assert describe_error(connect) == "no connection"


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
