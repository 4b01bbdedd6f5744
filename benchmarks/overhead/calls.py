"""What a circuit adds to a call, beside the bare function: all libraries in each round."""

from __future__ import annotations

import asyncio
import gc
import logging
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Final, NamedTuple

from benchmarks.libraries.adapters import LIBRARIES
from benchmarks.libraries.library import OURS, Failure, Library, Wish, version_of
from benchmarks.report import say, table

SHARES: Final = {"sync": 1 / 4, "async": 1 / 3}
"""The contract: of what the fastest rival adds to a call, a closed circuit of ours adds at most this share."""
REFUSED: Final = 1.0
"""The contract: of what a refused call costs with the fastest rival, it costs at most this share with ours."""

# The processor time of this thread: what others do on the machine meanwhile is not ours.
_now: Final = time.thread_time_ns


INSPECTED: Final = 2 / 3
"""What no rival does: a result that may be an HTTP response is asked for its status; then it adds at most this."""


class Row(NamedTuple):
    """A result of a type of the program's own, which has no attributes but those of its class."""

    number: int


class Answer:
    """A result that may have any attribute, as an HTTP response does, so that a circuit looks into each."""


ROW: Final = Row(1)
ANSWER: Final = Answer()


def work(n: int) -> int:
    return n


def work_row(n: int) -> Row:  # noqa: ARG001 (called like the other)
    return ROW


def work_answer(n: int) -> Answer:  # noqa: ARG001 (called like the other)
    return ANSWER


async def awork(n: int) -> int:
    return n


async def awork_row(n: int) -> Row:  # noqa: ARG001 (as above)
    return ROW


async def awork_answer(n: int) -> Answer:  # noqa: ARG001 (as above)
    return ANSWER


@dataclass(frozen=True)
class Way:
    """One way to make a call. `arguments` go before the call's own; `bare` is the function without any circuit."""

    package: str
    kind: str
    how: str
    fn: Callable[..., Any]
    bare: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    quiet: bool = False
    """With our log off: the rivals write none."""
    inspected: bool = False
    """Whether a circuit of ours looks into each result."""

    def added(self, calls: int) -> float:
        """Nanoseconds that it adds to one call: both loops one right after the other."""
        loop = _async_loop if self.kind == "async" else _loop
        with_bare = loop(self.bare, (), calls)
        log = logging.getLogger(OURS)
        log.disabled = self.quiet
        try:
            return (loop(self.fn, self.arguments, calls) - with_bare) / calls
        finally:
            log.disabled = False


def _loop(fn: Callable[..., Any], arguments: tuple[Any, ...], calls: int) -> int:
    if arguments:
        first = arguments[0]
        began = _now()
        for _ in repeat(None, calls):
            try:  # noqa: SIM105 (`suppress` takes time)
                fn(first, 1)
            except Exception:  # noqa: BLE001, S110 (refusals, of every library's own kind)
                pass
        return _now() - began
    began = _now()
    for _ in repeat(None, calls):
        try:  # noqa: SIM105 (as above)
            fn(1)
        except Exception:  # noqa: BLE001, S110 (as above)
            pass
    return _now() - began


def _async_loop(fn: Callable[..., Awaitable[Any]], _: tuple[Any, ...], calls: int) -> int:
    async def run() -> int:
        began = _now()
        for _ in repeat(None, calls):
            try:  # noqa: SIM105 (as above)
                await fn(1)
            except Exception:  # noqa: BLE001, S110 (as above)
                pass
        return _now() - began

    return asyncio.run(run())


def _trip(fn: Callable[..., Any], kind: str, failing: list[bool], package: str) -> None:
    refused = False
    for turn in range(11):
        failing[0] = turn < 10
        try:
            outcome = fn(1)
            if kind == "async":
                asyncio.run(outcome)
        except Exception:  # noqa: BLE001 (the failures, and then refusals of any kind)
            refused = True
        else:
            refused = False
    if not refused:
        raise RuntimeError(f"ten failures did not open the circuit of {package}: there is nothing to measure")


def ways_of(library: Library, state: str) -> list[Way]:
    """All ways of one library: closed, or open for a day."""
    wish = Wish(threshold=5, cooldown=86_400.0)
    found = []
    failing = [False]

    def fail_first(n: int) -> int:
        if failing[0]:
            raise Failure
        return n

    async def afail_first(n: int) -> int:
        return fail_first(n)

    for kind in library.ways:
        is_async = kind == "async"
        plain = awork if is_async else work
        if state == "open":
            fn = library.make(wish, kind)(afail_first if is_async else fail_first)
            _trip(fn, kind, failing, library.package)
            found.append(Way(library.package, kind, "decorator", fn, plain))
            if library.package == OURS:
                found.append(Way(library.package, kind, "decorator, its log off", fn, plain, quiet=True))
            continue
        found.append(Way(library.package, kind, "decorator", library.make(wish, kind)(plain), plain))
        if library.package == OURS:
            for how, other, aother in (
                ("decorator, result of a type of its own", work_row, awork_row),
                ("decorator, result looked into", work_answer, awork_answer),
            ):
                bare = aother if is_async else other
                guarded = library.make(wish, kind)(bare)
                found.append(Way(library.package, kind, how, guarded, bare, inspected=other is work_answer))
        if not is_async and (call := library.call(wish)) is not None:
            found.append(Way(library.package, kind, "call", call, plain, (plain,)))
    return found


def measure(ways: list[Way], calls: int, rounds: int) -> dict[Way, list[float]]:
    """Nanoseconds that each way adds, round by round; each round goes through all ways, so noise meets all alike."""
    taken: dict[Way, list[float]] = {way: [] for way in ways}
    gc.collect()
    gc.disable()
    try:
        for turn in range(rounds + 1):
            for way in ways if turn % 2 else reversed(ways):
                added = way.added(calls)
                if turn:  # the first is for warming up
                    taken[way].append(added)
    finally:
        gc.enable()
    return taken


def ratio(some: list[float], others: list[float]) -> float:
    """The median of the rounds' ratios: what slows the whole machine for a while slows both."""
    return statistics.median(one / other for one, other in zip(some, others, strict=True))


def report_calls(state: str, calls: int, rounds: int) -> bool:
    """Print one table for each kind; True if the contract holds."""
    ways = [way for library in LIBRARIES if version_of(library) is not None for way in ways_of(library, state)]
    taken = measure(ways, calls, rounds)
    kept = [_report_kind(kind, state, taken) for kind in SHARES]
    return all(kept)


def _report_kind(kind: str, state: str, all_taken: dict[Way, list[float]]) -> bool:
    taken = {way: figures for way, figures in all_taken.items() if way.kind == kind}
    median = {way: statistics.median(figures) for way, figures in taken.items()}
    fastest = min((way for way in taken if way.package != OURS), key=lambda way: median[way], default=None)
    rows = [
        [
            way.package,
            way.how,
            f"{median[way]:,.0f}",
            f"{min(taken[way]):,.0f}",
            "-" if fastest is None else f"{ratio(taken[way], taken[fastest]):.2f}",
            "the fastest rival" if way is fastest else "",
        ]
        for way in sorted(taken, key=lambda way: median[way])
    ]
    for library in LIBRARIES:
        if version_of(library) is None:
            rows.append([library.package, "not installed", "", "", "", ""])
        elif kind not in library.ways:
            rows.append([library.package, f"has no {kind} calls", "", "", "", ""])
    say(f"\n{state}, {kind}: nanoseconds added to a call")
    say(table(["library", "how", "ns", "least", "ratio", ""], rows))
    if fastest is None:
        say("contract: no rival is installed, so there is nothing to compare with")
        return False
    holds = True
    for way in taken:
        if way.package == OURS:
            most = REFUSED if state == "open" else INSPECTED if way.inspected else SHARES[kind]
            share = ratio(taken[way], taken[fastest])
            kept = share <= most
            holds = holds and kept
            verdict = "holds" if kept else "DOES NOT HOLD"
            say(f"contract, {state}, {kind} {way.how}: a share of at most {most:.2f}: {share:.3f}, {verdict}")
    return holds
