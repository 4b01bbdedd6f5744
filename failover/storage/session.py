"""Session consistency: what a policy's clients have read and written, and whether an answer is older than that.

The term is from Cosmos DB: clients read their own writes, and no read returns an older version than an earlier read.
The primary's answers are always the newest, so they are remembered and never doubted. The secondary's are compared with
what is remembered.

All times are the service's: Last-Modified, the Date of the answer to a deletion, and the Last Sync Time. They are whole
seconds. Therefore all changes of one second are on the secondary once its Last Sync Time has reached the next second.
"""

from __future__ import annotations

import functools
import math
import re
from collections import OrderedDict
from collections.abc import Mapping
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime
from typing import Any, Final, NamedTuple

from failover.breaker.forks import ForkSafeLock
from failover.storage.endpoints import PRIMARY, Target

MOST_REMEMBERED: Final = 10_000
"""Resources of which one policy remembers the newest version."""

_ANSWERS: Final = frozenset({200, 206, 304})  # that tell of a version
_NOTHING: Final = frozenset({404, 416})  # to send: so says one that has no version, or a shorter one
_CONTAINER: Final = "restype=container"
# Snapshots and old versions never change. The others tell nothing of the version of what is at the path.
_UNTOLD: Final = re.compile(r"(?:^|&)(?:snapshot=|versionid=|comp=(?:list|snapshot|tags|stats)(?:&|$))")
# A part of a batch, as it is sent: its path, its query and its headers.
_DELETE: Final = re.compile(rb"^DELETE (/[^ ?\r\n]*)(?:\?([^ \r\n]*))? HTTP/1\.1\r\n((?:[^\r\n]+\r\n)*)", re.MULTILINE)
_UNKNOWN: Final = ""  # an ETag: of two writes in one second, of which nobody knows which came first


class _Version(NamedTuple):
    """The newest known of a resource. etag None: it was deleted. number: grows with what is learnt."""

    at: float
    etag: str | None
    number: int


class _Resource(NamedTuple):
    """A blob, or a container, whose `key` ends with "?". base: how long the part of it is that is the account's."""

    key: str
    base: int

    @property
    def container(self) -> str:
        """The key of its container, or of itself."""
        key, base = self
        if key.endswith("?"):
            return key
        end = key.find("/", base + 1)
        return f"{key[:end]}?" if end > 0 else f"{key[:base]}/$root?"


class Doubt(NamedTuple):
    """Why an answer of the secondary's may not be had.

    Attributes:
        older: When its version was written, in seconds since the epoch; None: it does not tell.
        newer: When the newest version that is remembered was written, or deleted.
        settled_at: The Last Sync Time that shows that it is no older after all; inf: it is.
    """

    older: float | None
    newer: float
    settled_at: float

    def times(self) -> tuple[datetime | None, datetime]:
        """The versions' times: of the older, and of the newer one."""
        return None if self.older is None else _moment(self.older), _moment(self.newer)

    def told(self) -> str:
        """In a few words."""
        older = "of an unknown time" if self.older is None else f"of {_moment(self.older):%Y-%m-%d %H:%M:%S}"
        return f"its version is {older}, one of {_moment(self.newer):%Y-%m-%d %H:%M:%S} UTC was known before"


class _Kind(NamedTuple):
    """Whether a request tells of a version, is about a container, and is about a part of what is at its path."""

    is_told: bool
    is_container: bool
    has_comp: bool


class Session:
    """The newest versions that the clients of one policy, and of its copies, have read and written.

    Args:
        most: Resources to remember, from 1. Of those that were used longest ago only the newest time is kept.
    """

    def __init__(self, most: int = MOST_REMEMBERED) -> None:
        self._most = most
        self._lock = ForkSafeLock()
        self._versions: OrderedDict[str, _Version] = OrderedDict()
        self._swept: OrderedDict[str, _Version] = OrderedDict()  # deletions of containers, which cover all below
        self._forgotten: float | None = None
        self._number = 0

    def __repr__(self) -> str:
        return f"<Session of {len(self._versions)} resources>"

    def track(self, target: Target) -> Tracked | None:
        """Follow a request that is about to be sent; None: it concerns no version of a resource."""
        path, _, query = target.resource.partition("?")
        is_told, is_container, has_comp = _kind(query)
        if not is_told:
            return None
        base = _account(target.endpoints.primary)
        # A blob of the root container may be called as a container.
        key = base + path + "?" if is_container else base + path
        return Tracked(self, _Resource(key, len(base)), has_comp, self._number)

    # --- what a `Tracked` asks and tells ------------------------------------------------------------------------

    def has(self, resource: _Resource, etag: str) -> bool:
        """Whether the newest version of a resource that is known is this one. It has then been used."""
        with self._lock:
            last = self._last(resource)
            if last is None or not etag or etag != last.etag:
                return False
            self._versions.move_to_end(resource.key)
            return True

    def look(self, resource: _Resource) -> tuple[_Version | None, float | None]:
        """What is known of a resource, and the newest time of all that was forgotten."""
        with self._lock:
            return self._last(resource), self._forgotten

    def learn(self, resource: _Resource, at: float, etag: str | None, since: int, *, if_known: bool = False) -> None:
        """Remember a version. since: the number of what was learnt last when its request had not been sent.

        if_known: only where the resource is known.
        """
        with self._lock:
            last, key = self._last(resource), resource.key
            if last is None:
                if if_known:
                    return
            elif etag and etag == last.etag:
                self._versions.move_to_end(key)
                return
            elif last.number > since:
                # Learnt while this request was under way: nobody knows which of the two answers was given first.
                if at < last.at:
                    return
                if at == last.at and etag != last.etag:
                    etag = _UNKNOWN
            elif etag is None:
                at = max(at, last.at)  # of two machines of the service's, with two clocks
            self._put(self._versions, key, at, etag)

    def sweep(self, resource: _Resource, at: float) -> None:
        """Remember that a container was deleted."""
        with self._lock:
            self._put(self._swept, resource.key, at, None)

    def _last(self, resource: _Resource) -> _Version | None:
        """Under the lock."""
        version = self._versions.get(resource.key)
        swept = self._swept.get(resource.container) if self._swept else None
        if swept is None or (version is not None and version.number > swept.number):
            return version
        if version is not None and version.at > swept.at:
            return swept._replace(at=version.at)
        return swept

    def _put(self, versions: OrderedDict[str, _Version], key: str, at: float, etag: str | None) -> None:
        """Under the lock."""
        self._number += 1
        versions[key] = _Version(at, etag, self._number)
        versions.move_to_end(key)
        while len(versions) > self._most:
            _, oldest = versions.popitem(last=False)
            self._forgotten = oldest.at if self._forgotten is None else max(self._forgotten, oldest.at)


class Tracked:
    """The resource that one request is about, and what was known when it was sent."""

    __slots__ = ("_has_comp", "_resource", "_session", "_since")

    def __init__(self, session: Session, resource: _Resource, has_comp: bool, since: int) -> None:
        self._session = session
        self._resource = resource
        self._has_comp = has_comp
        self._since = since

    def is_newest(self, headers: Mapping[str, str]) -> bool:
        """Whether an answer is of the version that is remembered. headers: by their names in lower case."""
        etag = headers.get("etag")
        return etag is not None and self._session.has(self._resource, etag)

    def doubt(self, status: int, headers: Mapping[str, str], *, is_last_word: bool) -> Doubt | None:
        """Why the secondary's answer may not be had, where it may be older than what is remembered.

        is_last_word: nobody else would be asked, so that a 404 or 416 is an answer too. headers: as above.
        """
        nothing = status in _NOTHING and is_last_word
        if status not in _ANSWERS and not nothing:
            return None
        etag, at = headers.get("etag"), seconds_of(headers.get("last-modified"))
        if etag is None and at is None and not nothing:
            return None  # it tells of no version
        last, forgotten = self._session.look(self._resource)
        if last is None:
            if forgotten is None or (at is not None and at > forgotten):
                return None
            return Doubt(at, forgotten, forgotten + 1)
        if status == 404 and last.etag is None:
            return None
        if (etag and etag == last.etag) or (at is not None and at > last.at):
            return None
        return Doubt(at, last.at, math.inf if at is not None and at < last.at else last.at + 1)

    def answered(self, location: str, status: int, headers: Mapping[str, str]) -> None:
        """Remember what an endpoint has answered to a read. headers: as above."""
        if status in _ANSWERS:
            self._learn(headers)
        elif status == 404 and location is PRIMARY:
            self._gone(headers, if_known=True)

    def wrote(self, request: Any, status: int, headers: Mapping[str, str]) -> None:
        """Remember what the primary has answered to a write. headers: as above."""
        if request.method != "DELETE":
            if status < 300:
                self._learn(headers)
                if request.method == "POST":
                    self._deleted_in_batch(request, headers)
                self._renamed(request, headers)
            return
        # A deletion whose answer got lost, and that was tried again, is told by a 404.
        whole = not self._has_comp and request.headers.get("x-ms-delete-snapshots") != "only"
        if whole and (status < 300 or status == 404):
            self._gone(headers, if_known=False)

    def _deleted_in_batch(self, request: Any, headers: Mapping[str, str]) -> None:
        """Take each deletion for done: where one was refused, the primary's next answer says so."""
        body, at = getattr(request, "data", None), seconds_of(headers.get("date"))
        if not isinstance(body, bytes) or not self._has_comp or at is None:
            return
        base = self._resource.key[: self._resource.base]
        account = base.partition("://")[2].partition("/")[2]  # of an emulator, in whose paths it comes first
        for path, query, given in _DELETE.findall(body):
            blob = path.decode("ascii", "replace")
            if account and blob.startswith(f"/{account}/"):
                blob = blob[len(account) + 1 :]
            if _kind(query.decode("ascii", "replace")).is_told and b"x-ms-delete-snapshots: only" not in given:
                self._session.learn(_Resource(base + blob, len(base)), at, None, self._since)

    def _renamed(self, request: Any, headers: Mapping[str, str]) -> None:
        """Where a file was renamed there is none any more. It has come to the place that the request is about."""
        source, at = request.headers.get("x-ms-rename-source"), seconds_of(headers.get("date"))
        if source is not None and at is not None:
            key, base = self._resource
            path = source.partition("?")[0]  # it may have a SAS
            self._session.learn(_Resource(key[:base] + path, base), at, None, self._since)

    def _learn(self, headers: Mapping[str, str]) -> None:
        etag, at = headers.get("etag"), seconds_of(headers.get("last-modified"))
        if etag and at is not None:
            self._session.learn(self._resource, at, etag, self._since)

    def _gone(self, headers: Mapping[str, str], *, if_known: bool) -> None:
        at = seconds_of(headers.get("date"))
        if at is None:
            return
        self._session.learn(self._resource, at, None, self._since, if_known=if_known)
        if self._resource.key.endswith("?") and not if_known:
            self._session.sweep(self._resource, at)


@functools.lru_cache(maxsize=4096)
def seconds_of(date: str | None) -> float | None:
    """A date of HTTP ("Thu, 16 Nov 2023 00:00:10 GMT") in seconds since the epoch; None: it is none."""
    if date is None or len(date) != 29 or not date.endswith("GMT"):
        return None
    try:
        return _midnight(date[:16]) + 3600 * int(date[17:19]) + 60 * int(date[20:22]) + int(date[23:25])
    except (TypeError, ValueError):
        return None


@functools.lru_cache(maxsize=1024)
def _midnight(day: str) -> float:
    return parsedate_to_datetime(f"{day} 00:00:00 GMT").timestamp()


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


@functools.lru_cache(maxsize=256)
def _kind(query: str) -> _Kind:
    return _Kind(not _UNTOLD.search(query), _CONTAINER in query, "comp=" in query)


@functools.lru_cache(maxsize=64)
def _account(primary: str) -> str:
    # A file of a hierarchical namespace is written at the one and read at the other.
    return primary.replace(".dfs.", ".blob.", 1)
