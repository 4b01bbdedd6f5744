"""Whether an answer matches its request: a failing status, a range or version that was not requested, redirect loops.

All of the service's own answers pass. An answer that does not was made by something in between (a proxy's login page, a
load balancer, a connection that closed among the headers). The SDK would return the wrong bytes for it, or raise a
`ValueError`.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import math
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urljoin

from failover.storage import _sdk
from failover.storage.body import range_of
from failover.storage.causes import describe_status

BODY_STATUSES: Final = frozenset({200, 206})
"""Of an answer that may carry what was asked for."""

_FAILURES_BELOW_500: Final = frozenset({408, 429})
_ANSWERS_FROM_500: Final = frozenset({501, 505})
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS: Final = 5  # of one read; the SDK would follow 30, and each costs as much as a read
_WANTED: Final = re.compile(r"bytes=(\d+)-(\d*)$")
_MISMATCH: Final = "the answer does not fit the question ({})"
_VISITED: Final = "failover_visited"


def headers_of(http: Any) -> Mapping[str, str]:
    """The headers of a transport's response, to be looked up by their names in lower case."""
    headers: Mapping[str, str] = http.headers
    return headers if _sdk.finds_any_case(headers) else {name.lower(): value for name, value in headers.items()}


def mismatch(asked: Mapping[str, str], headers: Mapping[str, str]) -> str | None:
    """Why an answer with one of `BODY_STATUSES` cannot carry the body that a request with the headers `asked` asks for.

    headers: by `headers_of`.
    """
    version = asked.get("If-Match", "*")
    if version != "*" and headers.get("etag") != version:
        return _MISMATCH.format("another ETag")
    wanted = wanted_range(asked)
    if wanted is None:
        return None
    given = range_of(headers.get("content-range") or "")
    if given is None:
        return _MISMATCH.format("no Content-Range")
    first, last = given
    if first != wanted[0] or last > wanted[1]:
        return _MISMATCH.format("another range")
    length = headers.get("content-length") or ""
    if length.isdigit() and int(length) != last - first + 1 and not _is_wrapped(headers):
        return _MISMATCH.format("Content-Length and Content-Range disagree")
    return None


def _is_wrapped(headers: Mapping[str, str]) -> bool:
    """Whether a body is of another length than its range: compressed on its way, or framed with checksums."""
    return "x-ms-structured-body" in headers or (headers.get("content-encoding") or "identity").lower() != "identity"


def is_failure_status(status: int) -> bool:
    """Whether a status says that the endpoint did not do its work: 408, 429, and 5xx but 501 and 505.

    These are those that the SDK sends again, and 429.
    """
    return status in _FAILURES_BELOW_500 or (status >= 500 and status not in _ANSWERS_FROM_500)


def error_status(request: Any, context: Any, http: Any, headers: Mapping[str, str]) -> str | None:
    """Why an answer to `request` with another status counts as none. headers: as above."""
    status = http.status_code
    if is_failure_status(status):
        return describe_status(status, http.reason, headers)
    if is_redirect(status, headers) and _goes_in_circles(context, request.url, headers["location"]):
        return f"{describe_status(status, http.reason, headers)}, again and again"
    return None


def is_redirect(status: int, headers: Mapping[str, str]) -> bool:
    """Whether the SDK goes on to another URL: what is there is the answer."""
    return status in _REDIRECTS and bool(headers.get("location"))


def checks_md5(context: Any, headers: Mapping[str, str]) -> bool:
    """Whether the caller wants the body's MD5 to be looked at, and there is one."""
    wanted = context.get("validate_content")
    return (wanted is True or wanted == "md5") and bool(headers.get("content-md5"))


def matches_md5(http: Any, headers: Mapping[str, str]) -> bool:
    """Whether a body that has been read is the one that its header tells of."""
    digest = hashlib.md5(http.body(), usedforsecurity=False).digest()
    return base64.b64encode(digest).decode() == headers["content-md5"]


def _goes_in_circles(context: Any, url: str, location: str) -> bool:
    # The SDK follows a redirect by sending the same request, with the same context, once more.
    visited = context.setdefault(_VISITED, set())
    again = url in visited
    visited.add(url)
    return again or urljoin(url, location) in visited or len(visited) > _MOST_REDIRECTS


def wanted_range(asked: Mapping[str, str]) -> tuple[int, float] | None:
    """The first and the last position that a request with these headers asks for; None: for all."""
    return _wanted(asked.get("x-ms-range") or asked.get("Range") or "")


@functools.lru_cache(maxsize=64)
def _wanted(header: str) -> tuple[int, float] | None:
    match = _WANTED.match(header)
    return None if match is None else (int(match[1]), int(match[2]) if match[2] else math.inf)
