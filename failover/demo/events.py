"""What happens during a run, as frozen dataclasses: the one language between the demonstration and the console.

The demonstration emits these and knows no screen; the console draws them and knows no SDK. Each event
is complete in itself: the live screen, the plain lines and the log are functions of the events so far.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

PRIMARY = "primary"
SECONDARY = "secondary"

CLOSED = "closed"
OPEN = "open"
HALF_OPEN = "half-open"

_SCREEN_ONLY = {"log": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened `t` seconds after the start of the run."""

    t: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Started(Event):
    """The settings are good and the account is known; nothing has been sent to it yet.

    `account` is one line for a person, without any secret. `requests` 0: until the user quits;
    `pause_every` 0: never. Either `secondary_threshold` (reads) or `cooldown` (seconds) is None.
    """

    account: str
    stand_in: bool
    requests: int
    pause_every: int
    rate: float
    retry_threshold: int
    secondary_threshold: int | None
    cooldown: float | None
    fault: str
    proxy: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted(Event):
    """Something that the user should know and that changes nothing, in plain words."""

    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploaded(Event):
    """The blob is on the primary. `account` is "stand-in" or the account's name."""

    container: str
    blob: str
    bytes: int
    account: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting(Event):
    """The blob is not on the secondary yet: `seconds` of at most `limit` have passed, `attempts` looks were taken."""

    seconds: float
    limit: float
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicated(Event):
    """The blob can be read from the secondary, `seconds` after its upload and at the `attempts`-th look."""

    seconds: float
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Read(Event):
    """Read `n` (from 1) is over.

    `endpoint` is the one that answered: PRIMARY, SECONDARY, or None where neither did (`ok` is False then and
    `error` says why). `state` is that of the primary's circuit after the read, `attempts` the requests sent to
    both endpoints. `failures` counts in that circuit while closed; `reads_left` (or `seconds_left`) is what
    remains until the primary is probed while it is open.
    """

    n: int
    endpoint: str | None
    state: str
    ok: bool
    ms: float
    attempts: int
    error: str | None = None
    failures: int = field(default=0, metadata=_SCREEN_ONLY)
    reads_left: int | None = field(default=None, metadata=_SCREEN_ONLY)
    seconds_left: float | None = field(default=None, metadata=_SCREEN_ONLY)
    tried_primary: bool = field(default=True, metadata=_SCREEN_ONLY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried(Event):
    """During read `n` an attempt at the primary failed: failure `failures` of the `threshold` that open the circuit."""

    n: int
    failures: int
    threshold: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Transitioned(Event):
    """During read `n` the circuit of endpoint `circuit` went from state `old` to `new`; `reason` is plain words."""

    n: int
    circuit: str
    old: str = field(metadata={"log": "from"})
    new: str = field(metadata={"log": "to"})
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultSwitched(Event):
    """The injected fault `kind` was switched on or off."""

    kind: str
    on: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused(Event):
    """The run waits for a key after read `n`; `asked` by the user, or by itself at the end of a round."""

    n: int
    asked: bool = field(default=False, metadata=_SCREEN_ONLY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed(Event):
    """The run goes on after read `n`."""

    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondarySeen(Event):
    """A look at the secondary: whether it answers, and the age in seconds of its Last Sync Time (None: unknown)."""

    reachable: bool
    staleness: float | None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished(Event):
    """No more reads: the program's own end, or the user's."""

    reads: int
    primary: int
    secondary: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanedUp(Event):
    """The container is deleted, or (`error` says why) is left behind for `--clean-up`."""

    container: str
    error: str | None = None


_LOG_NAMES: dict[type[Event], str] = {
    Started: "started",
    Noted: "note",
    Uploaded: "uploaded",
    Waiting: "waiting",
    Replicated: "replicated",
    Read: "read",
    Retried: "retry",
    Transitioned: "transition",
    FaultSwitched: "fault",
    Paused: "paused",
    Resumed: "resumed",
    SecondarySeen: "secondary",
    Finished: "finished",
    CleanedUp: "cleaned-up",
}


def as_log(event: Event) -> dict[str, Any]:
    """The event as an object of the log: `t`, `event`, then its fields in the order of their definition.

    Fields that only the screen needs are left out, and so is an `error` that is None.
    """
    line: dict[str, Any] = {"t": round(event.t, 4), "event": _LOG_NAMES[type(event)]}
    for each in fields(event)[1:]:
        name = each.metadata.get("log", each.name)
        value = getattr(event, each.name)
        if name is False or (name == "error" and value is None):
            continue
        line[name] = round(value, 4) if isinstance(value, float) else value
    return line
