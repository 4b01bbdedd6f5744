"""The name of a remote: a normalized URI, without credentials."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

_DEFAULT_PORTS: Final = {"http": 80, "https": 443, "ws": 80, "wss": 443, "ftp": 21, "redis": 6379, "rediss": 6379}
_PLAIN_NAME: Final = re.compile(r"[\w.:/ -]{1,200}")


def normal(uri: str) -> str:
    """`uri` with scheme and host in lower case and no default port, user, password, query, fragment or last slash.

    A query or a user may be a credential, and a circuit's name is told to logs. A plain name without `://`, of
    letters, digits, space and `._:/-`, stays as it is. `ValueError` for anything else, which is not shown.
    """
    if "://" not in uri:
        if _PLAIN_NAME.fullmatch(uri):
            return uri
        raise ValueError("uri must be SCHEME://HOST/PATH or a plain name of letters, digits, space and ._:/-")
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not parts.scheme or not uri.isprintable():
        raise ValueError("uri has no usable host: it must be SCHEME://HOST/PATH")
    shown = f"[{host}]" if ":" in host else host
    if port is not None and port != _DEFAULT_PORTS.get(parts.scheme):
        shown = f"{shown}:{port}"
    return f"{parts.scheme}://{shown}{parts.path.rstrip('/')}"


def itself_and_above(uri: str) -> Iterator[str]:
    """A normal `uri`, then each that it is below, the nearest first."""
    begin = uri.index("://") + 3 if "://" in uri else 0
    while True:
        yield uri
        cut = uri.rfind("/", begin)
        if cut <= 0:
            return
        uri = uri[:cut]
