"""EventDispatcher: reports what happened to a circuit to listeners and the log, in the order of the decisions."""

from __future__ import annotations

import json
import logging
import threading
import traceback
from collections.abc import Iterable
from typing import Final, TypeAlias

from failover.breaker import checks, forks
from failover.breaker.errors import describe
from failover.breaker.events import BreakerEvent, CallEnded, CallFailed, CallRefused, Listener, Transition
from failover.breaker.forks import ForkSafeLock
from failover.breaker.machine import State

logger = logging.getLogger("failover.breaker")
# Without it Python prints a library's warnings on stderr when the program has set up no logging.
logger.addHandler(logging.NullHandler())

_Null: Final = logging.NullHandler

MOST_EVENTS: Final = 1000
"""Events of one circuit that wait at most; what comes then is dropped, calls before transitions."""

_THREAD: Final = -1  # the holder, where it is a thread of the dispatcher's own: no thread of Python's has this number
_DROPPED: Final = "circuit %s drops events: a listener or log handler is slower than the calls"
_Queued: TypeAlias = "BreakerEvent | tuple[str, Exception | None]"


class EventDispatcher:
    """A queue of events that one thread at a time delivers.

    Events are queued under the circuit's lock and delivered outside it, so that each listener receives them in order. A
    thread delivers only the events that it has queued itself. If another thread is delivering, it leaves its events in
    the queue and continues with its own work. If another thread's event comes first, or is left in the queue, a thread
    of the dispatcher delivers everything that is queued, and ends. A slow listener or log handler therefore delays at
    most the call whose event it handles.
    """

    __slots__ = (
        "_each",
        "_generation",
        "_holder",
        "_listeners",
        "_name",
        "_queue",
        "_reported",
        "dropped",
        "hears_each",
    )

    def __init__(self, name: str, listeners: Iterable[Listener]) -> None:
        self.rename(name)
        self._listeners: tuple[Listener, ...] = ()
        self._each: tuple[Listener, ...] = ()
        self.hears_each = False
        """Whether a listener is to be told of each call that ends."""
        for listener in listeners:
            self.subscribe(listener)
        # No deque: an empty one is 600 bytes, a third of a circuit.
        self._queue: list[tuple[int, _Queued]] = []
        self._holder: int | None = None
        self._generation = forks.generation
        self.dropped = 0
        """Events that found the queue full."""
        self._reported = False

    def rename(self, name: str) -> None:
        """Change the circuit's name in the log."""
        self._name = json.dumps(name)

    def subscribe(self, listener: Listener) -> None:
        """Under the circuit's lock: add a listener. `ValueError` if it cannot be called."""
        checks.is_callable("listeners", listener)
        self._listen((*self._listeners, listener))

    def unsubscribe(self, listener: Listener) -> None:
        """Under the circuit's lock: remove a listener. `ValueError` if it is not subscribed."""
        left = list(self._listeners)
        try:
            left.remove(listener)
        except ValueError:
            raise ValueError(f"{listener!r} is not subscribed") from None
        self._listen(tuple(left))

    def _listen(self, listeners: tuple[Listener, ...]) -> None:
        self._listeners = listeners
        self._each = tuple(each for each in listeners if getattr(each, "each_call", False) is True)
        self.hears_each = bool(self._each)

    @property
    def is_idle(self) -> bool:
        """Whether all events have been delivered."""
        return not self._queue and self._holder is None

    def is_heard(self) -> bool:
        """Whether a refusal has a receiver. Writing a log record that is not used would be half of its cost."""
        if self._listeners:
            return True
        at: logging.Logger | None = logger
        while at is not None:
            for handler in at.handlers:
                if type(handler) is not _Null:
                    return logger.isEnabledFor(logging.ERROR)
            at = at.parent if at.propagate else None
        return False

    def queue(self, event: BreakerEvent) -> None:
        """Under the circuit's lock: queue an event."""
        self._append(event)

    def queue_defect(self, what: str, error: Exception) -> None:
        """Under the circuit's lock: `log_defect` later, because log handlers are the user's code too."""
        self._append((what, error))

    def _append(self, event: _Queued) -> None:
        me = threading.get_ident()
        if self._generation != forks.generation:
            self._forget_the_parent(me)
        if len(self._queue) >= MOST_EVENTS:
            self.dropped += 1
            # A listener that misses a call has a count too low; one that misses a transition has the wrong state.
            at = next((at for at, (_, each) in enumerate(self._queue) if not isinstance(each, Transition)), None)
            if at is None or not isinstance(event, Transition):
                return
            del self._queue[at]
        self._queue.append((me, event))

    def dispatch(self, lock: ForkSafeLock) -> None:
        """Deliver what this thread has queued. `lock` is the circuit's, and is not held during the delivery."""
        if self._queue:
            self._deliver(lock, threading.get_ident(), is_mine=False)

    def _forget_the_parent(self, me: int) -> None:
        """In a forked child, whose only thread kept its number: other threads, and their events, are the parent's."""
        self._generation = forks.generation
        survivor = threading.main_thread().ident
        self._queue = [each for each in self._queue if each[0] in (survivor, me)]
        if self._holder != survivor:
            self._holder = None

    def _deliver(self, lock: ForkSafeLock, me: int, *, is_mine: bool) -> None:
        """Deliver all that `me` may. `is_mine`: it is this thread's turn already."""
        try:
            while (event := self._next(lock, me, is_mine=is_mine)) is not None:
                is_mine = True
                self._tell(event)
            is_mine = False
        finally:
            if is_mine:  # Ctrl-C in a listener
                with lock:
                    self._holder = None

    def _next(self, lock: ForkSafeLock, me: int, *, is_mine: bool) -> _Queued | None:
        """The next event for `me` to deliver; None: it has none left, or it is another thread's turn."""
        with lock:
            if self._generation != forks.generation:
                self._forget_the_parent(me)
            if self._holder is not None and not is_mine:
                return None
            self._holder = me
            if self.dropped and not self._reported:
                self._reported = True
                return _DROPPED, None
            if self._queue and me in (self._queue[0][0], _THREAD):
                return self._queue.pop(0)[1]
            if not self._queue:
                self._holder = None
                return None
            self._holder = _THREAD
        thread = threading.Thread(
            # Daemon, since a listener that hangs must not keep the program from ending.
            target=self._deliver,
            args=(lock, _THREAD),
            kwargs={"is_mine": True},
            name="failover events",
            daemon=True,
        )
        try:
            thread.start()
        except RuntimeError:  # no more threads, or the interpreter is ending
            self._deliver(lock, _THREAD, is_mine=True)
        return None

    # --- outside the lock -------------------------------------------------------------------------------------

    def _tell(self, event: _Queued) -> None:
        if isinstance(event, tuple):
            what, error = event
            if error is None:
                logger.warning(what, self._name)
            else:
                self.log_defect(what, error)
            return
        if self.is_heard():
            self._log(event)
        for listener in self._listeners:
            self._tell_one(listener, event)

    def tell_end(self, event: CallEnded) -> None:
        """Deliver the end of a call to listeners of each call, in the call's own thread: counting needs no order."""
        for listener in self._each:
            self._tell_one(listener, event)

    def _tell_one(self, listener: Listener, event: BreakerEvent) -> None:
        try:
            listener(event)
        except Exception as error:  # noqa: BLE001 (contract: what it raises changes nothing)
            self.log_defect("a listener of circuit %s raised", error)

    def log_defect(self, what: str, error: Exception) -> None:
        """Log what a user's function raised, and where. `what` has one %s, for the circuit's name.

        The logger's own traceback is not used, because it shows messages unchanged.
        """
        where = "".join(traceback.format_tb(error.__traceback__))
        logger.error("%s: %s\n%s", what % self._name, describe(error), where)

    def _log(self, event: BreakerEvent) -> None:
        if isinstance(event, Transition):
            level = logging.ERROR if event.new is State.OPEN else logging.INFO
            logger.log(level, "circuit %s: %s -> %s: %s", self._name, event.old.value, event.new.value, event.reason)
        elif isinstance(event, CallFailed):
            text = "circuit %s: failure: %s failure_count=%d threshold=%d"
            logger.warning(text, self._name, describe(event.error), event.failures, event.threshold)
        elif isinstance(event, CallRefused):
            text = "circuit %s: call refused: failure_count=%d threshold=%d"
            logger.warning(text, self._name, event.failures, event.threshold)
