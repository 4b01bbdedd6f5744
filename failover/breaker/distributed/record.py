"""A circuit's state as it is written down for other processes: durations, never times, since clocks differ."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any, Final

from failover.breaker.machine import State

FORMAT: Final = 1
_LONGEST_HOLDER: Final = 64


class Garbage(ValueError):  # noqa: N818 (it says what was found)
    """What the store holds is no record that this version can read; the message says why in a few words."""


@dataclass(frozen=True, slots=True)
class Place:
    """A probe's place: whose it is, which of its holder's probes, and for how many seconds from the write."""

    holder: str
    number: int
    left: float


@dataclass(frozen=True, slots=True)
class Written:
    """The state of a circuit as all processes know it.

    epoch: another one after each transition and each order by hand. wait: while open, seconds from the write until
    a call may be the probe, or None where it does not go by time. ramp: while closed, seconds from the write until all
    calls are admitted, or None. The rest is as in `failover.breaker.machine.Record`.
    """

    state: State
    epoch: str
    wait: float | None = None
    isolated: bool = False
    failures: int = 0
    opened: int = 0
    openings: int = 0
    successes: int = 0
    places: tuple[Place, ...] = ()
    ramp: float | None = None


def encode(written: Written) -> bytes:
    """JSON, the same bytes for the same record."""
    fields = {
        "format": FORMAT,
        "state": written.state.value,
        "epoch": written.epoch,
        "wait": written.wait,
        "isolated": written.isolated,
        "failures": written.failures,
        "opened": written.opened,
        "openings": written.openings,
        "successes": written.successes,
        "places": [[place.holder, place.number, round(place.left, 3)] for place in written.places],
        "ramp": written.ramp,
    }
    return json.dumps(fields, separators=(",", ":")).encode()


def decode(body: bytes) -> Written:
    """Raises `Garbage`. Fields that it does not know are left alone: they came within the same format."""
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError):
        raise Garbage("it is no JSON") from None
    if not isinstance(fields, dict) or not isinstance(fields.get("format"), int):
        raise Garbage("it is no record of a circuit")
    if fields["format"] != FORMAT:
        raise Garbage(f"it has format {str(fields['format'])[:20]}, and this version reads {FORMAT}")
    try:
        wait, ramp = fields["wait"], fields.get("ramp")  # which came within this format
        return Written(
            state=State(fields["state"]),
            epoch=_text(fields["epoch"]),
            wait=None if wait is None else _seconds(wait),
            isolated=fields["isolated"] is True,
            failures=_count(fields["failures"]),
            opened=_count(fields["opened"]),
            openings=_count(fields["openings"]),
            successes=_count(fields["successes"]),
            places=tuple(Place(_text(h), _count(n), _seconds(left)) for h, n, left in fields["places"]),
            ramp=None if ramp is None else _seconds(ramp),
        )
    except (KeyError, TypeError, ValueError, OverflowError):
        raise Garbage("a field is missing or wrong") from None


def _text(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_HOLDER:
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
