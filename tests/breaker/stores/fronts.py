"""What stands before a store's server in a test: it counts requests, or lets bytes pass one by one."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


@dataclass
class Front:
    """A port on 127.0.0.1 that passes everything on to a server there.

    Attributes:
        server: The server's port.
        each_byte: Seconds before each byte of an answer; None: answers pass as they come. May be changed any time.
        port: The front's own.
        requests: How many HTTP requests have passed.
    """

    server: int
    each_byte: float | None = None
    port: int = 0
    requests: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def accept(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self.server)) as server:
            threading.Thread(target=self._pass, args=(client, server, True), daemon=True).start()
            self._pass(server, client, False)

    def _pass(self, source: socket.socket, target: socket.socket, there: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if there:
                    with self._lock:
                        self.requests += data.count(b" HTTP/1.1\r\n")
                for piece in [data] if there or self.each_byte is None else (data[n : n + 1] for n in range(len(data))):
                    time.sleep(self.each_byte or 0.0 if not there else 0.0)
                    target.sendall(piece)
        for each in (source, target):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


@contextmanager
def front(server: int, each_byte: float | None = None) -> Iterator[Front]:
    """A front of the server at this port, for as long as the block lasts."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listener:
        made = Front(server, each_byte, listener.getsockname()[1])
        threading.Thread(target=made.accept, args=[listener], daemon=True).start()
        yield made


@contextmanager
def silent_server() -> Iterator[int]:
    """A port that takes connections and never says anything."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(20)
        yield listener.getsockname()[1]
