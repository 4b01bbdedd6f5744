"""Breakers: one circuit per remote URI, made when it is first requested; policies by the longest URI prefix."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from failover.breaker import checks
from failover.breaker.circuit import CircuitBreaker
from failover.breaker.events import Listener
from failover.breaker.forks import ForkSafeLock
from failover.breaker.machine import State
from failover.breaker.policy import Fallback, Policy
from failover.breaker.uris import itself_and_above, normal

if TYPE_CHECKING:
    from failover.breaker.stores import Store

_SWEEP = 4  # idle circuits looked at in one look-up at most


class Breakers:
    """The circuits of a program, by the URI of what they guard. It may be used from any number of threads.

    `iter(breakers)` yields the existing circuits, and `len(breakers)` is their number. URIs are compared by
    `failover.breaker.uris.normal`: the case of the host, default ports, users, passwords, queries and a trailing slash
    make no difference, and users, passwords and queries are not part of a circuit's name.

    Args:
        policy: For every URI that has no policy of its own.
        store: Where processes share their circuits; see `failover.breaker.stores`.
        fallback: For every circuit whose policy has none.
        listeners: They receive the events of every circuit.
        clock: A monotonic clock, in seconds.
        max_idle: Seconds, or None. A closed circuit that was not requested for this long is dropped, which limits the
            memory used. Tripped circuits are never dropped, and a circuit that is still in use is found again as the
            same object.
    """

    def __init__(
        self,
        policy: Policy = Policy(),  # noqa: B008 (frozen)
        *,
        store: Store | None = None,
        fallback: Fallback | None = None,
        listeners: Iterable[Listener] = (),
        max_idle: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        checks.instance("policy", policy, Policy)
        checks.optional_callable("fallback", fallback)
        checks.is_callable("clock", clock)
        checks.optional_store("store", store)
        if max_idle is not None:
            checks.seconds("max_idle", max_idle)
        self._default = policy
        self._store = store
        self._fallback = fallback
        self._listeners = tuple(listeners)
        for listener in self._listeners:
            checks.is_callable("listeners", listener)
        self._max_idle = max_idle
        self._clock = clock
        self._lock = ForkSafeLock()
        self._policies: dict[str, Policy] = {}
        self._isolated: dict[str, bool] = {}  # by order; the nearest to a URI holds
        self._circuits: OrderedDict[str, CircuitBreaker] = OrderedDict()
        self._asked: dict[str, float] = {}
        self._dropped: WeakValueDictionary[str, CircuitBreaker] = WeakValueDictionary()

    def __len__(self) -> int:
        return len(self._circuits)

    def __iter__(self) -> Iterator[CircuitBreaker]:
        with self._lock:
            return iter(list(self._circuits.values()))

    def __reduce__(self) -> Any:
        raise TypeError("circuits can be neither copied nor pickled: make Breakers in the other process")

    def policy(self, uri: str, policy: Policy) -> None:
        """Use `policy` for circuits made from now on for `uri` and everything below it.

        If a longer prefix has another policy, that is used. Existing circuits keep their policy. `ValueError` if `uri`
        is not a URI, or `policy` not a policy.
        """
        checks.instance("policy", policy, Policy)
        with self._lock:
            self._policies[normal(uri)] = policy

    def on(self, uri: str) -> CircuitBreaker:
        """The circuit for `uri`. `ValueError` if it is not a URI."""
        found = self._circuits.get(uri)
        if found is not None and self._max_idle is None:
            return found
        name = uri if found is not None else normal(uri)
        if self._max_idle is None and (found := self._circuits.get(name)) is not None:
            return found
        with self._lock:
            circuit = self._circuits.get(name)
            if circuit is None:
                circuit = self._circuits[name] = self._dropped.get(name) or self._make(name)
            if self._max_idle is not None:
                self._asked[name] = self._clock()
                self._circuits.move_to_end(name)
                self._drop_idle(self._max_idle)
            return circuit

    def close(self) -> None:
        """Stop sharing the circuits. The store's threads and connections end, unless other circuits use them.

        Changes that are not yet in the store are written first, for which this waits at most 1.5 s. The circuits
        continue without the store.
        """
        with self._lock:
            self._store = None
            circuits = [*self._circuits.values(), *self._dropped.values()]
        for circuit in circuits:
            circuit.leave_store()

    def trip(self, uri: str) -> None:
        """Trip the existing circuits for `uri` and everything below it. `ValueError` if it is not a URI."""
        for circuit in self._below(normal(uri)):
            circuit.trip()

    def isolate(self, uri: str) -> None:
        """Isolate the circuits for `uri` and everything below it, including those made later, until `reset`.

        `ValueError` if it is not a URI.
        """
        self._order(normal(uri), isolated=True)
        for circuit in self._below(normal(uri)):
            circuit.isolate()

    def reset(self, uri: str) -> None:
        """Reset the circuits for `uri` and everything below it. `ValueError` if it is not a URI."""
        self._order(normal(uri), isolated=False)
        for circuit in self._below(normal(uri)):
            circuit.reset()

    def _order(self, name: str, *, isolated: bool) -> None:
        with self._lock:
            kept = {each: order for each, order in self._isolated.items() if name not in itself_and_above(each)}
            above = next((kept[each] for each in itself_and_above(name) if each in kept), False)
            self._isolated = kept if above == isolated else {**kept, name: isolated}

    def _below(self, name: str) -> list[CircuitBreaker]:
        with self._lock:
            known = {**self._dropped, **self._circuits}
        return [circuit for each, circuit in known.items() if name in itself_and_above(each)]

    def snapshot(self) -> dict[str, dict[str, Any]]:
        """The snapshot of each circuit, by its name. It can be written as JSON."""
        with self._lock:
            circuits = list(self._circuits.items())
        return {name: circuit.snapshot() for name, circuit in circuits}

    def _make(self, name: str) -> CircuitBreaker:
        found = (self._policies[each] for each in itself_and_above(name) if each in self._policies)
        policy = next(found, self._default)
        fallback = None if policy.fallback is not None else self._fallback
        circuit = CircuitBreaker(
            name, policy, clock=self._clock, listeners=self._listeners, fallback=fallback, store=self._store
        )
        if next((self._isolated[each] for each in itself_and_above(name) if each in self._isolated), False):
            circuit.isolate()
        return circuit

    def _drop_idle(self, max_idle: float) -> None:
        """Look at the few that were not asked for the longest."""
        now = self._clock()
        for _ in range(min(_SWEEP, len(self._circuits))):
            name, circuit = next(iter(self._circuits.items()))
            if now - self._asked[name] < max_idle:
                return
            if circuit.state is State.CLOSED:
                del self._circuits[name], self._asked[name]
                self._dropped[name] = circuit
            else:
                self._circuits.move_to_end(name)
                self._asked[name] = now
