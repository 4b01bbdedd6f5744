"""What the caller gets instead of an error: fallbacks of policy and circuit, and the callbacks of one call."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from concurrent.futures import CancelledError
from typing import Any

import pytest

from failover.breaker import (
    FAILURE,
    NEUTRAL,
    SUCCESS,
    CircuitBreaker,
    CircuitOpen,
    ConsecutiveFailures,
    Policy,
    State,
    Verdict,
)
from tests.breaker.circuits import state

DOWN = OSError("down")


class NotFoundError(Exception):
    """An answer."""


class SaysNothingError(Exception):
    """Neutral."""


def classify(outcome: object) -> Verdict:
    if isinstance(outcome, SaysNothingError):
        return NEUTRAL
    return FAILURE if isinstance(outcome, OSError) or outcome == "bad" else SUCCESS


def does(what: object) -> Any:
    """Raise it, or return it."""
    if isinstance(what, BaseException):
        raise what
    return what


# Ways to make a call that gives `what`, sync and async as one: each way twice, on the fast path and off it.

Way = Callable[[CircuitBreaker, object], Any]


async def adoes(what: object) -> Any:
    return does(what)


async def by_decorator(breaker: CircuitBreaker, what: object) -> Any:
    return await breaker(adoes)(what)


WAYS: dict[str, Way] = {
    "call": lambda breaker, what: breaker.call(does, what),
    "decorator": lambda breaker, what: breaker(does)(what),
    "execute": lambda breaker, what: breaker.execute(lambda: does(what)),
    "acall": lambda breaker, what: asyncio.run(breaker.acall(adoes, what)),
    "async-decorator": lambda breaker, what: asyncio.run(by_decorator(breaker, what)),
    "aexecute": lambda breaker, what: asyncio.run(breaker.aexecute(lambda: adoes(what))),
}
ASYNC = ["acall", "async-decorator", "aexecute"]
every_way = pytest.mark.parametrize("way", WAYS)
every_path = pytest.mark.parametrize("timeout", [None, 60.0], ids=["fast", "slow"])


def circuit(fallback: Any = None, of_policy: Any = None, timeout: float | None = None) -> CircuitBreaker:
    policy = Policy(trip=ConsecutiveFailures(3), classify=classify, timeout=timeout, fallback=of_policy)
    return CircuitBreaker("b", policy, fallback=fallback)


class Asked:
    """A fallback that remembers what it was asked, and says whose it is."""

    def __init__(self, whose: str) -> None:
        self.whose = whose
        self.got: list[tuple[BaseException, Any]] = []

    def __call__(self, error: BaseException, breaker: CircuitBreaker) -> str:
        self.got.append((error, breaker))
        return self.whose


# --- fallbacks --------------------------------------------------------------------------------------------------------


@every_path
@every_way
def test_a_failure_goes_to_the_fallback_with_error_and_circuit(way: str, timeout: float | None) -> None:
    fallback = Asked("instead")
    breaker = circuit(fallback, timeout=timeout)
    assert WAYS[way](breaker, DOWN) == "instead"
    assert fallback.got == [(DOWN, breaker)]
    assert breaker.snapshot()["failures"] == 1


@every_path
@every_way
def test_a_refusal_goes_to_the_fallback(way: str, timeout: float | None) -> None:
    fallback = Asked("instead")
    breaker = circuit(fallback, timeout=timeout)
    breaker.admit().failed(DOWN)
    breaker.trip()
    assert WAYS[way](breaker, "answer") == "instead"
    ((refusal, whose),) = fallback.got
    assert isinstance(refusal, CircuitOpen)
    assert (refusal.name, whose) == ("b", breaker)


@every_path
@every_way
def test_the_nearest_wins(way: str, timeout: float | None) -> None:
    of_policy, of_circuit = Asked("policy's"), Asked("circuit's")
    assert WAYS[way](circuit(None, of_policy, timeout), DOWN) == "policy's"
    assert WAYS[way](circuit(of_circuit, of_policy, timeout), DOWN) == "circuit's"
    assert len(of_policy.got) == len(of_circuit.got) == 1


def test_a_fallback_that_counts_as_false_is_still_the_nearest() -> None:
    class Empty(Asked):
        def __len__(self) -> int:
            return 0

    assert circuit(Empty("circuit's"), Asked("policy's")).call(does, DOWN) == "circuit's"


@every_path
@pytest.mark.parametrize("what", [NotFoundError("no"), SaysNothingError(), CancelledError()], ids=lambda w: repr(w)[:9])
@every_way
def test_what_is_no_failure_is_raised(way: str, what: Exception, timeout: float | None) -> None:
    fallback = Asked("instead")
    with pytest.raises(type(what)) as caught:
        WAYS[way](circuit(fallback, timeout=timeout), what)
    assert caught.value is what
    assert not fallback.got


@pytest.mark.parametrize("kind", [KeyboardInterrupt, SystemExit, GeneratorExit])
@pytest.mark.parametrize("way", ["call", "decorator", "execute"])
def test_an_interrupt_is_raised(way: str, kind: type[BaseException]) -> None:
    fallback = Asked("instead")
    with pytest.raises(kind):
        WAYS[way](circuit(fallback), kind())
    assert not fallback.got


@every_path
@every_way
def test_a_result_never_goes_to_the_fallback(way: str, timeout: float | None) -> None:
    fallback = Asked("instead")
    breaker = circuit(fallback, timeout=timeout)
    assert WAYS[way](breaker, "answer") == "answer"
    assert WAYS[way](breaker, "bad") == "bad"
    assert not fallback.got
    assert breaker.snapshot()["failures"] == 1


@every_path
@every_way
def test_a_fallback_that_raises_reaches_the_caller_and_counts_nothing(way: str, timeout: float | None) -> None:
    own = OSError("the fallback's own")

    def raises(error: BaseException, breaker: CircuitBreaker) -> None:
        raise own

    breaker = circuit(raises, timeout=timeout)
    with pytest.raises(OSError, match="the fallback's own") as caught:
        WAYS[way](breaker, DOWN)
    assert caught.value is own
    assert own.__context__ is DOWN
    assert (state(breaker), breaker.snapshot()["failures"]) == (State.CLOSED, 1)
    breaker.trip()
    own.__context__ = None
    with pytest.raises(OSError, match="the fallback's own"):
        WAYS[way](breaker, "answer")
    assert isinstance(own.__context__, CircuitOpen)


@every_path
@pytest.mark.parametrize("way", ASYNC)
def test_an_async_fallback_is_awaited(way: str, timeout: float | None) -> None:
    own = OSError("the fallback's own")

    async def instead(error: BaseException, breaker: CircuitBreaker) -> str:
        await asyncio.sleep(0)
        if breaker.name == "b" and state(breaker) is State.CLOSED and error is not DOWN:
            raise own
        return f"instead of {type(error).__name__}"

    breaker = circuit(instead, timeout=timeout)
    assert WAYS[way](breaker, DOWN) == "instead of OSError"
    another = OSError("another")
    with pytest.raises(OSError, match="the fallback's own"):
        WAYS[way](breaker, another)
    assert own.__context__ is another
    breaker.trip()
    assert WAYS[way](breaker, "answer") == "instead of CircuitOpen"


@every_path
def test_a_call_cancelled_in_its_fallback_is_cancelled(timeout: float | None) -> None:
    async def hangs(error: BaseException, breaker: CircuitBreaker) -> None:
        await asyncio.Event().wait()

    async def main() -> None:
        task = asyncio.ensure_future(circuit(hangs, timeout=timeout).acall(adoes, DOWN))
        await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    asyncio.run(main())


def test_a_timeout_goes_to_the_fallback() -> None:
    fallback = Asked("instead")
    breaker = circuit(fallback, timeout=0.01)

    async def hangs() -> str:
        await asyncio.Event().wait()
        return "answer"

    assert asyncio.run(breaker.acall(hangs)) == "instead"
    assert isinstance(fallback.got[0][0], TimeoutError)
    assert breaker.snapshot()["failures"] == 1


def test_the_fallback_may_use_the_circuit() -> None:
    def counts(error: BaseException, breaker: CircuitBreaker) -> Any:
        return breaker.snapshot()["failures"], breaker.state

    breaker = circuit(counts)
    assert [breaker.call(does, DOWN) for _ in range(4)] == [
        (1, State.CLOSED),
        (2, State.CLOSED),
        (3, State.OPEN),
        (3, State.OPEN),
    ]


def test_blocks_generators_and_permits_have_no_fallback() -> None:
    breaker = circuit(Asked("instead"), Asked("instead"))
    breaker.trip()
    with pytest.raises(CircuitOpen):
        breaker.__enter__()
    with pytest.raises(CircuitOpen):
        breaker.admit()
    with pytest.raises(CircuitOpen):
        next(breaker(lambda: (yield))())


# --- callbacks --------------------------------------------------------------------------------------------------------

COMBINATIONS = list(itertools.product([False, True], repeat=4))
ENDS: list[tuple[str, object]] = [
    ("success", "answer"),
    ("failure", DOWN),
    ("open", "refused"),
    ("answer", NotFoundError("no")),
    ("cancelled", CancelledError()),
]


@every_path
@pytest.mark.parametrize("kind", ["execute", "aexecute", "aexecute-async-callbacks"])
@pytest.mark.parametrize("end", ENDS, ids=lambda end: end[0])
@pytest.mark.parametrize("has", COMBINATIONS, ids=lambda has: "".join("-x"[one] for one in has))
def test_every_combination_of_callbacks(
    has: tuple[bool, ...], end: tuple[str, object], kind: str, timeout: float | None
) -> None:
    has_success, has_failure, has_open, has_fallback = has
    name, what = end
    got: list[object] = []

    def callback(label: str) -> Callable[[object], Any]:
        def called(value: object) -> str:
            got.append(value)
            return label

        async def acalled(value: object) -> str:
            await asyncio.sleep(0)
            return called(value)

        return acalled if kind == "aexecute-async-callbacks" else called

    callbacks: dict[str, Any] = {
        "on_success": callback("on_success") if has_success else None,
        "on_failure": callback("on_failure") if has_failure else None,
        "on_open": callback("on_open") if has_open else None,
    }
    fallback = Asked("fallback") if has_fallback else None
    breaker = circuit(fallback, timeout=timeout)
    if name == "open":
        breaker.trip()

    expected: Any  # the one that answers, or None: the error is raised
    if name == "success":
        expected = "on_success" if has_success else "answer"
    elif name in ("failure", "open"):
        near = has_failure if name == "failure" else has_open
        expected = f"on_{name}" if near else "fallback" if has_fallback else None
    else:
        expected = None

    def execute() -> Any:
        if kind == "execute":
            return breaker.execute(lambda: does(what), **callbacks)
        return asyncio.run(breaker.aexecute(lambda: adoes(what), **callbacks))

    if expected is None:
        raised: Any = CircuitOpen if name == "open" else type(what)
        with pytest.raises(raised) as caught:
            execute()
        assert name == "open" or caught.value is what
    else:
        assert execute() == expected
    if str(expected).startswith("on_"):
        assert [type(value) for value in got] == [CircuitOpen if name == "open" else type(what)]
        assert name == "open" or got == [what]
    else:
        assert not got
    assert len(fallback.got if fallback else []) == (expected == "fallback")
    assert breaker.snapshot()["failures"] == (name == "failure")


@every_path
@pytest.mark.parametrize("kind", ["execute", "aexecute"])
@pytest.mark.parametrize("which", ["on_success", "on_failure", "on_open"])
def test_what_a_callback_raises_reaches_the_caller_and_counts_nothing(
    which: str, kind: str, timeout: float | None
) -> None:
    own, fallback = OSError("the callback's own"), Asked("instead")
    breaker = circuit(fallback, timeout=timeout)
    what = {"on_success": "answer", "on_failure": DOWN, "on_open": "refused"}[which]
    if which == "on_open":
        breaker.trip()
    before = breaker.snapshot()["failures"]
    callbacks: dict[str, Any] = {which: lambda _: does(own)}
    own.__context__ = None

    def execute() -> Any:
        if kind == "execute":
            return breaker.execute(lambda: does(what), **callbacks)
        return asyncio.run(breaker.aexecute(lambda: adoes(what), **callbacks))

    with pytest.raises(OSError, match="the callback's own") as caught:
        execute()
    assert caught.value is own
    context = own.__context__
    assert {"on_success": context is None, "on_failure": context is DOWN}.get(which, isinstance(context, CircuitOpen))
    assert breaker.snapshot()["failures"] - before == (which == "on_failure")
    assert not fallback.got


def test_the_probe_is_settled_before_its_callback_is_called() -> None:
    for what, after in (("answer", State.CLOSED), (DOWN, State.OPEN)):
        breaker = CircuitBreaker("b", Policy(classify=classify), clock=lambda: now)  # noqa: B023 (read at once)
        now = 0.0
        breaker.trip()
        now = 30.0
        ask: Any = lambda _, breaker=breaker: state(breaker)  # noqa: E731
        assert breaker.execute(lambda what=what: does(what), on_success=ask, on_failure=ask) is after  # type: ignore[misc]
