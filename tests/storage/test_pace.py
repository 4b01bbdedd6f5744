"""How long what trickles may take: no longer than its size allows, whoever reads it slowly."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, Any

import pytest

from failover.storage import pace
from failover.storage.body import ThreadBody
from failover.storage.calls import ThreadCalls
from failover.storage.pace import PIECE, Deadline, Trickled, time_for_body, time_for_headers
from tests.driving import wait_until

OPTIONS = {"connection_timeout": 3.0, "read_timeout": 5.0}


def test_the_time_for_an_answer() -> None:
    assert time_for_headers(OPTIONS, whole=False) == 16
    assert time_for_headers(OPTIONS, whole=True) == 16 + 512
    assert time_for_body(OPTIONS, 0) == 10
    assert time_for_body(OPTIONS, PIECE) == 10 + 32


@pytest.mark.parametrize(
    "options", [{}, {"connection_timeout": (1, 2)}, {"connection_timeout": 1, "read_timeout": None}]
)
def test_a_caller_who_sets_no_time_out_gets_none(options: dict[str, Any]) -> None:
    assert time_for_headers(options, whole=False) is None
    assert time_for_body(options, 1) is None


def test_a_body_has_time_by_its_size_and_its_readers_own_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now, limits = [0.0], []
    monkeypatch.setattr("failover.storage.body.time.perf_counter", lambda: now[0])

    class Calls(ThreadCalls):
        def pull(self, chunks: Any, seconds: float | None) -> bytes | None:
            assert seconds is not None
            limits.append(round(seconds, 2))
            now[0] += 1
            return next(chunks, None)

    sizes = [PIECE, PIECE // 2, PIECE // 4, PIECE // 4, PIECE // 2]
    body = ThreadBody(
        Calls(),
        [bytes(size) for size in sizes],
        length=sum(sizes),
        seconds=lambda size: 10 + size / PIECE * 32,
        resume=lambda *_: None,  # type: ignore[arg-type]  # nothing breaks
        ended=lambda: None,
        given_up=lambda: None,
    )
    for _ in body:
        now[0] += 1000

    # Whole pieces, one of them in three parts; then what is left, and the end.
    assert limits == [42, 42, 41, 40, 26, 25]


@contextmanager
def dripping(first: bytes = b"") -> Iterator[socket.socket]:
    """A connection to a server that sends `first`, and then a zero twenty times a second."""
    near, far = socket.socketpair()
    over = threading.Event()

    def drip() -> None:
        with suppress(OSError):
            far.sendall(first)
            while not over.wait(0.05):
                far.sendall(b"\0")

    thread = threading.Thread(target=drip)
    thread.start()
    near.settimeout(60)
    try:
        yield near
    finally:
        over.set()
        thread.join()
        near.close()
        far.close()


def read_a_line(lines: IO[bytes], then: BaseException | None = None) -> None:
    with Deadline(0.2):
        lines.readline()
        if then is not None:
            raise then


def test_a_line_that_never_ends() -> None:
    with dripping() as near, near.makefile("rb") as lines, pytest.raises(Trickled, match=r"within 0\.2 s"):
        read_a_line(lines)


def test_a_handshake_that_never_ends() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with dripping(b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xf0") as near, pytest.raises(Trickled), Deadline(0.2):
        context.wrap_socket(near)


def test_what_ends_in_time_is_left_alone() -> None:
    with dripping() as near, near.makefile("rb") as lines:
        with Deadline(60):
            assert lines.read(2) == b"\0\0"
        with Deadline(None):
            assert lines.read(1) == b"\0"


def test_nothing_is_put_in_the_place_of_an_interrupt() -> None:
    with dripping() as near, near.makefile("rb") as lines, pytest.raises(KeyboardInterrupt):
        read_a_line(lines, then=KeyboardInterrupt())


def test_the_thread_that_looks_on_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_IDLE", 0.1)
    with Deadline(60):
        assert [each for each in threading.enumerate() if each.name == "failover deadlines"]
    wait_until(lambda: "failover deadlines" not in {each.name for each in threading.enumerate()}, "its end")
    with dripping() as near, near.makefile("rb") as lines, pytest.raises(Trickled):
        read_a_line(lines)
