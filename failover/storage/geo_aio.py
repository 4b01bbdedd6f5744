"""AsyncGeoFailover: GeoFailover for the SDK's clients of `aio`."""

from __future__ import annotations

from typing import Any

from azure.core.pipeline import PipelineRequest, PipelineResponse
from azure.core.pipeline.policies import AsyncHTTPPolicy, HTTPPolicy
from azure.storage.blob.aio import ExponentialRetry

from failover.storage.body import LoopBody
from failover.storage.calls import LoopCalls
from failover.storage.geo_policy import GeoPolicy, SigningErrors


class _WriteRetry(SigningErrors, ExponentialRetry):
    """The SDK's own retry."""


class AsyncGeoFailover(GeoPolicy, AsyncHTTPPolicy[Any, Any]):
    """`GeoFailover` for the clients of `azure.storage.blob.aio` and `azure.storage.queue.aio`.

    All that `GeoFailover` says holds here too, and nothing blocks the event loop. Circuits may be shared between
    clients of both kinds: `AsyncGeoFailover(first.primary, first.secondary)`. Listeners are called in the loop's
    thread, and so should be quick; a shared circuit's transitions are told in the thread in which they happen. A
    read that is cancelled counts neither way. A `retry_hook` may be a coroutine function.
    """

    _not_after = HTTPPolicy
    _body = LoopBody
    _make_calls = LoopCalls
    _calls: LoopCalls
    _make_write_retry = _WriteRetry

    async def send(self, request: PipelineRequest[Any]) -> PipelineResponse[Any, Any]:
        """Answer a request of the client's: a read from either endpoint, all else from the primary."""
        read = self._begin(request)
        if read is None:
            return await self._writes.send(request)  # type: ignore[no-any-return]  # the SDK's
        if not read.begins():
            return await read.run()
        came: PipelineResponse[Any, Any] | BaseException
        watch = self._calls.watch
        wait = watch.begin(read.limit)  # and not `timed`: one more coroutine would be a tenth of what all this costs
        try:
            response = await self._after.send(request)
        except BaseException as error:  # noqa: BLE001 (raised again, or the endpoint's)
            came = watch.end(wait, error)
        else:
            watch.end(wait, None)
            if read.accepts(response):
                return response  # type: ignore[no-any-return]  # the next policy is typed Any by azure-core
            came = response
        return await read.go_on(came)

    async def staleness(self) -> float:
        """Ask the secondary how old its Last Sync Time is, in seconds; inf where it has never synchronised.

        Writes older than that are on the secondary. The question goes to the secondary whatever the circuits say,
        and they do not learn from it. Raises `AzureError` where the secondary does not tell, and before the client
        has sent its first request.
        """
        return await self._ask_staleness()
