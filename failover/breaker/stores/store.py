"""What every store offers: one small record per circuit, compare-and-swap, and ages by the store's own clock."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final, Protocol

LARGEST: Final = 16_384
"""Bytes in a record at most. Ours have some hundreds; a Table's property takes 65,536."""

SECONDS: Final = 1.0
"""How long a store may take to connect, and again to answer."""

# Kept as they are in a key; all else is written as _ and two hex digits per byte, so that no store trips over it.
_PLAIN: Final = re.compile(rb"[A-Za-z0-9-]")
_LONGEST_KEY: Final = 200


class StoreError(Exception):
    """The store did not do its work: unreachable, too slow, or it refused. The message holds no credentials."""


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record as the store holds it.

    body: as it was written, or what somebody else left there (empty where that has no bytes of its own).
    version: opaque, another one after each write. age: seconds since the write by the store's clock, from 0; where
    that clock shows whole seconds, so many have passed at least, so that nothing ends too early.
    """

    body: bytes
    version: str
    age: float


class Store(Protocol):
    """Where processes agree. Any thread may call; each method ends in about `SECONDS` or raises `StoreError`."""

    url: str
    """What was opened, without credentials."""

    is_local: bool
    """Whether it works without I/O, so that no caller and no event loop is held up by it."""

    refresh: float
    """Seconds between two looks of a process at all its circuits' records."""

    def read(self, names: Iterable[str]) -> dict[str, StoredRecord]:
        """What is held for these circuits; those of which nothing is held are left out."""

    def compare_and_set(self, name: str, body: bytes, expected: str | None, ttl: float | None = None) -> str | None:
        """Write if the version is still `expected` (None: if nothing is held).

        Gives the new version, or None where another writer was first. `ttl`: seconds after which a store that
        can forget may forget the record; None: never. `ValueError` if the body is larger than `LARGEST`.
        """

    def subscribe(self, changed: Callable[[str | None], None]) -> bool:
        """Have `changed` called with the name at each write by anybody, from any thread; None: perhaps all changed.

        False where the store cannot push.
        """

    def forget_connections(self) -> None:
        """After a fork, in the child: they belong to the parent. New ones are made when needed."""


def key_of(name: str) -> str:
    """The circuit's name in letters, digits, - and _, at most 200 long; two names never have the same."""
    raw = name.encode("utf-8", "surrogatepass")
    key = "".join(chr(b) if _PLAIN.match(bytes((b,))) else f"_{b:02x}" for b in raw)
    if len(key) <= _LONGEST_KEY:
        return key
    digest = hashlib.sha256(raw).hexdigest()
    # Two underscores occur in no short key.
    return f"{key[: _LONGEST_KEY - len(digest) - 2]}__{digest}"


def check_size(body: bytes) -> None:
    """`ValueError` for a body that no store of ours takes."""
    if len(body) > LARGEST:
        raise ValueError(f"a record has at most {LARGEST} bytes, not {len(body)}")


def age_by(date: str | None, written: datetime | None, step: float = 0.0) -> float:
    """Seconds that have passed from `written` to the answer's `Date` header at least, both by the server's clock.

    `step`: the steps in which `written` counts. 0 where one of the two is missing.
    """
    if not date or written is None:
        return 0.0
    try:
        return max(0.0, (parsedate_to_datetime(date) - written).total_seconds() - step)
    except (TypeError, ValueError):
        return 0.0
