"""What blob:// and table:// have in common: the account of the state, short time-outs, errors without secrets."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

from azure.core.exceptions import AzureError, HttpResponseError

from failover.breaker.errors import describe
from failover.breaker.stores.store import SECONDS, StoreError

SETTING: Final = "FAILOVER_STATE_CONNECTION_STRING"

OPTIONS: Final[dict[str, Any]] = {
    "connection_timeout": SECONDS,
    "read_timeout": SECONDS,
    # A write whose answer was lost may have happened: whoever repeats it must look first.
    "retry_total": 0,
}


def connection_string(scheme: str) -> str:
    """Of the account that holds the state; `ValueError` where none is set."""
    value = os.environ.get(SETTING, "").strip()
    if not value:
        raise ValueError(
            f"{scheme}:// keeps the circuits' state in the account of {SETTING}, which is not set: set it to the "
            "connection string of an account other than the one that the circuits guard"
        )
    return value


def bad_connection_string() -> ValueError:
    """Without its words: they may quote the key."""
    return ValueError(f"{SETTING} is no connection string of a storage account")


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
