"""What the breaker raises, and how an error is put into one safe line."""

from __future__ import annotations

_LONGEST = 200


class CircuitOpen(Exception):  # noqa: N818 (the contract's name: what is told is a state, not a mistake)
    """The call was not made: the circuit is open, or all probes of a half-open one are under way, or it has just closed
    and admits only a share of the calls (`Policy.ramp`). Its text says which.

    `name` is the circuit's. `retry_after` is the time in seconds until a call may be admitted, or None where no
    time is known: the circuit waits for a number of calls, for a probe under way, or for `reset()`.
    `last_error` is the failure that was counted last, or None.
    """

    def __init__(
        self,
        name: str,
        retry_after: float | None = None,
        last_error: BaseException | None = None,
        why: str = "is open",
    ) -> None:
        super().__init__(name, retry_after, last_error, why)
        self.name = name
        self.retry_after = retry_after
        self.last_error = last_error
        self._why = why

    def __str__(self) -> str:
        when = "" if self.retry_after is None else f"; the next call may be made in {self.retry_after:.3g} s"
        why = "" if self.last_error is None else f"; the last failure: {describe(self.last_error)}"
        return f"circuit {self.name!r} {self._why}{when}{why}"


class ImpossibleEvent(Exception):  # noqa: N818 (named for what it is: see `failover.breaker.machine`)
    """The state machine was given an event that cannot happen in its state: a defect of this library."""


class FailureReported(Exception):  # noqa: N818 (it reports one)
    """For `Permit.failed` where there is no exception, or none whose text may be logged: a failure in plain words.

    `retry_after`: seconds for which the remote asked to be left alone, None: it did not ask.
    """

    def __init__(self, *words: object, retry_after: float | None = None) -> None:
        super().__init__(*words)
        self.retry_after = retry_after


class TooSlow(TimeoutError):  # noqa: N818 (it says what the answer was)
    """The remote answered, and took longer than `Policy.timeout`: the answer is used and counts as a failure."""


def error_of(outcome: object) -> BaseException:
    """The error by which a call failed, also where it was its result that was classified as a failure."""
    if isinstance(outcome, BaseException):
        return outcome
    return FailureReported("the result was classified as a failure")


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
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
