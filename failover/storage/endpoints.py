"""Where an account's two endpoints are, and what a request wants from them: URLs taken apart and put together.

The SDK builds wrong URLs for a path-style secondary (`http://127.0.0.1:10000/account-secondary`): it takes the
whole endpoint for a host name, so that a request bound to it becomes `.../account-secondary/account/container`,
or `http://http://...` where the endpoint came from a connection string. Here such URLs are understood.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl, urlsplit

PRIMARY: Final = "primary"
SECONDARY: Final = "secondary"

_SECONDARY_SUFFIX: Final = "-secondary"


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The base URLs of an account's service, without a slash at the end; `secondary` is None where none is known."""

    primary: str
    secondary: str | None

    def other(self, location: str) -> str:
        """SECONDARY for PRIMARY and the reverse."""
        return SECONDARY if location == PRIMARY else PRIMARY

    def base(self, location: str) -> str | None:
        """The base URL of PRIMARY or SECONDARY."""
        return self.primary if location == PRIMARY else self.secondary

    def host(self, location: str) -> str:
        """Host and port of PRIMARY or SECONDARY, for people."""
        return urlsplit(self.base(location) or "").netloc or "none"


@dataclass(frozen=True, slots=True)
class Target:
    """What a request wants: `resource` (path below the endpoint, and query) and where the SDK wanted it from."""

    endpoints: Endpoints
    location: str
    resource: str

    def url(self, location: str) -> str:
        """The resource's URL at PRIMARY or SECONDARY; asked only where `endpoints.base` knows it."""
        return f"{self.endpoints.base(location)}{self.resource}"


def find_target(url: str, hosts: Mapping[str, str | None] | None, *, bound: bool) -> Target:
    """Take the request's `url` apart.

    `hosts` are the SDK's, by location. `bound` tells that the SDK was told which location to use: only then may a
    URL carry the path of both endpoints, one after the other.
    """
    scheme, _, rest = url.partition("://")
    rest = _without_scheme(rest)
    address, mark, query = rest.partition("?")
    known = hosts or {}
    primary = _without_scheme(known.get(PRIMARY) or "").rstrip("/")
    secondary = _without_scheme(known.get(SECONDARY) or "").rstrip("/")
    if not primary:
        primary = address.partition("/")[0]
    account = primary.partition("/")[2]
    if not secondary and account and "/" not in account:
        secondary = primary + _SECONDARY_SUFFIX
    if secondary == primary:
        secondary = ""
    endpoints = Endpoints(f"{scheme}://{primary}", f"{scheme}://{secondary}" if secondary else None)

    if secondary and _begins(address, secondary):
        path = address[len(secondary) :]
        if bound and account and _begins(path, f"/{account}"):
            path = path[len(account) + 1 :]
        return Target(endpoints, SECONDARY, path + mark + query)
    if not address.partition("/")[0]:
        # The SDK had no secondary host to put in: `http:///account/container`.
        path = address
        if account and _begins(path, f"/{account}"):
            path = path[len(account) + 1 :]
        return Target(endpoints, SECONDARY, path + mark + query)
    path = address[len(primary) :] if _begins(address, primary) else "/" + address.partition("/")[2]
    return Target(endpoints, PRIMARY, path + mark + query)


def changes_something(method: str, url: str, *, streamed: bool) -> bool:
    """Whether a request must go to the primary: all but GET and HEAD, and the GET that takes messages off a queue.

    `GET account/queue/messages` without `peekonly=true` hides messages from other readers. A blob may be called
    `messages` too; the SDK streams a blob's download and never a queue's answer.
    """
    if method not in ("GET", "HEAD"):
        return True
    parts = urlsplit(url)
    if method == "HEAD" or streamed or not parts.path.endswith("/messages"):
        return False
    return dict(parse_qsl(parts.query)).get("peekonly", "").lower() != "true"


def _without_scheme(address: str) -> str:
    while address.startswith(("http://", "https://")):
        address = address.partition("://")[2]
    return address


def _begins(address: str, prefix: str) -> bool:
    return address == prefix or address.startswith(prefix + "/")
