"""Which outcomes of a call mean that the remote is down."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError
from enum import Enum
from typing import Final


class Verdict(Enum):
    """What one call's outcome says about the remote."""

    SUCCESS = "success"
    """The remote answered, be it with an error of the caller's own making."""
    FAILURE = "failure"
    """The remote did not do its work."""
    NEUTRAL = "neutral"
    """The call says nothing: it counts neither way, and a probe's place is given back."""


SUCCESS: Final = Verdict.SUCCESS
FAILURE: Final = Verdict.FAILURE
NEUTRAL: Final = Verdict.NEUTRAL

Classifier = Callable[[object], Verdict]
"""Takes what a call raised or returned. It is never asked about cancellation: see `is_cancellation`."""


def is_cancellation(error: BaseException) -> bool:
    """Whether the caller gave up, which says nothing about the remote.

    True for `CancelledError`, `KeyboardInterrupt`, `SystemExit`, `GeneratorExit` and whatever else is no
    `Exception`: those are raised to stop the caller, not by the remote.
    """
    return not isinstance(error, Exception) or isinstance(error, CancelledError)


def classify(outcome: object) -> Verdict:
    """The default: any exception is a FAILURE, any result a SUCCESS."""
    return FAILURE if isinstance(outcome, BaseException) else SUCCESS
