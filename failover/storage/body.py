"""A body that arrives whole although its sender breaks off: what to ask for then, and how to go on."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

_CONTENT_RANGE: Final = re.compile(r"bytes (\d+)-(\d+)/(?:\d+|\*)$")


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
        return other is not None and other.etag == self.etag and other.first == start


def span_of(status: int, headers: Mapping[str, str]) -> Span | None:
    """The span of a body with these headers, or None where it cannot be resumed: it has no strong ETag or place."""
    etag = headers.get("ETag") or ""
    if not etag or etag.startswith("W/"):
        return None
    encoded = (headers.get("Content-Encoding") or "identity").lower() != "identity"
    length = headers.get("Content-Length")
    if status == 206:
        match = _CONTENT_RANGE.match(headers.get("Content-Range") or "")
        if match is None:
            return None
        first, last = int(match[1]), int(match[2])
        return Span(etag, first, last - first + 1, encoded)
    if status == 200:
        return Span(etag, 0, int(length) if length and length.isdigit() else None, encoded)
    return None


class Body:
    """An iterator of the body's bytes that goes on where `chunks` breaks off.

    `resume(delivered, error)` gives the iterator that goes on, or raises; `ended()` is called after the last byte.
    Everything else that the SDK wants to know (`content_length`, `response`, ...) is told by `chunks`.
    """

    def __init__(
        self,
        chunks: Any,
        *,
        resume: Callable[[int, BaseException], Iterator[bytes]],
        ended: Callable[[], None],
    ) -> None:
        self._original = chunks
        self._chunks: Iterator[bytes] = iter(chunks)
        self._resume = resume
        self._ended = ended
        self._delivered = 0

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __len__(self) -> int:
        return len(self._original)

    def __next__(self) -> bytes:
        while True:
            try:
                chunk = next(self._chunks)
            except StopIteration:
                self._ended()
                raise
            except Exception as error:  # noqa: BLE001 (`resume` knows which are the endpoint's, and raises the rest)
                self._chunks = self._resume(self._delivered, error)
                continue
            self._delivered += len(chunk)
            return chunk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)
