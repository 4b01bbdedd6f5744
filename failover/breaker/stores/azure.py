"""What blob:// and table:// share: the account of the state, requests with a deadline, errors without secrets."""

from __future__ import annotations

import socket
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Generic, TypeVar

from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError
from azure.core.pipeline.transport import RequestsTransport
from requests import Session
from requests.adapters import HTTPAdapter
from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.connection import HTTPConnection, HTTPSConnection

from failover.breaker.errors import describe
from failover.breaker.stores.deadline import limit
from failover.breaker.stores.store import OPERATION_SECONDS, SECONDS, StoreClosed, StoreError, check_size

C = TypeVar("C")
R = TypeVar("R")


class AzureStore(ABC, Generic[C]):
    """A store in an account. What holds its records is made at the first write if it is not there.

    Nothing in it is ever forgotten. `C` is the SDK's client.
    """

    is_local = False
    refresh = 1.0

    def __init__(self, scheme: str, name: str, connection_string: str) -> None:
        self.url = f"{scheme}://{name}"
        self.closed = False
        self._name = name
        self._connection_string = connection_string
        self._connections = _Connections()
        self._client = self._connect()

    @abstractmethod
    def _open(self, connection_string: str, **options: Any) -> C:
        """A new client."""

    @abstractmethod
    def _write(self, name: str, body: bytes, expected: str | None) -> str | None:
        """As `Store.compare_and_set`. Raises what the SDK does where something else is wrong."""

    @abstractmethod
    def _make(self) -> None:
        """Make what holds the records, unless it is there."""

    def _connect(self) -> C:
        self._connections = _Connections()
        options: dict[str, Any] = {
            "transport": self._connections.transport(),
            "connection_timeout": SECONDS,
            "read_timeout": SECONDS,
            # A write whose answer was lost may have happened: whoever repeats it must look first.
            "retry_total": 0,
        }
        try:
            return self._open(self._connection_string, **options)
        except (ValueError, TypeError, AzureError):  # TypeError: of the SDK itself, for an address without a host
            # Without its words: they may quote the key.
            raise ValueError("it is no connection string of a storage account") from None

    def compare_and_set(self, name: str, body: bytes, expected: str | None, ttl: float | None = None) -> str | None:  # noqa: ARG002 (see the class)
        check_size(body)
        try:
            return self.request(lambda: self._write(name, body, expected))
        except ResourceNotFoundError:
            if expected is not None:
                return None  # a new one misses only where it would be put
        try:
            self.request(self._make)
            return self.request(lambda: self._write(name, body, expected))
        except ResourceNotFoundError as error:
            raise store_error(self.url, error) from None

    def request(self, act: Callable[[], R]) -> R:
        """What `act` gives, which sends one request.

        Raises:
            ResourceNotFoundError: As the SDK does.
            StoreError: It failed, or took longer than `OPERATION_SECONDS` as a whole.
        """
        if self.closed:
            raise StoreClosed(f"{self.url} is closed")
        failure: AzureError | None = None
        with limit(OPERATION_SECONDS, self._connections.abort) as operation:
            try:
                result = act()
            except AzureError as error:
                failure = error
            except Exception:
                # Whatever a socket that is closed while it is read makes the SDK raise.
                if not (operation.expired or self.closed):
                    raise
        if self.closed:
            raise StoreClosed(f"{self.url} is closed")
        if operation.expired:  # also where there is a result: the headers of an answer may end where the socket did
            raise StoreError(f"{self.url}: no whole answer within {OPERATION_SECONDS:g} s")
        if isinstance(failure, ResourceNotFoundError):
            raise failure
        if failure is not None:
            raise store_error(self.url, failure)
        return result

    def subscribe(self, changed: Callable[[str | None], None]) -> bool:  # noqa: ARG002 (an account pushes nothing)
        return False

    def forget_connections(self) -> None:
        self._client = self._connect()

    def release(self) -> None:
        """Close the connections, until the store is used again."""
        self._connections.close()
        self.forget_connections()

    def close(self) -> None:
        self.closed = True
        self._connections.close()


class _Connections:
    """The connections of one client, which another thread can abort."""

    def __init__(self) -> None:
        self._open: weakref.WeakSet[HTTPConnection] = weakref.WeakSet()
        self._session = Session()

    def transport(self) -> RequestsTransport:
        adapter = _Adapter(self._open)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, adapter)
        return RequestsTransport(session=self._session)

    def abort(self) -> None:
        """End whatever is being sent or read."""
        for connection in list(self._open):
            if connection.sock is not None:
                with suppress(OSError):
                    connection.sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self.abort()
        self._session.close()


class _Adapter(HTTPAdapter):
    """Notes each connection before it connects, also those to a proxy."""

    def __init__(self, opened: weakref.WeakSet[HTTPConnection]) -> None:
        self._pools = {
            "http": _noting(HTTPConnectionPool, HTTPConnection, opened),
            "https": _noting(HTTPSConnectionPool, HTTPSConnection, opened),
        }
        super().__init__()

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, *args: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(*args, **options)
        manager.pool_classes_by_scheme = self._pools
        return manager


def _noting(pool: Any, connection: Any, opened: weakref.WeakSet[HTTPConnection]) -> Any:
    """The class `pool`, whose connections are in `opened`."""

    class Noted(connection):  # type: ignore[misc]
        def connect(self) -> None:
            opened.add(self)
            super().connect()

    class Pool(pool):  # type: ignore[misc]
        ConnectionCls = Noted

    return Pool


def store_error(url: str, error: AzureError) -> StoreError:
    """Status and code of an answer, not its text: an account's refusal quotes parts of the signed request."""
    if isinstance(error, HttpResponseError) and error.status_code is not None:
        code = code_of(error) or error.reason or ""
        return StoreError(f"{url}: {error.status_code} {code}".rstrip())
    return StoreError(f"{url}: {_without_query(describe(error))}")


def code_of(error: HttpResponseError) -> str:
    """The service's name for what went wrong, such as ContainerNotFound."""
    code = getattr(error, "error_code", None) or ""
    return str(getattr(code, "value", code))


def date_into(dates: list[str | None]) -> Callable[[Any], None]:
    """A hook that notes each answer's Date header."""
    return lambda response: dates.append(response.http_response.headers.get("Date"))


def _without_query(text: str) -> str:
    """A SAS stands in the query of a URL."""
    return " ".join(word.partition("?")[0] for word in text.split(" "))
