"""What reads through a library survive, and what they cost: the process that asks `benchmarks.stack.reader`."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import metadata
from typing import Any, Final

from benchmarks import ROOT
from benchmarks.stack.reader import CONTAINER, NAME, Library
from failover.standin import Exchange, StandIn

_LINE: Final = "a line of text that every library reads as one column and in one piece\n"
CONTENT: Final = (_LINE * (64 * 1024 // len(_LINE))).encode()
_READS: Final = 3
_HANG: Final = 120.0  # seconds, longer than any time-out of a read here

Fault = Callable[[StandIn, Exchange], None]


def _busy(_account: StandIn, exchange: Exchange) -> None:
    exchange.fail(503)


def _reset(account: StandIn, _exchange: Exchange) -> None:
    account.lose_primary()  # which breaks this connection, too
    account.restore_primary()


def _hang(_account: StandIn, exchange: Exchange) -> None:
    exchange.delay = _HANG


def _cut(_account: StandIn, exchange: Exchange) -> None:
    exchange.cut_after = len(exchange.reply.body) // 2


FAULTS: Final[dict[str, Fault]] = {"503": _busy, "reset": _reset, "hang": _hang, "cut": _cut}


def _fill(account: StandIn) -> None:
    from azure.storage.blob import BlobServiceClient

    with BlobServiceClient.from_connection_string(account.connection_string) as service:
        service.create_container(CONTAINER).upload_blob(NAME, CONTENT)


class Reader:
    """The process of one library, which reads from `account`."""

    def __init__(self, library: Library, account: StandIn) -> None:
        self._process = subprocess.Popen(  # noqa: S603 (our own)
            [sys.executable, "-W", "ignore", "-m", "benchmarks.stack.reader", library.name],
            cwd=ROOT,
            env={**os.environ, "AZURE_STORAGE_CONNECTION_STRING": account.connection_string},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, order: str) -> Any:
        """Give an order, and wait for its answer. Raises RuntimeError where the process ended."""
        orders, answers = self._process.stdin, self._process.stdout
        if orders is None or answers is None:
            raise RuntimeError("the reader has no pipes")
        orders.write(f"{order}\n")
        orders.flush()
        line = answers.readline()
        if not line:
            raise RuntimeError(f"the reader ended at the order {order!r}")
        return json.loads(line)

    def end(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def _reader(library: Library) -> Iterator[tuple[Reader, StandIn]]:
    with StandIn(0.0) as account:
        _fill(account)
        reader = Reader(library, account)
        try:
            yield reader, account
        finally:
            reader.end()


def survives(library: Library, fault: str) -> str:
    """ "yes" where each read returned the right bytes, else why not.

    Raises:
        RuntimeError: Even a healthy one did not, or nothing was tried.
    """
    expected = hashlib.sha256(CONTENT).hexdigest()
    with _reader(library) as (reader, account):
        first = reader.ask("ours")
        if first.get("hash") != expected:
            raise RuntimeError(f"{library.name} does not read at all: {first}")

        def interfere(exchange: Exchange) -> None:
            if exchange.request.endpoint == "primary" and exchange.request.method in ("GET", "HEAD"):
                FAULTS[fault](account, exchange)

        account.interfere = interfere
        before = len(account.hits)
        for _ in range(_READS):
            answer = reader.ask("ours")
            if answer.get("hash") != expected:
                return f"no: {answer.get('error', 'other bytes')}"
        if all(hit.endpoint == "primary" for hit in account.hits[before:]):
            raise RuntimeError(f"{library.name}: nothing was asked of the secondary, so nothing was tried")
        return "yes"


def cost(library: Library, seconds: float) -> float:
    """The ratio of a read with failover to one without."""
    with _reader(library) as (reader, _):
        return float(reader.ask(f"pairs {seconds}")["ratio"])


def row(library: Library, seconds: float, faults: list[str]) -> list[str]:
    """The library's line of the table."""
    with ThreadPoolExecutor(len(faults)) as pool:
        survived = list(pool.map(lambda fault: survives(library, fault), faults))
    ratio = cost(library, seconds)
    return [library.name, metadata.version(library.package), library.how, *survived, f"{ratio:.2f}"]
