"""The state of a circuit as it is stored for other processes. It contains durations, not times, as clocks differ."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Final

from failover.breaker.machine import State

FORMAT: Final = 1
_LONGEST_TEXT: Final = 64  # characters of an epoch or a holder; ours have 16 and 8


class UnreadableRecord(ValueError):  # noqa: N818 (it says what was found)
    """What the store holds is no record that this version can read. The message says why in a few words."""


@dataclass(frozen=True, slots=True)
class ProbeLease:
    """A probe's place in a half-open circuit.

    Attributes:
        holder: The process that has it.
        number: Which of its holder's probes it is.
        left: Seconds from the write until it lapses.
    """

    holder: str
    number: int
    left: float


@dataclass(frozen=True, slots=True)
class SharedRecord:
    """The state of a circuit as all processes know it.

    Attributes:
        state: As in `failover.breaker.machine.Record`, like all that is not explained here.
        epoch: A new random text after each transition and each order by hand.
        wait: While open, seconds from the write until a call may be the probe. None: not by time.
        places: While half-open, the probes under way.
        ramp: While closed, seconds from the write until all calls are admitted. None: they are.
        last_resorts: Holders, each with how many of the successes were its last resorts: by its own number a process
            knows which of them are stored already.
    """

    state: State
    epoch: str
    wait: float | None = None
    isolated: bool = False
    failures: int = 0
    opened: int = 0
    openings: int = 0
    successes: int = 0
    places: tuple[ProbeLease, ...] = ()
    ramp: float | None = None
    failed: int = 0
    last_resorts: tuple[tuple[str, int], ...] = ()


def encode(shared: SharedRecord) -> bytes:
    """The record as JSON. The same record gives the same bytes."""
    fields = {
        "format": FORMAT,
        "state": shared.state.value,
        "epoch": shared.epoch,
        "wait": shared.wait,
        "isolated": shared.isolated,
        "failures": shared.failures,
        "opened": shared.opened,
        "openings": shared.openings,
        "successes": shared.successes,
        "places": [[place.holder, place.number, round(place.left, 3)] for place in shared.places],
        "ramp": shared.ramp,
        "failed": shared.failed,
        "last_resorts": shared.last_resorts,
    }
    return json.dumps(fields, separators=(",", ":")).encode()


def decode(body: bytes) -> SharedRecord:
    """The record in `body`. Unknown fields are ignored: a later version may add some within the same format.

    Raises:
        UnreadableRecord: It is none, or one of another format.
    """
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise UnreadableRecord("it is no JSON") from None
    if not isinstance(fields, dict) or not isinstance(fields.get("format"), int):
        raise UnreadableRecord("it is no record of a circuit")
    if fields["format"] != FORMAT:
        raise UnreadableRecord(f"it has format {str(fields['format'])[:20]}, and this version reads {FORMAT}")
    try:
        wait, ramp = fields["wait"], fields.get("ramp")  # as `failed` and `last_resorts`: added within this format
        return SharedRecord(
            state=State(fields["state"]),
            epoch=_text(fields["epoch"]),
            wait=None if wait is None else _seconds(wait),
            isolated=fields["isolated"] is True,
            failures=_count(fields["failures"]),
            opened=_count(fields["opened"]),
            openings=_count(fields["openings"]),
            successes=_count(fields["successes"]),
            failed=_count(fields.get("failed", 0)),
            last_resorts=tuple((_text(h), _count(n)) for h, n in fields.get("last_resorts", ())),
            places=tuple(ProbeLease(_text(h), _count(n), _seconds(left)) for h, n, left in fields["places"]),
            ramp=None if ramp is None else _seconds(ramp),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        raise UnreadableRecord("a field is missing or wrong") from None


def _text(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_TEXT:
        raise ValueError
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError
    return value


def _seconds(value: Any) -> float:
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not 0 <= value < math.inf:
        raise ValueError
    return float(value)
