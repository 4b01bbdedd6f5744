"""The table: each kind of misbehaviour of a primary, what a read of it costs, and what its circuit thinks of it.

The secondary is well. T is `attempt_timeout`, the seconds without a byte after which one try is given up. Each read
gets the right bytes (but for `wrong-body`, an answer like any other to who asks for no digest).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from tests.faults.front import Front, Spoil
from tests.storage.account import HELLO
from tests.storage.raw_server import Answer, Asked

T: Final = 0.3
"""Seconds: `attempt_timeout` in these tests."""
T_DEMO: Final = 0.4
"""Seconds: `--timeout`, where an answer that takes over half of it counts as a failure."""
BYTE: Final = 0.1
"""Seconds between two bytes of what drips: less than T, so that no time-out of a socket ever comes."""


@dataclass(frozen=True)
class Kind:
    """One way to misbehave.

    counts: failures that the primary's circuit counts for one read while it is closed: 2, since a try that fails
        is repeated once (`primary_attempts`); 1 for a time-out, and for a body whose rest the secondary sends; 0
        for an answer. aio, demo: the same where it differs for the async clients and for the demonstration.
    costs: seconds, in units of T, that one read takes at most because of it.
    cause: a pattern of the words that tell it.
    spoil: what becomes of the good answer. switch: what becomes of the server. needs: what the account must have.
    gets: what the reader gets. options: of the download. pieces: some of the body arrives.
    """

    counts: int
    costs: float
    cause: str
    spoil: Spoil | None = None
    switch: Callable[[Front, bool], None] | None = None
    needs: str = ""
    gets: bytes = HELLO
    options: Mapping[str, Any] = field(default_factory=dict)
    aio: int | None = None
    demo: int | None = None
    pieces: bool = False


def _raw(data: bytes, then: Any = "close") -> Spoil:
    return lambda _asked, _good: Answer("", data, then)


def _status(status: str, *headers: str) -> Spoil:
    body = b"<?xml version='1.0'?><Error><Code>ServerBusy</Code><Message>Busy.</Message></Error>"
    head = "\n".join([f"HTTP/1.1 {status}", *headers, f"Content-Length: {len(body)}"])
    return lambda _asked, _good: Answer(head, body)


def _body(change: Callable[[bytes], bytes], then: Any = "close") -> Spoil:
    """The good headers, another body than they announce."""
    return lambda _asked, good: Answer(good.head, change(good.body), then)


def _head(change: Callable[[str], str], body: Callable[[bytes], bytes] = lambda body: body) -> Spoil:
    return lambda _asked, good: Answer(change(good.head), body(good.body))


def _without(*names: str) -> Callable[[str], str]:
    return lambda head: "\n".join(
        line for line in head.split("\n") if line.partition(":")[0].lower() not in [name.lower() for name in names]
    )


def _drip(answer: Answer, first: int = 0) -> Answer:
    data = answer.as_bytes()
    return Answer("", data[:first], trickle=[bytes([each]) for each in data[first:]], pause=BYTE)


def _drip_body(_: Asked, good: Answer) -> Answer:
    return _drip(good, len(good.as_bytes()) - len(good.body))


def _chunks(_: Asked, good: Answer) -> Answer:
    """Without a length, more than the range that it says it is."""
    data = good.body + b" and more"
    return Answer(
        _without("content-length")(good.head) + "\nTransfer-Encoding: chunked",
        b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data),
    )


def _drip_status(status: str) -> Spoil:
    def drip(asked: Asked, good: Answer) -> Answer:
        answer = _status(status)(asked, good)
        return _drip(answer, len(answer.as_bytes()) - len(answer.body))

    return drip


def _redirect_in_circles(asked: Asked, _: Answer) -> Answer:
    return Answer(f"HTTP/1.1 301 Moved Permanently\nLocation: {asked.target}\nContent-Length: 0")


def _redirect_to_and_fro(asked: Asked, _: Answer) -> Answer:
    there = asked.target.removesuffix("&again=1") if asked.target.endswith("&again=1") else f"{asked.target}&again=1"
    there = there if "?" in there else there.replace("&", "?", 1)
    return Answer(f"HTTP/1.1 301 Moved Permanently\nLocation: {there}\nContent-Length: 0")


def _wrong_md5(_: Asked, good: Answer) -> Answer:
    head = _without("content-md5")(good.head) + "\nContent-MD5: XrY7u+Ae7tCTyyK7j1rNww=="
    return Answer(head, good.body)


def _known(front: Front, on: bool) -> None:
    front.known = not on


_SILENT = r"no answer within 0\.[34] s"
_TRICKLES = "the body came too slowly"
_BROKEN = r"connection reset|the body broke off|the answer broke off"
_HALF_A_HEAD = b"HTTP/1.1 206 Partial Content\r\nx-ms-version: 2021"

KINDS: Final[dict[str, Kind]] = {
    # No connection, or one that breaks.
    "refuses": Kind(2, 0, "connection refused", switch=Front.lose),
    "dns-failure": Kind(2, 0, "its name does not resolve", switch=_known, needs="name"),
    "wrong-certificate": Kind(2, 0, "its certificate is not trusted", switch=Front.distrust, needs="tls"),
    "reset-before-headers": Kind(2, 0, _BROKEN, _raw(b"", "reset")),
    "reset-during-headers": Kind(2, 0, _BROKEN, _raw(_HALF_A_HEAD, "reset")),
    "reset-after-headers": Kind(1, 0, _BROKEN, _body(lambda _: b"", "reset")),
    "reset-during-body": Kind(1, 0, _BROKEN, _body(lambda body: body[:5], "reset"), pieces=True),
    "closes-before-headers": Kind(2, 0, _BROKEN, _raw(b"")),
    "closes-during-headers": Kind(2, 0, f"{_BROKEN}|does not fit", _raw(_HALF_A_HEAD)),
    # Silence.
    "hangs-before-headers": Kind(1, 1, _SILENT, _raw(b"", "hang")),
    "hangs-during-headers": Kind(1, 1, _SILENT, _raw(_HALF_A_HEAD, "hang")),
    "hangs-before-body": Kind(1, 1, _SILENT, _body(lambda _: b"", "hang")),
    "hangs-during-body": Kind(1, 1, _SILENT, _body(lambda body: body[:5], "hang"), pieces=True),
    "drips-body": Kind(1, 2, _TRICKLES, _drip_body, pieces=True),
    "drips-body-over-tls": Kind(1, 2, _TRICKLES, _drip_body, needs="tls"),
    "drips-a-503": Kind(2, 4, "503 Busy", _drip_status("503 Busy")),
    "drips-a-404": Kind(1, 2, _TRICKLES, _drip_status("404 Not Found")),
    # What is no HTTP, or does not end.
    "garbage-status-line": Kind(2, 0, _BROKEN, _raw(b"220 smtp.example.net ESMTP ready\r\n\r\n")),
    "endless-headers": Kind(
        2, 4, _BROKEN, lambda _, __: Answer("", b"HTTP/1.1 200 OK\r\n", trickle=itertools.repeat(b"X-More: more\r\n"))
    ),
    "endless-header-line": Kind(
        2, 4, _BROKEN, lambda _, __: Answer("", b"HTTP/1.1 200 OK\r\nX: ", trickle=itertools.repeat(b"more" * 999))
    ),
    # Lengths.
    "short-body": Kind(1, 0, _BROKEN, _body(lambda body: body[:-3])),
    "long-body": Kind(0, 0, "the answer broke off", _body(lambda body: body + b" and more", "keep"), aio=2),
    "short-length": Kind(
        2,
        0,
        "does not fit|the answer broke off",
        _head(lambda head: head.replace("Content-Length: 13", "Content-Length: 9")),
    ),
    "long-length": Kind(
        2,
        0,
        "does not fit",
        _head(lambda head: head.replace("Content-Length: 13", "Content-Length: 17"), lambda body: body + b"more"),
    ),
    "long-chunks": Kind(1, 0, "the body broke off", _chunks),
    # Statuses.
    **{
        f"{code}{suffix}": Kind(2, 0, f"{code} ", _status(f"{code} Busy", *headers))
        for code in (500, 502, 503, 504, 429)
        for suffix, headers in (("", ()), ("-retry-after", ("Retry-After: 120",)))
    },
    "301-loop": Kind(2, 0, "301 .*again", _redirect_in_circles),
    "301-to-and-fro": Kind(2, 0, "301 .*again", _redirect_to_and_fro),
    # Answers that are none.
    "empty-200": Kind(2, 0, "does not fit", lambda _, __: Answer("HTTP/1.1 200 OK\nContent-Length: 0")),
    "login-page": Kind(
        2,
        0,
        "does not fit",
        lambda _, __: Answer(
            "HTTP/1.1 200 OK\nContent-Type: text/html\nContent-Length: 19", b"<h1>Please log in</h1>"[:19]
        ),
    ),
    "other-range": Kind(2, 0, "does not fit", _head(lambda head: head.replace("bytes 0-12/13", "bytes 13-25/26"))),
    "wrong-md5": Kind(2, 0, "the body does not match its MD5", _wrong_md5, options={"validate_content": True}, demo=0),
    "wrong-body": Kind(0, 0, "", _body(lambda body: body[::-1], "keep"), gets=HELLO[::-1]),
}
