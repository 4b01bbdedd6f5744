"""A body that arrives whole although its sender breaks off: what to ask for then, and how to go on."""

from __future__ import annotations

import re
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from azure.core.exceptions import IncompleteReadError

from failover.storage.calls import Calls, LoopCalls, ThreadCalls, finish
from failover.storage.pace import PIECE, Trickled

CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(?:\d+|\*)$")


@dataclass(frozen=True, slots=True)
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
        match = CONTENT_RANGE.match(headers.get("content-range") or "")
        if match is None:
            return None
        first, last = int(match[1]), int(match[2])
        return Span(etag, first, last - first + 1, encoded)
    if status == 200:
        return Span(etag, 0, int(length) if length and length.isdigit() else None, encoded)
    return None


Pulled: TypeAlias = "tuple[bytes | None, BaseException | None]"


class Body(ABC):
    """The bytes of a body, in pieces, that go on where `chunks` breaks off.

    `length`: bytes that must arrive, None: unknown. `seconds(size)`: how long so many of them may be waited for; the
    time that the reader takes between them is his. `resume(delivered, error)` gives what goes on (None: nothing is
    missing) and how many of its first bytes to leave out, or raises; `ended()` is called after the last byte,
    `given_up()` where nobody read that far: perhaps by the garbage collector, in the middle of anything. Everything
    else that the SDK wants to know (`content_length`, `response`, ...) is told by `chunks`.
    """

    def __init__(
        self,
        calls: Calls,
        chunks: Any,
        *,
        length: int | None,
        seconds: Callable[[int], float | None],
        resume: Callable[[int, BaseException], Awaitable[tuple[Any, int]]],
        ended: Callable[[], None],
        given_up: Callable[[], None],
    ) -> None:
        self._calls = calls
        self._original = chunks
        self._length = length
        self._seconds = seconds
        self._resume = resume
        self._ended = ended
        self._given_up = given_up
        self._delivered = 0
        self._skip = 0
        # By which speed is taken: what the transport reads at once, or several of its reads where those are less.
        self._piece = max(PIECE, getattr(chunks, "block_size", 0))
        self._chunks = calls.iterate(chunks)
        self._begin_piece()

    def __del__(self) -> None:
        self._given_up()

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
            if chunk is not None and (self._length is None or self._delivered + len(chunk) <= self._length):
                self._delivered += len(chunk)
                return chunk
            # A body that ends with its connection looks whole to the transport.
            if chunk is None and broken is None and (self._length is None or self._delivered >= self._length):
                self._ended()
                return None
            # Outside of `except`, lest what it raises drags the error along, whose message may hold a SAS.
            lost = broken or IncompleteReadError("the body is not as long as its headers say")
            chunks, self._skip = await self._resume(self._delivered, lost)
            self._chunks = None if chunks is None else self._calls.iterate(chunks)
            self._begin_piece()
            chunk, broken = await self._pull()

    @abstractmethod
    async def _pull(self) -> Pulled:
        """The next piece as it comes, None at the end; or what broke it."""

    def _left(self) -> float | None:
        """Seconds that the next pull may take, of those for the piece under way."""
        return None if self._limit is None else max(0.001, self._limit - self._waited)

    def _trickled(self) -> Trickled:
        return Trickled(self._limit or 0.0)  # in all, and not since the last byte

    def _arrived(self, chunk: bytes | None, began: float) -> None:
        self._waited += time.perf_counter() - began
        if chunk is not None:
            self._got += len(chunk)
            if self._got >= self._piece:
                self._begin_piece(len(chunk))

    def _begin_piece(self, arrived: int = 0) -> None:
        """Count from here; `arrived`: bytes that are counted neither as delivered nor as skipped yet."""
        size = self._piece
        if self._length is not None:
            size = min(size, self._length - self._delivered - arrived + self._skip)
        self._limit = self._seconds(max(0, size))
        self._got, self._waited = 0, 0.0


class ThreadBody(Body):
    """A body for `for`."""

    _calls: ThreadCalls

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        chunk, broken = self._pull_now()
        if (
            chunk is not None
            and not self._skip
            and (self._length is None or self._delivered + len(chunk) <= self._length)
        ):
            # Nearly all pieces: two coroutines for each would be a third of what a healthy read pays for its circuit.
            self._delivered += len(chunk)
            return chunk
        chunk = finish(self._next(chunk, broken))
        if chunk is None:
            raise StopIteration
        return chunk

    async def _pull(self) -> Pulled:
        return self._pull_now()

    def _pull_now(self) -> Pulled:
        if self._chunks is None:
            return None, None
        began = time.perf_counter()
        try:
            chunk = self._calls.pull(self._chunks, self._left())
        except Trickled:
            return None, self._trickled()
        except BaseException as error:  # noqa: BLE001 (`resume` knows which are the endpoint's, and raises the rest)
            return None, error
        self._arrived(chunk, began)
        return chunk, None


class LoopBody(Body):
    """A body for `async for`."""

    _calls: LoopCalls

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._next(*await self._pull())
        if chunk is None:
            raise StopAsyncIteration
        return chunk

    async def _pull(self) -> Pulled:
        if self._chunks is None:
            return None, None
        began = time.perf_counter()
        try:
            chunk = await self._calls.pull(self._chunks, self._left())
        except Trickled:
            return None, self._trickled()
        except BaseException as error:  # noqa: BLE001 (as above)
            return None, error
        self._arrived(chunk, began)
        return chunk, None
