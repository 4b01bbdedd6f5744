"""The one thread per process and store that does all I/O with it: it publishes, claims, and looks each second."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from typing import TYPE_CHECKING, Final

from failover.breaker.errors import describe
from failover.breaker.stores.store import Store, StoredRecord, StoreError

if TYPE_CHECKING:
    from failover.breaker.distributed.synchronizer import CircuitSynchronizer

logger = logging.getLogger("failover.breaker")

_AT_ONCE: Final = 50  # names read between two looks at what is to be published or claimed
_AT_EXIT: Final = 1.5  # seconds that the end of the process waits for what is not published yet


class StoreWorker:
    """Between the circuits of this process and one store. `broken` while the store does not do its work.

    With a store that works without I/O there is no thread: whoever posts does the work, outside all locks.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.broken = False
        # Re-entrant: the garbage collector or a signal may run code that uses a circuit, at any point.
        self._wake = threading.Condition(threading.RLock())
        self._turning = threading.Lock()
        self._links: dict[str, weakref.WeakSet[CircuitSynchronizer]] = {}
        self._todo: dict[CircuitSynchronizer, None] = {}
        self._named: dict[str | None, None] = {}
        self._stopping = False
        self._thread: threading.Thread | None = None

    def join(self, link: CircuitSynchronizer) -> None:
        """From now on `link` hears of its circuit's record; the first look is taken at once."""
        with self._wake:
            self._links.setdefault(link.name, weakref.WeakSet()).add(link)
            if self._thread is None and not self._stopping:
                self._start()
        self.changed(link.name)

    def post(self, link: CircuitSynchronizer) -> None:
        """Have `link` work with the store, soon."""
        with self._wake:
            self._todo[link] = None
            self._wake.notify()
        self._turn_at_once()

    def changed(self, name: str | None) -> None:
        """The record of this name may be another one; None: all may be."""
        with self._wake:
            if name is None or name in self._links:
                self._named[name] = None
                self._wake.notify()
        self._turn_at_once()

    def deliver(self, name: str, held: StoredRecord | None) -> None:
        """Tell all circuits of this name what the store holds."""
        with self._wake:
            links = list(self._links.get(name, ()))
            if not links:
                self._links.pop(name, None)
        for link in links:
            link.saw(held)

    def turn(self, refresh: bool = False) -> None:
        """One round: publish and claim, read what is said to have changed; with `refresh` read all."""
        try:
            self._work()
            with self._wake:
                named, self._named = self._named, {}
                if refresh or None in named:
                    named = dict.fromkeys(self._links)
            names = [name for name in named if name is not None]
            for start in range(0, len(names), _AT_ONCE):
                part = names[start : start + _AT_ONCE]
                found = self.store.read(part)
                for name in part:
                    self.deliver(name, found.get(name))
                self._work()
            if self.broken and (refresh or names):
                self.broken = False
                logger.info("the store %s is back; circuits are shared again", self.store.url)
        except StoreError as error:
            self._fail(str(error))
        except Exception as error:  # noqa: BLE001 (a store of the user's may raise anything; circuits go on alone)
            self._fail(f"{self.store.url}: {describe(error)}")

    def _work(self) -> None:
        while True:
            with self._wake:
                if not self._todo:
                    return
                link = next(iter(self._todo))
                del self._todo[link]
            try:
                link.work()
            except BaseException:
                with self._wake:
                    self._todo[link] = None  # a later round tries again
                raise

    def _fail(self, what: str) -> None:
        with self._wake:
            all_links = [link for links in self._links.values() for link in links]
        for link in all_links:
            link.store_failed()
        if not self.broken:
            self.broken = True
            logger.warning("circuits decide locally until their store works again: %s", what)

    def _turn_at_once(self) -> None:
        if not self.store.is_local:
            return
        while self._todo or self._named:
            if not self._turning.acquire(blocking=False):
                return  # whoever turns looks again after letting go
            try:
                self.turn()
            finally:
                self._turning.release()
            if self.broken:
                return

    # --- the thread -------------------------------------------------------------------------------------------

    def _start(self) -> None:
        if not self.store.is_local:
            self._thread = threading.Thread(target=self._run, name=f"failover {self.store.url}", daemon=True)
            self._thread.start()
        else:
            self._thread = threading.current_thread()  # stands for: there is nothing to start
        self.store.subscribe(self.changed)

    def _run(self) -> None:
        due = time.monotonic()
        while True:
            with self._wake:
                while not self._stopping and (self.broken or not (self._todo or self._named)):
                    left = due - time.monotonic()
                    if left <= 0:
                        break
                    self._wake.wait(left)
                stopping = self._stopping
            if stopping:
                if not self.broken and self._todo:
                    self.turn()
                return
            refresh = time.monotonic() >= due
            if refresh:
                due = time.monotonic() + self.store.refresh
            self.turn(refresh)

    def stop(self) -> None:
        """Publish what is not published yet and end the thread; the process waits a moment for it, no longer."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread() and not self.store.is_local:
            thread.join(_AT_EXIT)

    def after_fork(self) -> None:
        """In the child: no thread, no connection and no held lock of the parent's is of use here."""
        self._wake = threading.Condition(threading.RLock())
        self._turning = threading.Lock()
        self._todo, self._named, self._thread = {}, {None: None}, None
        self.store.forget_connections()
        for links in list(self._links.values()):
            for link in list(links):
                link.after_fork()
        if any(self._links.values()):
            self._start()


_exchanges: dict[int, StoreWorker] = {}
_making = threading.RLock()


def worker_of(store: Store) -> StoreWorker:
    """The one of this store in this process."""
    with _making:
        found = _exchanges.get(id(store))
        if found is None:
            found = _exchanges[id(store)] = StoreWorker(store)
    return found


def _stop_all() -> None:
    for exchange in list(_exchanges.values()):
        exchange.stop()


def _after_fork() -> None:
    global _making
    _making = threading.RLock()
    for exchange in _exchanges.values():
        exchange.after_fork()


atexit.register(_stop_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
