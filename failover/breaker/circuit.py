"""CircuitBreaker: admits a call, runs it, settles its result.

The rules are in `machine.py`. Here are the lock and the clock, and one principle: decide
under the lock, act outside it. The user's call, the listeners and the log never run under the lock.
"""

from __future__ import annotations

import functools
import inspect
import math
import random as _random
import threading
import time
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, ParamSpec, TypeAlias, TypeVar

from failover.breaker.errors import CircuitOpen, FailureReported, TooSlow, describe
from failover.breaker.events import CallFailed, CallRefused, Listener, Transition
from failover.breaker.failures import FAILURE, NEUTRAL, SUCCESS, Verdict, classify, is_cancellation
from failover.breaker.machine import Context, Event, Outcome, Record, State, Ticket, step
from failover.breaker.permit import Permit
from failover.breaker.policy import AfterCalls, Policy
from failover.breaker.telling import Teller, reason

P = ParamSpec("P")
R = TypeVar("R")

_RESULT: Final = {SUCCESS: Event.SUCCESS, FAILURE: Event.FAILURE, NEUTRAL: Event.NEUTRAL}
_CLOSED: Final = State.CLOSED
# Results that the default classifier finds nothing in: asking it would be a third of what a call through us costs.
_PLAIN: Final = frozenset((type(None), bool, int, float, str, bytes, tuple, list, dict, set))


# A `with breaker:` block entered and not yet left: breaker, ticket, record, time of entry, and the block around it.
# A plain tuple, since making one is most of what an empty block costs.
_Block: TypeAlias = "tuple[CircuitBreaker, Ticket | None, Record, float, _Block | None]"

# The innermost block of this thread or task.
_entered: ContextVar[_Block | None] = ContextVar("failover_breaker_entered", default=None)


class CircuitBreaker:
    """One circuit, for one remote, for any number of threads.

    name: for errors, events and the log. clock: seconds that only grow. random: 0 to 1, for jitter.
    listeners: callables that take each event of `failover.breaker.events`, one after the other in the order in
    which things happened; what one raises is logged and changes nothing.

    Use it as a function (`breaker.call(fn, ...)`), a decorator (`@breaker`), a block (`with breaker:`) or by hand
    (`permit = breaker.admit()`). While it is open each of them raises `CircuitOpen` instead of calling.
    """

    def __init__(
        self,
        name: str,
        policy: Policy = Policy(),  # noqa: B008 (frozen)
        *,
        clock: Callable[[], float] = time.monotonic,
        random: Callable[[], float] = _random.random,
        listeners: Iterable[Listener] = (),
    ) -> None:
        self.name = name
        self.policy = policy
        self._clock = clock
        self._random = random
        self._teller = Teller(name, listeners)
        self._timeout = policy.timeout
        self._threshold = policy.trip.threshold
        # The default never raises; a user's function may.
        by_default = policy.classify is classify
        self._judge = classify if by_default else self._judge_safely
        self._plain = _PLAIN if by_default else frozenset()
        # Re-entrant: the garbage collector or a signal may run code in the middle of a decision, and that code may
        # use this circuit (a generator that is closed inside `with breaker:` does).
        self._lock = threading.RLock()
        self._record = Record()  # replaced as a whole under the lock, read without it
        self._last_error: BaseException | None = None

    def __repr__(self) -> str:
        return f"<CircuitBreaker {self.name!r} {self.state.value}>"

    @property
    def state(self) -> State:
        """OPEN also when a probe is due: a circuit becomes half-open when a call asks to be the probe."""
        return self._record.state

    def snapshot(self) -> dict[str, Any]:
        """The circuit as a dict that is JSON as it stands.

        `retry_after`: seconds, None where no time is known. `calls_left`: calls that are turned away before the
        probe, None where the recovery goes by time. `era`: how often the circuit changed. `opened`: how often it
        opened.
        """
        record, recovery = self._record, self.policy.recovery
        counts = record.state is State.OPEN and isinstance(recovery, AfterCalls) and not record.isolated
        return {
            "name": self.name,
            "state": record.state.value,
            "failures": record.failures,
            "threshold": self._threshold,
            "retry_after": self._retry_after(record),
            "calls_left": recovery.calls - record.refused if counts and isinstance(recovery, AfterCalls) else None,
            "isolated": record.isolated,
            "era": record.era,
            "opened": record.opened,
            "last_error": None if self._last_error is None else describe(self._last_error),
        }

    # --- a call -----------------------------------------------------------------------------------------------

    def call(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `fn(*args, **kwargs)` and settle what comes of it.

        Raises `CircuitOpen` instead of calling while the circuit is open, else whatever `fn` raises.
        """
        record = self._record
        if record.state is not _CLOSED or self._timeout is not None:
            return self._call_by_permit(fn, args, kwargs)
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:
            self._settle(None, record, self._judge_error(error), error, 0.0, None)
            raise
        # Nearly all calls end here without a lock, since nothing has failed and nothing has changed.
        if self._record is record and not record.failures and type(result) in self._plain:
            return result
        self._settle(None, record, self._judge(result), None, 0.0, None)
        return result

    def _call_by_permit(self, fn: Callable[..., R], args: tuple[Any, ...], kwargs: dict[str, Any]) -> R:
        permit = self.admit()
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:
            self._settle(permit._ticket, permit._record, self._judge_error(error), error, permit._started, None)
            raise
        verdict = NEUTRAL  # stays so if Ctrl-C comes while the classifier runs: the probe's place is given back
        try:
            verdict = self._judge(result)
        finally:
            self._settle(permit._ticket, permit._record, verdict, None, permit._started, None)
        return result

    def admit(self) -> Permit:
        """A permit for one call, to be settled by hand; raises `CircuitOpen` while there is none."""
        started = self._start()
        record = self._record
        if record.state is _CLOSED:
            return Permit(self, None, record, started)
        with self._lock:
            old, outcome = self._decide(Event.CALL, None)
            record = outcome.record
            self._note_transition(old, record, Event.CALL)
            wait = self._retry_after(record)
            if outcome.ticket is None:
                self._teller.note(CallRefused(self.name, wait, record.failures, self._threshold))
        self._teller.tell()
        if outcome.ticket is None:
            raise CircuitOpen(self.name, wait, self._last_error)
        return Permit(self, outcome.ticket, record, started)

    def __call__(self, fn: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function. Coroutine functions and generators raise `TypeError`: their call does no work."""
        if _works_later(fn):
            raise TypeError(f"{fn!r} does its work after it has returned; a CircuitBreaker guards plain functions")

        @functools.wraps(fn)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            # `call` written out: going through it would double what a decorated function pays.
            record = self._record
            if record.state is not _CLOSED or self._timeout is not None:
                return self._call_by_permit(fn, args, kwargs)
            try:
                result = fn(*args, **kwargs)
            except BaseException as error:
                self._settle(None, record, self._judge_error(error), error, 0.0, None)
                raise
            if self._record is record and not record.failures and type(result) in self._plain:
                return result
            self._settle(None, record, self._judge(result), None, 0.0, None)
            return result

        return guarded

    def __enter__(self) -> None:
        record = self._record
        if record.state is _CLOSED and self._timeout is None:
            _entered.set((self, None, record, 0.0, _entered.get()))
        else:
            permit = self.admit()
            _entered.set((self, permit._ticket, permit._record, permit._started, _entered.get()))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        block = _entered.get()
        if block is None or block[0] is not self:
            block = self._take_from_within(block)
        _, ticket, record, started, outer = block
        _entered.set(outer)
        verdict = SUCCESS if error is None else self._judge_error(error)
        self._settle(ticket, record, verdict, error, started, None)

    def _take_from_within(self, innermost: _Block | None) -> _Block:
        """The innermost block of this circuit, around it all others: two generators may leave theirs in any order."""
        inside: list[_Block] = []
        block = innermost
        while block is not None and block[0] is not self:
            inside.append(block)
            block = block[4]
        if block is None:
            raise RuntimeError(f"circuit {self.name!r} was not entered in this thread or task")
        outer = block[4]
        for other in reversed(inside):
            outer = (*other[:4], outer)
        return (*block[:4], outer)

    def subscribe(self, listener: Listener) -> None:
        """Tell `listener` of all that happens from now on, after the listeners that are there already."""
        with self._lock:
            self._teller.subscribe(listener)

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
        self._teller.tell()

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
        error: BaseException | None,
        started: float,
        seconds: float | None,
    ) -> None:
        if self._timeout is not None and verdict is SUCCESS:
            took = self._clock() - started if seconds is None else seconds
            if took > self._timeout:
                verdict = FAILURE
                error = TooSlow(f"the answer took {took:.3g} s, over the policy's {self._timeout:.3g} s")
        if verdict is SUCCESS and self._record is record and record.state is _CLOSED and not record.failures:
            return
        event = _RESULT[verdict]
        # Under the lock the error's own __str__ must not run.
        said = describe(error) if verdict is FAILURE and error is not None else ""
        with self._lock:
            old, outcome = self._decide(event, ticket or Ticket(record.era))
            new = outcome.record
            # A late failure leaves the record as it was, and is no failure of this era.
            if verdict is FAILURE and new is not old:
                failure = error if error is not None else FailureReported("the result was classified as a failure")
                self._last_error = failure
                self._teller.note(CallFailed(self.name, failure, new.failures, self._threshold))
            self._note_transition(old, new, event, said)
        self._teller.tell()

    def _start(self) -> float:
        return self._clock() if self._timeout is not None else 0.0

    def _decide(self, event: Event, ticket: Ticket | None) -> tuple[Record, Outcome]:
        """Under the lock: replace the record by what `event` makes of it. Gives the old one and the outcome."""
        while True:
            old = self._record
            outcome = step(old, event, Context(self.policy, self._clock(), self._random, ticket))
            if self._record is old:  # else this thread was interrupted and has decided something else meanwhile
                self._record = outcome.record
                return old, outcome

    def _note_transition(self, old: Record, new: Record, event: Event, said: str = "") -> None:
        if old.state is not new.state:
            why = reason(old, event, new, self.policy, said)
            self._teller.note(Transition(self.name, old.state, new.state, why))

    def _retry_after(self, record: Record) -> float | None:
        if record.state is not State.OPEN or not math.isfinite(record.retry_at):
            return None
        return max(0.0, record.retry_at - self._clock())


def _works_later(fn: Callable[..., object]) -> bool:
    """Whether a call of `fn` returns at once and leaves the work to whoever awaits or iterates what it returns."""
    kinds = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)
    bodies = (fn,) if isinstance(fn, type) else (fn, getattr(fn, "__call__", fn))  # noqa: B004 (an object's own)
    return any(is_kind(body) for is_kind in kinds for body in bodies)
