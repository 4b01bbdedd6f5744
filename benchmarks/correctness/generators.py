"""What must hold of a guarded generator, plain or async, each as a function that tries it on any library."""

from __future__ import annotations

import asyncio
import gc
import time
from collections.abc import Callable, Generator
from typing import Any

from benchmarks.correctness.checks import SOON, Bench, must
from benchmarks.libraries.library import Failure, Unsupported, Wish


class _Steps:
    """An async generator, read step by step as if it were none."""

    def __init__(self, generator: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._generator = generator
        self._loop = loop

    def __next__(self) -> Any:
        try:
            return self._loop.run_until_complete(self._generator.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def close(self) -> None:
        self._loop.run_until_complete(self._generator.aclose())
        # A generator inside it that nobody closes is closed by the loop, soon.
        gc.collect()
        self._loop.run_until_complete(asyncio.sleep(0.05))


def _generators(bench: Bench, wish: Wish) -> Callable[[object], Any]:
    """Makes generators through one circuit: each yields 1, then raises or returns the outcome given."""

    def plain(outcome: object) -> Generator[int, None, object]:
        yield 1
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def asynchronous(outcome: object) -> Any:
        yield 1
        if isinstance(outcome, BaseException):
            raise outcome

    return _guarded(bench, wish, plain, asynchronous)


def _feeds(bench: Bench, wish: Wish) -> Callable[[object], Any]:
    """Makes endless feeds through one circuit: each raises the outcome given, or yields 1 for ever."""

    def plain(outcome: object) -> Generator[int, None, None]:
        if isinstance(outcome, BaseException):
            raise outcome
        while True:
            yield 1

    async def asynchronous(outcome: object) -> Any:
        for each in plain(outcome):
            yield each

    return _guarded(bench, wish, plain, asynchronous)


def _guarded(
    bench: Bench, wish: Wish, plain: Callable[..., Any], asynchronous: Callable[..., Any]
) -> Callable[[object], Any]:
    guard = bench.library.make(wish, bench.way)
    loop = asyncio.new_event_loop()
    guarded = guard(plain if bench.way == "sync" else asynchronous)

    def make(outcome: object) -> Any:
        made = guarded(outcome)
        if not hasattr(made, "__next__" if bench.way == "sync" else "__anext__"):
            getattr(made, "close", lambda: None)()
            raise Unsupported("what it makes of a generator function does not give a generator")
        return made if bench.way == "sync" else _Steps(made, loop)

    return make


def _read(make: Callable[[object], Any], outcome: object, *, early: bool = False) -> tuple[bool, object]:
    """Whether a generator began at all, and what it returned."""
    began = False
    try:
        generator = make(outcome)
        began = next(generator) == 1
        if early:
            generator.close()
        else:
            next(generator)
    except StopIteration as end:
        return began, end.value
    except Unsupported:
        raise
    except Exception:  # noqa: BLE001 (a refusal, or the failure: `began` tells them apart)
        return began, None
    return began, None


def failure(bench: Bench) -> None:
    make = _generators(bench, Wish(threshold=2))
    for _ in range(2):
        _read(make, Failure())
    must(not _read(make, None)[0], "failures half-way through a generator did not count")


def close(bench: Bench) -> None:
    make = _generators(bench, Wish(threshold=2))
    for _ in range(2):
        _read(make, None, early=True)
    must(_read(make, None)[0], "generators closed early opened it")
    _read(make, Failure())
    _read(make, None, early=True)
    _read(make, Failure())
    must(not _read(make, None)[0], "a generator closed early reset the count, or failures did not count at all")


def return_value(bench: Bench) -> None:
    make = _generators(bench, Wish())
    must(_read(make, "end")[1] == "end", "what the generator returned did not arrive")


def feed(bench: Bench) -> None:
    """An endless feed must find its way back after an outage, and must not be taken for well before it is."""
    make, cooldown = _feeds(bench, SOON), SOON.cooldown * 1.5
    for _ in range(2):
        _read(make, Failure())
    must(not _begins(make), "feeds that fail before their first item did not count")
    time.sleep(cooldown)
    _read(make, Failure())
    must(not _begins(make), "a probe closed it, though the feed failed before its first item")
    time.sleep(cooldown)
    probe = make(None)
    must(next(probe) == 1, "the feed did not begin")
    _read(make, Failure())  # one opens a half-open circuit again, and no closed one
    must(_begins(make), "a probe's feed has brought an item, and the circuit is not closed as long as it goes on")


def feed_left(bench: Bench) -> None:
    """As above, for readers who take the first item and leave."""
    make = _feeds(bench, SOON)
    for _ in range(2):
        _read(make, Failure())
    must(not _begins(make), "feeds that fail before their first item did not count")
    time.sleep(SOON.cooldown * 1.5)
    must(_read(make, None, early=True)[0], "no probe was admitted after the cooldown")
    try:
        both = [make(None), make(None)]
        began = [next(each) for each in both]
    except Unsupported:
        raise
    except Exception:  # noqa: BLE001 (a refusal of any library's kind)
        began = []
    must(began == [1, 1], "a probe's reader has had an item and left, and the circuit is not closed")


def _begins(make: Callable[[object], Any]) -> bool:
    """Whether another feed brings an item."""
    try:
        return bool(next(make(None)) == 1)
    except Unsupported:
        raise
    except Exception:  # noqa: BLE001 (a refusal of any library's kind)
        return False
