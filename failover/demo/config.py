"""The configuration of a run: how much is read, how fast, what fails when, and when circuits open."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from failover.breaker import AfterCalls, ConsecutiveFailures, Cooldown, Policy
from failover.demo.faults import Fault

REPLICA_WAIT: Final = 60.0  # seconds


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What the user asked for.

    Attributes:
        requests: Number of reads; 0: until the user quits.
        pause_every: Pause after so many reads; 0: never.
        rate: Reads per second at most; 0: no limit.
        retry_threshold: Failures in a row that open the circuit.
        secondary_threshold: Reads that go straight to the secondary before the primary is probed.
        cooldown: Seconds after which the primary is probed instead; None: `secondary_threshold` decides.
        hedge: Seconds after which a read without an answer asks the secondary too; None: never.
        timeout: Connect and read time-out of one attempt, in seconds. An answer after half of it is a failure.
        fault: What is injected.
        fail: Pairs of first and last read, counted from 1, for which it is injected.
        proxy: URL of the proxy to use, or None. It may contain a password.
        replica_wait: Seconds to wait at most until the blob can be read from the secondary.
    """

    requests: int = 1000
    pause_every: int = 200
    rate: float = 0.0
    retry_threshold: int = 5
    secondary_threshold: int = 20
    cooldown: float | None = None
    hedge: float | None = None
    timeout: float = 2.0
    fault: Fault = Fault.STATUS_503
    fail: tuple[tuple[int, int], ...] = ()
    proxy: str | None = field(default=None, repr=False)
    replica_wait: float = REPLICA_WAIT

    def policy(self) -> Policy:
        """Return the policy of both circuits: made for watching, not for production (see `PRODUCTION`)."""
        recovery = AfterCalls(self.secondary_threshold) if self.cooldown is None else Cooldown(self.cooldown)
        return Policy(trip=ConsecutiveFailures(self.retry_threshold), recovery=recovery, timeout=self.timeout / 2)

    def fails(self, n: int) -> bool:
        """Return whether `fail` injects the fault at read `n`."""
        return any(first <= n <= last for first, last in self.fail)
