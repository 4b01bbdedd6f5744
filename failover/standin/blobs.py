"""What the stand-in account stores, and what of it has reached the secondary. No I/O; the clocks are passed in.

A state of the account is immutable: each write makes a new one. Replication is a queue of states. The secondary shows
the newest state that is at least `lag` seconds old. It therefore never shows half a write, and writes arrive there in
the order in which they were made.
"""

from __future__ import annotations

import base64
import hashlib
import math
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType

_FIRST_ETAG = 0x8DE_0000_0000_0000  # as long as the service's


class Refusal(Exception):  # noqa: N818  # an answer, not an error of ours
    """The account refuses a request, with an HTTP status and the service's error code and message."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.headers = dict(headers or {})


@dataclass(frozen=True, slots=True)
class Blob:
    """One version of a block blob.

    Attributes:
        content: Its bytes.
        etag: Its ETag, in quotes.
        created: When the first version was written, in seconds since the epoch.
        modified: When this version was written, in seconds since the epoch.
        headers: The headers of its writer that its readers get: Content-Type, Content-Encoding, x-ms-meta-* and so on.
    """

    content: bytes = field(repr=False)
    etag: str
    created: float
    modified: float
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Container:
    """A container and its blobs by name. `modified` is when it was created: writing blobs does not change it."""

    etag: str
    modified: float
    blobs: Mapping[str, Blob]


State = Mapping[str, Container]


def find_container(state: State, name: str) -> Container:
    """Return the container. Raises `Refusal` 404 where there is none."""
    try:
        return state[name]
    except KeyError:
        raise Refusal(404, "ContainerNotFound", "The specified container does not exist.") from None


def find_blob(state: State, container: str, name: str) -> Blob:
    """Return the blob. Raises `Refusal` 404, whose code says whether the container or the blob is missing."""
    try:
        return find_container(state, container).blobs[name]
    except KeyError:
        raise Refusal(404, "BlobNotFound", "The specified blob does not exist.") from None


@dataclass(frozen=True, slots=True)
class Condition:
    """The values of If-Match and If-None-Match, each an ETag or `*`."""

    if_match: str | None = None
    if_none_match: str | None = None

    def check_write(self, blob: Blob | None) -> None:
        """Raise `Refusal` 409 or 412 where the condition forbids to replace `blob` (None: there is none yet)."""
        if self.if_none_match == "*" and blob is not None:
            raise Refusal(409, "BlobAlreadyExists", "The specified blob already exists.")
        if not self._holds(blob):
            raise Refusal(412, "ConditionNotMet", "The condition given in the request's headers is not met.")

    def check_read(self, blob: Blob) -> None:
        """Raise `Refusal` 412 where `blob` is not the version asked for, 304 where the caller has it already."""
        if not Condition(if_match=self.if_match)._holds(blob):
            raise Refusal(412, "ConditionNotMet", "The condition given in the request's headers is not met.")
        if not self._holds(blob):
            raise Refusal(304, "ConditionNotMet", "The blob has not changed.", {"ETag": blob.etag})

    def _holds(self, blob: Blob | None) -> bool:
        if self.if_match is not None and (blob is None or not _same(self.if_match, blob)):
            return False
        return self.if_none_match is None or blob is None or not _same(self.if_none_match, blob)


def _same(etag: str, blob: Blob) -> bool:
    return etag == "*" or etag.strip('"') == blob.etag.strip('"')


class Contents:
    """The account's containers and blobs, at the primary and at a secondary that is some seconds behind.

    Any thread may call anything.

    Args:
        lag: Seconds until a write reaches the secondary, finite and at least 0.
        clock: A monotonic clock, in seconds. The lag is measured by it alone, so that setting the wall clock
            neither delays replication nor hurries it.
        wall_clock: Seconds since the epoch, for what readers are told: the dates and the Last Sync Time.

    Raises:
        ValueError: `lag` is negative or not finite.
    """

    def __init__(self, lag: float, *, clock: Callable[[], float], wall_clock: Callable[[], float]) -> None:
        if not (math.isfinite(lag) and lag >= 0):
            raise ValueError(f"replication_lag: a finite number of seconds from 0, not {lag!r}")
        self._lag = lag
        self._clock = clock
        self._wall_clock = wall_clock
        self._lock = threading.Lock()
        self._primary: State = MappingProxyType({})
        # States with the time at which they were written, oldest first. The secondary shows the first.
        self._history: deque[tuple[float, State]] = deque([(-math.inf, self._primary)])
        self._halted_at: tuple[float, float] | None = None  # by the monotonic clock, by the wall clock
        self._blocks: dict[tuple[str, str], dict[str, bytes]] = {}
        self._writes = 0

    @property
    def primary(self) -> State:
        """The state with every confirmed write."""
        return self._primary

    @property
    def secondary(self) -> State:
        """The state that has reached the secondary."""
        with self._lock:
            return self._replicate()

    @property
    def last_sync(self) -> float:
        """Seconds since the epoch: every write before this moment has reached the secondary."""
        with self._lock:
            return (self._wall_clock() if self._halted_at is None else self._halted_at[1]) - self._lag

    def halt_replication(self) -> None:
        """Replicate nothing more, as when the primary is lost. The Last Sync Time stands still."""
        with self._lock:
            self._replicate()
            if self._halted_at is None:
                self._halted_at = self._clock(), self._wall_clock()

    def resume_replication(self) -> None:
        """Replicate again. What was written `lag` seconds ago or earlier arrives at once."""
        with self._lock:
            self._halted_at = None

    def create_container(self, name: str) -> Container:
        """Create a container. Raises `Refusal` 409 where there is one of this name."""
        with self._lock:
            if name in self._primary:
                raise Refusal(409, "ContainerAlreadyExists", "The specified container already exists.")
            container = Container(self._next_etag(), self._wall_clock(), MappingProxyType({}))
            self._write({**self._primary, name: container})
            return container

    def delete_container(self, name: str) -> None:
        """Delete a container with all its blobs. Its name is free at once; the service takes half a minute for that."""
        with self._lock:
            find_container(self._primary, name)
            self._write({other: container for other, container in self._primary.items() if other != name})
            self._blocks = {key: blocks for key, blocks in self._blocks.items() if key[0] != name}

    def put_blob(
        self, container: str, name: str, content: bytes, headers: Mapping[str, str], condition: Condition
    ) -> Blob:
        """Write a whole blob, with its MD5, as the service does. Raises `Refusal` 404, 409 or 412."""
        with self._lock:
            self._check_write(container, name, condition)
            return self._put(container, name, content, {"Content-MD5": md5(content), **headers})

    def put_block(self, container: str, name: str, block_id: str, content: bytes) -> None:
        """Keep a block for a later `put_block_list`. Blocks are not replicated, and alone they make no blob."""
        with self._lock:
            find_container(self._primary, container)
            self._blocks.setdefault((container, name), {})[block_id] = content

    def put_block_list(
        self, container: str, name: str, block_ids: Sequence[str], headers: Mapping[str, str], condition: Condition
    ) -> Blob:
        """Write the blob from blocks put since its last version. Raises `Refusal` 400 where one is missing."""
        with self._lock:
            self._check_write(container, name, condition)
            blocks = self._blocks.get((container, name), {})
            try:
                content = b"".join([blocks[each] for each in block_ids])
            except KeyError:
                raise Refusal(400, "InvalidBlockList", "The specified block list is invalid.") from None
            return self._put(container, name, content, headers)

    def delete_blob(self, container: str, name: str, condition: Condition) -> None:
        """Delete a blob. Raises `Refusal` 404 or 412."""
        with self._lock:
            condition.check_write(find_blob(self._primary, container, name))
            home = self._primary[container]
            rest = {other: blob for other, blob in home.blobs.items() if other != name}
            self._write({**self._primary, container: replace(home, blobs=MappingProxyType(rest))})

    def _check_write(self, container: str, name: str, condition: Condition) -> None:
        condition.check_write(find_container(self._primary, container).blobs.get(name))

    def _put(self, container: str, name: str, content: bytes, headers: Mapping[str, str]) -> Blob:
        home = self._primary[container]
        old = home.blobs.get(name)
        now = self._wall_clock()
        blob = Blob(content, self._next_etag(), old.created if old else now, now, MappingProxyType(dict(headers)))
        blobs = MappingProxyType({**home.blobs, name: blob})
        self._write({**self._primary, container: replace(home, blobs=blobs)})
        self._blocks.pop((container, name), None)
        return blob

    def _write(self, state: dict[str, Container]) -> None:
        self._primary = MappingProxyType(state)
        self._history.append((self._clock(), self._primary))
        self._replicate()

    def _replicate(self) -> State:
        synced_to = (self._clock() if self._halted_at is None else self._halted_at[0]) - self._lag
        while len(self._history) > 1 and self._history[1][0] <= synced_to:
            self._history.popleft()
        return self._history[0][1]

    def _next_etag(self) -> str:
        self._writes += 1
        return f'"0x{_FIRST_ETAG + self._writes:X}"'


def md5(content: bytes) -> str:
    """Return the Content-MD5 header for `content`."""
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
