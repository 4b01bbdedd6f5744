"""GeoFailover: the SDK retry policy that keeps reads alive when the primary dies."""

from __future__ import annotations

from typing import Any

from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import AsyncHTTPPolicy, HTTPPolicy
from azure.storage.blob import ExponentialRetry

from failover.storage.body import ThreadBody
from failover.storage.calls import ThreadCalls, finish
from failover.storage.geo_policy import PRODUCTION, GeoPolicy, SigningErrors
from failover.storage.pace import timed

__all__ = ["PRODUCTION", "GeoFailover"]


class _WriteRetry(SigningErrors, ExponentialRetry):
    """The SDK's own retry."""


class GeoFailover(GeoPolicy, HTTPPolicy[Any, Any]):
    """A `retry_policy=` for `BlobServiceClient` and `QueueServiceClient` of an RA-GRS or RA-GZRS account.

    A read (GET and HEAD, but for receiving queue messages) asks the primary; where that fails, it is tried again
    up to `primary_attempts` times while the primary's circuit is closed, and then answered by the secondary. Once
    the circuit is open, reads go straight to the secondary, until a probe finds the primary well. What a read from
    the secondary returns may be older than what the primary holds: see `max_staleness`. What cannot be the service's
    own answer (a proxy's page, another range or version than asked for, redirects in circles) is a failure too. All
    else than reads goes to the primary, is retried as the SDK does, and neither asks nor feeds the circuits.

    primary, secondary: circuits to use, for instance those of another client's policy, to share what is known.
    policy: for the circuits that are not given. Default: `PRODUCTION`. Its `timeout` (seconds): an answer whose
        headers take longer is used and counts as a failure. Its `classify` is not asked: see
        `failover.storage.causes`.
    primary_attempts: tries at one endpoint within one read, from 1; None: until its circuit opens, at most 10.
    backoff: seconds from one try to the next, from 0.
    attempt_timeout: seconds without a byte after which one try is given up, above 0; a time-out is not tried again
        within its read. `connection_timeout` and `read_timeout` of a single call go first. An answer that trickles
        is given up too: the headers after four times as long, a body after twice as long and a second for each
        8 KiB, which is taken of 256 KiB at a time and leaves out what its reader takes (of an answer that is no
        stream, such as a page of a listing, both and 512 s). The time to look up a name is the system's.
    max_staleness: seconds, above 0; the secondary is refused when its Last Sync Time is older or cannot be had.
    listeners: callables that take each `Retry`, `ReadEnded` and `Transition`, in the thread in which it happens.

    Raises `ValueError` for values out of range, and when one object is given to a second service client: azure-core
    keeps the rest of the pipeline on it, so that the second client's requests would be signed with the first one's
    credential. Let clients share circuits instead: `GeoFailover(first.primary, first.secondary)`.

    A read raises `BothEndpointsDown` or `NotReplicated` (both plain `AzureError`s) where no endpoint can answer.
    """

    _not_after = AsyncHTTPPolicy
    _body = ThreadBody
    _make_calls = ThreadCalls
    _make_write_retry = _WriteRetry

    def send(self, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
        """Answer a request of the client's: a read from either endpoint, all else from the primary."""
        read = self._begin(request)
        if read is None:
            return self._writes.send(request)  # type: ignore[no-any-return]  # the SDK's
        if not read.begins():
            return finish(read.run())
        came: PipelineResponse[Any, Any] | BaseException
        try:
            response = timed(read.limit, self._after.send, request)[0]
        except BaseException as error:  # noqa: BLE001 (raised again, or the endpoint's)
            came = error
        else:
            if read.accepts(response):
                return response  # type: ignore[no-any-return]  # the next policy is typed Any by azure-core
            came = response
        return finish(read.go_on(came))

    def staleness(self) -> float:
        """Ask the secondary how old its Last Sync Time is, in seconds; inf where it has never synchronised.

        Writes older than that are on the secondary. The question goes to the secondary whatever the circuits say,
        and they do not learn from it. Raises `AzureError` where the secondary does not tell, and before the client
        has sent its first request.
        """
        return finish(self._ask_staleness())
