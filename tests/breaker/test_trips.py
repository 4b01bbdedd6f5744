"""What opens a circuit: failure rates against a model that keeps every call, and algorithms of the user's own."""

from __future__ import annotations

import doctest
import logging
import math
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from failover.breaker import (
    FAILURE,
    NEUTRAL,
    SUCCESS,
    CallFailed,
    CircuitBreaker,
    ConsecutiveFailures,
    Cooldown,
    FailureRate,
    Policy,
    State,
    Transition,
    Trip,
    Verdict,
    trips,
)
from tests.breaker.circuits import PATIENCE, state
from tests.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


def circuit(trip: Trip, clock: Clock, **more: Any) -> CircuitBreaker:
    return CircuitBreaker("b", Policy(trip=trip, recovery=Cooldown(10.0), **more), clock=clock)


def settle(breaker: CircuitBreaker, outcomes: str) -> None:
    """One call after the other: F a failure, S a success, N neither."""
    for letter in outcomes:
        permit = breaker.admit()
        if letter == "F":
            permit.failed(OSError("down"))
        elif letter == "S":
            permit.succeeded()
        else:
            permit.released()


def test_the_doctest_of_the_module_runs() -> None:
    result = doctest.testmod(trips)
    assert (result.failed, result.attempted >= 6) == (0, True)


# --- against a model that keeps every call ----------------------------------------------------------------------------


@dataclass
class EveryCall:
    """A failure rate by the words of the documentation, from the list of all calls ever made."""

    rate: Fraction
    minimum: int
    calls: int | None = None
    seconds: int | None = None
    seen: list[tuple[int, bool]] = field(default_factory=list)  # in tenths of a second

    def add(self, failed: bool, tenths: int) -> tuple[int, bool]:
        self.seen.append((tenths, failed))
        if self.calls is not None:
            counted = self.seen[-self.calls :]
        else:
            # The last ten slices, the one that goes on included. One slice of n seconds is n tenths long.
            length = self.seconds or 0
            counted = [call for call in self.seen if call[0] // length > tenths // length - 10]
        failures = sum(failed for _, failed in counted)
        enough = len(counted) >= self.minimum and failures > 0
        return failures, enough and Fraction(failures, len(counted)) >= self.rate


hundredths = st.integers(0, 100)


@settings(max_examples=300, deadline=None, database=None)
@given(st.data())
def test_the_last_calls_are_counted_as_in_the_model(data: st.DataObject) -> None:
    calls = data.draw(st.integers(1, 12))
    minimum = data.draw(st.integers(1, calls))
    percent = data.draw(hundredths)
    outcomes = data.draw(st.lists(st.booleans(), max_size=60))
    window = FailureRate(percent / 100, calls=calls, minimum=minimum).window()
    model = EveryCall(Fraction(percent, 100), minimum, calls=calls)
    for failed in outcomes:
        failures, trips_now = model.add(failed, 0)
        assert window.add(failed, 0.0) is trips_now
        assert window.failures == failures


@settings(max_examples=300, deadline=None, database=None)
@given(st.data())
def test_the_last_seconds_are_counted_as_in_the_model(data: st.DataObject) -> None:
    seconds = data.draw(st.sampled_from([1, 2, 5, 40]))
    minimum = data.draw(st.integers(1, 8))
    percent = data.draw(hundredths)
    steps = st.one_of(st.integers(0, 3), st.sampled_from([seconds, 9 * seconds, 10 * seconds, 11 * seconds, 1000]))
    calls = data.draw(st.lists(st.tuples(steps, st.booleans()), max_size=60))
    window = FailureRate(percent / 100, seconds=seconds, minimum=minimum).window()
    model = EveryCall(Fraction(percent, 100), minimum, seconds=seconds)
    now = data.draw(st.integers(0, 10_000))
    for passed, failed in calls:
        now += passed
        failures, trips_now = model.add(failed, now)
        # In the middle of a tenth, where no rounding of a slice's edge can matter.
        assert window.add(failed, (now + 0.5) / 10) is trips_now
        assert window.failures == failures


@settings(max_examples=200, deadline=None, database=None)
@given(percent=hundredths, minimum=st.integers(1, 200))
def test_the_threshold_is_the_fewest_failures_that_can_trip(percent: int, minimum: int) -> None:
    rate = FailureRate(percent / 100, calls=200, minimum=minimum)
    fewest = max(1, math.ceil(Fraction(percent, 100) * minimum))
    assert rate.threshold == fewest
    assert rate.trips(fewest, minimum)
    assert not rate.trips(fewest - 1, minimum)


@pytest.mark.parametrize(("rate", "failures"), [(0.07, 7), (0.14, 14), (0.28, 28), (0.55, 55), (0.56, 56)])
def test_a_rate_that_is_met_exactly_trips(rate: float, failures: int, clock: Clock) -> None:
    assert rate * 100 > failures, "a product that is rounded up"
    breaker = circuit(FailureRate(rate, calls=100, minimum=100), clock)
    settle(breaker, "S" * (100 - failures) + "F" * (failures - 1))
    assert state(breaker) is State.CLOSED
    settle(breaker, "F")
    assert state(breaker) is State.OPEN


# --- through a circuit ------------------------------------------------------------------------------------------------

BOTH = [FailureRate(0.5, calls=10, minimum=4), FailureRate(0.5, seconds=30, minimum=4)]
either = pytest.mark.parametrize("trip", BOTH, ids=["calls", "seconds"])


@either
def test_half_of_the_last_calls_open_the_circuit(trip: FailureRate, clock: Clock) -> None:
    breaker = circuit(trip, clock)
    settle(breaker, "SSSFF")
    assert state(breaker) is State.CLOSED
    settle(breaker, "F")
    assert state(breaker) is State.OPEN


@either
def test_fewer_calls_than_the_minimum_never_trip(trip: FailureRate, clock: Clock) -> None:
    breaker = circuit(trip, clock)
    settle(breaker, "FFF")
    assert state(breaker) is State.CLOSED
    settle(breaker, "F")
    assert state(breaker) is State.OPEN


@either
def test_a_success_that_completes_the_minimum_trips_and_says_why(trip: FailureRate, clock: Clock) -> None:
    told: list[object] = []
    breaker = circuit(trip, clock)
    breaker.subscribe(told.append)
    settle(breaker, "FFFS")
    assert state(breaker) is State.OPEN
    assert told[-1] == Transition("b", State.CLOSED, State.OPEN, "3 failures among the last calls")


@either
def test_a_failure_that_trips_is_told_in_plain_words(trip: FailureRate, clock: Clock) -> None:
    told: list[object] = []
    breaker = circuit(trip, clock)
    breaker.subscribe(told.append)
    settle(breaker, "SFSF")
    assert told[-1] == Transition(
        "b", State.CLOSED, State.OPEN, "2 failures among the last calls, the last: OSError: down"
    )


@either
def test_neutral_results_are_in_no_window(trip: FailureRate, clock: Clock) -> None:
    breaker = circuit(trip, clock)
    settle(breaker, "FFF" + "N" * 20)
    assert state(breaker) is State.CLOSED
    settle(breaker, "F")
    assert state(breaker) is State.OPEN


def test_a_slow_call_is_a_failure_in_the_window(clock: Clock) -> None:
    breaker = circuit(FailureRate(1.0, calls=2, minimum=2), clock, timeout=1.0)

    def slow() -> str:
        clock.now += 1.5
        return "used"

    assert breaker.call(slow) == breaker.call(slow) == "used"
    assert state(breaker) is State.OPEN


def test_calls_leave_the_window_after_its_seconds(clock: Clock) -> None:
    clock.now = 0.5
    breaker = circuit(FailureRate(0.5, seconds=10, minimum=2), clock)
    settle(breaker, "F")
    clock.now = 9.5  # the tenth slice with the first: still within
    settle(breaker, "S")
    assert state(breaker) is State.OPEN
    breaker.reset()
    clock.now = 20.5
    settle(breaker, "F")
    clock.now = 30.5
    settle(breaker, "SS")
    assert state(breaker) is State.CLOSED
    assert breaker.snapshot()["failures"] == 0


@either
def test_a_new_era_begins_with_an_empty_window(trip: FailureRate, clock: Clock) -> None:
    breaker = circuit(trip, clock)
    for _ in range(3):
        settle(breaker, "FFF")
        breaker.reset()
    assert state(breaker) is State.CLOSED
    settle(breaker, "FFFF")
    assert state(breaker) is State.OPEN
    clock.now += 10.0
    settle(breaker, "S")  # the probe
    assert state(breaker) is State.CLOSED
    settle(breaker, "FFF")
    assert state(breaker) is State.CLOSED
    assert breaker.snapshot()["failures"] == 3
    settle(breaker, "F")
    assert state(breaker) is State.OPEN


@either
def test_a_probe_is_not_counted_in_the_window(trip: FailureRate, clock: Clock) -> None:
    breaker = circuit(trip, clock)
    settle(breaker, "FFFF")
    clock.now += 10.0
    settle(breaker, "F")  # the probe opens it again at once, however few the calls
    assert state(breaker) is State.OPEN
    clock.now += 10.0
    settle(breaker, "S")
    settle(breaker, "FFF")
    assert state(breaker) is State.CLOSED


@either
def test_late_results_are_in_no_window(trip: FailureRate, clock: Clock) -> None:
    breaker = circuit(trip, clock)
    late = [breaker.admit() for _ in range(20)]
    breaker.reset()
    for permit in late:
        permit.failed(OSError("late"))
    assert (state(breaker), breaker.snapshot()["failures"]) == (State.CLOSED, 0)
    settle(breaker, "FFF")
    assert state(breaker) is State.CLOSED


def test_a_failure_that_takes_the_place_of_another_is_told_and_remembered(clock: Clock) -> None:
    told: list[object] = []
    breaker = circuit(FailureRate(0.5, calls=10, minimum=10), clock)
    breaker.subscribe(told.append)
    settle(breaker, "F" + "S" * 9)
    second = OSError("second")
    breaker.admit().failed(second)  # the first leaves the window as this one enters
    assert told[-1] == CallFailed("b", second, 1, 5)
    assert breaker.snapshot()["last_error"] == "OSError: second"


def test_the_snapshot_tells_the_failures_in_the_window(clock: Clock) -> None:
    breaker = circuit(FailureRate(0.8, calls=4, minimum=4), clock)
    counts = []
    for letter in "FFSSSSF":
        settle(breaker, letter)
        counts.append(breaker.snapshot()["failures"])
    assert counts == [1, 2, 2, 2, 1, 0, 1]
    assert breaker.snapshot()["threshold"] == 4


@pytest.mark.parametrize("way", ["call", "decorator", "block", "permit"])
@either
def test_every_way_in_counts(trip: FailureRate, way: str, clock: Clock) -> None:
    breaker = circuit(trip, clock)

    def answer(letter: str) -> None:
        if letter == "F":
            raise OSError("down")

    def block(letter: str) -> None:
        with breaker:
            answer(letter)

    ways: dict[str, Callable[[str], None]] = {
        "call": lambda letter: breaker.call(answer, letter),
        "decorator": breaker(answer),
        "block": block,
        "permit": lambda letter: settle(breaker, letter),
    }
    for letter in "SSSSSFF":
        try:
            ways[way](letter)
        except OSError:
            assert letter == "F"
    settle(breaker, "FF")
    assert state(breaker) is State.CLOSED  # 4 of 9
    settle(breaker, "F")
    assert state(breaker) is State.OPEN


# --- size -------------------------------------------------------------------------------------------------------------


SLACK = 1200  # bytes: a deque has a block more or less, a number a digit


def size(value: Any, seen: set[int] | None = None) -> int:
    """Bytes of a window with all it holds."""
    seen = set() if seen is None else seen
    if id(value) in seen or isinstance(value, type):
        return 0
    seen.add(id(value))
    inside: list[Any] = []
    if isinstance(value, dict):
        inside = [*value, *value.values()]
    elif hasattr(value, "__iter__") and not isinstance(value, (str, bytes)):
        inside = list(value)
    inside += [getattr(value, name) for name in getattr(type(value), "__slots__", ()) if hasattr(value, name)]
    inside += list(getattr(value, "__dict__", {}).values())
    return sys.getsizeof(value) + sum(size(part, seen) for part in inside)


@pytest.mark.parametrize("trip", [FailureRate(1.0, calls=100), FailureRate(1.0, seconds=30)], ids=["calls", "seconds"])
def test_a_window_does_not_grow(trip: FailureRate) -> None:
    window = trip.window()

    def add(first: int, last: int) -> None:
        for number in range(first, last):
            window.add(number % 3 == 0, 1000 + number / 100)

    add(0, 10_000)
    before = size(window)
    add(10_000, 110_000)
    assert before > 300, "the measure sees into the window"
    assert size(window) <= before + SLACK


def test_a_circuit_that_is_asked_for_ever_does_not_grow(clock: Clock) -> None:
    breaker = circuit(FailureRate(0.9, seconds=30), clock)
    permits = [breaker.admit() for _ in range(1000)]
    for permit in permits:
        permit.succeeded()
    before = size(breaker._window) + size(breaker._record) + size(breaker._events._queue)
    for _ in range(10_000):
        clock.now += 0.01
        breaker.call(str)
    assert size(breaker._window) + size(breaker._record) + size(breaker._events._queue) <= before + SLACK


# --- one's own --------------------------------------------------------------------------------------------------------


class Marked:
    """Trips when told to, and raises where told to."""

    threshold = 3

    def __init__(self) -> None:
        self.raises: Exception | None = None
        self.window_raises: Exception | None = None
        self.failures = 0
        self.trips = False
        self.made = 0
        self.added: list[bool] = []

    def window(self) -> Marked:
        if self.window_raises is not None:
            raise self.window_raises
        self.made += 1
        return self

    def add(self, failed: bool, now: float) -> bool:
        if self.raises is not None:
            raise self.raises
        self.added.append(failed)
        return self.trips


def test_an_algorithm_of_ones_own_decides(clock: Clock) -> None:
    trip = Marked()
    breaker = circuit(trip, clock)
    settle(breaker, "FFFFSNF")
    assert (state(breaker), trip.added) == (State.CLOSED, [True] * 4 + [False, True])
    trip.trips, trip.failures = True, 7
    settle(breaker, "F")
    assert state(breaker) is State.OPEN
    assert (breaker.snapshot()["failures"], breaker.snapshot()["threshold"]) == (7, 3)
    assert trip.made == 2


@dataclass(frozen=True)
class InARow:
    """Without a window, failures in a row are counted up to the threshold."""

    threshold: int = 2

    def window(self) -> None:
        """None."""


def test_an_algorithm_without_a_window_counts_failures_in_a_row(clock: Clock) -> None:
    breaker = circuit(InARow(), clock)
    settle(breaker, "FSF")
    assert state(breaker) is State.CLOSED
    settle(breaker, "F")
    assert state(breaker) is State.OPEN


def test_an_algorithm_that_raises_is_logged_and_failures_in_a_row_decide(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    trip = Marked()
    breaker = circuit(trip, clock)
    trip.raises = ZeroDivisionError("of the algorithm's")
    assert breaker.call(lambda: "answer") == "answer"
    down = OSError("down")

    def fail() -> None:
        raise down

    for _ in range(2):
        with pytest.raises(OSError, match="down") as caught:
            breaker.call(fail)
        assert caught.value is down
    assert state(breaker) is State.CLOSED
    defects = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(defects) == 3
    assert 'the algorithm of circuit "b" raised' in defects[0]
    assert "ZeroDivisionError: of the algorithm's" in defects[0]
    assert "raise self.raises" in defects[0], "where it was raised"
    with pytest.raises(OSError, match="down"):
        breaker.call(fail)
    assert state(breaker) is State.OPEN


@pytest.mark.parametrize("value", ["many", None])
def test_a_window_whose_count_is_no_number_is_logged_too(
    value: Any, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    trip = Marked()
    trip.failures = value
    breaker = circuit(trip, clock)
    settle(breaker, "FFF")
    assert state(breaker) is State.OPEN
    assert "the algorithm of circuit" in caplog.text


def test_an_algorithm_that_gives_no_new_window_changes_nothing_for_the_caller(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    trip = Marked()
    told: list[object] = []
    breaker = circuit(trip, clock)
    breaker.subscribe(told.append)
    trip.trips, trip.window_raises = True, ZeroDivisionError("no window")
    settle(breaker, "F")  # opens the circuit, and a new era asks for a window
    assert state(breaker) is State.OPEN
    assert [type(event) for event in told] == [CallFailed, Transition]
    assert "ZeroDivisionError: no window" in caplog.text
    clock.now += 10.0
    settle(breaker, "S")
    assert state(breaker) is State.CLOSED
    settle(breaker, "FFSFF")
    assert state(breaker) is State.CLOSED
    settle(breaker, "F")
    assert state(breaker) is State.OPEN


def test_a_defect_is_logged_outside_the_lock(clock: Clock) -> None:
    """A handler of the log may wait for a thread that uses the circuit."""
    trip = Marked()
    breaker = circuit(trip, clock)
    trip.raises = ZeroDivisionError()
    passed: list[bool] = []

    class UsesTheCircuit(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            other = threading.Thread(target=breaker.reset, daemon=True)
            other.start()
            other.join(5.0)
            passed.append(not other.is_alive())

    handler = UsesTheCircuit(logging.ERROR)
    logging.getLogger("failover.breaker").addHandler(handler)
    try:
        settle(breaker, "S")
    finally:
        logging.getLogger("failover.breaker").removeHandler(handler)
    assert passed == [True]


# --- nonsense ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field_name", "arguments"),
    [
        *[("rate", {"rate": rate, "calls": 100}) for rate in (-0.1, 1.1, math.nan, math.inf, "0.5", None, True)],
        *[("calls", {"rate": 0.5, "calls": calls}) for calls in (0, -1, 1.5, "9", True, math.inf)],
        *[("minimum", {"rate": 0.5, "calls": 100, "minimum": least}) for least in (0, -1, 2.0, None, True, 101)],
        *[("minimum", {"rate": 0.5, "seconds": 1, "minimum": least}) for least in (0, "1", False)],
        *[("seconds", {"rate": 0.5, "seconds": time}) for time in (0, -1, math.inf, math.nan, "9", True)],
        ("calls or seconds", {"rate": 0.5}),
        ("calls or seconds", {"rate": 0.5, "calls": 20, "seconds": 1.0}),
    ],
)
def test_nonsense_raises_value_error_that_names_the_field(field_name: str, arguments: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"^{field_name} "):
        FailureRate(**arguments)


@pytest.mark.parametrize("threshold", [0, -1, 2.5, "3", None, True])
def test_the_threshold_of_ones_own_algorithm_is_checked(threshold: Any) -> None:
    trip = Marked()
    trip.threshold = threshold
    with pytest.raises(ValueError, match=r"^trip.threshold "):
        Policy(trip=trip)
    with pytest.raises(ValueError, match=r"^threshold "):
        ConsecutiveFailures(threshold)


def test_the_smallest_and_the_greatest_are_taken(clock: Clock) -> None:
    for trip in (
        FailureRate(0, calls=1, minimum=1),
        FailureRate(1, calls=1, minimum=1),
        FailureRate(0, seconds=0.001, minimum=1),
    ):
        breaker = circuit(trip, clock)
        settle(breaker, "SSS")
        assert state(breaker) is State.CLOSED, "no call has failed"
        settle(breaker, "F")
        assert state(breaker) is State.OPEN


# --- threads ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def eager_switching() -> Iterator[None]:
    """Threads change places as often as the interpreter lets them."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def classify(outcome: object) -> Verdict:
    return {"good": SUCCESS, "bad": FAILURE, "nothing": NEUTRAL}[str(outcome)]


@pytest.mark.usefixtures("eager_switching")
@pytest.mark.parametrize(
    "trip", [FailureRate(1.0, calls=100_000), FailureRate(1.0, seconds=1e6)], ids=["calls", "seconds"]
)
def test_every_call_of_twenty_threads_is_counted(trip: FailureRate, clock: Clock) -> None:
    breaker = circuit(trip, clock, classify=classify)
    together = threading.Barrier(20)

    def work() -> None:
        together.wait(PATIENCE)
        for number in range(100):
            breaker.call(lambda said: said, ("good", "bad", "nothing", "good")[number % 4])

    threads = [threading.Thread(target=work, daemon=True) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    window: Any = breaker._window
    counted = window.calls if trip.seconds is not None else len(window._failed)
    assert (counted, window.failures) == (20 * 75, 20 * 25)
    assert breaker.snapshot()["failures"] == 500
