"""What blob:// and table:// have in common: the account of the state, short time-outs, errors without secrets."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError

from failover.breaker.errors import describe
from failover.breaker.stores.store import SECONDS, StoreError, check_size

C = TypeVar("C")

SETTING: Final = "FAILOVER_STATE_CONNECTION_STRING"

OPTIONS: Final[dict[str, Any]] = {
    "connection_timeout": SECONDS,
    "read_timeout": SECONDS,
    # A write whose answer was lost may have happened: whoever repeats it must look first.
    "retry_total": 0,
}


class AzureStore(ABC, Generic[C]):
    """A store in an account. What holds its records is made at the first write if it is not there.

    Nothing in it is ever forgotten. `C` is the SDK's client.
    """

    is_local = False
    refresh = 1.0

    def __init__(self, scheme: str, name: str) -> None:
        self.url = f"{scheme}://{name}"
        self._name = name
        self._connection_string = connection_string(scheme)
        self._client = self._connect()

    @abstractmethod
    def _open(self, connection_string: str) -> C:
        """A new client."""

    @abstractmethod
    def _write(self, name: str, body: bytes, expected: str | None) -> str | None:
        """As `Store.compare_and_set`; raises what the SDK does where something else is wrong."""

    @abstractmethod
    def _make(self) -> None:
        """Make what holds the records, unless it is there."""

    def _connect(self) -> C:
        try:
            return self._open(self._connection_string)
        except (ValueError, TypeError, AzureError):  # TypeError: of the SDK itself, for an address without a host
            # Without its words: they may quote the key.
            raise ValueError(f"{SETTING} is no connection string of a storage account") from None

    def compare_and_set(self, name: str, body: bytes, expected: str | None, ttl: float | None = None) -> str | None:  # noqa: ARG002 (see the class)
        check_size(body)
        try:
            return self._write(name, body, expected)
        except ResourceNotFoundError:
            if expected is not None:
                return None  # a new one misses only where it would be put
        except AzureError as error:
            raise store_error(self.url, error) from None
        try:
            self._make()
            return self._write(name, body, expected)
        except AzureError as error:
            raise store_error(self.url, error) from None

    def subscribe(self, changed: Callable[[str | None], None]) -> bool:  # noqa: ARG002 (an account pushes nothing)
        return False

    def forget_connections(self) -> None:
        self._client = self._connect()


def connection_string(scheme: str) -> str:
    """Of the account that holds the state; `ValueError` where none is set."""
    value = os.environ.get(SETTING, "").strip()
    if not value:
        raise ValueError(
            f"{scheme}:// keeps the circuits' state in the account of {SETTING}, which is not set: set it to the "
            "connection string of an account other than the one that the circuits guard"
        )
    return value


def store_error(url: str, error: AzureError) -> StoreError:
    """Status and code of an answer, not its text: an account's refusal quotes parts of the signed request."""
    if isinstance(error, HttpResponseError) and error.status_code is not None:
        code = getattr(error, "error_code", None) or error.reason or ""
        return StoreError(f"{url}: {error.status_code} {getattr(code, 'value', code)}".rstrip())
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
