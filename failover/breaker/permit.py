"""Permit: one call admitted by hand, until its result is settled."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Final

from failover.breaker.errors import CircuitOpen
from failover.breaker.events import CallRefused
from failover.breaker.failures import FAILURE, NEUTRAL, SUCCESS, Verdict, is_cancellation
from failover.breaker.machine import Event, Outcome, Record, State, Ticket
from failover.breaker.policy import Cooldown
from failover.breaker.snapshots import wait_left

if TYPE_CHECKING:
    from failover.breaker.circuit import CircuitBreaker


_WHY: Final = {
    State.OPEN: "is open",
    State.HALF_OPEN: "is half-open and its probes are under way",
    State.CLOSED: "has just closed and admits only a share of the calls yet",
}


class Permit:
    """The right to make one call through `breaker`, from `CircuitBreaker.admit`.

    Settle it exactly once: `succeeded`, `failed` or `released`. A second time raises `RuntimeError`. A permit that
    is never settled counts neither way; a probe's place is then free again after `Policy.probe_lease`.

    As a block, `with breaker.admit() as permit:`, it is settled when the block ends, unless it was by hand: as a
    success, or as the circuit's classifier judges the exception. Unlike `with breaker:` it may be left in another
    thread, task or context than it was entered in.
    """

    __slots__ = ("_record", "_settled", "_started", "_ticket", "breaker")

    def __init__(self, breaker: CircuitBreaker, ticket: Ticket | None, record: Record, started: float) -> None:
        self.breaker = breaker
        self._ticket = ticket
        self._record = record
        self._started = started
        self._settled = False

    @classmethod
    def late(cls, breaker: CircuitBreaker, calm: Record) -> Permit:
        """The permit of a call that was begun without one, when this was `breaker.calm`."""
        return cls(breaker, None, calm, 0.0)

    @property
    def is_probe(self) -> bool:
        """Whether the call decides if a half-open circuit closes."""
        return self._ticket is not None and self._ticket.probe != 0

    @property
    def is_last_resort(self) -> bool:
        """Whether the circuit would have refused the call: its success counts, its failure does not."""
        return self._ticket is not None and self._ticket.last_resort != 0

    def __enter__(self) -> Permit:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._settled:
            self.settle(SUCCESS if error is None else self.breaker._judge_error(error), error)

    def again(self) -> Permit | None:
        """A permit for another try of the same call, or None unless the circuit is closed as it was at `admit`.

        To be asked after `failed`. Unlike a new `admit`, a refusal is not counted: to `AfterCalls` a call that is
        given up after some tries is no call that was turned away.
        """
        record = self.breaker._record
        if record.state is not State.CLOSED or record.era != self._record.era:
            return None
        return Permit(self.breaker, None, record, self.breaker._start())

    def succeeded(self, seconds: float | None = None) -> None:
        """The remote answered.

        `seconds` is how long it took, where that is less than the time since `admit`, as with a body that is
        read at leisure. Longer than `Policy.timeout` counts as a failure.
        """
        if self._record is self.breaker.calm and not self._settled:
            self._settled = True  # and a success changes nothing: as in `call`
        else:
            self.settle(SUCCESS, None, seconds)

    def failed(self, error: BaseException) -> None:
        """The remote did not do its work. A cancellation is taken as `released`."""
        self.settle(NEUTRAL if is_cancellation(error) else FAILURE, error)

    def released(self) -> None:
        """The call says nothing about the remote: it was not made, or was given up."""
        self.settle(NEUTRAL)

    def settle(self, verdict: Verdict, outcome: object = None, seconds: float | None = None) -> None:
        """What the three above do. `outcome`: what the call raised or returned, for the log and its Retry-After."""
        if self._settled:
            raise RuntimeError(f"this permit of circuit {self.breaker.name!r} has been settled before")
        self._settled = True
        self.breaker._settle(self._ticket, self._record, verdict, outcome, self._started, seconds)


def ask(circuit: CircuitBreaker, event: Event = Event.CALL) -> Permit:
    """A permit of a circuit that does not admit all calls, where there is one; else raises `CircuitOpen`."""
    if event is Event.CALL:
        _refuse_at_once(circuit)
    outcome, wait, undecided = _decide(circuit, event)
    if outcome.claim and circuit._shared is not None:
        circuit._shared.claim()
        if undecided:  # a store without I/O has answered already
            outcome, wait, _ = _decide(circuit, event, last=True)
    circuit._tell()
    if outcome.ticket is None:
        raise CircuitOpen(circuit.name, wait, circuit._last_error, _WHY[outcome.record.state])
    return Permit(circuit, outcome.ticket, outcome.record, circuit._start())


def _refuse_at_once(circuit: CircuitBreaker) -> None:
    """Raise `CircuitOpen` where a refusal changes nothing and nobody would hear of it: without the lock."""
    record = circuit._record
    if record.state is State.OPEN and isinstance(circuit.policy.recovery, Cooldown) and not circuit._teller.is_heard():
        wait = wait_left(circuit, record)
        if wait is None or wait > 0:
            raise CircuitOpen(circuit.name, wait, circuit._last_error)


def _decide(circuit: CircuitBreaker, event: Event, *, last: bool = False) -> tuple[Outcome, float | None, bool]:
    """The outcome, the seconds left until a probe is due, and whether to ask again after a claim."""
    with circuit._lock:
        old, outcome = circuit._decide(event, None)
        record = outcome.record
        circuit._note_transition(old, record, event)
        wait = wait_left(circuit, record)
        undecided = outcome.claim and record is old and not last
        if outcome.ticket is None and not undecided:
            circuit._teller.note(CallRefused(circuit.name, wait, record.failures, circuit._threshold))
    return outcome, wait, undecided
