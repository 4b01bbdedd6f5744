"""Where an account's two endpoints are, and what a request wants from them: URLs taken apart and put together.

The SDK builds wrong URLs for a path-style secondary (`http://127.0.0.1:10000/account-secondary`): it takes the
whole endpoint for a host name, so that a request bound to it becomes `.../account-secondary/account/container`,
or `http://http://...` where the endpoint came from a connection string. Here such URLs are understood.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, urlsplit

PRIMARY: Final = "primary"
SECONDARY: Final = "secondary"

_SECONDARY_SUFFIX: Final = "-secondary"
_PUBLIC_CLOUD: Final = ".core.windows.net"


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


@dataclass(slots=True)  # not frozen, which would double what it costs: each request makes one
class Target:
    """What a request wants: `resource` (path below the endpoint, and query) and where the SDK wanted it from."""

    endpoints: Endpoints
    location: str
    resource: str = field(repr=False)  # it may hold a SAS
    is_as_asked: bool = field(default=False, compare=False)
    """The request's own URL is known to be the resource's at `location`."""

    def url(self, location: str) -> str:
        """The resource's URL at PRIMARY or SECONDARY; asked only where `endpoints.base` knows it."""
        return f"{self.endpoints.base(location)}{self.resource}"


class Finder:
    """`find_target` for the requests of one client, nearly all of which want the same account's primary."""

    def __init__(self) -> None:
        self._last: tuple[Mapping[str, str | None] | None, str, Endpoints] = (None, "?", Endpoints("", None))

    def find(self, url: str, hosts: Mapping[str, str | None] | None, *, bound: str | None) -> Target:
        """As `find_target`."""
        told, primary, endpoints = self._last
        # Of two slashes in a row one is left out.
        if bound is None and hosts == told and url.startswith(primary) and not url.startswith("/", len(primary)):
            return Target(endpoints, PRIMARY, url[len(primary) - 1 :], True)
        known = _known_of(url, hosts)
        if known.apart:
            self._last = (None if hosts is None else dict(hosts), f"{known.endpoints.primary}/", known.endpoints)
        return find_target(url, hosts, bound=bound)


def find_target(url: str, hosts: Mapping[str, str | None] | None, *, bound: str | None) -> Target:
    """Take the request's `url` apart.

    `hosts` are the SDK's, by location. `bound` is the location that the SDK was told to use, None where it was not:
    only a bound URL may carry the paths of two endpoints, one after the other.
    """
    address, mark, query = _without_scheme(url.partition("://")[2]).partition("?")
    host = address.partition("/")[0]
    endpoints, primary, there, secondary, apart = _known_of(url, hosts)
    if bound is None and apart and address.startswith(f"{primary}/"):
        # Nearly all requests.
        return Target(endpoints, PRIMARY, _one_slash(address[len(primary) :]) + mark + query)

    # Without a host: the SDK had no secondary to put in and made `http:///account/container`.
    to_secondary = not host or any(base and _begins(address, base) for base in (there, secondary))
    came_by = next((base for base in (there, secondary, primary) if base and _begins(address, base)), host)
    path = _one_slash(address[len(came_by) :])
    if bound == SECONDARY and to_secondary:
        # Before the SDK put the secondary in, the URL was that of the endpoint that the client is set to. Its path
        # is left of it, and its host too where that was `http://http://...`.
        for left in (there, primary.partition("/")[2], secondary.partition("/")[2]):
            if left and _begins(path, f"/{left}"):
                path = _one_slash(path[len(left) + 1 :])
                break
    location = SECONDARY if to_secondary and bound != PRIMARY else PRIMARY
    return Target(endpoints, location, path + mark + query)


class _Known(NamedTuple):
    """An account: its endpoints, and the addresses of the primary, and of the secondary as told (`there`) and as found.

    apart: none of them begins with another. What begins with the primary's is then the primary's.
    """

    endpoints: Endpoints
    primary: str
    there: str
    secondary: str
    apart: bool


def _known_of(url: str, hosts: Mapping[str, str | None] | None) -> _Known:
    scheme, _, rest = url.partition("://")
    told = hosts or {}
    host = _without_scheme(rest).partition("?")[0].partition("/")[0]
    return _known_by(scheme, host, told.get(PRIMARY) or "", told.get(SECONDARY) or "")


@functools.lru_cache(maxsize=64)
def _known_by(scheme: str, host: str, told_primary: str, told_secondary: str) -> _Known:
    primary = _without_scheme(told_primary).rstrip("/") or host
    # A client that was made for the secondary's own URL knows no other endpoint.
    there = _without_scheme(told_secondary).rstrip("/")
    there = "" if there == primary else there
    secondary = _find_secondary(primary, there)
    endpoints = Endpoints(f"{scheme}://{primary}", f"{scheme}://{secondary}" if secondary else None)
    others = [address for address in (there, secondary) if address]
    apart = bool(primary) and not any(_begins(other, primary) or _begins(primary, other) for other in others)
    return _Known(endpoints, primary, there, secondary, apart)


def _find_secondary(primary: str, told: str) -> str:
    """The address of the secondary, empty where none can be known.

    For the path-style endpoint of an emulator the SDK knows none, or takes the public cloud's for it
    (`account-secondary.blob.core.windows.net`) where the emulator's host has a name of its own.
    """
    host, _, account = primary.partition("/")
    if not account or "/" in account:
        return told
    guessed = told.startswith(f"{account}{_SECONDARY_SUFFIX}.") and told.endswith(_PUBLIC_CLOUD)
    return f"{host}/{account}{_SECONDARY_SUFFIX}" if guessed or not told else told


def changes_something(method: str, url: str) -> bool:
    """Whether a request must go to the primary: all but GET and HEAD, and the GET that takes messages off a queue.

    `GET account/queue/messages` without `peekonly=true` hides messages from other readers. A blob or a container may
    be called `messages` too: the SDK streams a blob's download and never a queue's answer (one that is streamed is not
    asked about here), and what it asks about a container says so by `restype` or `comp`.
    """
    if method != "GET":
        return method != "HEAD"
    parts = urlsplit(url)
    if not parts.path.endswith("/messages"):
        return False
    query = dict(parse_qsl(parts.query))
    return not ("restype" in query or "comp" in query or query.get("peekonly", "").lower() == "true")


def _without_scheme(address: str) -> str:
    while address.startswith(("http://", "https://")):
        address = address.partition("://")[2]
    return address


def _one_slash(path: str) -> str:
    # An endpoint given with a slash at its end leaves two.
    return "/" + path.lstrip("/") if path else ""


def _begins(address: str, prefix: str) -> bool:
    return address == prefix or address.startswith(prefix + "/")
