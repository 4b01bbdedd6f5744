"""One circuit's part in a fleet: what it publishes, what it adopts, and how it claims a probe's place.

All circuits of one name and store are one circuit. Each decides by itself, at once; what it decided is published by
compare-and-swap against the record that it saw last. Where another process was first, the store wins: its record is
adopted. What must be agreed before it happens is the probe: a call that could be one is turned away, a place is
claimed in the background, and the next call takes it. While the store does not answer, the circuit does all this alone.

Nothing here does I/O on a caller's thread: `Exchange` calls `work` and `saw`.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import replace
from typing import Final, Protocol

from failover.breaker.events import reason
from failover.breaker.exchange import exchange_of, logger
from failover.breaker.forks import ForkSafeLock
from failover.breaker.machine import Context, Event, Record, State, step
from failover.breaker.policy import Policy
from failover.breaker.stores.store import Held, Store
from failover.breaker.translate import (
    Foreign,
    Key,
    adopted,
    change,
    foreign_of,
    keep,
    key_of_record,
    merged,
    with_place,
    write_down,
)
from failover.breaker.written import Garbage, Written, decode, encode

_PATIENCE: Final = 1.0  # seconds after which a claim without an answer is decided here
_ATTEMPTS: Final = 5  # races lost in a row after which a publish waits for the next look
_NO_TOKEN: Final = (-1, "")


class Replica(Protocol):
    """What is needed of a circuit. Its record is read and installed under its lock."""

    @property
    def name(self) -> str: ...

    @property
    def policy(self) -> Policy: ...

    @property
    def lock(self) -> ForkSafeLock: ...

    @property
    def record(self) -> Record: ...

    def now(self) -> float: ...

    def random(self) -> float: ...

    def install(self, record: Record, why: str) -> None: ...

    def dispatch(self) -> None: ...


class Link:
    """Between `circuit` and its record in `store`. What it knows is guarded by the circuit's lock."""

    def __init__(self, circuit: Replica, store: Store) -> None:
        self.name = circuit.name
        self._circuit = circuit
        self._exchange = exchange_of(store)
        self._garbage = False
        self._know_nothing()
        self._exchange.join(self)

    def _know_nothing(self) -> None:
        self._holder = secrets.token_hex(4)
        # What the store held when it was last seen; version None: nothing.
        self._seen = False
        self._version: str | None = None
        self._epoch: str | None = None
        self._foreign: tuple[Foreign, ...] = ()
        self._looked_at = 0.0
        # What of the circuit's own record is in the store; the epoch of an era; writes whose answer is not known.
        self._key: Key = key_of_record(self._circuit.record)
        self._token: tuple[int, str] = _NO_TOKEN
        self._attempted: dict[str, Key] = {}
        self._claimed_at: float | None = None
        self._order: Event | None = None
        self._outage = False

    # --- on a caller's thread ---------------------------------------------------------------------------------

    def asks(self) -> bool:
        """Under the lock: whether a probe's place must be claimed; False while the store is of no help."""
        if self._exchange.broken or self._garbage or self._place_lapsed():
            return False
        return self._claimed_at is None or time.monotonic() - self._claimed_at < _PATIENCE

    def _place_lapsed(self) -> bool:
        """Whether a place was claimed here that lapsed before a call took it, and nobody else has it.

        A call takes it all the same: one whose callers come less often than the lease would never probe otherwise.
        """
        record, store, now = self._circuit.record, self._exchange.store, self._circuit.now()
        if not record.reserved or store.instant or now - self._looked_at > 3 * store.refresh:
            return False
        return all(now >= until for number, until in record.probes if number in record.reserved)

    def claim(self) -> None:
        """A call could be a probe if this process had a place: ask for one."""
        with self._circuit.lock:
            if self._claimed_at is not None:
                return
            self._claimed_at = time.monotonic()
        self._exchange.post(self)

    def look(self) -> None:
        """The circuit's record may have changed: publish it where others must know."""
        if key_of_record(self._circuit.record) != self._key:
            self._outage = self._outage or self._exchange.broken
            self._exchange.post(self)

    def ordered(self, event: Event) -> None:
        """Under the lock: an order by hand. It outlives a race with what another process decides by itself."""
        self._order = event

    # --- on the exchange's thread -----------------------------------------------------------------------------

    def work(self) -> None:
        """Publish what is not published, claim what is asked for. Raises `StoreError`."""
        store = self._exchange.store
        for _ in range(_ATTEMPTS):
            if not self._seen:
                self.saw(store.read([self.name]).get(self.name))
            with self._circuit.lock:
                base = self._circuit.record
                target = self._wanted(base)
                if target is None:
                    return
                written, expected, key = self._write(target, base), self._version, key_of_record(target)
            body = encode(written)
            version = store.swap(self.name, body, expected, keep(written))
            if version is None:
                self._exchange.deliver(self.name, store.read([self.name]).get(self.name))
            else:
                self._won(written, version, key, target, base)
                self._exchange.deliver(self.name, Held(body, version, 0.0))

    def _wanted(self, record: Record) -> Record | None:
        """The record that the store should hold: the circuit's own, one with a place more, or None: as it is."""
        if self._garbage:
            self._claimed_at = self._order = None
            return None
        if key_of_record(record) != self._key:
            return record
        target = None if self._claimed_at is None else self._with_place(record)
        if target is None:
            self._claimed_at = None
        return target

    def _with_place(self, record: Record) -> Record | None:
        circuit = self._circuit
        return with_place(record, Context(circuit.policy, circuit.now(), circuit.random))

    def _write(self, target: Record, base: Record) -> Written:
        epoch = self._token[1]
        if self._token[0] != target.era:
            epoch = secrets.token_hex(8)
            if target is base:
                self._token = (target.era, epoch)
        foreign = self._foreign if epoch == self._epoch else ()
        if epoch != self._epoch:
            self._attempted[epoch] = key_of_record(target)
        return write_down(target, epoch, self._holder, foreign, self._circuit.now())

    def _won(self, written: Written, version: str, key: Key, target: Record, base: Record) -> None:
        circuit = self._circuit
        with circuit.lock:
            if written.epoch != self._epoch:
                self._foreign = ()
            self._synced(written, version, key)
            if target is not base:
                self._claimed_at = None
            now = circuit.record
            if target is not base and key_of_record(now) == key:  # the same was decided here, since it took so long
                self._token = (now.era, written.epoch)
            elif target is not base and now.era == base.era and key_of_record(now) == key_of_record(base):
                # The place is ours. Taken once more, since a count that nobody else must know may have gone on.
                placed = self._with_place(now)
                if placed is not None:
                    self._token = (placed.era, written.epoch)
                    circuit.install(placed, reason(now, Event.CALL, placed, circuit.policy, ""))
            if key_of_record(circuit.record) == self._key:
                self._order = None
        circuit.dispatch()

    def _synced(self, written: Written, version: str, key: Key) -> None:
        self._version, self._epoch, self._key = version, written.epoch, key
        self._attempted.clear()
        self._outage = False

    def saw(self, held: Held | None) -> None:
        """What the store holds now."""
        circuit = self._circuit
        with circuit.lock:
            now = circuit.now()
            if held is None:
                self._saw_nothing()
            elif not self._seen or self._garbage or held.version != self._version:
                self._saw_another(held, now)
            self._seen = True
            self._looked_at = now
            unpublished = key_of_record(circuit.record) != self._key
        circuit.dispatch()
        if unpublished and not self._garbage:
            self._exchange.post(self)

    def _saw_nothing(self) -> None:
        self._garbage = False
        if self._version is None:
            return
        # The store has lost or forgotten it. What this process knows is all there is, if it is worth telling.
        self._version = self._epoch = None
        self._foreign = ()
        self._token = _NO_TOKEN
        record = self._circuit.record
        self._key = key_of_record(record) if record.state is State.CLOSED else (-1, frozenset(), 0)

    def _saw_another(self, held: Held, now: float) -> None:
        circuit, record = self._circuit, self._circuit.record
        try:
            written = decode(held.body)
        except Garbage as garbage:
            if not self._garbage:
                where = self._exchange.store.url
                text = "circuit %s decides alone: what %s holds for it is left as it is: %s"
                logger.warning(text, json.dumps(circuit.name), where, garbage)
            self._garbage = True
            return
        self._garbage = False
        # A store that counts in whole seconds may say more than has passed since the last look.
        age = min(held.age, now - self._looked_at) if self._seen else held.age
        foreign = foreign_of(written, self._holder, age, now, circuit.policy)
        ours = written.epoch in self._attempted
        if ours:  # though the answer was lost
            self._synced(written, held.version, self._attempted[written.epoch])
            if key_of_record(record) == self._key:
                self._token = (record.era, written.epoch)
        if self._token == (record.era, written.epoch):
            record, key = merged(record, written, foreign, self._holder, self._key)
            circuit.install(record, "")
            if record.state is State.HALF_OPEN and record.successes >= circuit.policy.successes_to_close:
                over = step(record, Event.RESET, Context(circuit.policy, now, circuit.random)).record
                circuit.install(over, "probes here and elsewhere succeeded")
        elif key_of_record(record) != self._key and (ours or self._insists(written)):
            # Published over it, by `work`.
            self._version, self._epoch = held.version, written.epoch
            return
        else:
            # A process that starts with a circuit closed as all are has nothing to adopt.
            calm = written.state is record.state is State.CLOSED and (written.ramp or 0.0) <= age
            if self._seen or not calm:
                record = adopted(record, written, foreign, age, now, circuit.policy, circuit.random)
                circuit.install(record, change(written))
            self._token, key = (record.era, written.epoch), key_of_record(record)
            self._order = None
        self._foreign = foreign
        self._synced(written, held.version, key)

    def _insists(self, written: Written) -> bool:
        """Whether an unpublished change of ours holds against a record that we did not see before it."""
        if not self._seen:
            return self._order is not None or written.state is State.CLOSED
        if self._outage:
            return False
        # In the epoch that our probe ended, others may have taken or left a place meanwhile.
        ours = any(place.holder == self._holder for place in written.places)
        return self._order is not None or (written.epoch == self._epoch and ours)

    def store_failed(self) -> None:
        """A change that is not published yet now counts only against the version seen last."""
        with self._circuit.lock:
            if key_of_record(self._circuit.record) != self._key:
                self._outage = True

    def after_fork(self) -> None:
        """In the child: places and changes not yet published are the parent's; the store tells the rest."""
        circuit = self._circuit
        with circuit.lock:
            record = circuit.record
            circuit.install(replace(record, probes=tuple((0, until) for _, until in record.probes), reserved=()), "")
            self._know_nothing()
