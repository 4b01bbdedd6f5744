"""The checks of benchmarks/correctness.py say no to a breaker that is wrong, and yes to ours, without any rival."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import inspect
import os
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import metadata
from typing import Any

import pytest
import redis

from benchmarks.correctness import driving
from benchmarks.correctness.report import cell
from benchmarks.correctness.rows import ROWS, judge
from benchmarks.libraries.adapters import Ours
from benchmarks.libraries.library import Failure, Guard, Ignored, Wish, load, refuse, version_of
from benchmarks.stores.__main__ import main

ALONE = {"wall", "no-lock", "fork"}  # patch the interpreter before a library is imported
NEED_REDIS = {"drips", "foreign"}


class Naive:
    """All that can be got wrong, save the lock: judges by the last call alone, and by the wall clock."""

    package = module = "naive"
    ways: tuple[str, ...] = ("sync", "async")
    fields: dict[str, str] = {"threshold": "threshold", "cooldown": "cooldown"}  # noqa: RUF012 (the protocol's)

    def call(self, wish: Wish) -> Callable[..., Any] | None:
        return None

    def make(self, wish: Wish, way: str) -> Guard:
        failures, opened = 0, 0.0

        def clock() -> float:
            return time.time() + 0.0 * (wish.clock or time.time)()

        def admit() -> None:
            if failures >= wish.threshold and clock() < opened + wish.cooldown:
                raise Failure("open")

        def settle(error: BaseException | None) -> None:
            nonlocal failures, opened
            failures = 0 if error is None or isinstance(error, Ignored) else failures + 1
            if wish.listener is not None:
                wish.listener()
            opened = clock()

        def guard(fn: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(fn)
            def guarded(*args: Any) -> Any:
                admit()
                try:
                    result = fn(*args)
                except BaseException as error:
                    settle(error)
                    raise
                settle(None)
                return (each for each in result) if inspect.isgenerator(result) else result

            @functools.wraps(fn)
            async def aguarded(*args: Any) -> Any:
                admit()
                try:
                    result = await fn(*args)
                except BaseException as error:
                    settle(error)
                    raise
                settle(None)
                return result

            return aguarded if inspect.iscoroutinefunction(fn) else guarded

        return guard


class Locked(Naive):
    """Holds its lock while calls run."""

    ways: tuple[str, ...] = ("sync",)

    def make(self, wish: Wish, way: str) -> Guard:
        lock, naive = threading.Lock(), super().make(wish, way)

        def guard(fn: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(fn)
            def guarded(*args: Any) -> Any:
                with lock:
                    return naive(fn)(*args)

            return guarded

        return guard


class Hoarder(Naive):
    """Admits one call at a time, refuses others, and keeps the errors."""

    ways: tuple[str, ...] = ("sync",)

    def make(self, wish: Wish, way: str) -> Guard:
        lock, errors = threading.Lock(), []

        def guard(fn: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(fn)
            def guarded(*args: Any) -> Any:
                if not lock.acquire(blocking=False):
                    raise Failure("busy")
                try:
                    return fn(*args)
                except Exception as error:
                    errors.append(error)
                    raise
                finally:
                    lock.release()

            return guarded

        return guard


class Clumsy(Naive):
    """Tells listeners of refusals under a lock, and puts into a refusal what cannot be pickled."""

    ways: tuple[str, ...] = ("sync",)

    def make(self, wish: Wish, way: str) -> Guard:
        lock, naive = threading.Lock(), super().make(replace(wish, listener=None), way)

        def guard(fn: Callable[..., Any]) -> Callable[..., Any]:
            @functools.wraps(fn)
            def guarded(*args: Any) -> Any:
                try:
                    return naive(fn)(*args)
                except Failure as error:
                    if str(error) == "open":
                        with lock:
                            (wish.listener or (lambda: None))()
                        error.args = ("open", lock)
                    raise

            return guarded

        return guard

    def call(self, wish: Wish) -> Callable[..., Any] | None:
        guard = self.make(wish, "sync")
        return lambda fn: guard(lambda: fn())()  # so that it is no coroutine function


class ClumsyInLoops(Clumsy):
    """Takes the same lock in threads and in event loops."""

    ways: tuple[str, ...] = ("sync", "async")

    def make(self, wish: Wish, way: str) -> Guard:
        guard = super().make(wish, way)

        def both(fn: Callable[..., Any]) -> Callable[..., Any]:
            async def aguarded(*args: Any) -> Any:
                guard(lambda: None)()
                return await fn(*args)

            return aguarded if inspect.iscoroutinefunction(fn) else guard(fn)

        return both


class Careless(Naive):
    """Counts what is the caller's own mistake, takes settings and time-outs in vain, and keeps its state in Redis."""

    def acall(self, wish: Wish) -> Callable[..., Any]:
        make = self.make(wish, "async")

        async def acall(fn: Callable[..., Any]) -> Any:
            async def work() -> Any:
                return await fn()

            return await make(work)()

        return acall

    def call(self, wish: Wish) -> Callable[..., Any] | None:
        make = self.make(wish, "sync")
        return lambda fn: make(lambda: fn())()

    def block(self, wish: Wish, way: str) -> Any:
        here: contextvars.ContextVar[int] = contextvars.ContextVar("here")

        @contextlib.contextmanager
        def block() -> Any:
            token = here.set(1)
            yield
            here.reset(token)

        return block, self.make(wish, way)

    def changing(self, wish: Wish) -> Any:
        return self.make(wish, "sync"), lambda threshold: threshold

    def limited(self, wish: Wish, seconds: float) -> Any:
        guard = self.make(wish, "async")

        def limited(fn: Callable[..., Any]) -> Callable[..., Any]:
            async def work() -> Any:
                asyncio.get_running_loop()  # raises under trio, before there is a coroutine that nobody awaits
                return await asyncio.wait_for(fn(), seconds)

            return guard(work)

        return limited

    def window(self, seconds: float, clock: Callable[[], float]) -> Any:
        failures = [0]

        def guard(fn: Callable[..., Any]) -> Callable[..., Any]:
            def guarded(outcome: object) -> Any:
                failures[0] += isinstance(outcome, Failure)
                return fn(outcome)

            return guarded

        return guard, lambda: failures[0]

    def shared(self, wish: Wish, way: str, url: str) -> Guard:
        client: Any = redis.Redis.from_url(url)
        client.setnx("failures", 0)
        guard = self.make(wish, way)

        def shared(fn: Callable[..., Any]) -> Callable[..., Any]:
            def work(*args: Any) -> Any:
                client.incr("failures")
                return guard(fn)(*args)

            return work

        return shared


@pytest.fixture(autouse=True)
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driving, "LIMIT", 0.5)


OF_CLUMSY = {"coroutine-call", "pickle", "slow-listener-open"}
OF_LOCKED = {"side-by-side", "hung-probe", "slow-listener"}
OF_HOARDER = {"nested", "frames"}
OF_CARELESS = {"generator-call", "plain-acall", "block", "trio", "window", "changed"}
OF_OTHERS = (
    {"slow-listener-loop"} | OF_CLUMSY | OF_LOCKED | OF_HOARDER | OF_CARELESS | NEED_REDIS
)  # which the naive one does right


@pytest.mark.parametrize("row", sorted(set(ROWS) - ALONE - NEED_REDIS))
def test_ours_gets_a_yes(row: str) -> None:
    assert judge(ROWS[row], Ours()) == ("yes", "")


@pytest.mark.redis
@pytest.mark.parametrize("row", sorted(NEED_REDIS))
def test_ours_gets_a_yes_over_redis(row: str) -> None:
    assert judge(ROWS[row], Ours()) == ("yes", "")


@pytest.mark.redis
@pytest.mark.parametrize("row", sorted(NEED_REDIS))
def test_a_breaker_that_asks_redis_in_each_call_gets_a_no(row: str) -> None:
    answer, reason = judge(ROWS[row], Careless())
    assert answer == "no", reason


@pytest.mark.parametrize("row", sorted(OF_CARELESS))
def test_what_is_taken_in_vain_gets_a_no(row: str) -> None:
    answer, reason = judge(ROWS[row], Careless())
    assert answer == "no", reason


@pytest.mark.parametrize("row", sorted(ALONE))
def test_ours_gets_a_yes_in_a_process_of_its_own(row: str) -> None:
    answer, _ = cell(row, Ours(), limit=30.0)
    assert answer == ("yes" if row != "fork" or hasattr(os, "fork") else "n/a")


@pytest.mark.parametrize("row", sorted(set(ROWS) - ALONE - OF_OTHERS))
def test_a_wrong_breaker_gets_a_no(row: str) -> None:
    answer, reason = judge(ROWS[row], Naive())
    assert answer == "no", reason


@pytest.mark.parametrize("row", sorted(OF_HOARDER))
def test_a_breaker_that_refuses_its_own_inner_calls_and_keeps_errors_gets_a_no(row: str) -> None:
    assert judge(ROWS[row], Hoarder())[0] == "no"


@pytest.mark.parametrize("row", sorted(OF_LOCKED))
def test_a_lock_held_too_long_gets_a_no(row: str) -> None:
    assert judge(ROWS[row], Locked())[0] == "no"


@pytest.mark.parametrize("row", sorted(OF_CLUMSY))
def test_what_a_program_trips_over_gets_a_no(row: str) -> None:
    assert judge(ROWS[row], Clumsy())[0] == "no"


def test_a_thread_that_an_event_loop_waits_for_gets_a_no() -> None:
    assert judge(ROWS["slow-listener-loop"], ClumsyInLoops())[0] == "no"


def test_a_lock_that_a_forked_child_finds_taken_gets_a_no(monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(os, "fork"):
        return  # then the row is n/a
    for kind in ("Lock", "RLock"):
        monkeypatch.setattr(threading, kind, getattr(threading, kind))  # so that they are put back
    monkeypatch.setattr(driving.LOCKS, "taken", 0)
    driving.LOCKS.put_up()
    assert judge(ROWS["fork"], Locked())[0] == "no"


def test_what_cannot_be_said_to_a_library_is_neither_yes_nor_no() -> None:
    class NoClock(Naive):
        def make(self, wish: Wish, way: str) -> Guard:
            refuse(wish, "clock")
            return super().make(wish, way)

    assert judge(ROWS["clock"], NoClock())[0] == "n/a"


def test_a_package_that_is_not_installed_is_told_as_such() -> None:
    assert version_of(Naive()) is None
    with pytest.raises(metadata.PackageNotFoundError):
        load(Naive())


def test_our_own_file_is_never_taken_for_the_package_of_its_name(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    class Namesake(Naive):
        package, module = "pytest", "circuitbreaker"  # installed, and has no such module

    namesake = tmp_path / "circuitbreaker.py"
    namesake.write_text("")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "circuitbreaker", raising=False)
    with pytest.raises(RuntimeError, match="no file of the package"):
        load(Namesake())
    monkeypatch.delitem(sys.modules, "circuitbreaker", raising=False)


@pytest.mark.redis
def test_idle_circuits_are_measured_over_a_real_store(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--seconds", "2", "--circuits", "3", "--stores", "memory", "redis"])
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[4:]]
    assert [row[:3] for row in rows] == [["memory", "3", "none"], ["redis", "3", "none"], ["redis", "3", "all"]]
    assert rows[0][3] == "0"
    assert all(0 < int(row[3]) <= 120 for row in rows[1:])
