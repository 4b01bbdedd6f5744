"""The process of the stand-in accounts, and what can be wrong with their primaries. Needs no SDK."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Final

from failover.standin import Exchange, StandIn

HEALTHY: Final = "none"
BODY: Final = "body"
KINDS: Final = ("503", "timeout", "reset", "slow", "down", BODY)
"""What can be wrong with the primary. body: the connection ends half-way through each body."""

LIMPING: Final = "limping"
HANGING: Final = "hanging"
WORLDS: Final = (LIMPING, HANGING)
"""Whose tail is measured: one read in ten takes long, or each does."""
LIMP: Final = 3.0
"""Seconds that an answer takes when the primary limps."""
_TENTH: Final = 10


def _interference(kind: str, timeout: float, slow: float, on: list[bool]) -> Callable[[Exchange], None]:
    numbers = itertools.count(1)

    def interfere(exchange: Exchange) -> None:
        request = exchange.request
        if not on[0] or request.endpoint != "primary" or request.method != "GET":
            return
        if kind == "503":
            exchange.fail(503)
        elif kind == LIMPING:
            if next(numbers) % _TENTH == 0:
                exchange.delay = LIMP
        elif kind in ("timeout", HANGING):
            exchange.delay = 10 * timeout  # its client has gone by then
        elif kind == "slow":
            exchange.delay = slow
        elif kind == BODY:
            exchange.cut_after = len(exchange.reply.body) // 2
        elif kind == "reset":
            raise ConnectionResetError  # the server drops the connection, and says nothing of it

    return interfere


def serve(line: Connection, kinds: tuple[str, ...], timeout: float, slow: float) -> None:
    """An account for each kind, until the line is closed.

    Args:
        line: tells the accounts' addresses; then a fault is switched on or off by what comes, and each time answered.
        kinds: what is wrong with each primary while it is on.
        timeout: seconds that the readers give an attempt.
        slow: seconds that a slow answer takes.
    """
    accounts = {kind: StandIn(0.0) for kind in kinds}
    on = [False]
    for kind, account in accounts.items():
        account.interfere = _interference(kind, timeout, slow, on)
    line.send([(kind, a.primary_url, a.secondary_url, a.account_key) for kind, a in accounts.items()])
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            on[0] = line.recv()
            if "down" in accounts:
                (accounts["down"].lose_primary if on[0] else accounts["down"].restore_primary)()
            line.send(True)
    os._exit(0)  # threads may be waiting in answers that nobody wants
