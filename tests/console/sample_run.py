"""A run as the demonstration would tell it, for tests that need one: 1,000 reads, a fault from 201 to 400."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from failover.console.run_history import RunHistory
from failover.demo import events as ev

ACCOUNT = "stand-in account on 127.0.0.1 (no Azure account is set)"


def started(**changes: Any) -> ev.Started:
    settings: dict[str, Any] = {
        "t": 0.0,
        "account": ACCOUNT,
        "stand_in": True,
        "requests": 1000,
        "pause_every": 200,
        "rate": 25.0,
        "retry_threshold": 5,
        "secondary_threshold": 20,
        "cooldown": None,
        "fault": "503",
    }
    return ev.Started(**{**settings, **changes})


def read(n: int, **changes: Any) -> ev.Read:
    fields: dict[str, Any] = {
        "t": 2.0 + n * 0.04,
        "n": n,
        "endpoint": "primary",
        "state": "closed",
        "ok": True,
        "ms": 2.1,
        "attempts": 1,
    }
    return ev.Read(**{**fields, **changes})


def aside(n: int, left: int, **changes: Any) -> ev.Read:
    """A read that went straight to the secondary."""
    return read(n, **{"endpoint": "secondary", "state": "open", "reads_left": left, "tried_primary": False, **changes})


def trip(n: int) -> Iterator[ev.Event]:
    t = 2.0 + n * 0.04
    for failures in range(1, 6):
        yield ev.Retried(t=t, n=n, failures=failures, threshold=5, error="503 The server is busy.")
    yield ev.Transitioned(t=t, n=n, circuit="primary", old="closed", new="open", reason="5 failures in a row")
    yield ev.SecondarySeen(t=t, reachable=True, staleness=0.8)
    yield read(n, endpoint="secondary", state="open", ms=9.8, attempts=6, reads_left=20)


def whole() -> Iterator[tuple[str, ev.Event]]:
    """Each event with the name of the stage that the run has reached with it."""
    yield "starting", started()
    yield "uploaded", ev.Uploaded(t=0.4, container="ra-grs-1", blob="HelloWorld", bytes=13, account="stand-in")
    yield "waiting", ev.Waiting(t=0.9, seconds=21.0, limit=60.0, attempts=2)
    yield "replicated", ev.Replicated(t=1.5, seconds=1.1, attempts=3)
    for n in range(1, 201):
        yield "reading", read(n)
    yield "paused", ev.Paused(t=10.0, n=200)
    yield "paused, fault on", ev.FaultSwitched(t=10.1, kind="503", on=True)
    yield "resumed", ev.Resumed(t=10.2, n=200)
    for event in trip(201):
        yield "tripping" if isinstance(event, ev.Retried) else "open", event
    left = 20
    for n in range(202, 401):
        if left:
            left -= 1
            yield "open", aside(n, left)
            continue
        t, left = 2.0 + n * 0.04, 20
        yield "half-open", ev.Transitioned(t=t, n=n, circuit="primary", old="open", new="half-open", reason="20 reads")
        yield "probe failed", ev.Retried(t=t, n=n, failures=1, threshold=5, error="503 The server is busy.")
        yield (
            "reopened",
            ev.Transitioned(t=t, n=n, circuit="primary", old="half-open", new="open", reason="probe failed"),
        )
        yield "reopened", aside(n, 20, tried_primary=True, attempts=2)
    yield "no net", ev.SecondarySeen(t=19.0, reachable=False, staleness=None, error="Connection refused")
    yield "failing", aside(401, 9, endpoint=None, ok=False, error="secondary: \x1b[31mrefused [bold]" + "x" * 300)
    yield "paused, asked", ev.Paused(t=20.0, n=401, asked=True)
    yield "finished", ev.Finished(t=21.0, reads=401, primary=200, secondary=200, failed=1)
    yield "cleaned up", ev.CleanedUp(t=21.5, container="ra-grs-1")


def history_at(stage: str) -> RunHistory:
    """The history when the run has reached the end of this stage for the first time."""
    history, reached = RunHistory(), False
    for name, event in whole():
        if reached and name != stage:
            break
        history.apply(event)
        reached = reached or name == stage
    assert reached, stage
    return history


STAGES = tuple(dict.fromkeys(stage for stage, _ in whole()))
