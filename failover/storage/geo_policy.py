"""What `GeoFailover` and `AsyncGeoFailover` have in common: all but how they wait."""

from __future__ import annotations

import contextlib
import functools
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Final

from azure.core.exceptions import AzureError
from azure.core.pipeline import PipelineContext, PipelineRequest

from failover.breaker import BreakerEvent, CircuitBreaker, ConsecutiveFailures, Cooldown, Permit, Policy, Transition
from failover.storage import last_sync
from failover.storage.attempts import MOST_ATTEMPTS, Means
from failover.storage.body import Body
from failover.storage.calls import Calls
from failover.storage.causes import describe_error
from failover.storage.endpoints import PRIMARY, SECONDARY, Endpoints, Finder, Target, changes_something
from failover.storage.events import GeoEvent, Listener
from failover.storage.pace import Patience
from failover.storage.read import Read

_logger = logging.getLogger("failover.storage")
_logger.addHandler(logging.NullHandler())

PRODUCTION: Final = Policy(trip=ConsecutiveFailures(5), recovery=Cooldown(30.0, factor=2.0, maximum=300.0, jitter=0.1))
"""The default for both circuits: open after 5 failures in a row, probe after 30 s, 60 s, ... 300 s."""

# What the SDK's other policies and a caller tell a retry policy, and the transport would not take.
_NOT_THE_TRANSPORTS: Final = frozenset(
    ["retry_total", "retry_connect", "retry_read", "retry_status", "retry_to_secondary", "location_mode", "hosts"]
)
_BOTH: Final = (PRIMARY, SECONDARY)
_LOOK_AGAIN: Final = 1.0  # seconds between two questions for the Last Sync Time at least


class _Seen(tuple[str, Mapping[str, str], Any, Endpoints]):
    """What a request of our own is made like: URL, headers and transport of the client's last, and the endpoints.

    Not the request itself, whose body may be large.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "..."  # the URL may hold a SAS


class GeoPolicy:
    """One client's retry policy but for how it waits: see `GeoFailover`, which says what is given to it."""

    _not_after: ClassVar[type[Any]]
    """Of what kind the rest of the pipeline is where it is the other kind of client's."""
    _body: ClassVar[type[Body]]
    _make_calls: ClassVar[type[Calls]]
    _make_write_retry: ClassVar[type[Any]]
    """The SDK's own retry."""

    def __init__(
        self,
        primary: CircuitBreaker | None = None,
        secondary: CircuitBreaker | None = None,
        *,
        policy: Policy | None = None,
        primary_attempts: int | None = 2,
        backoff: float = 0.0,
        attempt_timeout: float = 5.0,
        max_staleness: float | None = None,
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
        self._listeners = tuple(listeners)
        for listener in self._listeners:
            if not callable(listener):
                raise ValueError(f"listeners must be callable, not {listener!r}")  # noqa: TRY004 (contract)
        self._after: Any = None
        self.primary = primary or CircuitBreaker(PRIMARY, policy or PRODUCTION)
        self.secondary = secondary or CircuitBreaker(SECONDARY, policy or PRODUCTION)
        self._circuits = {PRIMARY: self.primary, SECONDARY: self.secondary}
        self._attempts = primary_attempts or MOST_ATTEMPTS
        self._backoff = backoff
        self._attempt_timeout = attempt_timeout
        self._patience = Patience(attempt_timeout, attempt_timeout)
        self._max_staleness = max_staleness
        self._clock = clock
        self._abandoned: deque[Permit] = deque()
        self._finder = Finder()
        self._seen: _Seen | None = None
        self._synced_at = -math.inf  # by our clock: a lower bound of the Last Sync Time
        self._looked_at = -math.inf
        self._calls = self._make_calls()
        self._writes = self._make_write_retry()
        self._means: Means | None = None
        if self._listeners:
            for circuit in self._circuits.values():
                circuit.subscribe(self._hear)

    @property
    def next(self) -> Any:
        """The rest of the pipeline, which azure-core sets when a client is made."""
        if self._after is None:
            raise AzureError(f"This {type(self).__name__} belongs to no client yet: pass it as retry_policy= to one.")
        return self._after

    @next.setter  # noqa: A003
    def next(self, policy: Any) -> None:
        if isinstance(policy, self._not_after):
            raise TypeError("GeoFailover is for the SDK's own clients, AsyncGeoFailover for those of its aio packages")
        # Sub-clients set it again, to the same object.
        if self._after is not None and self._after is not policy:
            name = type(self).__name__
            raise ValueError(
                f"one {name} belongs to one service client: make another that shares its circuits, "
                f"{name}(first.primary, first.secondary)"
            )
        self._after = policy
        self._writes.next = policy

    def _begin(self, request: PipelineRequest[Any]) -> Read | None:
        """The read that answers the client's request; None where it is none, and is ready for the SDK's own retry."""
        options, http = request.context.options, request.http_request
        # With `use_location` the SDK sets both of these.
        bound = options.get("location_mode") if options.get("retry_to_secondary") is False else None
        target = self._finder.find(http.url, options.get("hosts"), bound=bound)
        while self._abandoned:
            with contextlib.suppress(IndexError):  # another thread was quicker
                self._abandoned.popleft().released()
        self._seen = _Seen((http.url, http.headers, request.context.transport, target.endpoints))
        # Of nearly all requests this, and the order below, can be told without a call, and each counts.
        downloads = http.method == "GET" and bool(options.get("stream"))
        if not downloads and changes_something(http.method, http.url):
            http.url = target.url(PRIMARY)
            options.update(location_mode=PRIMARY, retry_to_secondary=False)
            return None

        hook = options.pop("retry_hook", None)
        for name in _NOT_THE_TRANSPORTS:
            options.pop(name, None)
        own = self._attempt_timeout
        connect, silence = options.setdefault("connection_timeout", own), None
        if not isinstance(connect, tuple):  # the old way to give both, and then the transport takes no other
            silence = options.setdefault("read_timeout", own)
        patience = self._patience if connect is silence is own else Patience(connect, silence)
        means = self._means or self._make_means()
        if hook is not None:
            means = replace(means, retry_hook=functools.partial(hook, request=http))
        order = _BOTH if bound is None and target.location is PRIMARY else _order(target, http, bound=bound is not None)
        return Read(means, request, target, order, patience, downloads)

    def _make_means(self) -> Means:
        """Once, since all reads share it; raises `AzureError` before there is a client."""
        self._means = Means(
            calls=self._calls,
            body=self._body,
            next=self.next,
            circuits=self._circuits,
            attempts=self._attempts,
            backoff=self._backoff,
            abandoned=self._abandoned,
            refuse_secondary=self._refuse_secondary,
            tell=self._tell,
            heard=bool(self._listeners),
        )
        return self._means

    # --- Last Sync Time ---------------------------------------------------------------------------------------

    async def _ask_staleness(self) -> float:
        if self._seen is None or (secondary := self._seen[-1].secondary) is None:
            raise AzureError("No secondary endpoint is known yet.")
        like, headers, transport, _ = self._seen
        request = last_sync.stats_request(secondary, like=like, version=headers.get("x-ms-version"))
        timeouts = {"connection_timeout": self._attempt_timeout, "read_timeout": self._attempt_timeout}
        asked = self._clock()
        question = PipelineRequest(request, PipelineContext(transport, **timeouts))
        response = await self._calls.send(self.next, question, self._patience.headers)
        answer = response.http_response
        age = last_sync.staleness(answer.status_code, answer.headers, answer.text())
        self._synced_at = max(self._synced_at, asked - age)
        return age

    async def _refuse_secondary(self) -> str | None:
        """Why a read must not have the secondary's answer, where it must not."""
        limit = self._max_staleness
        if limit is None or self._clock() - self._synced_at <= limit:
            return None
        async with self._calls.turn():
            if self._clock() - self._looked_at >= _LOOK_AGAIN:
                try:
                    await self._ask_staleness()
                except AzureError as error:
                    self._looked_at = self._clock()
                    return f"its Last Sync Time cannot be had: {describe_error(error, self._attempt_timeout)}"
                self._looked_at = self._clock()
            age = self._clock() - self._synced_at
        if age <= limit:
            return None
        old = f"{age:.0f} s old" if math.isfinite(age) else "unknown"
        return f"its Last Sync Time is {old}, and max_staleness is {limit:g} s"

    def _hear(self, event: BreakerEvent) -> None:
        if isinstance(event, Transition):
            self._tell(event)

    def _tell(self, event: GeoEvent) -> None:
        for listener in self._listeners:
            _tell_one(listener, event)


def _tell_one(listener: Listener, event: GeoEvent) -> None:
    try:
        listener(event)
    except Exception:
        _logger.exception("a listener of a GeoFailover raised")


def _order(target: Target, request: Any, *, bound: bool) -> tuple[str, ...]:
    """Which endpoints a read may ask, the first one first.

    The SDK binds later ranges of a download and later pages of a listing to the endpoint of the first. An ETag
    guards a range's bytes, so the other may send it too; a page makes sense only to the endpoint that gave its
    marker, and a caller's own choice stands.
    """
    if not bound:
        return _BOTH if target.location == PRIMARY else (SECONDARY,)
    if _is_guarded(request):
        return (target.location, target.endpoints.other(target.location))
    return (target.location,)


def _is_guarded(request: Any) -> bool:
    """Whether any endpoint's answer must hold the same bytes: it is a range of one version."""
    ranged = "x-ms-range" in request.headers or "Range" in request.headers
    return ranged and request.headers.get("If-Match", "*") != "*"


class SigningErrors:
    """For the SDK's own retry: it knows the signing error of azure-storage-blob, and not that of another package."""

    def increment(self, settings: Any, request: Any, response: Any = None, error: Any = None) -> bool:
        if type(error).__name__ == "AzureSigningError":
            return False
        return bool(super().increment(settings, request, response, error))  # type: ignore[misc]  # a mixin


def _check_seconds(field: str, value: float, *, zero: bool = False) -> None:
    numeric = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if not numeric or value < 0 or (value == 0 and not zero):
        raise ValueError(f"{field} must be finite and {'from' if zero else 'above'} 0 seconds, not {value!r}")
