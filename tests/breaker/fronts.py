"""What stands before a store's server in a test: TLS, or a line over which bytes come one by one."""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def front(port: int, *, tls: tuple[Path, Path] | None = None, each_byte: float | None = None) -> Iterator[int]:
    """A port on 127.0.0.1 that passes everything on to `port`.

    Args:
        port: Of the server, on 127.0.0.1.
        tls: Certificate and key with which the front speaks TLS to its clients.
        each_byte: Seconds before each byte of an answer; None: answers pass as they come.
    """
    context = None
    if tls is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*tls)
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listener:
        threading.Thread(target=_accept, args=(listener, port, context, each_byte), daemon=True).start()
        yield listener.getsockname()[1]


def _accept(listener: socket.socket, port: int, context: ssl.SSLContext | None, each_byte: float | None) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_serve, args=(client, port, context, each_byte), daemon=True).start()


def _serve(client: socket.socket, port: int, context: ssl.SSLContext | None, each_byte: float | None) -> None:
    with suppress(OSError):
        if context is not None:
            client = context.wrap_socket(client, server_side=True)
        with client, socket.create_connection(("127.0.0.1", port)) as server:
            there = threading.Thread(target=_pass, args=(client, server, None), daemon=True)
            there.start()
            _pass(server, client, each_byte)


def _pass(source: socket.socket, target: socket.socket, each_byte: float | None) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            if each_byte is None:
                target.sendall(data)
                continue
            for number in range(len(data)):
                time.sleep(each_byte)
                target.sendall(data[number : number + 1])
    for each in (source, target):
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
