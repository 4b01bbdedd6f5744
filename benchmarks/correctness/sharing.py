"""What must hold where processes share a circuit's state in Redis, on that Redis' bad days."""

from __future__ import annotations

import asyncio
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from benchmarks.correctness.checks import Bench, must
from benchmarks.libraries.library import Failure, Unsupported, Wish, ask

_LIMIT: Final = 1.0  # seconds for one call of a function that does nothing
_WRITTEN: Final = 3.0  # seconds after which a state that is written in the background is there

_LOOP: Final = asyncio.new_event_loop()  # one for a whole check: connections and background tasks belong to it


def drips(bench: Bench) -> None:
    """A Redis that sends a byte of its answer now and then."""
    with _dripping() as url:
        _must_answer(bench, url, "a store that answers byte by byte holds calls up")


def foreign(bench: Bench) -> None:
    """A record of another layout, as another program or a later version leaves it."""
    with _redis() as (url, client):
        first = _shared(bench, url)
        for _ in range(2):
            _outcome(bench, first, Failure())
        until = time.monotonic() + _WRITTEN
        while not client.keys() and time.monotonic() < until:
            _pass(bench, 0.05)
        keys = client.keys()
        must(keys, "a circuit that opened has written nothing")
        for key in keys:
            client.delete(key)
            client.hset(key, "layout", "7")
        _must_answer(bench, url, "a record of another layout fails or holds up calls")


def _shared(bench: Bench, url: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    guard: Callable[[Callable[..., Any]], Callable[..., Any]] = ask(
        bench.library, "shared", Wish(threshold=2), bench.way, url
    )
    return guard


def _must_answer(bench: Bench, url: str, reason: str) -> None:
    got: list[object] = []

    def make_and_call() -> None:
        try:
            guard = _shared(bench, url)
            got.append(_outcome(bench, guard, "fine"))
        except Exception as error:  # noqa: BLE001 (whatever it is, it reaches the caller)
            got.append(error)

    thread = threading.Thread(target=make_and_call, daemon=True)
    thread.start()
    thread.join(_LIMIT)
    if got and isinstance(got[0], Unsupported):
        raise got[0]
    must(got, f"{reason}: no answer within {_LIMIT:g} s")
    must(got == ["fine"], f"{reason}: {got[0]!r}")


def _outcome(bench: Bench, guard: Callable[[Callable[..., Any]], Callable[..., Any]], outcome: object) -> object:
    def request() -> object:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    async def arequest() -> object:
        return request()

    try:
        if bench.way == "sync":
            return guard(request)()
        return _LOOP.run_until_complete(_awaited(guard, arequest))
    except Exception as error:  # noqa: BLE001 (as above)
        return error


def _pass(bench: Bench, seconds: float) -> None:
    """Let what works in the background do so."""
    if bench.way == "sync":
        time.sleep(seconds)
    else:
        _LOOP.run_until_complete(asyncio.sleep(seconds))


async def _awaited(guard: Callable[..., Any], request: Callable[..., Any]) -> object:
    return await guard(request)()


@contextmanager
def _dripping() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def drip(connection: socket.socket) -> None:
            with connection, suppress(OSError):
                connection.recv(1)
                while True:
                    connection.sendall(b"+")
                    time.sleep(0.1)

        def serve() -> None:
            with suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    threading.Thread(target=drip, args=(connection,), daemon=True).start()

        threading.Thread(target=serve, daemon=True).start()
        yield f"redis://127.0.0.1:{server.getsockname()[1]}/0"


@contextmanager
def _redis() -> Iterator[tuple[str, Any]]:
    try:
        import redis

        from tests.redis_server import run_redis, server_program

        server_program()
    except (ImportError, RuntimeError):
        raise Unsupported("there is no Redis here, which the check needs") from None
    with tempfile.TemporaryDirectory() as folder, run_redis(Path(folder)) as running:
        client: Any = redis.Redis(port=running.port)
        with client:
            yield running.url, client
