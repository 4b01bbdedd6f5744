"""The rows of the table: what must hold, in words, and the check that finds out."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from benchmarks.correctness import checks, decorated, generators, programs, settings, sharing
from benchmarks.correctness.checks import Bench, Wrong
from benchmarks.correctness.driving import LOCKS, WALL
from benchmarks.libraries.library import Library, Unsupported


@dataclass(frozen=True)
class Row:
    """A line of the table. `ways`: where it can apply at all. `put_up`: to be called before a library is imported."""

    text: str
    check: Callable[[Bench], None]
    ways: tuple[str, ...] = ("sync", "async")
    put_up: Callable[[], None] | None = None


ROWS: Final = {
    "side-by-side": Row("no lock is held while calls run", checks.side_by_side),
    "no-lock": Row("a success takes no lock while nothing has failed", checks.no_lock, put_up=LOCKS.put_up),
    "probes": Row("half-open admits its probes alone, the rest are refused at once", checks.probes_only),
    "late-success": Row("a success from before the trip does not close", checks.late_success),
    "late-failure-open": Row("a late failure does not lengthen the cooldown", checks.late_failure_open),
    "late-failure-closed": Row("late failures after recovery do not trip", checks.late_failure_closed),
    "cancelled": Row("a cancelled call counts neither way", checks.cancelled_closed),
    "cancelled-probe": Row("a cancelled probe gives its place back, closes nothing", checks.cancelled_probe),
    "neutral": Row("a neutral error counts neither way", checks.neutral_closed),
    "neutral-probe": Row("a neutral error does not close a half-open circuit", checks.neutral_probe),
    "hung-probe": Row("a hung probe does not wedge the circuit", checks.hung_probe),
    "nested": Row("methods that call each other recover", checks.nested),
    "frames": Row("no frame of a failed call is kept alive", checks.frames),
    "generator-failure": Row("generator: a failure half-way counts", generators.failure, ("sync",)),
    "generator-close": Row("generator: an early close is neutral", generators.close, ("sync",)),
    "generator-return": Row("generator: the return value arrives", generators.return_value, ("sync",)),
    "agenerator-failure": Row("async generator: a failure half-way counts", generators.failure, ("async",)),
    "agenerator-close": Row("async generator: an early close is neutral", generators.close, ("async",)),
    "feed": Row("a probe's endless feed closes with its first item, not sooner", generators.feed),
    "feed-left": Row("a probe's reader who leaves after the first item closes it", generators.feed_left),
    "generator-call": Row("a generator function in a sync call is no success", decorated.generator_called, ("sync",)),
    "coroutine-call": Row("a coroutine function in a sync call is no success", decorated.coroutine_called, ("sync",)),
    "coroutine-lambda": Row("a sync function's coroutine is no success", decorated.coroutine_made, ("sync",)),
    "plain-acall": Row("a plain function in an async call is no failure", decorated.plain_awaited, ("async",)),
    "methods": Row("class and static methods work, or are refused at decoration", decorated.methods),
    "old-coroutine": Row("types.coroutine works, or is refused at decoration", decorated.old_coroutine, ("async",)),
    "not-callable": Row("what cannot be called is refused at decoration", decorated.not_callable),
    "block": Row("a block may be left in another context", decorated.block_elsewhere),
    "trio": Row("a time-out works under trio, or counts nothing there", settings.under_trio, ("async",)),
    "window": Row("a window in seconds ages without calls", settings.aged),
    "changed": Row("a setting of a live circuit is in force, or refused", settings.changed),
    "answers": Row('AWS 404, 412, Google and MongoDB\'s "exists" are no failures', settings.answers),
    "pickle": Row("a refusal survives pickling, whatever the errors before it", programs.refusal_pickled),
    "fork": Row("a child forked in the middle of a call works", programs.fork, ("sync",), put_up=LOCKS.put_up),
    "slow-listener": Row("a slow listener delays no other call", programs.slow_listener, ("sync",)),
    "slow-listener-open": Row("a slow listener delays no other refusal", programs.slow_listener_open, ("sync",)),
    "slow-listener-loop": Row(
        "a slow listener holds up no event loop's refusals", programs.slow_listener_loop, ("sync",)
    ),
    "listener": Row("a listener that raises is logged and changes nothing", checks.bad_listener),
    "drips": Row("a Redis that answers byte by byte delays no call", sharing.drips),
    "foreign": Row("a record of another layout in Redis fails no call", sharing.foreign),
    "wall": Row("moving the wall clock changes nothing", checks.wall_clock, put_up=WALL.put_up),
    "clock": Row("time can be injected", checks.injected_clock),
    "nonsense": Row("nonsense raises ValueError naming the field", checks.nonsense),
}


def judge(row: Row, library: Library) -> tuple[str, str]:
    """ "yes", "no" or "n/a", and why: yes where each way of using the library that can be asked holds."""
    answers, reasons = [], []
    for way in row.ways:
        try:
            if way not in library.ways:
                raise Unsupported(f"it has no {way} calls")  # noqa: TRY301
            row.check(Bench(library, way))
        except Unsupported as why:
            answers.append("n/a")
            reasons.append(f"{way}: {why}")
        except Exception as error:  # noqa: BLE001 (contract: an exception inside a check is a no, with its reason)
            answers.append("no")
            reasons.append(f"{way}: {error}" if isinstance(error, Wrong) else f"{way}: {error!r}")
        else:
            answers.append("yes")
    answer = "no" if "no" in answers else "yes" if "yes" in answers else "n/a"
    return answer, "; ".join(reasons)
