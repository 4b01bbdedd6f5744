"""Time for tests that moves when told to."""

from __future__ import annotations


class Clock:
    """Seconds, from any moment on: of a monotonic clock, or since the epoch."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
