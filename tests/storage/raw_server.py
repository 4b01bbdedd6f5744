"""Servers of our own on loopback: sockets that misbehave on demand, and a port that can be lost."""

from __future__ import annotations

import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import IO, Literal
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Asked:
    """A request as it came over the wire; names of headers are lower-case."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes = b""

    @property
    def span(self) -> tuple[int, int | None] | None:
        """First and last byte of the range that it asks for."""
        wanted = self.headers.get("x-ms-range") or self.headers.get("range")
        if wanted is None:
            return None
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        return int(first), int(last) if last else None


@dataclass
class Answer:
    """Bytes to send, and what becomes of the connection then.

    `trickle` is sent behind the rest, each piece after `pause` seconds: it may be endless.
    """

    head: str
    body: bytes = b""
    then: Literal["keep", "close", "reset", "hang"] = "keep"
    trickle: Iterable[bytes] = ()
    pause: float = 0.0

    def as_bytes(self) -> bytes:
        head = self.head.replace("\n", "\r\n").encode() + b"\r\n\r\n" if self.head else b""
        return head + self.body


@dataclass
class RawServer:
    """A TCP server on loopback that answers each request by `answer`, and counts requests and connections.

    `tls`: speak TLS, as this context says at the time.
    """

    answer: Callable[[Asked], Answer]
    path: str = "/devstoreaccount1"
    asked: list[Asked] = field(default_factory=list)
    connections: int = 0
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._listen()

    @property
    def url(self) -> str:
        return f"http{'s' if self.tls else ''}://127.0.0.1:{self.port}{self.path}"

    def close(self) -> None:
        self._over.set()
        self._shut()

    def lose(self) -> None:
        """Refuse connections and cut those that are open, until `restore`. The port stays ours meanwhile."""
        self._shut()
        self._listener = socket.socket()
        if os.name != "nt":  # where it means something else
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self.port))

    def restore(self) -> None:
        self._listener.listen(128)
        self._listen()

    def cut(self) -> None:
        """Break the connections that are open."""
        with self._lock:
            for each in self._open:
                with suppress(OSError):
                    # Not TLS's own, which would take the state away that another thread is using.
                    socket.socket.shutdown(each, socket.SHUT_RDWR)

    def _shut(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def _listen(self) -> None:
        threading.Thread(target=self._accept, args=(self._listener,), name="raw server", daemon=True).start()

    def __enter__(self) -> RawServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), name="raw connection", daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with suppress(OSError), connection:
            if self.tls is not None:
                connection = self.tls.wrap_socket(connection, server_side=True)
            with connection, connection.makefile("rb") as lines:
                with self._lock:
                    self._open.add(connection)
                try:
                    self._talk(connection, lines)
                finally:
                    with self._lock:
                        self._open.discard(connection)

    def _talk(self, connection: socket.socket, lines: IO[bytes]) -> None:
        while True:
            first = lines.readline().decode().split()
            if len(first) != 3:
                return
            method, target, _ = first
            headers = {}
            while line := lines.readline().decode().strip():
                name, _, value = line.partition(":")
                headers[name.lower()] = value.strip()
            asked = Asked(method, target, headers, lines.read(int(headers.get("content-length", "0"))))
            with self._lock:
                self.asked.append(asked)
            answer = self.answer(asked)
            connection.sendall(answer.as_bytes())
            for piece in answer.trickle:
                if self._over.wait(answer.pause):
                    return
                connection.sendall(piece)
            if answer.then == "hang":
                self._over.wait(30)
            if answer.then == "reset":
                # A linger of nothing makes close() send a reset.
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return
            if answer.then != "keep":
                connection.shutdown(socket.SHUT_RDWR)
                return


@dataclass
class Pair:
    """Two raw servers as an account's endpoints, as far as `connect` wants to know."""

    primary: RawServer
    secondary: RawServer
    account_name: str = "devstoreaccount1"
    account_key: str = "a2V5"

    @property
    def primary_url(self) -> str:
        return self.primary.url

    @property
    def secondary_url(self) -> str:
        return self.secondary.url

    def trail(self) -> str:
        return f"{len(self.primary.asked)} at the primary, {len(self.secondary.asked)} at the secondary"


def ranged(content: bytes, asked: Asked, *, etag: str = '"0x1"', length: bool = True, extra: str = "") -> Answer:
    """The answer of a well-behaved service to a read of a blob with this content; extra headers begin with `\\n`."""
    first, last = asked.span or (0, None)
    part = content[first : len(content) if last is None else last + 1]
    head = (
        f"HTTP/1.1 206 Partial Content\nETag: {etag}\nx-ms-blob-type: BlockBlob\n"
        f"Content-Range: bytes {first}-{first + len(part) - 1}/{len(content)}"
    )
    return Answer(head + (f"\nContent-Length: {len(part)}" if length else "") + extra, part)


class Relay:
    """A TCP port in front of another, that can be lost and restored: for an account that cannot lose its own."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._target = (parts.hostname, parts.port)
        self._path = parts.path
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._listen(self._listener)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self._path}"

    def lose(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            for each in self._open:
                with suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            self._open.clear()

    def restore(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._listen(self._listener)

    def _listen(self, listener: socket.socket) -> None:
        threading.Thread(target=self._accept, args=(listener,), name="relay", daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._target)
            with self._lock:
                self._open |= {near, far}
            for source, sink in ((near, far), (far, near)):
                threading.Thread(target=self._pump, args=(source, sink), name="relay pump", daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(64 * 1024):
                sink.sendall(data)
        for each in (source, sink):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
