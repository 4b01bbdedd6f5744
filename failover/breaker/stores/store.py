"""What every store offers: one small record per circuit, compare-and-set, and ages by the store's own clock."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Final, Protocol, runtime_checkable

LARGEST: Final = 16_384
"""Bytes in a record at most. Ours have some hundreds; a Table's property takes 65,536."""

SECONDS: Final = 1.0
"""How long a store may take to connect, and again to begin its answer."""

OPERATION_SECONDS: Final = 2.0
"""How long one operation may take as a whole, however slowly the bytes of its answer come."""

_AT_ONCE: Final = 50  # names in one read
# Kept as they are in a key; all else is written as _ and two hex digits per byte, so that no store trips over it.
_NOT_PLAIN: Final = re.compile(rb"[^A-Za-z0-9-]")
_LONGEST_KEY: Final = 200


class StoreError(Exception):
    """The store failed: it was unreachable or too slow, or it refused. The message contains no credentials."""


class StoreClosed(StoreError):  # noqa: N818 (it says what it is)
    """The store was closed with `Store.close`."""


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record as it is in the store.

    Attributes:
        body: The bytes that were written, or whatever another program has put there (empty if that has no bytes).
        version: Opaque; it changes with each write.
        age: Seconds since the write by the store's clock, at least 0. If that clock shows whole seconds only, at least
            this many have passed, so that nothing ends too early.
    """

    body: bytes
    version: str
    age: float


class Store(Protocol):
    """Where processes share circuits.

    Any thread may call it. Each operation ends within `OPERATION_SECONDS` or raises `StoreError`.
    """

    url: str
    """What was opened, without credentials."""

    is_local: bool
    """Whether it works without I/O, so that no caller and no event loop is held up by it."""

    refresh: float
    """Seconds between two looks of a process at all its circuits' records."""

    def read(self, names: Iterable[str]) -> dict[str, StoredRecord]:
        """The records of these circuits. Circuits without a record are left out."""

    def compare_and_set(self, name: str, body: bytes, expected: str | None, ttl: float | None = None) -> str | None:
        """Write the record if its version is still `expected`.

        Args:
            name: The name of the circuit.
            body: At most `LARGEST` bytes.
            expected: The version that was read. None: there was no record.
            ttl: Seconds after which the store may delete the record. None: never.

        Returns:
            The new version, or None if another writer was first.

        Raises:
            ValueError: `body` is too large.
            StoreError: It is unknown whether the record was written.
        """

    def subscribe(self, changed: Callable[[str | None], None]) -> bool:
        """Call `changed` with the name at each write by any process; with None if any circuit may have changed.

        It is called from any thread.

        Returns:
            False if the store cannot push.
        """

    def forget_connections(self) -> None:
        """Called in a forked child: the connections belong to the parent. New ones are made when needed."""

    def close(self) -> None:
        """Close the connections and end the threads. After that, operations raise `StoreClosed`."""


@runtime_checkable
class ListsChanges(Protocol):
    """A store that finds what has changed with fewer operations than one for each name. All of ours do."""

    def changes(self, known: Mapping[str, str | None]) -> Iterator[Mapping[str, StoredRecord | None]]:
        """The records whose version is another than the known one, in parts.

        Each step is one operation. What it gives was read in that step, so the caller may write between two steps.

        Args:
            known: The versions of all circuits of interest; None: nothing is held.

        Yields:
            Names with their records; None: nothing is held any more.
        """


@runtime_checkable
class ReleasesConnections(Protocol):
    """A store that can do without its connections and threads while no circuit uses it."""

    def release(self) -> None:
        """Close the connections and end the threads, until the store is used again."""


def changes_of(store: Store, known: Mapping[str, str | None]) -> Iterator[Mapping[str, StoredRecord | None]]:
    """As `ListsChanges.changes`, of any store."""
    return store.changes(known) if isinstance(store, ListsChanges) else read_in_parts(store, known)


def read_in_parts(
    store: Store, names: Iterable[str], at_once: int = _AT_ONCE
) -> Iterator[Mapping[str, StoredRecord | None]]:
    """Read so many names in each step, changed or not."""
    left = iter(names)
    while part := list(itertools.islice(left, at_once)):
        found = store.read(part)
        yield {name: found.get(name) for name in part}


def key_of(name: str) -> str:
    """The circuit's name in letters, digits, - and _, at most 200 long. Two names never have the same key."""
    raw = name.encode("utf-8", "surrogatepass")
    key = _NOT_PLAIN.sub(lambda found: b"_%02x" % found[0][0], raw).decode("ascii")
    if len(key) <= _LONGEST_KEY:
        return key
    digest = hashlib.sha256(raw).hexdigest()
    # Two underscores occur in no short key.
    return f"{key[: _LONGEST_KEY - len(digest) - 2]}__{digest}"


def check_size(body: bytes) -> None:
    """Raise `ValueError` for a body that no store of ours takes."""
    if len(body) > LARGEST:
        raise ValueError(f"a record has at most {LARGEST} bytes, not {len(body)}")


def age_by(date: str | None, written: datetime | None, step: float = 0.0) -> float:
    """Seconds that have passed from `written` to the answer's `Date` header at least, both by the server's clock.

    Args:
        date: The header. Without it the age is 0.
        written: When the record was written, by the server. Without it the age is 0.
        step: Seconds in which `written` counts.
    """
    if not date or written is None:
        return 0.0
    try:
        return max(0.0, (parsedate_to_datetime(date) - written).total_seconds() - step)
    except (TypeError, ValueError):
        return 0.0
