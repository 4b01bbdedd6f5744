"""What a read waits for, in the way of a thread or of an event loop: all that its two kinds do differently.

A read is one coroutine for both. In a thread nothing that it awaits ever suspends, so that `finish` runs it from its
beginning to its end in one step, with no event loop.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, Protocol, TypeVar

from azure.core.exceptions import StreamClosedError, StreamConsumedError

from failover.breaker.guard import within
from failover.storage.pace import Deadline, Trickled, slot

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

    def read_by_pieces(self, http: Any) -> None:
        """See to it that who reads a streamed body as one gets what its iterators give."""

    def iterate(self, chunks: Any) -> Any:
        """An iterator for `pull`."""

    def turn(self) -> AbstractAsyncContextManager[None]:
        """Entered by one read of the policy at a time."""


class ThreadCalls:
    """Calls that block the thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    async def send(self, policy: Any, request: Any, seconds: float | None) -> Any:
        with Deadline(seconds):
            return policy.send(request)

    async def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    async def load(self, http: Any, seconds: float | None) -> None:
        with Deadline(seconds):
            http.body()

    async def hook(self, hook: Callable[..., Any], about: dict[str, Any]) -> None:
        hook(**about)

    def read_by_pieces(self, http: Any) -> None:
        pass  # they all do

    def iterate(self, chunks: Any) -> Any:
        return iter(chunks)

    def pull(self, chunks: Any, seconds: float | None) -> bytes | None:
        """The next piece of a body, None at its end. No coroutine: it is called for each piece."""
        if seconds is None:
            return next(chunks, None)
        # As `with Deadline(seconds)`, of which each piece of a body would be the dearest part.
        own = slot()
        try:
            own.arm(seconds)
            chunk: bytes | None = next(chunks, None)
        except BaseException as error:
            if own.disarm() and isinstance(error, Exception):
                raise Trickled(seconds) from None
            raise
        if own.disarm():
            raise Trickled(seconds)
        return chunk

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        with self._lock:
            yield


class LoopCalls:
    """Calls that let an event loop go on meanwhile."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    async def send(self, policy: Any, request: Any, seconds: float | None) -> Any:
        return await _in_time(policy.send(request), seconds)

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def load(self, http: Any, seconds: float | None) -> None:
        # Responses of azure-core's first kind have the one, those of its second (`azure.core.rest`) both.
        load = getattr(http, "load_body", None) or http.read
        with contextlib.suppress(StreamClosedError, StreamConsumedError):  # it has been done, and there was nothing
            await _in_time(load(), seconds)

    async def hook(self, hook: Callable[..., Any], about: dict[str, Any]) -> None:
        result = hook(**about)
        if inspect.isawaitable(result):
            await result

    def read_by_pieces(self, http: Any) -> None:
        # azure-core's response of aiohttp alone reads past its own iterators: so the SDK does up to 12.24, and to check
        # an MD5. What it keeps is the body as it came, which it decodes when it is asked for it.
        if not hasattr(http, "_decompressed_content") or not hasattr(http, "iter_raw"):
            return
        read, its = type(http).read, weakref.ref(http)  # no circle, for the collector to find

        async def by_pieces() -> bytes:
            http: Any = its()
            if http._content is None:
                http._content = b"".join([piece async for piece in http.iter_raw()])
            return await read(http) if http._content else b""

        http.read = by_pieces

    def iterate(self, chunks: Any) -> Any:
        return aiter(chunks)

    async def pull(self, chunks: Any, seconds: float | None) -> bytes | None:
        try:  # and no default: with one, CPython 3.11 and 3.13.0 crash where `__anext__` raises at once
            return await _in_time(anext(chunks), seconds)
        except StopAsyncIteration:
            return None

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        async with self._lock:
            yield


async def _in_time(work: Awaitable[T], seconds: float | None) -> T:
    if seconds is None:
        return await work
    began = time.monotonic()
    try:
        return await within(work, seconds)
    except TimeoutError:
        if time.monotonic() - began < seconds:
            raise  # of somebody else's, such as a credential
        raise Trickled(seconds) from None
