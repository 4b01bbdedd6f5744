"""The types of `failover.breaker`, as a user's program meets them. Checked, and never run."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from typing_extensions import assert_type

from failover.breaker import Breakers, CircuitBreaker, CircuitOpen, Permit, Refusal

breaker = CircuitBreaker("typed")


@breaker
def fetch(page: int, *, size: int = 10) -> str:
    return str(page * size)


@breaker
async def afetch(page: int) -> str:
    return str(page)


@breaker
def feed(last: int) -> Iterator[int]:
    yield last


@breaker
async def afeed(last: int) -> AsyncIterator[int]:
    yield last


def cached(error: BaseException, page: int) -> str:
    return f"{page}: {error}"


@breaker.guard(fallback=cached)
def guarded(page: int) -> str:
    return str(page)


class Client:
    @breaker
    def method(self, page: int) -> bytes:
        return bytes(page)

    @breaker
    @staticmethod
    def static(page: int) -> bytes:
        return bytes(page)


def decorators_keep_their_signatures() -> None:
    assert_type(fetch(1, size=2), str)
    assert_type(guarded(1), str)
    assert_type(Client().method(1), bytes)
    assert_type(Client.static(1), bytes)
    for item in feed(3):
        assert_type(item, int)
    fetch("one")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    fetch(1, 2)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    guarded()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Client().method("one")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


async def coroutines_and_async_generators_too() -> None:
    assert_type(await afetch(1), str)
    async for item in afeed(3):
        assert_type(item, int)
    await afetch("one")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def page_of(page: int, *, size: int) -> str:
    return str(page * size)


async def apage_of(page: int) -> str:
    return str(page)


async def calls_check_their_arguments() -> None:
    assert_type(breaker.call(page_of, 1, size=2), str)
    assert_type(await breaker.acall(apage_of, 1), str)
    breaker.call(page_of, "one", size=2)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    breaker.call(page_of, 1)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    await breaker.acall(apage_of, "one")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    await breaker.acall(page_of, 1, size=2)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


def one() -> int:
    return 1


async def aone() -> int:
    return 1


def length(number: int) -> bytes:
    return bytes(number)


def failed(error: BaseException) -> str:
    return str(error)


def refused(refusal: CircuitOpen) -> float | None:
    return refusal.retry_after


async def arefused(refusal: CircuitOpen) -> str:
    return refusal.name


async def execute_gives_what_its_callbacks_give() -> None:
    assert_type(breaker.execute(one), int)
    assert_type(breaker.execute(one, on_success=length), bytes)
    assert_type(breaker.execute(one, on_failure=failed), int | str)
    assert_type(breaker.execute(one, on_open=refused), int | float | None)
    assert_type(breaker.execute(one, on_success=length, on_failure=failed), bytes | str)
    assert_type(breaker.execute(one, on_success=length, on_failure=failed, on_open=failed), bytes | str)
    assert_type(await breaker.aexecute(aone), int)
    # A callback may be a coroutine function or a plain one: what it gives is awaited where it must be.
    assert_type(await breaker.aexecute(aone, on_success=length, on_open=arefused), Any)
    await breaker.aexecute(aone, on_failure=length)  # type: ignore[arg-type]  # pyright: ignore
    breaker.execute(page_of)  # type: ignore[arg-type]  # pyright: ignore[reportCallIssue, reportArgumentType]


def the_rest() -> None:
    with breaker.admit(last_resort=True) as permit:
        assert_type(permit, Permit)
        assert_type(permit.is_probe, bool)
    try:
        breaker.call(one)
    except CircuitOpen as refusal:
        assert_type(refusal.reason, Refusal)
        assert_type(refusal.last_error, BaseException | None)
    for circuit in Breakers():
        assert_type(circuit, CircuitBreaker)
