"""The SDK's async clients behind a sync face, so that one test can ask the same of both kinds of client.

Each call is carried out by an event loop in a thread of its own and waited for.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from failover.storage import AsyncGeoFailover


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="event loop", daemon=True).start()
    return loop


def run(steps: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine returns, in the event loop of the clients."""
    return asyncio.run_coroutine_threadsafe(steps, _loop()).result(45)


def in_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test in an event loop of its own."""

    @functools.wraps(test)
    def runs(*args: Any, **kwargs: Any) -> None:
        asyncio.run(test(*args, **kwargs))

    return runs


class WaitingGeoFailover(AsyncGeoFailover):
    """Whose own coroutine is waited for too."""

    def staleness(self) -> float:  # type: ignore[override]
        return float(run(super().staleness()))


def waiting(make: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """A client that is made in the event loop, behind a face whose methods wait for what they return."""
    return _call(make, *args, **options)


class _Face:
    """An object of the SDK's `aio`, whose methods wait for what they return."""

    def __init__(self, inner: Any) -> None:
        object.__setattr__(self, "_inner", inner)

    def __getattr__(self, name: str) -> Any:
        return _behind(getattr(self._inner, name))

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._inner, name, value)

    def __iter__(self) -> Iterator[Any]:
        return _Face(aiter(self._inner)) if not hasattr(self._inner, "__anext__") else self

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

    def __enter__(self) -> _Face:
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
    return _Face(found) if foreign or hasattr(found, "__aiter__") or hasattr(found, "__anext__") else found


def _call(function: Callable[..., Any], *args: Any, **options: Any) -> Any:
    if "progress_hook" in options:  # the one that must be a coroutine function
        options["progress_hook"] = functools.partial(asyncio.to_thread, options["progress_hook"])

    async def call() -> Any:
        result = function(*args, **options)
        return await result if inspect.isawaitable(result) else result

    return _behind(run(call()))
