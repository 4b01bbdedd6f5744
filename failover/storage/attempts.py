"""One endpoint, asked as often as its circuit and the settings allow: what it answers, and what its circuit learns.

Written once, as coroutines, for threads and event loops: see `failover.storage.calls`.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from azure.core.exceptions import AzureError
from azure.core.pipeline import PipelineRequest, PipelineResponse

from failover.breaker import CircuitBreaker, CircuitOpen, FailureReported, Permit, State
from failover.breaker.retry_after import retry_after_of
from failover.storage.answers import (
    BODY_STATUSES,
    checks_md5,
    is_redirect,
    length_of,
    matches_md5,
    misfit,
    parts_of,
    refusal,
)
from failover.storage.body import Body
from failover.storage.calls import Calls
from failover.storage.causes import describe_error, is_connect_timeout, is_endpoint_failure, is_timeout
from failover.storage.endpoints import PRIMARY, SECONDARY, Target
from failover.storage.events import GeoEvent, Retry
from failover.storage.pace import Patience

MOST_ATTEMPTS: Final = 10
"""Tries at one endpoint within one read where their number is not given; resumptions of one body at most."""

_LONGEST_ERROR: Final = 65536  # bytes that are read for the sake of the connection


@dataclass(frozen=True, slots=True)
class Means:
    """What all reads of one policy share."""

    calls: Calls
    body: type[Body]
    next: Any  # the rest of the pipeline
    circuits: Mapping[str, CircuitBreaker]
    attempts: int
    backoff: float
    abandoned: deque[Permit]
    refuse_secondary: Callable[[], Awaitable[str | None]]
    tell: Callable[[GeoEvent], None]
    heard: bool  # somebody listens
    retry_hook: Callable[..., Any] | None = None  # the caller's, of this read alone


Ending: TypeAlias = "Coroutine[Any, Any, PipelineResponse[Any, Any] | None]"
"""What is left to do of an attempt."""


class Attempts:
    """The requests of one read, and its permit: that of the request under way, or of the answer that is being read."""

    # What most reads never change.
    _attempts = 0
    _resumptions = 0
    _silent: frozenset[str] = frozenset()
    _permit: Permit | None = None
    _location = PRIMARY

    # Of the last answer: what `_examine` finds.
    _latency: float
    _status: int
    _headers: Mapping[str, str]
    _flaw: str | None
    _digest: bool
    _unread: bool
    _is_there: bool

    def __init__(
        self,
        means: Means,
        request: PipelineRequest[Any],
        target: Target,
        order: tuple[str, ...],
        patience: Patience,
        downloads: bool,
    ) -> None:
        self._means = means
        self._request = request
        self._target = target
        self._order = order
        self._patience = patience
        self._streamed = downloads
        self._reads = downloads or request.http_request.method == "GET"  # and asks not for the headers alone
        self.limit = patience.headers if downloads or not self._reads else patience.whole
        self._started = time.perf_counter()
        self._causes: dict[str, str] = {}

    def __del__(self) -> None:
        # A body that nobody reads to its end says nothing about the endpoint. The garbage collector may be what calls
        # this, in a thread that holds the circuit's lock: so the permit is only put aside here.
        if self._permit is not None:
            self._means.abandoned.append(self._permit)

    async def _ask(self, location: str, first: Ending | None = None) -> PipelineResponse[Any, Any] | None:
        """Its answer, or None where it gave none: its circuit refuses, or all tries failed."""
        if first is None and not await self._is_admitted(location):
            return None
        for tries in range(1, self._means.attempts + 1):
            permit = self._permit
            response = await (first or self._attempt(location))
            first = None
            if response is not None:
                return response
            if location in self._silent or tries == self._means.attempts or permit is None:
                break
            # None where the circuit has opened, and so after a probe, which gets one attempt.
            self._permit = permit.again()
            if self._permit is None:
                break
            if self._means.backoff:
                await self._means.calls.sleep(self._means.backoff)
        return None

    async def _is_admitted(self, location: str) -> bool:
        """Whether there is a permit to ask this endpoint, which is kept."""
        if location in self._silent:
            return False  # a time-out would take as long again, and its cause is known
        if location == SECONDARY:
            known = self._target.endpoints.secondary is not None
            reason = await self._means.refuse_secondary() if known else "no such endpoint is known"
            if reason is not None:
                self._causes[location] = reason
                return False
        circuit = self._means.circuits[location]
        try:
            self._permit = circuit.admit()
        except CircuitOpen as refusal:
            last = refusal.last_error
            # A circuit that is used elsewhere too may hold an error of which only the name is safe to tell.
            words = str(last) if isinstance(last, FailureReported) else type(last).__name__
            why = "" if last is None else f" after {words}"
            how = "ramping" if circuit.state is State.CLOSED else circuit.state.value
            self._causes[location] = f"circuit {how}{why}"
            return False
        return True

    async def _attempt(self, location: str) -> PipelineResponse[Any, Any] | None:
        """One request; None where it failed, and then the circuit knows."""
        self._request.http_request.url = self._target.url(location)
        self._attempts += 1
        self._asked = time.perf_counter()
        try:
            response = await self._means.calls.send(self._means.next, self._request, self.limit)
        except BaseException as error:  # noqa: BLE001 (raised again, or the endpoint's)
            lost = error
        else:
            self._flaw = self._examine(response, location)
            return await self._conclude(response, location)
        return await self._lose(location, lost)

    def _examine(self, response: PipelineResponse[Any, Any], location: str) -> str | None:
        """Why the answer counts as none, where its head tells; whether its body is there, or must be read to tell."""
        self._latency = time.perf_counter() - self._asked
        request, context, http = self._request.http_request, self._request.context, response.http_response
        status = self._status = http.status_code
        own = vars(http)
        own["location_mode"] = location  # which the SDK asks for; set as usual, its second kind looks at each name
        inner, headers = parts_of(http, own)
        self._headers = headers
        # The SDK reads these bodies as one, before it looks at the digest or raises: a break must show here.
        self._digest = bool(context.get("validate_content")) and checks_md5(context, headers)
        self._unread = self._reads and (self._digest or (self._streamed and status not in BODY_STATUSES))
        if status not in BODY_STATUSES:
            flaw = refusal(request, context, http, headers)
        elif self._streamed and not self._resumptions:  # what goes on where a body broke off is judged by `resume`
            flaw = misfit(request.headers, headers)
        else:
            flaw = None
        self._is_there = False
        if flaw is None and self._streamed and not self._unread:
            try:
                self._is_there = self._means.calls.is_there(own, inner, headers, self._patience)
            except BaseException:
                self._release()
                raise
        return flaw

    async def _conclude(self, response: PipelineResponse[Any, Any], location: str) -> PipelineResponse[Any, Any] | None:
        """What an attempt comes to that was answered: the answer, or None."""
        http, cause = response.http_response, self._flaw
        if cause is None and self._unread:
            lost: BaseException | None = None
            try:
                await self._means.calls.load(http, self._patience.body(length_of(http)))
            except BaseException as error:  # noqa: BLE001 (as above)
                lost = error
            if isinstance(lost, (AzureError, OSError)):
                cause = self._blame(location, lost) if is_timeout(lost) else "the body broke off"
            elif lost is not None:
                return await self._lose(location, lost)
            elif self._digest and not matches_md5(http):
                cause = "the body does not match its MD5"
        if cause is not None:
            await self._fail(location, cause, response=http)
            await self._discard(response)
            return None
        self._take(location)
        return response

    async def _lose(self, location: str, error: BaseException) -> PipelineResponse[Any, Any] | None:
        """What an attempt comes to that was not answered: nothing, and the circuit knows; or it is raised again."""
        if not is_endpoint_failure(error):
            self._release()
            raise error
        await self._fail(location, self._blame(location, error), error=error)
        return None

    def _take(self, location: str) -> None:
        self._location = location
        if is_redirect(self._status, self._headers):
            self._release()  # no answer yet: where it leads to will tell

    def _blame(self, location: str, error: BaseException) -> str:
        """`error` in a few words; after a time-out `location` is not asked again within this read."""
        if is_timeout(error):
            self._silent |= {location}
        limit = "connection_timeout" if is_connect_timeout(error) else "read_timeout"
        within = self._request.context.options.get(limit)
        return describe_error(error, within if isinstance(within, (int, float)) else None)

    async def _fail(self, location: str, cause: str, **about: Any) -> None:
        permit, self._permit = self._permit, None
        if permit is None:
            return
        self._causes[location] = cause
        # Told before the circuit learns of it, so that its opening is told after the failure that opened it.
        circuit = permit.breaker.snapshot()
        closed = circuit["state"] == State.CLOSED.value
        failures = circuit["failures"] + 1 if closed else circuit["failures"]
        self._means.tell(Retry(location, failures, circuit["threshold"], cause))
        permit.failed(FailureReported(cause, retry_after=retry_after_of(about.get("response"))))
        if self._means.retry_hook is not None:
            about = {"response": None, "error": None, **about}
            # From 0, as the SDK counts.
            about |= {"location_mode": location, "retry_count": self._attempts - 1}
            await self._means.calls.hook(self._means.retry_hook, about)

    async def _discard(self, response: PipelineResponse[Any, Any]) -> None:
        """Read what little an error says, so that its connection can be used again; drop a long one."""
        self._settle()
        http = response.http_response
        try:
            with contextlib.suppress(AzureError, OSError):
                if int(http.headers.get("Content-Length") or 0) <= _LONGEST_ERROR:
                    await self._means.calls.load(http, self._patience.body(0))
        finally:
            http.internal_response.close()

    def _release(self) -> None:
        permit, self._permit = self._permit, None
        if permit is not None:
            permit.released()

    def _settle(self) -> None:
        """The endpoint has answered, whole."""
        permit, self._permit = self._permit, None
        if permit is not None:
            permit.succeeded(self._latency)
