"""The events that listeners of a `GeoFailover` receive, in addition to the `Transition`s of its circuits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from failover.breaker import Transition


@dataclass(frozen=True, slots=True)
class Retry:
    """An attempt at `endpoint` failed, and the read continues.

    `failures` is the count of that endpoint's circuit, which opens at `threshold`. `error` describes the cause in a few
    words, without secrets.
    """

    endpoint: str
    failures: int
    threshold: int
    error: str


@dataclass(frozen=True, slots=True)
class ReadEnded:
    """A read is over: its body has arrived completely, or it has failed.

    If a body is not read to its end, there is no such event. `endpoint` is the one that answered (for a body that broke
    off: the one that sent the end), or None if neither did. `attempts` counts the requests sent to both endpoints.
    `seconds` is the time from the call to its end; a streamed body ends when its reader has taken the last of it.
    `hedged`: both endpoints were asked at the same time.
    """

    endpoint: str | None
    attempts: int
    seconds: float
    hedged: bool = False


GeoEvent = Transition | Retry | ReadEnded
Listener = Callable[[GeoEvent], object]
