"""One read, from the request to the last byte of its body: which endpoint is asked, and what its answer means."""

from __future__ import annotations

import base64
import contextlib
import copy
import functools
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from azure.core.exceptions import AzureError
from azure.core.pipeline import PipelineRequest, PipelineResponse

from failover.breaker import CircuitBreaker, CircuitOpen, FailureReported, Permit, State
from failover.storage.body import Body, Span, span_of
from failover.storage.causes import (
    FAILURE_STATUSES,
    describe_error,
    describe_status,
    is_endpoint_failure,
    is_timeout,
)
from failover.storage.endpoints import PRIMARY, SECONDARY, Target
from failover.storage.errors import BothEndpointsDown, NotReplicated
from failover.storage.events import GeoEvent, ReadEnded, Retry

MOST_ATTEMPTS: Final = 10
"""Tries at one endpoint within one read at most, whatever the circuit says; and resumptions of one body."""

_NOT_THERE: Final = frozenset({404, 412})


@dataclass(frozen=True, slots=True)
class Means:
    """What all reads of one policy share."""

    send: Callable[[Any], Any]
    circuits: Mapping[str, CircuitBreaker]
    attempts: int
    backoff: float
    attempt_timeout: float
    refuse_secondary: Callable[[], str | None]
    tell: Callable[[GeoEvent], None]
    retried: Callable[[dict[str, Any]], None] | None = None


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
        self._timed_out = False
        self._causes: dict[str, str] = {}
        self._absent: str | None = None
        self._permit: Permit | None = None
        self._location = PRIMARY
        self._resumptions = 0

    def __del__(self) -> None:
        # A body that nobody reads to its end says nothing about the endpoint.
        if self._permit is not None:
            self._permit.released()

    def run(self) -> PipelineResponse[Any, Any]:
        """The answer of the first endpoint that gives one; raises `BothEndpointsDown` or `NotReplicated`."""
        for location in self._order:
            response = self._ask(location)
            if response is not None and self._is_absence(response, location):
                self._absent = describe_status(
                    response.http_response.status_code, response.http_response.reason, response.http_response.headers
                )
                self._discard(response)
            elif response is not None:
                self._guard_body(response)
                return response
        self._tell_end(None)
        raise self._failure()

    # --- asking an endpoint -----------------------------------------------------------------------------------

    def _ask(self, location: str) -> PipelineResponse[Any, Any] | None:
        """Its answer, or None where it gave none: its circuit refuses, or all tries failed."""
        if self._target.endpoints.base(location) is None:
            self._causes[location] = "no such endpoint is known"
            return None
        reason = self._means.refuse_secondary() if location == SECONDARY else None
        if reason is not None:
            self._causes[location] = reason
            return None
        circuit = self._means.circuits[location]
        try:
            permit: Permit | None = circuit.admit()
        except CircuitOpen as refusal:
            why = "" if refusal.last_error is None else f" after: {refusal.last_error}"
            self._causes[location] = f"not asked, its circuit is {circuit.state.value}{why}"
            return None
        for tries in range(1, self._means.attempts + 1):
            assert permit is not None  # noqa: S101 (the loop ends where there is none)
            probe = permit.is_probe
            response = self._attempt(location, permit)
            if response is not None:
                return response
            # A time-out would take as long again; a probe is one attempt.
            if self._timed_out or probe or tries == self._means.attempts or circuit.state is not State.CLOSED:
                return None
            if self._means.backoff:
                time.sleep(self._means.backoff)
            permit = permit.again()
            if permit is None:
                return None
        return None

    def _attempt(self, location: str, permit: Permit) -> PipelineResponse[Any, Any] | None:
        """One request; None where it failed, and then the circuit knows."""
        request = self._request
        request.http_request.url = self._target.url(location)
        self._attempts += 1
        self._timed_out = False
        started = time.perf_counter()
        try:
            response = self._means.send(request)
            cause = self._failed_by(response)
        except Exception as error:
            if not (isinstance(error, AzureError) and is_endpoint_failure(error)):
                permit.released()
                raise
            self._timed_out = is_timeout(error)
            self._fail(location, permit, describe_error(error, self._means.attempt_timeout), error=error)
            return None
        except BaseException:
            permit.released()
            raise
        if cause is not None:
            self._fail(location, permit, cause, response=response.http_response)
            self._discard(response)
            return None
        self._latency = time.perf_counter() - started
        self._location = location
        self._permit = permit
        response.http_response.location_mode = location
        if not self._is_streaming(response):
            self._settle()
        return response  # type: ignore[no-any-return]  # the next policy is typed Any by azure-core

    def _failed_by(self, response: PipelineResponse[Any, Any]) -> str | None:
        """Why the answer counts as none, where it does."""
        http = response.http_response
        if http.status_code in FAILURE_STATUSES:
            return describe_status(http.status_code, http.reason, http.headers)
        digest = http.headers.get("content-md5")
        # With this option the SDK reads the body as one before it looks at the digest: a break must show here.
        if digest and self._request.http_request.method == "GET" and _checks_md5(response):
            try:
                content = http.body()
            except (AzureError, OSError):
                return "the body broke off"
            if base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode() != digest:
                return "the body does not match its MD5"
        return None

    def _fail(self, location: str, permit: Permit, cause: str, **about: Any) -> None:
        self._causes[location] = cause
        # Told before the circuit learns of it, so that its opening is told after the failure that opened it.
        circuit = permit.breaker.snapshot()
        closed = circuit["state"] == State.CLOSED.value
        failures = circuit["failures"] + 1 if closed else circuit["failures"]
        self._means.tell(Retry(location, failures, circuit["threshold"], cause))
        permit.failed(FailureReported(cause))
        if self._means.retried is not None:
            about = {"response": None, "error": None, **about}
            self._means.retried({"location_mode": location, "retry_count": self._attempts, **about})

    def _is_absence(self, response: PipelineResponse[Any, Any], location: str) -> bool:
        """Whether the secondary says no to a question that is the primary's to answer."""
        status = response.http_response.status_code
        return location == SECONDARY and PRIMARY in self._order and status in _NOT_THERE

    def _failure(self) -> AzureError:
        causes = {at: self._causes.get(at, "not asked, the read is bound to the other") for at in (PRIMARY, SECONDARY)}
        if self._absent is not None:
            return NotReplicated(causes[PRIMARY], self._absent)
        return BothEndpointsDown(causes[PRIMARY], causes[SECONDARY])

    def _discard(self, response: PipelineResponse[Any, Any]) -> None:
        """Read what little an error says, so that its connection can be used again; drop a long one."""
        self._settle(told=False)
        http = response.http_response
        with contextlib.suppress(AzureError, OSError):
            if int(http.headers.get("Content-Length") or 0) <= 65536:
                http.body()
        http.internal_response.close()

    # --- the end of an answer ---------------------------------------------------------------------------------

    def _is_streaming(self, response: PipelineResponse[Any, Any]) -> bool:
        streamed = self._request.context.options.get("stream") and self._request.http_request.method == "GET"
        return bool(streamed) and response.http_response.status_code in (200, 206)

    def _settle(self, *, told: bool = True) -> None:
        """The endpoint has answered, whole."""
        permit, self._permit = self._permit, None
        if permit is not None:
            permit.succeeded(self._latency)
            if told:
                self._tell_end(self._location)

    def _tell_end(self, location: str | None) -> None:
        self._means.tell(ReadEnded(location, self._attempts, time.perf_counter() - self._started))

    def _guard_body(self, response: PipelineResponse[Any, Any]) -> None:
        """See to it that a streamed body arrives whole, whoever sends its rest."""
        if self._permit is None:
            return
        http = response.http_response
        if http.headers.get("Content-Length") == "0" or _checks_md5(response):
            self._settle()
            return
        span = span_of(http.status_code, http.headers)
        if "x-ms-structured-body" in http.headers:
            span = None  # framed with checksums of its own: two halves make no whole
        for way in ("stream_download", "iter_bytes", "iter_raw"):
            opener = getattr(http, way, None)
            if opener is not None:
                setattr(http, way, functools.partial(self._open_body, opener, way, span))

    def _open_body(self, opener: Callable[..., Any], way: str, span: Span | None, *args: Any, **kwargs: Any) -> Body:
        def resume(delivered: int, error: BaseException) -> Iterator[bytes]:
            self._break(error)
            return self._rest(span, delivered, way, args, kwargs) if span is not None else _raise(error)

        return Body(opener(*args, **kwargs), resume=resume, ended=self._settle)

    def _break(self, error: BaseException) -> None:
        permit, self._permit = self._permit, None
        if permit is None:
            return
        if isinstance(error, AzureError) and (is_endpoint_failure(error) or is_timeout(error)):
            self._fail(self._location, permit, describe_error(error, self._means.attempt_timeout), error=error)
        else:
            permit.released()
            raise error

    def _rest(self, span: Span, delivered: int, way: str, args: Any, kwargs: Any) -> Iterator[bytes]:
        """What is missing of the body, from the other endpoint or else from the same, under the same ETag."""
        if span.length is not None and delivered >= span.length and not span.encoded:
            self._tell_end(self._location)
            return iter(())
        self._request = PipelineRequest(copy.deepcopy(self._request.http_request), self._request.context)
        skip = span.ask_for_rest(self._request.http_request.headers, delivered)
        here = self._location
        for location in [at for at in self._order if at != here] + [at for at in self._order if at == here]:
            while self._resumptions < MOST_ATTEMPTS:
                self._resumptions += 1
                response = self._ask(location)
                if response is None:
                    break
                http = response.http_response
                if self._permit is not None and span.is_continued_by(http.status_code, http.headers, delivered):
                    return _after(skip, getattr(http, way)(*args, **kwargs))
                self._causes[location] = describe_status(http.status_code, http.reason, http.headers)
                self._discard(response)
                break
        self._tell_end(None)
        raise self._failure()


def _checks_md5(response: PipelineResponse[Any, Any]) -> bool:
    wanted = response.context.get("validate_content", False)
    return (wanted is True or wanted == "md5") and bool(response.http_response.headers.get("content-md5"))


def _raise(error: BaseException) -> Iterator[bytes]:
    raise error


def _after(skip: int, chunks: Iterator[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        if skip >= len(chunk):
            skip -= len(chunk)
            continue
        yield chunk[skip:] if skip else chunk
        skip = 0
