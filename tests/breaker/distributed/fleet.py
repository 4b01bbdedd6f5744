"""Several processes in one: circuits of one name, each with its own way to one store, and time that is moved."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

from failover.breaker import CircuitBreaker, CircuitOpen, ConsecutiveFailures, Cooldown, Permit, Policy, State
from failover.breaker.distributed.worker import worker_of
from failover.breaker.stores import StoredRecord, StoreError
from failover.breaker.stores.memory import MemoryStore
from tests.clock import Clock

POLICY = Policy(trip=ConsecutiveFailures(2), recovery=Cooldown(10.0), probe_lease=30.0)


class Side:
    """One process's way to a store: it can be cut, lose answers, and it counts what goes through."""

    is_local = True
    refresh = 1.0

    def __init__(self, world: MemoryStore) -> None:
        self.url = "side://"
        self.world = world
        self.down = False
        self.loses_answers = False
        self.before_swap: Callable[[], object] | None = None
        self.operations = 0

    def read(self, names: Iterable[str]) -> dict[str, StoredRecord]:
        self._pass()
        return self.world.read(names)

    def compare_and_set(self, name: str, body: bytes, expected: str | None, ttl: float | None = None) -> str | None:
        self._pass()
        if self.before_swap is not None:
            act, self.before_swap = self.before_swap, None
            act()
        version = self.world.compare_and_set(name, body, expected, ttl)
        if self.loses_answers:
            raise StoreError("side://: the answer was lost")
        return version

    def subscribe(self, changed: Callable[[str | None], None]) -> bool:
        return False

    def forget_connections(self) -> None: ...

    def close(self) -> None: ...

    def _pass(self) -> None:
        self.operations += 1
        if self.down:
            raise StoreError("side://: cut")


class Process:
    """A circuit with its side of the store. `look` is what happens each second in a real one."""

    def __init__(self, world: MemoryStore, clock: Clock, policy: Policy = POLICY, **options: Any) -> None:
        self.side = Side(world)
        self.events: list[Any] = []
        self.circuit = CircuitBreaker(
            "remote", policy, clock=clock, store=self.side, listeners=[self.events.append], **options
        )

    def look(self) -> None:
        worker_of(self.side).turn(refresh=True)

    @property
    def state(self) -> State:
        return self.circuit.state

    def fail(self, times: int = 2) -> None:
        for _ in range(times):
            with suppress(OSError, CircuitOpen):
                self.circuit.call(boom)

    def admitted(self) -> Permit | None:
        try:
            return self.circuit.admit()
        except CircuitOpen:
            return None


class Fleet:
    """Processes that share one circuit. The store's clock and theirs are hours apart."""

    def __init__(self, size: int = 3, policy: Policy = POLICY) -> None:
        self.clock, self._store_clock = Clock(), Clock(1_000_000.0)
        self.policy = policy
        self.world = MemoryStore(clock=self._store_clock)
        self.processes = [self.new() for _ in range(size)]

    def __iter__(self) -> Iterator[Process]:
        return iter(self.processes)

    def new(self, policy: Policy | None = None) -> Process:
        """A process that starts now."""
        return Process(self.world, self.clock, policy or self.policy)

    def wait(self, seconds: float) -> None:
        self.clock.now += seconds
        self._store_clock.now += seconds

    def look(self) -> None:
        for process in self.processes:
            process.look()

    def states(self) -> list[str]:
        return [process.state.value for process in self.processes]

    def held(self) -> StoredRecord:
        return self.world.read(["remote"])["remote"]


def boom() -> None:
    raise OSError("down")
