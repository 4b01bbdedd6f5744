"""How long an answer may take that never falls silent, and what ends it then: a byte now and then is no answer.

A transport's time-out is for the next byte. An endpoint that sends one a second keeps below it for hours.
"""

from __future__ import annotations

import contextlib
import math
import os
import socket
import ssl
import sys
import threading
import time
import weakref
from typing import Any, Final

from azure.core.exceptions import ServiceResponseTimeoutError

SLOWEST: Final = 8192.0
"""Bytes per second (64 kbit/s) below which a body is given up."""
PIECE: Final = 256 * 1024
"""Bytes over which the speed of a body is taken: what the SDK reads at once."""
PAGE: Final = 4 * 1024 * 1024
"""Bytes that an answer without a stream may have, such as a page of a listing."""

_SHORTEST_NAP: Final = 0.05  # seconds between two looks at the calls under way
_LONGEST_NAP: Final = 0.25
_IDLE: Final = 10.0  # seconds without any after which the thread that looks ends


class Trickled(ServiceResponseTimeoutError):  # noqa: N818 (it says what the answer did)
    """An answer was not whole in its time, although it was never silent for long."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no whole answer within {seconds:.3g} s")
        self.seconds = seconds


def time_for_headers(options: Any, *, whole: bool) -> float | None:
    """Seconds for a connection and the headers, with these options of a request; `whole`: for all of the answer."""
    silence = time_for_body(options, PAGE if whole else 0)
    connect = options.get("connection_timeout")
    # Twice: a host may have two addresses.
    return None if silence is None or not isinstance(connect, (int, float)) else 2 * connect + silence


def time_for_body(options: Any, size: int) -> float | None:
    """Seconds for `size` bytes; None where the caller has set no time-out, or in the old way."""
    silence = options.get("read_timeout")
    return 2 * silence + size / SLOWEST if isinstance(silence, (int, float)) else None


class Slot:
    """A thread's deadline, which it sets and takes back without a lock: each piece of a body has one.

    `ending` is what makes that safe. The thread takes back `until` and then looks at `ending`; the one that watches
    sets `ending` and then looks at `until`: so one of them sees the other.
    """

    __slots__ = ("__weakref__", "ending", "expired", "thread", "until")

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        self.until = math.inf
        self.expired = False
        self.ending = False

    def arm(self, seconds: float) -> None:
        """End what this thread waits for from now on after `seconds`."""
        self.expired = False
        self.until = time.monotonic() + seconds
        if _watch.thread is None:
            _watch.start()

    def disarm(self) -> bool:
        """It has come, or not; True where it was ended."""
        self.until = math.inf
        if self.ending:
            with _watch.lock:
                pass
        return self.expired

    def end(self) -> None:
        """Shut down what the thread is reading from, if it is, and once; called while `disarm` cannot return."""
        frame = _frames().get(self.thread)
        while frame is not None:
            if frame.f_code in _READERS:
                reader = frame.f_locals["self"]
                read = getattr(reader, "_sock", reader)
                with contextlib.suppress(OSError, TypeError):  # its other end was quicker; it is nobody's socket
                    # Not TLS's own shutdown, which pulls its state from under the reader. Of TLS within TLS, the outer.
                    socket.socket.shutdown(getattr(read, "socket", read), socket.SHUT_RDWR)
                    self.expired = True
                    self.until = math.inf
                return
            frame = frame.f_back


def slot() -> Slot:
    """This thread's."""
    found: Slot | None = getattr(_watch.slots, "own", None)
    if found is None:
        found = _watch.slots.own = Slot()
        with _watch.lock:
            _watch.known.add(found)
    return found


class Deadline:
    """`with Deadline(seconds):` ends calls in it that wait for a socket longer than that, and raises `Trickled`.

    None: it does nothing. Neither http.client nor what is built on it bounds the time for a whole answer, nor lets
    one know the socket of a request under way. The stack of the waiting thread does: a thread that looks on finds
    there what is being read, and shuts it down. Looking up a name cannot be ended.
    """

    __slots__ = ("_seconds", "_slot")

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds

    def __enter__(self) -> None:
        if self._seconds is not None:
            self._slot = slot()
            self._slot.arm(self._seconds)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        # Also where all seems well: http.client takes headers that break off for whole ones.
        if self._seconds is not None and self._slot.disarm() and (error is None or isinstance(error, Exception)):
            raise Trickled(self._seconds) from None


_READERS: Final = frozenset({socket.SocketIO.readinto.__code__, ssl.SSLSocket.do_handshake.__code__})
_frames: Any = getattr(sys, "_current_frames", dict)


class _Watch:
    """One thread for all deadlines of the process, while there are any."""

    def __init__(self) -> None:
        self.slots = threading.local()
        self.known: weakref.WeakSet[Slot] = weakref.WeakSet()  # gone with their threads
        self.lock = threading.RLock()  # the garbage collector may run anything in here
        self.thread: threading.Thread | None = None
        self._never = threading.Event()

    def start(self) -> None:
        with self.lock:
            if self.thread is None:
                self.thread = threading.Thread(target=self._look_on, name="failover deadlines", daemon=True)
                with contextlib.suppress(RuntimeError):  # the interpreter is about to end
                    self.thread.start()

    def _look_on(self) -> None:
        busy, own = time.monotonic(), self.thread
        while True:
            with self.lock:
                now = time.monotonic()
                left = self._end_late_ones(now)
                if left < math.inf:
                    busy = now
                elif now - busy > _IDLE:
                    self.thread = None
                    if self._end_late_ones(now) == math.inf:  # else one was set just before it could see that
                        return
                    self.thread = own
            self._never.wait(min(_LONGEST_NAP, max(left, _SHORTEST_NAP)))  # not time.sleep, which a test may replace

    def _end_late_ones(self, now: float) -> float:
        """Seconds until the next is late."""
        left = math.inf
        for each in list(self.known):
            each.ending = True
            if each.until <= now:
                each.end()
            each.ending = False
            left = min(left, each.until - now)
        return left


_watch = _Watch()


def _after_fork() -> None:
    """A forked child has none of its parent's threads, and a lock that one of them may hold."""
    global _watch
    _watch = _Watch()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
