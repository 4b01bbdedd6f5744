"""The SDK's async clients behind a sync face, so that what is asked of GeoFailover can be asked of AsyncGeoFailover.

Each call is carried out by an event loop in a thread of its own and waited for. See `test_aio_reads.py` for how the
tests of a module are run so, and `test_aio_bodies.py` for what is done where the answers must differ.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable, Coroutine, Iterator
from types import ModuleType
from typing import Any

import pytest
from azure.core.pipeline.transport import AioHttpTransport, AsyncHttpTransport, HttpTransport
from azure.storage.blob import _download
from azure.storage.blob.aio import BlobServiceClient, ExponentialRetry, _download_async
from azure.storage.queue.aio import QueueServiceClient

from failover.storage import AsyncGeoFailover, calls
from tests.servers import credential
from tests.storage import raw

__all__ = ["AioHttpTransport", "GeoFailover", "cases_of", "in_a_loop", "in_loop", "run"]


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="event loop", daemon=True).start()
    return loop


def run(steps: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run_coroutine_threadsafe(steps, _loop()).result(45)


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in an event loop of its own."""

    @functools.wraps(test)
    def runs(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return runs


def cases_of(module: ModuleType) -> dict[str, Any]:
    """The tests of a module and their fixtures, to be run by another module: `in_a_loop` asks it for `CASES`."""
    # How a fixture is known: from pytest 8.4 by its class, before by a mark.
    return {
        name: value
        for name, value in vars(module).items()
        if name.startswith("test_")
        or type(value).__name__ == "FixtureFunctionDefinition"
        or hasattr(value, "_pytestfixturefunction")
    }


class Face:
    """An object of the SDK's `aio`, whose methods wait for what they return."""

    def __init__(self, inner: Any) -> None:
        object.__setattr__(self, "_inner", inner)

    def __getattr__(self, name: str) -> Any:
        return _behind(getattr(self._inner, name))

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._inner, name, value)

    def __iter__(self) -> Iterator[Any]:
        return Face(aiter(self._inner)) if not hasattr(self._inner, "__anext__") else self

    def __next__(self) -> Any:
        async def step() -> tuple[bool, Any]:
            try:
                return True, await anext(self._inner)
            except StopAsyncIteration:
                return False, None

        more, item = run(step())
        if not more:
            raise StopIteration
        return _behind(item)

    def __enter__(self) -> Face:
        run(self._inner.__aenter__())
        return self

    def __exit__(self, *about: object) -> None:
        run(self._inner.__aexit__(*about))


def _behind(found: Any) -> Any:
    if type(found) is tuple:
        return tuple(_behind(each) for each in found)
    if inspect.isroutine(found):
        return functools.partial(_call, found)
    foreign = "aio" in type(found).__module__.split(".")
    return Face(found) if foreign or hasattr(found, "__aiter__") or hasattr(found, "__anext__") else found


def _call(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    if "progress_hook" in options:  # the one that must be a coroutine function
        options["progress_hook"] = functools.partial(asyncio.to_thread, options["progress_hook"])

    async def call() -> Any:
        result = function(*args, **options)
        return await result if inspect.isawaitable(result) else result

    return _behind(run(call()))


class GeoFailover(AsyncGeoFailover):
    """Named as the sync one, since its messages are compared."""

    def staleness(self) -> float:  # type: ignore[override]
        return float(run(super().staleness()))


class AioNotingTransport(AioHttpTransport):  # type: ignore[misc]  # azure-core loads it lazily, as Any
    """Notes what is sent where `noted` would note it."""

    def __init__(self, noted: raw.NotingTransport) -> None:
        super().__init__()
        self._noted = noted

    async def send(self, request: Any, **options: Any) -> Any:
        self._noted.sent.append((request.method, request.url))
        self._noted.options.append(options)
        return await super().send(request, **options)


class _Services:
    """A service client's class, as the tests use it."""

    def __init__(self, kind: Any) -> None:
        self._kind = kind

    def __call__(self, url: str, **options: Any) -> Any:
        return _call(_make, self._kind, url, options)

    def from_connection_string(self, connection: str, **options: Any) -> Any:
        return _call(_make, self._kind.from_connection_string, connection, options)


def _make(kind: Any, address: str, options: dict[str, Any]) -> Any:
    if isinstance(options.get("transport"), raw.NotingTransport):
        options["transport"] = AioNotingTransport(options["transport"])
    return kind(address, **options)


def connect(account: Any, policy: Any, **options: Any) -> Any:
    options.setdefault("credential", credential(account))
    options.setdefault("secondary_hostname", account.secondary_url.partition("://")[2])
    return _Services(BlobServiceClient)(account.primary_url, retry_policy=policy, **options)


async def _sleep(seconds: float) -> None:
    vars(calls)["time"].sleep(seconds)  # which a test may have replaced, to see it


async def _sdk_sleep(seconds: float) -> None:
    vars(_download)["time"].sleep(seconds)  # which a test may have replaced, to forbid it


async def _transport_sleep(transport: Any, seconds: float) -> None:
    HttpTransport.sleep(transport, seconds)  # which a test may have replaced


@pytest.fixture(autouse=True)
def in_a_loop(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the tests of the module `CASES` meet the async clients."""
    names = {
        "GeoFailover": GeoFailover,
        "BlobServiceClient": _Services(BlobServiceClient),
        "QueueServiceClient": _Services(QueueServiceClient),
        "ExponentialRetry": ExponentialRetry,
        "connect": connect,
    }
    for name, value in names.items():
        if hasattr(request.module.CASES, name):
            monkeypatch.setattr(request.module.CASES, name, value)
    monkeypatch.setattr(raw, "connect", connect)  # for blob_of and container_of
    monkeypatch.setattr(calls, "asyncio", raw.WithSleep(asyncio, _sleep))
    monkeypatch.setattr(_download_async, "asyncio", raw.WithSleep(asyncio, _sdk_sleep))
    monkeypatch.setattr(AsyncHttpTransport, "sleep", _transport_sleep)
