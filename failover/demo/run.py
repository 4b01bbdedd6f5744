"""A run of the demonstration: upload a blob, wait for its replica, read it again and again, clean up; all as events."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import urlsplit

from azure.core.exceptions import AzureError, ResourceNotFoundError, ServiceRequestError
from azure.storage.blob import BlobClient, BlobServiceClient

from failover.breaker import CircuitBreaker, Transition
from failover.breaker.failures import FAILURE_STATUSES
from failover.breaker.stores import Store
from failover.demo import events as ev
from failover.demo.account import Account, BadSettings
from failover.demo.cleanup import new_container_name, send_heartbeats
from failover.demo.client import check_redundancy, explain
from failover.demo.config import RunConfig
from failover.demo.faults import Fault, FaultTransport
from failover.storage.causes import is_endpoint_failure
from failover.storage.events import GeoEvent, ReadEnded, Retry
from failover.storage.geo import GeoFailover

BLOB: Final = "HelloWorld"
CONTENT: Final = b"Hello, World!"

_CHECK_SECONDARY_EVERY: Final = 2.0  # seconds
_FIRST_POLL, _LONGEST_POLL = 0.25, 2.0  # seconds between two requests for the replica
_LONGEST_WAIT: Final = 0.2  # seconds of one wait: on Windows Ctrl-C is handled only when a wait ends


class Demo:
    """One run. `pause`, `resume`, `toggle_fault` and `quit` are for keys, and may be called from any thread.

    Args:
        config: What the user asked for.
        account: Where the blob goes.
        faults: The transport that injects the fault; both clients that `run` gets must use it.
        emit: Called with each event, from the thread of `run` and from the one that checks the secondary, never from
            both at once.
        attended: Whether somebody is there to end a pause. If not, the run makes none.
        store: Where the circuits agree with those of other processes, or None.
        shared_name: What names the circuits of a stand-in account in the store, where others use that too.

    Attributes:
        policy: The retry policy of the client that reads.
        setup_policy: The retry policy of the client that prepares and cleans up. Its circuits are its own, so that
            the preparations do not count as reads.
    """

    def __init__(
        self,
        config: RunConfig,
        account: Account,
        faults: FaultTransport,
        emit: Callable[[ev.Event], None],
        *,
        attended: bool,
        store: Store | None = None,
        shared_name: str = "",
    ) -> None:
        self._config = config
        self._account = account
        self._shared = store is not None
        self._faults = faults
        self._emit_event = emit
        faults.on_change = self._on_fault_changed
        self._attended = attended
        self._started_at = time.monotonic()
        self._emit_lock = threading.RLock()
        self._wake = threading.Condition(threading.RLock())
        self._paused = self._pausing = self._quitting = False
        self._check_now = threading.Event()
        self._finished = threading.Event()
        self._container = new_container_name()
        self._may_exist = False
        self._n = 0
        self._geo_events: list[GeoEvent] = []
        self._counts = {ev.PRIMARY: 0, ev.SECONDARY: 0, None: 0}
        # In a store, circuits of one name are one: they must guard one account.
        base = f"stand-in://{shared_name}" if account.stand_in else account.primary
        self._endpoints = {f"{base}#{each}": each for each in (ev.PRIMARY, ev.SECONDARY)}
        primary, secondary = (CircuitBreaker(name, config.policy(), store=store) for name in self._endpoints)
        self.policy = GeoFailover(
            primary,
            secondary,
            retry=None,  # a read that fails is to be seen
            primary_attempts=None,
            attempt_timeout=config.timeout,
            hedge_after=config.hedge,
            hedge_budget=1.0,  # each is to be seen
            listeners=[self._on_geo_event],
        )
        self.setup_policy = GeoFailover(retry=None, attempt_timeout=max(config.timeout, 5.0))

    # --- for keys ---------------------------------------------------------------------------------------------

    @property
    def paused(self) -> bool:
        """Whether the run is waiting for `resume`."""
        return self._paused

    def pause(self) -> None:
        """Stop before the next read, until `resume`."""
        with self._wake:
            self._pausing = True

    def resume(self) -> None:
        """End a pause, or forget that one was asked for."""
        with self._wake:
            self._paused = self._pausing = False
            self._wake.notify_all()

    def toggle_fault(self) -> None:
        """Switch the fault on or off. A paused run stays paused."""
        self._switch_fault(not self._faults.on)

    def quit(self) -> None:
        """End the run before the next read, and clean up."""
        with self._wake:
            self._quitting = True
            self._wake.notify_all()

    # --- the run ----------------------------------------------------------------------------------------------

    def run(self, setup: BlobServiceClient, service: BlobServiceClient) -> bool:
        """Upload, wait for the replica, read, and clean up.

        The container is deleted whatever happens. If it cannot be deleted, the event `CleanedUp` says so.

        Args:
            setup: A client whose retry policy is `setup_policy`.
            service: A client whose retry policy is `policy`.

        Returns:
            Whether every read was answered.

        Raises:
            BadSettings: The run ended before its first read.
        """
        self._emit(ev.Started, **self.started_fields())
        note = None if self._account.stand_in else self._preflight(setup)
        if note is not None:
            self._emit(ev.Noted, text=note)
        watch = threading.Thread(target=self._watch_secondary, name="last-sync", daemon=True)
        try:
            blob = self._upload(setup)
            if self._wait_for_replica(blob):
                watch.start()
                self._read_all(service.get_blob_client(self._container, BLOB))
                self._finished.set()  # later news of the secondary are no part of the run
                self._emit(
                    ev.Finished,
                    reads=self._n,
                    primary=self._counts[ev.PRIMARY],
                    secondary=self._counts[ev.SECONDARY],
                    failed=self._counts[None],
                )
        finally:
            try:
                self._finished.set()
                self._check_now.set()
            finally:
                self._clean_up(setup)
        return self._counts[None] == 0

    def started_fields(self) -> dict[str, Any]:
        """Return the fields of the event `Started`, without any secret."""
        config = self._config
        return {
            "account": str(self._account),
            "stand_in": self._account.stand_in,
            "requests": config.requests,
            "pause_every": config.pause_every if self._attended else 0,
            "rate": config.rate,
            "retry_threshold": config.retry_threshold,
            "secondary_threshold": config.secondary_threshold if config.cooldown is None else None,
            "cooldown": config.cooldown,
            "fault": config.fault.value,
            "shared": self._shared,
            "hedge": self._config.hedge,
            "timeout": self._config.timeout,
            "proxy": None if config.proxy is None else _without_password(config.proxy),
        }

    def _preflight(self, setup: BlobServiceClient) -> str | None:
        return check_redundancy(setup, self._account, timeout=max(self._config.timeout, 5.0))

    def _upload(self, setup: BlobServiceClient) -> BlobClient:
        container = setup.get_container_client(self._container)
        try:
            self._may_exist = True
            try:
                container.create_container(retry_total=0)
            except AzureError as error:
                self._may_exist = not _was_refused(error)
                raise
            blob = container.upload_blob(BLOB, CONTENT, retry_total=0)
        except AzureError as error:
            why = explain(error, self._account)
            if is_endpoint_failure(error) or getattr(error, "status_code", None) in FAILURE_STATUSES:
                why += " The demonstration begins with an upload, which only the primary takes: is it up?"
            raise BadSettings(f"The upload to the {self._account} failed: {why}") from None
        if not self._account.stand_in:  # whose containers end with the run
            threading.Thread(
                target=send_heartbeats, args=(container, self._finished), name="heartbeat", daemon=True
            ).start()
        account = "stand-in" if self._account.stand_in else self._account.name
        self._emit(ev.Uploaded, container=self._container, blob=BLOB, bytes=len(CONTENT), account=account)
        return blob

    def _wait_for_replica(self, blob: BlobClient) -> bool:
        """Return True when the secondary has the blob, False when the user quits first."""
        began, attempts, pause, limit = time.monotonic(), 0, _FIRST_POLL, self._config.replica_wait
        while True:
            attempts += 1
            try:
                blob.get_blob_properties(use_location=ev.SECONDARY)
            except AzureError as error:
                last = (
                    "it is not there yet" if isinstance(error, ResourceNotFoundError) else explain(error, self._account)
                )
            else:
                self._emit(ev.Replicated, seconds=time.monotonic() - began, attempts=attempts)
                return True
            waited = time.monotonic() - began
            if waited >= limit:
                raise BadSettings(
                    f"The blob did not reach the secondary within {limit:g} s ({last.rstrip('.')}). Geo-replication "
                    "may be behind: try again later, or wait longer with FAILOVER_REPLICA_WAIT_SECONDS."
                )
            self._emit(ev.Waiting, seconds=waited, limit=limit, attempts=attempts)
            if not self._wait(min(pause, limit - waited)):
                return False
            pause = min(1.5 * pause, _LONGEST_POLL)

    def _read_all(self, blob: BlobClient) -> None:
        config, failing = self._config, False
        interval = 1 / config.rate if config.rate else 0.0
        for n in range(1, config.requests + 1) if config.requests else itertools.count(1):
            if self._quitting:
                return
            if config.fails(n) is not failing:
                failing = not failing
                self._switch_fault(failing)
            self._n = n
            began = time.monotonic()
            self._read(blob)
            if self._should_pause(n):
                self._pause(n)
            if interval and n != config.requests and not self._wait(began + interval - time.monotonic()):
                return

    def _read(self, blob: BlobClient) -> None:
        self._geo_events.clear()
        error = None
        began = time.perf_counter()
        try:
            if blob.download_blob().readall() != CONTENT:
                error = "the bytes are not those that were uploaded"
        except AzureError as failure:
            error = explain(failure, self._account).rstrip(".")
        ms = (time.perf_counter() - began) * 1000
        ended = [each for each in self._geo_events if isinstance(each, ReadEnded)]
        endpoint = ended[-1].endpoint if ended and error is None else None
        hedged = any(each.hedged for each in ended)
        tried = (
            hedged
            or endpoint == ev.PRIMARY
            or any(isinstance(e, Retry) and e.endpoint == ev.PRIMARY for e in self._geo_events)
        )
        self._counts[endpoint] += 1
        circuit = self.policy.primary.snapshot()
        self._emit(
            ev.Read,
            n=self._n,
            endpoint=endpoint,
            state=circuit["state"],
            ok=error is None,
            ms=ms,
            attempts=sum(each.attempts for each in ended),
            error=error,
            failures=circuit["failures"],
            reads_left=circuit["calls_left"],
            seconds_left=circuit["retry_after"],
            tried_primary=tried,
            hedged=hedged,
        )

    def _should_pause(self, n: int) -> bool:
        if not self._attended or self._quitting or n == self._config.requests:
            return False
        return self._pausing or (self._config.pause_every > 0 and n % self._config.pause_every == 0)

    def _pause(self, n: int) -> None:
        with self._wake:
            asked, self._pausing, self._paused = self._pausing, False, True
        self._emit(ev.Paused, n=n, asked=asked)
        with self._wake:
            while self._paused and not self._quitting:
                self._wake.wait(_LONGEST_WAIT)
            self._paused = False
        if not self._quitting:
            self._emit(ev.Resumed, n=n)

    def _clean_up(self, setup: BlobServiceClient) -> None:
        if not self._may_exist:
            return
        error: str | None = "interrupted"
        try:
            if self._faults.on and self._faults.kind is Fault.DOWN:  # the others do not touch what is deleted now
                self._faults.switch(on=False)
            error = self._delete_container(setup)
        finally:
            self._emit(ev.CleanedUp, container=self._container, error=error)

    def _delete_container(self, setup: BlobServiceClient) -> str | None:
        """Delete the run's container. Returns None when it is gone, else why it may not be."""
        try:
            setup.delete_container(self._container, retry_total=0)
        except ResourceNotFoundError:
            return None
        except AzureError as error:
            return explain(error, self._account)
        return None

    # --- parts ------------------------------------------------------------------------------------------------

    def _emit(self, kind: type[ev.Event], /, **fields: Any) -> None:
        with self._emit_lock:  # time and emit in one step, or the events of two threads could change places
            self._emit_event(kind(t=time.monotonic() - self._started_at, **fields))

    def _on_geo_event(self, event: GeoEvent) -> None:
        self._geo_events.append(event)
        if isinstance(event, Retry) and event.endpoint == ev.PRIMARY:
            about = {"failures": event.failures, "threshold": event.threshold, "error": event.error}
            self._emit(ev.Retried, n=self._n, **about)
        elif isinstance(event, Transition):
            old, new = event.old.value, event.new.value
            circuit = self._endpoints[event.name]
            self._emit(ev.Transitioned, n=self._n, circuit=circuit, old=old, new=new, reason=event.reason)
            if new == ev.OPEN:
                self._check_now.set()

    def _on_fault_changed(self, kind: Fault, on: bool) -> None:
        self._emit(ev.FaultSwitched, kind=kind.value, on=on, by_another=True)

    def _switch_fault(self, on: bool) -> None:
        self._faults.switch(on)
        self._emit(ev.FaultSwitched, kind=self._faults.kind.value, on=self._faults.on)

    def _wait(self, seconds: float) -> bool:
        """Let `seconds` pass. Returns False where the user quits meanwhile."""
        until = time.monotonic() + seconds
        with self._wake:
            while not self._quitting and (left := until - time.monotonic()) > 0:
                self._wake.wait(min(left, _LONGEST_WAIT))
            return not self._quitting

    def _watch_secondary(self) -> None:
        """Check the secondary every two seconds, and at once when a circuit opens, until the reads are finished.

        In a pause only a change is news.
        """
        reachable: bool | None = None
        while not self._finished.is_set():
            try:
                seen = self._check_secondary()
            except Exception:
                if self._finished.is_set():  # and the transport was closed before this thread saw it
                    return
                raise
            with self._emit_lock:
                if not (self._finished.is_set() or (self._paused and seen["reachable"] is reachable)):
                    self._emit(ev.SecondarySeen, **seen)
            reachable = seen["reachable"]
            self._check_now.wait(_CHECK_SECONDARY_EVERY)
            self._check_now.clear()

    def _check_secondary(self) -> dict[str, Any]:
        try:
            age = self.setup_policy.staleness()
        except AzureError as error:
            return {"reachable": False, "staleness": None, "error": explain(error, self._account).rstrip(".")}
        return {"reachable": True, "staleness": age if math.isfinite(age) else None}


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _was_refused(error: AzureError) -> bool:
    """Return whether the request certainly did nothing: it never arrived, or the service refused it."""
    status = getattr(error, "status_code", None) or 0
    return isinstance(error, ServiceRequestError) or 400 <= status < 500
