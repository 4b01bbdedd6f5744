"""The errors that the breaker raises, and how an error is written in one line that is safe to log."""

from __future__ import annotations

import pickle
from enum import Enum
from typing import Any, Final

_LONGEST: Final = 200
_LONGEST_KEPT: Final = 2000  # characters of one argument of an error that is kept


class Refusal(Enum):
    """Why a call was refused."""

    OPEN = "is open"
    ISOLATED = "is isolated by hand"
    PROBES_TAKEN = "is half-open and its probes are under way"
    RAMPING = "has just closed and admits only a share of the calls yet"


class CircuitOpen(Exception):  # noqa: N818 (the contract's name: what is told is a state, not a mistake)
    """The call was refused, and the remote was not called.

    Attributes:
        name: The name of the circuit.
        retry_after: Seconds until a call may be admitted. None if no time is known: the circuit waits for a number of
            calls, for a probe in flight, or for `reset()`.
        last_error: The last failure that was counted since the circuit was last closed, or None. It is a copy with the
            type and the text, without the traceback and without references to other objects.
        reason: A `Refusal`: whether the circuit is open, isolated or ramping, or has all its probes in flight.
    """

    def __init__(
        self,
        name: str,
        retry_after: float | None = None,
        last_error: BaseException | None = None,
        reason: Refusal = Refusal.OPEN,
    ) -> None:
        # All is in `args`: attributes of their own would be a fifth of what a refused call costs.
        super().__init__(name, retry_after, last_error, reason)

    @property
    def name(self) -> str:
        return self.args[0]  # type: ignore[no-any-return]

    @property
    def retry_after(self) -> float | None:
        return self.args[1]  # type: ignore[no-any-return]

    @property
    def last_error(self) -> BaseException | None:
        return self.args[2]  # type: ignore[no-any-return]

    @property
    def reason(self) -> Refusal:
        return self.args[3]  # type: ignore[no-any-return]

    def __str__(self) -> str:
        when = "" if self.retry_after is None else f"; the next call may be made in {self.retry_after:.3g} s"
        why = "" if self.last_error is None else f"; the last failure: {describe(self.last_error)}"
        return f"circuit {self.name!r} {self.reason.value}{when}{why}"

    def __reduce__(self) -> tuple[Any, ...]:
        last = self.last_error
        if last is not None and not _survives_pickling(last):
            last = FailureReported(describe(last))
        return type(self), (self.name, self.retry_after, last, self.reason)


class ImpossibleEvent(Exception):  # noqa: N818 (named for what it is: see `failover.breaker.machine`)
    """The state machine was given an event that cannot happen in its state: a defect of this library."""


class FailureReported(Exception):  # noqa: N818 (it reports one)
    """A failure in plain words, for `Permit.failed` if there is no exception, or if its text must not be logged.

    `retry_after`: the seconds after which the remote asked to be called again. None: it did not ask.
    """

    def __init__(self, *words: object, retry_after: float | None = None) -> None:
        super().__init__(*words)
        self.retry_after = retry_after


class TooSlow(TimeoutError):  # noqa: N818 (it says what the answer was)
    """The remote answered, but took longer than `Policy.timeout`: the answer is used, and counts as a failure."""


def error_of(outcome: object) -> BaseException:
    """The error by which a call failed, also where it was its result that was classified as a failure."""
    if isinstance(outcome, BaseException):
        return outcome
    return FailureReported("the result was classified as a failure")


def keepsake_of(error: BaseException) -> BaseException:
    """A copy of `error` that may be kept for as long as one likes: its type and its text.

    The error itself holds its traceback, whose frames hold all that the failed call was working with; its causes hold
    theirs, and an HTTP library's error holds the request with its body. Of its arguments and attributes only plain
    values are taken, of others their text. Where a copy of its type cannot be made so, it is a `FailureReported`.
    """
    try:
        kind = type(error)
        copy = kind.__new__(kind, *map(_plain, error.args))
        copy.args = tuple(map(_plain, error.args))
        for name, value in vars(error).items():
            if value is None or isinstance(value, (str, int, float)):
                setattr(copy, name, _plain(value))
        if describe(copy) == describe(error):
            return copy
    except Exception:  # noqa: BLE001, S110 (anybody's class: making one may raise anything)
        pass
    return FailureReported(describe(error))


def _plain(value: object) -> object:
    if value is None or isinstance(value, (bool, int, float)):
        return value
    text = value if isinstance(value, str) else str(value)
    return text[:_LONGEST_KEPT]


def _survives_pickling(error: BaseException) -> bool:
    """Whether it arrives in another process: one that can be written cannot always be read."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 (written right here)
    except Exception:  # noqa: BLE001 (anybody's class)
        return False
    return True


def describe(error: BaseException) -> str:
    """The error's type and message as one line of printable characters, at most 200 long.

    Of a `FailureReported` or `TooSlow` the message alone.

    Messages come from outside: a line break or an escape sequence in one must not reach a log or a terminal.
    """
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 (an error that cannot say what it is must not hide that it happened)
        text = "its message cannot be shown"
    kind = _printable(type(error).__name__)
    safe = _printable(text[: 2 * _LONGEST])
    line = safe if isinstance(error, (FailureReported, TooSlow)) else f"{kind}: {safe}" if safe else kind
    return line if len(line) <= _LONGEST else line[: _LONGEST - 1] + "…"


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
