"""CircuitBreaker against a model written from the design's prose, through anything that can happen in any order."""

from __future__ import annotations

import json
import math
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from failover.breaker import (
    FAILURE,
    NEUTRAL,
    AfterCalls,
    BreakerEvent,
    CallFailed,
    CallRefused,
    CircuitBreaker,
    CircuitOpen,
    ConsecutiveFailures,
    Cooldown,
    FailureRate,
    Permit,
    Policy,
    Transition,
    Verdict,
)


class SaysNothingError(Exception):
    """One that the test's classifier calls neutral."""


class BusyError(OSError):
    """A failure that may ask to be left alone."""

    def __init__(self, retry_after: int | None) -> None:
        super().__init__("busy")
        self.retry_after = retry_after


def classify(outcome: object) -> Verdict:
    if isinstance(outcome, SaysNothingError) or outcome == "nothing":
        return NEUTRAL
    if isinstance(outcome, Exception) or outcome == "bad":
        return FAILURE
    return Verdict.SUCCESS


# All seconds here are whole numbers, so that a boundary can be met exactly.
SECONDS = 10  # that a rate by time looks back on


@dataclass
class Rate:
    percent: int
    calls: int | None  # None: of the last `SECONDS`
    minimum: int

    def last(self, results: list[tuple[int, bool]], now: int) -> list[bool]:
        """Those that count now; the circuit's slices of a second are the model's seconds."""
        if self.calls is not None:
            return [failed for _, failed in results[-self.calls :]]
        return [failed for at, failed in results if at > now - SECONDS]

    def is_too_many(self, failures: int, calls: int) -> bool:
        return failures > 0 and calls >= self.minimum and 100 * failures >= self.percent * calls


@dataclass
class Rules:
    rate: Rate | None  # None: failures in a row
    threshold: int
    cooldown: int | None  # None: after `calls` calls
    factor: int
    maximum: int
    calls: int
    timeout: int | None
    max_probes: int
    successes_to_close: int
    lease: int
    ramp: int | None
    jitter: bool  # half of the cooldown at most
    failures_to_reopen: int
    dry_run: bool

    def policy(self) -> Policy:
        jitter = 0.5 if self.jitter else 0.0
        wait = Cooldown(self.cooldown, self.factor, self.maximum, jitter) if self.cooldown else AfterCalls(self.calls)
        return Policy(
            trip=self.trip(),
            recovery=wait,
            timeout=self.timeout,
            max_probes=self.max_probes,
            successes_to_close=self.successes_to_close,
            probe_lease=self.lease,
            classify=classify,
            ramp=self.ramp,
            failures_to_reopen=self.failures_to_reopen,
            dry_run=self.dry_run,
        )

    def trip(self) -> ConsecutiveFailures | FailureRate:
        if self.rate is None:
            return ConsecutiveFailures(self.threshold)
        seconds = SECONDS if self.rate.calls is None else None
        return FailureRate(self.rate.percent / 100, self.rate.calls, seconds, self.rate.minimum)

    def fewest(self) -> int:
        """Failures that can trip."""
        rate = self.rate
        if rate is None:
            return self.threshold
        return next(failures for failures in range(100) if rate.is_too_many(failures, rate.minimum))


@dataclass(eq=False)
class Held:
    """A call that was let in and has not come back."""

    began: int
    era: object
    probe: bool
    last_resort: bool = False


@dataclass
class Model:
    """What the design says of a circuit. Eras are plain objects: a new one for each change, equal to no other."""

    rules: Rules
    now: int = 1000
    dice: float = 0.0  # what the next random number is: a half or a quarter, so that sums are exact
    closed_at: int | None = None  # where it ramps from
    shortened: float = 0.0  # by jitter, the share of this cooldown
    state: str = "closed"
    era: object = field(default_factory=object)
    failures: int = 0
    results: list[tuple[int, bool]] = field(default_factory=list)  # of this era: when, and True for a failure
    asked: int = 0  # by the failure that opened the circuit
    times_opened: int = 0
    failed_recoveries: int = 0
    opened_at: int = 0
    turned_away: int = 0
    isolated: bool = False
    probes: list[Held] = field(default_factory=list)
    good_probes: int = 0
    bad_probes: int = 0
    last_resorts: list[Held] = field(default_factory=list)
    told: list[tuple[object, ...]] = field(default_factory=list)

    # --- time ---

    def wait(self) -> float | None:
        if self.state != "open" or self.isolated or self.rules.cooldown is None:
            return None
        length = self.rules.cooldown
        for _ in range(self.failed_recoveries):
            length = min(length * self.rules.factor, max(self.rules.maximum, self.rules.cooldown))
        return max(length * (1 - self.shortened), min(self.asked, self.rules.maximum))

    def left(self) -> float | None:
        wait = self.wait()
        return None if wait is None else max(0, self.opened_at + wait - self.now)

    def boundaries(self) -> list[int]:
        """Moments at which something changes by itself."""
        found = [call.began + self.rules.lease for call in (*self.probes, *self.last_resorts)]
        left = self.left()
        if left is not None:
            found.append(math.ceil(self.now + left))
        if self.closed_at is not None and self.rules.ramp is not None:
            found.append(self.closed_at + self.rules.ramp)
        return [moment for moment in found if moment > self.now]

    def share(self) -> float | None:
        """Of the calls that a ramp lets through."""
        if self.closed_at is None or self.rules.ramp is None or self.now >= self.closed_at + self.rules.ramp:
            return None
        return 0.1 + 0.9 * (self.now - self.closed_at) / self.rules.ramp

    # --- calls ---

    def ask(self, *, last_resort: bool = False) -> Held | None:
        if self.state == "open" and self._time_for_a_probe():
            self._become("half-open")
            self.probes, self.good_probes, self.bad_probes = [], 0, 0
        if self.state == "closed":
            share = self.share()
            if share is None:
                self.closed_at = None
            if share is None or self.dice < share:
                return Held(self.now, self.era, probe=False)
        if self.state == "half-open":
            alive = [probe for probe in self.probes if self.now - probe.began < self.rules.lease]
            if len(alive) < self.rules.max_probes:
                call = Held(self.now, self.era, probe=True)
                self.probes = [*alive, call]  # those whose lease is over have given up their place
                return call
        if last_resort and not self.isolated:
            alive = [call for call in self.last_resorts if self.now - call.began < self.rules.lease]
            if len(alive) < self.rules.max_probes:
                call = Held(self.now, self.era, probe=False, last_resort=True)
                self.last_resorts = [*alive, call]
                return call
        self.turned_away += self.state == "open" and not last_resort
        self.told.append(("refused", self.left(), self.failures))
        return Held(self.now, object(), probe=False) if self.rules.dry_run else None

    def _time_for_a_probe(self) -> bool:
        if self.isolated:
            return False
        if self.rules.cooldown is None:
            return self.turned_away >= self.rules.calls
        return self.left() == 0

    def come_back(self, call: Held, verdict: str, took: int | None = None, asked: int | None = None) -> None:
        seconds = self.now - call.began if took is None else took
        if verdict == "success" and self.rules.timeout is not None and seconds > self.rules.timeout:
            verdict = "failure"
        if call.last_resort:
            self._last_resort_comes_back(call, verdict)
            return
        if call.era is not self.era or (call.probe and call not in self.probes):
            return
        if call.probe:
            self.probes.remove(call)
        if verdict == "neutral":
            return
        too_many = not call.probe and self._count(verdict == "failure")
        if verdict == "failure":
            self.told.append(("failed", self.failures))
        elif call.probe:
            self.good_probes += 1
            if self.good_probes >= self.rules.successes_to_close:
                self.close()
        self.bad_probes += call.probe and verdict == "failure"
        enough = call.probe and verdict == "failure" and self.bad_probes >= self.rules.failures_to_reopen
        if too_many or enough:
            self.open(asked or 0)

    def _last_resort_comes_back(self, call: Held, verdict: str) -> None:
        if call not in self.last_resorts:
            return
        self.last_resorts.remove(call)
        if verdict == "failure":
            self.told.append(("failed", self.failures))
        elif verdict == "success" and self.state != "closed":
            self.good_probes += 1
            if self.good_probes >= self.rules.successes_to_close:
                self.close()

    def is_steady(self) -> bool:
        """Whether a success would change nothing: then a call is too cheap to remember that others are inside it."""
        bare = self.rules.rate is None and self.rules.timeout is None
        ramps = self.rules.ramp is not None and self.closed_at is not None
        return bare and self.state == "closed" and not self.failures and not ramps

    def failures_now(self) -> int:
        """Those of a time grow old by themselves."""
        if self.state != "closed" or self.rules.rate is None:
            return self.failures
        return sum(self.rules.rate.last(self.results, self.now))

    def _count(self, failed: bool) -> bool:
        """Whether the results are too bad now."""
        self.results.append((self.now, failed))
        if self.rules.rate is None:
            self.failures = self.failures + 1 if failed else 0
            return self.failures >= self.rules.threshold
        last = self.rules.rate.last(self.results, self.now)
        self.failures = sum(last)
        return self.rules.rate.is_too_many(self.failures, len(last))

    # --- changes ---

    def open(self, asked: int = 0) -> None:
        self.failed_recoveries = 0 if self.state == "closed" else self.failed_recoveries + 1
        self.times_opened += 1
        if self.state == "closed":
            self.last_resorts = []
        self._become("open")
        self._start_waiting(asked)

    def trip(self) -> None:
        if self.isolated:
            return
        if self.state == "open":
            self.era = object()
            self._start_waiting()
        else:
            self.open()
        self.last_resorts = []

    def isolate(self) -> None:
        if self.state != "open":
            self.open()
        self.isolated = True
        self.turned_away = 0
        self.last_resorts = []

    def close(self) -> None:
        self.closed_at = None if self.state == "closed" else self.now
        self.failures = 0
        self.results = []
        self.isolated = False
        self.last_resorts = []
        self._become("closed")

    def _start_waiting(self, asked: int = 0) -> None:
        self.asked = asked
        self.opened_at = self.now
        self.closed_at = None
        self.shortened = 0.5 * self.dice if self.rules.jitter else 0.0
        self.turned_away = 0
        self.probes, self.good_probes = [], 0

    def _become(self, state: str) -> None:
        if state != self.state:
            self.told.append(("transition", self.state, state))
        self.state, self.era = state, object()


def plain(event: BreakerEvent) -> tuple[object, ...]:
    if isinstance(event, Transition):
        return ("transition", event.old.value, event.new.value)
    if isinstance(event, CallFailed):
        return ("failed", event.failures)
    assert isinstance(event, CallRefused)
    return ("refused", event.retry_after, event.failures)


OUTCOMES = {
    "good": "success",
    "bad": "failure",
    "nothing": "neutral",
    "error": "failure",
    "neutral error": "neutral",
    "cancelled": "neutral",
    "interrupted": "neutral",
}
ERRORS: dict[str, type[BaseException]] = {
    "error": OSError,
    "neutral error": SaysNothingError,
    "cancelled": CancelledError,
    "interrupted": KeyboardInterrupt,
}


def in_block(breaker: CircuitBreaker, work: Callable[[str], str]) -> Callable[[str], str]:
    def block(what: str) -> str:
        with breaker:
            return work(what)

    return block


def as_generator(breaker: CircuitBreaker, work: Callable[[str], str]) -> Callable[[str], str]:
    @breaker
    def pieces(what: str) -> Generator[str, None, str]:
        yield "a piece"
        return work(what)

    def collect(what: str) -> str:
        iterator = pieces(what)
        assert next(iterator) == "a piece"
        try:
            next(iterator)
        except StopIteration as end:
            return str(end.value)
        raise AssertionError("it should have ended")

    return collect


def in_a_task(steps: Coroutine[Any, Any, str]) -> str:
    """What a coroutine gives that waits for nothing."""
    try:
        steps.send(None)
    except StopIteration as end:
        return str(end.value)
    raise AssertionError("it waited")


def awaited(way: Callable[[CircuitBreaker, Any], Callable[[str], Any]]) -> Any:
    """An async way in, as a sync one."""

    def make(breaker: CircuitBreaker, work: Callable[[str], str]) -> Callable[[str], str]:
        async def awork(what: str) -> str:
            return work(what)

        run = way(breaker, awork)
        return lambda what: in_a_task(run(what))

    return make


def in_async_block(breaker: CircuitBreaker, awork: Any) -> Callable[[str], Any]:
    async def block(what: str) -> str:
        async with breaker:
            return str(await awork(what))

    return block


def as_async_generator(breaker: CircuitBreaker, awork: Any) -> Callable[[str], Any]:
    @breaker
    async def pieces(what: str) -> AsyncIterator[str]:
        yield "a piece"
        yield await awork(what)

    async def collect(what: str) -> str:
        return [piece async for piece in pieces(what)][-1]

    return collect


FORMS: dict[str, Callable[[CircuitBreaker, Callable[[str], str]], Callable[[str], str]]] = {
    "call": lambda breaker, work: lambda what: breaker.call(work, what),
    "decorator": lambda breaker, work: breaker(work),
    "execute": lambda breaker, work: lambda what: str(breaker.execute(lambda: work(what))),
    "with": in_block,
    "generator": as_generator,
    "async call": awaited(lambda breaker, awork: lambda what: breaker.acall(awork, what)),
    "async decorator": awaited(lambda breaker, awork: breaker(awork)),
    "async execute": awaited(lambda breaker, awork: lambda what: breaker.aexecute(lambda: awork(what))),
    "async with": awaited(in_async_block),
    "async generator": awaited(as_async_generator),
}


class CircuitAgainstModel(RuleBasedStateMachine):
    @initialize(
        rules=st.builds(
            Rules,
            rate=st.none()
            | st.integers(1, 6).flatmap(
                lambda calls: st.builds(
                    Rate,
                    percent=st.sampled_from([0, 7, 25, 50, 100]),
                    calls=st.sampled_from([calls, None]),
                    minimum=st.integers(1, calls),
                )
            ),
            threshold=st.integers(1, 3),
            cooldown=st.sampled_from([None, 4, 10]),
            factor=st.sampled_from([1, 2, 3]),
            maximum=st.sampled_from([2, 15, 40]),
            calls=st.integers(1, 4),
            timeout=st.sampled_from([None, None, 3]),
            max_probes=st.integers(1, 3),
            successes_to_close=st.integers(1, 3),
            lease=st.sampled_from([2, 7]),
            ramp=st.sampled_from([None, None, 9]),
            jitter=st.booleans(),
            failures_to_reopen=st.sampled_from([1, 1, 2]),
            dry_run=st.sampled_from([False, False, False, True]),
        )
    )
    def begin(self, rules: Rules) -> None:
        self.model = Model(rules)
        self.told: list[tuple[object, ...]] = []
        self.held: list[tuple[Permit, Held]] = []
        self.last_era = 0
        self.last_state = "closed"
        self.breaker = CircuitBreaker(
            "modelled",
            rules.policy(),
            clock=lambda: float(self.model.now),
            random=lambda: self.model.dice,
            listeners=[lambda event: self.told.append(plain(event))],
        )

    # --- time ---

    @rule(seconds=st.integers(1, 12))
    def time_passes(self, seconds: int) -> None:
        self.model.now += seconds

    @rule(dice=st.sampled_from([0.0, 0.25, 0.5, 0.75]))
    def fortune_turns(self, dice: float) -> None:
        self.model.dice = dice

    @precondition(lambda self: self.model.boundaries())
    @rule(data=st.data(), past=st.sampled_from([-1, 0, 0, 1]))
    def time_passes_to_a_boundary(self, data: st.DataObject, past: int) -> None:
        moment = data.draw(st.sampled_from(self.model.boundaries()))
        self.model.now = max(self.model.now, moment + past)

    @precondition(lambda self: self.held and self.model.rules.timeout is not None)
    @rule(data=st.data(), past=st.sampled_from([0, 0, 1]))
    def time_passes_to_a_timeout(self, data: st.DataObject, past: int) -> None:
        _, call = data.draw(st.sampled_from(self.held))
        self.model.now = max(self.model.now, call.began + (self.model.rules.timeout or 0) + past)

    # --- calls that overlap ---

    @precondition(lambda self: len(self.held) < 8)
    @rule(last_resort=st.sampled_from([False, False, True]))
    def ask(self, last_resort: bool) -> None:
        call = self.model.ask(last_resort=last_resort)
        left = self.model.left()
        try:
            permit = self.breaker.admit(last_resort=last_resort)
        except CircuitOpen as refusal:
            assert call is None
            assert (refusal.name, refusal.retry_after) == ("modelled", left)  # noqa: PT017 (either end is right)
        else:
            assert call is not None
            assert (permit.is_probe, permit.is_last_resort) == (call.probe, call.last_resort)
            self.held.append((permit, call))

    @precondition(lambda self: self.held)
    @rule(data=st.data(), how=st.sampled_from(["success", "failure", "released", "cancelled", "timed"]))
    def settle(self, data: st.DataObject, how: str) -> None:
        permit, call = self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))
        if how == "success":
            permit.succeeded()
            self.model.come_back(call, "success")
        elif how == "timed":
            seconds = data.draw(st.integers(0, 5))
            permit.succeeded(seconds)
            self.model.come_back(call, "success", seconds)
        elif how == "failure":
            asked = data.draw(st.sampled_from([None, None, 1, 6, 100]))
            permit.failed(BusyError(asked))
            self.model.come_back(call, "failure", asked=asked)
        elif how == "released":
            permit.released()
            self.model.come_back(call, "neutral")
        else:
            permit.failed(CancelledError())
            self.model.come_back(call, "neutral")
        for again in (permit.succeeded, permit.released, lambda: permit.failed(OSError())):
            try:
                again()
            except RuntimeError:
                continue
            raise AssertionError("a permit was settled twice")

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def forget(self, data: st.DataObject) -> None:
        """A caller that never comes back."""
        self.held.pop(data.draw(st.integers(0, len(self.held) - 1)))

    # --- calls that come back at once, and what happens meanwhile ---

    @rule(
        form=st.sampled_from(sorted(FORMS)),
        outcome=st.sampled_from(sorted(OUTCOMES)),
        takes=st.sampled_from([0, 0, 0, 2, 3, 4]),
        meanwhile=st.sampled_from([None, None, None, None, "trip", "reset", "isolate"]),
        inside=st.sampled_from([None, None, *sorted(FORMS)]),
        inner_outcome=st.sampled_from(["good", "error", "neutral error"]),
    )
    def call(
        self, form: str, outcome: str, takes: int, meanwhile: str | None, inside: str | None, inner_outcome: str
    ) -> None:
        if ("with" in form or form == "async generator") and outcome in ("bad", "nothing"):
            outcome = "good"  # neither has a result that could be judged
        if form.startswith("async") and self.model.rules.timeout is not None:
            form = form.removeprefix("async ")  # a loop's own time decides then: see test_async.py
        if "generator" in form and takes > (self.model.rules.timeout or takes):
            takes = 0  # its time is its reader's too, so the time-out does not apply to it
        if inside is not None and inside.startswith("async") != form.startswith("async"):
            inside = form
        model, breaker = self.model, self.breaker
        # A block and a generator are linked in any case.
        linked = not model.is_steady() or form.removeprefix("async ") in ("with", "generator", "execute")
        call = model.ask()
        left = model.left()
        if call is not None and call.probe and "generator" in form:
            model.come_back(call, "success", 0)  # its first item
            linked = False

        def work(what: str) -> str:
            model.now += takes
            if meanwhile is not None:
                self.order(meanwhile)
            if inside is not None and call is not None:
                within = linked and call.era is model.era and (not call.probe or call in model.probes)
                self.call_inside(inside, inner_outcome, part_of_another=within)
            if what in ERRORS:
                raise ERRORS[what](what)
            return what

        run = FORMS[form](breaker, work)
        try:
            came = run(outcome)
        except CircuitOpen as refusal:
            assert call is None
            assert refusal.retry_after == left  # noqa: PT017
            return
        except BaseException as error:
            assert type(error) is ERRORS[outcome]  # noqa: PT017
        else:
            assert came == outcome
        assert call is not None, "the call should have been turned away"
        model.come_back(call, OUTCOMES[outcome])

    def call_inside(self, form: str, outcome: str, *, part_of_another: bool) -> None:
        """A call whose end the call around it takes as it comes."""
        model = self.model
        call = None if part_of_another else model.ask()
        if call is not None and call.probe and "generator" in form:
            model.come_back(call, "success", 0)

        def work(what: str) -> str:
            if what in ERRORS:
                raise ERRORS[what](what)
            return what

        try:
            came = FORMS[form](self.breaker, work)(outcome)
        except CircuitOpen:
            assert call is None
            assert not part_of_another
            return
        except Exception as error:
            assert type(error) is ERRORS[outcome]  # noqa: PT017
        else:
            assert came == outcome
        assert part_of_another or call is not None
        if call is not None:
            model.come_back(call, OUTCOMES[outcome])

    # --- by hand ---

    @rule(what=st.sampled_from(["trip", "reset", "isolate"]))
    def order(self, what: str) -> None:
        if what == "trip":
            self.breaker.trip()
            self.model.trip()
        elif what == "reset":
            self.breaker.reset()
            self.model.close()
        else:
            self.breaker.isolate()
            self.model.isolate()

    # --- at all times ---

    @invariant()
    def they_agree(self) -> None:
        model, snapshot = self.model, self.breaker.snapshot()
        assert json.loads(json.dumps(snapshot, allow_nan=False)) == snapshot
        counts = model.state == "open" and model.rules.cooldown is None and not model.isolated
        expected = {
            "name": "modelled",
            "state": model.state,
            "failures": model.failures_now(),
            "threshold": model.rules.fewest(),
            "retry_after": model.left(),
            "calls_left": model.rules.calls - model.turned_away if counts else None,
            "isolated": model.isolated,
            "ramp": model.share() if model.state == "closed" else None,
            "opened": model.times_opened,
        }
        assert {key: snapshot[key] for key in expected} == pytest.approx(expected)
        assert self.breaker.state.value == model.state
        assert snapshot["era"] >= self.last_era
        assert snapshot["era"] > self.last_era or model.state == self.last_state
        self.last_era, self.last_state = snapshot["era"], model.state

    @invariant()
    def listeners_heard_the_same(self) -> None:
        assert self.told == self.model.told
        self.told.clear()
        self.model.told.clear()

    @invariant()
    def never_more_probes_than_allowed(self) -> None:
        """Of those held, only as many may still decide anything as the policy allows."""
        model = self.model
        count = sum(1 for _, call in self.held if call.probe and call.era is model.era and call in model.probes)
        assert count <= model.rules.max_probes
        count = sum(1 for _, call in self.held if call in model.last_resorts)
        assert count <= model.rules.max_probes


CircuitAgainstModel.TestCase.settings = settings(
    max_examples=250,
    stateful_step_count=60,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
TestCircuitAgainstModel = CircuitAgainstModel.TestCase
