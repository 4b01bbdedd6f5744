"""The one thread per process and store that does all I/O with it: publishes, claims, and reads at each refresh."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections.abc import Iterator
from typing import Final, Protocol

from failover.breaker.errors import describe
from failover.breaker.stores.store import ReleasesConnections, Store, StoreClosed, StoredRecord, StoreError, changes_of

logger = logging.getLogger("failover.breaker")

_EXIT_SECONDS: Final = 1.5  # for which the end of the process waits for what is not published yet


class Synchronizer(Protocol):
    """What the worker needs of a circuit: see `CircuitSynchronizer`, which has the meaning of each."""

    name: str

    def work(self) -> bool: ...

    def saw(self, stored: StoredRecord | None) -> None: ...

    def looked(self) -> None: ...

    def refused(self, what: str) -> None: ...

    def store_failed(self) -> None: ...

    def after_fork(self) -> None: ...


class StoreWorker:
    """Between the circuits of this process and one store.

    It holds neither the store nor the circuits: its thread ends when nobody else holds the store any more. With a store
    that works without I/O there is no thread: whoever posts does the work, outside all locks.

    Attributes:
        broken: Whether the store does not do its work, so that circuits decide alone.
    """

    def __init__(self, store: Store) -> None:
        self.broken = False
        self._store = weakref.ref(store)
        self._is_local = store.is_local
        # Re-entrant: the garbage collector or a signal may run code that uses a circuit, at any point.
        self._wake = threading.Condition(threading.RLock())
        self._turning = threading.Lock()
        self._members: dict[str, tuple[weakref.ref[Synchronizer], ...]] = {}
        # The version of each name that was delivered last. None: nothing is stored.
        self._known: dict[str, str | None] = {}
        self._to_publish: dict[Synchronizer, None] = {}
        # What failed: not again before the next refresh, and not at all if nobody holds the circuit any more.
        self._at_refresh: weakref.WeakSet[Synchronizer] = weakref.WeakSet()
        self._to_read: dict[str | None, None] = {}
        self._stopping = False
        self._subscribed = False
        self._thread: threading.Thread | None = None

    def join(self, member: Synchronizer) -> None:
        """From now on `member` hears of its circuit's record. The first look is taken at once."""
        with self._wake:
            members = self._members_of(member.name)
            self._members[member.name] = (*(weakref.ref(each) for each in members), weakref.ref(member))
            self._known.setdefault(member.name, None)
            self._start()
        self.changed(member.name)

    def leave(self, member: Synchronizer) -> None:
        """`member` hears of nothing any more. What it has not published yet is published still.

        With the last one the thread ends, and the store's connections with it.
        """
        with self._wake:
            left = [each for each in self._members_of(member.name) if each is not member]
            self._members[member.name] = tuple(weakref.ref(each) for each in left)
            while self._members and not self._members_of(name := next(iter(self._members))):
                del self._members[name]
                self._known.pop(name, None)
            last = not self._members
        if last:
            self.stop()
            store = self._store()
            with _making:
                if store is not None and _workers.get(store) is self:
                    del _workers[store]
            if isinstance(store, ReleasesConnections):
                store.release()

    def post(self, member: Synchronizer, again: bool = False) -> None:
        """Have `member` work with the store: soon, or at the next refresh if it failed since the last one.

        Args:
            member: Whose change it is.
            again: It is a change that the member has tried to publish before.
        """
        with self._wake:
            if member in self._at_refresh and (again or not self._is_local):
                return
            self._to_publish[member] = None
            self._wake.notify()
        self._turn_at_once()

    def changed(self, name: str | None) -> None:
        """The record of this name may be another one. None: all may be."""
        with self._wake:
            if name is None or name in self._members:
                self._to_read[name] = None
                self._wake.notify()
        self._turn_at_once()

    def deliver(self, name: str, stored: StoredRecord | None) -> None:
        """Tell all circuits of this name what the store holds."""
        with self._wake:
            members = self._members_of(name)
            if not members:
                self._members.pop(name, None)
                self._known.pop(name, None)
                return
            self._known[name] = None if stored is None else stored.version
        for member in members:
            member.saw(stored)

    def _members_of(self, name: str) -> list[Synchronizer]:
        found = (ref() for ref in self._members.get(name, ()))
        return [member for member in found if member is not None]

    def _all_members(self) -> Iterator[tuple[str, list[Synchronizer]]]:
        for name in list(self._members):
            yield name, self._members_of(name)

    # --- one round --------------------------------------------------------------------------------------------

    def turn(self, refresh: bool = False) -> None:
        """One round: publish and claim, and read what is said to have changed. `refresh`: look at everything."""
        store = self._store()
        if store is None:
            return
        with self._wake:
            to_read, self._to_read = self._to_read, {}
            if refresh:
                self._to_publish.update(dict.fromkeys(self._at_refresh))
                self._at_refresh.clear()
        try:
            self._publish(store)
            # Also before a look: that of a log of changes finds no old record of a circuit that has just joined.
            names = [name for name in to_read if name is not None]
            if names:
                self._deliver_all(names, store.read(names))
            if refresh or None in to_read:
                self._look(store)
            if self.broken and (refresh or to_read):
                self.broken = False
                logger.info("the store %s is back; circuits are shared again", store.url)
        except Exception as error:  # noqa: BLE001 (a store of the user's may raise anything; circuits go on alone)
            with self._wake:
                self._to_read = {**to_read, **self._to_read}
            self._fail(error, store)

    def _publish(self, store: Store) -> None:
        while True:
            with self._wake:
                if not self._to_publish:
                    return
                member = next(iter(self._to_publish))
                del self._to_publish[member]
            try:
                done = member.work()
            except Exception as error:
                with self._wake:
                    self._at_refresh.add(member)
                # Is it the store, or this record alone that it does not take?
                found = store.read([member.name])
                if not isinstance(error, StoreError):
                    raise
                self.deliver(member.name, found.get(member.name))
                member.refused(str(error))
            else:
                if not done:
                    with self._wake:
                        self._at_refresh.add(member)

    def _look(self, store: Store) -> None:
        for part in changes_of(store, dict(self._known)):
            for name, stored in part.items():
                self.deliver(name, stored)
            self._publish(store)  # which does not wait for the end of a long look
        for name, members in self._all_members():
            for member in members:
                member.looked()
            if not members:
                self.deliver(name, None)

    def _deliver_all(self, names: list[str], found: dict[str, StoredRecord]) -> None:
        for name in names:
            self.deliver(name, found.get(name))

    def _fail(self, error: Exception, store: Store) -> None:
        for _, members in self._all_members():
            for member in members:
                member.store_failed()
        if isinstance(error, StoreClosed):
            with self._wake:
                self.broken = self._stopping = True
            logger.info("%s: circuits decide alone from now on", error)
        elif not self.broken:
            self.broken = True
            what = str(error) if isinstance(error, StoreError) else f"{store.url}: {describe(error)}"
            logger.warning("circuits decide locally until their store works again: %s", what)

    def _turn_at_once(self) -> None:
        if not self._is_local:
            return
        while self._to_publish or self._to_read:
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
        store = self._store()
        if store is None or self._stopping:
            return
        if not self._is_local and self._thread is None:
            self._thread = threading.Thread(target=self._run, name=f"failover {store.url}", daemon=True)
            self._thread.start()
        if not self._subscribed:
            self._subscribed = True
            store.subscribe(self.changed)

    def _run(self) -> None:
        due = time.monotonic()
        while True:
            with self._wake:
                while not self._stopping and (self.broken or not (self._to_publish or self._to_read)):
                    left = due - time.monotonic()
                    if left <= 0:
                        break
                    self._wake.wait(left)
                stopping = self._stopping
            store = self._store()
            if store is None:
                return
            if stopping:
                if not self.broken and self._to_publish:
                    self.turn()
                return
            refresh = time.monotonic() >= due
            if refresh:
                due = time.monotonic() + store.refresh
            del store
            self.turn(refresh)

    def stop(self) -> None:
        """Publish what is not published yet and end the thread. Waits `_EXIT_SECONDS` for it, no longer."""
        self.begin_to_stop()
        self.wait_for_the_end(_EXIT_SECONDS)

    def begin_to_stop(self) -> None:
        """The first half of `stop`."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()

    def wait_for_the_end(self, seconds: float) -> None:
        """The second half of `stop`."""
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(seconds)

    def after_fork(self) -> None:
        """In a forked child: no thread, no connection and no held lock of the parent's is of use here."""
        self._wake = threading.Condition(threading.RLock())
        self._turning = threading.Lock()
        self._to_publish, self._at_refresh = {}, weakref.WeakSet()
        self._thread, self._subscribed = None, False
        self._to_read = {None: None}
        self._known = dict.fromkeys(self._known)
        store = self._store()
        if store is None:
            return
        store.forget_connections()
        members = [member for _, all_of in self._all_members() for member in all_of]
        for member in members:
            member.after_fork()
        if members:
            self._start()


_workers: weakref.WeakKeyDictionary[Store, StoreWorker] = weakref.WeakKeyDictionary()
_making = threading.RLock()


def worker_of(store: Store) -> StoreWorker:
    """The worker of this store in this process."""
    with _making:
        found = _workers.get(store)
        if found is None:
            found = _workers[store] = StoreWorker(store)
    return found


def _stop_all() -> None:
    workers, until = list(_workers.values()), time.monotonic() + _EXIT_SECONDS
    for worker in workers:
        worker.begin_to_stop()
    for worker in workers:
        worker.wait_for_the_end(max(0.0, until - time.monotonic()))


def _after_fork() -> None:
    global _making
    _making = threading.RLock()
    for worker in list(_workers.values()):
        worker.after_fork()


atexit.register(_stop_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
