"""One process of the fleet: calls the remote through a circuit again and again, and says what becomes of it."""

from __future__ import annotations

import os
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from failover.breaker import CircuitBreaker, CircuitOpen, ConsecutiveFailures, Cooldown, Policy, Transition
from failover.breaker.stores import open_store

THRESHOLD = 5
PAUSE = 0.01  # seconds between two calls


@dataclass(frozen=True)
class Job:
    """url: the store's, or None. account: of FAILOVER_STATE_CONNECTION_STRING. port: the remote's. Seconds.

    refresh: of the store, where it is not to be its own.
    """

    url: str | None
    account: str
    port: int
    cooldown: float
    lease: float
    refresh: float | None = None


def ask_remote(port: int) -> None:
    """Raises ConnectionError unless it says that it is well."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(f"{os.getpid()}\n".encode())
        if connection.recv(10) != b"ok\n":
            raise ConnectionError("the remote is down")


def work(job: Job, line: Connection) -> None:
    """Says dicts with the time by the machine's monotonic clock, one for all its processes. Told go, then orders."""
    os.environ["FAILOVER_STATE_CONNECTION_STRING"] = job.account
    policy = Policy(trip=ConsecutiveFailures(THRESHOLD), recovery=Cooldown(job.cooldown), probe_lease=job.lease)

    def listen(event: Any) -> None:
        if isinstance(event, Transition):
            line.send({"t": time.monotonic(), "to": event.new.value})

    store = None if job.url is None else open_store(job.url)
    if store is not None and job.refresh is not None:
        store.refresh = job.refresh
    circuit = CircuitBreaker("https://remote.example/", policy, store=store, listeners=[listen])
    line.send({"t": time.monotonic(), "ready": True})
    line.recv()  # go
    stop = threading.Event()
    threading.Thread(target=keep_calling, args=[circuit, job.port, stop], daemon=True).start()
    while True:
        order = line.recv()
        if order == "quit":
            break
        getattr(circuit, order)()
    stop.set()


def keep_calling(circuit: CircuitBreaker, port: int, stop: threading.Event) -> None:
    while not stop.is_set():
        with suppress(CircuitOpen, ConnectionError):
            circuit.call(ask_remote, port)
        stop.wait(PAUSE)
