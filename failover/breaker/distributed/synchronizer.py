"""Keeps a circuit and its stored record in step: publishes, adopts, and claims the places of probes.

Each circuit decides by itself and at once. Its decision is published by compare-and-set against the record that it saw
last. If another process was first, the store wins: its record is adopted. Only a probe must be agreed on before it
happens: a call that could be the probe is refused, a place is claimed in the background, and the next call takes it.
While the store does not answer, the circuit decides alone.

Nothing here does I/O in a caller's thread: the store's `StoreWorker` calls `work` and `saw`.
"""

from __future__ import annotations

import json
import secrets
import time
from dataclasses import replace
from typing import Final, Protocol

from failover.breaker.distributed.merge import (
    PublicPart,
    RemotePart,
    adopt,
    adoption_reason,
    claim_probe,
    merge,
    public_part,
    remote_part,
    seconds_to_keep,
    to_shared,
)
from failover.breaker.distributed.record import SharedRecord, UnreadableRecord, decode, encode
from failover.breaker.distributed.worker import logger, worker_of
from failover.breaker.events import reason
from failover.breaker.forks import ForkSafeLock
from failover.breaker.machine import Context, Event, Record, State, step
from failover.breaker.policy import Policy
from failover.breaker.stores.store import Store, StoredRecord

_CLAIM_SECONDS: Final = 1.0  # after which a claim without an answer is decided here
_ATTEMPTS: Final = 5  # races lost in a row after which a publication waits for the next refresh
_NOTHING_STORED: Final = (-1, "")


class Replica(Protocol):
    """What a synchronizer needs of its circuit."""

    @property
    def name(self) -> str: ...

    @property
    def policy(self) -> Policy: ...

    @property
    def lock(self) -> ForkSafeLock:
        """Guards the record, and all that the synchronizer knows."""

    @property
    def record(self) -> Record: ...

    def now(self) -> float:
        """Seconds, by the circuit's clock."""

    def random(self) -> float:
        """0 to 1."""

    def install(self, record: Record, why: str) -> None:
        """Under the lock: replace the record. `why`: the reason of the transition, where it is one."""

    def dispatch(self) -> None:
        """Outside the lock: tell the events of what was installed."""


class CircuitSynchronizer:
    """Between one circuit and its record in `store`."""

    def __init__(self, circuit: Replica, store: Store) -> None:
        self.name = circuit.name
        self._circuit = circuit
        self._store = store
        self._worker = worker_of(store)
        self._forget()
        self._worker.join(self)

    def _forget(self) -> None:
        self._holder = secrets.token_hex(4)
        # What the store held when it was last seen; version None: nothing.
        self._seen = False
        self._version: str | None = None
        self._epoch: str | None = None
        self._remote = RemotePart()
        self._looked_at = 0.0
        # What of the circuit's own record is stored; the epoch of an era; writes whose answer is not known.
        self._published: PublicPart = public_part(self._circuit.record)
        self._era_and_epoch: tuple[int, str] = _NOTHING_STORED
        self._attempted: dict[str, PublicPart] = {}
        self._claimed_at: float | None = None
        self._order: Event | None = None
        self._outage = False
        # Why the circuit decides alone though the store works; "": it does not.
        self._unreadable = ""
        self._refused = ""

    # --- on a caller's thread ---------------------------------------------------------------------------------

    def asks(self) -> bool:
        """Under the lock: whether a probe's place must be claimed. False while the store is of no help."""
        if self._worker.broken or self._unreadable or self._refused or self._place_lapsed():
            return False
        return self._claimed_at is None or time.monotonic() - self._claimed_at < _CLAIM_SECONDS

    def _place_lapsed(self) -> bool:
        """Whether a place was claimed here that lapsed before a call took it, and nobody else has it.

        A call takes it all the same: where calls come less often than the lease there would be no probe otherwise.
        """
        record, store, now = self._circuit.record, self._store, self._circuit.now()
        if not record.reserved or store.is_local or now - self._looked_at > 3 * store.refresh:
            return False
        return all(now >= until for number, until in record.probes if number in record.reserved)

    def claim(self) -> None:
        """A call could be a probe if this process had a place: ask for one."""
        with self._circuit.lock:
            if self._claimed_at is not None:
                return
            self._claimed_at = time.monotonic()
        self._worker.post(self)

    def look(self) -> None:
        """The circuit's record may have changed: publish it where others must know."""
        if public_part(self._circuit.record) != self._published:
            self._outage = self._outage or self._worker.broken
            self._worker.post(self)

    def ordered(self, event: Event) -> None:
        """Under the lock: a change that outlives a race with what another process decides by itself.

        Orders by hand are such changes, and the success of a last resort.
        """
        self._order = event

    def leave(self) -> None:
        """The circuit goes on alone. What is not published yet is published still."""
        self._worker.leave(self)

    # --- on the worker's thread -------------------------------------------------------------------------------

    def work(self) -> bool:
        """Publish what is not published, claim what is asked for.

        Returns:
            False where others were first again and again: try again at the next refresh.

        Raises:
            StoreError: The store did not do it.
        """
        store = self._store
        for _ in range(_ATTEMPTS):
            if not self._seen:
                self.saw(store.read([self.name]).get(self.name))
            with self._circuit.lock:
                base = self._circuit.record
                target = self._target(base)
                if target is None:
                    self._refused = ""
                    return True
                shared, expected, part = self._shared(target, base), self._version, public_part(target)
            body = encode(shared)
            version = store.compare_and_set(self.name, body, expected, seconds_to_keep(shared))
            if version is None:
                self._worker.deliver(self.name, store.read([self.name]).get(self.name))
            else:
                self._won(shared, version, part, target, base)
                self._worker.deliver(self.name, StoredRecord(body, version, 0.0))
        return False

    def _target(self, record: Record) -> Record | None:
        """The record that should be stored: the circuit's own, one with a place more, or None: leave it as it is."""
        if self._unreadable:
            self._claimed_at = self._order = None
            return None
        if public_part(record) != self._published:
            return record
        target = None if self._claimed_at is None else self._with_claim(record)
        if target is None:
            self._claimed_at = None
        return target

    def _with_claim(self, record: Record) -> Record | None:
        circuit = self._circuit
        return claim_probe(record, Context(circuit.policy, circuit.now(), circuit.random))

    def _shared(self, target: Record, base: Record) -> SharedRecord:
        epoch = self._era_and_epoch[1]
        if self._era_and_epoch[0] != target.era:
            epoch = secrets.token_hex(8)
            if target is base:
                self._era_and_epoch = (target.era, epoch)
        remote = self._remote if epoch == self._epoch else RemotePart()
        if epoch != self._epoch:
            self._attempted[epoch] = public_part(target)
        return to_shared(target, epoch, self._holder, remote, self._circuit.now())

    def _won(self, shared: SharedRecord, version: str, part: PublicPart, target: Record, base: Record) -> None:
        circuit = self._circuit
        with circuit.lock:
            if shared.epoch != self._epoch:
                self._remote = RemotePart()
            self._synchronized(shared, version, part)
            self._refused = ""
            if target is not base:
                self._claimed_at = None
            now = circuit.record
            if target is not base and public_part(now) == part:  # the same was decided here, since it took so long
                self._era_and_epoch = (now.era, shared.epoch)
            elif target is not base and now.era == base.era and public_part(now) == public_part(base):
                # The place is ours. Taken once more, since a count that nobody else must know may have gone on.
                placed = self._with_claim(now)
                if placed is not None:
                    self._era_and_epoch = (placed.era, shared.epoch)
                    circuit.install(placed, reason(now, Event.CALL, placed, circuit.policy, ""))
            if public_part(circuit.record) == self._published:
                self._order = None
        circuit.dispatch()

    def _synchronized(self, shared: SharedRecord, version: str, part: PublicPart) -> None:
        self._version, self._epoch, self._published = version, shared.epoch, part
        self._attempted.clear()
        self._outage = False

    def saw(self, stored: StoredRecord | None) -> None:
        """What the store holds now. None: nothing."""
        circuit = self._circuit
        with circuit.lock:
            now = circuit.now()
            if stored is None:
                self._saw_nothing()
            elif not self._seen or self._unreadable or stored.version != self._version:
                self._saw_another(stored, now)
            self._seen = True
            self._looked_at = now
            unpublished = public_part(circuit.record) != self._published
        circuit.dispatch()
        if unpublished and not self._unreadable:
            self._worker.post(self, again=True)

    def looked(self) -> None:
        """The worker has looked at the whole store: what is not delivered has not changed."""
        self._looked_at = self._circuit.now()

    def _saw_nothing(self) -> None:
        self._unreadable = ""
        if self._version is None:
            return
        # The store has lost or forgotten it. What this process knows is all there is, if it is worth telling.
        self._version = self._epoch = None
        self._remote = RemotePart()
        self._era_and_epoch = _NOTHING_STORED
        record = self._circuit.record
        self._published = public_part(record) if record.state is State.CLOSED else PublicPart()

    def _saw_another(self, stored: StoredRecord, now: float) -> None:
        circuit, record = self._circuit, self._circuit.record
        try:
            shared = decode(stored.body)
        except UnreadableRecord as error:
            self._say_alone(self._unreadable, f"what {self._store.url} holds for it is left as it is: {error}")
            self._unreadable = str(error)
            return
        self._unreadable = ""
        # A store that counts in whole seconds may say more than has passed since the last look.
        age = min(stored.age, now - self._looked_at) if self._seen else stored.age
        remote = remote_part(shared, self._holder, age, now, circuit.policy)
        ours = shared.epoch in self._attempted
        if ours:  # though the answer was lost
            self._synchronized(shared, stored.version, self._attempted[shared.epoch])
            if public_part(record) == self._published:
                self._era_and_epoch = (record.era, shared.epoch)
        if self._era_and_epoch == (record.era, shared.epoch):
            record, part = merge(record, shared, remote, self._holder, self._published)
            circuit.install(record, "")
            self._end_by_counts(record, now)
        elif public_part(record) != self._published and (ours or self._insists(shared)):
            # `work` publishes ours over it.
            self._version, self._epoch = stored.version, shared.epoch
            return
        else:
            # A process that starts with a circuit closed as all are has nothing to adopt.
            same = shared.state is record.state is State.CLOSED and (shared.ramp or 0.0) <= age
            if self._seen or not same:
                record = adopt(record, shared, remote, self._holder, age, now, circuit.policy, circuit.random)
                circuit.install(record, adoption_reason(shared))
            self._era_and_epoch, part = (record.era, shared.epoch), public_part(record)
            self._order = None
        self._remote = remote
        self._synchronized(shared, stored.version, part)

    def _end_by_counts(self, record: Record, now: float) -> None:
        """Close or open the circuit where the results of all processes together are enough for it."""
        circuit, policy = self._circuit, self._circuit.policy
        context = Context(policy, now, circuit.random)
        if record.state is not State.CLOSED and record.successes >= policy.successes_to_close:
            if record.by_last_resort:
                self._order = Event.SUCCESS
            circuit.install(step(record, Event.RESET, context).record, "calls here and elsewhere succeeded")
        elif record.state is State.HALF_OPEN and record.failed >= policy.failures_to_reopen:
            opened = step(record, Event.TRIP, context).record
            circuit.install(replace(opened, last_resorts=record.last_resorts), "probes here and elsewhere failed")

    def _insists(self, shared: SharedRecord) -> bool:
        """Whether an unpublished change of ours holds against a record that we did not see before it."""
        if not self._seen:
            return self._order is not None or shared.state is State.CLOSED
        if self._outage:
            return False
        # In the epoch that our probe ended, others may have taken or left a place meanwhile.
        ours = any(place.holder == self._holder for place in shared.places)
        return self._order is not None or (shared.epoch == self._epoch and ours)

    def refused(self, what: str) -> None:
        """The store works, and does not take what this circuit publishes: it decides alone until it does."""
        self._say_alone(self._refused, what)
        with self._circuit.lock:
            self._refused = what
        self.store_failed()

    def _say_alone(self, said: str, what: str) -> None:
        if not said:
            logger.warning("circuit %s decides alone: %s", json.dumps(self.name), what)

    def store_failed(self) -> None:
        """A change that is not published yet now counts only against the version seen last."""
        with self._circuit.lock:
            if public_part(self._circuit.record) != self._published:
                self._outage = True

    def after_fork(self) -> None:
        """In a forked child: places and changes not yet published are the parent's. The store tells the rest."""
        circuit = self._circuit
        with circuit.lock:
            record = circuit.record
            probes = tuple((0, until) for _, until in record.probes)
            circuit.install(replace(record, probes=probes, reserved=(), last_resorts=()), "")
            self._forget()
