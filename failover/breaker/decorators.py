"""What `@breaker` makes of a generator function, and what calls of any kind need: which kind it is, a time-out."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from types import AsyncGeneratorType, GeneratorType
from typing import Any, Protocol, TypeVar

from failover.breaker.failures import SUCCESS, Verdict

R = TypeVar("R")


class RunningCall(Protocol):
    """An admitted call, whose work is done step by step: a `failover.breaker.Permit`."""

    @property
    def is_probe(self) -> bool: ...

    @property
    def is_settled(self) -> bool: ...

    def step(self, work: Callable[[Any], R], value: Any, /) -> R: ...

    async def astep(self, work: Callable[[Any], Awaitable[R]], value: Any, /) -> R: ...

    def settle(self, verdict: Verdict, outcome: object = None, seconds: float | None = None) -> None: ...

    def judge(self, outcome: object, seconds: float | None = None) -> Verdict: ...


# --- kinds of functions -----------------------------------------------------------------------------------------------


def is_coroutine_function(fn: Any) -> bool:
    return _is(inspect.iscoroutinefunction, fn) or _is(_is_generator_based_coroutine, fn)


def is_generator_function(fn: Any) -> bool:
    return _is(inspect.isgeneratorfunction, fn) and not _is(_is_generator_based_coroutine, fn)


def _is_generator_based_coroutine(fn: object) -> bool:
    """Whether `fn` comes from `types.coroutine`: what it gives is awaited. `inspect` calls it a generator function."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    flags = getattr(getattr(fn, "__code__", None), "co_flags", 0)
    return isinstance(flags, int) and bool(flags & inspect.CO_ITERABLE_COROUTINE)  # a mock has any attribute


def is_async_generator_function(fn: Any) -> bool:
    return _is(inspect.isasyncgenfunction, fn)


def _is(kind: Callable[[object], bool], fn: Any) -> bool:
    """Whether `fn`, or the `__call__` of an object, is of this kind."""
    return kind(fn) or (not isinstance(fn, type) and kind(getattr(fn, "__call__", None)))  # noqa: B004 (an object's own)


def check_started(fn: Callable[..., Any], result: Any, how: str) -> None:
    """`TypeError` where `result` is what a function gives that has not run yet: nothing is known of the remote then.

    A plain function may return a generator that it has prepared; one that returns a coroutine has done nothing.
    """
    kind = type(result)
    is_awaited: bool = inspect.isawaitable(result)  # as a generator of `types.coroutine` is
    if is_awaited:
        result.close()  # or Python warns that it was never awaited
        raise TypeError(f"{_name(fn)} returned a coroutine, which has not run: {how}")
    if (kind is GeneratorType and is_generator_function(fn)) or (
        kind is AsyncGeneratorType and is_async_generator_function(fn)
    ):
        raise TypeError(f"{_name(fn)} is a generator function, which runs while it is iterated: decorate it (@breaker)")


def check_awaitable(fn: Callable[..., Any], result: object) -> None:
    """`TypeError` where `result` is nothing to await."""
    if not inspect.isawaitable(result):
        raise TypeError(
            f"{_name(fn)} returned {type(result).__name__}, which cannot be awaited: for what need not be awaited "
            "there are call and execute"
        )


def _name(fn: Any) -> str:
    return getattr(fn, "__qualname__", None) or type(fn).__name__


# --- generators -------------------------------------------------------------------------------------------------------


def generator_function(admit: Callable[[], RunningCall], fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` through a circuit: admitted when it is first asked for something, settled when it ends.

    What it yields first is a probe's success: an endless feed would never show otherwise that its remote is back.
    """

    @functools.wraps(fn)
    def guarded(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        call = admit()
        try:
            inner = fn(*args, **kwargs)  # raises where the arguments do not fit
            work, value = inner.send, None
            while True:  # as `yield from` does, but for what is done before and after each step
                item = call.step(work, value)
                _settle_probe(call)
                try:
                    work, value = inner.send, (yield item)
                except GeneratorExit:
                    inner.close()
                    raise
                except BaseException as error:  # noqa: BLE001 (`throw`: it is the inner generator's to handle)
                    work, value = inner.throw, error
        except StopIteration as end:
            result = end.value
        except BaseException as error:
            call.judge(error, 0.0)
            raise
        call.judge(result, 0.0)
        return result

    return guarded


def async_generator_function(admit: Callable[[], RunningCall], fn: Callable[..., Any]) -> Callable[..., Any]:
    """As `generator_function`."""

    @functools.wraps(fn)
    async def guarded(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        call = admit()
        try:
            inner = fn(*args, **kwargs)
            work, value = inner.asend, None
            while True:
                item = await call.astep(work, value)
                _settle_probe(call)
                try:
                    work, value = inner.asend, (yield item)
                except GeneratorExit:
                    await inner.aclose()
                    raise
                except BaseException as error:  # noqa: BLE001 (as above)
                    work, value = inner.athrow, error
        except StopAsyncIteration:
            call.judge(None, 0.0)
        except BaseException as error:
            call.judge(error, 0.0)
            raise

    return guarded


def _settle_probe(call: RunningCall) -> None:
    if call.is_probe and not call.is_settled:
        call.settle(SUCCESS, None, 0.0)


# --- time-outs --------------------------------------------------------------------------------------------------------


async def awaited(value: Any) -> Any:
    """`value`, awaited where it must be: a fallback or callback may be a coroutine function or a plain one."""
    return await value if inspect.isawaitable(value) else value


async def within(work: Awaitable[R], seconds: float) -> R:
    """Await `work`, cancel it after `seconds` and raise `TimeoutError`. Under asyncio and trio."""
    trio = sys.modules.get("trio")
    if trio is not None and _is_running(trio):
        with trio.move_on_after(seconds):
            return await work
        raise TimeoutError(f"no answer within {seconds:g} s")
    import asyncio  # costs a program that does not use it 30 ms

    if sys.version_info >= (3, 11):
        async with asyncio.timeout(seconds):
            return await work
    # Not 3.10's wait_for: it runs `work` in a task of its own, whose context variables are lost, and forgets a
    # cancellation from outside that comes as `work` ends.
    task, expired = asyncio.current_task(), False

    def expire() -> None:
        nonlocal expired
        expired = True
        if task is not None:
            task.cancel()

    timer = asyncio.get_running_loop().call_later(seconds, expire)
    try:
        return await work
    except asyncio.CancelledError:
        if not expired:
            raise
        raise TimeoutError(f"no answer within {seconds:g} s") from None
    finally:
        timer.cancel()


def check_time_limits() -> None:
    """`TypeError` where no event loop runs that this library can set a time limit in."""
    trio = sys.modules.get("trio")
    if trio is not None and _is_running(trio):
        return
    import asyncio

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        raise TypeError("Policy.timeout of an async call needs asyncio or trio, and neither is running") from None


def _is_running(trio: Any) -> bool:
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return False
    return True
