"""Why an attempt failed, in a few words that contain no URL and no secret."""

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
    IncompleteReadError,
    ServiceRequestError,
    ServiceRequestTimeoutError,
    ServiceResponseError,
    ServiceResponseTimeoutError,
)

from failover.storage._sdk import UNWRAPPED_ERRORS
from failover.storage.body import BodyTooSlow

_TIMEOUTS: Final = (ServiceRequestTimeoutError, ServiceResponseTimeoutError)
# Of requests, urllib3 and aiohttp: azure-core wraps some of these in errors of more general kinds.
_CONNECT_TIMEOUT_NAMES: Final = frozenset({"ConnectTimeout", "ConnectTimeoutError", "ConnectionTimeoutError"})
_READ_TIMEOUT_NAMES: Final = frozenset({"ReadTimeout", "ReadTimeoutError", "ServerTimeoutError", "SocketTimeoutError"})
_TIMEOUT_NAMES: Final = _CONNECT_TIMEOUT_NAMES | _READ_TIMEOUT_NAMES
# A request that could not be sent at all: a URL, a proxy's or one's own, that nobody can use, or a missing package.
_UNSENDABLE_NAMES: Final = frozenset(
    {
        "InvalidSchema",
        "MissingSchema",
        "InvalidURL",
        "InvalidProxyURL",
        "ProxySchemeUnknown",
        "ProxySchemeUnsupported",
        "URLSchemeUnknown",
        "LocationParseError",
        "InvalidUrlClientError",
        "NonHttpUrlClientError",
    }
)
_RESETS: Final = (ConnectionResetError, ConnectionAbortedError, BrokenPipeError)
_PROXY_NAMES: Final = frozenset({"ProxyError", "ClientProxyConnectionError", "ClientHttpProxyError"})


def is_endpoint_failure(error: BaseException) -> bool:
    """Whether an error of the transport is the endpoint's doing: no connection, no answer, or one that broke off.

    A credential that cannot sign, errors that carry an answer, and requests that could not be sent at all (a malformed
    proxy, a missing package) are not. Nor is a body that arrived whole and cannot be decoded: a blob stored under a
    wrong Content-Encoding is that at either endpoint.
    """
    if isinstance(error, ClientAuthenticationError) or not _UNSENDABLE_NAMES.isdisjoint(_names(error)):
        return False
    if isinstance(error, (ServiceRequestError, ServiceResponseError, IncompleteReadError, *UNWRAPPED_ERRORS)):
        return True
    # The transport's word for a body that cannot be read; one with a response comes from a policy.
    return isinstance(error, HttpResponseError) and not isinstance(error, DecodeError) and error.response is None


def is_body_failure(error: BaseException) -> bool:
    """Whether it is an error of who read a body: there was an answer, and it broke off."""
    return isinstance(error, (ServiceResponseError, IncompleteReadError, *UNWRAPPED_ERRORS))


def is_reset(error: BaseException) -> bool:
    """Whether the connection went away before a byte of the answer: it may have been stale in the client's pool."""
    if is_timeout(error) or isinstance(error, IncompleteReadError):
        return False
    chain = list(_chain(error))
    names = {type(each).__name__ for each in chain}
    return any(isinstance(each, _RESETS) for each in chain) or bool(
        names & {"RemoteDisconnected", "ServerDisconnectedError"}
    )


def is_timeout(error: BaseException) -> bool:
    """Whether the endpoint was silent for too long: to try again at once would take as long again."""
    return isinstance(error, _TIMEOUTS) or not _TIMEOUT_NAMES.isdisjoint(_names(error))


def is_connect_timeout(error: BaseException) -> bool:
    """Whether the silence was that of an endpoint to which there is no connection yet."""
    return isinstance(error, ServiceRequestTimeoutError) or not _CONNECT_TIMEOUT_NAMES.isdisjoint(_names(error))


def describe_status(status: int, reason: str | None, headers: Any) -> str:
    """`503 ServerBusy`: the status with the service's own code, or the reason phrase, cleaned."""
    word = str(headers.get("x-ms-error-code") or reason or "")
    return f"{status} {_clean(word)}".rstrip()


def failure_cause(error: BaseException, within: float | None = None) -> str:
    """A few words for `error`: never its own message, which may hold the URL with its SAS token.

    `within`: seconds that a time-out had lasted, where known.
    """
    chain = list(_chain(error))
    names = {type(each).__name__ for each in chain}
    if names & _PROXY_NAMES:
        return "the proxy did not connect"
    if isinstance(error, BodyTooSlow):
        return "the body came too slowly"
    if is_timeout(error):
        limit = "" if within is None else f" within {within:g} s"
        return f"no connection{limit}" if is_connect_timeout(error) else f"no answer{limit}"
    for each in chain:
        # aiohttp's errors are also of these classes, without what these have: the true ones come later in the chain.
        if isinstance(each, ssl.SSLCertVerificationError) and hasattr(each, "verify_message"):
            return f"its certificate is not trusted ({_clean(each.verify_message)})"
        if isinstance(each, ssl.SSLError) and hasattr(each, "reason"):
            return f"TLS failed ({_clean(each.reason or 'no reason given')})"
        if isinstance(each, socket.gaierror):
            return "its name does not resolve"
        if isinstance(each, ConnectionRefusedError):
            return "connection refused"
        if isinstance(each, _RESETS):
            return "connection reset"
    if "ServerDisconnectedError" in names:  # aiohttp's, which has no cause
        return "connection reset"
    if "IncompleteRead" in names or "IncompleteReadError" in names:
        return "the body broke off"
    if isinstance(error, DecodeError):
        return "the body cannot be decoded"
    if isinstance(error, ServiceRequestError):
        return "no connection"
    return "the answer broke off" if isinstance(error, AzureError) else type(error).__name__


def _names(error: BaseException) -> set[str]:
    return {type(each).__name__ for each in _chain(error)}


def _chain(error: BaseException) -> Iterator[BaseException]:
    """`error` and all that it was made from: its causes, and exceptions kept in arguments.

    Not its context: that may be whatever the caller was about to handle when it made the request.
    """
    seen: set[int] = set()
    waiting: list[object] = [error]
    while waiting:
        each = waiting.pop(0)
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        kept = (getattr(each, name, None) for name in ("reason", "inner_exception"))
        waiting += [*each.args, *kept, each.__cause__]


def _clean(text: str, longest: int = 80) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:longest]
