"""Clients of either kind, as their users would make them. Which kind it is, is the policy's: see `geo_failover`.

A client of the SDK's `aio` is one behind a sync face, so that each test is written once.
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import pytest
from azure.core.pipeline.transport import AioHttpTransport, RequestsTransport
from azure.storage import blob, queue
from azure.storage.blob import aio as blob_aio
from azure.storage.queue import aio as queue_aio

from failover.breaker import AfterCalls, ConsecutiveFailures, Policy
from tests.servers import Account, credential
from tests.storage.account import KIB
from tests.storage.async_client import waiting

BLOCK = 256 * KIB
"""The SDK reads a body in blocks of this size: what a break takes away is the block under way."""

TEACHING = Policy(trip=ConsecutiveFailures(5), recovery=AfterCalls(20))


def is_async(policy: Any) -> bool:
    """Whether a retry policy is for the SDK's `aio`."""
    return inspect.iscoroutinefunction(policy.send)


def make(kind: str, *args: Any, retry_policy: Any, **options: Any) -> Any:
    """A client of `azure.storage.blob` or `.queue`, by the name of its class or of a method that makes one."""
    packages = (blob_aio, queue_aio) if is_async(retry_policy) else (blob, queue)
    name, _, method = kind.partition(".")
    found = next(getattr(package, name) for package in packages if hasattr(package, name))
    maker = getattr(found, method) if method else found
    if is_async(retry_policy):
        return waiting(maker, *args, retry_policy=retry_policy, **options)
    return maker(*args, retry_policy=retry_policy, **options)


def connect(account: Account, policy: Any, **options: Any) -> Any:
    """A service client of the account, as its user would make one for path-style endpoints."""
    return make("BlobServiceClient", account.primary_url, retry_policy=policy, **_given(account, options))


def blob_of(account: Account, policy: Any, name: str = "HelloWorld", **options: Any) -> Any:
    """A client of a blob, made by a service client."""
    return connect(account, policy, **options).get_blob_client("demo", name)


def lone_blob_of(account: Account, policy: Any, name: str = "HelloWorld", **options: Any) -> Any:
    """A client of a blob that no service client has made: the SDK sleeps by its transport."""
    url = account.primary_url
    return make("BlobClient", url, "demo", name, retry_policy=policy, **_given(account, options))


def container_of(account: Account, policy: Any, name: str = "demo", **options: Any) -> Any:
    """A client of a container, made by a service client."""
    return connect(account, policy, **options).get_container_client(name)


def _given(account: Account, options: dict[str, Any]) -> dict[str, Any]:
    secondary = urlsplit(account.secondary_url)
    given = {"credential": credential(account), "secondary_hostname": secondary.netloc + secondary.path}
    return {**given, **options}


# Transports


def noting_transport(policy: Any, **options: Any) -> Any:
    """The SDK's transport, of the policy's kind, which notes what it does: `sent`, `options`, and `slept`."""
    return (AsyncNotingTransport if is_async(policy) else NotingTransport)(**options)


class NotingTransport(RequestsTransport):  # type: ignore[misc]  # azure-core loads it lazily, as Any
    """Notes what is sent and with which options, and how long it should have slept."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.sent: list[tuple[str, str]] = []
        self.options: list[dict[str, Any]] = []
        self.slept: list[float] = []

    def send(self, request: Any, **options: Any) -> Any:
        self.sent.append((request.method, request.url))
        self.options.append(options)
        return super().send(request, **options)

    def sleep(self, duration: float) -> None:
        self.slept.append(duration)


class AsyncNotingTransport(AioHttpTransport):  # type: ignore[misc]  # azure-core loads it lazily, as Any
    """`NotingTransport` of an event loop."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.sent: list[tuple[str, str]] = []
        self.options: list[dict[str, Any]] = []
        self.slept: list[float] = []

    async def send(self, request: Any, **options: Any) -> Any:
        self.sent.append((request.method, request.url))
        self.options.append(options)
        return await super().send(request, **options)

    async def sleep(self, duration: float) -> None:
        self.slept.append(duration)


# The SDK's second in which it waits for a body: it takes `time.sleep` and `asyncio.sleep` themselves.


class _WithSleep:
    """A module with another `sleep`, for one module that uses it: all others go on sleeping."""

    def __init__(self, module: Any, sleep: Callable[[float], Any]) -> None:
        self._module = module
        self.sleep = sleep

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def replace_sdk_sleep(monkeypatch: pytest.MonkeyPatch, sleep: Callable[[float], Any]) -> None:
    """Let `sleep` take the place of the SDK's waiting before it asks again for a body that broke off."""

    async def asleep(seconds: float) -> None:
        sleep(seconds)

    monkeypatch.setattr("azure.storage.blob._download.time", _WithSleep(time, sleep))
    monkeypatch.setattr("azure.storage.blob.aio._download_async.asyncio", _WithSleep(asyncio, asleep))


def forbid_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fail where the SDK waits a second before it asks again for a body that broke off: it should not notice."""

    def sleep(_seconds: float) -> None:
        raise AssertionError("the SDK noticed that a body broke off")

    replace_sdk_sleep(monkeypatch, sleep)
