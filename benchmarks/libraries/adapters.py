"""Adapters: each circuit breaker library, used as its own documentation says. Ours is one of them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Final

from benchmarks.libraries.library import (
    OURS,
    Failure,
    Guard,
    Ignored,
    Library,
    Unsupported,
    Wish,
    load,
    refuse,
    version_of,
)
from benchmarks.report import on_this_machine


class Ours:
    package = OURS
    module = OURS
    ways: tuple[str, ...] = ("sync", "async")
    fields: dict[str, str] = {"threshold": "threshold", "cooldown": "seconds"}  # noqa: RUF012 (the protocol's)

    def breaker(self, wish: Wish, store: Any = None, **options: Any) -> Any:
        ours = load(self)
        if wish.lease is not None:
            options["probe_lease"] = wish.lease
        if wish.ignore:
            options["classify"] = lambda end: ours.NEUTRAL if isinstance(end, Ignored) else ours.failures.classify(end)
        policy = ours.Policy(
            trip=ours.ConsecutiveFailures(wish.threshold),
            recovery=ours.Cooldown(wish.cooldown),
            max_probes=wish.probes,
            **options,
        )
        told = wish.listener
        listeners = () if told is None else (lambda _: told(),)
        clock = {} if wish.clock is None else {"clock": wish.clock}
        return ours.CircuitBreaker("remote", policy, listeners=listeners, store=store, **clock)

    def make(self, wish: Wish, way: str) -> Guard:  # noqa: ARG002 (one circuit serves both)
        guard: Guard = self.breaker(wish)
        return guard

    def call(self, wish: Wish) -> Callable[..., Any] | None:
        call: Callable[..., Any] = self.breaker(wish).call
        return call

    def acall(self, wish: Wish) -> Any:
        return self.breaker(wish).acall

    def block(self, wish: Wish, way: str) -> Any:  # noqa: ARG002 (as `make`)
        breaker = self.breaker(wish)
        return breaker.admit, breaker

    def changing(self, wish: Wish) -> Any:
        ours, breaker = load(self), self.breaker(wish)

        def assign(threshold: int) -> None:
            breaker.policy = replace(breaker.policy, trip=ours.ConsecutiveFailures(threshold))

        return breaker, assign

    def limited(self, wish: Wish, seconds: float) -> Any:
        return self.breaker(wish, timeout=seconds)

    def shared(self, wish: Wish, way: str, url: str) -> Any:  # noqa: ARG002 (as `make`)
        return self.breaker(wish, importlib.import_module("failover.breaker.stores").open_store(url))

    def window(self, seconds: float, clock: Callable[[], float]) -> Any:
        ours = load(self)
        policy = ours.Policy(trip=ours.FailureRate(0.5, seconds=seconds, minimum=20))
        breaker = ours.CircuitBreaker("remote", policy, clock=clock)
        return breaker, lambda: breaker.snapshot()["failures"]


class CircuitBreakerPackage:
    package = module = "circuitbreaker"
    ways: tuple[str, ...] = ("sync", "async")
    fields: dict[str, str] = {"threshold": "failure_threshold", "cooldown": "recovery_timeout"}  # noqa: RUF012

    def make(self, wish: Wish, way: str) -> Guard:  # noqa: ARG002
        refuse(wish, "probes", "listener", "clock")
        guard: Guard = load(self).CircuitBreaker(
            failure_threshold=wish.threshold,
            recovery_timeout=wish.cooldown,
            expected_exception=Failure if wish.ignore else Exception,
        )
        return guard

    def call(self, wish: Wish) -> Callable[..., Any] | None:  # noqa: ARG002
        return None  # its `call` does not ask whether the circuit is open

    def block(self, wish: Wish, way: str) -> Any:
        breaker = self.make(wish, way)
        return (lambda: breaker), breaker


class Purgatory:
    package = module = "purgatory"
    ways: tuple[str, ...] = ("sync", "async")
    fields: dict[str, str] = {"threshold": "threshold", "cooldown": "ttl"}  # noqa: RUF012

    def factory(self, wish: Wish, way: str, **options: Any) -> Any:
        refuse(wish, "probes", "clock")
        if way == "both":
            raise Unsupported("a circuit is for one kind of calls")
        purgatory = load(self)
        make = purgatory.SyncCircuitBreakerFactory if way == "sync" else purgatory.AsyncCircuitBreakerFactory
        factory = make(wish.threshold, wish.cooldown, exclude=[Ignored] if wish.ignore else [], **options)
        told = wish.listener
        if told is not None:
            factory.add_listener(lambda *_: told())
        return factory

    def make(self, wish: Wish, way: str) -> Guard:
        guard: Guard = self.factory(wish, way)("remote")
        return guard

    def call(self, wish: Wish) -> Callable[..., Any] | None:  # noqa: ARG002
        return None

    def block(self, wish: Wish, way: str) -> Any:
        factory = self.factory(wish, way)
        if way == "sync":
            return (lambda: factory.get_breaker("remote")), factory("remote")

        @asynccontextmanager
        async def block() -> Any:
            async with await factory.get_breaker("remote"):
                yield

        return block, factory("remote")

    def shared(self, wish: Wish, way: str, url: str) -> Any:
        kind = "SyncRedisUnitOfWork" if way == "sync" else "AsyncRedisUnitOfWork"
        return self.factory(wish, way, uow=getattr(load(self), kind)(url))("remote")


def _method_listener(base: type, told: Callable[[], None], names: tuple[str, ...]) -> Any:
    def tell(*_: Any, **__: Any) -> None:
        told()

    return type("Listener", (base,), dict.fromkeys(names, tell))()


class PyBreaker:
    package = module = "pybreaker"
    ways: tuple[str, ...] = ("sync",)  # its asynchronous calls are Tornado's
    fields: dict[str, str] = {"threshold": "fail_max", "cooldown": "reset_timeout"}  # noqa: RUF012

    def cooldown(self, wish: Wish) -> dict[str, Any]:
        return {"reset_timeout": wish.cooldown}

    def breaker(self, wish: Wish, **options: Any) -> Any:
        refuse(wish, "probes", "clock")
        theirs = load(self)
        base, names = theirs.CircuitBreakerListener, ("before_call", "failure", "success", "state_change")
        return theirs.CircuitBreaker(
            fail_max=wish.threshold,
            exclude=[Ignored] if wish.ignore else [],
            listeners=[] if wish.listener is None else [_method_listener(base, wish.listener, names)],
            **self.cooldown(wish),
            **options,
        )

    def make(self, wish: Wish, way: str) -> Guard:  # noqa: ARG002
        guard: Guard = self.breaker(wish)
        return guard

    def call(self, wish: Wish) -> Callable[..., Any] | None:
        call: Callable[..., Any] = self.breaker(wish).call
        return call

    def block(self, wish: Wish, way: str) -> Any:  # noqa: ARG002
        breaker = self.breaker(wish)
        return breaker.calling, breaker

    def changing(self, wish: Wish) -> Any:
        breaker = self.breaker(wish)
        return breaker, lambda threshold: setattr(breaker, "fail_max", threshold)

    def shared(self, wish: Wish, way: str, url: str) -> Any:  # noqa: ARG002
        redis = importlib.import_module("redis")
        return self.breaker(wish, state_storage=load(self).CircuitRedisStorage("closed", redis.Redis.from_url(url)))


class AioBreaker(PyBreaker):
    """Its fork for asyncio."""

    package = module = "aiobreaker"
    ways: tuple[str, ...] = ("sync", "async")
    fields: dict[str, str] = {"threshold": "fail_max", "cooldown": "timeout_duration"}  # noqa: RUF012

    def cooldown(self, wish: Wish) -> dict[str, Any]:
        return {"timeout_duration": timedelta(seconds=wish.cooldown)}

    def acall(self, wish: Wish) -> Any:
        return self.breaker(wish).call_async

    def block(self, wish: Wish, way: str) -> Any:  # noqa: ARG002
        raise Unsupported("it has no block")

    def shared(self, wish: Wish, way: str, url: str) -> Any:  # noqa: ARG002
        redis, closed = importlib.import_module("redis"), load(self).CircuitBreakerState.CLOSED
        storage = importlib.import_module("aiobreaker.storage.redis").CircuitRedisStorage
        return self.breaker(wish, state_storage=storage(closed, redis.Redis.from_url(url)))


class Hyx:
    package = "hyx"
    module = "hyx.circuitbreaker"
    ways: tuple[str, ...] = ("async",)
    fields: dict[str, str] = {"threshold": "failure_threshold", "cooldown": "recovery_time_secs"}  # noqa: RUF012

    def make(self, wish: Wish, way: str) -> Guard:  # noqa: ARG002
        refuse(wish, "probes", "listener", "clock")
        guard: Guard = load(self).consecutive_breaker(
            exceptions=(Failure,) if wish.ignore else (Exception,),
            failure_threshold=wish.threshold,
            recovery_time_secs=wish.cooldown,
            recovery_threshold=1,
        )
        return guard

    def call(self, wish: Wish) -> Callable[..., Any] | None:  # noqa: ARG002
        return None

    def block(self, wish: Wish, way: str) -> Any:
        breaker: Any = self.make(wish, way)
        return (lambda: breaker), breaker

    def limited(self, wish: Wish, seconds: float) -> Any:
        guard, timeout = self.make(wish, "async"), importlib.import_module("hyx.timeout").timeout
        return lambda fn: guard(timeout(max_delay_secs=seconds)(fn))  # as its documentation combines them


class _NotIgnored:
    def is_failure(self, *, result: object, exception: Exception | None) -> bool:  # noqa: ARG002 (interlock's)
        return exception is not None and not isinstance(exception, Ignored)


@dataclass(frozen=True)
class _Clock:
    monotonic: Callable[[], float]


class Interlock:
    package = "interlock-cb"
    module = "interlock"
    ways: tuple[str, ...] = ("sync", "async")
    fields: dict[str, str] = {  # noqa: RUF012
        "threshold": "minimum_number_of_calls",
        "cooldown": "wait_duration_in_open",
    }

    def breaker(self, wish: Wish, storage: Any = None, **options: Any) -> Any:
        theirs = load(self)
        # It counts rates alone: all of the last `threshold` calls is as many in a row.
        config = theirs.Config(
            failure_rate_threshold=1.0,
            minimum_number_of_calls=wish.threshold,
            wait_duration_in_open=wish.cooldown,
            permitted_calls_in_half_open=wish.probes,
            max_concurrent_probes=wish.probes,
            **{"window_size": wish.threshold, **options},
        )
        names = ("on_state_change", "on_call", "on_rejected", "on_reset")
        return theirs.CircuitBreaker(
            name="remote",
            config=config,
            clock=None if wish.clock is None else _Clock(wish.clock),
            listener=None if wish.listener is None else _method_listener(object, wish.listener, names),
            classifier=_NotIgnored() if wish.ignore else None,
            unreachable_exceptions=(Ignored,) if wish.ignore else (),
            storage=storage,
        )

    def make(self, wish: Wish, way: str) -> Guard:  # noqa: ARG002
        guard: Guard = self.breaker(wish)
        return guard

    def call(self, wish: Wish) -> Callable[..., Any] | None:
        call: Callable[..., Any] = self.breaker(wish).call_sync
        return call

    def acall(self, wish: Wish) -> Any:
        return self.breaker(wish).call_async

    def block(self, wish: Wish, way: str) -> Any:  # noqa: ARG002
        breaker = self.breaker(wish)
        return (lambda: breaker), breaker

    def limited(self, wish: Wish, seconds: float) -> Any:
        pipeline = load(self).Pipeline.builder().circuit_breaker(self.breaker(wish)).timeout(seconds).build()
        return lambda fn: lambda: pipeline.call(fn)

    def shared(self, wish: Wish, way: str, url: str) -> Any:
        redis = importlib.import_module("redis" if way == "sync" else "redis.asyncio")
        found = importlib.import_module("interlock.integrations.redis")
        storage = found.RedisStorage if way == "sync" else found.AsyncRedisStorage
        return self.breaker(wish, storage(redis.Redis.from_url(url)))

    def window(self, seconds: float, clock: Callable[[], float]) -> Any:
        window = {"window_type": load(self).WindowType.TIME_BASED, "window_size": int(seconds)}
        breaker = self.breaker(Wish(threshold=20, clock=clock), **window)
        return breaker, lambda: breaker.snapshot().failed_calls


LIBRARIES: Final[tuple[Library, ...]] = (
    Ours(),
    CircuitBreakerPackage(),
    Purgatory(),
    AioBreaker(),
    PyBreaker(),
    Hyx(),
    Interlock(),
)


def about() -> str:
    """Some lines for the head of a report that compares circuit breakers."""
    rivals = [f"{each.package} {version_of(each) or 'not installed'}" for each in LIBRARIES]
    return f"{on_this_machine()}\n{', '.join(rivals)}"
