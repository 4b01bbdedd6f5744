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
from collections.abc import Callable
from typing import Any, Final, TypeVar

from azure.core.exceptions import ServiceResponseTimeoutError

T = TypeVar("T")

SLOWEST: Final = 8192.0
"""Bytes per second (64 kbit/s) below which a body is given up."""
PIECE: Final = 256 * 1024
"""Bytes over which the speed of a body is taken: what the SDK reads at once."""
PAGE: Final = 4 * 1024 * 1024
"""Bytes that an answer without a stream may have, such as a page of a listing."""

SHORTEST_NAP: Final = 0.05
"""Seconds between two looks at what is waited for at least, and after that at most."""
LONGEST_NAP: Final = 0.25

_IDLE: Final = 10.0  # seconds without any after which the thread that looks ends


class Trickled(ServiceResponseTimeoutError):  # noqa: N818 (it says what the answer did)
    """An answer was not whole in its time, although it was never silent for long."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no whole answer within {seconds:.3g} s")
        self.seconds = seconds


class Patience:
    """How long one request may take, by its time-outs, `connection_timeout` and `read_timeout`.

    headers: seconds for a connection and the headers. whole: for all of an answer that is no stream. silence: for a
    body, beside those for its size. Each is None where the caller has set no time-out, or in the old way.
    """

    __slots__ = ("headers", "silence", "whole")

    def __init__(self, connect: object, silence: object) -> None:
        self.headers: float | None = None
        self.whole: float | None = None
        self.silence: float | None = None
        if isinstance(silence, (int, float)):
            self.silence = 2 * silence
            if isinstance(connect, (int, float)):
                self.headers = 2 * (connect + silence)  # twice: a host may have two addresses
                self.whole = self.headers + PAGE / SLOWEST

    def body(self, size: int) -> float | None:
        """Seconds for a body of `size` bytes."""
        return None if self.silence is None else self.silence + size / SLOWEST


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

    def was_ended(self) -> bool:
        """Asked when `until` has been taken back: what the thread waited for was ended. Waits for an end under way."""
        if self.ending:
            with _watch.lock:
                pass
        return self.expired

    def end(self) -> None:
        """Shut down what the thread is reading from, if it is, and once; called while `was_ended` cannot return."""
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
    """One for this thread, which has none."""
    own = _watch.slots.own = Slot()
    with _watch.lock:
        _watch.known.add(own)
    return own


def timed(seconds: float | None, call: Callable[..., T], *args: Any) -> tuple[T, float | None]:
    """What `call(*args)` gives, and how many of the `seconds` are left; None: as long as it takes.

    Where it waits for a socket longer than that it is ended, and this raises `Trickled`. Neither http.client nor what
    is built on it bounds the time for a whole answer, nor lets one know the socket of a request under way. The stack of
    the waiting thread does: a thread that looks on finds there what is being read, and shuts it down. Looking up a
    name cannot be ended.
    """
    if seconds is None:
        return call(*args), None
    own: Slot | None = None
    try:
        # Written out: each piece of a body comes this way, and each call in here would be a tenth of what it costs.
        own = getattr(_watch.slots, "own", None) or slot()
        own.expired = False
        began = time.monotonic()
        own.until = began + seconds
        if _watch.thread is None:
            _watch.start()
        result = call(*args)
        own.until = math.inf
    except BaseException as error:
        if own is not None:
            own.until = math.inf
            if own.was_ended() and isinstance(error, Exception):
                raise Trickled(seconds) from None
        raise
    # Also where all seems well: http.client takes headers that break off for whole ones.
    if (own.ending or own.expired) and own.was_ended():
        raise Trickled(seconds)
    return result, seconds - (time.monotonic() - began)


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
            self._never.wait(min(LONGEST_NAP, max(left, SHORTEST_NAP)))  # not time.sleep, which a test may replace

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
