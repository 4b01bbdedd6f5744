"""What went wrong with one attempt, in a few words that hold no URL and no secret."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Iterator
from typing import Any, Final

from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    DecodeError,
    HttpResponseError,
    ServiceRequestError,
    ServiceRequestTimeoutError,
    ServiceResponseError,
    ServiceResponseTimeoutError,
)

FAILURE_STATUSES: Final = frozenset({408, 429, 500, 502, 503, 504})
"""Statuses that say that the endpoint did not do its work. Any other status is an answer."""

_TIMEOUTS: Final = (ServiceRequestTimeoutError, ServiceResponseTimeoutError)


def is_endpoint_failure(error: BaseException) -> bool:
    """Whether the endpoint is to blame: no connection, no answer, or one that broke off.

    A credential that cannot sign, and errors that carry an answer, are not.
    """
    if isinstance(error, ClientAuthenticationError):
        return False
    if isinstance(error, (ServiceRequestError, ServiceResponseError, DecodeError)):
        return True
    # The transport's word for a body that cannot be read; one with a response comes from a policy.
    return isinstance(error, HttpResponseError) and error.response is None


def is_timeout(error: BaseException) -> bool:
    """Whether the endpoint was silent for too long: to try again at once would take as long again."""
    return isinstance(error, _TIMEOUTS)


def describe_status(status: int, reason: str | None, headers: Any) -> str:
    """`503 ServerBusy`: the status with the service's own code, or the reason phrase, cleaned."""
    word = str(headers.get("x-ms-error-code") or reason or "")
    return f"{status} {_clean(word)}".rstrip()


def describe_error(error: BaseException, attempt_timeout: float | None = None) -> str:
    """A few words for `error`: never its own message, which may hold the URL with its SAS token."""
    chain = list(_chain(error))
    if any(type(each).__name__ == "ProxyError" for each in chain):
        return "the proxy did not connect"
    if is_timeout(error):
        within = "" if attempt_timeout is None else f" within {attempt_timeout:g} s"
        return f"no connection{within}" if isinstance(error, ServiceRequestTimeoutError) else f"no answer{within}"
    for each in chain:
        if isinstance(each, ssl.SSLCertVerificationError):
            return f"its certificate is not trusted ({_clean(each.verify_message)})"
        if isinstance(each, ssl.SSLError):
            return f"TLS failed ({_clean(each.reason or 'no reason given')})"
        if isinstance(each, socket.gaierror):
            return "its name does not resolve"
        if isinstance(each, ConnectionRefusedError):
            return "connection refused"
        if isinstance(each, (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)):
            return "connection reset"
    names = {type(each).__name__ for each in chain}
    if "IncompleteRead" in names or "IncompleteReadError" in names:
        return "the body broke off"
    if isinstance(error, DecodeError):
        return "the body cannot be decoded"
    if isinstance(error, ServiceRequestError):
        return "no connection"
    return "the answer broke off" if isinstance(error, AzureError) else type(error).__name__


def _chain(error: BaseException) -> Iterator[BaseException]:
    """`error` and all that it says it comes from: causes, contexts, and exceptions kept in arguments."""
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        each = waiting.pop(0)
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        kept = (getattr(each, name, None) for name in ("reason", "inner_exception"))
        waiting += [*each.args, *kept, each.__cause__, each.__context__]


def _clean(text: str, longest: int = 80) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:longest]
