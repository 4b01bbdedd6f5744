"""HTTP on loopback ports that can be closed and opened again. It handles requests and replies, not their meaning.

A lost port is really closed: connections to it are refused, and open ones break in the middle of whatever they were
doing. No thread is left running, and a client that hangs or disappears prints nothing.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from failover.standin.service import Endpoint, Reply, Request, error

HOST = "127.0.0.1"

_MAX_BODY = 256 * 1024 * 1024
_POLL = 0.02  # seconds until a server notices that it must stop
_CLOSE_TIMEOUT = 2.0  # seconds that close() waits for its threads; one that is stuck in a hook may take longer

_logger = logging.getLogger("failover.standin")


@dataclass(slots=True)
class Exchange:
    """A request and the reply that is about to be sent, which a hook may change.

    The request has already taken effect, as it has when a proxy replaces an answer.

    Attributes:
        request: The request.
        reply: The reply; it may be replaced.
        delay: Seconds of real time before the first byte.
        cut_after: Bytes of the body after which the connection is closed (0: after the headers); None: the whole body
            is sent.
    """

    request: Request
    reply: Reply
    delay: float = 0.0
    cut_after: int | None = None

    def fail(self, status: int, code: str = "ServerBusy", message: str = "A fault was switched on.") -> None:
        """Reply with an error of the service instead."""
        self.reply = error(status, code, message)


Handle = Callable[[Request], Exchange]


class Port:
    """An ephemeral port of 127.0.0.1 that serves `/account...`, open from the start.

    While it is shut it stays bound, and does not listen. A port that was released could be given to another program, or
    to a client's own socket, before it is opened again.

    Args:
        endpoint: The endpoint that it is.
        account: The first part of each path.
        handle: Answers a request; called in the request's thread.

    Raises:
        OSError: No port is free.
    """

    def __init__(self, endpoint: Endpoint, account: str, handle: Handle) -> None:
        self._endpoint: Endpoint = endpoint
        self._account = account
        self._handle = handle
        self._lock = threading.Lock()
        self._accepting: threading.Thread | None = None
        self._closed = False
        self._broken: list[threading.Thread] = []  # of connections that were broken; most have ended already
        self._server = self._bind(0)
        self.number: int = self._server.server_address[1]
        self.open()

    def open(self) -> None:
        """Listen. Idempotent. Raises RuntimeError after `close()`."""
        with self._lock:
            if self._closed:
                raise RuntimeError(f"the stand-in account's {self._endpoint} was closed for good")
            if self._accepting is not None:
                return
            self._server.server_activate()
            self._accepting = threading.Thread(
                target=self._server.serve_forever, args=(_POLL,), name=f"stand-in {self._endpoint}", daemon=True
            )
            self._accepting.start()

    def shut(self) -> None:
        """Refuse connections from now on, and break those that are open. Idempotent."""
        with self._lock:
            if self._accepting is not None:
                self._stop(self._accepting)
                self._server = self._bind(self.number)

    def close(self) -> None:
        """Release the port, and wait until its threads have ended. Idempotent."""
        with self._lock:
            self._closed = True
            if self._accepting is not None:
                self._stop(self._accepting)
            self._server.server_close()
        deadline = time.monotonic() + _CLOSE_TIMEOUT
        for thread in self._broken:
            if thread is not threading.current_thread():
                thread.join(max(0.0, deadline - time.monotonic()))

    def _bind(self, number: int) -> _Server:
        return _Server(number, self._endpoint, self._account, self._handle)

    def _stop(self, accepting: threading.Thread) -> None:
        self._server.shutdown()
        accepting.join()
        self._accepting = None
        self._server.server_close()
        self._broken = [thread for thread in self._broken if thread.is_alive()] + self._server.break_connections()


class _Server(ThreadingHTTPServer):
    """The server of a port: bound when it is made, listening once `server_activate()` is called."""

    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = os.name != "nt"  # on Windows it would let another process share the port
    allow_reuse_port = False

    def __init__(self, number: int, endpoint: Endpoint, account: str, handle: Handle) -> None:
        super().__init__((HOST, number), _Handler, bind_and_activate=False)
        self.endpoint: Endpoint = endpoint
        self.account = account
        self.handle = handle
        self.stopping = threading.Event()
        self._live: dict[socket.socket, threading.Thread] = {}
        self._live_lock = threading.Lock()
        try:
            self.server_bind()
        except OSError:
            self.server_close()
            raise

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's looks up this machine's name, which can take seconds

    def process_request(self, request: Any, client_address: Any) -> None:
        # The mixin forgets its threads. Here a connection must be known before it is served.
        thread = threading.Thread(
            target=self.process_request_thread, args=(request, client_address), name="stand-in request", daemon=True
        )
        with self._live_lock:
            self._live[request] = thread
        thread.start()

    def shutdown_request(self, request: Any) -> None:
        with self._live_lock:
            self._live.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002  # socketserver's signature
        # A client that went away, or whose connection was broken, is an OSError. Anything else is a bug of ours.
        if not isinstance(sys.exc_info()[1], OSError):
            _logger.exception("the stand-in account failed to answer a request")

    def break_connections(self) -> list[threading.Thread]:
        """Break every open connection, and return the threads that will end. The port is closed by now."""
        with self._live_lock:
            for connection in self._live:
                with suppress(OSError):  # its client was quicker
                    connection.shutdown(socket.SHUT_RDWR)
            threads = list(self._live.values())
        self.stopping.set()  # only now, so that no delayed answer is sent
        return threads


class _Handler(BaseHTTPRequestHandler):
    """One connection, request after request."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        body = self._body()
        if body is None:
            return
        url = urlsplit(self.path)
        account, _, rest = url.path.lstrip("/").partition("/")
        if account != self.server.account:
            self._refuse(400, "InvalidUri", f"The {self.server.endpoint} endpoint has no account of this name.")
            return
        exchange = self.server.handle(
            Request(
                endpoint=self.server.endpoint,
                method=self.command,
                path="/" + unquote(rest),
                query=dict(parse_qsl(url.query, keep_blank_values=True)),
                headers={name.lower(): value for name, value in self.headers.items()},
                body=body,
            )
        )
        if exchange.delay:
            self.server.stopping.wait(exchange.delay)
        self._send(exchange.reply, exchange.cut_after)

    # http.server looks for methods of these names.
    do_HEAD = do_PUT = do_DELETE = do_POST = do_PATCH = do_OPTIONS = do_GET  # noqa: N815

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        # http.server calls this for what it cannot parse, and would answer with an HTML page.
        self._refuse(code, "InvalidInput", message or explain or _phrase(code))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # http.server's signature
        """Log nothing: stderr belongs to the program that runs us, and a query may contain a SAS."""

    def _body(self) -> bytes | None:
        """Return the request's body; None where it was refused, or was not sent to its end."""
        length = self.headers.get("Content-Length", "" if self.command in ("PUT", "POST", "PATCH") else "0")
        if "Transfer-Encoding" in self.headers:
            self._refuse(501, "NotImplemented", "The stand-in account does not do this: requests in chunks.")
        elif not length:
            self._refuse(411, "MissingContentLengthHeader", "Content-Length is missing.")
        elif not (length.isascii() and length.isdigit()):
            self._refuse(400, "InvalidHeaderValue", "Content-Length is not a number.")
        elif int(length) > _MAX_BODY:
            self._refuse(413, "RequestBodyTooLarge", f"The stand-in account takes bodies of up to {_MAX_BODY} bytes.")
        else:
            body = self.rfile.read(int(length))
            if len(body) == int(length):
                return body
            self.close_connection = True  # the client went away: nothing of it may be stored
        return None

    def _refuse(self, status: int, code: str, message: str) -> None:
        self.close_connection = True  # it is not known where the next request begins
        self._send(error(status, code, message))

    def _send(self, reply: Reply, cut_after: int | None = None) -> None:
        headers = {"Content-Length": str(len(reply.body)), "Server": "failover-stand-in", **reply.headers}
        if cut_after is not None:
            self.close_connection = True
        elif self.close_connection:
            headers["Connection"] = "close"
        lines = [f"HTTP/1.1 {reply.status} {_phrase(reply.status)}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        body = b"" if self.command == "HEAD" else reply.body[:cut_after]
        # In one write: with delayed acknowledgements the client would wait for a second one.
        self.wfile.write("\r\n".join([*lines, "", ""]).encode("latin-1", "replace") + body)


def _phrase(status: int) -> str:
    return HTTPStatus(status).phrase if status in HTTPStatus.__members__.values() else "Unknown"
