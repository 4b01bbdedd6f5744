"""What a read waits for, in the way of a thread or of an event loop: all that its two kinds do differently.

A read is one coroutine for both. In a thread nothing that it awaits ever suspends, so that `finish` runs it from its
beginning to its end in one step, with no event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol, TypeVar

from azure.core.exceptions import StreamClosedError, StreamConsumedError

from failover.storage.at_once import AIOHTTPS, has_arrived, read_at_once
from failover.storage.pace import Patience, timed
from failover.storage.pace_aio import LoopWatch

T = TypeVar("T")


def finish(steps: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns that waits for blocking calls alone."""
    try:
        steps.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # typeshed's StopIteration
    steps.close()
    raise RuntimeError("a coroutine for a thread was given something to await")


class Calls(Protocol):
    """The calls that take time. They raise `Trickled` after `seconds`; None: as long as it takes."""

    async def send(self, policy: Any, request: Any, seconds: float | None) -> Any:
        """The answer of the pipeline that begins with `policy`."""

    async def sleep(self, seconds: float) -> None: ...

    async def load(self, http: Any, seconds: float | None) -> None:
        """Read the whole body of a transport's response, if that has not been done: `http.body()` then gives it."""

    async def hook(self, hook: Callable[..., Any], about: dict[str, Any]) -> None:
        """Call a caller's `retry_hook`."""

    @property
    def is_there(self) -> Callable[[Mapping[str, Any], Any, Mapping[str, str], Patience], bool]:
        """Tells whether all of a response's streamed body is there; may wait for that in a thread: see `at_once`."""

    @property
    def read_by_pieces(self) -> Callable[[Any], None] | None:
        """Sees to it that who reads a streamed body as one gets what its iterators give, where that is not so."""

    def iterate(self, chunks: Any) -> Any:
        """An iterator; of None: one that is at its end."""

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Entered by one read of the policy at a time."""


class ThreadCalls:
    """Calls that block the thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    async def send(self, policy: Any, request: Any, seconds: float | None) -> Any:
        return timed(seconds, policy.send, request)[0]

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    async def load(self, http: Any, seconds: float | None) -> None:
        timed(seconds, http.body)

    async def hook(self, hook: Callable[..., Any], about: dict[str, Any]) -> None:
        hook(**about)

    is_there = staticmethod(read_at_once)

    read_by_pieces = None  # they all do

    def iterate(self, chunks: Any) -> Any:
        return iter(() if chunks is None else chunks)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        with self._lock:
            yield


class LoopCalls:
    """Calls that let an event loop go on meanwhile."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()
        self.watch = LoopWatch()

    async def send(self, policy: Any, request: Any, seconds: float | None) -> Any:
        return (await self.watch.timed(seconds, policy.send(request)))[0]

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def load(self, http: Any, seconds: float | None) -> None:
        # Responses of azure-core's first kind have the one, those of its second (`azure.core.rest`) both.
        load = getattr(http, "load_body", None) or http.read
        with contextlib.suppress(StreamClosedError, StreamConsumedError):  # it has been done, and there was nothing
            await self.watch.timed(seconds, load())

    async def hook(self, hook: Callable[..., Any], about: dict[str, Any]) -> None:
        result = hook(**about)
        if inspect.isawaitable(result):
            await result

    is_there = staticmethod(has_arrived)

    def read_by_pieces(self, http: Any) -> None:
        # azure-core's response of aiohttp alone reads past its own iterators: so the SDK does up to 12.24, and to check
        # an MD5. What it keeps is the body as it came, which it decodes when it is asked for it.
        if AIOHTTPS in vars(http) and hasattr(http, "iter_raw"):
            # No circle, for the collector to find.
            vars(http)["read"] = functools.partial(_read_by_pieces, weakref.ref(http))

    def iterate(self, chunks: Any) -> Any:
        return aiter(_nothing() if chunks is None else chunks)

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        async with self._lock:
            yield


async def _read_by_pieces(its: Callable[[], Any]) -> bytes:
    http = its()
    if http._content is None:
        http._content = b"".join([piece async for piece in http.iter_raw()])
    whole: bytes = await type(http).read(http) if http._content else b""
    return whole


async def _nothing() -> AsyncIterator[bytes]:
    return
    yield
