"""Tells listeners and the log what happened to a circuit, in the order in which it was decided."""

from __future__ import annotations

import json
import logging
import threading
import traceback
from collections.abc import Iterable

from failover.breaker.errors import describe
from failover.breaker.events import BreakerEvent, CallEnded, CallFailed, CallRefused, Listener, Transition
from failover.breaker.machine import Event, Record, State
from failover.breaker.policy import AfterCalls, Policy
from failover.breaker.trips import ConsecutiveFailures

logger = logging.getLogger("failover.breaker")
# Without it Python prints a library's warnings on stderr when the program has set up no logging.
logger.addHandler(logging.NullHandler())


class Teller:
    """Events are noted under the circuit's lock and told outside it."""

    def __init__(self, name: str, listeners: Iterable[Listener]) -> None:
        self.rename(name)
        self._listeners: tuple[Listener, ...] = ()
        self._each: tuple[Listener, ...] = ()
        self.hears_each = False
        """Whether a listener is to be told of each call that ends."""
        for listener in listeners:
            self.subscribe(listener)
        # No deque: an empty one is 600 bytes, a third of a circuit.
        self._untold: list[BreakerEvent | tuple[str, Exception]] = []
        self._telling = threading.Lock()

    def rename(self, name: str) -> None:
        """What the log calls the circuit from now on."""
        self._name = json.dumps(name)

    def subscribe(self, listener: Listener) -> None:
        """Under the circuit's lock: tell `listener` too, from now on."""
        self._listeners = (*self._listeners, listener)
        if getattr(listener, "each_call", False) is True:
            self._each = (*self._each, listener)
            self.hears_each = True

    def unsubscribe(self, listener: Listener) -> None:
        """Under the circuit's lock: tell `listener` no more. `ValueError` where it is not told."""
        left = list(self._listeners)
        try:
            left.remove(listener)
        except ValueError:
            raise ValueError(f"{listener!r} is not subscribed") from None
        self._listeners = tuple(left)
        self._each = tuple(each for each in left if getattr(each, "each_call", False) is True)
        self.hears_each = bool(self._each)

    def is_heard(self) -> bool:
        """Whether a refused call would be told to anybody."""
        return bool(self._listeners) or _is_logged()

    def note(self, event: BreakerEvent) -> None:
        """Under the circuit's lock: something to tell."""
        self._untold.append(event)

    def note_defect(self, what: str, error: Exception) -> None:
        """Under the circuit's lock: as `log_defect`, later, since what handles the log is the user's code too."""
        self._untold.append((what, error))

    def tell(self) -> None:
        """Tell what is untold, one thread at a time and none waiting.

        A thread that finds another one telling leaves its events to that one, which looks again after it has
        let go: so nothing is left untold.
        """
        while self._untold:
            if not self._telling.acquire(blocking=False):
                return
            try:
                while self._untold:
                    event = self._untold.pop(0)
                    if isinstance(event, tuple):
                        self.log_defect(*event)
                        continue
                    each = isinstance(event, CallEnded)
                    if not each:
                        self._log(event)
                    for listener in self._each if each else self._listeners:
                        self._tell_one(listener, event)
            finally:
                self._telling.release()

    def _tell_one(self, listener: Listener, event: BreakerEvent) -> None:
        try:
            listener(event)
        except Exception as error:  # noqa: BLE001 (contract: what it raises changes nothing)
            self.log_defect("a listener of circuit %s raised", error)

    def log_defect(self, what: str, error: Exception) -> None:
        """Log what a user's function raised, with where; `what` has one %s, for the circuit's name.

        Not by the logger's own traceback, which shows messages raw.
        """
        where = "".join(traceback.format_tb(error.__traceback__))
        logger.error("%s: %s\n%s", what % self._name, describe(error), where)

    def _log(self, event: BreakerEvent) -> None:
        if not _is_logged():
            return
        if isinstance(event, Transition):
            level = logging.ERROR if event.new is State.OPEN else logging.INFO
            logger.log(level, "circuit %s: %s -> %s: %s", self._name, event.old.value, event.new.value, event.reason)
        elif isinstance(event, CallFailed):
            text = "circuit %s: failure: %s failure_count=%d threshold=%d"
            logger.warning(text, self._name, describe(event.error), event.failures, event.threshold)
        elif isinstance(event, CallRefused):
            text = "circuit %s: call refused: failure_count=%d threshold=%d"
            logger.warning(text, self._name, event.failures, event.threshold)


def _is_logged() -> bool:
    """Whether anybody handles the log: a record that nobody reads is half of what a refused call costs."""
    if not logger.isEnabledFor(logging.ERROR):
        return False
    at: logging.Logger | None = logger
    while at is not None:
        if any(type(handler) is not logging.NullHandler for handler in at.handlers):
            return True
        at = at.parent if at.propagate else None
    return False


def reason(old: Record, event: Event, new: Record, policy: Policy, said: str) -> str:
    """Why the circuit went from one state to the other, in plain words. `said`: what the failure said, or nothing."""
    cause = f": {said}" if said else ""
    if event is Event.FAILURE:
        if old.state is State.HALF_OPEN:
            return f"the probe failed{cause}"
        return f"{_failures(new, policy)}{', the last' if new.failures > 1 else ''}{cause}"
    if event is Event.SUCCESS and old.state is State.CLOSED:
        return _failures(new, policy)
    if event is Event.SUCCESS and old.state is State.OPEN:
        return "the remote answered a call that was made as a last resort"
    if event is Event.SUCCESS:
        return (
            "the probe succeeded" if policy.successes_to_close == 1 else f"{policy.successes_to_close} probes succeeded"
        )
    if event in (Event.CALL, Event.LAST_RESORT):
        recovery = policy.recovery
        if isinstance(recovery, AfterCalls):
            turned_away = "1 call was" if recovery.calls == 1 else f"{recovery.calls} calls were"
            return f"{turned_away} turned away; the next is the probe"
        return "the cooldown is over; the next call is the probe"
    return {Event.TRIP: "tripped by hand", Event.RESET: "reset by hand", Event.ISOLATE: "isolated by hand"}[event]


def _failures(record: Record, policy: Policy) -> str:
    if record.failures == 1:
        return "1 failure"
    where = "in a row" if isinstance(policy.trip, ConsecutiveFailures) else "among the last calls"
    return f"{record.failures} failures {where}"
