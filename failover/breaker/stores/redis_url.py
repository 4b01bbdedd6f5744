"""Parses the URL of a Redis: a single server, a cluster, or servers with Sentinel."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

# Scheme: how it is deployed, and whether over TLS. Valkey speaks the same protocol.
SCHEMES: Final[dict[str, tuple[str, bool]]] = {
    "redis": ("single", False),
    "rediss": ("single", True),
    "redis+cluster": ("cluster", False),
    "rediss+cluster": ("cluster", True),
    "redis+sentinel": ("sentinel", False),
    "rediss+sentinel": ("sentinel", True),
    "valkey": ("single", False),
    "valkeys": ("single", True),
    "valkey+cluster": ("cluster", False),
    "valkeys+cluster": ("cluster", True),
    "valkey+sentinel": ("sentinel", False),
    "valkeys+sentinel": ("sentinel", True),
    "unix": ("single", False),
}

_TLS_OPTIONS: Final = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}
_SENTINEL_OPTIONS: Final = {"sentinel_username", "sentinel_password"}
_PORTS: Final = {"single": 6379, "cluster": 6379, "sentinel": 26379}
_FORMS: Final = {
    "single": "redis://host:port/db, rediss://host:port/db or unix:///path?db=0",
    "cluster": "redis+cluster://host:port,host:port",
    "sentinel": "redis+sentinel://host:port,host:port/service/db",
}


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """What a URL says.

    Attributes:
        how: "single", "cluster" or "sentinel".
        shown: The URL without credentials.
        hosts: Host and port of the server, of some nodes, or of the sentinels; empty for a socket in the file system.
        service: What the sentinels call the group of servers.
        prefix: Goes before each key.
        settings: For each connection: database, credentials, TLS options, path.
        sentinel_settings: For connections to the sentinels.
    """

    how: str
    shown: str
    hosts: tuple[tuple[str, int], ...]
    service: str
    prefix: str
    settings: dict[str, Any] = field(repr=False)
    sentinel_settings: dict[str, Any] = field(repr=False)

    @property
    def secrets(self) -> list[str]:
        """What no message may show."""
        both = (self.settings, self.sentinel_settings)
        return [str(each[key]) for each in both for key in ("username", "password") if each.get(key)]


def parse(url: str) -> RedisUrl:
    """What `url` says.

    Raises:
        ValueError: It is no such URL. The text does not show it, since it may hold a password.
    """
    scheme = url.partition("://")[0].lower()
    how, tls = SCHEMES[scheme]
    form = f"a store's URL is {_FORMS[how]}"
    if "#" in url:
        raise ValueError(f"{form}; this one has a #: in a password write %23 for it (as %2F for /, %3F for ?)")
    hosts: tuple[tuple[str, int], ...] = ()
    service = ""
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        credentials, _, addresses = parts.netloc.rpartition("@")
        if scheme == "unix":
            db = int(options.pop("db", "0"))
        else:
            hosts = tuple(_address(each, _PORTS[how]) for each in addresses.split(","))
            service, db = _path(how, parts.path)
    except ValueError:
        raise ValueError(f"{form}; in this one a host, port, database or option is wrong") from None
    allowed = {"prefix"} | _TLS_OPTIONS | (_SENTINEL_OPTIONS if how == "sentinel" else set())
    if db < 0 or not set(options) <= allowed:
        raise ValueError(f"{form}; in this one the number of the database or an option is none that is known")
    if not tls and _TLS_OPTIONS & set(options):
        raise ValueError(f"{form}; {', '.join(sorted(_TLS_OPTIONS & set(options)))} is for TLS: write rediss")
    if how == "sentinel" and not service:
        raise ValueError(f"{form}; this one names no service")
    settings: dict[str, Any] = {} if how == "cluster" else {"db": db}
    user, _, password = (unquote(each) for each in credentials.partition(":"))
    settings |= {key: value for key, value in (("username", user), ("password", password)) if value}
    if scheme == "unix":
        if not parts.path:
            raise ValueError(f"{form}; this one has no path")
        settings["path"] = unquote(parts.path)
    if how == "single" and len(hosts) > 1:
        raise ValueError(f"{form}; this one names several hosts")
    secure = {"ssl": True, **{key: options[key] for key in _TLS_OPTIONS & set(options)}} if tls else {}
    of_sentinels = {key.removeprefix("sentinel_"): options[key] for key in _SENTINEL_OPTIONS & set(options)}
    addresses = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in hosts)
    where = {"single": f"/{db}", "cluster": "", "sentinel": f"/{service}/{db}"}[how]
    return RedisUrl(
        how=how,
        shown=f"{scheme}://{addresses or settings['path']}{where}",
        hosts=hosts,
        service=service,
        prefix=options.get("prefix", "failover:"),
        settings=settings | secure,
        sentinel_settings=of_sentinels | secure,
    )


def _address(text: str, port: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    if not parts.hostname or parts.path:
        raise ValueError
    return parts.hostname, port if parts.port is None else parts.port


def _path(how: str, path: str) -> tuple[str, int]:
    """The service and the database."""
    if how == "cluster":
        if path.strip("/"):
            raise ValueError  # a cluster has one database
        return "", 0
    service, _, db = path.strip("/").partition("/") if how == "sentinel" else ("", "", path.strip("/"))
    return unquote(service), int(db or "0")
