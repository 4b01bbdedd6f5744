"""The soak's account: two endpoints in a process of their own, whose faults are switched from here, and a witness."""

from __future__ import annotations

import contextlib
import http.client
import multiprocessing
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from tests.storage.account import KIB
from tests.storage.raw_server import Answer, Asked, RawServer, ranged

CONTENTS: Final = {f"blob{size}": random.Random(size).randbytes(size) for size in (13, 5 * KIB, 100 * KIB)}
KINDS: Final = ("503", "timeout", "reset", "cut", "slow", "down", "trickle")
MORE_KINDS: Final = (*KINDS, "429", "etag")
HARMLESS: Final = ("well", "slow")
SILENCE: Final = 1.0  # seconds: attempt_timeout
COOLDOWN: Final = 0.1  # seconds
MEMORY: Final = 4 * COOLDOWN + 2 * SILENCE  # seconds for which a fault may be felt: open, or a probe under way


def _answer(kind: str, asked: Asked) -> Answer:
    good = ranged(CONTENTS[asked.target.partition("?")[0].rpartition("/")[2]], asked)
    if kind == "503":
        return Answer("HTTP/1.1 503 Busy\nContent-Length: 4", b"busy")
    if kind == "429":
        return Answer("HTTP/1.1 429 Too Many Requests\nContent-Length: 4", b"busy")
    if (
        kind == "etag" and "if-match" in asked.headers
    ):  # another version than asked for; of the first range who could tell
        return Answer(good.head.replace('"0x1"', '"0x2"'), good.body[::-1])
    if kind == "timeout":
        return Answer("", b"", "hang")
    if kind == "reset":
        return Answer("", b"", "reset")
    if kind == "cut":
        return Answer(good.head, good.body[: len(good.body) // 2], "close")
    if kind == "trickle":
        return Answer(good.head, trickle=(bytes([each]) for each in good.body), pause=SILENCE / 2)
    if kind == "slow":
        time.sleep(SILENCE / 20)
    return good


def _serve(pipe: Any) -> None:
    """Two endpoints, and which fault is on at which, as `pipe` tells."""
    faults = {"primary": "well", "secondary": "well"}
    paths = {"primary": "/devstoreaccount1", "secondary": "/devstoreaccount1-secondary"}
    servers = {at: RawServer(lambda asked, at=at: _answer(faults[at], asked), path=paths[at]) for at in faults}  # type: ignore[misc]  # mypy cannot infer a lambda's default
    pipe.send({at: server.url for at, server in servers.items()})
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            for at, kind in pipe.recv().items():
                if "down" in (kind, faults[at]) and kind != faults[at]:
                    (servers[at].lose if kind == "down" else servers[at].restore)()
                faults[at] = kind
            for server in servers.values():
                server.asked.clear()
            pipe.send(None)


@dataclass
class Account:
    """The servers of another process, as an account."""

    pipe: Any
    primary_url: str
    secondary_url: str
    account_name: str = "devstoreaccount1"
    account_key: str = field(default="a2V5", repr=False)

    def __post_init__(self) -> None:
        self.faults = {"primary": "well", "secondary": "well"}
        self._out: dict[str, list[list[float]]] = {at: [] for at in self.faults}
        self._late: dict[str, list[list[float]]] = {at: [] for at in self.faults}

    def witness(self, over: threading.Event) -> None:
        """Ask each endpoint that is well, by no code of ours, until `over`: what comes late is out for us too.

        A machine that is too busy takes more than a time-out for an answer, which is no fault of who gave up.
        """
        while not over.wait(0.2):
            for at, url in (("primary", self.primary_url), ("secondary", self.secondary_url)):
                began, parts = time.monotonic(), urlsplit(url)
                link = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=SILENCE)
                with contextlib.closing(link), suppress(OSError, http.client.HTTPException):
                    link.request("GET", f"{parts.path}/demo/blob13")
                    link.getresponse().read()
                if self.faults[at] in HARMLESS and time.monotonic() - began > SILENCE / 2:
                    self._late[at].append([began, time.monotonic()])

    def was_late(self, began: float, ended: float) -> bool:
        """Whether the machine was too busy, at some time between, for an endpoint that was well."""
        return any(first <= ended and last >= began for times in self._late.values() for first, last in times[-50:])

    @property
    def late(self) -> int:
        """How often an endpoint that was well answered late."""
        return sum(map(len, self._late.values()))

    def switch(self, **faults: str) -> None:
        """Let these faults be on, by endpoint, and note from when to when an endpoint was out."""
        for at, kind in faults.items():
            if self.faults[at] in HARMLESS and kind not in HARMLESS:
                self._out[at].append([time.monotonic(), float("inf")])
        before, self.faults = self.faults, self.faults | faults
        self.pipe.send(faults)
        self.pipe.recv()
        for at, kind in faults.items():
            if before[at] not in HARMLESS and kind in HARMLESS:
                self._out[at][-1][1] = time.monotonic()

    def since(self, now: float) -> dict[str, float]:
        """Seconds since each endpoint was last out."""
        ended = {at: times[-1][1] if times else float("-inf") for at, times in self._out.items()}
        return {at: round(max(0.0, now - last), 2) for at, last in ended.items()}

    def both_out(self, began: float, ended: float) -> bool:
        """Whether a read of this time may have met both endpoints out, or circuits that still were."""
        return all(
            any(
                first <= ended and last >= began - MEMORY
                for first, last in (*self._out[at][-50:], *self._late[at][-50:])
            )
            for at in self.faults
        )


@contextmanager
def serving() -> Iterator[Account]:
    """The account, as long as it is needed."""
    context = multiprocessing.get_context("spawn")
    near, far = context.Pipe()
    process = context.Process(target=_serve, args=(far,), daemon=True)
    process.start()
    try:
        urls = near.recv()
        yield Account(near, urls["primary"], urls["secondary"])
    finally:
        near.close()
        process.terminate()
        process.join()
