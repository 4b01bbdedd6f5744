"""One stand-in account and one fault for all demonstrations on this machine that share their circuits.

The first demonstration starts the account and writes its ports to the store; the others find them there and join. If
each had its own account and fault, it would close the circuit that another one has just opened. The fault is switched
at the account: every answer says in a header whether the fault is on, and each process then applies the fault to the
answer.
"""

from __future__ import annotations

import http.client
import json
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from failover.breaker.stores import Store, StoreError
from failover.demo.faults import Fault, FaultTransport
from failover.standin import Exchange, Reply, StandIn

_SWITCH: Final = (
    "x-stand-in-fault"  # in an answer: how often it was switched, and what is on; in a request: what shall be
)
_NOTHING: Final = "-"
_JOIN, _LEAVE, _SET = "/join", "/leave", "/fault"  # asked of the secondary, which is always there
_HERE: Final = re.compile(r"http://127\.0\.0\.1:[0-9]+/[a-z0-9-]+")  # whoever may write to the store: nowhere else
_SECONDS: Final = 2.0  # for a request to it
_SILENT: Final = 6.0  # seconds without a request after which nobody reads any more: each run asks every two
_FORGET: Final = 86400.0  # seconds after which the store may forget the ports


class Host:
    """The account of the process that started it, with the fault's switch and a count of those that have joined."""

    def __init__(self, stand_in: StandIn) -> None:
        self.id = secrets.token_hex(8)
        self._stand_in = stand_in
        self._lock = threading.Lock()
        self._switched = 0
        self._fault = _NOTHING
        self._joined = 0
        self._asked_at = time.monotonic()
        stand_in.interfere = self._interfere

    @property
    def in_use(self) -> bool:
        """Whether another process reads from it."""
        with self._lock:
            return self._joined > 0 and time.monotonic() - self._asked_at < _SILENT

    def record(self) -> bytes:
        """What another process needs in order to join."""
        about = {"id": self.id, "primary": self._stand_in.primary_url, "secondary": self._stand_in.secondary_url}
        return json.dumps(about).encode()

    def _interfere(self, exchange: Exchange) -> None:
        request = exchange.request
        with self._lock:
            self._asked_at = time.monotonic()
            if request.endpoint == "secondary" and request.method == "PUT":
                self._ask(request.path, request.headers.get(_SWITCH, _NOTHING), exchange)
            told = f"{self._switched} {self._fault}"
        exchange.reply.headers |= {_SWITCH: told, "Server": f"failover-stand-in/{self.id}"}

    def _ask(self, path: str, wanted: str, exchange: Exchange) -> None:
        """Under the lock."""
        if path in (_JOIN, _LEAVE):
            self._joined += 1 if path == _JOIN else -1
        elif path == _SET:
            self._switched += 1
            if Fault.DOWN.value in (wanted, self._fault):
                (self._stand_in.lose_primary if wanted == Fault.DOWN.value else self._stand_in.restore_primary)()
            self._fault = wanted
        else:
            return
        exchange.reply = Reply(200)


class Place:
    """A stand-in account that this process may use, wherever it runs: its own, or one that it has joined.

    Attributes:
        id: Different for every account; circuits are named by it.
        connection_string: For the SDK. The key in it is made up: the stand-in account takes any.
        joined: Whether another process has started it.
    """

    def __init__(self, about: dict[str, str], *, joined: bool) -> None:
        self.id = about["id"]
        self.joined = joined
        self._secondary = about["secondary"]
        self.connection_string = (
            f"AccountName=devstoreaccount1;AccountKey={secrets.token_hex(32)};BlobEndpoint={about['primary']};"
            f"BlobSecondaryEndpoint={about['secondary']};"
        )

    def join(self) -> bool:
        """Say that this process uses it; returns whether it answers, and nothing else in its place."""
        with suppress(OSError, http.client.HTTPException, ValueError):
            headers = self._ask("PUT", _JOIN)
            return bool(headers.get("Server") == f"failover-stand-in/{self.id}")
        return False

    def leave(self) -> None:
        """Say that this process does not use it any more."""
        with suppress(OSError, http.client.HTTPException):
            self._ask("PUT", _LEAVE)

    def set_fault(self, kind: str) -> str:
        """Switch the fault for all; returns what answers will say from now on."""
        return str(self._ask("PUT", _SET, kind)[_SWITCH])

    def _ask(self, method: str, path: str, fault: str = _NOTHING) -> Any:
        host, _, account = self._secondary.partition("://")[2].partition("/")
        connection = http.client.HTTPConnection(host, timeout=_SECONDS)  # which asks no proxy
        try:
            headers = {"Authorization": "SharedKey any", "Content-Length": "0", _SWITCH: fault}
            connection.request(method, f"/{account}{path}", headers=headers)
            answer = connection.getresponse()
            answer.read()
            return answer.headers
        finally:
            connection.close()


class SharedFaults(FaultTransport):
    """The fault that all of them share: `switch` switches it for all, and each answer tells whether it is on.

    `on_change` is called with what another process has switched: the kind, and whether it is on now.
    """

    def __init__(self, inner: Any, kind: Fault, *, place: Place, **about: Any) -> None:
        super().__init__(inner, kind, lose=lambda: None, restore=lambda: None, **about)
        self._place = place
        self._switched = -1
        self._lock = threading.Lock()

    def switch(self, on: bool) -> None:
        """Switch the fault on or off for all, from any thread. No effect where the account is gone."""
        with suppress(OSError, http.client.HTTPException, KeyError):
            told = self._place.set_fault(self.kind.value if on else _NOTHING)
            self._hear(told, ours=True)

    def send(self, request: Any, **kwargs: Any) -> Any:
        """As `FaultTransport.send`, but what the fault does is done to the answer that says that it is on."""
        response = self._inner.send(request, **kwargs)
        kind = self._hear(response.headers.get(_SWITCH, ""))
        if kind is not None and self._is_affected(request):
            self._fail(kind, kwargs)
            self._spoil(kind, response)
        return response

    def _hear(self, told: str, *, ours: bool = False) -> Fault | None:
        """Take in what an answer says; returns the fault that was on for it."""
        count, _, name = told.partition(" ")
        if not count.isdecimal():
            return None
        kind = None if name == _NOTHING else Fault(name)
        with self._lock:
            newer, first = int(count) > self._switched, self._switched < 0
            changed = newer and (kind is not None) is not self._on
            if newer:
                self._switched, self._on = int(count), kind is not None
                self.kind = kind or self.kind
        if changed and not ours and not (first and kind is None):
            self.on_change(self.kind, kind is not None)
        return kind


@contextmanager
def shared_stand_in(store: Store, start: Callable[[], StandIn]) -> Iterator[tuple[Place, Host | None]]:
    """Join the account that another process of this machine has left in the store, or start one and leave it there.

    Where the store does not answer, nobody can be joined: the account is this process's.

    Yields:
        The account, and where this process has started it, what knows who else uses it.
    """
    name = f"stand-in account on {socket.gethostname()}"
    while True:
        place, version = _find(store, name)
        if place is not None:
            try:
                yield place, None
            finally:
                place.leave()
            return
        with start() as stand_in:
            host = Host(stand_in)
            if _leave(store, name, host, version):
                yield Place(json.loads(host.record()), joined=False), host
                return
        # Another process was first, and is to be found now.


def _leave(store: Store, name: str, host: Host, version: str | None) -> bool:
    """Leave in the store where the account is; False where another process has just done so."""
    try:
        return store.compare_and_set(name, host.record(), version, _FORGET) is not None
    except StoreError:
        return True  # the others cannot be found, nor can they find this one


def _find(store: Store, name: str) -> tuple[Place | None, str | None]:
    """The account that was left in the store, if it is there still, and the version of what was left."""
    version = None
    with suppress(StoreError, ValueError, KeyError, TypeError):
        held = store.read([name]).get(name)
        if held is not None:
            version = held.version
            about = json.loads(held.body)
            place = Place(about, joined=True)
            if all(_HERE.fullmatch(about[each]) for each in ("primary", "secondary")) and place.join():
                return place, version
    return None, version
