"""Whether what a breaker is told is in force: settings of a live circuit, time-outs, windows, and what is an answer."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from typing import Any

from benchmarks.correctness.checks import Bench, Wrong, must
from benchmarks.correctness.driving import Clock
from benchmarks.libraries.library import Failure, Unsupported, Wish, ask

_SLOW = 0.05  # seconds that a call may take


def changed(bench: Bench) -> None:
    """Another threshold for a circuit in use: in force from the next call on, or refused."""
    guard, assign = ask(bench.library, "changing", Wish(threshold=5))
    call = _caller(bench, guard)
    call(None)
    try:
        assign(2)
    except (AttributeError, TypeError):
        return  # said at once
    for _ in range(2):
        call(Failure())
    must(not call(None), "another threshold is accepted for a live circuit, and not in force")


def aged(bench: Bench) -> None:
    """The failures of a seconds window, as a status page shows them while there are no calls."""
    clock = Clock()
    guard, failures = ask(bench.library, "window", 30.0, clock)
    call = _caller(bench, guard)
    for _ in range(2):
        call(Failure())
    must(failures() == 2, f"two calls failed, and it tells {failures()} failures")
    clock.now += 31.0
    must(failures() == 0, f"the window's seconds have passed without a call, and it still tells {failures()} failures")


def under_trio(bench: Bench) -> None:
    """A time-out under trio: it works, or says at once that it does not, and counts nothing."""
    trio = _imported("trio")
    guard = ask(bench.library, "limited", Wish(threshold=2), _SLOW)

    async def request() -> str:
        return "fine"

    async def hanging() -> None:
        await trio.sleep(1.0)

    guarded, hung = guard(request), guard(hanging)

    async def twice(fn: Callable[[], Any]) -> list[object]:
        return [await _outcome(fn) for _ in range(2)]

    answers = trio.run(twice, guarded)
    if answers != ["fine", "fine"]:
        # Not under trio, then; but the remote is not to blame for it.
        must(asyncio.run(_outcome(guarded)) == "fine", f"{answers[0]!r} for a call under trio, and it counts")
        return
    started = trio.run(_timed, trio, twice, hung)
    must(started < 0.9, f"under trio calls may take longer than the time-out: {started:.1f} s")
    must(trio.run(_outcome, guarded) != "fine", "under trio calls that took longer than the time-out do not count")


async def _timed(trio: Any, twice: Callable[..., Any], fn: Callable[[], Any]) -> float:
    before = trio.current_time()
    await twice(fn)
    return float(trio.current_time() - before)


async def _outcome(fn: Callable[[], Any]) -> object:
    try:
        return await fn()
    except Exception as error:  # noqa: BLE001 (a time-out, a refusal, or what the loop does not know)
        return error


def answers(bench: Bench) -> None:
    """Errors by which a remote that is well says no, as their SDKs raise them; nothing is configured."""
    made = _of_botocore() + _of_google() + _of_pymongo()
    counted = [name for name, error in made if _opens(bench, error)]
    must(not counted, f"answers of a remote that is well open it: {', '.join(counted)}")


def _opens(bench: Bench, error: Exception) -> bool:
    call = _caller(bench, bench.library.make(Wish(threshold=2), bench.way))
    for _ in range(3):
        call(error)
    return not call(None)


def _of_botocore() -> list[tuple[str, Exception]]:
    error = _imported("botocore.exceptions").ClientError
    told = {404: ("NoSuchKey", "GetObject"), 412: ("PreconditionFailed", "PutObject")}
    return [
        (
            f"botocore {status}",
            error({"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}, operation),
        )
        for status, (code, operation) in told.items()
    ]


def _of_google() -> list[tuple[str, Exception]]:
    found = _imported("google.api_core.exceptions")
    return [(f"google {name}", getattr(found, name)("no")) for name in ("NotFound", "AlreadyExists")]


def _of_pymongo() -> list[tuple[str, Exception]]:
    error = _imported("pymongo.errors").DuplicateKeyError
    return [("pymongo DuplicateKeyError", error("E11000 duplicate key error", 11000))]


def _imported(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError:
        raise Unsupported(f"{module} is not installed, and the check needs it") from None


def _caller(bench: Bench, guard: Callable[[Callable[..., Any]], Callable[..., Any]]) -> Callable[[object], bool]:
    """Makes one call, which returns or raises the outcome given; whether it ran at all."""
    ran = [False]

    def request(outcome: object) -> object:
        ran[0] = True
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def arequest(outcome: object) -> object:
        return request(outcome)

    guarded = guard(arequest if bench.way == "async" else request)

    def call(outcome: object) -> bool:
        ran[0] = False
        try:
            made = guarded(outcome)
            if bench.way == "async":
                asyncio.run(made)
        except Wrong:
            raise
        except Exception:  # noqa: BLE001, S110 (the failure, or a refusal of any library's kind)
            pass
        return ran[0]

    return call
