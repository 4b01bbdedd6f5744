"""How often a circuit takes its lock."""

from __future__ import annotations

import threading
from types import TracebackType

from failover.breaker import CircuitBreaker


class RecordingLock:
    """A lock that counts how often it is taken."""

    def __init__(self) -> None:
        self.taken = 0
        self.was_broken = False
        self._lock = threading.RLock()

    def __enter__(self) -> bool:
        self.taken += 1
        return self._lock.__enter__()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.__exit__(kind, error, trace)


def recording(breaker: CircuitBreaker) -> RecordingLock:
    """The circuit's lock from now on."""
    lock = RecordingLock()
    breaker._lock = lock  # type: ignore[assignment]
    return lock


def locks_taken(breaker: CircuitBreaker) -> int:
    """By one call that succeeds."""
    lock = recording(breaker)
    breaker.call(int)
    return lock.taken
