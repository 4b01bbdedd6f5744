"""How long what a task awaits may take: what is late is cancelled, and no cancellation of anybody else's is lost."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable
from types import SimpleNamespace
from typing import Any

import pytest

from failover.storage import pace_aio
from failover.storage.body import LoopBody
from failover.storage.calls import LoopCalls
from failover.storage.pace import Trickled
from failover.storage.pace_aio import LoopWatch
from tests.storage.aio import in_loop


async def never() -> None:
    await asyncio.get_running_loop().create_future()


async def now() -> str:
    await asyncio.sleep(0)
    return "well"


def watch() -> LoopWatch:
    return LoopWatch()


@in_loop
async def test_what_is_late_is_cancelled() -> None:
    with pytest.raises(Trickled, match=r"within 0\.1 s"):
        await watch().timed(0.1, never())

    assert await now() == "well"  # the task itself is not


@in_loop
async def test_what_ends_in_time_is_left_alone() -> None:
    result, left = await watch().timed(60, now())

    assert result == "well"
    assert left is not None
    assert 0 < left < 60
    assert await watch().timed(None, now()) == ("well", None)


@in_loop
async def test_an_error_stays_what_it_is() -> None:
    async def fails() -> None:
        raise asyncio.TimeoutError("somebody else's")

    with pytest.raises(asyncio.TimeoutError, match="somebody else's"):
        await watch().timed(60, fails())


@in_loop
async def test_one_that_is_late_does_not_disturb_another() -> None:
    both = watch()
    late = asyncio.create_task(both.timed(0.1, never()))
    other = asyncio.create_task(both.timed(60, asyncio.sleep(0.5, "well")))

    ended, went_on = await asyncio.gather(late, other, return_exceptions=True)

    assert isinstance(ended, Trickled)
    assert not isinstance(went_on, BaseException)
    assert went_on[0] == "well"


# Python 3.10 does not tell two cancellations from one.
@pytest.mark.parametrize("seconds", [60, 0.05] if sys.version_info >= (3, 11) else [60])
@in_loop
async def test_a_cancellation_from_outside_stays_one(seconds: float) -> None:
    began = asyncio.Event()

    async def waits() -> None:
        began.set()
        try:
            await never()
        except asyncio.CancelledError:
            await asyncio.sleep(0.3)  # meanwhile it may be late too
            raise

    task = asyncio.create_task(watch().timed(seconds, waits()))
    await began.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


@in_loop
async def test_the_one_that_looks_on_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace_aio, "LONGEST_NAP", 0.01)
    monkeypatch.setattr(pace_aio, "SHORTEST_NAP", 0.01)
    looks = watch()
    await looks.timed(60, now())
    assert looks._looks_on
    while looks._looks_on:
        await asyncio.sleep(0.01)
    with pytest.raises(Trickled):  # and begins again
        await looks.timed(0.05, never())


class _Pieces:
    """An iterator whose `__anext__` is no coroutine function, as one written in C may be."""

    def __init__(self, *pieces: bytes) -> None:
        self._pieces = list(pieces)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    def __anext__(self) -> Awaitable[bytes]:
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        if self._pieces:
            asyncio.get_running_loop().call_soon(future.set_result, self._pieces.pop(0))
        else:
            future.set_exception(StopAsyncIteration())
        return future


class _Drips(_Pieces):
    def __anext__(self) -> Awaitable[bytes]:
        return asyncio.get_running_loop().create_future()


def body_of(chunks: Any, silence: float | None) -> LoopBody:
    async def resume(_reopen: object, _delivered: int, error: BaseException) -> tuple[Any, int]:
        raise error

    source: Any = SimpleNamespace(ended=lambda: None, resume=resume)
    return LoopBody(LoopCalls(), source, chunks, length=None, silence=silence, reopen=lambda _: None)


async def coroutines() -> AsyncIterator[bytes]:
    yield b"one"  # is there at once
    await asyncio.sleep(0.01)
    yield b"two"


@pytest.mark.parametrize("silence", [None, 60])
@in_loop
async def test_the_pieces_of_any_iterator(silence: float | None) -> None:
    assert [piece async for piece in body_of(coroutines(), silence)] == [b"one", b"two"]
    assert [piece async for piece in body_of(_Pieces(b"one", b"two"), silence)] == [b"one", b"two"]


@in_loop
async def test_a_piece_that_never_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("failover.storage.body.SLOWEST", 1e9)

    async def hangs() -> AsyncIterator[bytes]:
        yield b"one"
        await never()

    for chunks, before in ((hangs(), 1), (_Drips(), 0)):
        body = body_of(chunks, 0.1)
        for _ in range(before):
            assert await anext(body)
        with pytest.raises(Trickled, match=r"within 0\.1 s"):
            await anext(body)
