"""Everything that differs between threads and event loops: how a read waits.

A read is one coroutine for both. In a thread, nothing that it awaits ever suspends, so `run_sync` runs the whole read
in one step, without an event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, Protocol, TypeVar

from failover.storage import _sdk

T = TypeVar("T")


def run_sync(steps: Coroutine[Any, Any, T]) -> T:
    """What a coroutine returns that waits for blocking calls alone."""
    try:
        steps.send(None)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # typeshed's StopIteration
    steps.close()
    raise RuntimeError("a coroutine for a thread was given something to await")


class IO(Protocol):
    """The calls that take time."""

    async def send(self, policy: Any, request: Any) -> Any:
        """The answer of the pipeline that begins with `policy`."""

    async def sleep(self, transport: Any, seconds: float) -> None:
        """Let seconds pass, as the client's transport does it."""

    async def load(self, http: Any, spent: Callable[[float, int], None]) -> None:
        """Read the whole body of a transport's response, if that has not been done: `http.body()` then gives it.

        spent: takes the seconds that each wait took and its bytes, and may raise.
        """

    async def pull(self, chunks: Any) -> bytes | None:
        """The next piece of an iterator that `iterate` gave; None: it is at its end."""

    def iterate(self, chunks: Any) -> Any:
        """An iterator over the pieces of a body."""


class SyncIO:
    """Calls that block the thread."""

    async def send(self, policy: Any, request: Any) -> Any:
        return policy.send(request)

    async def sleep(self, transport: Any, seconds: float) -> None:
        _sdk.own_transport(transport).sleep(seconds)

    async def load(self, http: Any, spent: Callable[[float, int], None]) -> None:  # noqa: ARG002 (timed as it is)
        _sdk.load(http)

    async def pull(self, chunks: Any) -> bytes | None:
        return next(chunks, None)

    def iterate(self, chunks: Any) -> Any:
        return iter(chunks)


class AsyncIO:
    """Calls that let an event loop go on meanwhile."""

    async def send(self, policy: Any, request: Any) -> Any:
        return await policy.send(request)

    async def sleep(self, transport: Any, seconds: float) -> None:
        await _sdk.own_transport(transport).sleep(seconds)

    async def load(self, http: Any, spent: Callable[[float, int], None]) -> None:
        await _sdk.aload(http, spent)

    async def pull(self, chunks: Any) -> bytes | None:
        try:
            piece: bytes = await anext(chunks)  # no default: with one, CPython 3.11 and 3.13.0 crash
        except StopAsyncIteration:
            return None
        return piece

    def iterate(self, chunks: Any) -> Any:
        return aiter(chunks)
