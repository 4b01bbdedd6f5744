"""CircuitBreaker: admits a call, runs it, counts its outcome; and Permit, the admission of one call.

The rules are in `machine.py`. This module adds the lock and the clock, and follows one principle: decide under the
lock, act outside it. The user's call, the listeners and the log never run under the lock.

A circuit is *steady* while it is closed, nothing is counted, it admits every call, and no listener wants an event for
each call. A success then changes nothing. Nearly all calls begin and end in this state, and they need no lock, no clock
and no permit: see `CircuitBreaker.call`.

A call inside a call on the same circuit, in the same thread or task (or in a task that it has started), belongs to the
outer call's admission: it is admitted, takes no probe's place, and does not count; the outer call's outcome counts. The
calls in flight are linked from a context variable. Linking a steady call would cost too much. If such a call fails
inside another one, the error that both raise is marked, so that it counts once.
"""

from __future__ import annotations

import contextlib
import functools
import math
import random as _random
import time
from collections.abc import Awaitable, Callable, Iterable, Set
from contextvars import ContextVar
from itertools import count
from types import TracebackType
from typing import Any, Final, ParamSpec, TypeAlias, TypeVar, cast, overload

from failover.breaker import checks
from failover.breaker.decorators import (
    async_generator_function,
    awaited,
    check_awaitable,
    check_started,
    check_time_limits,
    generator_function,
    is_async_generator_function,
    is_coroutine_function,
    is_generator_function,
    within,
)
from failover.breaker.dispatcher import EventDispatcher
from failover.breaker.distributed.synchronizer import CircuitSynchronizer
from failover.breaker.errors import CircuitOpen, Refusal, TooSlow, describe, error_of, keepsake_of
from failover.breaker.events import CallEnded, CallFailed, CallRefused, Listener, Transition, reason
from failover.breaker.failures import (
    FAILURE,
    NEUTRAL,
    PLAIN,
    SUCCESS,
    UNSTARTED,
    Verdict,
    classify,
    is_cancellation,
)
from failover.breaker.forks import ForkSafeLock
from failover.breaker.machine import (
    Context,
    Counted,
    Event,
    Outcome,
    Record,
    State,
    Ticket,
    is_stale,
    ramp_of,
    result_of,
    step,
)
from failover.breaker.policy import AfterCalls, Cooldown, Fallback, Policy
from failover.breaker.retry_after import retry_after_of
from failover.breaker.stores.store import Store

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
E = TypeVar("E")
O = TypeVar("O")  # noqa: E741 (what on_open gives)
F = TypeVar("F", bound=Callable[..., Any])

_Work: TypeAlias = Callable[[], R]
_AsyncWork: TypeAlias = Callable[[], Awaitable[R]]
_On: TypeAlias = Callable[[R], S]

_RESULT: Final = {SUCCESS: Event.SUCCESS, FAILURE: Event.FAILURE, NEUTRAL: Event.NEUTRAL}
# Looking up a member of an Enum takes time.
_IS_OPEN, _ISOLATED = Refusal.OPEN, Refusal.ISOLATED
_CLOSED, _OPEN, _CALL = State.CLOSED, State.OPEN, Event.CALL
_NO_ERA: Final = Ticket(-1)  # of a call that a dry run admits: whatever it brings is stale
_MARK: Final = "__failover_counted__"
_RAISED: Final = "the algorithm of circuit %s raised; failures in a row decide"

_serials = count(1)
# The innermost call under way in this thread or task that its circuit keeps a permit for.
_innermost: ContextVar[Permit | None] = ContextVar("failover_breaker_innermost", default=None)


class Permit:
    """The right to make one call through `breaker`, from `CircuitBreaker.admit`.

    Settle it exactly once, with `succeeded`, `failed` or `released`; a second time raises `RuntimeError`. A permit that
    is never settled does not count; the place of a probe is then free again after `Policy.probe_lease`.

    As a block, `with breaker.admit() as permit:`, it is settled when the block ends, unless that was done by hand: as a
    success, or as the circuit's classifier judges the exception. Unlike `with breaker:`, the block may be left in
    another thread, task or context than it was entered in.
    """

    __slots__ = ("_is_block", "_nested", "_outer", "_record", "_settled", "_started", "_ticket", "breaker")

    def __init__(
        self,
        breaker: CircuitBreaker,
        ticket: Ticket | None,
        record: Record,
        started: float | None,
        nested: bool = False,
    ) -> None:
        self.breaker = breaker
        self._ticket = ticket
        self._record = record
        self._started = started
        self._nested = nested
        self._settled = self._is_block = False
        self._outer: Permit | None = None

    @property
    def is_probe(self) -> bool:
        """Whether the call decides if a half-open circuit closes."""
        return self._ticket is not None and self._ticket.probe != 0

    @property
    def is_last_resort(self) -> bool:
        """Whether the circuit would have refused the call. Its success counts, its failure does not."""
        return self._ticket is not None and self._ticket.last_resort != 0

    @property
    def is_settled(self) -> bool:
        """Whether its outcome is known."""
        return self._settled

    def succeeded(self, seconds: float | None = None) -> None:
        """The remote answered.

        Args:
            seconds: How long it took, if that is less than the time since `admit`, as for a body that is read slowly.
                Longer than `Policy.timeout` counts as a failure.
        """
        if self._record is self.breaker._steady and not self._settled:
            self._settled = True  # and a success changes nothing: as in `call`
        else:
            self.settle(SUCCESS, None, seconds)

    def failed(self, error: BaseException) -> None:
        """The remote did not do its work. A cancellation is treated as `released`."""
        self.settle(NEUTRAL if is_cancellation(error) else FAILURE, error)

    def released(self) -> None:
        """The call says nothing about the remote: it was not made, or it was abandoned."""
        self.settle(NEUTRAL)

    def settle(self, verdict: Verdict, outcome: object = None, seconds: float | None = None) -> None:
        """What these three methods do. `outcome`: what the call raised or returned, for the log and its Retry-After."""
        if self._settled:
            raise RuntimeError(f"this permit of circuit {self.breaker.name!r} has been settled before")
        self._settled = True
        if not self._nested:
            self.breaker._settle(self._ticket, self._record, verdict, outcome, self._started, seconds)

    def judge(self, outcome: object, seconds: float | None = None) -> Verdict:
        """Settle it as the circuit's classifier judges what the call raised or returned, unless it is settled."""
        verdict = NEUTRAL  # stays so if Ctrl-C comes while the classifier runs: the probe's place is given back
        try:
            verdict = self.breaker._judge_outcome(outcome)
        finally:
            if not self._settled:
                self.settle(verdict, outcome, seconds)
        return verdict

    # --- the call that is under way ---------------------------------------------------------------------------

    def __enter__(self) -> Permit:
        outer = _innermost.get()
        while outer is not None and outer._settled:
            outer = outer._outer
        self._outer = outer
        _innermost.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        if not self._settled:
            self.settle(SUCCESS if error is None else self.breaker._judge_error(error), error)

    def _leave(self) -> None:
        # Elsewhere than where it was entered there is nothing to do: a link to a permit that is settled is passed over.
        if _innermost.get() is self:
            _innermost.set(self._outer)

    def step(self, work: Callable[[Any], R], value: Any, /) -> R:
        """Do one part of the call, `work(value)`; the thread may do other work before and after it."""
        self.__enter__()
        try:
            return work(value)
        finally:
            self._leave()

    async def astep(self, work: Callable[[Any], Awaitable[R]], value: Any, /) -> R:
        """Like `step`, for awaitables."""
        self.__enter__()
        try:
            return await work(value)
        finally:
            self._leave()

    def __reduce__(self) -> Any:
        raise TypeError("a permit can be neither copied nor pickled: it is to be settled once, in this process")


def _is_inside(breaker: CircuitBreaker, innermost: Permit | None) -> bool:
    """Whether this thread or task is in a call through `breaker` whose result will count.

    One that has become stale protects the remote no more: a long job that began before the circuit opened must not go
    on calling as if nothing had happened.
    """
    permit = innermost
    while permit is not None and (permit._settled or permit._nested or permit.breaker is not breaker):
        permit = permit._outer
    return permit is not None and not is_stale(breaker._record, permit._ticket or Ticket(permit._record.era))


class CircuitBreaker:
    """One circuit, for one remote, for any number of threads and event loops. It never blocks.

    Use it as a function (`breaker.call(fn, ...)`, `await breaker.acall(fn, ...)`), as a decorator (`@breaker`) of any
    kind of function, as a block (`with breaker:`, `async with breaker:`) or by hand (`permit = breaker.admit()`). While
    the circuit is open, each of these raises `CircuitOpen` instead of calling.

    Args:
        name: For errors, events and the log.
        policy: When it trips, when it tries again, and how it judges a call.
        clock: A monotonic clock, in seconds.
        random: Returns a number from 0 to 1, for jitter and ramps.
        listeners: Callables that take each event of `failover.breaker.events`, one at a time and in order. What a
            listener raises is logged and changes nothing. A slow listener delays the call whose event it handles;
            meanwhile, events of other calls are queued without delaying their callers (at most 1,000, see
            `failover.breaker.dispatcher`). A listener with a true attribute `each_call` also receives an event for each
            call that ends, which costs each call a lock and two microseconds.
        fallback: Takes the error (a `CircuitOpen`, or the call's own error) and the circuit, and returns what the
            caller gets instead. A fallback of the call takes precedence (see `execute` and `guard`); the policy's is
            used if there is no other. It does not apply to blocks, generators and permits, which have no result of
            their own, nor to a call inside another call, whose error belongs to the outer call.
        store: A store of `failover.breaker.stores`. Circuits of the same name share their state in it, in all
            processes.

    Raises:
        ValueError: An argument is invalid; the text names it.
    """

    def __init__(
        self,
        name: str,
        policy: Policy = Policy(),  # noqa: B008 (frozen)
        *,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = _random.random,
        listeners: Iterable[Listener] = (),
        fallback: Fallback | None = None,
        store: Store | None = None,
    ) -> None:
        checks.instance("name", name, str)
        checks.instance("policy", policy, Policy)
        checks.is_callable("clock", clock)
        checks.is_callable("random", random)
        checks.optional_callable("fallback", fallback)
        checks.optional_store("store", store)
        self._name = name
        self._policy = policy
        self._clock = clock
        self._random = random
        self._events = EventDispatcher(name, listeners)
        self._fallback = policy.fallback if fallback is None else fallback
        self._timeout = policy.timeout
        self._limit = None if policy.dry_run else policy.timeout
        self._threshold = policy.trip.threshold
        # What the algorithm has counted; where there is none, failures in a row are counted in the record.
        self._window = policy.trip.window()
        self._refuses_by_time = isinstance(policy.recovery, Cooldown) and not policy.dry_run
        # The default never raises; a user's function may.
        by_default = policy.classify is classify
        self._judge = classify if by_default else self._judge_safely
        # Of results of these types it is not asked: that would be a half of what a call through us costs.
        self._plain: Set[type] = PLAIN if by_default else frozenset()
        # Re-entrant: the garbage collector or a signal may run code in the middle of a decision, and that code may
        # use this circuit (a generator that is closed inside `with breaker:` does).
        self._lock = ForkSafeLock()
        # Both are replaced as a whole under the lock and read without it. `_steady` is the record, while the circuit is
        # steady (see above), else None: who sees the same object before a call and after it knows that nothing changed.
        self._record = Record()
        self._steady: Record | None = None
        self._last_error: BaseException | None = None
        self._marked: tuple[Record, int] | None = None
        self._shared: CircuitSynchronizer | None = None
        self._put(self._record)
        self._store = store
        if store is not None:
            self._shared = CircuitSynchronizer(_Replica(self), store)

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self.name!r} {self.state.value}>"

    def __reduce__(self) -> Any:
        raise TypeError(
            f"circuit {self._name!r} can be neither copied nor pickled: make one of that name in the other process, "
            "with a store if they are to agree"
        )

    @property
    def name(self) -> str:
        """The circuit's name in errors, events and the log. It may be changed if there is no store."""
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        if self._shared is not None:
            raise AttributeError(f"circuit {self._name!r} is shared in a store under its name, which is for good")
        checks.instance("name", name, str)
        with self._lock:
            self._name = name
            self._events.rename(name)

    @property
    def store(self) -> Store | None:
        """Where circuits of this name share their state. None: it is not shared."""
        return self._store

    @property
    def policy(self) -> Policy:
        """The policy that was given. A circuit keeps its policy; for another policy, make another circuit."""
        return self._policy

    @property
    def state(self) -> State:
        """Also OPEN when a probe is due: a circuit becomes half-open when a call asks to be the probe."""
        return self._record.state

    def snapshot(self) -> dict[str, Any]:
        """The circuit as a dict that can be written as JSON, for a status page or a log.

        `name`, `state` and `threshold`. `failures`: those that count now. `retry_after`: seconds, or None if no time is
        known. `calls_left`: calls that are refused before the probe, or None if the recovery depends on time.
        `isolated`. `ramp`: the share of calls that is admitted while it grows, from 0.1 to 1, otherwise None. `era`:
        how often the circuit changed. `opened`: how often it opened. `last_error`: one line, or None. `dry_run`.
        `events_dropped`: events that did not fit in the queue because listeners were too slow.
        """
        with self._lock:
            record, last, recovery, now = self._record, self._last_error, self._policy.recovery, self._clock()
            failures = record.failures if record.state is not _CLOSED else self._failures_at(now)
        calls_left = None
        if record.state is _OPEN and not record.isolated and isinstance(recovery, AfterCalls):
            calls_left = recovery.calls - record.refused
        self._events.dispatch(self._lock)  # the algorithm may have raised
        return {
            "name": self._name,
            "state": record.state.value,
            "failures": failures,
            "threshold": self._threshold,
            "retry_after": self._wait_left(record, now),
            "calls_left": calls_left,
            "isolated": record.isolated,
            "ramp": ramp_of(record, self._policy, now),
            "era": record.era,
            "opened": record.opened,
            "last_error": None if last is None else describe(last),
            "dry_run": self._policy.dry_run,
            "events_dropped": self._events.dropped,
        }

    # --- a call -----------------------------------------------------------------------------------------------

    def call(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `fn(*args, **kwargs)` and count its outcome.

        With a fallback, its result is returned instead of raising a refusal or a failure.

        Raises:
            CircuitOpen: The circuit is open. `fn` was not called.
            TypeError: `fn` is a coroutine function, for which there is `acall`, or a generator function, which must be
                decorated. Nothing is counted.
            BaseException: Whatever `fn` raises.
        """
        steady = self._steady
        if steady is None:
            permit = self._permit(_CALL) if self._fallback is None else None
            return self._run(permit, fn, args, kwargs)  # type: ignore[no-any-return]
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:
            if not self._ends_badly(steady, error, self._fallback):
                raise
            return self._fallback(error, self)  # type: ignore[misc, no-any-return]
        # Nearly all calls end here without a lock, since nothing has failed and nothing has changed.
        if type(result) not in self._plain or self._steady is not steady:
            self._ends_well(steady, fn, result)
        return result

    async def acall(self, fn: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Like `call`, for awaitables. A call that takes longer than `Policy.timeout` is cancelled.

        Raises:
            TypeError: What `fn` returns cannot be awaited: use `call`. Nothing is counted.
        """
        steady = self._steady
        if steady is None:
            permit = self._permit(_CALL) if self._fallback is None else None
            return await self._arun(permit, fn, args, kwargs)  # type: ignore[no-any-return]
        work: Any = steady
        try:
            work = fn(*args, **kwargs)
            result: R = await work
        except BaseException as error:
            if not self._ends_badly(steady, error, self._fallback, fn, work):
                raise
            return await awaited(self._fallback(error, self))  # type: ignore[misc, no-any-return]
        if type(result) not in self._plain or self._steady is not steady:
            self._ends_well(steady, None, result)
        return result

    @overload
    def execute(self, fn: _Work[R]) -> R: ...
    @overload
    def execute(self, fn: _Work[R], *, on_open: _On[CircuitOpen, O]) -> R | O: ...
    @overload
    def execute(self, fn: _Work[R], *, on_failure: _On[BaseException, E]) -> R | E: ...
    @overload
    def execute(
        self, fn: _Work[R], *, on_failure: _On[BaseException, E], on_open: _On[CircuitOpen, O]
    ) -> R | E | O: ...
    @overload
    def execute(self, fn: _Work[R], *, on_success: _On[R, S]) -> S: ...
    @overload
    def execute(self, fn: _Work[R], *, on_success: _On[R, S], on_open: _On[CircuitOpen, O]) -> S | O: ...
    @overload
    def execute(self, fn: _Work[R], *, on_success: _On[R, S], on_failure: _On[BaseException, E]) -> S | E: ...
    @overload
    def execute(
        self, fn: _Work[R], *, on_success: _On[R, S], on_failure: _On[BaseException, E], on_open: _On[CircuitOpen, O]
    ) -> S | E | O: ...
    def execute(
        self,
        fn: Callable[[], Any],
        *,
        on_success: Callable[[Any], Any] | None = None,
        on_failure: Callable[[BaseException], Any] | None = None,
        on_open: Callable[[CircuitOpen], Any] | None = None,
    ) -> Any:
        """Run `fn()` and return what the callback for its outcome returns.

        An error that is not a failure of the remote ("not found", a cancellation) is always raised. What a callback
        raises is not counted.

        Args:
            fn: The call.
            on_success: Takes the result. Default: the result itself is returned.
            on_failure: Takes the error of a call that failed. Default: the circuit's fallback is used, or the error is
                raised.
            on_open: Takes the refusal. Default: as for `on_failure`.

        Raises:
            TypeError: As for `call`.
        """
        return self._run(None, fn, (), {}, None, on_success, on_failure, on_open)

    @overload
    async def aexecute(self, fn: _AsyncWork[R]) -> R: ...
    @overload
    async def aexecute(
        self,
        fn: _AsyncWork[R],
        *,
        on_success: _On[R, Any] | None = None,
        on_failure: _On[BaseException, Any] | None = None,
        on_open: _On[CircuitOpen, Any] | None = None,
    ) -> Any: ...
    async def aexecute(
        self,
        fn: Callable[[], Awaitable[Any]],
        *,
        on_success: Callable[[Any], Any] | None = None,
        on_failure: Callable[[BaseException], Any] | None = None,
        on_open: Callable[[CircuitOpen], Any] | None = None,
    ) -> Any:
        """Like `execute`, for awaitables. The callbacks may return awaitables too."""
        return await self._arun(None, fn, (), {}, None, on_success, on_failure, on_open)

    def __call__(self, fn: F) -> F:
        """Decorate a function, coroutine function, generator or async generator, or a class or static method of these.

        A generator is admitted when it is first asked for something, and settled when it ends: a failure half-way
        counts, an early `close()` is neutral, what it returns arrives. A probe's first item is its success. Its time is
        its reader's too: `Policy.timeout` does not apply to it.

        Raises:
            TypeError: `fn` is nothing that can be called.
        """
        return self._guard(fn, None)

    def guard(self, *, fallback: Callable[..., Any] | None = None) -> Callable[[F], F]:
        """Like `@breaker`, with a fallback for this function only: `@breaker.guard(fallback=f)`.

        Args:
            fallback: `fallback(error, *args, **kwargs)` takes the error (a `CircuitOpen`, or the call's own error) and
                the call's arguments, and returns what the caller gets instead. It may be a coroutine function if the
                guarded function is one.

        Raises:
            TypeError: When decorating: as for `@breaker`, or there is a fallback for a generator, whose result it could
                not replace.
        """
        checks.optional_callable("fallback", fallback)
        return lambda fn: self._guard(fn, fallback)

    def _guard(self, fn: F, fallback: Callable[..., Any] | None) -> F:
        if isinstance(fn, (classmethod, staticmethod)):
            return cast("F", type(fn)(self._guard(fn.__func__, fallback)))
        if not callable(fn):
            raise TypeError(f"circuit {self._name!r} guards functions and methods, not {type(fn).__name__}")
        if is_coroutine_function(fn):
            return cast("F", _coroutine_function(self, fn, fallback))
        generators = is_generator_function(fn) or is_async_generator_function(fn)
        if not generators:
            return cast("F", _function(self, fn, fallback))
        if fallback is not None:
            raise TypeError("a generator has no result that a fallback could give in its stead")
        make = generator_function if is_generator_function(fn) else async_generator_function
        return cast("F", make(self.admit, fn))

    def admit(self, *, last_resort: bool = False) -> Permit:
        """Return a permit for one call. Settle it by hand, or use `with breaker.admit() as permit:`.

        Args:
            last_resort: The caller has no alternative. A circuit that would refuse the call admits it anyway, unless
                the circuit is isolated, or `Policy.max_probes` such calls are in flight. If the call succeeds, that
                closes the circuit as a probe does, in all processes that share it. If it fails, the circuit does not
                change. If the call does not finish, its place is free again after `Policy.probe_lease` seconds.

        Raises:
            CircuitOpen: The circuit refuses the call.
        """
        return self._permit(Event.LAST_RESORT if last_resort else _CALL)

    def __enter__(self) -> None:
        permit = self.admit()
        permit._is_block = True
        permit.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        permit = _innermost.get()
        while permit is not None and not (permit._is_block and permit.breaker is self and not permit._settled):
            permit = permit._outer
        if permit is not None:
            permit.__exit__(kind, error, trace)
        elif not isinstance(error, GeneratorExit):
            # The garbage collector closes a generator or coroutine in whichever thread or task it happens to run in;
            # a block that is left so counts neither way anyhow.
            raise RuntimeError(
                f"circuit {self._name!r} was not entered in this thread, task or context; a block that may be left in "
                "another one is `with breaker.admit():`"
            )

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def subscribe(self, listener: Listener) -> None:
        """Add a listener, which receives all events from now on, after the listeners that are there already.

        It may call the circuit, but not at every event, because it also receives the events of its own calls.

        Raises:
            ValueError: It cannot be called.
        """
        with self._lock:
            self._events.subscribe(listener)
            self._put(self._record)

    def unsubscribe(self, listener: Listener) -> None:
        """Remove a listener.

        Raises:
            ValueError: It is not subscribed.
        """
        with self._lock:
            self._events.unsubscribe(listener)
            self._put(self._record)

    def leave_store(self) -> None:
        """Continue without the store.

        Changes that are not yet in the store are written first, for which this waits at most 1.5 s.
        """
        with self._lock:
            shared, self._shared, self._store = self._shared, None, None
        if shared is not None:
            shared.leave()

    # --- by hand ----------------------------------------------------------------------------------------------

    def trip(self) -> None:
        """Open the circuit now, as if its threshold had been reached. If it is open, its cooldown starts again."""
        self._order(Event.TRIP)

    def reset(self) -> None:
        """Close the circuit now and forget its failures. The results of calls in flight no longer count."""
        self._order(Event.RESET)

    def isolate(self) -> None:
        """Open the circuit until `reset()` is called."""
        self._order(Event.ISOLATE)

    def _order(self, event: Event) -> None:
        with self._lock:
            old, outcome = self._decide(event, None)
            if event is Event.RESET:
                self._last_error = None
            self._note_transition(old, outcome.record, event)
            if self._shared is not None:
                self._shared.ordered(event)
        self._dispatch()

    # --- to run a call that is not steady ---------------------------------------------------------------------

    def _run(
        self,
        permit: Permit | None,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        fallback: Callable[..., Any] | None = None,
        on_success: Callable[[Any], Any] | None = None,
        on_failure: Callable[[BaseException], Any] | None = None,
        on_open: Callable[[CircuitOpen], Any] | None = None,
    ) -> Any:
        """All that a call may be. `permit`: None where it is still to be asked for. `fallback`: of `guard`."""
        if permit is None:
            try:
                permit = self._permit(_CALL)
            except CircuitOpen as refusal:
                if on_open is not None:
                    return on_open(refusal)
                if fallback is None and self._fallback is None:
                    raise
                return self._answer(fallback, refusal, args, kwargs)
        permit.__enter__()
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:
            permit._leave()
            if permit.judge(error) is not FAILURE:
                raise
            if on_failure is not None:
                return on_failure(error)
            if fallback is None and (self._fallback is None or permit._nested):
                raise
            return self._answer(fallback, error, args, kwargs)
        permit._leave()
        if type(result) in UNSTARTED:
            _check(permit, check_started, fn, result, _INSTEAD)
        permit.judge(result)
        return result if on_success is None else on_success(result)

    async def _arun(
        self,
        permit: Permit | None,
        fn: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        fallback: Callable[..., Any] | None = None,
        on_success: Callable[[Any], Any] | None = None,
        on_failure: Callable[[BaseException], Any] | None = None,
        on_open: Callable[[CircuitOpen], Any] | None = None,
    ) -> Any:
        """As `_run`."""
        if permit is None:
            try:
                permit = self._permit(_CALL)
            except CircuitOpen as refusal:
                if on_open is not None:
                    return await awaited(on_open(refusal))
                if fallback is None and self._fallback is None:
                    raise
                return await awaited(self._answer(fallback, refusal, args, kwargs))
        if self._limit is not None:
            _check(permit, check_time_limits)
        permit.__enter__()
        work: Any = permit
        try:
            work = fn(*args, **kwargs)
            result = await (work if self._limit is None or permit._nested else within(work, self._limit))
        except BaseException as error:
            permit._leave()
            if work is not permit and isinstance(error, TypeError):
                _check(permit, check_awaitable, fn, work)
            if permit.judge(error) is not FAILURE:
                raise
            if on_failure is not None:
                return await awaited(on_failure(error))
            if fallback is None and (self._fallback is None or permit._nested):
                raise
            return await awaited(self._answer(fallback, error, args, kwargs))
        permit._leave()
        permit.judge(result)
        return result if on_success is None else await awaited(on_success(result))

    def _answer(
        self, fallback: Callable[..., Any] | None, error: BaseException, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        """What the nearest fallback gives in the call's stead; there is one."""
        if fallback is not None:
            return fallback(error, *args, **kwargs)
        assert self._fallback is not None  # noqa: S101 (for the type checker)
        return self._fallback(error, self)

    # --- the ends of a steady call ----------------------------------------------------------------------------

    def _ends_badly(
        self, steady: Record, error: BaseException, fallback: object, fn: Any = None, work: Any = None
    ) -> bool:
        """Settle it; True if the fallback is to answer. `work`: what was awaited, `steady` where nothing was yet."""
        if fn is not None and work is not steady and isinstance(error, TypeError):
            check_awaitable(fn, work)
        verdict = self._judge_error(error)
        if _is_inside(self, _innermost.get()):
            return False
        if verdict is not FAILURE or not self._was_counted(steady, error):
            self._settle(None, steady, verdict, error, None, None)
        return verdict is FAILURE and fallback is not None

    def _ends_well(self, steady: Record, fn: Any, result: object) -> None:
        """Settle it where its result says something, or something has changed meanwhile. `fn`: what was not awaited."""
        if fn is not None and type(result) in UNSTARTED:
            check_started(fn, result, _INSTEAD)
        verdict = self._judge(result)
        if (verdict is not SUCCESS or self._steady is not steady) and not _is_inside(self, _innermost.get()):
            self._settle(None, steady, verdict, result, None, None)

    def _was_counted(self, steady: Record, error: BaseException) -> bool:
        """Whether a steady call inside this one has failed by this error, or by one that this one came from.

        Both began with the same record, and the mark on the error names that record.
        """
        marked = self._marked
        if marked is None or marked[0] is not steady:
            self._marked = marked = (steady, next(_serials))
        serial, each, depth = marked[1], error, 0
        while each is not None and depth < 10:
            if getattr(each, _MARK, None) == serial:
                return True
            each, depth = each.__cause__ or each.__context__, depth + 1  # type: ignore[assignment]
        with contextlib.suppress(Exception):  # an error without a place for it counts twice
            setattr(error, _MARK, serial)
        return False

    # --- to decide --------------------------------------------------------------------------------------------

    def _permit(self, event: Event) -> Permit:
        """The admission of a call, as part of the call around it where there is one. Raises `CircuitOpen`."""
        innermost = _innermost.get()
        if innermost is not None and _is_inside(self, innermost):
            return Permit(self, None, self._record, None, nested=True)
        record = self._record
        if record.state is _CLOSED and record.ramp_until is None:
            return Permit(self, None, record, self._start())
        if record.state is _OPEN and event is _CALL and self._refuses_by_time:
            left = record.retry_at - self._clock()
            if left > 0 and not self._events.is_heard():
                # A refusal changes nothing and nobody would hear of it: no lock.
                wait, why = (None, _ISOLATED) if record.isolated else (left, _IS_OPEN)
                # Without its __init__, which does nothing but give defaults.
                raise CircuitOpen.__new__(CircuitOpen, self._name, wait, self._last_error, why)
        outcome, wait, undecided = self._decide_call(event)
        shared = self._shared  # which `leave_store` may end meanwhile
        if outcome.claim and shared is not None:
            shared.claim()
            if undecided:  # a store without I/O has answered already
                outcome, wait, _ = self._decide_call(event, last=True)
        self._dispatch()
        if outcome.ticket is not None:
            return Permit(self, outcome.ticket, outcome.record, self._start())
        if self._policy.dry_run:
            return Permit(self, _NO_ERA, outcome.record, self._start())
        raise CircuitOpen(self._name, wait, self._last_error, _refusal_of(outcome.record))

    def _decide_call(self, event: Event, *, last: bool = False) -> tuple[Outcome, float | None, bool]:
        """The outcome, the seconds left until a probe is due, and whether to ask again after a claim."""
        with self._lock:
            old, outcome = self._decide(event, None)
            record = outcome.record
            self._note_transition(old, record, event)
            wait = self._wait_left(record, self._clock())
            undecided = outcome.claim and record is old and not last
            if outcome.ticket is None and not undecided:
                self._events.queue(CallRefused(self._name, wait, record.failures, self._threshold))
        return outcome, wait, undecided

    def _judge_outcome(self, outcome: object) -> Verdict:
        return self._judge_error(outcome) if isinstance(outcome, BaseException) else self._judge(outcome)

    def _judge_error(self, error: BaseException) -> Verdict:
        if is_cancellation(error):
            return NEUTRAL
        return self._judge(error)

    def _judge_safely(self, outcome: object) -> Verdict:
        try:
            verdict = self._policy.classify(outcome)
            if not isinstance(verdict, Verdict):
                raise TypeError(f"a classifier gives a Verdict, not {verdict!r}")  # noqa: TRY301
        except Exception as error:  # noqa: BLE001
            # A user's function may raise anything; it must not replace the outcome of the call.
            self._events.log_defect("the classifier of circuit %s raised; the default decides", error)
            return classify(outcome)
        return verdict

    def _settle(
        self,
        ticket: Ticket | None,
        record: Record,
        verdict: Verdict,
        outcome: object,
        started: float | None,
        seconds: float | None,
    ) -> None:
        """A call admitted in `record` has ended after `seconds`, or since `started`, with `outcome`."""
        if seconds is None and started is not None:
            seconds = self._clock() - started
        if self._timeout is not None and verdict is SUCCESS and seconds is not None and seconds > self._timeout:
            verdict = FAILURE
            outcome = TooSlow(f"the answer took {seconds:.3g} s, over the policy's {self._timeout:.3g} s")
        # Of a call that was admitted in a closed circuit, as any, and nothing has changed or been counted since.
        plain = ticket is None and self._record is record and record.state is _CLOSED and not record.failures
        if verdict is SUCCESS and plain and self._window is None and not self._events.hears_each:
            return
        failure, kept, said, wait = None, None, "", None
        if verdict is FAILURE:
            failure = error_of(outcome)
            # Under the lock the error's own code must not run.
            kept, said, wait = keepsake_of(failure), describe(failure), retry_after_of(outcome)
        with self._lock:
            ticket = ticket or Ticket(record.era)
            event = result_of(_RESULT[verdict], ticket)
            old, decided = self._decide(_RESULT[verdict], ticket, wait)
            new = decided.record
            # A stale failure leaves the record as it was, and is no failure of this era.
            if failure is not None and new is not old:
                self._last_error = kept
                self._events.queue(CallFailed(self._name, failure, new.failures, self._threshold))
            self._note_transition(old, new, event, said)
            if ticket.last_resort and old.state is not new.state and self._shared is not None:
                self._shared.ordered(Event.SUCCESS)  # a probe that another process begins meanwhile knows no better
        self._dispatch()
        if self._events.hears_each:
            self._events.tell_end(CallEnded(self._name, verdict, seconds))

    def _dispatch(self) -> None:
        shared = self._shared  # which `leave_store` may end meanwhile
        if shared is not None:
            shared.look()
        self._events.dispatch(self._lock)

    def _start(self) -> float | None:
        return self._clock() if self._timeout is not None or self._events.hears_each else None

    def _decide(self, event: Event, ticket: Ticket | None, wait: float | None = None) -> tuple[Record, Outcome]:
        """Under the lock: replace the record by what `event` makes of it. Gives the old one and the outcome."""
        if self._lock.was_broken:  # by a fork while another thread was counting
            self._lock.was_broken = False
            self._start_window()
        now = self._clock()
        counted = self._count(self._record, event, ticket, now)
        shared = self._shared is not None and self._shared.asks()
        while True:
            old = self._record
            outcome = step(old, event, Context(self._policy, now, self._random, ticket, counted, wait, shared))
            if self._record is old:  # else this thread was interrupted and has decided something else meanwhile
                self._put(outcome.record)
                return old, outcome

    def _put(self, record: Record) -> None:
        """Under the lock: `record` is the circuit's from now on."""
        old = self._record
        if record.era != old.era:
            self._start_window()
        if record.state is _CLOSED and old.state is not _CLOSED:
            self._last_error = None
        steady = record.state is _CLOSED and not record.failures and record.ramp_until is None
        quiet = self._timeout is None and self._window is None and not self._events.hears_each
        self._record, self._steady = record, record if steady and quiet else None

    def _note_transition(self, old: Record, new: Record, event: Event, said: str = "") -> None:
        if old.state is not new.state:
            why = reason(old, event, new, self._policy, said)
            self._events.queue(Transition(self._name, old.state, new.state, why))

    def _wait_left(self, record: Record, now: float) -> float | None:
        """Seconds until a call may be the probe; None where no time is known."""
        if record.state is not _OPEN or not math.isfinite(record.retry_at):
            return None
        return max(0.0, record.retry_at - now)

    # --- the algorithm's window: a user's code may raise ------------------------------------------------------

    def _count(self, record: Record, event: Event, ticket: Ticket | None, now: float) -> Counted | None:
        """What the window says with this result in it; None where there is none, it raised, or this does not count."""
        if self._window is None or event not in (Event.SUCCESS, Event.FAILURE) or record.state is not _CLOSED:
            return None
        if ticket is None or ticket.era != record.era or ticket.last_resort:
            return None
        try:
            trips = self._window.add(event is Event.FAILURE, now)
            return Counted(int(self._window.failures), bool(trips))
        except Exception as error:  # noqa: BLE001 (an algorithm of the user's may raise anything)
            self._events.queue_defect(_RAISED, error)
            return None

    def _start_window(self) -> None:
        if self._window is None:
            return
        try:
            self._window = self._policy.trip.window()
        except Exception as error:  # noqa: BLE001 (as in `_count`)
            self._events.queue_defect(_RAISED, error)
            self._window = None

    def _failures_at(self, now: float) -> int:
        """Under the lock: those that count now, in a closed circuit."""
        if self._window is None:
            return self._record.failures
        try:
            forget = getattr(self._window, "forget", None)
            if forget is not None:
                forget(now)
            return int(self._window.failures)
        except Exception as error:  # noqa: BLE001 (as in `_count`)
            self._events.queue_defect(_RAISED, error)
            return self._record.failures


class _Replica:
    """A circuit as its part in a fleet sees it (`failover.breaker.distributed.synchronizer.Replica`)."""

    def __init__(self, circuit: CircuitBreaker) -> None:
        self._circuit = circuit

    @property
    def name(self) -> str:
        return self._circuit._name

    @property
    def policy(self) -> Policy:
        return self._circuit._policy

    @property
    def lock(self) -> ForkSafeLock:
        return self._circuit._lock

    @property
    def record(self) -> Record:
        return self._circuit._record

    def now(self) -> float:
        return self._circuit._clock()

    def random(self) -> float:
        return self._circuit._random()

    def install(self, record: Record, why: str) -> None:
        """Under the lock: `record` is the circuit's from now on; `why` it changed its state, if it did."""
        circuit, old = self._circuit, self._circuit._record
        circuit._put(record)
        if record.state is not old.state:
            circuit._events.queue(Transition(circuit._name, old.state, record.state, why))

    def dispatch(self) -> None:
        """Tell what was queued, outside the lock."""
        self._circuit._events.dispatch(self._circuit._lock)


_INSTEAD: Final = "for what must be awaited there are acall and aexecute, or decorate the coroutine function"


def _check(permit: Permit, check: Callable[..., None], *args: Any) -> None:
    """What is wrong with a call before it has begun is the caller's, and counts neither way."""
    try:
        check(*args)
    except TypeError:
        permit.released()
        raise


def _refusal_of(record: Record) -> Refusal:
    if record.isolated:
        return Refusal.ISOLATED
    return {
        State.OPEN: Refusal.OPEN,
        State.HALF_OPEN: Refusal.PROBES_TAKEN,
        State.CLOSED: Refusal.RAMPING,
    }[record.state]


# What `@breaker` makes of a function: `call` and `acall` written out, since going through them would double what a
# decorated function pays. Generators, which are in no hurry, are in `failover.breaker.decorators`.


def _function(
    breaker: CircuitBreaker, fn: Callable[..., Any], fallback: Callable[..., Any] | None
) -> Callable[..., Any]:
    plain, has_fallback = breaker._plain, fallback or breaker._fallback

    @functools.wraps(fn)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        steady = breaker._steady
        if steady is None:
            # A refusal is not worth a second function call.
            permit = None if has_fallback else breaker._permit(_CALL)
            return breaker._run(permit, fn, args, kwargs, fallback)
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:
            if not breaker._ends_badly(steady, error, has_fallback):
                raise
            return breaker._answer(fallback, error, args, kwargs)
        if type(result) not in plain or breaker._steady is not steady:
            breaker._ends_well(steady, fn, result)
        return result

    return guarded


def _coroutine_function(
    breaker: CircuitBreaker, fn: Callable[..., Any], fallback: Callable[..., Any] | None
) -> Callable[..., Any]:
    plain, has_fallback = breaker._plain, fallback or breaker._fallback

    @functools.wraps(fn)
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        steady = breaker._steady
        if steady is None:
            permit = None if has_fallback else breaker._permit(_CALL)
            return await breaker._arun(permit, fn, args, kwargs, fallback)
        try:
            result = await fn(*args, **kwargs)
        except BaseException as error:
            if not breaker._ends_badly(steady, error, has_fallback):
                raise
            return await awaited(breaker._answer(fallback, error, args, kwargs))
        if type(result) not in plain or breaker._steady is not steady:
            breaker._ends_well(steady, None, result)
        return result

    return guarded
