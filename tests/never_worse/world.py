"""An account in memory: what its two endpoints answer at a given time, by a schedule of faults.

A fault is a function of time, endpoint and request, and of nothing else: who asks for the same thing at the same time
meets the same luck on both sides.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import random
import re
import zlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any, Final, Literal
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

PRIMARY: Final = "primary"
SECONDARY: Final = "secondary"

_EPOCH: Final = datetime(2026, 1, 1, tzinfo=timezone.utc)
_BLOCK: Final = re.compile(rb"<Latest>([^<]*)</Latest>")
_RANGE: Final = re.compile(r"bytes=(\d+)-(\d*)")

STATUSES: Final[Mapping[str, tuple[int, str]]] = {
    "500": (500, "InternalError"),
    "500-timed-out": (500, "OperationTimedOut"),
    "502": (502, ""),
    "503": (503, "ServerBusy"),
    "504": (504, ""),
    "408": (408, ""),
    "429": (429, "TooManyRequests"),
    "501": (501, ""),
    "403": (403, "AuthorizationFailure"),
}
"""Faults that are answers: the status, and the service's own code for it."""

Break = Literal["", "truncated", "body-reset", "body-hang", "body-stall"]
_WHOLE: Final[Break] = ""
_BREAKS: Final[tuple[Break, ...]] = ("truncated", "body-reset", "body-hang", "body-stall")


Delay = tuple[int | None, float]
"""Of each caller's n-th request in a call, None: of each, and how many seconds later it comes back."""

_SPELL: Final = 2.0  # seconds for which the same request meets the same luck


@dataclass(frozen=True)
class Fault:
    """What is wrong with some endpoints from `start` to `end`, in seconds.

    kind: one of `STATUSES`, or refuse, dns, reset, connect-hang, hang, stall (answers come when it is over), slow
        (each answer takes `seconds`), truncated, body-reset, body-hang, body-stall (the second half of a body comes
        when it is over).
    share: of requests that meet it. node: whose network it is; None: it is the endpoint, for all.
    """

    start: float
    end: float
    endpoints: frozenset[str]
    kind: str
    share: float = 1.0
    seconds: float = 0.0
    node: int | None = None

    def __str__(self) -> str:
        node = "" if self.node is None else f" for node {self.node}"
        share = "" if self.share == 1.0 else f" for {self.share:.0%}"
        slow = f" of {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.start:.2f}-{self.end:.2f} s {'+'.join(sorted(self.endpoints))}: {self.kind}{slow}{share}{node}"


@dataclass(frozen=True)
class Version:
    """What a blob is from `at` on; data None: deleted."""

    at: float
    etag: str
    data: bytes | None


@dataclass
class Reply:
    """What becomes of a request, `delay` seconds after it was sent: an answer, or `fault`.

    fault: what a transport is to raise: refuse, dns, reset, connect-timeout, read-timeout, truncated or body-reset.
    breaks: how the body breaks off, after half of it. silence: seconds of silence before it does, or before it goes
        on (body-stall).
    """

    delay: float
    fault: str = ""
    status: int = 0
    reason: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    breaks: Break = ""
    silence: float = 0.0

    def halves(self, size: int = 512) -> tuple[list[bytes], list[bytes]]:
        """The body as it comes: what comes at once, and what comes after the silence."""
        half = len(self.body) // 2 if self.breaks else len(self.body)
        first, second = self.body[:half], self.body[half:] if self.breaks == "body-stall" else b""
        return _cut(first, size), _cut(second, size)

    @property
    def body_fault(self) -> str:
        """What a transport is to raise after the last piece, if anything."""
        return {"truncated": "truncated", "body-reset": "body-reset", "body-hang": "read-timeout"}.get(self.breaks, "")


@dataclass(frozen=True)
class Entry:
    """One line of a trace."""

    at: float
    caller: str
    endpoint: str
    what: str
    result: str

    @property
    def is_broken(self) -> bool:
        """Whether the body of the answer breaks off."""
        return any(each in self.result.split() for each in _BREAKS)

    def __str__(self) -> str:
        return f"{self.at:10.3f}  {self.endpoint:9}  {self.what}  ->  {self.result}"


class World:
    """One side's copy of the account.

    lag: seconds by which the secondary is behind. hosts: endpoint by host name.
    """

    def __init__(self, seed: int, faults: tuple[Fault, ...], lag: float, hosts: Mapping[str, str]) -> None:
        self._seed = seed
        self._faults = faults
        self.lag = lag
        self._hosts = hosts
        self.blobs: dict[str, list[Version]] = {}
        self._staged: dict[str, dict[str, bytes]] = {}
        self._writes = 0
        self._call = 0
        self._asked: Counter[str] = Counter()
        self.delay: Delay = (None, 0.0)
        self.trace: list[Entry] = []

    # --- data ------------------------------------------------------------------------------------------------

    def put(self, name: str, data: bytes | None, now: float) -> Version:
        """Write a blob, or delete it."""
        self._writes += 1
        etag = f'"0x{hashlib.sha256(f"{name} {self._writes} {data!r}".encode()).hexdigest()[:15].upper()}"'
        version = Version(now, etag, data)
        self.blobs.setdefault(name, []).append(version)
        return version

    def blob(self, name: str, endpoint: str, now: float) -> Version | None:
        """The version of a blob that an endpoint holds."""
        until = now - self.lag if endpoint == SECONDARY else now
        held = [each for each in self.blobs.get(name, ()) if each.at <= until]
        return held[-1] if held and held[-1].data is not None else None

    def held_by_secondary(self, name: str, began: float, ended: float) -> list[Version | None]:
        """Every state of a blob on the secondary at some time between."""
        changes = [each.at + self.lag for each in self.blobs.get(name, ())]
        times = [began, *(at for at in changes if began < at <= ended)]
        return [self.blob(name, SECONDARY, at) for at in times]

    def become(self, other: World) -> None:
        """Hold what the other holds."""
        self.blobs = {name: list(versions) for name, versions in other.blobs.items()}
        self._staged = copy.deepcopy(other._staged)
        self._writes = other._writes

    def begin(self, call: int) -> None:
        """From here on, requests are those of this call."""
        self._call = call
        self._asked.clear()
        self.trace = []

    # --- answers ---------------------------------------------------------------------------------------------

    def ask(
        self,
        request: Any,
        body: bytes,
        now: float,
        connect: float,
        silence: float,
        caller: str,
        node: int,
    ) -> Reply:
        """What becomes of a request that is sent now.

        connect, silence: seconds that the client waits for a connection, and for an answer. caller: which of several
        at once asks. node: from where.
        """
        parts = urlsplit(request.url)
        endpoint = self._hosts.get(parts.netloc, "")
        query = _short(parts.query)
        if "comp=block" in query.split("&"):
            query += f" of {zlib.crc32(body):08x}"  # the SDK draws a block's name at random
        what = f"{request.method} {parts.path}{'?' if query else ''}{query}"
        asked = request.headers.get("x-ms-range") or request.headers.get("Range") or ""
        index, delay = self.delay
        delay = delay if index in (None, self._asked[caller]) else 0.0
        self._asked[caller] += 1
        reply = self._reply(endpoint, node, (caller, what, asked), request, body, now, connect, silence)
        result = reply.fault or f"{reply.status} {reply.headers.get('x-ms-error-code', '')} {reply.breaks}".rstrip()
        reply.delay += delay
        result = f"{result} after {reply.delay:.3f} s"
        self.trace.append(Entry(now, caller, endpoint, f"{what} {asked}".rstrip(), result))
        return reply

    def _reply(
        self,
        endpoint: str,
        node: int,
        what: tuple[str, ...],
        request: Any,
        body: bytes,
        now: float,
        connect: float,
        silence: float,
    ) -> Reply:
        if not endpoint:
            return Reply(0.01, "dns")
        key = (endpoint, *what)
        luck = random.Random("/".join(map(str, (self._seed, self._call, *key, now // _SPELL))))
        latency = luck.uniform(0.004, 0.04)
        faults = [
            each
            for each in self._faults
            if endpoint in each.endpoints
            and each.start <= now < each.end
            and each.node in (None, node)
            and luck.random() < each.share
        ]
        breaks, until = _WHOLE, now
        for fault in faults:
            if fault.kind in ("refuse", "dns"):
                return Reply(0.002, fault.kind)
            if fault.kind == "connect-hang":
                return Reply(connect, "connect-timeout")
            if fault.kind == "hang":
                return Reply(silence, "read-timeout")
            if fault.kind == "reset":
                if luck.random() < 0.5:
                    self._answer(endpoint, request, body, now)  # done, but nobody hears of it
                return Reply(latency, "reset")
            if fault.kind == "stall":
                latency += fault.end - now
            elif fault.kind == "slow":
                latency += fault.seconds
            elif fault.kind in _BREAKS:
                breaks, until = fault.kind, fault.end
            else:
                status, code = STATUSES[fault.kind]
                return _error(status, code, latency, request.method)
            if latency > silence:
                return Reply(silence, "read-timeout")
        reply = self._answer(endpoint, request, body, now)
        reply.delay = latency
        reply.headers["Date"] = _date(now)
        if breaks and request.method == "GET" and len(reply.body) > 1:
            reply.breaks = breaks
            if breaks == "body-stall":
                reply.silence = max(0.0, until - now - latency)
                reply.breaks = "body-hang" if reply.silence > silence else breaks
            if reply.breaks == "body-hang":
                reply.silence = silence
        return reply

    def _answer(self, endpoint: str, request: Any, body: bytes, now: float) -> Reply:
        parts = urlsplit(request.url)
        query = {name: values[0] for name, values in parse_qs(parts.query, keep_blank_values=True).items()}
        container, _, name = unquote(parts.path).lstrip("/").partition("/")
        method, headers = request.method, request.headers
        if method in ("GET", "HEAD"):
            if query.get("comp") == "stats":
                return self._stats(now)
            if query.get("comp") == "list":
                return self._list(endpoint, container, query, now)
            return self._get(endpoint, name, method, headers, now)
        if endpoint == SECONDARY:
            return _error(403, "InsufficientAccountPermissions", 0.0, method)
        held = self.blob(name, PRIMARY, now)
        if method == "DELETE":
            if held is None:
                return _error(404, "BlobNotFound", 0.0, method)
            self.put(name, None, now)
            return Reply(0.0, status=202, reason="Accepted", headers={"Content-Length": "0"})
        if query.get("comp") == "block":
            self._staged.setdefault(name, {})[query["blockid"]] = body
            return Reply(0.0, status=201, reason="Created", headers={"Content-Length": "0"})
        if headers.get("If-None-Match") == "*" and held is not None:
            return _error(409, "BlobAlreadyExists", 0.0, method)
        if query.get("comp") == "blocklist":
            staged = self._staged.get(name, {})
            wanted = [each.decode() for each in _BLOCK.findall(body)]
            if any(each not in staged for each in wanted):
                return _error(400, "InvalidBlockList", 0.0, method)
            body = b"".join(staged[each] for each in wanted)
        version = self.put(name, body, now)
        told = {"ETag": version.etag, "Last-Modified": _date(version.at), "Content-Length": "0"}
        return Reply(0.0, status=201, reason="Created", headers=told)

    def _get(self, endpoint: str, name: str, method: str, headers: Mapping[str, str], now: float) -> Reply:
        held = self.blob(name, endpoint, now)
        if held is None or held.data is None:
            return _error(404, "BlobNotFound", 0.0, method)
        if headers.get("If-Match", held.etag) not in (held.etag, "*"):
            return _error(412, "ConditionNotMet", 0.0, method)
        data, size = held.data, len(held.data)
        told = {
            "ETag": held.etag,
            "Last-Modified": _date(held.at),
            "Content-Type": "application/octet-stream",
            "Accept-Ranges": "bytes",
            "x-ms-blob-type": "BlockBlob",
            "x-ms-version": headers.get("x-ms-version", "2021-12-02"),
        }
        match = _RANGE.match(headers.get("x-ms-range") or headers.get("Range") or "")
        if match is None:
            told["Content-Length"] = str(size)
            return Reply(0.0, status=200, reason="OK", headers=told, body=b"" if method == "HEAD" else data)
        first, last = int(match[1]), min(int(match[2] or size - 1), size - 1)
        if first >= size:
            reply = _error(416, "InvalidRange", 0.0, method)
            reply.headers["Content-Range"] = f"bytes */{size}"
            return reply
        part = data[first : last + 1]
        told |= {"Content-Length": str(len(part)), "Content-Range": f"bytes {first}-{last}/{size}"}
        if headers.get("x-ms-range-get-content-md5", "").lower() == "true":
            told["Content-MD5"] = base64.b64encode(hashlib.md5(part, usedforsecurity=False).digest()).decode()
        return Reply(0.0, status=206, reason="Partial Content", headers=told, body=part)

    def _list(self, endpoint: str, container: str, query: Mapping[str, str], now: float) -> Reply:
        prefix, marker = query.get("prefix", ""), query.get("marker", "")
        names = [name for name in sorted(self.blobs) if name.startswith(prefix) and name >= marker]
        found = [(name, held) for name in names if (held := self.blob(name, endpoint, now)) is not None]
        page, rest = found[: int(query.get("maxresults", 5000))], found[int(query.get("maxresults", 5000)) :]
        blobs = "".join(
            f"<Blob><Name>{escape(name)}</Name><Properties><Last-Modified>{_date(held.at)}</Last-Modified>"
            f"<Etag>{held.etag.strip(chr(34))}</Etag><Content-Length>{len(held.data or b'')}</Content-Length>"
            "<Content-Type>application/octet-stream</Content-Type><BlobType>BlockBlob</BlobType></Properties></Blob>"
            for name, held in page
        )
        return _xml(
            f'<EnumerationResults ServiceEndpoint="https://account/" ContainerName="{container}"><Blobs>{blobs}</Blobs>'
            f"<NextMarker>{escape(rest[0][0]) if rest else ''}</NextMarker></EnumerationResults>"
        )

    def _stats(self, now: float) -> Reply:
        return _xml(
            "<StorageServiceStats><GeoReplication><Status>live</Status>"
            f"<LastSyncTime>{_date(now - self.lag)}</LastSyncTime></GeoReplication></StorageServiceStats>"
        )


def _cut(data: bytes, size: int) -> list[bytes]:
    return [data[at : at + size] for at in range(0, len(data), size)]


def _xml(text: str) -> Reply:
    body = f'<?xml version="1.0" encoding="utf-8"?>{text}'.encode()
    return Reply(
        0.0,
        status=200,
        reason="OK",
        headers={"Content-Type": "application/xml", "Content-Length": str(len(body))},
        body=body,
    )


def _error(status: int, code: str, delay: float, method: str) -> Reply:
    if code:
        reply = _xml(f"<Error><Code>{code}</Code><Message>No.</Message></Error>")
        reply.headers["x-ms-error-code"] = code
    else:  # of something in between
        reply = Reply(0.0, headers={"Content-Type": "text/html", "Content-Length": "9"}, body=b"<h1>No</h")
    if method == "HEAD":
        reply.body = b""
    reply.delay, reply.status, reply.reason = delay, status, code or "Error"
    return reply


def _date(at: float) -> str:
    return format_datetime(_EPOCH + timedelta(seconds=at), usegmt=True)


def _short(query: str) -> str:
    return "&".join(each for each in query.split("&") if not each.startswith(("timeout=", "include=", "blockid=")))
