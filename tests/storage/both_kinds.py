"""Tests written once for the SDK's two kinds of client, for threads and for event loops.

A test is a coroutine: what a client of either kind gives goes through `result` or `each`. In a thread nothing that it
awaits ever suspends.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, Final, TypeVar
from urllib.parse import urlsplit

from azure.core.pipeline.transport import AioHttpTransport, RequestsTransport
from azure.storage import blob
from azure.storage.blob import aio

from failover.storage import AsyncGeoFailover, GeoFailover
from tests.servers import Account, credential

T = TypeVar("T")

KINDS: Final = ("sync", "aio")


def both_kinds(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test, which takes the fixture `client_kind`, as that kind of client is to be used."""

    @functools.wraps(test)
    def runs(client_kind: str, **fixtures: Any) -> None:
        run(client_kind, test(client_kind=client_kind, **fixtures))

    return runs


def run(kind: str, steps: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns that is written for both kinds."""
    if kind == "aio":
        return asyncio.run(steps)
    return run_in_thread(steps)


def run_in_thread(steps: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns that uses clients for threads alone, and so never suspends."""
    try:
        steps.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # typeshed's StopIteration
    steps.close()
    raise RuntimeError("a client for threads was awaited")


async def result(value: Any) -> Any:
    """What a method of a client of either kind returned."""
    return await value if inspect.isawaitable(value) else value


async def each(items: Any) -> AsyncIterator[Any]:
    """The items of what a client of either kind gives to iterate over."""
    if hasattr(items, "__aiter__"):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


async def close(client: Any) -> None:
    """Close a client of either kind."""
    await result(client.close())


def geo_failover(kind: str, *circuits: Any, **settings: Any) -> Any:
    """`GeoFailover` for a kind of client."""
    return (AsyncGeoFailover if kind == "aio" else GeoFailover)(*circuits, **settings)


def service(kind: str, url: str, **options: Any) -> Any:
    """A `BlobServiceClient` of a kind."""
    return (aio if kind == "aio" else blob).BlobServiceClient(url, **options)


def connect_options(account: Account) -> dict[str, Any]:
    """What `service` needs beside the URL for an account with path-style endpoints."""
    secondary = urlsplit(account.secondary_url)
    return {"credential": credential(account), "secondary_hostname": secondary.netloc + secondary.path}


def retry(kind: str, name: str, **settings: Any) -> Any:
    """One of the SDK's retry policies, by its name."""
    return getattr(aio if kind == "aio" else blob, name)(**settings)


def at_once(kind: str, total: int) -> Any:
    """A retry policy of the SDK's that sends again at once, `total` times."""
    return retry(kind, "LinearRetry", backoff=0, random_jitter_range=0, retry_total=total)


def transport(kind: str, **options: Any) -> Any:
    """The SDK's default transport of a kind."""
    return (AioHttpTransport if kind == "aio" else RequestsTransport)(**options)


async def read(service: Any, name: str = "HelloWorld", container: str = "demo", **options: Any) -> bytes:
    """A blob's content."""
    stream = await result(service.get_blob_client(container, name).download_blob(**options))
    data: bytes = await result(stream.readall())
    return data
