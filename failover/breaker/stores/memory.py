"""memory://: for circuits of one process, and for tests that simulate many processes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from failover.breaker.stores.store import StoreClosed, StoredRecord, check_size


class MemoryStore:
    """A store without I/O.

    Args:
        url: What it was opened by.
        clock: Seconds that only grow.
    """

    is_local = True
    refresh = 1.0

    def __init__(self, url: str = "memory://", *, clock: Callable[[], float] = time.monotonic) -> None:
        self.url = url
        self.closed = False
        self._clock = clock
        self._lock = threading.Lock()
        self._records: dict[str, tuple[bytes, int, float]] = {}
        self._writes = 0
        self._subscribers: tuple[Callable[[str | None], None], ...] = ()

    def read(self, names: Iterable[str]) -> dict[str, StoredRecord]:
        self._check_open()
        with self._lock:
            now = self._clock()
            found = ((name, self._records.get(name)) for name in names)
            return {name: StoredRecord(r[0], str(r[1]), max(0.0, now - r[2])) for name, r in found if r is not None}

    def compare_and_set(self, name: str, body: bytes, expected: str | None, ttl: float | None = None) -> str | None:  # noqa: ARG002 (nothing is forgotten here)
        self._check_open()
        check_size(body)
        with self._lock:
            stored = self._records.get(name)
            if (None if stored is None else str(stored[1])) != expected:
                return None
            self._writes += 1
            version = self._writes
            self._records[name] = (body, version, self._clock())
        for changed in self._subscribers:
            changed(name)
        return str(version)

    def subscribe(self, changed: Callable[[str | None], None]) -> bool:
        with self._lock:
            self._subscribers = (*self._subscribers, changed)
        return True

    def forget_connections(self) -> None:
        """A forked child has its own copy of all this, and a lock that no thread of its own can hold."""
        self._lock = threading.Lock()

    def close(self) -> None:
        self.closed = True
        self._subscribers = ()

    def _check_open(self) -> None:
        if self.closed:
            raise StoreClosed(f"{self.url} is closed")
