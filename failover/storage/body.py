"""Completes a body whose sender breaks off: what to request then, and from which endpoint."""

from __future__ import annotations

import functools
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

from azure.core.exceptions import IncompleteReadError, ServiceResponseTimeoutError

from failover.storage.runtime import IO, run_sync

SLOWEST: Final = 8192.0
"""Bytes per second (64 kbit/s) below which a body is given up."""
WINDOW: Final = 256 * 1024
"""Bytes over which the speed of a body is taken: what the SDK reads at once."""

_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(?:\d+|\*)$")


class BodyTooSlow(ServiceResponseTimeoutError):  # noqa: N818 (it says what is wrong)
    """A body came slower than `SLOWEST`, although its sender was never silent for long."""


class Deadline:
    """How long the bytes of a body may take: `silence` seconds and one for each 8 KiB, of 256 KiB at a time.

    Args:
        silence: Seconds that may be waited beside what the bytes take; None: for ever.
    """

    __slots__ = ("_got", "_spent", "silence")

    def __init__(self, silence: float | None) -> None:
        self.silence = silence
        self._spent = 0.0
        self._got = 0

    def spent(self, seconds: float, size: int) -> None:
        """Count a wait of `seconds` for `size` bytes.

        Raises:
            BodyTooSlow: All in all they took too long.
        """
        if self.silence is None:
            return
        self._spent += seconds
        self._got += size
        if self._spent > self.silence + self._got / SLOWEST:
            raise BodyTooSlow(f"the body came slower than {SLOWEST:.0f} bytes per second")
        if self._got >= WINDOW:
            self._spent, self._got = 0.0, 0


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

        Returns:
            How many bytes of the answer were delivered before: those of a compressed body are asked for again, since
            only the whole of it can be decompressed.
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
        """Whether an answer carries just what `ask_for_rest` asked for. headers: with names in lower case."""
        start = self.first + (0 if self.encoded else delivered)
        other = span_of(status, headers)
        if other is None or other.etag != self.etag or other.first != start or other.encoded is not self.encoded:
            return False
        if self.length is None or other.length is None:
            return True
        return other.first + other.length == self.first + self.length


def span_of(status: int, headers: Mapping[str, str]) -> Span | None:
    """The span of a body with these headers, or None where it cannot be resumed: it has no strong ETag or place.

    headers: with names in lower case.
    """
    etag = headers.get("etag") or ""
    if not etag or etag.startswith("W/") or "x-ms-structured-body" in headers:  # framed with checksums of its own
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


class Source(Protocol):
    """Where a body comes from, and what to do when it breaks off."""

    async def resume(self, reopen: Callable[[Any], Any], delivered: int, error: BaseException) -> tuple[Any, int]:
        """What goes on after `delivered` bytes, and how many of its first ones to leave out; or raises.

        It is `reopen(response)` of another response, or None where nothing is missing.
        """

    @property
    def silence(self) -> float | None:
        """Seconds for the `Deadline` of the body that comes now."""

    def ended(self) -> None:
        """The last byte has been delivered."""


class Body:
    """The bytes of a body, in pieces, that go on where `chunks` breaks off.

    Everything else that the SDK wants to know (`content_length`, ...) is told by `chunks`.

    Args:
        io: Of a thread or of an event loop.
        source: Asked for the rest where the body breaks off.
        chunks: The pieces, as the transport's response gives them.
        length: Bytes that must arrive; None: unknown.
        reopen: Takes another response and gives its body's pieces.
    """

    def __init__(
        self, io: IO, source: Source, chunks: Any, *, length: int | None, reopen: Callable[[Any], Any]
    ) -> None:
        self._io = io
        self._source = source
        self._original = chunks
        self._length = length
        self._reopen = reopen
        self._delivered = self._skip = 0
        self._begin(chunks)

    def _begin(self, chunks: Any) -> None:
        self._chunks = self._io.iterate(chunks)
        self._deadline = Deadline(self._source.silence)

    def __len__(self) -> int:
        return len(self._original)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)

    async def _next(self) -> bytes | None:
        """The next piece; None: the body is at its end."""
        while True:
            lost: BaseException | None = None
            began = time.perf_counter()
            try:
                chunk = await self._io.pull(self._chunks)
                self._deadline.spent(time.perf_counter() - began, len(chunk or b""))
            except BaseException as error:  # noqa: BLE001 (`resume` knows which are the endpoint's, and raises the rest)
                lost = error
            else:
                if chunk is None and (self._length is None or self._delivered >= self._length):
                    self._source.ended()
                    return None
                if chunk is not None and self._skip:
                    chunk, self._skip = chunk[self._skip :], max(0, self._skip - len(chunk))
                    if not chunk:
                        continue
                if chunk is not None and (self._length is None or self._delivered + len(chunk) <= self._length):
                    self._delivered += len(chunk)
                    return chunk
                # A body that ends with its connection looks whole to the transport.
                lost = IncompleteReadError("the body is not as long as its headers say")
            # Outside of `except`, lest what it raises drags the error along, whose message may hold a SAS.
            chunks, self._skip = await self._source.resume(self._reopen, self._delivered, lost)
            if chunks is None:
                self._source.ended()
                return None
            self._begin(chunks)


class SyncBody(Body):
    """A body for `for`."""

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        chunk = run_sync(self._next())
        if chunk is None:
            raise StopIteration
        return chunk


class AsyncBody(Body):
    """A body for `async for`."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._next()
        if chunk is None:
            raise StopAsyncIteration
        return chunk
