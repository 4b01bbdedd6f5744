"""One request to one endpoint: its time-outs, its outcome, and what the endpoint's circuit counts.

Only what the endpoint did counts. The probe is the last policy before the transport and reports what the transport did.
An error anywhere else in the pipeline (a failing sign-in, a missing package) is not the endpoint's.
"""

from __future__ import annotations

import functools
import time
from collections import deque
from typing import Any, Final

from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    IncompleteReadError,
    ServiceRequestError,
    ServiceRequestTimeoutError,
    ServiceResponseError,
    ServiceResponseTimeoutError,
)
from azure.core.pipeline import PipelineContext, PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import AsyncHTTPPolicy, HTTPPolicy

from failover.breaker import FailureReported, Permit
from failover.breaker.retry_after import retry_after_of
from failover.storage import _sdk
from failover.storage.answers import is_failure_status
from failover.storage.body import Deadline
from failover.storage.causes import (
    describe_status,
    failure_cause,
    is_body_failure,
    is_connect_timeout,
    is_endpoint_failure,
    is_reset,
    is_timeout,
)
from failover.storage.errors import forget_context
from failover.storage.hedging import Outpaced, Race, Run
from failover.storage.runtime import run_sync

ATTEMPT: Final = "failover_attempt"
"""Where the context of a request holds its `Attempt`."""

_RAISED: Final = (
    ServiceRequestTimeoutError,
    ServiceResponseTimeoutError,
    ServiceRequestError,
    ServiceResponseError,
    IncompleteReadError,
    HttpResponseError,
    AzureError,
)


class Timeouts:
    """The time-outs of one attempt, as options of the transport.

    Args:
        options: Of the call; its own time-outs stand.
        transport: The client's; those that its maker has set stand too.
        limit: Seconds for the others; None: the transport's own.
    """

    __slots__ = ("_connect_limited", "_one", "_read_limited", "connect", "limit", "read")

    def __init__(self, options: Any, transport: Any, limit: float | None) -> None:
        client = _sdk.client_timeouts(transport)
        connect, read = options.get("connection_timeout"), options.get("read_timeout")
        old_way = isinstance(connect, tuple)  # gives both, and then the transport takes no other
        self._one = one = not _sdk.takes_read_timeout(transport)
        self.limit = limit
        self._connect_limited = limit is not None and connect is None and not client.connect_is_set
        self._read_limited = limit is not None and read is None and not old_way and not client.read_is_set and not one
        self.connect: Any = limit if self._connect_limited else client.connect if connect is None else connect
        self.read: Any = limit if self._read_limited else client.read if read is None else read
        if old_way:
            self.read = connect[1]
        elif one:
            self.read = self.connect

    def set_in(self, options: Any) -> None:
        """Set the time-outs in the options of one request."""
        if self._connect_limited:
            options["connection_timeout"] = self.limit
        if self._read_limited:
            options["read_timeout"] = self.limit

    def take_from(self, options: Any) -> None:
        """Remove what `set_in` has set."""
        if self._connect_limited:
            options.pop("connection_timeout", None)
        if self._read_limited:
            options.pop("read_timeout", None)

    def ended_by_limit(self, error: BaseException) -> bool:
        """Whether a time-out was that of `limit`, and not one that the caller has set."""
        if is_connect_timeout(error) or self._one:
            return self._connect_limited
        return self._read_limited

    def within(self, error: BaseException) -> float | None:
        """How many seconds a time-out has lasted, where that is known."""
        seconds = self.connect if is_connect_timeout(error) else self.read
        return seconds if isinstance(seconds, (int, float)) else None

    @property
    def end_by_limit(self) -> bool:
        """Whether each wait ends by `limit`."""
        return self._connect_limited and (self._read_limited or self._one)

    @property
    def silence(self) -> float | None:
        """Seconds that may be waited for a body beside what its bytes take; None: for ever."""
        return 2 * self.read if isinstance(self.read, (int, float)) else None


class NoPlace:
    """Takes the place of a permit for an attempt that the circuit does not count."""

    is_probe = False
    is_last_resort = True

    def succeeded(self, _seconds: float | None = None) -> None:
        """It does not count."""

    def failed(self, _error: BaseException) -> None:
        """It does not count."""

    def released(self) -> None:
        """It does not count."""


class Attempt:
    """One request to one endpoint, under one permit of its circuit.

    The permit is settled once: by `succeeded` when the answer is complete, which for a streamed body is at its last
    byte; by `failed`; or by `released`, if the attempt says nothing about the endpoint.

    Args:
        location: The endpoint that is asked.
        permit: A permit of its circuit. `NoPlace`: the circuit does not count the attempt.
        timeouts: The time-outs of the request.
        silence: Seconds for the `Deadline` of a body. None: no limit.
        abandoned: Takes the permit of an attempt that was never settled.
    """

    __slots__ = (
        "_abandoned",
        "_began",
        "_error",
        "_permit",
        "_queued",
        "_status",
        "insertion",
        "is_outpaced",
        "latency",
        "location",
        "race",
        "run",
        "silence",
        "timeouts",
    )

    def __init__(
        self,
        location: str,
        permit: Permit | NoPlace,
        timeouts: Timeouts,
        silence: float | None,
        abandoned: deque[Permit | NoPlace],
    ) -> None:
        self.location = location
        self.is_outpaced = False  # whatever policies have made of the error that said so
        self.timeouts = timeouts
        self.latency = 0.0
        self.insertion: object = None
        self._permit: Permit | NoPlace | None = permit
        self.race: Race | None = None
        self.run: Run | None = None
        self.silence = silence
        self._abandoned = abandoned
        self._error: BaseException | None = None
        self._status: int | None = None
        self._queued = False
        self._began = 0.0

    def __del__(self) -> None:
        # A body that nobody reads to its end says nothing about the endpoint. The garbage collector may be what calls
        # this, in a thread that holds the circuit's lock: so the permit is only put aside here.
        if self._permit is not None:
            self._abandoned.append(self._permit)

    def begins(self, insertion: object) -> None:
        """A request goes down the pipeline. insertion: which one of the probe it is to meet."""
        self.insertion = insertion
        self._error = self._status = None
        self.is_outpaced = False
        if self.run is None:
            self._began = 0.0

    # --- what the transport does, told by the probe -------------------------------------------------------------

    def sent(self, transport: Any) -> None:
        """The transport is about to get the request."""
        self.is_outpaced = False
        if self.run is None:
            self._queued = _sdk.waits_for_connection(transport)
            self._began = time.perf_counter()

    def answered(self, response: PipelineResponse[Any, Any]) -> None:
        """The transport has returned an answer, whose body may not have arrived yet."""
        self.latency = 0.0 if self._queued else time.perf_counter() - self._began
        http = response.http_response
        self._status = http.status_code  # not the response, which may lead back here
        _sdk.set_location(http, self.location)
        if self.silence is not None:
            _sdk.time_socket_reads(http, Deadline(self.silence).spent)

    def raised(self, error: BaseException, transport: Any) -> None:
        """The transport has raised an error."""
        self._error = None if _sdk.is_closed(transport) else error  # by its owner, which is nobody's failure
        self.is_outpaced = isinstance(error, Outpaced)

    def hold(self, run: Run | None) -> None:
        """Its request is on its way in a race; None: it has come back."""
        self.run = run

    # --- what came of it ----------------------------------------------------------------------------------------

    def is_to_blame(self, error: BaseException) -> bool:
        """Whether the endpoint caused what the pipeline has raised."""
        ours, self._error = self._error, None
        if error is ours:
            return is_endpoint_failure(error)
        # A policy that read the body: it broke off. After a 401 it is rather a sign-in that failed.
        return self._status not in (None, 401) and is_body_failure(error)

    def lost(self, run: Run, *, patience: float, limit: float) -> None:
        """Another endpoint has answered the read before; `run` has come back since, or has not within `limit` seconds.

        patience: seconds that a probe may take to be a success all the same.
        """
        http = None if run.response is None else run.response.http_response
        permit = self._permit
        if isinstance(permit, Permit):
            slow = permit.breaker.policy.timeout
            if not run.is_done:
                self.failed(f"no answer within {limit:g} s")
            elif run.error is not None:
                # Of a pooled connection that went stale, too, this is all that is heard.
                if is_endpoint_failure(run.error) and not is_reset(run.error):
                    self.failed(Failure.of_error(run.error, self.timeouts).cause)
            elif http is not None and is_failure_status(http.status_code):
                self.failed(describe_status(http.status_code, http.reason, http.headers), http)
            elif (permit.is_probe and run.seconds <= patience) or (slow is not None and run.seconds > slow):
                self.latency = 0.0 if self._queued else run.seconds
                self.succeeded()
            self.released()
        if http is not None:
            _sdk.close(http)

    @property
    def age(self) -> float:
        """Seconds since its request was sent."""
        return time.perf_counter() - self._began

    @property
    def was_probed(self) -> bool:
        """Whether its request has passed the probe."""
        return self._began > 0

    def was_reset(self, error: BaseException) -> bool:
        """Whether the connection went away before a byte of the answer: one of the pool may have been stale."""
        return error is self._error and is_reset(error)

    @property
    def is_probe(self) -> bool:
        """Whether it decides if a half-open circuit closes."""
        return self._permit is not None and self._permit.is_probe

    @property
    def is_last_resort(self) -> bool:
        """Whether the circuit would have refused it."""
        return self._permit is not None and self._permit.is_last_resort

    @property
    def is_open(self) -> bool:
        """Whether its permit has not been settled yet."""
        return self._permit is not None

    def succeeded(self) -> None:
        """The endpoint has answered completely."""
        permit, self._permit = self._permit, None
        if permit is not None:
            permit.succeeded(self.latency)

    def failed(self, cause: str, response: Any = None) -> None:
        """The endpoint did not answer. `cause` says why; `response` may ask not to be called for a while."""
        permit, self._permit = self._permit, None
        if permit is not None:
            permit.failed(FailureReported(cause, retry_after=retry_after_of(response)))

    def released(self) -> None:
        """It says nothing about the endpoint."""
        permit, self._permit = self._permit, None
        if permit is not None:
            permit.released()


class Failure:
    """Why an endpoint did not answer a read.

    Attributes:
        cause: A few words without secrets.
        error: What the transport raised, for the SDK's retry to handle. None: `response` is what it handles.
        response: The pipeline's response, if there was one that is not used as the answer.
        is_refusal: The endpoint was not asked.
        is_final: The SDK's retry would not try again: it handles no other errors than `AzureError`, and the SDK reads
            some bodies only after it.
    """

    __slots__ = ("_told", "cause", "error", "is_final", "is_refusal", "response")

    def __init__(
        self,
        cause: str,
        *,
        error: BaseException | None = None,
        response: PipelineResponse[Any, Any] | None = None,
        told: Exception | None = None,
        is_refusal: bool = False,
    ) -> None:
        self.cause = cause
        self.is_refusal = is_refusal
        self.is_final = False
        self.error = error
        self.response = response
        self._told = told

    @classmethod
    def of_error(cls, error: BaseException, timeouts: Timeouts) -> Failure:
        """Of an error of the transport, or of who read a body, which may let the transport's own errors through."""
        cause = failure_cause(error, timeouts.within(error) if is_timeout(error) else None)
        if isinstance(error, AzureError):
            return cls(cause, error=error)
        failure = cls(cause, error=(ServiceResponseTimeoutError if is_timeout(error) else IncompleteReadError)(cause))
        failure.is_final = True
        return failure

    @classmethod
    def of_refusal(cls, cause: str, error: Exception | None = None) -> Failure:
        """Of an endpoint that was not asked."""
        return cls(cause, error=forget_context(ServiceRequestError(cause)), told=error, is_refusal=True)

    @classmethod
    def of_status(cls, response: PipelineResponse[Any, Any]) -> Failure:
        """Of an answer whose status says no."""
        http = response.http_response
        return cls(describe_status(http.status_code, http.reason, http.headers), response=response)

    def as_told(self) -> Exception | None:
        """The error that the SDK would raise for it, with a text that holds no secret."""
        if self._told is not None or (self.error is None and self.response is None):
            return self._told
        if self.error is None:
            http = self.response.http_response if self.response is not None else None
            error = forget_context(HttpResponseError(self.cause))
            error.response, error.reason = http, self.cause
            error.status_code = getattr(http, "status_code", None)
            self._told = error
        else:
            kind = next((each for each in _RAISED if isinstance(self.error, each)), ServiceResponseError)
            self._told = forget_context(kind(self.cause))
        return self._told


class Probe(HTTPPolicy[Any, Any]):
    """The last policy before the transport. It reports to an `Attempt` what the transport does with its request."""

    def send(self, request: Any) -> Any:
        """Send the request on."""
        attempt: Attempt | None = request.context.get(ATTEMPT)
        if attempt is None:
            return self.next.send(request)
        attempt.sent(request.context.transport)
        try:
            if attempt.race is None:
                response = self.next.send(request)
            else:
                send = functools.partial(self.next.send, _aside(request))
                response = _here(request, run_sync(attempt.race.send(attempt.run, send, attempt.hold)))
        except BaseException as error:
            attempt.raised(error, request.context.transport)
            raise
        attempt.answered(response)
        return response


class AsyncProbe(AsyncHTTPPolicy[Any, Any]):
    """`Probe` in an event loop."""

    async def send(self, request: Any) -> Any:
        """Send the request on."""
        attempt: Attempt | None = request.context.get(ATTEMPT)
        if attempt is None:
            return await self.next.send(request)
        attempt.sent(request.context.transport)
        try:
            if attempt.race is None:
                response = await self.next.send(request)
            else:
                send = functools.partial(self.next.send, _aside(request))
                response = _here(request, await attempt.race.send(attempt.run, send, attempt.hold))
        except BaseException as error:
            attempt.raised(error, request.context.transport)
            raise
        attempt.answered(response)
        return response


def _aside(request: PipelineRequest[Any]) -> PipelineRequest[Any]:
    """The same request, with options that stay as they are while it is under way."""
    context = PipelineContext(request.context.transport, **request.context.options)
    return PipelineRequest(request.http_request, context)


def _here(request: PipelineRequest[Any], response: PipelineResponse[Any, Any]) -> PipelineResponse[Any, Any]:
    """What came of it, for the policies that have sent `request`."""
    return PipelineResponse(response.http_request, response.http_response, request.context)
