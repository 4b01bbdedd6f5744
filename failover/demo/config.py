"""The configuration of a run: how much is read, how fast, what fails when, and when circuits open."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from failover.breaker import AfterCalls, ConsecutiveFailures, Cooldown, Policy
from failover.demo.faults import Fault

REPLICA_WAIT: Final = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What the user asked for. Times in seconds; `fail` holds pairs of first and last read, from 1."""

    requests: int = 1000
    pause_every: int = 200
    rate: float = 0.0
    retry_threshold: int = 5
    secondary_threshold: int = 20
    cooldown: float | None = None
    timeout: float = 2.0
    fault: Fault = Fault.STATUS_503
    fail: tuple[tuple[int, int], ...] = ()
    proxy: str | None = field(default=None, repr=False)  # may hold a password
    replica_wait: float = REPLICA_WAIT

    def policy(self) -> Policy:
        """For both circuits: what teaches, not what production wants (see `failover.storage.PRODUCTION`)."""
        recovery = AfterCalls(self.secondary_threshold) if self.cooldown is None else Cooldown(self.cooldown)
        return Policy(trip=ConsecutiveFailures(self.retry_threshold), recovery=recovery, timeout=self.timeout / 2)

    def failing(self, n: int) -> bool:
        """Whether the fault is to be on at read `n`."""
        return any(first <= n <= last for first, last in self.fail)
