"""Adapters: each circuit breaker library, used as its own documentation says. Ours is one of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from benchmarks.shape import OURS, Failure, Guard, Ignored, Library, Wish, load, refuse


class Ours:
    package = OURS
    module = OURS
    ways: tuple[str, ...] = ("sync", "async")
    fields: dict[str, str] = {"threshold": "threshold", "cooldown": "seconds"}  # noqa: RUF012 (the protocol's)

    def breaker(self, wish: Wish) -> Any:
        ours = load(self)
        options: dict[str, Any] = {} if wish.lease is None else {"probe_lease": wish.lease}
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
        return ours.CircuitBreaker("remote", policy, listeners=listeners, **clock)

    def make(self, wish: Wish, way: str) -> Guard:  # noqa: ARG002 (one circuit serves both)
        guard: Guard = self.breaker(wish)
        return guard

    def call(self, wish: Wish) -> Callable[..., Any] | None:
        call: Callable[..., Any] = self.breaker(wish).call
        return call


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


class Purgatory:
    package = module = "purgatory"
    ways: tuple[str, ...] = ("sync", "async")
    fields: dict[str, str] = {"threshold": "threshold", "cooldown": "ttl"}  # noqa: RUF012

    def make(self, wish: Wish, way: str) -> Guard:
        refuse(wish, "probes", "clock")
        purgatory = load(self)
        make = purgatory.SyncCircuitBreakerFactory if way == "sync" else purgatory.AsyncCircuitBreakerFactory
        factory = make(wish.threshold, wish.cooldown, exclude=[Ignored] if wish.ignore else [])
        told = wish.listener
        if told is not None:
            factory.add_listener(lambda *_: told())
        guard: Guard = factory("remote")
        return guard

    def call(self, wish: Wish) -> Callable[..., Any] | None:  # noqa: ARG002
        return None


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

    def breaker(self, wish: Wish) -> Any:
        refuse(wish, "probes", "clock")
        theirs = load(self)
        base, names = theirs.CircuitBreakerListener, ("before_call", "failure", "success", "state_change")
        return theirs.CircuitBreaker(
            fail_max=wish.threshold,
            exclude=[Ignored] if wish.ignore else [],
            listeners=[] if wish.listener is None else [_method_listener(base, wish.listener, names)],
            **self.cooldown(wish),
        )

    def make(self, wish: Wish, way: str) -> Guard:  # noqa: ARG002
        guard: Guard = self.breaker(wish)
        return guard

    def call(self, wish: Wish) -> Callable[..., Any] | None:
        call: Callable[..., Any] = self.breaker(wish).call
        return call


class AioBreaker(PyBreaker):
    """Its fork for asyncio."""

    package = module = "aiobreaker"
    ways: tuple[str, ...] = ("sync", "async")
    fields: dict[str, str] = {"threshold": "fail_max", "cooldown": "timeout_duration"}  # noqa: RUF012

    def cooldown(self, wish: Wish) -> dict[str, Any]:
        return {"timeout_duration": timedelta(seconds=wish.cooldown)}


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

    def breaker(self, wish: Wish) -> Any:
        theirs = load(self)
        # It counts rates alone: all of the last `threshold` calls is as many in a row.
        config = theirs.Config(
            failure_rate_threshold=1.0,
            minimum_number_of_calls=wish.threshold,
            window_size=wish.threshold,
            wait_duration_in_open=wish.cooldown,
            permitted_calls_in_half_open=wish.probes,
            max_concurrent_probes=wish.probes,
        )
        names = ("on_state_change", "on_call", "on_rejected", "on_reset")
        return theirs.CircuitBreaker(
            name="remote",
            config=config,
            clock=None if wish.clock is None else _Clock(wish.clock),
            listener=None if wish.listener is None else _method_listener(object, wish.listener, names),
            classifier=_NotIgnored() if wish.ignore else None,
            unreachable_exceptions=(Ignored,) if wish.ignore else (),
        )

    def make(self, wish: Wish, way: str) -> Guard:  # noqa: ARG002
        guard: Guard = self.breaker(wish)
        return guard

    def call(self, wish: Wish) -> Callable[..., Any] | None:
        call: Callable[..., Any] = self.breaker(wish).call_sync
        return call


LIBRARIES: Final[tuple[Library, ...]] = (
    Ours(),
    CircuitBreakerPackage(),
    Purgatory(),
    AioBreaker(),
    PyBreaker(),
    Hyx(),
    Interlock(),
)
