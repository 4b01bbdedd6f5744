"""One read, from the request to the last byte of its body: which endpoint is asked, and what its answer means.

Written once, as a coroutine, for threads and event loops: see `failover.storage.calls`.
"""

from __future__ import annotations

import copy
import time
import weakref
from collections.abc import Callable
from typing import Any, Final

from azure.core.exceptions import AzureError
from azure.core.pipeline import PipelineRequest, PipelineResponse

from failover.breaker import CircuitBreaker, Permit
from failover.storage.answers import BODY_STATUSES
from failover.storage.attempts import MOST_ATTEMPTS, Attempts, Ending
from failover.storage.body import Body, Span, span_of
from failover.storage.causes import describe_status, is_endpoint_failure
from failover.storage.endpoints import PRIMARY, SECONDARY
from failover.storage.errors import BothEndpointsDown, NotReplicated
from failover.storage.events import ReadEnded
from failover.storage.guarded import guard

_NOT_THERE: Final = frozenset({404, 412})


class Read(Attempts):
    """Asks the endpoints in `order` until one answers.

    A circuit's permit is settled when the answer is whole: for a streamed body that is at its last byte, long
    after `run` has returned.
    """

    _ended = False
    _absent: str | None = None  # what the secondary said that does not hold it

    # Of the first attempt: where the circuit is calm it needs no permit.
    _circuit: CircuitBreaker
    _calm: Any = None

    # Of the body that is being read.
    _span: Span | None
    # Weak, since it leads back here: in a circle each read would wait for the garbage collector, which took a tenth of
    # a thread's reads.
    _http: Callable[[], Any]

    # --- the first attempt, of which nearly all reads need no more --------------------------------------------
    #
    # Without a coroutine: what `run` takes to begin is half of what a healthy read pays for its circuit.

    def begins(self) -> bool:
        """Whether the read may ask its first endpoint at once, for `limit` seconds. If not: `run`."""
        if self._order[0] is not PRIMARY:
            return False
        circuit = self._circuit = self._means.circuits[PRIMARY]
        self._calm = circuit.calm
        if self._calm is None:
            permit = self._permit = circuit.admit_at_once()
            if permit is None:
                return False
        if not self._target.is_as_asked:
            self._request.http_request.url = self._target.url(PRIMARY)
        self._attempts = 1
        self._asked = self._started
        return True

    def accepts(self, response: PipelineResponse[Any, Any]) -> bool:
        """Whether that is the answer, and nothing is left to wait for. If not: `go_on`."""
        self._flaw = self._examine(response, PRIMARY)
        calm = self._calm
        if calm is not None:
            if self._is_there and self._circuit.calm is calm and not self._means.heard:
                return True  # and nobody wants to know
            self._permit = Permit.late(self._circuit, calm)
        if self._flaw is not None or self._unread:
            return False
        self._take(PRIMARY)
        self._guard_body(response.http_response)
        return True

    async def go_on(self, came: PipelineResponse[Any, Any] | BaseException) -> PipelineResponse[Any, Any]:
        """`run` from where the first attempt was answered, or failed."""
        if isinstance(came, BaseException):
            if self._calm is not None:
                self._permit = Permit.late(self._circuit, self._calm)
            return await self.run(self._lose(PRIMARY, came))
        return await self.run(self._conclude(came, PRIMARY))

    async def run(self, first: Ending | None = None) -> PipelineResponse[Any, Any]:
        """The answer of the first endpoint that gives one; raises `BothEndpointsDown` or `NotReplicated`.

        first: what is left to do of the first attempt, where that was begun.
        """
        try:
            for location in self._order:
                response = await self._ask(location, first)
                first = None
                if response is None:
                    continue
                if location == SECONDARY and self._is_absence():
                    http = response.http_response
                    self._absent = describe_status(http.status_code, http.reason, http.headers)
                    await self._discard(response)
                    continue
                self._guard_body(response.http_response)
                return response
        except Exception:
            self._tell_end(None)
            raise
        self._tell_end(None)
        raise self._failure()

    def _is_absence(self) -> bool:
        """Whether the secondary has said no to a question that is the primary's to answer."""
        return PRIMARY in self._order and self._status in _NOT_THERE

    def _failure(self) -> AzureError:
        causes = {at: self._causes.get(at, "not asked, the read is bound to the other") for at in (PRIMARY, SECONDARY)}
        if self._absent is not None:
            return NotReplicated(causes[PRIMARY], self._absent)
        return BothEndpointsDown(causes[PRIMARY], causes[SECONDARY])

    # --- the end of an answer ---------------------------------------------------------------------------------

    def ended(self) -> None:
        """The read is over, well."""
        if not self._ended:
            self._ended = True
            self._settle()
            if self._means.heard:
                self._tell_end(self._location)

    def _tell_end(self, location: str | None) -> None:
        self._means.tell(ReadEnded(location, self._attempts, time.perf_counter() - self._started))

    def _guard_body(self, http: Any) -> None:
        """See to it that a streamed body arrives whole, whoever sends its rest."""
        status, headers = self._status, self._headers
        whole = self._is_there or self._digest or headers.get("content-length") == "0"
        if whole or not self._streamed or status not in BODY_STATUSES:
            self.ended()
            return
        span = span_of(status, headers)
        if "x-ms-structured-body" in headers:
            span = None  # framed with checksums of its own: two halves make no whole
        self._span = span
        self._http = weakref.ref(http)
        guard(http, self._open_body)
        if self._means.calls.read_by_pieces is not None:
            self._means.calls.read_by_pieces(http)

    def _open_body(self, way: str, chunks: Any, args: Any, kwargs: Any) -> Body:
        span = self._span
        return self._means.body(
            self._means.calls,
            self,
            chunks,
            length=None if span is None or span.encoded else span.length,
            silence=self._patience.silence,
            reopen=lambda http: getattr(http, way)(*args, **kwargs),
        )

    async def resume(self, reopen: Callable[[Any], Any], delivered: int, error: BaseException) -> tuple[Any, int]:
        """What is missing of a body of which so many bytes were delivered when `error` broke it off."""
        try:
            await self._break(error)
            return await self._rest(error, self._span, delivered, reopen)
        except Exception:
            self._tell_end(None)
            raise

    async def _break(self, error: BaseException) -> None:
        """The body broke off, or its reader was interrupted: that is raised again."""
        if self._permit is None:
            raise error
        http = self._http()
        if http is not None and is_endpoint_failure(error):
            http.internal_response.close()  # or its socket would be open for as long as the SDK keeps the answer
        await self._lose(self._location, error)

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
