"""Bodies that are there as soon as their headers are: what cannot break off any more needs nobody to see to that.

To see to it is a third of what a healthy read pays for its circuits. A transport that has put an opener of its own on
the response may break off the body itself.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from azure.core.exceptions import IncompleteReadError, ServiceResponseTimeoutError
from urllib3.exceptions import HTTPError, ReadTimeoutError
from urllib3.response import HTTPResponse

from failover.storage.guarded import OPENERS
from failover.storage.pace import PIECE, Patience, timed


def inner_of(http: Any) -> Any:
    """The response of requests or aiohttp that azure-core's is made of."""
    own = vars(http)
    # azure-core's second kind of response hides it behind an underscore, and takes long to find it by its other name.
    return own.get("_internal_response") or own.get("internal_response")


def is_aiohttps(http: Any) -> bool:
    """Whether azure-core's response is of aiohttp."""
    return "_decompressed_content" in vars(http)


def read_at_once(http: Any, headers: Mapping[str, str], patience: Patience) -> bool:
    """Read the streamed body of a thread's response, if it is short; tell whether it was.

    Whoever opens it then finds it in memory. The SDK reads a blob's before it returns, too. headers: in lower case.
    Raises `AzureError` where it breaks off: to ask again costs no more than to ask for its rest.
    """
    inner = inner_of(http)
    raw = getattr(inner, "raw", None)
    # What is encoded is to be decoded, or not, by its reader.
    if not isinstance(raw, HTTPResponse) or "content-encoding" in headers or not OPENERS.isdisjoint(vars(http)):
        return False
    length = raw.length_remaining
    if length is None or length > PIECE:
        return False
    try:
        body, _ = timed(patience.body(length), raw.read, length, False)
    except ReadTimeoutError as error:
        raise ServiceResponseTimeoutError(error, error=error) from error
    except (HTTPError, OSError) as error:
        raise IncompleteReadError(error, error=error) from error
    if len(body) != length:
        raise IncompleteReadError("the body is not as long as its headers say")
    inner.raw = io.BytesIO(body)
    return True


def has_arrived(http: Any, headers: Mapping[str, str], _: Patience) -> bool:
    """Whether all of the body of a loop's response is there; waits for nothing. headers: in lower case, or of any."""
    if not is_aiohttps(http) or not OPENERS.isdisjoint(vars(http)):
        return False
    content = inner_of(http).content
    return content.is_eof() and str(content.total_bytes) == headers.get("content-length")
