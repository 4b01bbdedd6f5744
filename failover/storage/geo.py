"""GeoFailover: a retry policy for the SDK that keeps reads working when the primary fails."""

from __future__ import annotations

import contextlib
import copy
import inspect
import logging
import math
import time
import weakref
from abc import ABCMeta
from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any, ClassVar, Final

from azure.core.exceptions import AzureError
from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import AsyncHTTPPolicy, HTTPPolicy
from azure.storage.blob import ExponentialRetry
from azure.storage.blob.aio import ExponentialRetry as AsyncExponentialRetry

from failover.breaker import BreakerEvent, CircuitBreaker, ConsecutiveFailures, Cooldown, Permit, Policy, Transition
from failover.breaker.forks import ForkSafeLock
from failover.breaker.stores import arguments_of, open_store
from failover.storage import _sdk
from failover.storage.answers import headers_of
from failover.storage.attempt import AsyncProbe, Attempt, NoPlace, Probe
from failover.storage.body import AsyncBody, Body, SyncBody
from failover.storage.endpoints import PRIMARY, SECONDARY, Endpoints, Finder, Target, changes_something, page_token
from failover.storage.events import GeoEvent, Listener
from failover.storage.hedging import After, Hedging, ThreadRace, check_after, task_race
from failover.storage.read import MOST_ATTEMPTS, GiveUp, Read, ReadContext
from failover.storage.runtime import AsyncIO, SyncIO, run_sync
from failover.storage.session import Session, Tracked
from failover.storage.staleness import LastSync, Seen

__all__ = ["PRODUCTION", "AsyncGeoFailover", "GeoFailover"]

_logger = logging.getLogger("failover.storage")
_logger.addHandler(logging.NullHandler())

PRODUCTION: Final = Policy(trip=ConsecutiveFailures(5), recovery=Cooldown(30.0, factor=2.0, maximum=300.0, jitter=0.1))
"""The default for both circuits: open after 5 failures in a row, probe after 30 s, 60 s, ... 300 s."""

_warned: Final[weakref.WeakSet[CircuitBreaker]] = weakref.WeakSet()  # of an account without a known secondary
_MOST_PAGES: Final = 1000  # of listings that are under way
HEDGE_OPTION: Final = "failover_hedge"
"""Of the SDK's calls: `hedge_after` for that call alone."""

_READ: Final = "failover_read"  # where the context of a request holds its `Read`
_PREFER: Final = "failover_prefer"  # option of a call
_EVENTUAL: Final = "eventual"
_SESSION: Final = "session"


class _Default(Enum):  # whose members pickle as themselves
    RETRY = "ExponentialRetry()"

    def __repr__(self) -> str:
        return self.value


class _PolicyType(ABCMeta):
    """The type of the policies. azure-core also accepts a class as a policy, and would then set `next` on the class."""

    def __setattr__(cls, name: str, value: Any) -> None:
        if name == "next":
            raise TypeError(f"retry_policy={cls.__name__} is a class: give a policy, retry_policy={cls.__name__}()")
        super().__setattr__(name, value)


class _Attempts(HTTPPolicy[Any, Any]):
    """What the SDK's retry repeats: one failover attempt of a read, or an unchanged write."""

    def send(self, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
        return run_sync(_attempt(SyncIO(), self.next, request))


class _AsyncAttempts(AsyncHTTPPolicy[Any, Any]):
    async def send(self, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
        return await _attempt(AsyncIO(), self.next, request)


async def _attempt(io: SyncIO | AsyncIO, policy: Any, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
    read: Read | None = request.context.get(_READ)
    try:
        return await (io.send(policy, request) if read is None else read.failover_attempt())
    except AzureError as error:
        if type(error).__name__ == "AzureSigningError":
            # The SDK's retry knows that of its own package, and would send that of another one again.
            raise GiveUp from error
        raise


class _GeoPolicy:
    """What `GeoFailover` and `AsyncGeoFailover` share: everything except how they wait."""

    _other_kind: ClassVar[type[Any]]
    """Of what kind the rest of the pipeline is where it is the other kind of client's."""
    _body: ClassVar[type[Body]]
    _make_io: ClassVar[type[SyncIO | AsyncIO]]
    _make_probe: ClassVar[type[Any]]
    _make_attempts: ClassVar[type[Any]]
    _make_retry: ClassVar[type[Any]]
    _make_race: ClassVar[Any]

    def __init__(
        self,
        primary: CircuitBreaker | None = None,
        secondary: CircuitBreaker | None = None,
        *,
        policy: Policy | None = None,
        retry: Any = _Default.RETRY,
        primary_attempts: int | None = 2,
        backoff: float = 0.0,
        attempt_timeout: float = 5.0,
        max_staleness: float | None = None,
        secondary_endpoint: str | None = None,
        hedge_after: After = None,
        hedge_budget: float = 0.1,
        prefer: str = PRIMARY,
        consistency: str = _EVENTUAL,
        listeners: Iterable[Listener] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        for name, circuit in ((PRIMARY, primary), (SECONDARY, secondary)):
            if circuit is not None and not isinstance(circuit, CircuitBreaker):
                raise ValueError(f"{name} must be a CircuitBreaker, or None, not {circuit!r}")
        if policy is not None and not isinstance(policy, Policy):
            raise ValueError(f"policy must be a Policy, or None, not {policy!r}")
        if primary is not None and primary is secondary:
            raise ValueError("primary and secondary must be two circuits: one endpoint's failures are not the other's")
        if primary is not None and secondary is not None and policy is not None:
            raise ValueError("policy has no circuit to apply to where both are given")
        if primary_attempts is not None and (type(primary_attempts) is not int or primary_attempts < 1):
            raise ValueError(f"primary_attempts must be an integer from 1, or None, not {primary_attempts!r}")
        _check_seconds("backoff", backoff, zero=True)
        _check_seconds("attempt_timeout", attempt_timeout)
        if max_staleness is not None:
            _check_seconds("max_staleness", max_staleness)
        _check_choice("prefer", prefer, (PRIMARY, SECONDARY))
        _check_choice("consistency", consistency, (_EVENTUAL, _SESSION))
        self._settings: dict[str, Any] = {
            "policy": policy,
            "retry": retry,
            "primary_attempts": primary_attempts,
            "backoff": backoff,
            "attempt_timeout": attempt_timeout,
            "max_staleness": max_staleness,
            "secondary_endpoint": secondary_endpoint,
            "hedge_after": hedge_after,
            "hedge_budget": hedge_budget,
            "prefer": prefer,
            "consistency": consistency,
            "listeners": _checked_listeners(listeners),
            "clock": clock,
        }
        self.listeners: tuple[Listener, ...] = self._settings["listeners"]
        self._hedging = Hedging(hedge_after, hedge_budget)
        self._after: Any = None
        self._before_probe: Any = None
        self._insertion = object()
        self._probe = self._make_probe()
        self._attempts = self._make_attempts()
        self._clients_retry: Any = None
        self._set_retry(retry)
        self.secondary_endpoint = secondary_endpoint
        self._finder = Finder(secondary_endpoint)
        self._unnamed = [location for location, given in ((PRIMARY, primary), (SECONDARY, secondary)) if given is None]
        self.primary = primary or CircuitBreaker(PRIMARY, policy or PRODUCTION, clock=clock)
        self.secondary = secondary or CircuitBreaker(SECONDARY, policy or PRODUCTION, clock=clock)
        self._abandoned: deque[Permit | NoPlace] = deque()
        self._pages: dict[str, None] = {}  # the tokens that the secondary has given for later ones, the oldest first
        self._seen: Seen | None = None
        self._io = self._make_io()
        self._last_sync = LastSync(self._io, max_staleness, attempt_timeout, clock)
        self._session = Session() if consistency == _SESSION else None
        self._shared: ReadContext | None = None
        if self.listeners:
            for circuit in (self.primary, self.secondary):
                _subscribe(self, circuit)

    def _set_retry(self, retry: Any) -> None:
        self._retry = self._checked_retry(retry)
        self._retry.next = self._attempts

    def _checked_retry(self, retry: Any) -> Any:
        """A copy, since it gets another policy behind it than the one that its owner may use it with."""
        if retry is _Default.RETRY:
            return self._make_retry()
        if retry is None:
            return self._make_retry(retry_total=0)
        if isinstance(retry, (type, _GeoPolicy)) or not callable(getattr(retry, "send", None)):
            raise ValueError(f"retry must be one of the SDK's retry policies, or None, not {retry!r}")  # noqa: TRY004
        if inspect.iscoroutinefunction(retry.send) is not inspect.iscoroutinefunction(self._make_retry.send):
            raise ValueError(f"retry must be of the client's package, azure.storage.blob or its aio, not {retry!r}")
        return _sdk.copy_of_retry(retry)

    def __getattr__(self, name: str) -> Any:
        """What is asked of a retry policy of the SDK, such as `total_retries` or `get_backoff_time`: `retry` tells."""
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self._retry, name)

    # --- a client's ---------------------------------------------------------------------------------------------

    @property
    def next(self) -> Any:
        """The rest of the pipeline, which azure-core sets when a client is made."""
        if self._after is None:
            raise AzureError(f"This {type(self).__name__} belongs to no client yet: pass it as retry_policy= to one.")
        return self._after

    @next.setter  # noqa: A003
    def next(self, policy: Any) -> None:
        if isinstance(policy, self._other_kind):
            raise TypeError(
                "GeoFailover is for the SDK's own clients, AsyncGeoFailover for those of its aio packages; those of "
                "Data Lake take none as retry_policy=: make them without, and protect(client, policy)"
            )
        # Sub-clients set it again, to the same object.
        if self._after is not None and self._after is not policy:
            raise ValueError(
                f"one {type(self).__name__} belongs to one service client: for another client make another policy that "
                "shares its circuits, copy.copy(policy). A client that has several inside, as those of Data Lake do, "
                "takes none as retry_policy=: make it without, and protect(client, policy)"
            )
        self._after = policy
        self._attempts.next = policy

    def take_place(self, retry: Any, rest: Any, *, signs_first: bool = False) -> Any:
        """Replace a client's retry policy, which continues as this policy's `retry` if none was given.

        Args:
            retry: The client's own retry policy.
            rest: The pipeline after it.
            signs_first: Requests are signed before they reach this policy.

        Returns:
            The policy to put there: this one, or a copy that shares its circuits if this one already has a client.

        Raises:
            TypeError: The client is not of this policy's kind.
            ValueError: The Last Sync Time is needed, but cannot be requested. Or Last-Modified is, and is not sent.
        """
        if signs_first and self._settings["max_staleness"] is not None:
            raise ValueError("max_staleness is not for clients of tables, which sign before they retry: leave it out")
        if signs_first and self._session is not None:
            raise ValueError(
                'consistency="session" is not for clients of tables, whose answers have no Last-Modified: leave it out'
            )
        policy = self if self._after is None else copy.copy(self)
        policy.next = rest
        if self._settings["retry"] is _Default.RETRY:
            policy._clients_retry = _sdk.copy_of_retry(retry)
            policy._set_retry(retry)
        return policy

    def __copy__(self) -> Any:
        """A policy for another client: the same settings, the same circuits and the same session."""
        made = type(self)(self.primary, self.secondary, **{**self._settings, "policy": None})
        made.memory = self.memory
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        """For pickle and deepcopy: the same settings. Circuits hold locks, and are made anew."""
        given = {PRIMARY: self.primary, SECONDARY: self.secondary}
        circuits = {
            location: (circuit.name, circuit.policy, _store_arguments(circuit))
            for location, circuit in given.items()
            if location not in self._unnamed
        }
        return _remade, (type(self), self._settings, circuits), {"after": self._after, "retry": self._clients_retry}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["after"] is not None:
            self.next = state["after"]
        if state["retry"] is not None:
            self._clients_retry = state["retry"]
            self._set_retry(self._clients_retry)

    @property
    def memory(self) -> tuple[Hedging, Session | None]:
        """What policies of the same settings share beside their circuits: the budget of hedges, and the session."""
        return self._hedging, self._session

    @memory.setter
    def memory(self, memory: tuple[Hedging, Session | None]) -> None:
        self._hedging, self._session = memory

    # --- a request ----------------------------------------------------------------------------------------------

    async def _send(self, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
        read, write = self._begin(request)
        failure: BaseException | None = None
        if read is not None:
            request.context[_READ] = read
        try:
            response = await self._io.send(self._retry, request)
        except GiveUp as error:
            failure = error.__cause__
        except Exception as error:  # noqa: BLE001 (raised again)
            failure = error
        finally:
            request.context.pop(_READ, None)
        # Outside of `except`, lest it drags along an error whose message may hold a SAS.
        if read is not None:
            failure = read.failure or failure
            read.came_back(None if failure is not None else response)
        if failure is not None:
            raise failure
        if read is not None:
            self._note_answer(response)
        if write is not None:
            http = response.http_response
            write.wrote(request.http_request, http.status_code, headers_of(http))
        return response  # type: ignore[no-any-return]  # azure-core's Any

    def _begin(self, request: PipelineRequest[Any]) -> tuple[Read | None, Tracked | None]:
        """The read that answers the client's request; None where it is none, and is ready for the SDK's own retry.

        Then also what it writes, where its answer is to be remembered.
        """
        options, http, transport = request.context.options, request.http_request, request.context.transport
        prefer = options.pop(_PREFER, None)
        if prefer is None:
            prefer = self._settings["prefer"]
        else:
            _check_choice(_PREFER, prefer, (PRIMARY, SECONDARY))
        bound = _sdk.bound_location(options)
        hedge_after: After = options.pop(HEDGE_OPTION, self._hedging.after)
        if hedge_after is not self._hedging.after:
            check_after(HEDGE_OPTION, hedge_after)
        target = self._finder.find(http.url, options.get("hosts"), bound=bound)
        while self._abandoned:
            with contextlib.suppress(IndexError):  # another thread was quicker
                self._abandoned.popleft().released()
        if target.is_elsewhere:
            return None, None
        self._seen = Seen((http.url, http.headers, transport, target.endpoints))
        self._last_sync.proxies = options.get("proxies")
        streamed = bool(options.get("stream")) and http.method in ("GET", "POST")
        if not (streamed and http.method == "GET") and changes_something(http.method, http.url):
            http.url = target.url(PRIMARY)
            options.update(location_mode=PRIMARY, retry_to_secondary=False)
            return None, None if self._session is None else self._session.track(target)
        if self._unnamed:
            self._name_circuits(target.endpoints)
        if target.endpoints.secondary is None:
            self._warn(target.endpoints)
        order = _order(target, http, bound)
        token = page_token(target.resource)
        if token is not None:
            order = (SECONDARY if token in self._pages and SECONDARY in order else order[0],)
        home = order[0]
        if bound is None and prefer == SECONDARY:
            order = order[::-1]
        options["retry_to_secondary"] = False  # a failover attempt asks it
        if len(order) > 1:
            options["location_mode"] = PRIMARY  # or the SDK's retry takes a 404 for a replica's that lags
        may_hedge = bound is None and len(order) > 1 and _sdk.ends_when_dropped(transport)
        wait = self._hedge_wait(hedge_after) if may_hedge else None
        # A later range is of the version that its first one has begun with.
        begins = bound is None or len(order) == 1
        tracked = self._session.track(target) if begins and self._session is not None else None
        return Read(self._shared or self._share(), request, target, order, home, streamed, wait, tracked), None

    def _hedge_wait(self, after: After) -> float | None:
        if after is None and self._hedging.after is None:
            return None
        return self._hedging.begin(after)

    def _note_answer(self, response: PipelineResponse[Any, Any]) -> None:
        """See to it that the page after this one is asked of the secondary, if this one is the secondary's.

        Only who gave a token can make sense of it. The clients of blobs and queues see to it themselves.
        """
        http = response.http_response
        location = _sdk.location_of(http) or PRIMARY
        _sdk.set_location_in_context(response.context, location)
        if location != SECONDARY:
            return
        token = http.headers.get("x-ms-continuation")
        if token:
            self._pages[token] = None
            with contextlib.suppress(KeyError, RuntimeError, StopIteration):  # another thread was quicker
                while len(self._pages) > _MOST_PAGES:
                    del self._pages[next(iter(self._pages))]

    def _share(self) -> ReadContext:
        """Once, since all reads share it; raises `AzureError` before there is a client."""
        settings = self._settings
        attempts: Any = settings["primary_attempts"]
        self._shared = ReadContext(
            io=self._io,
            body=self._body,
            next=self.next,
            insert_probe=self._insert_probe,
            circuits={PRIMARY: self.primary, SECONDARY: self.secondary},
            attempts=attempts or MOST_ATTEMPTS,
            repeat_last_resort=attempts is not None,
            backoff=settings["backoff"],
            attempt_timeout=settings["attempt_timeout"],
            abandoned=self._abandoned,
            hedging=self._hedging,
            make_race=self._make_race,
            refuses_secondary=self._refuses_secondary,
            last_sync=self._last_sync,
            has_synced=self._has_synced,
            dispatch=self._dispatch,
            is_heard=bool(self.listeners),
        )
        return self._shared

    def _insert_probe(self) -> object:
        """Put the probe before the transport, unless it is there. Each sub-client that is made takes it away.

        Returns:
            Another object whenever it was put there anew.
        """
        if self._before_probe is None or self._before_probe.next is not self._probe:
            self._before_probe = _sdk.insert_before_transport(self._attempts, self._probe)
            self._insertion = object()
        return self._insertion

    def _name_circuits(self, endpoints: Endpoints) -> None:
        circuits = {PRIMARY: self.primary, SECONDARY: self.secondary}
        while self._unnamed:
            with contextlib.suppress(IndexError):  # another thread was quicker
                location = self._unnamed.pop()
                circuits[location].name = endpoints.name(location) if endpoints.base(location) else location

    def _warn(self, endpoints: Endpoints) -> None:
        if self.primary not in _warned:
            _warned.add(self.primary)
            _logger.warning(
                "No secondary endpoint is known of %s: its reads fail when it does. Where there is one, name it: "
                "%s(secondary_endpoint=...)",
                endpoints.primary,
                type(self).__name__,
            )

    # --- staleness, listeners -----------------------------------------------------------------------------------

    async def _ask_staleness(self) -> float:
        return await self._last_sync.ask(self._after, self._seen)

    async def _refuses_secondary(self, attempt: Attempt | None) -> str | None:
        return await self._last_sync.refuses(self.next, self._seen, attempt)

    async def _has_synced(self, time: float, attempt: Attempt | None) -> bool:
        return await self._last_sync.reaches(time, self.next, self._seen, attempt)

    def _dispatch(self, event: GeoEvent) -> None:
        _dispatch(self.listeners, event)


class GeoFailover(_GeoPolicy, HTTPPolicy[Any, Any], metaclass=_PolicyType):
    """A `retry_policy=` for `BlobServiceClient` and `QueueServiceClient` of an RA-GRS or RA-GZRS account.

    A read asks the primary. If that fails, the read is tried there up to `primary_attempts` times while the primary's
    circuit is closed, and then goes to the secondary. Once the circuit is open, reads go straight to the secondary
    until a probe finds that the primary has recovered. All this is one failover attempt, and `retry` applies to it as
    it applies to a single request without `GeoFailover`. If no other endpoint can answer, the primary is asked even if
    its circuit is open. Reads are GET and HEAD requests (except receiving queue messages), and queries of a blob. All
    other requests go to the primary, are retried by `retry`, and do not use the circuits.

    A read from the secondary may return older data than the primary has: see `max_staleness`. An answer that cannot be
    the service's own (a proxy's page, another range or version than requested, a redirect loop) counts as a failure. If
    a body breaks off, or arrives slower than 8 kB/s, the other endpoint sends the rest.

    Args:
        primary: The circuit of the primary, for instance that of another client's policy, to share its state. Default:
            the policy makes one, which is named after its endpoint, as in `mine.blob.core.windows.net`.
        secondary: The circuit of the secondary. Default: the policy makes one.
        policy: The policy of circuits that are not given. Default: `PRODUCTION`. An answer whose headers take longer
            than its `timeout` (seconds) is used, but counts as a failure. Its `classify` is not used: see
            `failover.storage.causes`.
        retry: One of the SDK's retry policies. Default: the SDK's default. None: no retries, fail fast.
        primary_attempts: Attempts at one endpoint within one failover attempt, at least 1. None: until its circuit
            opens, at most 10.
        backoff: Seconds between two of these attempts, at least 0.
        attempt_timeout: Seconds, above 0, after which an attempt is given up if it has no connection or receives no
            byte. It applies if there is another endpoint to ask, and neither the call nor the client sets its own
            time-out (`connection_timeout`, `read_timeout`). If neither endpoint answers within it, the request itself
            is slow, and it is sent again with the SDK's own time-outs.
        max_staleness: Seconds, above 0. The secondary is not used if its Last Sync Time is older or unknown.
        secondary_endpoint: Where the secondary is, if it is not at ACCOUNT-secondary: a URL, or a host and path.
        hedge_after: Seconds, above 0, after which a read without an answer also goes to the other endpoint; the first
            good answer is used. "p95": as long as 95 of 100 of the last thousand answers took, at least 10 ms, once
            there are a hundred answers. None: never. A probe is hedged at once. For a single call: `failover_hedge=`.
        hedge_budget: The share of the last thousand reads that may be hedged, above 0 and at most 1. Five may always be
            hedged.
        prefer: "primary" or "secondary": which endpoint reads ask first. For a single call: `failover_prefer=`, as an
            option of the SDK's methods. The other endpoint answers if that one fails, or if the secondary is older than
            `max_staleness`. The primary always decides whether something exists. Later pages, later ranges of a
            download and calls with `use_location` are not moved.
        consistency: "eventual" or "session". With "session", no read returns an older version of a blob or of a
            container's properties than the clients of this policy and of its copies (`copy.copy`) have read or written,
            nor one that they have deleted. An older answer from the secondary is not used. If the primary does not
            answer either, the read raises `StaleRead`. The newest 10,000 resources are remembered. Listings and tags
            are not covered.
        listeners: Callables that take each `Retry`, `ReadEnded` and `Transition`, in the thread in which it happens.
        clock: A monotonic clock, in seconds.

    Raises:
        ValueError: A value is out of range. Also raised if the same policy object is given to a second service client:
            azure-core stores the rest of the pipeline in it, so the second client's requests would be signed with the
            first client's credential. For another client, make a policy that shares the circuits: `copy.copy(policy)`.

    If no endpoint can answer, a read raises `BothEndpointsDown`, `NotReplicated` or `StaleRead`, which are all
    `AzureError`s.
    """

    _other_kind = AsyncHTTPPolicy
    _body = SyncBody
    _make_io = SyncIO
    _make_probe = Probe
    _make_attempts = _Attempts
    _make_retry = ExponentialRetry
    _make_race = ThreadRace

    def send(self, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
        """Answer a request of the client: reads from either endpoint, everything else from the primary."""
        return run_sync(self._send(request))

    def staleness(self) -> float:
        """Ask the secondary how old its Last Sync Time is.

        Everything that was written before that time is on the secondary. The request goes to the secondary whatever the
        state of the circuits, and does not affect them.

        Returns:
            The age in seconds; inf if the secondary has never synchronised.

        Raises:
            AzureError: The secondary does not answer, or the client has not sent a request yet.
        """
        return run_sync(self._ask_staleness())


class AsyncGeoFailover(_GeoPolicy, AsyncHTTPPolicy[Any, Any], metaclass=_PolicyType):
    """`GeoFailover` for the clients of `azure.storage.blob.aio` and `azure.storage.queue.aio`.

    Its arguments and behaviour are those of `GeoFailover`, and it never blocks the event loop. Sync and async clients
    can share circuits: `AsyncGeoFailover(first.primary, first.secondary)`. Listeners are called in the loop's thread,
    so they should be fast; transitions of a shared circuit are reported in the thread in which they happen. A read that
    is cancelled counts neither as a success nor as a failure.
    """

    _other_kind = HTTPPolicy
    _body = AsyncBody
    _make_io = AsyncIO
    _make_probe = AsyncProbe
    _make_attempts = _AsyncAttempts
    _make_retry = AsyncExponentialRetry
    _make_race = staticmethod(task_race)

    async def send(self, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
        """Answer a request of the client: reads from either endpoint, everything else from the primary."""
        return await self._send(request)

    async def staleness(self) -> float:
        """See `GeoFailover.staleness`."""
        return await self._ask_staleness()


def _store_arguments(circuit: CircuitBreaker) -> tuple[str, str | None] | None:
    if circuit.store is None:
        return None
    found = arguments_of(circuit.store)
    if found is None:
        raise TypeError(
            f"circuit {circuit.name!r} cannot be made anew elsewhere: its store is not one of open_store(url)"
        )
    return found


def _remade(
    kind: type[Any],
    settings: dict[str, Any],
    told: dict[str, tuple[str, Policy, tuple[str, str | None] | None]],
) -> _GeoPolicy:
    circuits = {
        location: CircuitBreaker(
            name, policy, clock=settings["clock"], store=None if arguments is None else open_store(*arguments)
        )
        for location, (name, policy, arguments) in told.items()
    }
    if len(circuits) > 1:
        settings = {**settings, "policy": None}
    made: _GeoPolicy = kind(circuits.get(PRIMARY), circuits.get(SECONDARY), **settings)
    return made


def _order(target: Target, request: Any, bound: str | None) -> tuple[str, ...]:
    """Which endpoints a read may ask, its home first.

    The SDK binds later ranges of a download and later pages of a listing to the endpoint of the first. An ETag
    guards a range's bytes, so the other may send it too; a page makes sense only to the endpoint that gave its
    marker, and a caller's own choice stands.
    """
    location = PRIMARY if target.location == PRIMARY else SECONDARY
    if target.endpoints.secondary is None or (bound is None and location is SECONDARY):
        return (location,)
    if bound is None:
        return (PRIMARY, SECONDARY)
    return (location, SECONDARY if location is PRIMARY else PRIMARY) if _is_guarded(request) else (location,)


def _is_guarded(request: Any) -> bool:
    """Whether any endpoint's answer must hold the same bytes: it is a range of one version."""
    ranged = "x-ms-range" in request.headers or "Range" in request.headers
    return ranged and request.headers.get("If-Match", "*") != "*"


class _Audience:
    """The policies that share a circuit and have listeners, for as long as they are used.

    A listener that several of them have, as those do that are copies of one, hears each transition once.
    """

    def __init__(self) -> None:
        self._policies: dict[int, weakref.ref[_GeoPolicy]] = {}

    def join(self, policy: _GeoPolicy) -> None:
        policies, number = self._policies, id(policy)
        # What is called when a policy goes takes no lock: the garbage collector may call it in a thread that has one.
        policies[number] = weakref.ref(policy, lambda _: policies.pop(number, None))

    def hear(self, event: BreakerEvent) -> None:
        if not isinstance(event, Transition):
            return
        policies = filter(None, [this() for this in list(self._policies.values())])
        _dispatch({id(listener): listener for policy in policies for listener in policy.listeners}.values(), event)


_audiences: Final[weakref.WeakKeyDictionary[CircuitBreaker, _Audience]] = weakref.WeakKeyDictionary()
_audiences_lock: Final = ForkSafeLock()


def _subscribe(policy: _GeoPolicy, circuit: CircuitBreaker) -> None:
    """Let a policy's listeners hear a circuit, which may be others' too, for as long as the policy is used."""
    with _audiences_lock:
        audience = _audiences.get(circuit)
        is_new = audience is None
        if audience is None:
            audience = _audiences[circuit] = _Audience()
    audience.join(policy)
    if is_new:
        circuit.subscribe(audience.hear)


def _dispatch(listeners: Iterable[Listener], event: GeoEvent) -> None:
    for listener in listeners:
        try:
            listener(event)
        except Exception:
            _logger.exception("a listener of a GeoFailover raised")


def _checked_listeners(listeners: Iterable[Listener]) -> tuple[Listener, ...]:
    try:
        found = tuple(listeners)
    except TypeError:
        raise ValueError(f"listeners must be several callables, as in listeners=[print], not {listeners!r}") from None
    for listener in found:
        if not callable(listener):
            raise ValueError(f"listeners must be callable, not {listener!r}")  # noqa: TRY004 (contract)
    return found


def _check_choice(field: str, value: str, choices: tuple[str, str]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f'{field} must be "{choices[0]}" or "{choices[1]}", not {value!r}')


def _check_seconds(field: str, value: float, *, zero: bool = False) -> None:
    numeric = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not numeric or value < 0 or (value == 0 and not zero):
        raise ValueError(f"{field} must be finite and {'from' if zero else 'above'} 0 seconds, not {value!r}")
