"""How long an answer may take that never falls silent, and what ends it then: a byte now and then is no answer.

A transport's time-out is for the next byte. An endpoint that sends one a second keeps below it for hours.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import sys
import threading
import time
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


class Deadline:
    """`with Deadline(seconds):` ends calls in it that wait for a socket longer than that, and raises `Trickled`.

    None: it does nothing. Neither http.client nor what is built on it bounds the time for a whole answer, nor lets
    one know the socket of a request under way. The stack of the waiting thread does: a thread that looks on finds
    there what is being read, and shuts it down. Looking up a name cannot be ended.
    """

    __slots__ = ("_expired", "_seconds", "thread", "until")

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._expired = False

    def __enter__(self) -> None:
        if self._seconds is not None:
            self.until = time.monotonic() + self._seconds
            self.thread = threading.get_ident()
            _watch.add(self)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        if self._seconds is None:
            return
        _watch.discard(self)
        # Also where all seems well: http.client takes headers that break off for whole ones.
        if self._expired and (error is None or isinstance(error, Exception)):
            raise Trickled(self._seconds) from None

    def end(self) -> None:
        """Shut down what the thread is reading from, if it is; called while `discard` cannot return."""
        frame = _frames().get(self.thread)
        while frame is not None:
            if frame.f_code in _READERS:
                reader = frame.f_locals["self"]
                read = getattr(reader, "_sock", reader)
                with contextlib.suppress(OSError, TypeError):  # its other end was quicker; it is nobody's socket
                    # Not TLS's own shutdown, which pulls its state from under the reader. Of TLS within TLS, the outer.
                    socket.socket.shutdown(getattr(read, "socket", read), socket.SHUT_RDWR)
                    self._expired = True
                return
            frame = frame.f_back


_READERS: Final = frozenset({socket.SocketIO.readinto.__code__, ssl.SSLSocket.do_handshake.__code__})
_frames: Any = getattr(sys, "_current_frames", dict)


class _Watch:
    """One thread for all deadlines of the process, while there are any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._under_way: set[Deadline] = set()
        self._thread: threading.Thread | None = None
        self._never = threading.Event()

    def add(self, deadline: Deadline) -> None:
        with self._lock:
            self._under_way.add(deadline)
            if self._thread is None:
                self._thread = threading.Thread(target=self._look_on, name="failover deadlines", daemon=True)
                with contextlib.suppress(RuntimeError):  # the interpreter is about to end
                    self._thread.start()

    def discard(self, deadline: Deadline) -> None:
        with self._lock:
            self._under_way.discard(deadline)

    def _look_on(self) -> None:
        busy = time.monotonic()
        while True:
            with self._lock:
                now = time.monotonic()
                nap = _LONGEST_NAP
                for each in self._under_way:
                    if each.until <= now:
                        each.end()
                    nap = min(nap, max(each.until - now, _SHORTEST_NAP))
                if self._under_way:
                    busy = now
                elif now - busy > _IDLE:
                    self._thread = None
                    return
            self._never.wait(nap)  # not time.sleep, which a test may replace


_watch = _Watch()


def _after_fork() -> None:
    """A forked child has none of its parent's threads, and a lock that one of them may hold."""
    global _watch
    _watch = _Watch()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
