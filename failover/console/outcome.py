"""How a run came out, in a few sentences that need no other: the head of its summary and of its picture."""

from __future__ import annotations

from failover.console import words
from failover.console.record import Record
from failover.console.view import Cell
from failover.demo import events as ev

_BEHIND = 0.05  # seconds; less is nothing on the screen


def account(record: Record) -> str:
    """Which account was read."""
    return words.clean(record.settings.account) if record.settings else "no account"


def headline(record: Record) -> str:
    """How many reads there were, and whether they were answered."""
    if not record.reads:
        return "Ended before the first read"
    total = record.settings.requests if record.settings else 0
    many = words.reads(record.reads) if record.whole or not total else f"{record.reads:,} of {words.reads(total)}"
    if record.failed:
        return f"{many}, {record.failed:,} failed"
    return f"{many}, {'answered' if record.reads == 1 else 'all answered'}"


def story(record: Record) -> list[str]:
    """Who answered, how stale that may have been, and what the circuit did: a line each; none before the first read."""
    if not record.reads:
        return []
    aside = [record.counts[each] for each in (Cell.SECONDARY, Cell.HEDGED, Cell.TRIED)]
    primary, secondary = record.counts[Cell.PRIMARY], sum(aside)
    told = [f"{primary:,} by the primary", f"{secondary:,} by the secondary"]
    told += [f"{record.failed:,} by neither"] if record.failed else []
    if secondary and record.behind is not None:
        told[1] += f" (seen {words.seconds(record.behind)} behind at most)" if record.behind >= _BEHIND else ""
    told += [f"{record.hedged:,} asked both at the same time"] if record.hedged else []
    return [f"{', '.join(told)}.", _circuit(record)]


def _circuit(record: Record) -> str:
    if not record.opened:
        return "The circuit never opened." if record.state == ev.CLOSED else f"The circuit is {record.state}."
    did = [f"opened {words.times(record.opened)}"]
    if record.probes:
        did.append(f"was probed {words.times(record.probes)}")
    did.append("is closed again" if record.state == ev.CLOSED else f"is {record.state} at the end")
    return f"The circuit {', '.join(did[:-1])} and {did[-1]}."


def latency(record: Record) -> str:
    """How long reads took; empty before the first."""
    most, slowest = record.spread.quantile(0.99), record.slowest
    if most is None or slowest is None:
        return ""
    by = [(name, spread.quantile(0.5)) for name, spread in record.spreads.items()]
    medians = [f"{ms(value)} ms {name}" for name, value in by if value is not None]
    told = [f"median {', '.join(medians)}"] if medians else []
    told += [f"p99 {ms(most)}", f"slowest {ms(slowest.ms)} (read {slowest.n:,})"]
    line = "; ".join(told)
    return f"{line[:1].upper()}{line[1:]}."


def rules(record: Record) -> str:
    """The settings that the run went by."""
    settings = record.settings
    if settings is None:
        return ""
    threshold, aside = settings.retry_threshold, settings.secondary_threshold
    failures = "1 failure opens" if threshold == 1 else f"{threshold:,} failures in a row open"
    until = f"{words.reads(aside)}" if aside is not None else words.seconds(settings.cooldown or 0.0)
    rate = f"{settings.rate:g} reads a second" if settings.rate else "as fast as they go"
    return f"{failures} the circuit, {until} later the primary is probed; {rate}"


def ms(value: float) -> str:
    """Milliseconds, as exact as a person wants them."""
    return f"{value:.1f}" if value < 100 else f"{value:,.0f}"
