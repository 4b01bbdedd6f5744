"""How a run came out, in a few sentences that need no other: the head of its summary and of its picture."""

from __future__ import annotations

from failover.console.run_history import RunHistory
from failover.console.wording import clean, milliseconds, reads, seconds, times
from failover.demo import events as ev

_BEHIND = 0.05  # seconds; less is nothing on the screen


def account(history: RunHistory) -> str:
    """Which account was read."""
    return clean(history.settings.account) if history.settings else "no account"


def headline(history: RunHistory) -> str:
    """How many reads there were, and whether they were answered."""
    if not history.reads:
        return "Ended before the first read"
    total = history.settings.requests if history.settings else 0
    many = reads(history.reads) if history.whole or not total else f"{history.reads:,} of {reads(total)}"
    if history.failed:
        return f"{many}, {history.failed:,} failed"
    return f"{many}, {'answered' if history.reads == 1 else 'all answered'}"


def outcome(history: RunHistory) -> list[str]:
    """Who answered, how stale that may have been, and what the circuit did: a line each; none before the first read."""
    if not history.reads:
        return []
    told = [f"{history.primary:,} by the primary", f"{history.secondary:,} by the secondary"]
    told += [f"{history.failed:,} by neither"] if history.failed else []
    if history.secondary and history.behind is not None:
        told[1] += f" (seen {seconds(history.behind)} behind at most)" if history.behind >= _BEHIND else ""
    told += [f"{history.hedged:,} asked both at the same time"] if history.hedged else []
    return [f"{', '.join(told)}.", _circuit(history)]


def _circuit(history: RunHistory) -> str:
    if not history.opened:
        return "The circuit never opened." if history.run.state == ev.CLOSED else f"The circuit is {history.run.state}."
    did = [f"opened {times(history.opened)}"]
    if history.probes:
        did.append(f"was probed {times(history.probes)}")
    did.append("is closed again" if history.run.state == ev.CLOSED else f"is {history.run.state} at the end")
    return f"The circuit {', '.join(did[:-1])} and {did[-1]}."


def latency(history: RunHistory) -> str:
    """How long reads took; empty before the first."""
    most, slowest = history.spread.quantile(0.99), history.slowest
    if most is None or slowest is None:
        return ""
    by = [(name, spread.quantile(0.5)) for name, spread in history.spreads.items()]
    medians = [f"{milliseconds(value)} ms {name}" for name, value in by if value is not None]
    told = [f"median {', '.join(medians)}"] if medians else []
    told += [f"p99 {milliseconds(most)}", f"slowest {milliseconds(slowest.ms)} (read {slowest.n:,})"]
    line = "; ".join(told)
    return f"{line[:1].upper()}{line[1:]}."


def rules(history: RunHistory) -> str:
    """The settings that the run went by."""
    settings = history.settings
    if settings is None:
        return ""
    threshold, aside = settings.retry_threshold, settings.secondary_threshold
    failures = "1 failure opens" if threshold == 1 else f"{threshold:,} failures in a row open"
    until = f"{reads(aside)}" if aside is not None else seconds(settings.cooldown or 0.0)
    rate = f"{settings.rate:g} reads a second" if settings.rate else "as fast as they go"
    return f"{failures} the circuit, {until} later the primary is probed; {rate}"
