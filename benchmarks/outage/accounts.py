"""Accounts whose primary can be broken while reads of it are timed: stand-ins in a process of their own, or Azurite."""

from __future__ import annotations

import multiprocessing
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Final

from azure.core.credentials import AzureNamedKeyCredential
from azure.core.exceptions import AzureError, IncompleteReadError
from azure.core.pipeline.transport import HttpTransport
from azure.storage.blob import BlobServiceClient

from benchmarks.outage.server import BODY, HEALTHY, serve
from failover.demo.account import BadSettings, find_account
from failover.demo.faults import SLOW_SHARE, Fault, FaultTransport

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


@contextmanager
def standins(kinds: tuple[str, ...], timeout: float) -> Iterator[Accounts]:
    """One stand-in account for each kind. Their process shares no interpreter with what is measured here."""
    spawn = multiprocessing.get_context("spawn")
    ours, theirs = spawn.Pipe()
    process = spawn.Process(target=serve, args=(theirs, kinds, timeout, SLOW_SHARE * timeout), daemon=True)
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
