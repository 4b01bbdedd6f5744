"""A lock that works in a forked child, whatever the parent's other threads were doing."""

from __future__ import annotations

import os
import threading
from types import TracebackType

generation = 0
"""How many forks lie between the first process and this one."""

# Re-entrant, as each lock here: the garbage collector or a signal may run code that uses another circuit at any point.
_renewing = threading.RLock()


def _in_child() -> None:
    global generation, _renewing
    generation += 1
    _renewing = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)


class ForkSafeLock:
    """A re-entrant lock. In a child it is made anew when it is first taken, if its holder stayed behind in the parent.

    A fork costs nothing for a circuit that the child never uses, and no list of all circuits is kept.
    """

    __slots__ = ("_generation", "_lock", "was_broken")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._generation = generation
        self.was_broken = False
        """True after it was made anew, until somebody has repaired what may be half changed and sets it to False."""

    def __enter__(self) -> None:
        if self._generation != generation:
            self._renew()
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def _renew(self) -> None:
        with _renewing:
            if self._generation == generation:
                return
            if self._lock.acquire(blocking=False):
                self._lock.release()
            else:
                self._lock = threading.RLock()
                self.was_broken = True
            self._generation = generation
