"""Each way in which an endpoint really fails, in words, as aiohttp meets it: never with a URL in it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from azure.core.exceptions import AzureError
from azure.core.rest import HttpRequest

from failover.storage.causes import describe_error, is_endpoint_failure, is_timeout
from tests.storage import test_causes as CASES  # noqa: N812
from tests.storage.aio import AioHttpTransport
from tests.storage.test_causes import SECRET, closed_port, tls  # noqa: F401  # a fixture


def fetch(url: str, *, stream: bool = False, proxy: str | None = None, **options: Any) -> BaseException:
    async def get() -> None:
        async with AioHttpTransport(**{"read_timeout": 0.3, "connection_timeout": 0.3, **options}) as transport:
            response: Any = await transport.send(HttpRequest("GET", url + SECRET), stream=stream, proxy=proxy)
            async for _ in response.stream_download(None):
                pass

    try:
        asyncio.run(get())
    except Exception as error:
        return error
    raise AssertionError("the request went well")


@pytest.mark.parametrize("name", [name for name in CASES.FAILURES if name != "proxy"])
def test_a_failure_in_words(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CASES, "fetch", fetch)
    make, words, silent = CASES.FAILURES[name]
    error = make()

    said = describe_error(error, 0.3)

    if words:
        assert said == words
    else:  # which of the two depends on how far the reader was
        assert said in {"connection reset", "the body broke off"}
    assert is_endpoint_failure(error)
    assert is_timeout(error) is silent
    assert not [word for word in ("SECRET", "sig=", "127.0.0.1", "http:") if word in said]


def test_a_dead_proxy() -> None:
    error = fetch("http://127.0.0.1:1/c/b", proxy=f"http://127.0.0.1:{closed_port()}")

    assert describe_error(error) == "the proxy did not connect"
    assert is_endpoint_failure(error)


def test_a_certificate_that_is_not_trusted(tls: int) -> None:  # noqa: F811  # a fixture
    error = fetch(f"https://127.0.0.1:{tls}/c/b")

    assert describe_error(error).startswith("its certificate is not trusted (")
    assert is_endpoint_failure(error)


def test_no_tls_where_it_should_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CASES, "fetch", fetch)

    CASES.test_no_tls_where_it_should_be()


def test_tls_that_ends_in_the_middle_of_a_body(tls: int) -> None:  # noqa: F811  # a fixture
    error = fetch(f"https://127.0.0.1:{tls}/c/b", stream=True, connection_verify=False)

    assert isinstance(error, AzureError)
    assert is_endpoint_failure(error)
    assert "SECRET" not in describe_error(error)
