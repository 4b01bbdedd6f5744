"""What a decorator is put over in real programs, and what is given to a call: each tried on any library."""

from __future__ import annotations

import asyncio
import types
from collections.abc import Callable, Generator
from contextvars import copy_context
from typing import Any

from benchmarks.correctness.checks import Bench, must
from benchmarks.libraries.library import Failure, Unsupported, Wish, ask

TWICE = Wish(threshold=2)


def _run(bench: Bench, call: Callable[[], Any]) -> object:
    """What a call gives, awaited where the library's way is asynchronous."""

    async def awaited() -> object:
        return await call()

    return asyncio.run(awaited()) if bench.way == "async" else call()


def _fails(bench: Bench, call: Callable[[], Any]) -> bool:
    """Whether the call ends by the remote's failure; it ends in a refusal otherwise."""
    try:
        _run(bench, call)
    except Failure:
        return True
    except Exception:  # noqa: BLE001 (a refusal, of every library's own kind)
        return False
    return False


def methods(bench: Bench) -> None:
    for kind in (classmethod, staticmethod):
        _method(bench, kind)


def _method(bench: Bench, kind: Any) -> None:
    down = [False]

    def method(*_: object) -> str:
        if down[0]:
            raise Failure
        return "fine"

    async def amethod(*args: object) -> str:
        return method(*args)

    try:
        guarded = bench.library.make(TWICE, bench.way)(kind(amethod if bench.way == "async" else method))
    except TypeError:
        return  # said at once
    api: Any = type("Api", (), {"read": guarded})
    name = kind.__name__
    try:
        answers = [_run(bench, lambda: api.read()), _run(bench, lambda: api().read())]
    except Exception as error:  # noqa: BLE001 (whatever it is, the decorator took what it cannot call)
        must(False, f"@breaker over @{name} is accepted, and each call raises {type(error).__name__}: {error}")
    must(answers == ["fine", "fine"], f"@breaker over @{name} is accepted, and a call gives {answers[0]!r}")
    down[0] = True
    failed = [_fails(bench, lambda: api.read()) for _ in range(3)]
    must(failed == [True, True, False], f"@breaker over @{name} is accepted, and failures do not count")


def old_coroutine(bench: Bench) -> None:
    """A generator that `types.coroutine` has made awaitable."""

    @types.coroutine
    def request() -> Generator[Any, None, str]:
        yield from asyncio.sleep(0).__await__()
        raise Failure

    try:
        guarded = bench.library.make(TWICE, bench.way)(request)
    except TypeError:
        return  # said at once
    failed = [_fails(bench, guarded) for _ in range(3)]
    must(failed[0], "@breaker over @types.coroutine is accepted, and gives what cannot be awaited")
    must(failed == [True, True, False], "@breaker over @types.coroutine is accepted, and failures do not count")


def not_callable(bench: Bench) -> None:
    try:
        bench.library.make(TWICE, bench.way)(None)  # type: ignore[arg-type]
    except Exception:  # noqa: BLE001 (of any kind: it is said at once)
        return
    must(False, "@breaker over None is accepted")


def plain_awaited(bench: Bench) -> None:
    """A plain function, given to what awaits."""
    acall = ask(bench.library, "acall", TWICE)

    def request() -> str:
        return "fine"

    async def coroutine() -> str:
        return "fine"

    for _ in range(2):
        try:
            works = _run(bench, lambda: acall(request)) == "fine"
        except Exception:  # noqa: BLE001 (a TypeError, or a refusal if that was counted)
            works = False
        if works:
            return
    admits = _admits(lambda: _run(bench, lambda: acall(coroutine)))
    must(admits, "it refuses what cannot be awaited, and counts that against the remote")


def generator_called(bench: Bench) -> None:
    """A generator function, given to what calls plain functions."""

    def lines() -> Generator[str, None, None]:
        yield "one"
        raise Failure

    _counts_or_refuses(_call(bench), lines, list, "generator functions", "a generator")


def coroutine_called(bench: Bench) -> None:
    """A coroutine function, given to what calls plain functions."""
    _coroutine(_call(bench))


def coroutine_made(bench: Bench) -> None:
    """A plain function that gives a coroutine, as `lambda: request()` does."""
    guard = bench.library.make(TWICE, "sync")
    _coroutine(lambda fn: guard(lambda: fn())())  # so that it is no coroutine function


def _call(bench: Bench) -> Callable[..., Any]:
    call = bench.library.call(TWICE)
    if call is None:
        raise Unsupported("it has nothing that calls a function")
    return call


def _coroutine(call: Callable[..., Any]) -> None:
    async def request() -> None:
        raise Failure

    loop = asyncio.new_event_loop()
    _counts_or_refuses(call, request, loop.run_until_complete, "coroutines", "a coroutine")


def _counts_or_refuses(
    call: Callable[..., Any], fn: Callable[..., Any], run: Callable[[Any], object], all_of_them: str, one: str
) -> None:
    """Twice a call whose failure comes only when its result is run: it counts then, or the call is refused at once."""
    refused = 0
    for _ in range(2):
        try:
            run(call(fn))
        except TypeError:
            refused += 1
        except Exception:  # noqa: BLE001, S110 (the failure, or what a library makes of the one that opens it)
            pass
    admits = _admits(lambda: call(lambda: "fine"))
    if refused:
        must(admits, f"it refuses {all_of_them}, and counts that against the remote")
    else:
        must(not admits, f"{one} counts as a success before it has run: failures are not counted")


def _admits(call: Callable[[], object]) -> bool:
    try:
        return call() == "fine"
    except Exception:  # noqa: BLE001 (a refusal of any library's kind)
        return False


def block_elsewhere(bench: Bench) -> None:
    """A block around the `yield` of a FastAPI dependency: it is left in another context than it was entered in."""
    block, guard = ask(bench.library, "block", TWICE, bench.way)

    def plain() -> Generator[int, None, None]:
        with block():
            yield 1

    async def asynchronous() -> Any:
        made = block()
        if hasattr(made, "__aenter__"):
            async with made:
                yield 1
        else:
            with made:
                yield 1

    async def anext_of(generator: Any) -> object:
        try:
            return await generator.__anext__()
        except StopAsyncIteration:
            return None

    loop = asyncio.new_event_loop()

    def step(generator: Any) -> object:
        return next(generator, None) if bench.way == "sync" else loop.run_until_complete(anext_of(generator))

    for _ in range(3):
        generator = plain() if bench.way == "sync" else asynchronous()
        must(copy_context().run(step, generator) == 1, "a block in a closed circuit is refused")
        try:
            copy_context().run(step, generator)
        except Exception as error:  # noqa: BLE001 (whatever it is, the request of a healthy remote fails by it)
            must(False, f"a block that is left in another context raises {type(error).__name__}: {error}")

    def request() -> str:
        return "fine"

    async def arequest() -> str:
        return "fine"

    answer = _run(bench, guard(arequest if bench.way == "async" else request))
    must(answer == "fine", "blocks that are left in another context open it")
