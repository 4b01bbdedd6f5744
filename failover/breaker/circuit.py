"""CircuitBreaker: admits a call, runs it, settles its result.

The rules are in `machine.py`. Here are the lock, the clock, the listeners and the log, and one principle: decide
under the lock, act outside it. The user's call, the listeners and the log never run under the lock.
"""

from __future__ import annotations

import functools
import inspect
import json
import logging
import math
import random as _random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Final, ParamSpec, TypeVar

from failover.breaker.errors import CircuitOpen, describe
from failover.breaker.events import BreakerEvent, CallFailed, CallRefused, Listener, Transition
from failover.breaker.failures import FAILURE, NEUTRAL, SUCCESS, Verdict, is_cancellation
from failover.breaker.machine import Context, Event, Record, State, Ticket, step
from failover.breaker.policy import AfterCalls, Policy

P = ParamSpec("P")
R = TypeVar("R")

logger = logging.getLogger("failover.breaker")
# Without it Python prints a library's warnings on stderr when the program has set up no logging.
logger.addHandler(logging.NullHandler())

_RESULT: Final = {SUCCESS: Event.SUCCESS, FAILURE: Event.FAILURE, NEUTRAL: Event.NEUTRAL}
_CLOSED: Final = State.CLOSED

# The permits of `with breaker:` blocks entered and not yet left, per thread and per task.
_entered: ContextVar[tuple[Permit, ...]] = ContextVar("failover_breaker_entered", default=())


class Permit:
    """The right to make one call through `breaker`, from `CircuitBreaker.admit`.

    Settle it exactly once: `succeeded`, `failed` or `released`. A second time raises `RuntimeError`. A permit that
    is never settled counts neither way; a probe's place is then free again after `Policy.probe_lease`.
    """

    __slots__ = ("_record", "_settled", "_started", "_ticket", "breaker")

    def __init__(self, breaker: CircuitBreaker, ticket: Ticket | None, record: Record, started: float) -> None:
        self.breaker = breaker
        self._ticket = ticket
        self._record = record
        self._started = started
        self._settled = False

    @property
    def is_probe(self) -> bool:
        """Whether the call decides if a half-open circuit closes."""
        return self._ticket is not None and self._ticket.probe != 0

    def again(self) -> Permit | None:
        """A permit for another try of the same call, or None unless the circuit is closed as it was at `admit`.

        To be asked after `failed`. Unlike a new `admit`, a refusal is not counted: to `AfterCalls` a call that is
        given up after some tries is no call that was turned away.
        """
        record = self.breaker._record
        if record.state is not _CLOSED or record.era != self._record.era:
            return None
        return Permit(self.breaker, None, record, self.breaker._start())

    def succeeded(self, seconds: float | None = None) -> None:
        """The remote answered.

        `seconds` is how long it took, where that is less than the time since `admit`, as with a body that is
        read at leisure. Longer than `Policy.timeout` counts as a failure.
        """
        self._once()
        self.breaker._settle(self._ticket, self._record, SUCCESS, None, self._started, seconds)

    def failed(self, error: BaseException) -> None:
        """The remote did not do its work. A cancellation is taken as `released`."""
        self._once()
        verdict = NEUTRAL if is_cancellation(error) else FAILURE
        self.breaker._settle(self._ticket, self._record, verdict, error, self._started, None)

    def released(self) -> None:
        """The call says nothing about the remote: it was not made, or was given up."""
        self._once()
        self.breaker._settle(self._ticket, self._record, NEUTRAL, None, self._started, None)

    def _once(self) -> None:
        if self._settled:
            raise RuntimeError(f"this permit of circuit {self.breaker.name!r} has been settled before")
        self._settled = True


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
        self._listeners = tuple(listeners)
        self._timeout = policy.timeout
        self._classify = policy.classify
        self._lock = threading.Lock()
        self._record = Record()  # replaced as a whole under the lock, read without it
        self._last_error: BaseException | None = None
        self._untold: deque[BreakerEvent] = deque()
        self._telling = threading.Lock()

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
            "threshold": self.policy.trip.threshold,
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
        quick = record.state is _CLOSED and self._timeout is None
        if quick:
            ticket, started = None, 0.0
        else:
            permit = self.admit()
            ticket, record, started = permit._ticket, permit._record, permit._started
        try:
            result = fn(*args, **kwargs)
        except BaseException as error:
            self._settle(ticket, record, self._judge_error(error), error, started, None)
            raise
        verdict = self._classify_safely(result)
        # The path of nearly all calls: no lock, since nothing has failed and nothing has changed.
        if not (quick and verdict is SUCCESS and self._record is record and not record.failures):
            self._settle(ticket, record, verdict, None, started, None)
        return result

    def admit(self) -> Permit:
        """A permit for one call, to be settled by hand; raises `CircuitOpen` while there is none."""
        started = self._start()
        record = self._record
        if record.state is _CLOSED:
            return Permit(self, None, record, started)
        with self._lock:
            old = self._record
            outcome = step(old, Event.CALL, self._context(None))
            record = self._record = outcome.record
            self._note_transition(old, record, Event.CALL, None)
            wait = self._retry_after(record)
            if outcome.ticket is None:
                self._untold.append(CallRefused(self.name, wait))
        self._tell()
        if outcome.ticket is None:
            raise CircuitOpen(self.name, wait, self._last_error)
        return Permit(self, outcome.ticket, record, started)

    def __call__(self, fn: Callable[P, R]) -> Callable[P, R]:
        """Decorate a function. Coroutine functions and generators raise `TypeError`: their call does no work."""
        if inspect.iscoroutinefunction(fn) or inspect.isgeneratorfunction(fn) or inspect.isasyncgenfunction(fn):
            raise TypeError(f"{fn!r} does its work after it has returned; a CircuitBreaker guards plain functions")

        @functools.wraps(fn)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
            return self.call(fn, *args, **kwargs)

        return guarded

    def __enter__(self) -> None:
        permit = self.admit()
        _entered.set((*_entered.get(), permit))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        permit = self._leave()
        verdict = SUCCESS if error is None else self._judge_error(error)
        self._settle(permit._ticket, permit._record, verdict, error, permit._started, None)

    def _leave(self) -> Permit:
        entered = _entered.get()
        for at in range(len(entered) - 1, -1, -1):
            if entered[at].breaker is self:
                _entered.set(entered[:at] + entered[at + 1 :])
                return entered[at]
        raise RuntimeError(f"circuit {self.name!r} was not entered in this thread or task")

    def subscribe(self, listener: Listener) -> None:
        """Tell `listener` of all that happens from now on, after the listeners that are there already."""
        self._listeners = (*self._listeners, listener)

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
            old = self._record
            self._record = step(old, event, self._context(None)).record
            if event is Event.RESET:
                self._last_error = None
            self._note_transition(old, self._record, event, None)
        self._tell()

    # --- what a call's end means ------------------------------------------------------------------------------

    def _judge_error(self, error: BaseException) -> Verdict:
        if is_cancellation(error):
            return NEUTRAL
        return self._classify_safely(error)

    def _classify_safely(self, outcome: object) -> Verdict:
        try:
            return self._classify(outcome)
        except Exception:
            # A user's function may raise anything; it must not replace the outcome of the call.
            logger.exception("the classifier of circuit %r raised; the default decides", self.name)
            return FAILURE if isinstance(outcome, BaseException) else SUCCESS

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
                error = TimeoutError(f"the answer took {took:.3g} s, over the policy's {self._timeout:.3g} s")
        if verdict is SUCCESS and self._record is record and record.state is _CLOSED and not record.failures:
            return
        event = _RESULT[verdict]
        with self._lock:
            old = self._record
            context = self._context(ticket or Ticket(record.era))
            new = self._record = step(old, event, context).record
            # A late failure leaves the record as it was, and is no failure of this era.
            if verdict is FAILURE and new is not old:
                failure = error if error is not None else RuntimeError("the result was classified as a failure")
                self._last_error = failure
                self._untold.append(CallFailed(self.name, failure, new.failures, self.policy.trip.threshold))
            self._note_transition(old, new, event, self._last_error)
        self._tell()

    def _start(self) -> float:
        return self._clock() if self._timeout is not None else 0.0

    def _context(self, ticket: Ticket | None) -> Context:
        return Context(self.policy, self._clock(), self._random, ticket)

    def _retry_after(self, record: Record) -> float | None:
        if record.state is not State.OPEN or not math.isfinite(record.retry_at):
            return None
        return max(0.0, record.retry_at - self._clock())

    # --- telling the world ------------------------------------------------------------------------------------

    def _note_transition(self, old: Record, new: Record, event: Event, error: BaseException | None) -> None:
        if old.state is not new.state:
            reason = _reason(old, event, new, self.policy, error)
            self._untold.append(Transition(self.name, old.state, new.state, reason))

    def _tell(self) -> None:
        """Tell listeners and log, in the order of the decisions, one thread at a time and none waiting.

        A thread that finds another one telling leaves its events to that one, which looks again after it has
        let go: so nothing is left untold.
        """
        while self._untold:
            if not self._telling.acquire(blocking=False):
                return
            try:
                while self._untold:
                    event = self._untold.popleft()
                    self._log(event)
                    for listener in self._listeners:
                        self._tell_one(listener, event)
            finally:
                self._telling.release()

    def _tell_one(self, listener: Listener, event: BreakerEvent) -> None:
        try:
            listener(event)
        except Exception:
            logger.exception("a listener of circuit %r raised", self.name)

    def _log(self, event: BreakerEvent) -> None:
        count, threshold = self._record.failures, self.policy.trip.threshold
        name = json.dumps(self.name)
        if isinstance(event, Transition):
            level = logging.ERROR if event.new is State.OPEN else logging.INFO
            logger.log(level, "circuit %s: %s -> %s: %s", name, event.old.value, event.new.value, event.reason)
        elif isinstance(event, CallFailed):
            text = "circuit %s: failure: %s failure_count=%d threshold=%d"
            logger.warning(text, name, describe(event.error), event.failures, event.threshold)
        else:
            logger.warning("circuit %s: call refused: failure_count=%d threshold=%d", name, count, threshold)


def _reason(old: Record, event: Event, new: Record, policy: Policy, error: BaseException | None) -> str:
    """Why the circuit went from one state to the other, in plain words."""
    cause = "" if error is None else f": {describe(error)}"
    if event is Event.FAILURE:
        if old.state is State.HALF_OPEN:
            return f"the probe failed{cause}"
        times = "1 failure" if new.failures == 1 else f"{new.failures} failures in a row, the last"
        return f"{times}{cause}"
    if event is Event.SUCCESS:
        return (
            "the probe succeeded" if policy.successes_to_close == 1 else f"{policy.successes_to_close} probes succeeded"
        )
    if event is Event.CALL:
        recovery = policy.recovery
        if isinstance(recovery, AfterCalls):
            return f"{recovery.calls} calls were turned away; the next is the probe"
        return "the cooldown is over; the next call is the probe"
    return {Event.TRIP: "tripped by hand", Event.RESET: "reset by hand", Event.ISOLATE: "isolated by hand"}[event]
