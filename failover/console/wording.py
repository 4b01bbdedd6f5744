"""The words that sentences are made of: text from outside made harmless, counts, durations and causes."""

from __future__ import annotations

import re
import unicodedata
from typing import Final

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_STATUS = re.compile(r"\s*([1-5]\d\d)\b")
_LONGEST: Final = 300  # characters
_CAUSES = tuple(
    (re.compile(pattern, re.IGNORECASE), told)
    for pattern, told in (
        (r"proxy", "could not be reached through the proxy"),
        (r"time[d -]*out|too slow|no answer", "did not answer in time"),
        (r"broke off|incomplete", "broke off its answer"),
        (r"refused", "refused the connection"),
        (r"reset|aborted|closed|disconnect|broken", "cut the connection"),
        (r"resolve|getaddrinfo|name or service|nodename", "could not be found"),
        (r"certificate|TLS", "could not be trusted"),
        (r"no connection", "could not be connected to"),
    )
)


def clean(text: str, longest: int = _LONGEST) -> str:
    """The text on one line of at most `longest` characters, with nothing in it that a terminal would obey.

    Errors carry what a server or a proxy wrote: line ends become spaces, control and formatting characters
    (escape sequences, text that runs backwards, half a surrogate) their escapes.
    """
    text = " ".join(text[: longest * 2].split())
    text = "".join(_escape(each) if unicodedata.category(each)[0] == "C" else each for each in text)
    return text if len(text) <= longest else text[: longest - 3] + "..."


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def number(count: int) -> str:
    """A count as one writes it in a sentence: words up to ten, then digits with their thousands apart."""
    return _NUMBERS[count] if 0 <= count <= 10 else f"{count:,}"


def times(count: int) -> str:
    """How often: once, twice, three times."""
    return {1: "once", 2: "twice"}.get(count, f"{number(count)} times")


def reads(count: int) -> str:
    """A number of reads, in digits."""
    return f"{count:,} read{'' if count == 1 else 's'}"


def seconds(value: float) -> str:
    """A duration of `value` seconds, as exact as a person wants it: 0.8 s, 12 s, 3 min, 2 h, 3 days."""
    if value < 9.95:
        return f"{max(value, 0.0):.1f} s"
    if value < 120:
        return f"{value:.0f} s"
    if value < 7200:
        return f"{value / 60:.0f} min"
    return f"{value / 3600:.0f} h" if value < 172800 else f"{value / 86400:.0f} days"


def milliseconds(value: float) -> str:
    """So many milliseconds, as exact as a person wants them, without their unit."""
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"


def moment(t: float) -> str:
    """A time since the start: minutes, seconds and tenths, or hours, minutes and seconds."""
    tenths = round(max(t, 0.0) * 10)
    minutes, rest = divmod(tenths, 600)
    if minutes < 60:
        return f"{minutes}:{rest // 10:02}.{rest % 10}"
    return f"{minutes // 60}:{minutes % 60:02}:{rest // 10:02}"


def has_status(error: str) -> bool:
    """Whether the text of an error begins with an HTTP status, which then says all."""
    return _STATUS.match(error) is not None


def cause(error: str) -> str:
    """What an endpoint did instead of answering, from the text of the error: the rest of a sentence about it."""
    status = _STATUS.match(error)
    if status:
        return f"answered {status.group(1)}"
    return next((told for pattern, told in _CAUSES if pattern.search(error)), "failed")
