"""A real Redis for the tests, on a port of its own; it dies with them."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

_START_SECONDS = 20.0


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
        if shutil.which("redis-server") is None:
            raise RuntimeError("install redis-server (apt-get install redis-server), or leave out: -m 'not redis'")
        options = f"--port {self.port} --bind 127.0.0.1 --save '' --appendonly no {self.more}"
        if self.password:
            options += f" --requirepass {self.password}"
        # The shell waits for the end of its input, which comes however this process dies.
        self._process = subprocess.Popen(
            ["sh", "-c", f"redis-server {options} </dev/null >redis.log 2>&1 & read end; kill -9 $! 2>/dev/null"],
            cwd=self.folder,
            stdin=subprocess.PIPE,
        )
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline:
                raise RuntimeError(f"redis-server did not come up:\n{(self.folder / 'redis.log').read_text()}")
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


@contextmanager
def run_redis(folder: Path, password: str | None = None, more: str = "") -> Iterator[RedisServer]:
    """A Redis with nothing in it; `more`: further options. RuntimeError with what it said if it does not come up."""
    server = RedisServer(folder, free_port(), password, more)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port
