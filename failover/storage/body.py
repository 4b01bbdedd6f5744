"""A body that arrives whole although its sender breaks off: what to ask for then, and how to go on."""

from __future__ import annotations

import functools
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

from azure.core.exceptions import IncompleteReadError

from failover.storage.calls import Calls, LoopCalls, ThreadCalls, finish
from failover.storage.pace import PIECE, SLOWEST, Trickled, timed
from failover.storage.pace_aio import resumed

_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(?:\d+|\*)$")

_SHORTEST: Final = 0.001  # seconds that a pull may take at least


@dataclass(slots=True)  # not frozen, which would double what it costs: each read makes one
class Span:
    """Which bytes of which version of a resource a body carries.

    `first`: position of its first byte in the resource. `length`: of the body as sent, in bytes, None: unknown.
    `encoded`: it is compressed, so that what was delivered does not tell where it broke.
    """

    etag: str
    first: int
    length: int | None
    encoded: bool

    def ask_for_rest(self, headers: MutableMapping[str, str], delivered: int) -> int:
        """Make a request's `headers` ask for what follows `delivered` bytes of this version.

        Returns how many bytes of the answer were delivered before: those of a compressed body are asked for
        again, since only the whole of it can be decompressed.
        """
        again = delivered if self.encoded else 0
        start = self.first + delivered - again
        last = "" if self.length is None else str(self.first + self.length - 1)
        name = next((each for each in headers if each.lower() in ("x-ms-range", "range")), "x-ms-range")
        headers[name] = f"bytes={start}-{last}"
        headers["If-Match"] = self.etag
        # Their digests are of the range first asked for, and bound to 4 MiB.
        for each in ("x-ms-range-get-content-md5", "x-ms-range-get-content-crc64"):
            headers.pop(each, None)
        return again

    def is_continued_by(self, status: int, headers: Mapping[str, str], delivered: int) -> bool:
        """Whether an answer carries just what `ask_for_rest` asked for."""
        start = self.first + (0 if self.encoded else delivered)
        other = span_of(status, headers)
        if other is None or other.etag != self.etag or other.first != start or other.encoded is not self.encoded:
            return False
        if self.length is None or other.length is None:
            return True
        return other.first + other.length == self.first + self.length


def span_of(status: int, headers: Mapping[str, str]) -> Span | None:
    """The span of a body with these headers, or None where it cannot be resumed: it has no strong ETag or place.

    headers: of any case, or all lower case.
    """
    etag = headers.get("etag") or ""
    if not etag or etag.startswith("W/"):
        return None
    encoded = (headers.get("content-encoding") or "identity").lower() != "identity"
    length = headers.get("content-length")
    if status == 206:
        given = range_of(headers.get("content-range") or "")
        if given is None:
            return None
        first, last = given
        return Span(etag, first, last - first + 1, encoded)
    if status == 200:
        return Span(etag, 0, int(length) if length and length.isdigit() else None, encoded)
    return None


@functools.lru_cache(maxsize=64)
def range_of(header: str) -> tuple[int, int] | None:
    """The first and the last position that a `Content-Range` tells of."""
    match = _CONTENT_RANGE.match(header)
    return None if match is None else (int(match[1]), int(match[2]))


Pulled: TypeAlias = "tuple[bytes | None, BaseException | None]"


class Source(Protocol):
    """Where a body comes from, and what to do when it breaks off."""

    async def resume(self, reopen: Callable[[Any], Any], delivered: int, error: BaseException) -> tuple[Any, int]:
        """What goes on after `delivered` bytes, and how many of its first ones to leave out; or raises.

        It is `reopen(response)` of another response, or nothing at all where nothing is missing.
        """

    def ended(self) -> None:
        """The last byte has been delivered."""


class Body(ABC):
    """The bytes of a body, in pieces, that go on where `chunks` breaks off.

    length: bytes that must arrive, None: unknown. silence: seconds that may be waited for them beside what `SLOWEST`
    allows, None: for ever; the time that the reader takes between them is his. reopen: takes another response and
    gives its body's pieces. Everything else that the SDK wants to know (`content_length`, ...) is told by `chunks`.
    """

    _delivered = 0
    _skip = 0

    def __init__(
        self,
        calls: Calls,
        source: Source,
        chunks: Any,
        *,
        length: int | None,
        silence: float | None,
        reopen: Callable[[Any], Any],
    ) -> None:
        self._calls = calls
        self._source = source
        self._original = chunks
        self._length = length
        self._silence = silence
        self._reopen = reopen
        # By which speed is taken: what the transport reads at once, or several of its reads where those are less.
        self._piece = max(PIECE, getattr(chunks, "block_size", 0))
        self._chunks = calls.iterate(chunks)
        self._begin_piece()
        try:  # noqa: SIM105 (a `with` would cost more than this saves: what the SDK asks for again and again)
            self.response, self.content_length = chunks.response, chunks.content_length
        except AttributeError:
            pass

    def __len__(self) -> int:
        return len(self._original)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)

    async def _next(self, chunk: bytes | None, broken: BaseException | None) -> bytes | None:
        """The next piece, None at the end, where a pull has given `chunk` or was `broken`."""
        while True:
            if chunk is not None and self._skip:
                chunk, self._skip = chunk[self._skip :], max(0, self._skip - len(chunk))
                if not chunk:
                    chunk, broken = await self._pull()
                    continue
            if chunk is not None and self._delivers(chunk):
                return chunk
            # A body that ends with its connection looks whole to the transport.
            if chunk is None and broken is None and (self._length is None or self._delivered >= self._length):
                self._source.ended()
                return None
            # Outside of `except`, lest what it raises drags the error along, whose message may hold a SAS.
            lost = broken or IncompleteReadError("the body is not as long as its headers say")
            chunks, self._skip = await self._source.resume(self._reopen, self._delivered, lost)
            self._chunks = self._calls.iterate(chunks)
            self._begin_piece()
            chunk, broken = await self._pull()

    def _delivers(self, chunk: bytes) -> bool:
        """Whether it goes to the reader as it is, and is counted: nothing of it is left out, or beyond the end."""
        delivered = self._delivered + len(chunk)
        if self._skip or (self._length is not None and delivered > self._length):
            return False
        self._delivered = delivered
        return True

    @abstractmethod
    async def _pull(self) -> Pulled:
        """The next piece as it comes, None at the end; or what broke it."""

    def _broken_by(self, error: BaseException) -> BaseException:
        return Trickled(self._limit or 0.0) if isinstance(error, Trickled) else error  # in all, not since the last byte

    def _arrived(self, chunk: bytes | None, left: float | None) -> None:
        """Of the piece under way `chunk` has come, and so many of its seconds are left."""
        self._left = left if left is None or left > _SHORTEST else _SHORTEST
        if chunk is not None:
            self._got += len(chunk)
            if self._got >= self._piece:
                self._begin_piece(len(chunk))

    def _begin_piece(self, arrived: int = 0) -> None:
        """Count from here; `arrived`: bytes that are counted neither as delivered nor as skipped yet."""
        self._got = 0
        if self._silence is None:
            self._limit = self._left = None
            return
        size = self._piece
        if self._length is not None:
            missing = self._length - self._delivered - arrived + self._skip
            size = max(0, missing) if missing < size else size
        self._limit = self._left = self._silence + size / SLOWEST


class ThreadBody(Body):
    """A body for `for`."""

    _calls: ThreadCalls

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        chunk, broken = self._pull_now()
        # Nearly all pieces: two coroutines for each would be a third of what a healthy read pays for its circuit.
        if chunk is not None and self._delivers(chunk):
            return chunk
        chunk = finish(self._next(chunk, broken))
        if chunk is None:
            raise StopIteration
        return chunk

    async def _pull(self) -> Pulled:
        return self._pull_now()

    def _pull_now(self) -> Pulled:
        try:
            chunk, left = timed(self._left, next, self._chunks, None)
        except BaseException as error:  # noqa: BLE001 (`resume` knows which are the endpoint's, and raises the rest)
            return None, self._broken_by(error)
        self._arrived(chunk, left)
        return chunk, None


class LoopBody(Body):
    """A body for `async for`."""

    _calls: LoopCalls

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        chunk, broken = await self._pull()
        if chunk is not None and self._delivers(chunk):
            return chunk
        chunk = await self._next(chunk, broken)
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def _pull(self) -> Pulled:
        left = self._left
        try:
            pull = anext(self._chunks)  # no default: with one, CPython 3.11 and 3.13.0 crash where it raises at once
            if isinstance(pull, Coroutine):
                try:
                    waits_for = pull.send(None)
                except StopIteration as end:
                    chunk = end.value  # it was there: a small body comes with its headers
                else:
                    chunk, left = await self._calls.watch.timed(left, resumed(pull, waits_for))
            else:
                chunk, left = await self._calls.watch.timed(left, pull)
        except StopAsyncIteration:
            return None, None
        except BaseException as error:  # noqa: BLE001 (as above)
            return None, self._broken_by(error)
        self._arrived(chunk, left)
        return chunk, None
