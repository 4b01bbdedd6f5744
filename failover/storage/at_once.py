"""Bodies that are there as soon as their headers are: what cannot break off any more needs nobody to see to that.

To see to it is a third of what a healthy read pays for its circuits. A transport that has put an opener of its own on
the response may break off the body itself.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any, Final

from azure.core.exceptions import AzureError, IncompleteReadError, ServiceResponseTimeoutError
from urllib3.exceptions import HTTPError, ReadTimeoutError
from urllib3.response import HTTPResponse

from failover.storage.guarded import OPENERS
from failover.storage.pace import PIECE, Patience, timed

AIOHTTPS: Final = "_decompressed_content"
"""An attribute that azure-core's responses have, of either kind, where they are made of one of aiohttp's."""


def read_at_once(own: Mapping[str, Any], inner: Any, headers: Mapping[str, str], patience: Patience) -> bool:
    """Read the streamed body of a thread's response, if it is short; tell whether it is there now.

    Whoever opens it then finds it in memory, or is told what broke it off. The SDK reads a blob's before it returns,
    too. own: the response's attributes. inner: what it is made of. headers: in lower case.
    """
    raw = getattr(inner, "raw", None)
    # What is encoded is to be decoded, or not, by its reader.
    if not isinstance(raw, HTTPResponse) or "content-encoding" in headers or not OPENERS.isdisjoint(own):
        return False
    length = raw.length_remaining
    if length is None or length > PIECE:
        return False
    try:
        body, _ = timed(patience.body(length), raw.read, length, False)
        if len(body) != length:
            raise IncompleteReadError("the body is not as long as its headers say")
    except (AzureError, HTTPError, OSError) as error:
        raw.close()
        inner.raw = _Broken(_as_azures(error))
        return False
    inner.raw = io.BytesIO(body)
    return True


class _Broken:
    """A file that cannot be read."""

    def __init__(self, error: AzureError) -> None:
        self._error = error

    def read(self, _size: int) -> bytes:
        raise self._error

    def close(self) -> None:
        pass


def _as_azures(error: Exception) -> AzureError:
    if isinstance(error, AzureError):
        return error
    kind = ServiceResponseTimeoutError if isinstance(error, ReadTimeoutError) else IncompleteReadError
    broken = kind(error, error=error)
    broken.__cause__ = error
    return broken


def has_arrived(own: Mapping[str, Any], inner: Any, headers: Mapping[str, str], _: Patience) -> bool:
    """Whether all of the body of a loop's response is there; waits for nothing. own, inner, headers: as above."""
    if AIOHTTPS not in own or not OPENERS.isdisjoint(own):
        return False
    content = inner.content
    return content.is_eof() and str(content.total_bytes) == headers.get("content-length")
