"""One read, from the request to the last byte of its body: which endpoint is asked, and what its answer means.

The code exists once, as coroutines, for threads and event loops: see `failover.storage.runtime`.

The SDK's own retry surrounds `Read.failover_attempt`, which ends with an answer or with the failure that the SDK's
retry then handles. A failover attempt has up to three rounds, and each request in them goes through `_ask`:

1. The endpoints in order, as far as their circuits admit the read.
2. The last resort: the endpoints whose circuits have refused it. An open circuit may save a read a hopeless attempt,
   but not its only chance.
3. If the read's home did not answer within `attempt_timeout`, and no other endpoint answered, the request may be slow
   everywhere. It is sent to the home again, with the SDK's own time-outs.

A read's home is the endpoint that would be asked without `GeoFailover`: the primary, or the one that the read is bound
to. It is also the first in order, unless the secondary is preferred. A read loses at most twice `attempt_timeout` to
all this. After that it continues as it would without `GeoFailover`: at its home, with the SDK's own time-outs.
"""

from __future__ import annotations

import contextlib
import copy
import math
import time
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from azure.core.exceptions import AzureError, IncompleteReadError, ServiceResponseError
from azure.core.pipeline import PipelineContext, PipelineRequest, PipelineResponse

from failover.breaker import CircuitBreaker, CircuitOpen, FailureReported, Permit, State
from failover.storage import _sdk
from failover.storage.answers import (
    BODY_STATUSES,
    checks_md5,
    error_status,
    headers_of,
    is_failure_status,
    is_redirect,
    matches_md5,
    mismatch,
    wanted_range,
)
from failover.storage.attempt import ATTEMPT, Attempt, Failure, NoPlace, Timeouts
from failover.storage.body import Body, BodyTooSlow, Deadline, Span, span_of
from failover.storage.causes import is_endpoint_failure, is_timeout
from failover.storage.endpoints import PRIMARY, SECONDARY, Target
from failover.storage.errors import BothEndpointsDown, NotReplicated, StaleRead
from failover.storage.events import GeoEvent, ReadEnded, Retry
from failover.storage.hedging import Hedging, Race, Run
from failover.storage.runtime import IO
from failover.storage.session import Doubt, Tracked
from failover.storage.staleness import LastSync

MOST_ATTEMPTS: Final = 10
"""Tries at one endpoint within one failover attempt, where their number is not given; resumptions of one body."""

# What an endpoint that is not the read's home may say although that would know better: a replica that lags; a
# primary that holds another version than the one that the read began with. All else that is no body is a refusal of its
# own: a firewall, a gateway that knows no such host.
_DO_NOT_KNOW: Final = frozenset({404, 412, 416})
_LONGEST_ERROR: Final = 1024 * 1024  # bytes that are read for the sake of the connection, and of the SDK's message
_LONGEST_UNWANTED: Final = 64 * 1024  # bytes of a body that are read for the sake of the connection
_PLACE_POLL: Final = 0.05  # seconds between two looks for a last resort's place
_MOST_LOST: Final = 2  # times `attempt_timeout` by which a read may come later than without us

_Judge = Callable[[Attempt, PipelineResponse[Any, Any], Mapping[str, str]], "Failure | None"]


class GiveUp(Exception):  # noqa: N818 (it tells the SDK's retry, which knows no such error, not to try again)
    """The SDK's retry must not try again: `Read.failure` is final."""


@dataclass(frozen=True, slots=True)
class ReadContext:
    """What all reads of one policy share.

    Attributes:
        io: Of threads or of event loops.
        body: Its kind of body.
        next: The rest of the pipeline.
        insert_probe: Puts the probe before the transport, if it is not there; gives another object whenever it was not.
        circuits: By location.
        attempts: Tries at one endpoint within one failover attempt.
        repeat_last_resort: Whether a last resort has as many.
        backoff: Seconds from one try to the next.
        attempt_timeout: Seconds, for an attempt where there is another endpoint to go to.
        abandoned: Permits of bodies that nobody has read to their end.
        hedging: When reads are hedged; None: never.
        make_race: Between the requests of a hedged read; gives None where it cannot be run.
        refuses_secondary: Why a read must not have the secondary's answer; None: it may. Takes the attempt as which it
            is to ask, if it has to: where there is one, it waits for no other read that asks.
        last_sync: What is known of the secondary's Last Sync Time.
        has_synced: Whether that has reached a time; asks for it, if need be, as the attempt that it takes, as above.
        dispatch: Tells the listeners.
        is_heard: Whether there are any.
    """

    io: IO
    body: type[Body]
    next: Any
    insert_probe: Callable[[], object]
    circuits: Mapping[str, CircuitBreaker]
    attempts: int
    repeat_last_resort: bool
    backoff: float
    attempt_timeout: float
    abandoned: deque[Permit | NoPlace]
    hedging: Hedging | None
    make_race: Callable[[float, Callable[[Run], bool]], Race | None]
    refuses_secondary: Callable[[Attempt | None], Awaitable[str | None]]
    last_sync: LastSync
    has_synced: Callable[[float, Attempt | None], Awaitable[bool]]
    dispatch: Callable[[GeoEvent], None]
    is_heard: bool


class Read:
    """One read of a client.

    Args:
        shared: What it has in common with the policy's other reads.
        request: The SDK's.
        target: Where its resource is, at each endpoint.
        order: The endpoints that it may ask, the first one first.
        home: The one of them that knows best: its "no" is an answer, and what it fails with is for the SDK to judge.
        streamed: Its answer's body is read by the caller, in pieces.
        hedge_after: Seconds without an answer after which the next endpoint is asked too, inf: only where it is a
            probe that has none; None: never.
        tracked: Its resource, where its answer must be no older than what was read or written before.
    """

    failure: AzureError | None = None
    """Why the last failover attempt gave no answer, where the SDK has no error that tells it."""

    _requests = 0
    _lost = 0.0  # seconds, of time-outs of `attempt_timeout` and of waiting for a last resort's place
    _resumptions = 0
    _resumed_at = -1  # bytes that had been delivered when the body broke off last
    _fruitless = 0  # resumptions in a row that have brought nothing
    _ended = False
    _is_hedged = False
    _given: Mapping[str, Any] | None = None  # the options of its first request
    _attempt: Attempt | None = None  # whose answer is being read
    _span: Span | None = None
    # Weak, since it leads back here: in a circle each read would wait for the garbage collector.
    _http: Callable[[], Any]

    def __init__(
        self,
        shared: ReadContext,
        request: PipelineRequest[Any],
        target: Target,
        order: tuple[str, ...],
        home: str,
        streamed: bool,
        hedge_after: float | None = None,
        tracked: Tracked | None = None,
    ) -> None:
        self._shared = shared
        self._request = request
        self._target = target
        self._order = order
        self._home = home
        self._streamed = streamed
        self._hedge_after = hedge_after
        self._has_body = streamed or request.http_request.method != "HEAD"
        self._tracked = tracked
        self._absent: str | None = None  # what the secondary said that does not hold it, or holds what is older
        self._doubt: Doubt | None = None  # of an answer that is older
        self._synced_to = 0.0  # the Last Sync Time that was known before the secondary was asked
        self._too_slow: set[str] = set()  # endpoints whose bodies came too slowly
        self._began_open = shared.circuits[PRIMARY].state is not State.CLOSED
        self._patience = 0.0 if hedge_after is None else hedge_after
        self._most_lost = _MOST_LOST * shared.attempt_timeout
        self._started = time.perf_counter()

    def _forget(self) -> None:
        """Begin a new round, and discard what the last one found."""
        self._failures: dict[str, Failure] = {}
        self._refused: list[str] = []  # endpoints whose circuits did not admit it
        self._last_resorts: set[str] = set()  # endpoints that were asked although their circuits did not
        self._done: set[str] = set()  # endpoints of which another try would say the same
        self._stale: dict[str, Failure | None] = {}  # of an endpoint's first reset; None: that has been counted
        self._tries: dict[str, int] = {}  # requests to each endpoint
        self._timed_out: dict[str, Attempt] = {}  # what that means shows when another endpoint has answered, or not

    # --- which endpoint is asked --------------------------------------------------------------------------------

    async def failover_attempt(self) -> PipelineResponse[Any, Any]:
        """Return the first answer of an endpoint, or else the response that the SDK's retry is to handle.

        Raises:
            AzureError: The failure that the SDK's retry is to handle; `failure` describes it.
            GiveUp: The same, but the SDK must not try again.
        """
        self.failure = self._attempt = None
        self._forget()
        response = await self._first_answer(self._order, self._judge)
        if response is not None:
            return response
        if self._is_pointless():
            self._settle_timeouts(slow_question=False)
            self.failure = self._explain()
            raise GiveUp
        if self._home in self._timed_out:
            response = await self._ask_patiently(self._timed_out.pop(self._home))
            if response is not None:
                return response
        self._settle_timeouts(slow_question=False)
        failure = self._failures[self._home]
        if len(self._order) > 1 or failure.is_refusal or self._doubt is not None:
            self.failure = self._explain()
        if failure.is_final:
            raise GiveUp from failure.error
        if failure.error is not None:
            raise failure.error
        assert failure.response is not None  # noqa: S101 (it has one or the other)
        return failure.response

    async def _first_answer(self, order: tuple[str, ...], judge: _Judge) -> PipelineResponse[Any, Any] | None:
        for location in order:
            if location in self._done or self._tries.get(location, 0) >= self._shared.attempts:  # as a hedge
                continue
            response = await self._ask(location, judge)
            if response is not None:
                return response
        for location in sorted(self._refused, key=lambda at: at is not self._home):
            response = await self._ask(location, judge, last_resort=True)
            if response is not None:
                return response
        return None

    def _is_pointless(self) -> bool:
        """Whether a retry cannot help: only the primary may have the resource, and it was down from the beginning."""
        primary = self._shared.circuits[PRIMARY]
        if self._absent is None or PRIMARY not in self._refused or not self._began_open:
            return False
        return PRIMARY in self._last_resorts or bool(primary.snapshot()["isolated"])

    async def _ask(
        self, location: str, judge: _Judge, *, last_resort: bool = False
    ) -> PipelineResponse[Any, Any] | None:
        """Ask an endpoint. Returns its answer, or None if its circuit refuses or all attempts failed."""
        shared = self._shared
        if location is SECONDARY and len(self._order) > 1:
            reason = await shared.refuses_secondary(None)
            if reason is not None:
                self._failures[location] = Failure.of_refusal(reason)
                return None
        circuit = shared.circuits[location]
        while True:
            first = location not in self._tries
            permit = await self._admit(circuit, location, last_resort=last_resort, first=first)
            if permit is None:
                return None
            can_lose = len(self._order) > 1 and self._lost + shared.attempt_timeout <= self._most_lost
            if not can_lose and location is not self._home:
                permit.released()
                self._failures[location] = Failure.of_refusal("not asked again, the read has waited long enough")
                return None
            timeouts = self._timeouts(shared.attempt_timeout if can_lose else None)
            attempt = Attempt(location, permit, timeouts, self._silence(timeouts), shared.abandoned)
            response = await self._try(attempt, judge)
            if response is not None:
                return response
            repeats = shared.repeat_last_resort if last_resort else circuit.state is State.CLOSED
            tried_enough = self._tries.get(location, 0) >= shared.attempts
            if location in self._done or permit.is_probe or not repeats or tried_enough:
                return None
            if shared.backoff:
                await shared.io.sleep(self._request.context.transport, shared.backoff)

    async def _admit(
        self, circuit: CircuitBreaker, location: str, *, last_resort: bool, first: bool
    ) -> Permit | NoPlace | None:
        """A permit to ask the endpoint.

        A last resort that finds no place waits for those that have one, and then asks, whatever they found. If none of
        them has finished when their places are free again, it asks too: the endpoint is slow and may still answer.
        """
        waited, longest = 0.0, circuit.policy.probe_lease - _PLACE_POLL
        while True:
            try:
                permit = circuit.admit(last_resort=last_resort)
            except CircuitOpen as error:
                refusal = error
            else:
                if last_resort:
                    self._last_resorts.add(location)
                return permit
            if not last_resort or not first or location is not self._home or circuit.snapshot()["isolated"]:
                break
            if waited >= longest:
                return NoPlace()
            await self._shared.io.sleep(self._request.context.transport, _PLACE_POLL)
            waited += _PLACE_POLL
            self._lost += _PLACE_POLL
        if first and location not in self._refused:
            self._refused.append(location)
            last = refusal.last_error
            # A circuit that is used elsewhere too may hold an error of which only the name is safe to tell.
            words = str(last) if isinstance(last, FailureReported) else type(last).__name__
            state = "ramping" if circuit.state is State.CLOSED else circuit.state.value
            cause = f"circuit {state}" + ("" if last is None else f" after {words}")
            self._failures[location] = Failure.of_refusal(cause, refusal)
        return None

    def _timeouts(self, limit: float | None) -> Timeouts:
        context = self._request.context
        return Timeouts(context.options, context.transport, limit)

    def _silence(self, timeouts: Timeouts) -> float | None:
        """Seconds for the deadline of a streamed body. None: no other endpoint could send it faster."""
        slow_everywhere = len(self._order) == 1 or self._too_slow.issuperset(self._order)
        return None if slow_everywhere or not self._streamed else timeouts.silence

    # --- one attempt --------------------------------------------------------------------------------------------

    async def _try(self, attempt: Attempt, judge: _Judge) -> PipelineResponse[Any, Any] | None:
        """The endpoint's answer to one request. None: it failed, and its circuit has counted that."""
        attempt.race = self._make_race(attempt)
        if attempt.race is not None:
            return await self._try_hedged(attempt, attempt.race, judge)
        return await self._came(attempt, *await self._send(attempt), judge)

    def _make_race(self, attempt: Attempt) -> Race | None:
        """A race for an attempt that may be hedged. None: it may not, or the read has lost as much time as it may."""
        after = 0.0 if attempt.is_probe and self._hedge_after is not None else self._hedge_after
        if after is None or math.isinf(after) or attempt.timeouts.limit is None:
            return None
        if attempt.location is not self._order[0] or attempt.is_last_resort:
            return None
        return self._shared.make_race(after, _is_good)

    async def _try_hedged(self, leader: Attempt, race: Race, judge: _Judge) -> PipelineResponse[Any, Any] | None:
        """Like `_try`, but if this endpoint does not answer soon, the next one is asked too."""
        options = dict(self._request.context.options)  # of which policies take out what they know
        hedge: Attempt | None = None
        try:
            response, error = await self._send(leader)
            if leader.is_outpaced:
                race.after = None
                hedge = await self._make_hedge(leader, race)
                if hedge is not None:
                    answer = await self._hedged(hedge, _copy_of(self._request, options), judge)
                    if answer is not None:
                        return answer
                while leader.is_outpaced:
                    response, error = await self._send(leader, _copy_of(self._request, options))
            answer = await self._came(leader, response, error, judge)
            if answer is None and hedge is not None and hedge.run is not None:
                # It came first, but is no answer: a replica that lags. The other one is still on its way.
                answer = await self._hedged(hedge, _copy_of(self._request, options), judge)
        except BaseException:  # it was cancelled, say: nobody waits for what is under way
            leader.released()
            raise
        else:
            return answer
        finally:
            if hedge is not None and hedge.run is not None:
                self._drop(race, hedge, hedge.run)
            if leader.run is not None:
                self._watch(race, leader, leader.run)

    async def _hedged(
        self, hedge: Attempt, request: PipelineRequest[Any], judge: _Judge
    ) -> PipelineResponse[Any, Any] | None:
        """The answer of the next endpoint. None: it has not answered, or too late."""
        response, error = await self._send(hedge, request)
        if hedge.is_outpaced:
            return None
        with contextlib.suppress(Exception):  # its sign-in fails, say: the first endpoint's may not
            return await self._came(hedge, response, error, judge)
        return None

    async def _make_hedge(self, leader: Attempt, race: Race) -> Attempt | None:
        shared, location = self._shared, self._order[1]
        assert shared.hedging is not None  # noqa: S101 (there is a race)
        try:
            permit = shared.circuits[location].admit()
        except CircuitOpen:
            return None
        timeouts = self._timeouts(shared.attempt_timeout)
        hedge = Attempt(location, permit, timeouts, self._silence(timeouts), shared.abandoned)
        hedge.race = race
        if not shared.hedging.take(is_probe=leader.is_probe) or not await self._may_be_asked(location, timeouts, race):
            hedge.released()
            return None
        self._hedge_after = None
        self._is_hedged = True
        return hedge

    async def _may_be_asked(self, location: str, timeouts: Timeouts, race: Race) -> bool:
        """Whether an endpoint is recent enough; if it has to tell, the first one may answer meanwhile."""
        if location is not SECONDARY:
            return True
        with self._question(timeouts, race) as question, contextlib.suppress(Exception):  # its sign-in fails, say
            return await self._shared.refuses_secondary(question) is None
        return False

    @contextlib.contextmanager
    def _question(self, timeouts: Timeouts, race: Race) -> Iterator[Attempt]:
        """An attempt to ask for the Last Sync Time. It ends by `Outpaced` when the other endpoint answers the read."""
        question = Attempt(SECONDARY, NoPlace(), timeouts, None, self._shared.abandoned)
        question.race = race
        try:
            yield question
        finally:
            if question.run is not None:
                self._drop(race, question, question.run)

    def _drop(self, race: Race, attempt: Attempt, run: Run) -> None:
        """Abandon a request whose outcome does not matter."""
        attempt.released()
        run.when_done(_close_run)
        race.stop(run)

    def _watch(self, race: Race, leader: Attempt, run: Run) -> None:
        """Let the circuit count the outcome of a request whose read has been answered, without delaying the caller."""
        if not leader.is_open:  # the read was cancelled
            self._drop(race, leader, run)
            return
        patience, limit = self._patience, self._shared.attempt_timeout

        def learn(run: Run) -> None:
            leader.lost(run, patience=patience, limit=limit)

        def expire() -> None:
            run.expires(_close_run)
            race.stop(run)

        run.when_done(learn)
        if not leader.timeouts.end_by_limit and not run.is_done:
            race.later(max(0.0, limit - run.age), expire)

    async def _came(
        self,
        attempt: Attempt,
        response: PipelineResponse[Any, Any],
        error: BaseException | None,
        judge: _Judge,
    ) -> PipelineResponse[Any, Any] | None:
        """The outcome of a request."""
        if error is not None:
            self._on_error(attempt, error)
            return None
        if self._shared.hedging is not None and (attempt.race is not None or attempt.location is self._order[0]):
            self._shared.hedging.learn(attempt.age)
        return await self._on_answer(attempt, response, judge)

    async def _ask_patiently(self, attempt: Attempt) -> PipelineResponse[Any, Any] | None:
        """Ask an endpoint that did not answer in time again, with the SDK's own time-outs."""
        attempt.timeouts = self._timeouts(None)
        attempt.silence = self._silence(attempt.timeouts)
        self._done.discard(attempt.location)
        return await self._try(attempt, self._judge_patiently)

    async def _send(
        self, attempt: Attempt, request: PipelineRequest[Any] | None = None
    ) -> tuple[PipelineResponse[Any, Any], BaseException | None]:
        request = request or self._request
        response, error = await self._send_once(attempt, request)
        if error is not None and attempt.was_reset(error) and attempt.location not in self._stale:
            # A connection that went stale in the pool is no outage: what a new one comes to will tell.
            self._stale[attempt.location] = Failure.of_error(error, attempt.timeouts)
            _sdk.drop_idle_connections(request.context.transport)
            response, error = await self._send_once(attempt, request)
        return response, error

    async def _send_once(
        self, attempt: Attempt, request: PipelineRequest[Any]
    ) -> tuple[PipelineResponse[Any, Any], BaseException | None]:
        url = self._target.url(attempt.location)
        if request.http_request.url != url:
            request.http_request.url = url
        if attempt.run is None:  # else it has been sent before
            self._requests += 1
            self._tries[attempt.location] = self._tries.get(attempt.location, 0) + 1
        if self._tracked is not None and attempt.location is SECONDARY:
            self._synced_to = self._shared.last_sync.synced_to
        attempt.begins(self._shared.insert_probe())
        request.context[ATTEMPT] = attempt
        options = request.context.options
        before = dict(options)
        if self._given is None:
            self._given = before
        else:
            _sdk.forget_progress(request.context, self._given)
        attempt.timeouts.set_in(options)
        try:
            response = await self._shared.io.send(self._shared.next, request)
        except BaseException as error:  # noqa: BLE001 (raised again, or the endpoint's)
            # Policies take out what is theirs, the caller's hook say, and keep it for another try only after an answer.
            options.update(before)
            # It may have been cancelled since.
            attempt.is_outpaced = attempt.is_outpaced and isinstance(error, Exception)
            return None, error  # type: ignore[return-value]  # one or the other
        else:
            attempt.is_outpaced = False  # a policy has an answer of its own
            return response, None
        finally:
            attempt.timeouts.take_from(options)
            request.context.pop(ATTEMPT, None)

    def _on_error(self, attempt: Attempt, error: BaseException) -> None:
        if (
            not attempt.was_probed
            and self._shared.insert_probe() is not attempt.insertion
            and is_endpoint_failure(error)
        ):
            # A sub-client that was made meanwhile took the probe away: nobody knows whose doing it was.
            attempt.released()
        elif not attempt.is_to_blame(error):
            attempt.released()
            raise error
        self._blame(attempt, error)

    def _blame(self, attempt: Attempt, error: BaseException) -> None:
        """Count that the endpoint did not answer through its own fault."""
        self._failures[attempt.location] = failure = Failure.of_error(error, attempt.timeouts)
        if is_timeout(error):
            self._done.add(attempt.location)  # it would take as long again
        if self._lost_by(attempt, error):
            self._timed_out[attempt.location] = attempt
        else:
            self._fail(attempt, failure)

    def _lost_by(self, attempt: Attempt, error: BaseException) -> bool:
        """Count what a time-out has cost the read beside those that it would have met without us.

        Returns:
            Whether nobody but us has set it.
        """
        ours = is_timeout(error) and attempt.timeouts.ended_by_limit(error)
        if ours or (is_timeout(error) and attempt.location is not self._home):
            self._lost += attempt.timeouts.within(error) or self._shared.attempt_timeout
        return ours

    async def _on_answer(
        self, attempt: Attempt, response: PipelineResponse[Any, Any], judge: _Judge
    ) -> PipelineResponse[Any, Any] | None:
        http, location = response.http_response, attempt.location
        headers = headers_of(http)
        failure = self._flaw(http, headers, response)
        # The SDK reads these bodies as one, before it looks at the digest or raises: a break must show here.
        digest = checks_md5(self._request.context, headers)
        if (
            failure is None
            and self._has_body
            and (digest or (self._streamed and http.status_code not in BODY_STATUSES))
        ):
            try:
                await self._load(attempt, http, headers)
            except BaseException as error:
                if not is_endpoint_failure(error) and not isinstance(error, OSError):
                    attempt.released()
                    raise
                self._blame(attempt, error)
                self._failures[location].is_final |= not digest  # the SDK reads it behind its retry
                return None
            if digest and not matches_md5(http, headers):
                cause = "the body does not match its MD5"
                failure = Failure(cause, error=IncompleteReadError(cause))
        if failure is not None:
            self._failures[location] = failure
            self._fail(attempt, failure, http)
            await self._drain(attempt, http, headers)
            return None
        tracked = self._tracked
        if tracked is not None and tracked.is_newest(headers):
            tracked = None  # nothing to doubt, and nothing to remember
        if tracked is not None and await self._is_older(tracked, attempt, http, headers):
            return None
        failure = judge(attempt, response, headers)
        if failure is not None:
            self._failures[location] = failure
            self._done.add(location)
            await self._drain(attempt, http, headers)
            return None
        if tracked is not None:
            tracked.answered(location, http.status_code, headers)
        return response

    async def _is_older(self, tracked: Tracked, attempt: Attempt, http: Any, headers: Mapping[str, str]) -> bool:
        """Whether the secondary's answer is not used because it may be older than what was read or written before."""
        if attempt.location is not SECONDARY or self._resumptions:  # whose rest is of the version that was begun
            return False
        is_bound = self._home is SECONDARY
        is_last_word = is_bound or self._is_last_word(http.status_code, headers)
        doubt = tracked.doubt(http.status_code, headers, is_last_word=is_last_word)
        if doubt is None or doubt.settled_at <= self._synced_to:
            return False
        cause = doubt.told()
        self._failures[SECONDARY] = failure = Failure(cause, error=ServiceResponseError(cause))
        failure.is_final = is_bound
        self._absent, self._doubt = cause, doubt
        attempt.succeeded()
        await self._drain(attempt, http, headers)
        # A Last Sync Time that is learnt now says nothing of the answer that was given before: it is asked for again.
        if math.isinf(doubt.settled_at) or not await self._has_synced(doubt.settled_at, attempt):
            self._done.add(SECONDARY)
        return True

    async def _has_synced(self, time: float, attempt: Attempt) -> bool:
        race = attempt.race
        if race is None or race.after is not None:  # no other request is under way that the question could delay
            return await self._shared.has_synced(time, None)
        with self._question(attempt.timeouts, race) as question, contextlib.suppress(Exception):  # as above
            return await self._shared.has_synced(time, question)
        return False

    def _flaw(self, http: Any, headers: Mapping[str, str], response: PipelineResponse[Any, Any]) -> Failure | None:
        """Why an answer counts as none, where its head tells."""
        request = self._request.http_request
        if http.status_code not in BODY_STATUSES:
            cause = error_status(request, self._request.context, http, headers)
        elif self._streamed and not self._resumptions:  # what goes on where a body broke off is judged by `_continues`
            cause = mismatch(request.headers, headers)
        else:
            cause = None
        if cause is None:
            return None
        if is_failure_status(http.status_code):
            return Failure(cause, response=response)
        return Failure(cause, error=ServiceResponseError(cause))

    def _judge(
        self, attempt: Attempt, response: PipelineResponse[Any, Any], headers: Mapping[str, str]
    ) -> Failure | None:
        """Take an answer; or say why it is none, although the endpoint is well."""
        http, location = response.http_response, attempt.location
        status = http.status_code
        if location is not self._home and not self._is_last_word(status, headers):
            failure = Failure.of_status(response)
            if status not in _DO_NOT_KNOW:
                attempt.released()
                return failure
            if location is SECONDARY:
                self._absent, self._doubt = failure.cause, None
            attempt.succeeded()
            return failure
        self._settle_timeouts(slow_question=False)
        self._failures = {}  # whose errors' frames lead back here
        self._attempt = attempt
        if is_redirect(status, headers):
            attempt.released()  # no answer yet: where it leads to will tell
        self._guard_body(http, headers)
        return None

    def _is_last_word(self, status: int, headers: Mapping[str, str]) -> bool:
        """Whether an endpoint that is not the read's home may say so: a body, or that there is none to send."""
        if status == 416:  # of a range from the first byte on: the blob is empty, which is a version as any other
            wanted = wanted_range(self._request.http_request.headers)
            return wanted is not None and wanted[0] == 0
        return status < 300 or status == 304 or is_redirect(status, headers)

    def _judge_patiently(
        self, attempt: Attempt, response: PipelineResponse[Any, Any], headers: Mapping[str, str]
    ) -> Failure | None:
        """Like `_judge`, for an answer that took longer than `attempt_timeout`: the request is slow; nothing failed."""
        self._settle_timeouts(slow_question=True)
        return self._judge(attempt, response, headers)

    def _settle_timeouts(self, *, slow_question: bool) -> None:
        """Let the circuits learn of attempts that got no answer in time: whether that was the endpoint's doing."""
        waiting, self._timed_out = self._timed_out, {}
        for location, attempt in waiting.items():
            if slow_question:
                attempt.released()
            else:
                self._fail(attempt, self._failures[location])

    def _fail(self, attempt: Attempt, failure: Failure, http: Any = None) -> None:
        if not attempt.is_open:
            return
        location = attempt.location
        circuit, stale = self._shared.circuits[location], self._stale.get(location)
        if stale is not None:
            # It was the endpoint's doing after all: an attempt of its own, whose permit the repetition went on with.
            self._stale[location] = None
            if circuit.state is State.CLOSED:
                with contextlib.suppress(CircuitOpen):
                    permit = circuit.admit()
                    self._fail(Attempt(location, permit, attempt.timeouts, None, self._shared.abandoned), stale)
        if self._shared.is_heard:
            # Told before the circuit learns of it, so that its opening is told after the failure that opened it.
            now = circuit.snapshot()
            failures = now["failures"] + (now["state"] == State.CLOSED.value)
            self._shared.dispatch(Retry(location, failures, now["threshold"], failure.cause))
        attempt.failed(failure.cause, http)

    async def _load(self, attempt: Attempt, http: Any, headers: Mapping[str, str]) -> None:
        if headers.get("content-length") != "0":  # of nothing azure-core says that it has been read before
            await self._shared.io.load(http, Deadline(attempt.silence).spent)

    async def _drain(self, attempt: Attempt, http: Any, headers: Mapping[str, str]) -> None:
        """Read what little an error says, so that its connection can be used again; drop a long one.

        It stays open otherwise: the SDK may want to read it too.
        """
        length = headers.get("content-length") or "0"
        longest = _LONGEST_UNWANTED if http.status_code in BODY_STATUSES else _LONGEST_ERROR
        if not length.isdigit() or int(length) > longest:
            _sdk.close(http)
        elif self._has_body:
            try:
                await self._load(attempt, http, headers)
            except Exception:  # noqa: BLE001 (it is of no use any more, and may not even be what its headers say)
                _sdk.close(http)

    def _explain(self) -> AzureError:
        unasked = Failure("not asked, the read is bound to the other")
        primary, secondary = (self._failures.get(each, unasked) for each in (PRIMARY, SECONDARY))
        kind = BothEndpointsDown if self._absent is None else NotReplicated if self._doubt is None else StaleRead
        error = kind(
            primary.cause,
            secondary.cause,
            primary_error=primary.as_told(),
            secondary_error=secondary.as_told(),
        )
        if isinstance(error, StaleRead) and self._doubt is not None:
            error.older, error.newer = self._doubt.times()
        return error

    # --- the end of an answer -----------------------------------------------------------------------------------

    def ended(self) -> None:
        """The read is over, well."""
        if not self._ended and self._attempt is not None:
            self._attempt.succeeded()
            self.tell_end(self._attempt.location)

    def came_back(self, response: PipelineResponse[Any, Any] | None) -> None:
        """The SDK's retry is done: `response` is the answer, or a failure that the client will raise."""
        if self._attempt is None or response is None:
            self.tell_end(None)
        else:  # the SDK's retry has put its own word in that place
            _sdk.set_location(response.http_response, self._attempt.location)

    def tell_end(self, location: str | None) -> None:
        """Report to the listeners, once, which endpoint answered the read; None: neither did."""
        if not self._ended:
            self._ended = True
            if self._shared.is_heard:
                seconds = time.perf_counter() - self._started
                self._shared.dispatch(ReadEnded(location, self._requests, seconds, self._is_hedged))

    def _guard_body(self, http: Any, headers: Mapping[str, str]) -> None:
        """Make sure that a streamed body arrives completely, whichever endpoint sends the rest."""
        is_stream = self._streamed and http.status_code in BODY_STATUSES
        is_empty = headers.get("content-length") == "0"
        is_here = is_empty or checks_md5(self._request.context, headers) or _sdk.has_arrived(http)
        if not is_stream or is_here or not _sdk.wrap_stream_download(http, self._open_body):
            self.ended()
            return
        self._span = span_of(http.status_code, headers) if self._request.http_request.method == "GET" else None
        self._http = weakref.ref(http)

    def _open_body(self, way: str, chunks: Any, args: Any, kwargs: Any) -> Body:
        span = self._span
        return self._shared.body(
            self._shared.io,
            self,
            chunks,
            length=None if span is None or span.encoded else span.length,
            reopen=lambda http: getattr(http, way)(*args, **kwargs),
        )

    @property
    def silence(self) -> float | None:
        """See `failover.storage.body.Source`."""
        return None if self._attempt is None else self._attempt.silence

    async def resume(self, reopen: Callable[[Any], Any], delivered: int, error: BaseException) -> tuple[Any, int]:
        """See `failover.storage.body.Source`.

        Raises:
            BaseException: `error`, where the rest cannot be had: the SDK then begins again as it does without us.
        """
        attempt = self._attempt
        assert attempt is not None  # noqa: S101 (there is a body)
        if not attempt.is_open or not is_endpoint_failure(error):
            attempt.released()
            if isinstance(error, Exception):  # else its reader does not want the rest
                self.tell_end(None)
            raise error
        http = self._http()
        if http is not None:
            _sdk.close(http)  # or its socket would be open for as long as the SDK keeps the answer
        self._fail(attempt, Failure.of_error(error, attempt.timeouts))
        if isinstance(error, BodyTooSlow):
            self._too_slow.add(attempt.location)
        self._hedge_after = None  # the rest follows the first
        span = self._span
        if span is not None and span.length is not None and delivered >= span.length and not span.encoded:
            return None, 0
        in_vain = False
        if delivered == self._resumed_at:
            self._fruitless += 1
            in_vain = self._lost_by(attempt, error)
        else:
            self._fruitless, self._resumed_at = 0, delivered
        # Where a time-out of ours brought nothing, one more is asked, with the SDK's own.
        most = len(self._order) + in_vain
        if span is not None and self._resumptions < MOST_ATTEMPTS and self._fruitless < most:
            self._resumptions += 1
            skip = self._ask_for_rest(span, delivered)
            here = attempt.location
            order = (*(at for at in self._order if at != here), *(at for at in self._order if at == here))
            response = await self._first_answer(order, self._continues(span, delivered))
            self._settle_timeouts(slow_question=False)
            if response is not None:
                return reopen(response.http_response), skip
        self.tell_end(None)
        raise error

    def _ask_for_rest(self, span: Span, delivered: int) -> int:
        """Let the next request be for the rest of a body. Returns how many of its first bytes were delivered before."""
        # Hooks have seen the answer that the body belongs to, and count each byte once.
        options, self._given = {**(self._given or {}), "raw_response_hook": _ignore}, None
        request = copy.deepcopy(self._request.http_request)
        self._request = PipelineRequest(request, PipelineContext(self._request.context.transport, **options))
        self._forget()
        return span.ask_for_rest(request.headers, delivered)

    def _continues(self, span: Span, delivered: int) -> _Judge:
        def judge(attempt: Attempt, response: PipelineResponse[Any, Any], headers: Mapping[str, str]) -> Failure | None:
            http = response.http_response
            if not span.is_continued_by(http.status_code, headers, delivered):
                attempt.succeeded()
                return Failure.of_status(response)
            self._attempt = attempt
            self._http = weakref.ref(http)
            return None

        return judge


def _copy_of(request: PipelineRequest[Any], options: Mapping[str, Any]) -> PipelineRequest[Any]:
    """Another request for the same, while the first one is under way."""
    context = PipelineContext(request.context.transport, **options)
    for name, value in request.context.items():
        context[name] = value
    return PipelineRequest(copy.deepcopy(request.http_request), context)


def _is_good(run: Run) -> bool:
    if run.error is not None:
        return False
    status = run.response.http_response.status_code
    return status != 401 and not is_failure_status(status)  # what follows a challenge is still to be waited for


def _close_run(run: Run) -> None:
    if run.response is not None:
        _sdk.close(run.response.http_response)


def _ignore(_response: Any) -> None:
    """A hook that hears nothing."""
