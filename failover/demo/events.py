"""What happens during a run, as frozen dataclasses: all that the demonstration and the console share.

The demonstration emits these events and knows no screen; the console shows them and knows no SDK. The live screen, the
plain lines and the log are functions of the events so far.
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
    """The settings make sense and the account is known. Nothing has been sent to it yet.

    Attributes:
        account: One line for a person, without any secret.
        stand_in: Whether it is the stand-in account.
        requests: Number of reads; 0: until the user quits.
        pause_every: Pause after so many reads; 0: never.
        rate: Reads per second at most; 0: no limit.
        retry_threshold: Failures in a row that open a circuit.
        secondary_threshold: Reads until the primary is probed; None where `cooldown` decides.
        cooldown: Seconds until the primary is probed; None where `secondary_threshold` decides.
        fault: The fault that can be injected.
        proxy: URL of the proxy without its password, or None.
        shared: Whether other processes may share the circuits.
        hedge: Seconds after which a read without an answer asks the secondary too; None: never.
        timeout: Seconds that a request may take to connect, and be without an answer.
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
    shared: bool = field(default=False, metadata=_SCREEN_ONLY)
    hedge: float | None = field(default=None, metadata=_SCREEN_ONLY)
    timeout: float = field(default=2.0, metadata=_SCREEN_ONLY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Noted(Event):
    """Something that the user should know, and that changes nothing about the run, as a sentence."""

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
    """The blob is not on the secondary yet, after `attempts` requests and `seconds` of at most `limit`."""

    seconds: float
    limit: float
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Replicated(Event):
    """The blob can be read from the secondary, `seconds` after its upload and with the `attempts`-th request."""

    seconds: float
    attempts: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Read(Event):
    """A read has ended.

    Attributes:
        n: Its number, from 1.
        endpoint: The endpoint that answered, PRIMARY or SECONDARY; None where neither did.
        state: The state of the primary's circuit after the read.
        ok: Whether the read was answered.
        ms: How long it took, in milliseconds.
        attempts: Requests sent to both endpoints.
        error: Why it was not answered, or None.
        failures: Failures that the primary's circuit counts while it is closed.
        reads_left: Reads until the primary is probed while its circuit is open, or None.
        seconds_left: Seconds until then, or None.
        tried_primary: Whether the read asked the primary at all.
        hedged: Whether both endpoints were asked at the same time.
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
    hedged: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Retried(Event):
    """During read `n` an attempt at the primary failed: number `failures` of the `threshold` that open the circuit."""

    n: int
    failures: int
    threshold: int
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Transitioned(Event):
    """During read `n` the circuit of the endpoint `circuit` went from state `old` to `new`, for a `reason`."""

    n: int
    circuit: str
    old: str = field(metadata={"log": "from"})
    new: str = field(metadata={"log": "to"})
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultSwitched(Event):
    """The injected fault `kind` was switched on or off; `by_another`: by another process that shares the account."""

    kind: str
    on: bool
    by_another: bool = field(default=False, metadata=_SCREEN_ONLY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Paused(Event):
    """The run pauses after read `n`, because the user `asked` for it or because so many reads are done."""

    n: int
    asked: bool = field(default=False, metadata=_SCREEN_ONLY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed(Event):
    """The run continues after read `n`."""

    n: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SecondarySeen(Event):
    """Whether the secondary answers, and the age in seconds of its Last Sync Time (None: unknown)."""

    reachable: bool
    staleness: float | None
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished(Event):
    """The last read has ended, or the user has quit. `primary`, `secondary` and `failed` add up to `reads`."""

    reads: int
    primary: int
    secondary: int
    failed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanedUp(Event):
    """The container is deleted; or it is not, for the reason `error`, and `--clean-up` will remove it."""

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
    """Return the event as an object of the log: `t`, `event`, then its fields in the order of their definition.

    Fields that only the screen needs are left out, and so are an `error` that is None and a `hedged` that is False.
    """
    line: dict[str, Any] = {"t": round(event.t, 4), "event": _LOG_NAMES[type(event)]}
    for each in fields(event)[1:]:
        name = each.metadata.get("log", each.name)
        value = getattr(event, each.name)
        if name is False or (name == "error" and value is None) or (name == "hedged" and not value):
            continue
        line[name] = round(value, 4) if isinstance(value, float) else value
    return line
