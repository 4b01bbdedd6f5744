"""How a call runs: once through a permit, or as what `@breaker` makes of a function of any kind."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from typing import TYPE_CHECKING, Any, TypeVar

from failover.breaker.errors import CircuitOpen
from failover.breaker.failures import FAILURE, NEUTRAL, SUCCESS, Verdict

if TYPE_CHECKING:
    from failover.breaker.circuit import CircuitBreaker
    from failover.breaker.permit import Permit

R = TypeVar("R")


def guard(breaker: CircuitBreaker, fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` as a function of its own kind that goes through `breaker`.

    A generator is admitted when it is first asked for something, and settled when it ends: a failure half-way counts,
    an early `close()` is neutral, what it returns arrives. Its time is its reader's too: `Policy.timeout` does not
    apply to it.
    """
    if _is(inspect.iscoroutinefunction, fn):
        return _coroutine_function(breaker, fn)
    if _is(inspect.isgeneratorfunction, fn):
        return _generator_function(breaker, fn)
    if _is(inspect.isasyncgenfunction, fn):
        return _async_generator_function(breaker, fn)
    return _function(breaker, fn)


def run(
    breaker: CircuitBreaker,
    fn: Callable[[], Any],
    on_success: Callable[[Any], Any] | None = None,
    on_failure: Callable[[BaseException], Any] | None = None,
    on_open: Callable[[CircuitOpen], Any] | None = None,
) -> Any:
    """`CircuitBreaker.execute`, and `call` where more is to do than nothing."""
    try:
        permit = breaker.admit()
    except CircuitOpen as refusal:
        return on_open(refusal) if on_open is not None else breaker._fall_back(refusal)
    try:
        result = fn()
    except BaseException as error:
        if _settle_error(breaker, permit, error) is not FAILURE:
            raise
        return on_failure(error) if on_failure is not None else breaker._fall_back(error)
    _settle_result(breaker, permit, result)
    return result if on_success is None else on_success(result)


async def arun(
    breaker: CircuitBreaker,
    fn: Callable[[], Awaitable[Any]],
    on_success: Callable[[Any], Any] | None = None,
    on_failure: Callable[[BaseException], Any] | None = None,
    on_open: Callable[[CircuitOpen], Any] | None = None,
) -> Any:
    """`CircuitBreaker.aexecute`, and `acall` where more is to do than nothing."""
    try:
        permit = breaker.admit()
    except CircuitOpen as refusal:
        return await awaited(on_open(refusal) if on_open is not None else breaker._fall_back(refusal))
    try:
        result = await (fn() if breaker._timeout is None else within(fn(), breaker._timeout))
    except BaseException as error:
        if _settle_error(breaker, permit, error) is not FAILURE:
            raise
        return await awaited(on_failure(error) if on_failure is not None else breaker._fall_back(error))
    _settle_result(breaker, permit, result)
    return result if on_success is None else await awaited(on_success(result))


def _settle_error(breaker: CircuitBreaker, permit: Permit, error: BaseException) -> Verdict:
    verdict = breaker._judge_error(error)
    permit.settle(verdict, error)
    return verdict


def _settle_result(breaker: CircuitBreaker, permit: Permit, result: object, seconds: float | None = None) -> None:
    verdict = NEUTRAL  # stays so if Ctrl-C comes while the classifier runs: the probe's place is given back
    try:
        verdict = breaker._judge(result)
    finally:
        permit.settle(verdict, result, seconds)


async def awaited(value: Any) -> Any:
    """`value`, awaited where it must be: a fallback or callback may be a coroutine function or a plain one."""
    return await value if inspect.isawaitable(value) else value


async def within(work: Awaitable[R], seconds: float) -> R:
    """Await `work`, cancel it after `seconds` and raise `TimeoutError`."""
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


def _is(kind: Callable[[object], bool], fn: Callable[..., object]) -> bool:
    """Whether `fn`, or the `__call__` of an object, is of this kind."""
    return kind(fn) or (not isinstance(fn, type) and kind(getattr(fn, "__call__", fn)))  # noqa: B004 (an object's own)


def _function(breaker: CircuitBreaker, fn: Callable[..., Any]) -> Callable[..., Any]:
    plain = breaker._plain

    @functools.wraps(fn)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        # `call` written out: going through it would double what a decorated function pays.
        calm = breaker.calm
        if calm is None:
            return run(breaker, functools.partial(fn, *args, **kwargs))
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 (raised again, or the fallback's)
            return breaker._end_badly(calm, error)
        if type(result) in plain and breaker.calm is calm:
            return result
        verdict = breaker._judge(result)
        if verdict is not SUCCESS or breaker.calm is not calm:
            breaker._settle(None, calm, verdict, result, 0.0, None)
        return result

    return guarded


def _coroutine_function(breaker: CircuitBreaker, fn: Callable[..., Any]) -> Callable[..., Any]:
    plain = breaker._plain

    @functools.wraps(fn)
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        # `acall` written out, as above.
        calm = breaker.calm
        if calm is None:
            return await arun(breaker, functools.partial(fn, *args, **kwargs))
        try:
            result = await fn(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 (raised again, or the fallback's)
            return await awaited(breaker._end_badly(calm, error))
        if type(result) in plain and breaker.calm is calm:
            return result
        verdict = breaker._judge(result)
        if verdict is not SUCCESS or breaker.calm is not calm:
            breaker._settle(None, calm, verdict, result, 0.0, None)
        return result

    return guarded


def _generator_function(breaker: CircuitBreaker, fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    def guarded(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        permit = breaker.admit()
        try:
            result = yield from fn(*args, **kwargs)
        except BaseException as error:
            _settle_error(breaker, permit, error)
            raise
        _settle_result(breaker, permit, result, 0.0)
        return result

    return guarded


def _async_generator_function(breaker: CircuitBreaker, fn: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(fn)
    async def guarded(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        permit = breaker.admit()
        try:
            inner = fn(*args, **kwargs)  # raises where the arguments do not fit
            item = await inner.__anext__()
            while True:
                try:
                    sent = yield item
                except GeneratorExit:
                    await inner.aclose()
                    raise
                except BaseException as error:  # noqa: BLE001 (`athrow`: it is the inner generator's to handle)
                    item = await inner.athrow(error)
                else:
                    item = await inner.asend(sent)
        except StopAsyncIteration:
            permit.settle(SUCCESS, None, 0.0)
        except BaseException as error:
            _settle_error(breaker, permit, error)
            raise

    return guarded
