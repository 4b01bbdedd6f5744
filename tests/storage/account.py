"""An account as the tests use it: what it holds, which reads arrived at it, and answers that are spoilt."""

from __future__ import annotations

import datetime as dt
import random
import threading
from collections.abc import Callable, Iterable
from typing import Any

from azure.storage.blob import AccountSasPermissions, BlobServiceClient, ResourceTypes, generate_account_sas

from failover.standin import Exchange, StandIn
from tests.servers import Account, credential

HELLO = b"Hello, World!"
KIB = 1024
MIB = 1024 * KIB
CONTENT = random.Random(1).randbytes(MIB)


def plain(account: Account) -> BlobServiceClient:
    """A client that goes to the primary and does nothing else."""
    return BlobServiceClient(account.primary_url, credential=credential(account), retry_total=0)


def store(account: Account, content: bytes = HELLO, name: str = "HelloWorld", **options: Any) -> None:
    with plain(account) as service:
        container = service.get_container_client("demo")
        if not container.exists():
            container.create_container()
        container.upload_blob(name, content, overwrite=True, **options)


def sas_of(account: Account) -> str:
    soon = dt.datetime.now(dt.timezone.utc) + dt.timedelta(hours=1)
    types, permission = (
        ResourceTypes(service=True, container=True, object=True),
        AccountSasPermissions(read=True, list=True),
    )
    return generate_account_sas(account.account_name, account.account_key, types, permission, soon)


class Trail:
    """The reads that arrived at a stand-in since the last look: P for one at the primary, S for the secondary."""

    def __init__(self, account: StandIn) -> None:
        self._account = account
        self._seen = len(account.hits)

    def look(self, methods: Iterable[str] = ("GET", "HEAD")) -> str:
        hits = self._account.hits[self._seen :]
        self._seen += len(hits)
        return "".join(hit.endpoint[0].upper() for hit in hits if hit.method in methods)


def spoil(
    account: StandIn,
    change: Callable[[Exchange], object],
    *,
    at: str = "primary",
    methods: Iterable[str] = ("GET", "HEAD"),
    times: int | None = None,
) -> None:
    """Let `change` have its way with the next answers, `times` of them or all, to requests of these methods."""
    left = threading.Semaphore(10**9 if times is None else times)

    def interfere(exchange: Exchange) -> None:
        concerned = exchange.request.endpoint in at.split("+") and exchange.request.method in methods
        if concerned and left.acquire(blocking=False):
            change(exchange)

    account.interfere = interfere


def status(code: int, word: str = "ServerBusy") -> Callable[[Exchange], None]:
    return lambda exchange: exchange.fail(code, word)


def cut(after: int) -> Callable[[Exchange], None]:
    def change(exchange: Exchange) -> None:
        exchange.cut_after = after

    return change


def delay(seconds: float) -> Callable[[Exchange], None]:
    def change(exchange: Exchange) -> None:
        exchange.delay = seconds

    return change
