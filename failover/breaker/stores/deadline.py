"""Ends an operation that takes too long as a whole.

The time-outs of the SDKs apply to each wait for a byte, so they never end an answer that arrives byte by byte. Here,
one thread per process watches the clock, and aborts an operation at its deadline by closing its sockets.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress


class Operation:
    """One operation under way.

    Attributes:
        expired: Whether it was aborted at its deadline.
    """

    __slots__ = ("abort", "deadline", "expired")

    def __init__(self, deadline: float, abort: Callable[[], None]) -> None:
        self.deadline = deadline
        self.abort = abort
        self.expired = False


_changed = threading.Condition()
_under_way: dict[int, Operation] = {}
_thread: threading.Thread | None = None
_wakes_at = math.inf


@contextmanager
def limit(seconds: float, abort: Callable[[], None]) -> Iterator[Operation]:
    """Call `abort` on another thread if the block takes longer than `seconds`."""
    operation = Operation(time.monotonic() + seconds, abort)
    with _changed:
        _under_way[id(operation)] = operation
        _start()
        if operation.deadline < _wakes_at:
            _changed.notify()
    try:
        yield operation
    finally:
        with _changed:
            _under_way.pop(id(operation), None)


def _start() -> None:
    global _thread
    if _thread is None:
        thread = threading.Thread(target=_watch, name="failover deadlines", daemon=True)
        with suppress(RuntimeError):  # while the interpreter shuts down no thread starts: then there is no limit
            thread.start()
            _thread = thread


def _watch() -> None:
    global _wakes_at
    while True:
        with _changed:
            now = time.monotonic()
            late = [operation for operation in _under_way.values() if operation.deadline <= now]
            for operation in late:
                operation.expired = True
                del _under_way[id(operation)]
            if not late:
                _wakes_at = min((each.deadline for each in _under_way.values()), default=math.inf)
                _changed.wait(None if _wakes_at == math.inf else _wakes_at - now)
        for operation in late:
            with suppress(Exception):  # closing a socket that is in use may raise anything
                operation.abort()


def _after_fork() -> None:
    global _changed, _thread, _wakes_at
    _changed = threading.Condition()
    _under_way.clear()
    _thread, _wakes_at = None, math.inf


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
