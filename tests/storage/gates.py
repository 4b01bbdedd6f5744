"""An account of two raw servers whose answers wait until a test lets them go: for reads that are hedged."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import pytest

from failover.storage import hedging
from tests.storage.account import HELLO
from tests.storage.raw_server import Answer, Asked, Pair, RawServer, ranged

SOON: Final = 0.02
"""Seconds, for `hedge_after`: a healthy answer over loopback takes a tenth."""
LONG: Final = 30.0
"""Seconds that a test waits at most for what is to happen."""

Answers = Callable[[Asked], Answer]


class Gate:
    """Lets answers to reads go on when it is opened. `waiting` counts those that have arrived at it."""

    def __init__(self) -> None:
        self._open = threading.Event()
        self.waiting = threading.Semaphore(0)

    def __call__(self, answer: Answers) -> Answers:
        def later(asked: Asked) -> Answer:
            if asked.method in ("GET", "HEAD"):
                self.waiting.release()
                self._open.wait(LONG)
            return answer(asked)

        return later

    def open(self) -> None:
        self._open.set()


def hello(asked: Asked) -> Answer:
    """The answer of an endpoint that is well."""
    if asked.method == "HEAD":
        return Answer(f'HTTP/1.1 200 OK\nETag: "0x1"\nx-ms-blob-type: BlockBlob\nContent-Length: {len(HELLO)}')
    return ranged(HELLO, asked)


def status(code: int, error: str = "") -> Answers:
    """Answers without a body."""

    def answer(_asked: Asked) -> Answer:
        return Answer(f"HTTP/1.1 {code} No\nContent-Length: 0\nx-ms-error-code: {error}")

    return answer


@contextmanager
def account(primary: Answers, secondary: Answers = hello) -> Iterator[Pair]:
    """Two endpoints, each with its answers."""
    with RawServer(primary) as first, RawServer(secondary, path="/devstoreaccount1-secondary") as second:
        yield Pair(first, second)


def eventually(holds: Callable[[], bool]) -> None:
    """Wait for what another thread, or the loop, does."""
    pause = threading.Event()
    for _ in range(int(LONG / 0.01)):
        if holds():
            return
        pause.wait(0.01)
    pytest.fail("it never came true")


def losers() -> int:
    """Threads and tasks with requests that have lost and still wait."""
    busy = sum(thread.name == "failover-hedge" for thread in threading.enumerate()) - len(hedging._idle)
    return busy + len(hedging._tasks)
