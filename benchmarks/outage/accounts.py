"""Accounts whose primary can be broken while reads of it are timed: stand-ins in a process of their own, or Azurite."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Any, Final

from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import AzureError, IncompleteReadError
from azure.core.pipeline.transport import HttpTransport
from azure.storage.blob import BlobServiceClient

from failover.demo.account import BadSettings, find_account
from failover.demo.faults import SLOW_SHARE, Fault, FaultTransport
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

BLOB: Final = "HelloWorld"
CONTENT: Final = b"Hello World! " * 1000

_PRIMARY, _SECONDARY = "primary", "secondary"


@dataclass(frozen=True)
class Place:
    """Where a blob is read and what becomes of its primary. URLs without a slash at the end."""

    kind: str
    primary: str
    secondary: str
    credential: Any = field(repr=False)
    container: str = "bench"


class Watched(HttpTransport[Any, Any]):
    """Sends by `inner` and keeps book: when each endpoint was asked, and which one was asked last."""

    def __init__(self, inner: HttpTransport[Any, Any], place: Place) -> None:
        self._inner = inner
        self._secondary = f"{place.secondary}/"
        self.hits: list[float] = []
        self.elsewhere: list[float] = []
        self.last = _PRIMARY

    def send(self, request: Any, **kwargs: Any) -> Any:
        self.last = _SECONDARY if request.url.startswith(self._secondary) else _PRIMARY
        (self.hits if self.last == _PRIMARY else self.elsewhere).append(time.monotonic())
        return self._inner.send(request, **kwargs)

    def open(self) -> None:
        self._inner.open()

    def close(self) -> None:
        self._inner.close()

    def __exit__(self, *about: Any) -> None:
        self._inner.__exit__(*about)


@dataclass(frozen=True)
class Accounts:
    """Places by kind; `switch(True)` breaks the primaries of all, each in its way. `spoil` wraps a transport."""

    places: dict[str, Place]
    switch: Callable[[bool], None]
    spoil: Callable[[HttpTransport[Any, Any], Place], HttpTransport[Any, Any]]


# --- the stand-in: real sockets, in a process of its own ------------------------------------------------------


def _interference(kind: str, timeout: float, on: list[bool]) -> Callable[[Exchange], None]:
    numbers = itertools.count(1)

    def interfere(exchange: Exchange) -> None:
        request = exchange.request
        if not on[0] or request.endpoint != _PRIMARY or request.method != "GET":
            return
        if kind == "503":
            exchange.fail(503)
        elif kind == LIMPING:
            if next(numbers) % _TENTH == 0:
                exchange.delay = LIMP
        elif kind in ("timeout", HANGING):
            exchange.delay = 10 * timeout  # its client has gone by then
        elif kind == "slow":
            exchange.delay = SLOW_SHARE * timeout
        elif kind == BODY:
            exchange.cut_after = len(exchange.reply.body) // 2
        elif kind == "reset":
            raise ConnectionResetError  # the server drops the connection, and says nothing of it

    return interfere


def _serve(line: Connection, kinds: tuple[str, ...], timeout: float) -> None:
    accounts = {kind: StandIn(0.0) for kind in kinds}
    on = [False]
    for kind, account in accounts.items():
        account.interfere = _interference(kind, timeout, on)
    line.send([(kind, a.primary_url, a.secondary_url, a.account_key) for kind, a in accounts.items()])
    with suppress(EOFError, KeyboardInterrupt):
        while True:
            on[0] = line.recv()
            if "down" in accounts:
                (accounts["down"].lose_primary if on[0] else accounts["down"].restore_primary)()
            line.send(True)
    os._exit(0)  # threads may be waiting in answers that nobody wants


@contextmanager
def standins(kinds: tuple[str, ...], timeout: float) -> Iterator[Accounts]:
    """One stand-in account for each kind. Their process shares no interpreter with what is measured here."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=_serve, args=(theirs, kinds, timeout), daemon=True)
    process.start()
    theirs.close()

    def switch(on: bool) -> None:
        ours.send(on)
        ours.recv()

    try:
        places = {
            kind: Place(kind, primary, secondary, AzureNamedKeyCredential("devstoreaccount1", key))
            for kind, primary, secondary, key in ours.recv()
        }
        for place in places.values():
            _fill(place)
        yield Accounts(places, switch, lambda inner, _: inner)
    finally:
        ours.close()
        process.join(5)
        process.kill()


# --- Azurite: its own sockets, the faults in our transport ----------------------------------------------------


class _HalfBody:
    """A body that breaks off after its half."""

    def __init__(self, chunks: Any) -> None:
        self._chunks = chunks

    def __iter__(self) -> Iterator[bytes]:
        whole = b"".join(self._chunks)
        yield whole[: len(whole) // 2]
        raise IncompleteReadError("the connection ended before the body did (injected)")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chunks, name)


class _Broken(Watched):
    """Kinds that `FaultTransport` has not for an account that is not ours: down (a port that is shut) and body."""

    on = False

    def __init__(self, inner: HttpTransport[Any, Any], place: Place) -> None:
        super().__init__(inner, place)
        self._place = place
        self._shut = socket.socket()  # bound and not listening: connections are refused
        self._shut.bind(("127.0.0.1", 0))

    def send(self, request: Any, **kwargs: Any) -> Any:
        if not self.on or request.method != "GET" or not request.url.startswith(f"{self._place.primary}/"):
            return self._inner.send(request, **kwargs)
        if self._place.kind == BODY:
            response = self._inner.send(request, **kwargs)
            whole = response.stream_download
            response.stream_download = lambda *args, **options: _HalfBody(whole(*args, **options))
            return response
        url = request.url
        request.url = f"http://127.0.0.1:{self._shut.getsockname()[1]}/"
        try:
            return self._inner.send(request, **kwargs)
        finally:
            request.url = url


@contextmanager
def azurite(kinds: tuple[str, ...], timeout: float) -> Iterator[Accounts]:
    """The account of AZURE_STORAGE_CONNECTION_STRING, with a container of its own that is deleted at the end."""
    account = find_account({"AZURE_STORAGE_CONNECTION_STRING": os.environ.get("AZURE_STORAGE_CONNECTION_STRING")})
    if account is None:
        raise BadSettings("set AZURE_STORAGE_CONNECTION_STRING, for instance to UseDevelopmentStorage=true")
    container = f"bench-{uuid.uuid4().hex[:12]}"
    places = {kind: Place(kind, account.primary, account.secondary, account.credential, container) for kind in kinds}
    broken: list[Any] = []

    def spoil(inner: HttpTransport[Any, Any], place: Place) -> HttpTransport[Any, Any]:
        if place.kind == HEALTHY:
            return inner
        if place.kind in (BODY, "down"):
            broken.append(_Broken(inner, place))
        else:
            fault = Fault(place.kind)
            broken.append(FaultTransport(inner, fault, primary=place.primary, blob=BLOB, timeout=timeout))
        return broken[-1]  # type: ignore[no-any-return]

    def switch(on: bool) -> None:
        for each in broken:
            if isinstance(each, _Broken):
                each.on = on
            else:
                each.switch(on)

    _fill(places[kinds[0]])
    try:
        yield Accounts(places, switch, spoil)
    finally:
        with suppress(AzureError), BlobServiceClient(account.primary, credential=account.credential) as service:
            service.delete_container(container)


def _fill(place: Place) -> None:
    with BlobServiceClient(place.primary, credential=place.credential) as service:
        service.create_container(place.container).upload_blob(BLOB, CONTENT)
