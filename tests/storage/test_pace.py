"""How long what trickles may take: no longer than its size allows, whoever reads it slowly."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import SimpleNamespace
from typing import IO, Any

import pytest

from failover.storage import pace
from failover.storage.body import ThreadBody
from failover.storage.calls import ThreadCalls
from failover.storage.pace import PIECE, Patience, Trickled, timed
from tests.driving import wait_until


def test_the_time_for_an_answer() -> None:
    patience = Patience(3.0, 5.0)

    assert patience.headers == 16
    assert patience.whole == 16 + 512
    assert patience.body(0) == 10
    assert patience.body(PIECE) == 10 + 32


@pytest.mark.parametrize(("connect", "silence"), [(None, None), ((1, 2), None), (1, None)])
def test_a_caller_who_sets_no_time_out_gets_none(connect: object, silence: object) -> None:
    patience = Patience(connect, silence)

    assert (patience.headers, patience.whole, patience.body(1)) == (None, None, None)


def test_a_body_has_time_by_its_size_and_its_readers_own_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    limits: list[float] = []
    monkeypatch.setattr(pace, "time", SimpleNamespace(monotonic=lambda: now[0]))

    def timed(seconds: float | None, call: Any, *args: Any) -> tuple[Any, float | None]:
        assert seconds is not None
        limits.append(round(seconds, 2))
        return pace.timed(seconds, call, *args)

    monkeypatch.setattr("failover.storage.body.timed", timed)

    class Slow(list[bytes]):
        def __iter__(self) -> Iterator[bytes]:
            for piece in (*super().__iter__(), None):
                now[0] += 1
                if piece is not None:
                    yield piece

    sizes = [PIECE, PIECE // 2, PIECE // 4, PIECE // 4, PIECE // 2]
    source: Any = SimpleNamespace(ended=lambda: None)
    body = ThreadBody(
        ThreadCalls(),
        source,
        Slow(bytes(size) for size in sizes),
        length=sum(sizes),
        silence=10,
        reopen=lambda _: None,  # nothing breaks
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
    def read() -> None:
        lines.readline()
        if then is not None:
            raise then

    timed(0.2, read)


def test_a_line_that_never_ends() -> None:
    with dripping() as near, near.makefile("rb") as lines, pytest.raises(Trickled, match=r"within 0\.2 s"):
        read_a_line(lines)


def test_a_handshake_that_never_ends() -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with dripping(b"\x16\x03\x03\x3f\xff\x02\x00\x3f\xf0") as near, pytest.raises(Trickled):
        timed(0.2, context.wrap_socket, near)


def test_what_ends_in_time_is_left_alone() -> None:
    with dripping() as near, near.makefile("rb") as lines:
        two, left = timed(60, lines.read, 2)
        assert two == b"\0\0"
        assert left is not None
        assert 0 < left < 60
        assert timed(None, lines.read, 1) == (b"\0", None)


def test_nothing_is_put_in_the_place_of_an_interrupt() -> None:
    with dripping() as near, near.makefile("rb") as lines, pytest.raises(KeyboardInterrupt):
        read_a_line(lines, then=KeyboardInterrupt())


def test_the_thread_that_looks_on_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pace, "_IDLE", 0.1)
    names, _ = timed(60, lambda: [each.name for each in threading.enumerate()])
    assert "failover deadlines" in names
    wait_until(lambda: "failover deadlines" not in {each.name for each in threading.enumerate()}, "its end")
    with dripping() as near, near.makefile("rb") as lines, pytest.raises(Trickled):
        read_a_line(lines)
