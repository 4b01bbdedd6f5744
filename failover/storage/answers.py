"""Whether an answer answers what was asked: a status that says no, a range or version that nobody asked for, circles.

The service's own answers all pass. What does not is the work of something in between (a proxy's login page, a load
balancer, a connection that closed among the headers), of which the SDK would return the wrong bytes or a `ValueError`.
"""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urljoin

from failover.breaker.failures import FAILURE_STATUSES
from failover.storage.body import CONTENT_RANGE
from failover.storage.causes import describe_status
from failover.storage.pace import PAGE

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_MOST_REDIRECTS: Final = 5  # of one read; the SDK would follow 30, and each costs as much as a read
_WANTED: Final = re.compile(r"bytes=(\d+)-(\d*)$")
_VISITED: Final = "failover_visited"


def lower(headers: Any) -> dict[str, str]:
    """A response's headers by their names in lower case: each look into those of requests takes a microsecond."""
    items = getattr(headers, "lower_items", None)
    return dict(items()) if items is not None else {name.lower(): value for name, value in headers.items()}


def refusal(request: Any, context: Any, http: Any, headers: Mapping[str, str], *, resumed: bool) -> str | None:
    """Why an answer to `request` with this head counts as none; `resumed`: its range is looked at elsewhere.

    headers: those of `http`, by `lower`.
    """
    status = http.status_code
    if status in FAILURE_STATUSES:
        return describe_status(status, http.reason, http.headers)
    if is_redirect(http):
        if _goes_in_circles(context, request.url, headers["location"]):
            return f"{describe_status(status, http.reason, http.headers)}, again and again"
    elif status in (200, 206) and request.method == "GET" and context.options.get("stream") and not resumed:
        why = _misfit(request.headers, headers)
        return None if why is None else f"the answer does not fit the question ({why})"
    return None


def is_redirect(http: Any) -> bool:
    """Whether the SDK goes on to another URL: what is there is the answer."""
    return http.status_code in _REDIRECTS and bool(http.headers.get("Location"))


def checks_md5(response: Any) -> bool:
    """Whether the caller wants the body's MD5 to be looked at, and there is one."""
    wanted = response.context.get("validate_content", False)
    return (wanted is True or wanted == "md5") and bool(response.http_response.headers.get("content-md5"))


def matches_md5(http: Any) -> bool:
    """Whether a body that has been read is the one that its header tells of."""
    digest = hashlib.md5(http.body(), usedforsecurity=False).digest()
    return bool(base64.b64encode(digest).decode() == http.headers["content-md5"])


def length_of(http: Any) -> int:
    """The bytes of its body; where it does not say, those of a page."""
    length = http.headers.get("Content-Length") or ""
    return int(length) if length.isdigit() else PAGE


def _goes_in_circles(context: Any, url: str, location: str) -> bool:
    # The SDK follows a redirect by sending the same request, with the same context, once more.
    visited = context.setdefault(_VISITED, set())
    again = url in visited
    visited.add(url)
    return again or urljoin(url, location) in visited or len(visited) > _MOST_REDIRECTS


def _misfit(asked: Mapping[str, str], headers: Mapping[str, str]) -> str | None:
    version = asked.get("If-Match", "*")
    if version != "*" and headers.get("etag") != version:
        return "another ETag"
    wanted = _WANTED.match(asked.get("x-ms-range") or asked.get("Range") or "")
    if wanted is None:
        return None
    given = CONTENT_RANGE.match(headers.get("content-range") or "")
    if given is None:
        return "no Content-Range"
    first, last = int(given[1]), int(given[2])
    if first != int(wanted[1]) or (wanted[2] and last > int(wanted[2])):
        return "another range"
    length = headers.get("content-length") or ""
    # Compressed on its way, or framed with checksums, a body is of another length than its range.
    framed = "x-ms-structured-body" in headers or (headers.get("content-encoding") or "identity").lower() != "identity"
    if length.isdigit() and int(length) != last - first + 1 and not framed:
        return "Content-Length and Content-Range disagree"
    return None
