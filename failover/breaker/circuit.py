"""CircuitBreaker: admits a call, runs it, settles its result.

The rules are in `machine.py`. Here are the lock and the clock, and one principle: decide
under the lock, act outside it. The user's call, the listeners and the log never run under the lock.
"""

from __future__ import annotations

import functools
import random as _random
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import replace
from types import TracebackType
from typing import Any, Final, ParamSpec, TypeVar, cast

from failover.breaker import checks
from failover.breaker.blocks import entered, leave
from failover.breaker.distributed.synchronizer import CircuitSynchronizer
from failover.breaker.errors import CircuitOpen, TooSlow, describe, error_of
from failover.breaker.events import CallEnded, CallFailed, Listener, Transition
from failover.breaker.failures import FAILURE, NEUTRAL, SUCCESS, Verdict, classify, is_cancellation
from failover.breaker.guard import arun, awaited, guard, run
from failover.breaker.machine import Context, Event, Outcome, Record, State, Ticket, step
from failover.breaker.permit import Permit, ask
from failover.breaker.policy import Fallback, Policy
from failover.breaker.retry_after import retry_after_of
from failover.breaker.snapshots import snapshot_of
from failover.breaker.stores.store import Store
from failover.breaker.tally import Tally
from failover.breaker.telling import Teller, reason

P = ParamSpec("P")
R = TypeVar("R")
F = TypeVar("F", bound=Callable[..., Any])

_RESULT: Final = {SUCCESS: Event.SUCCESS, FAILURE: Event.FAILURE, NEUTRAL: Event.NEUTRAL}
_CLOSED: Final = State.CLOSED
# Results that the default classifier finds nothing in: asking it would be a third of what a call through us costs.
_PLAIN: Final = frozenset((type(None), bool, int, float, str, bytes, tuple, list, dict, set))


class CircuitBreaker:
    """One circuit, for one remote, for any number of threads and event loops. Nothing in it waits for anything.

    name: for errors, events and the log. clock: seconds that only grow. random: 0 to 1, for jitter.
    listeners: callables that take each event of `failover.breaker.events`, one after the other in the order in
    which things happened; what one raises is logged and changes nothing. One with a true attribute `each_call` is told
    of each call that ends, too; that costs each call a lock and a microsecond.

    fallback: takes the error (a `CircuitOpen`, or what the call failed by) and the circuit, and gives what the caller
    gets instead; before it goes that of the call (see `execute`), after it the policy's. It does not apply to
    blocks, generators and permits, which have no result of their own.

    store: of `failover.breaker.stores`: circuits of this name agree there (`failover.breaker.distributed`).

    Use it as a function (`breaker.call(fn, ...)`, `await breaker.acall(fn, ...)`), a decorator (`@breaker`) of any kind
    of function, a block (`with breaker:`, `async with breaker:`) or by hand (`permit = breaker.admit()`). While it is
    open each of them raises `CircuitOpen` instead of calling.
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
        checks.optional_callable("fallback", fallback)
        self._name = name
        self._policy = policy
        self._clock = clock
        self._random = random
        self._teller = Teller(name, listeners)
        self._fallback = policy.fallback if fallback is None else fallback
        self._timeout = policy.timeout
        self._threshold = policy.trip.threshold
        self._tally = Tally(policy.trip, self._teller)
        # The default never raises; a user's function may.
        by_default = policy.classify is classify
        self._judge = classify if by_default else self._judge_safely
        self._plain = _PLAIN if by_default else frozenset()
        # Re-entrant: the garbage collector or a signal may run code in the middle of a decision, and that code may
        # use this circuit (a generator that is closed inside `with breaker:` does).
        self._lock = threading.RLock()
        # Both are replaced as a whole under the lock and read without it.
        self._record = Record()
        self.calm: Record | None = None
        """Not None where all calls are admitted and a success changes nothing, and the same object for as long as that
        lasts: who sees it before a call and after it has settled that. Who does not, see `Permit.late`."""
        self._put(self._record)
        self._last_error: BaseException | None = None
        self._shared: CircuitSynchronizer | None = None
        if store is not None:
            self._shared = CircuitSynchronizer(_Local(self), store)

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self.name!r} {self.state.value}>"

    @property
    def name(self) -> str:
        """What errors, events and the log call the circuit. May be assigned anew where there is no store."""
        return self._name

    @name.setter
    def name(self, name: str) -> None:
        if self._shared is not None:
            raise AttributeError(f"circuit {self._name!r} is shared in a store under its name, which is for good")
        with self._lock:
            self._name = name
            self._teller.rename(name)

    @property
    def policy(self) -> Policy:
        """As given: a circuit keeps its policy. For another policy make another circuit."""
        return self._policy

    @property
    def state(self) -> State:
        """OPEN also when a probe is due: a circuit becomes half-open when a call asks to be the probe."""
        return self._record.state

    def snapshot(self) -> dict[str, Any]:
        """The circuit as a dict that is JSON as it stands: see `failover.breaker.snapshots`."""
        return snapshot_of(self)

    # --- a call -----------------------------------------------------------------------------------------------

    def call(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `fn(*args, **kwargs)` and settle what comes of it.

        Raises `CircuitOpen` instead of calling while the circuit is open, else whatever `fn` raises. With a fallback
        refusals and failures are not raised: it answers.
        """
        calm = self.calm
        if calm is None:
            return run(self, functools.partial(fn, *args, **kwargs))  # type: ignore[no-any-return]
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 (raised again, or the fallback's)
            return self._end_badly(calm, error)  # type: ignore[no-any-return]
        # Nearly all calls end here without a lock, since nothing has failed and nothing has changed.
        if type(result) in self._plain and self.calm is calm:
            return result
        verdict = self._judge(result)
        if verdict is not SUCCESS or self.calm is not calm:
            self._settle(None, calm, verdict, result, 0.0, None)
        return result

    async def acall(self, fn: Callable[P, Awaitable[R]], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """As `call`, for what must be awaited. A call that takes longer than `Policy.timeout` is cancelled at it."""
        calm = self.calm
        if calm is None:
            return await arun(self, functools.partial(fn, *args, **kwargs))  # type: ignore[no-any-return]
        try:
            result = await fn(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 (raised again, or the fallback's)
            return await awaited(self._end_badly(calm, error))  # type: ignore[no-any-return]
        if type(result) in self._plain and self.calm is calm:
            return result
        verdict = self._judge(result)
        if verdict is not SUCCESS or self.calm is not calm:
            self._settle(None, calm, verdict, result, 0.0, None)
        return result

    def execute(
        self,
        fn: Callable[[], R],
        *,
        on_success: Callable[[R], Any] | None = None,
        on_failure: Callable[[BaseException], Any] | None = None,
        on_open: Callable[[CircuitOpen], Any] | None = None,
    ) -> Any:
        """Run `fn()` and return what the callback for its end returns.

        on_success takes the result, on_failure the error of a call that failed, on_open the refusal. Where one is
        missing: the result itself, and the circuit's fallback, or the error raised. An error that is no failure of
        the remote ("not found", a cancellation) is always raised. What a callback raises does not count.
        """
        return run(self, fn, on_success, on_failure, on_open)

    async def aexecute(
        self,
        fn: Callable[[], Awaitable[R]],
        *,
        on_success: Callable[[R], Any] | None = None,
        on_failure: Callable[[BaseException], Any] | None = None,
        on_open: Callable[[CircuitOpen], Any] | None = None,
    ) -> Any:
        """As `execute`, for what must be awaited; so may be what the callbacks return."""
        return await arun(self, fn, on_success, on_failure, on_open)

    def _end_badly(self, record: Record, error: BaseException) -> Any:
        verdict = self._judge_error(error)
        self._settle(None, record, verdict, error, 0.0, None)
        if verdict is not FAILURE:
            raise error
        return self._fall_back(error)

    def _fall_back(self, error: BaseException) -> Any:
        if self._fallback is None:
            raise error
        return self._fallback(error, self)

    def admit(self, *, last_resort: bool = False) -> Permit:
        """A permit for one call, to be settled by hand or by `with breaker.admit() as permit:`.

        Args:
            last_resort: The caller has nowhere else to go. A circuit that would refuse admits the call anyway, unless
                it is isolated, or `Policy.max_probes` such calls are under way. One that succeeds closes the circuit as
                a probe does, for all who share it; one that fails leaves the circuit as it is. A place whose call never
                came back is free again after `Policy.probe_lease` seconds.

        Raises:
            CircuitOpen: There is no permit now.
        """
        return self.admit_at_once() or ask(self, Event.LAST_RESORT if last_resort else Event.CALL)

    def admit_at_once(self) -> Permit | None:
        """A permit where nothing has to be decided, since the circuit is closed and admits all calls; else None."""
        record = self._record
        if record.state is not _CLOSED or record.ramp_until is not None:
            return None
        return Permit(self, None, record, self._start())

    def __call__(self, fn: F) -> F:
        """Decorate a function, coroutine function, generator or async generator: see `failover.breaker.guard`."""
        return cast("F", guard(self, fn))

    def __enter__(self) -> None:
        calm = self.calm
        if calm is not None:
            entered.set((self, None, calm, 0.0, entered.get()))
        else:
            permit = self.admit()
            entered.set((self, permit._ticket, permit._record, permit._started, entered.get()))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        block = leave(self, gone=isinstance(error, GeneratorExit))
        if block is None:
            return
        _, ticket, record, started, _ = block
        verdict = SUCCESS if error is None else self._judge_error(error)
        self._settle(ticket, record, verdict, error, started, None)

    async def __aenter__(self) -> None:
        self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, trace)

    def subscribe(self, listener: Listener) -> None:
        """Tell `listener` of all that happens from now on, after the listeners that are there already."""
        with self._lock:
            self._teller.subscribe(listener)
            self._put(self._record)

    def unsubscribe(self, listener: Listener) -> None:
        """Tell `listener` no more.

        Raises:
            ValueError: It is not subscribed.
        """
        with self._lock:
            self._teller.unsubscribe(listener)
            self._put(self._record)

    def leave_store(self) -> None:
        """Go on alone from now on. What the store does not know yet it is told, for which this waits 1.5 s at most."""
        with self._lock:
            shared, self._shared = self._shared, None
        if shared is not None:
            shared.leave()

    # --- by hand ----------------------------------------------------------------------------------------------

    def trip(self) -> None:
        """Open the circuit now, as if its threshold had been reached. An open one starts its cooldown again."""
        self._order(Event.TRIP)

    def reset(self) -> None:
        """Close the circuit now and forget its failures. Calls under way no longer count."""
        self._order(Event.RESET)

    def isolate(self) -> None:
        """Open the circuit until `reset()`, however long that is."""
        self._order(Event.ISOLATE)

    def _order(self, event: Event) -> None:
        with self._lock:
            old, outcome = self._decide(event, None)
            if event is Event.RESET:
                self._last_error = None
            self._note_transition(old, outcome.record, event)
            if self._shared is not None:
                self._shared.ordered(event)
        self._tell()

    # --- what a call's end means ------------------------------------------------------------------------------

    def _judge_error(self, error: BaseException) -> Verdict:
        if is_cancellation(error):
            return NEUTRAL
        return self._judge(error)

    def _judge_safely(self, outcome: object) -> Verdict:
        try:
            verdict = self.policy.classify(outcome)
            if not isinstance(verdict, Verdict):
                raise TypeError(f"a classifier gives a Verdict, not {verdict!r}")  # noqa: TRY301
        except Exception as error:  # noqa: BLE001
            # A user's function may raise anything; it must not replace the outcome of the call.
            self._teller.log_defect("the classifier of circuit %s raised; the default decides", error)
            return classify(outcome)
        return verdict

    def _settle(
        self,
        ticket: Ticket | None,
        record: Record,
        verdict: Verdict,
        outcome: object,
        started: float,
        seconds: float | None,
    ) -> None:
        """A call admitted in `record` has ended after `seconds`, or since `started`, with `outcome`."""
        if self._timeout is not None and verdict is SUCCESS:
            took = self._clock() - started if seconds is None else seconds
            if took > self._timeout:
                verdict = FAILURE
                outcome = TooSlow(f"the answer took {took:.3g} s, over the policy's {self._timeout:.3g} s")
        last_resort = ticket is not None and ticket.last_resort
        changes = last_resort or self._record is not record or record.state is not _CLOSED or record.failures
        if verdict is SUCCESS and not changes and self._tally.window is None and not self._teller.hears_each:
            return
        failure, said, wait = None, "", None
        if verdict is FAILURE:
            failure = error_of(outcome)
            # Under the lock the error's own code must not run.
            said, wait = describe(failure), retry_after_of(outcome)
        with self._lock:
            old, decided = self._decide(_RESULT[verdict], ticket or Ticket(record.era), wait)
            new = decided.record
            # A late failure leaves the record as it was, and is no failure of this era.
            if failure is not None and new is not old:
                self._last_error = failure
                self._teller.note(CallFailed(self.name, failure, new.failures, self._threshold))
            if self._teller.hears_each:
                self._teller.note(CallEnded(self.name, verdict))
            self._note_transition(old, new, _RESULT[verdict], said)
            if last_resort and old.state is not new.state and self._shared is not None:
                self._shared.ordered(Event.SUCCESS)  # a probe that another process begins meanwhile knows no better
        self._tell()

    def _tell(self) -> None:
        if self._shared is not None:
            self._shared.look()
        self._teller.tell()

    def _start(self) -> float:
        return self._clock() if self._timeout is not None else 0.0

    def _decide(self, event: Event, ticket: Ticket | None, wait: float | None = None) -> tuple[Record, Outcome]:
        """Under the lock: replace the record by what `event` makes of it. Gives the old one and the outcome."""
        now = self._clock()
        counted = self._tally.count(self._record, event, ticket, now)
        shared = self._shared is not None and self._shared.asks()
        while True:
            old = self._record
            outcome = step(old, event, Context(self._policy, now, self._random, ticket, counted, wait, shared))
            if self._record is old:  # else this thread was interrupted and has decided something else meanwhile
                self._put(outcome.record)
                return old, outcome

    def _put(self, record: Record) -> None:
        """Under the lock: `record` is the circuit's from now on."""
        if record.era != self._record.era:
            self._tally.start_anew()
        calm = record.state is _CLOSED and not record.failures and record.ramp_until is None
        quiet = self._timeout is None and self._tally.window is None and not self._teller.hears_each
        self._record, self.calm = record, record if calm and quiet else None

    def _note_transition(self, old: Record, new: Record, event: Event, said: str = "") -> None:
        if old.state is not new.state:
            why = reason(old, event, new, self.policy, said)
            self._teller.note(Transition(self.name, old.state, new.state, why))


class _Local:
    """A circuit as its synchronizer sees it: `failover.breaker.distributed.synchronizer.LocalCircuit`."""

    __slots__ = ("_circuit",)

    def __init__(self, circuit: CircuitBreaker) -> None:
        self._circuit = circuit

    @property
    def name(self) -> str:
        return self._circuit.name

    @property
    def policy(self) -> Policy:
        return self._circuit.policy

    @property
    def lock(self) -> AbstractContextManager[Any]:
        return self._circuit._lock

    @property
    def record(self) -> Record:
        return self._circuit._record

    @property
    def clock(self) -> Callable[[], float]:
        return self._circuit._clock

    @property
    def random(self) -> Callable[[], float]:
        return self._circuit._random

    def install(self, record: Record, why: str = "") -> None:
        circuit, old = self._circuit, self._circuit._record
        circuit._put(record)
        if record.state is not old.state:
            why = why or reason(old, Event.CALL, record, circuit.policy, "")
            circuit._teller.note(Transition(circuit.name, old.state, record.state, why))

    def dispatch(self) -> None:
        self._circuit._teller.tell()

    def after_fork(self) -> None:
        circuit, record = self._circuit, self._circuit._record
        circuit._lock = threading.RLock()
        circuit._teller._telling = threading.Lock()
        circuit._put(
            replace(record, probes=tuple((0, until) for _, until in record.probes), reserved=(), last_resorts=())
        )
