"""Many clients of one primary, in virtual time: real circuits and the real store protocol, with clocks that are moved.

A client is a process with one circuit. Some call once a second, some once in ten. Where they share, each has its own
way to one store and learns of the others' writes at its next look, as with a store that does not push. A call takes no
time: its answer is there at once.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Final

from benchmarks.fleet.remote import Recovery, Remote
from failover.breaker import (
    BreakerEvent,
    CircuitBreaker,
    CircuitOpen,
    ConsecutiveFailures,
    Cooldown,
    Policy,
    State,
    Transition,
)
from failover.breaker.distributed.worker import worker_of
from failover.breaker.stores import StoredRecord
from failover.breaker.stores.memory import MemoryStore

_CALM: Final = 10.0  # seconds without a bad call after which all is over,
_AT_LEAST: Final = 180.0  # but not before so many after the outage
_DOWN: Final = ConnectionError("the primary is down")


@dataclass(frozen=True)
class Case:
    """clients: how many. shared: whether their circuits are one. jitter, ramp: of the policy, see `Policy`.

    refresh: seconds from one look at the store to the next. periods: the least and the most seconds from one call of a
    client to its next, spread evenly over their logarithms. horizon: seconds after the outage when all is given up.
    """

    clients: int
    shared: bool
    jitter: float = 0.0
    ramp: float | None = None
    seed: int = 1
    refresh: float = 1.0
    cooldown: float = 30.0
    factor: float = 2.0
    periods: tuple[float, float] = (1.0, 10.0)
    threshold: int = 5
    recovery: Recovery = field(default_factory=Recovery)
    horizon: float = 900.0

    def policy(self) -> Policy:
        """The default of GeoFailover but for what varies."""
        recovery = Cooldown(self.cooldown, factor=self.factor, maximum=300.0, jitter=self.jitter)
        return Policy(trip=ConsecutiveFailures(self.threshold), recovery=recovery, ramp=self.ramp)


@dataclass(frozen=True)
class Outcome:
    """What became of a case. Seconds; inf: not within the horizon.

    hits: requests to the dead primary; first: those until all circuits were open. detect: from its death until they
    were. recover: from its return until the last call that it did not answer. peak: the most requests in one second
    after its return, by what it could answer in that second. shed: requests that failed after its return. falls: how
    often it was pushed down again. course: second by second the requests, the failures and the capacity, as shares of
    the normal load.
    """

    case: Case
    hits: int
    first: int
    detect: float
    recover: float
    peak: float
    shed: int
    falls: int
    course: list[tuple[float, float, float, float]] = field(repr=False, compare=False)


class _Side:
    """One client's way to the store. It works at once, and does not push."""

    is_local = True

    def __init__(self, world: MemoryStore, refresh: float) -> None:
        self.url = "virtual://"
        self.refresh = refresh
        self._world = world

    def read(self, names: Iterable[str]) -> dict[str, StoredRecord]:
        return self._world.read(names)

    def compare_and_set(self, name: str, body: bytes, expected: str | None, ttl: float | None = None) -> str | None:
        return self._world.compare_and_set(name, body, expected, ttl)

    def subscribe(self, changed: Callable[[str | None], None]) -> bool:  # noqa: ARG002 (the protocol's)
        return False

    def forget_connections(self) -> None: ...

    def close(self) -> None: ...


class _Client:
    """One circuit, and when its next call is due. `turn`: grows whenever that changes."""

    __slots__ = ("circuit", "look_due", "offset", "period", "side", "turn")

    def __init__(self, circuit: CircuitBreaker, side: _Side | None, period: float, offset: float) -> None:
        self.circuit = circuit
        self.period = period
        self.side = side
        self.offset = offset
        self.look_due = False
        self.turn = 0


class Simulation:
    """One case, from a few seconds before the primary's death to the calm after its return."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self._now = -10.0
        self._random = random.Random(f"{case.seed} {case.clients}")  # the same arrivals in each case of a size
        self._world = MemoryStore(clock=self._clock) if case.shared else None
        if self._world is not None:
            self._world.subscribe(self._written)
        self._events: list[tuple[float, int, int, int]] = []
        self._pushed = 0
        self._not_open = case.clients
        self._not_closed = 0
        self._detected = float("inf")
        self._first = 0
        self._bad_at = 0.0
        draws = random.Random(f"{case.seed} circuits")
        policy = case.policy()
        least, most = case.periods
        periods = [least * (most / least) ** ((n + 0.5) / case.clients) for n in range(case.clients)]
        self._remote = Remote(case.recovery, sum(1 / period for period in periods))
        self._clients = [self._client(policy, draws, period) for period in periods]
        for number, client in enumerate(self._clients):
            self._push(self._now + self._random.random() * client.period, number, 0)

    def _client(self, policy: Policy, draws: random.Random, period: float) -> _Client:
        side = None if self._world is None else _Side(self._world, self.case.refresh)
        circuit = CircuitBreaker(
            "primary", policy, clock=self._clock, random=draws.random, listeners=[self._hear], store=side
        )
        return _Client(circuit, side, period, self._random.random() * self.case.refresh)

    def _clock(self) -> float:
        return self._now

    def run(self) -> Outcome:
        """Until all is calm, or given up."""
        outage = self.case.recovery.outage
        until = outage + self.case.horizon
        while self._events:
            self._now, _, number, turn = heapq.heappop(self._events)
            if self._now > until:
                break
            client = self._clients[number]
            if turn < 0:
                self._look(number, client)
            elif turn == client.turn:
                self._call(number, client)
            if self._now > max(outage + _AT_LEAST, self._bad_at + _CALM) and not self._not_closed:
                break
        remote, given_up = self._remote, bool(self._not_closed) or self._now > until
        return Outcome(
            case=self.case,
            hits=remote.hits_while_dead,
            first=self._first,
            detect=self._detected,
            recover=float("inf") if given_up else max(0.0, self._bad_at - outage),
            peak=remote.peak(),
            shed=remote.shed,
            falls=remote.falls,
            course=remote.course(),
        )

    def _push(self, when: float, number: int, turn: int) -> None:
        self._pushed += 1
        heapq.heappush(self._events, (when, self._pushed, number, turn))

    def _call(self, number: int, client: _Client) -> None:
        period = client.period
        wait = period * (0.9 + 0.2 * self._random.random())
        try:
            permit = client.circuit.admit()
        except CircuitOpen as refusal:
            self._bad_at = self._now
            # Its calls until then would all be refused: the first after that comes somewhere in a period.
            if refusal.retry_after is not None and refusal.retry_after > period:
                wait = refusal.retry_after + period * self._random.random()
        else:
            if self._remote.answers(self._now):
                permit.succeeded()
            else:
                self._bad_at = self._now
                permit.failed(_DOWN)
        self._push(self._now + wait, number, client.turn)

    def _written(self, _: str | None) -> None:
        """The store holds another record: each client sees it at its next look."""
        for number, client in enumerate(self._clients):
            if not client.look_due:
                client.look_due = True
                refresh = self.case.refresh
                ahead = (client.offset - self._now) % refresh
                self._push(self._now + ahead, number, -1)

    def _look(self, number: int, client: _Client) -> None:
        client.look_due = False
        assert client.side is not None  # noqa: S101 (only who shares looks)
        before = client.circuit.snapshot()["era"]
        worker_of(client.side).turn(refresh=True)
        if client.circuit.snapshot()["era"] != before:
            # What it waited for is another thing now.
            client.turn += 1
            self._push(self._now + client.period * self._random.random(), number, client.turn)

    def _hear(self, event: BreakerEvent) -> None:
        if not isinstance(event, Transition):
            return
        self._not_open += (event.old is State.OPEN) - (event.new is State.OPEN)
        self._not_closed += (event.old is State.CLOSED) - (event.new is State.CLOSED)
        if not self._not_open and self._now < self._detected:
            self._detected, self._first = self._now, self._remote.hits_while_dead
        if event.new is State.CLOSED:
            self._bad_at = max(self._bad_at, self._now)


def simulate(case: Case) -> Outcome:
    """What becomes of it."""
    return Simulation(case).run()
