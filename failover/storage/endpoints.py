"""Where an account's two endpoints are, and which of them a request needs. It parses and builds URLs.

The SDK builds wrong URLs for a path-style secondary (`http://127.0.0.1:10000/account-secondary`): it treats the whole
endpoint as a host name. A request bound to it then goes to `.../account-secondary/account/container`, or to
`http://http://...` if the endpoint came from a connection string. This module understands such URLs.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, urlsplit

PRIMARY: Final = "primary"
SECONDARY: Final = "secondary"

_SECONDARY_SUFFIX: Final = "-secondary"
_PUBLIC_CLOUD: Final = ".core.windows.net"
_SERVICES: Final = frozenset({"blob", "queue", "dfs", "table", "file"})
_FEATURES: Final = ("-ipv6", "-dualstack")  # may follow the account's name in a host name; "-secondary" goes before
_ADDRESS: Final = re.compile(
    r"(https?://)?(?P<address>[\w.-]+(:\d+)?|\[[0-9a-fA-F:.]+\](:\d+)?)(?P<path>(/[\w.~-]+)*)/?"
)


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

    def name(self, location: str) -> str:
        """The endpoint without its scheme, for people: `mine.blob.core.windows.net`; "none" where none is known."""
        return (self.base(location) or "none").partition("://")[2] or "none"


@dataclass(slots=True)  # not frozen, which would double what it costs: each request makes one
class Target:
    """What a request wants: `resource` (path below the endpoint, and query) and where the SDK wanted it from."""

    endpoints: Endpoints
    location: str
    resource: str = field(repr=False)  # it may hold a SAS
    is_as_asked: bool = field(default=False, compare=False)
    """The request's own URL is known to be the resource's at `location`."""
    is_elsewhere: bool = field(default=False, compare=False)
    """The request's own URL is at neither endpoint: a redirect has led there."""

    def url(self, location: str) -> str:
        """The resource's URL at PRIMARY or SECONDARY; asked only where `endpoints.base` knows it."""
        return f"{self.endpoints.base(location)}{self.resource}"


class Finder:
    """`find_target` for the requests of one client, nearly all of which want the same account's primary.

    Args:
        secondary: The base URL of the secondary, or its address alone, where its user names it; None: it is found.

    Raises:
        ValueError: That is no such thing.
    """

    def __init__(self, secondary: str | None = None) -> None:
        if secondary is not None and (not isinstance(secondary, str) or not _ADDRESS.fullmatch(secondary)):
            raise ValueError(
                "secondary_endpoint must look like https://ACCOUNT-secondary.blob.core.windows.net, without a query"
            )
        self._secondary = "" if secondary is None else secondary.rstrip("/")
        self._last: tuple[Mapping[str, str | None] | None, str, Endpoints] = (None, "?", Endpoints("", None))

    def find(self, url: str, hosts: Mapping[str, str | None] | None, *, bound: str | None) -> Target:
        """As `find_target`."""
        told, primary, endpoints = self._last
        # Of two slashes in a row one is left out.
        if bound is None and hosts == told and url.startswith(primary) and not url.startswith("/", len(primary)):
            return Target(endpoints, PRIMARY, url[len(primary) - 1 :], True)
        known = _known_of(url, hosts, self._secondary)
        if known.apart:
            self._last = (None if hosts is None else dict(hosts), f"{known.endpoints.primary}/", known.endpoints)
        return find_target(url, hosts, bound=bound, secondary=self._secondary)


def find_target(url: str, hosts: Mapping[str, str | None] | None, *, bound: str | None, secondary: str = "") -> Target:
    """Take the request's `url` apart.

    `hosts` are the SDK's, by location. `bound` is the location that the SDK was told to use, None where it was not:
    only a bound URL may carry the paths of two endpoints, one after the other. `secondary`: where it is, if that is
    known better.
    """
    address, mark, query = _without_scheme(url.partition("://")[2]).partition("?")
    host = address.partition("/")[0]
    endpoints, primary, there, second, apart = _known_of(url, hosts, secondary)
    if bound is None and apart and address.startswith(f"{primary}/"):
        # Nearly all requests.
        return Target(endpoints, PRIMARY, _one_slash(address[len(primary) :]) + mark + query)

    # Without a host: the SDK had no secondary to put in and made `http:///account/container`.
    to_secondary = not host or any(base and _begins(address, base) for base in (there, second))
    came_by = next((base for base in (there, second, primary) if base and _begins(address, base)), None)
    is_elsewhere = came_by is None and bool(host)
    came_by = host if came_by is None else came_by
    path = _one_slash(address[len(came_by) :])
    if bound == SECONDARY and to_secondary:
        # Before the SDK put the secondary in, the URL was that of the endpoint that the client is set to. Its path
        # is left of it, and its host too where that was `http://http://...`.
        for left in (there, primary.partition("/")[2], second.partition("/")[2]):
            if left and _begins(path, f"/{left}"):
                path = _one_slash(path[len(left) + 1 :])
                break
    location = SECONDARY if to_secondary and bound != PRIMARY else PRIMARY
    return Target(endpoints, location, path + mark + query, is_elsewhere=is_elsewhere)


class _Known(NamedTuple):
    """An account: its endpoints, and the addresses of the primary, and of the secondary as told (`there`) and as found.

    apart: none of them begins with another. What begins with the primary's is then the primary's.
    """

    endpoints: Endpoints
    primary: str
    there: str
    secondary: str
    apart: bool


def blob_address(address: str) -> str:
    """The address, or URL, of an account's blob endpoint, where that of its Data Lake endpoint is given."""
    return address.replace(".dfs.", ".blob.", 1)


def _known_of(url: str, hosts: Mapping[str, str | None] | None, secondary: str) -> _Known:
    scheme, _, rest = url.partition("://")
    told = hosts or {}
    host = _without_scheme(rest).partition("?")[0].partition("/")[0]
    return _known_by(scheme, host, told.get(PRIMARY) or "", told.get(SECONDARY) or "", secondary)


@functools.lru_cache(maxsize=64)
def _known_by(scheme: str, host: str, told_primary: str, told_secondary: str, given: str) -> _Known:
    primary = _without_scheme(told_primary).rstrip("/") or host
    if host in ("", blob_address(primary)):
        # Data Lake clients read files from the blob endpoint, and tell the hosts of the other one. They bind nothing
        # else than what they ask there.
        primary = blob_address(primary)
    # A client that was made for the secondary's own URL knows no other endpoint.
    there = _without_scheme(told_secondary).rstrip("/")
    there = "" if there == primary else there
    secondary = _like(primary, _without_scheme(given)) or _find_secondary(primary, there)
    secondary = "" if secondary == primary else secondary
    scheme_there = given.partition("://")[0] if "://" in given else scheme
    endpoints = Endpoints(f"{scheme}://{primary}", f"{scheme_there}://{secondary}" if secondary else None)
    others = [address for address in (there, secondary) if address]
    apart = bool(primary) and not any(_begins(other, primary) or _begins(primary, other) for other in others)
    return _Known(endpoints, primary, there, secondary, apart)


def _like(primary: str, secondary: str) -> str:
    """A secondary's address that was given for one of the two services of Data Lake, for the one that is asked."""
    if ".dfs." in primary:
        return secondary.replace(".blob.", ".dfs.", 1)
    return blob_address(secondary) if ".blob." in primary else secondary


def _find_secondary(primary: str, told: str) -> str:
    """The address of the secondary, empty where none can be known.

    The SDK tells one (`told`) where the account is the public cloud's, or its user named one. Else it tells none, or
    takes the public cloud's for it (`account-secondary.blob.core.windows.net`) as soon as it knows the account's name.
    """
    host, _, path = primary.partition("/")
    if path:  # an emulator: the path is the account's name
        found = f"{host}/{path}{_SECONDARY_SUFFIX}" if "/" not in path else ""
        account = path
    else:
        found = _secondary_of_host(host)
        account = _account_in(host)[0]
    public = told.startswith(f"{account}{_SECONDARY_SUFFIX}.") and told.endswith(_PUBLIC_CLOUD)
    guessed = public and not host.endswith(_PUBLIC_CLOUD)
    # The SDK takes all that is in front of `.blob.core.` for the account's name: `mine.privatelink-secondary.blob...`.
    name = told.partition(f"{_SECONDARY_SUFFIX}.")[0]
    guessed = guessed or (not path and "." in name and name != told and told.endswith(_PUBLIC_CLOUD))
    return found if found and (guessed or not told) else told


def _secondary_of_host(host: str) -> str:
    """`account-secondary.blob...` for `account.blob...`: in any cloud, DNS zone or private link; else empty."""
    account, feature, rest = _account_in(host)
    if account.endswith(_SECONDARY_SUFFIX) or _SERVICES.isdisjoint(rest.partition(":")[0].split(".")):
        return ""
    return f"{account}{_SECONDARY_SUFFIX}{feature}.{rest}"


def _account_in(host: str) -> tuple[str, str, str]:
    """The account's name, the feature behind it, and what follows the first dot."""
    label, _, rest = host.partition(".")
    feature = next((each for each in _FEATURES if label.endswith(each)), "")
    return label.removesuffix(feature), feature, rest


def changes_something(method: str, url: str) -> bool:
    """Whether a request must go to the primary: all but GET and HEAD, the GET that takes messages off a queue, and the
    POST that queries a blob.

    `GET account/queue/messages` without `peekonly=true` hides messages from other readers. A blob or a container may
    be called `messages` too: the SDK streams a blob's download and never a queue's answer (one that is streamed is not
    asked about here), and what it asks about a container says so by `restype` or `comp`, about a file system by
    `resource`.
    """
    if method == "HEAD":
        return False
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    if method == "POST":
        return query.get("comp") != "query"
    if method != "GET":
        return True
    if not parts.path.endswith("/messages"):
        return False
    return not ({"restype", "comp", "resource"} & query.keys() or query.get("peekonly", "").lower() == "true")


def page_token(url: str) -> str | None:
    """What a request for a later page of a Data Lake listing names it by; None: it is for none.

    Of these alone the SDK does not say to which endpoint they are bound.
    """
    query = url.partition("?")[2]
    if "resource=" not in query or "continuation=" not in query:
        return None
    return dict(parse_qsl(query)).get("continuation")


def _without_scheme(address: str) -> str:
    while address.startswith(("http://", "https://")):
        address = address.partition("://")[2]
    return address


def _one_slash(path: str) -> str:
    # An endpoint given with a slash at its end leaves two.
    return "/" + path.lstrip("/") if path else ""


def _begins(address: str, prefix: str) -> bool:
    return address == prefix or address.startswith(prefix + "/")
