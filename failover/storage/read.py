"""One read, from the request to the last byte of its body: which endpoint is asked, and what its answer means.

Written once, as a coroutine, for threads and event loops: see `failover.storage.calls`.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import time
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MethodType
from typing import Any, Final

from azure.core.exceptions import AzureError
from azure.core.pipeline import PipelineRequest, PipelineResponse

from failover.breaker import CircuitBreaker, CircuitOpen, FailureReported, Permit, State
from failover.breaker.retry_after import retry_after_of
from failover.storage.answers import checks_md5, is_redirect, length_of, lower, matches_md5, refusal
from failover.storage.body import Body, Span, span_of
from failover.storage.calls import Calls
from failover.storage.causes import describe_error, describe_status, is_connect_timeout, is_endpoint_failure, is_timeout
from failover.storage.endpoints import PRIMARY, SECONDARY, Target
from failover.storage.errors import BothEndpointsDown, NotReplicated
from failover.storage.events import GeoEvent, ReadEnded, Retry
from failover.storage.pace import time_for_body, time_for_headers

MOST_ATTEMPTS: Final = 10
"""Tries at one endpoint within one read where their number is not given; resumptions of one body at most."""

_LONGEST_ERROR: Final = 65536  # bytes that are read for the sake of the connection
_NOT_THERE: Final = frozenset({404, 412})


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
    retry_hook: Callable[..., Any] | None = None  # the caller's, of this read alone


class Read:
    """Asks the endpoints in `order` until one answers.

    A circuit's permit is settled when the answer is whole: for a streamed body that is at its last byte, long
    after `run` has returned.
    """

    def __init__(self, means: Means, request: PipelineRequest[Any], target: Target, order: tuple[str, ...]) -> None:
        self._means = means
        self._request = request
        self._target = target
        self._order = order
        self._started = time.perf_counter()
        self._latency = 0.0
        self._attempts = 0
        self._silent: set[str] = set()
        self._causes: dict[str, str] = {}
        self._absent: str | None = None
        self._permit: Permit | None = None
        self._location = PRIMARY
        # Whose body is being read. Weak, since it leads back here: in a circle each read would wait for the garbage
        # collector, which took a tenth of a thread's reads.
        self._http: Callable[[], Any] = lambda: None
        self._headers: dict[str, str] = {}  # of the last answer
        self._resumptions = 0
        self._ended = False

    def __del__(self) -> None:
        self._give_up()

    async def run(self) -> PipelineResponse[Any, Any]:
        """The answer of the first endpoint that gives one; raises `BothEndpointsDown` or `NotReplicated`."""
        try:
            for location in self._order:
                response = await self._ask(location)
                if response is not None and self._is_absence(response, location):
                    http = response.http_response
                    self._absent = describe_status(http.status_code, http.reason, http.headers)
                    await self._discard(response)
                elif response is not None:
                    self._guard_body(response)
                    return response
        except Exception:
            self._tell_end(None)
            raise
        self._tell_end(None)
        raise self._failure()

    # --- asking an endpoint -----------------------------------------------------------------------------------

    async def _ask(self, location: str) -> PipelineResponse[Any, Any] | None:
        """Its answer, or None where it gave none: its circuit refuses, or all tries failed."""
        if self._target.endpoints.base(location) is None:
            self._causes[location] = "no such endpoint is known"
            return None
        if location in self._silent:
            return None  # a time-out would take as long again, and its cause is known
        reason = await self._means.refuse_secondary() if location == SECONDARY else None
        if reason is not None:
            self._causes[location] = reason
            return None
        circuit = self._means.circuits[location]
        try:
            permit = circuit.admit()
        except CircuitOpen as refusal:
            last = refusal.last_error
            # A circuit that is used elsewhere too may hold an error of which only the name is safe to tell.
            words = str(last) if isinstance(last, FailureReported) else type(last).__name__
            why = "" if last is None else f" after {words}"
            how = "ramping" if circuit.state is State.CLOSED else circuit.state.value
            self._causes[location] = f"circuit {how}{why}"
            return None
        for tries in range(1, self._means.attempts + 1):
            response = await self._attempt(location, permit)
            if response is not None:
                return response
            if location in self._silent or tries == self._means.attempts:
                break
            # None where the circuit has opened, and so after a probe, which gets one attempt.
            again = permit.again()
            if again is None:
                break
            permit = again
            if self._means.backoff:
                await self._means.calls.sleep(self._means.backoff)
        return None

    async def _attempt(self, location: str, permit: Permit) -> PipelineResponse[Any, Any] | None:
        """One request; None where it failed, and then the circuit knows."""
        request = self._request
        request.http_request.url = self._target.url(location)
        self._attempts += 1
        started = time.perf_counter()
        try:
            whole = not request.context.options.get("stream") and request.http_request.method == "GET"
            limit = time_for_headers(request.context.options, whole=whole)
            response = await self._means.calls.send(self._means.next, request, limit)
            self._latency = time.perf_counter() - started
            cause = await self._failed_by(response, location)
        except Exception as error:
            if not is_endpoint_failure(error):
                permit.released()
                raise
            await self._fail(location, permit, self._blame(location, error), error=error)
            return None
        except BaseException:
            permit.released()
            raise
        if cause is not None:
            await self._fail(location, permit, cause, response=response.http_response)
            await self._discard(response)
            return None
        self._location = location
        if is_redirect(response.http_response):
            permit.released()  # no answer yet: where it leads to will tell
        else:
            self._permit = permit
        response.http_response.location_mode = location
        return response  # type: ignore[no-any-return]  # the next policy is typed Any by azure-core

    async def _failed_by(self, response: PipelineResponse[Any, Any], location: str) -> str | None:
        """Why the answer counts as none, where it does."""
        request, http = self._request, response.http_response
        # What goes on where a body broke off is judged by `_rest`.
        headers = self._headers = lower(http.headers)
        why = refusal(request.http_request, request.context, http, headers, resumed=self._resumptions > 0)
        if why is not None or request.http_request.method != "GET":
            return why
        # The SDK reads these bodies as one, before it looks at the digest or raises: a break must show here.
        digest = checks_md5(response)
        if digest or (request.context.options.get("stream") and http.status_code not in (200, 206)):
            try:
                await self._means.calls.load(http, self._time_for(length_of(http)))
            except (AzureError, OSError) as error:
                return self._blame(location, error) if is_timeout(error) else "the body broke off"
        return "the body does not match its MD5" if digest and not matches_md5(http) else None

    def _time_for(self, size: int) -> float | None:
        return time_for_body(self._request.context.options, size)

    def _blame(self, location: str, error: BaseException) -> str:
        """`error` in a few words; after a time-out `location` is not asked again within this read."""
        if is_timeout(error):
            self._silent.add(location)
        limit = "connection_timeout" if is_connect_timeout(error) else "read_timeout"
        within = self._request.context.options.get(limit)
        return describe_error(error, within if isinstance(within, (int, float)) else None)

    async def _fail(self, location: str, permit: Permit, cause: str, **about: Any) -> None:
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

    def _is_absence(self, response: PipelineResponse[Any, Any], location: str) -> bool:
        """Whether the secondary says no to a question that is the primary's to answer."""
        status = response.http_response.status_code
        return location == SECONDARY and PRIMARY in self._order and status in _NOT_THERE

    def _failure(self) -> AzureError:
        causes = {at: self._causes.get(at, "not asked, the read is bound to the other") for at in (PRIMARY, SECONDARY)}
        if self._absent is not None:
            return NotReplicated(causes[PRIMARY], self._absent)
        return BothEndpointsDown(causes[PRIMARY], causes[SECONDARY])

    async def _discard(self, response: PipelineResponse[Any, Any]) -> None:
        """Read what little an error says, so that its connection can be used again; drop a long one."""
        self._settle()
        http = response.http_response
        try:
            with contextlib.suppress(AzureError, OSError):
                if int(http.headers.get("Content-Length") or 0) <= _LONGEST_ERROR:
                    await self._means.calls.load(http, self._time_for(0))
        finally:
            http.internal_response.close()

    # --- the end of an answer ---------------------------------------------------------------------------------

    def _is_streaming(self, response: PipelineResponse[Any, Any]) -> bool:
        streamed = self._request.context.options.get("stream") and self._request.http_request.method == "GET"
        return bool(streamed) and response.http_response.status_code in (200, 206)

    def _settle(self) -> None:
        """The endpoint has answered, whole."""
        permit, self._permit = self._permit, None
        if permit is not None:
            permit.succeeded(self._latency)

    def _end(self) -> None:
        """The read is over, well."""
        if not self._ended:
            self._ended = True
            self._settle()
            self._tell_end(self._location)

    def _give_up(self) -> None:
        # A body that nobody reads to its end says nothing about the endpoint. The garbage collector may be what
        # calls this, in a thread that holds the circuit's lock: so the permit is only put aside here.
        permit, self._permit = self._permit, None
        if permit is not None:
            self._means.abandoned.append(permit)

    def _tell_end(self, location: str | None) -> None:
        self._means.tell(ReadEnded(location, self._attempts, time.perf_counter() - self._started))

    def _guard_body(self, response: PipelineResponse[Any, Any]) -> None:
        """See to it that a streamed body arrives whole, whoever sends its rest."""
        http = response.http_response
        self._http = weakref.ref(http)
        headers = self._headers
        if not self._is_streaming(response) or headers.get("content-length") == "0" or checks_md5(response):
            self._end()
            return
        span = span_of(http.status_code, headers)
        if "x-ms-structured-body" in headers:
            span = None  # framed with checksums of its own: two halves make no whole
        for way in ("stream_download", "iter_bytes", "iter_raw"):
            opener = getattr(http, way, None)
            if opener is not None:
                # One that a transport has put there is no method.
                method = weakref.WeakMethod(opener) if isinstance(opener, MethodType) else lambda same=opener: same
                setattr(http, way, functools.partial(self._open_body, method, way, span))
        self._means.calls.read_by_pieces(http)

    def _open_body(self, opener: Callable[[], Any], way: str, span: Span | None, *args: Any, **kwargs: Any) -> Body:
        async def resume(delivered: int, error: BaseException) -> tuple[Any, int]:
            try:
                await self._break(error)
                return await self._rest(error, span, delivered, lambda http: getattr(http, way)(*args, **kwargs))
            except Exception:
                self._tell_end(None)
                raise

        return self._means.body(
            self._means.calls,
            opener()(*args, **kwargs),
            length=None if span is None or span.encoded else span.length,
            seconds=self._time_for,
            resume=resume,
            ended=self._end,
            given_up=self._give_up,
        )

    async def _break(self, error: BaseException) -> None:
        """The body broke off, or its reader was interrupted: that is raised again."""
        permit, self._permit = self._permit, None
        if permit is None:
            raise error
        if not is_endpoint_failure(error):
            permit.released()
            raise error
        http = self._http()
        if http is not None:
            http.internal_response.close()  # or its socket would be open for as long as the SDK keeps the answer
        await self._fail(self._location, permit, self._blame(self._location, error), error=error)

    async def _rest(
        self, error: BaseException, span: Span | None, delivered: int, opened: Callable[[Any], Any]
    ) -> tuple[Any, int]:
        """What is missing of the body, from the other endpoint or else from the same, under the same ETag.

        Gives its pieces, None where nothing is missing, and how many of their first bytes were delivered before.
        Raises `error` where it cannot be asked for: the SDK begins again then.
        """
        if span is None:
            raise error
        if span.length is not None and delivered >= span.length and not span.encoded:
            return None, 0
        self._request = PipelineRequest(copy.deepcopy(self._request.http_request), self._request.context)
        skip = span.ask_for_rest(self._request.http_request.headers, delivered)
        here = self._location
        for location in [at for at in self._order if at != here] + [at for at in self._order if at == here]:
            if self._resumptions == MOST_ATTEMPTS:
                break
            self._resumptions += 1
            response = await self._ask(location)
            if response is None:
                continue
            http = response.http_response
            if span.is_continued_by(http.status_code, http.headers, delivered):
                self._http = weakref.ref(http)
                return opened(http), skip
            self._causes[location] = describe_status(http.status_code, http.reason, http.headers)
            await self._discard(response)
        raise self._failure()
