"""Every sentence about what happens in a run: for the event log of screen, summary and report, and for the plain lines.

Most are told of one event, and of what was true before it. That the circuit opened is worth more with "answered 503
five times in a row" in front.
"""

from __future__ import annotations

from dataclasses import dataclass

from failover.console.run_state import ANOTHER, RunState
from failover.console.wording import cause, clean, has_status, reads, seconds, times
from failover.demo import events as ev

_EFFECTS = {
    "503": "the primary answers reads with 503",
    "timeout": "the primary does not answer reads",
    "reset": "the primary cuts the connections of reads",
    "slow": "the primary takes its time over reads",
    "down": "the primary's port is closed",
}
_ERROR = 120  # characters of it at most, where a sentence has said already what it means

FIDDLER_RULE = "RA-GRS: fail primary reads with 503"
WHY_TWO = "RA-GRS: the secondary is a copy in another region that may be read."
KEYS_WHILE_PAUSED = "Any key resumes; f breaks or repairs, and stays here; q quits."


@dataclass(frozen=True, slots=True)
class Said:
    """One sentence. Of sentences that follow each other with the same `topic`, only the last is news.

    `because` is what a failed probe met, where other probes may have met the same; else it is empty.
    """

    text: str
    topic: str
    bad: bool = False
    because: str = ""


def tell(event: ev.Event, run: RunState) -> Said | None:
    """The sentence for this event; None when there is nothing to say (a read that was answered).

    Args:
        event: What happened.
        run: What was true until then.
    """
    match event:
        case ev.Started():
            return Said(clean(event.account), "started")
        case ev.Noted():
            return Said(clean(event.text), f"note {event.text}")
        case ev.Uploaded():
            where = f"is on the primary, in container {clean(event.container)}."
            return Said(f"{clean(event.blob)} ({event.bytes:,} bytes) {where}", "uploaded")
        case ev.Waiting():
            return Said(f"The secondary does not have it yet: {waited(event)}, look {event.attempts}.", "waiting")
        case ev.Replicated():
            return Said(f"The secondary has it too, {seconds(event.seconds)} after the upload.", "waiting")
        case ev.Read(ok=False):
            return _failed(event, run.failing_since or event.n)
        case ev.Read(hedged=True):
            return _hedged(event, run)
        case ev.Read():
            return _slow(event, run)
        case ev.Retried():
            more = "" if has_status(event.error) else f": {clean(event.error, _ERROR)}"
            count = "it was the probe" if run.probing else f"failure {event.failures} of {event.threshold}"
            return Said(f"Read {event.n:,}: the primary {cause(event.error)} ({count}){more}", f"attempts {event.n}")
        case ev.Transitioned(circuit=ev.SECONDARY):
            return _secondary_transition(event)
        case ev.Transitioned() if event.reason.startswith(ANOTHER):
            return _transition_of_another(event, run)
        case ev.Transitioned():
            return _transition(event, run)
        case ev.FaultSwitched():
            does = f"ON: {_EFFECTS.get(event.kind, 'reads of the primary fail')}" if event.on else "off"
            who = f"Another process switched fault {clean(event.kind)}"
            return Said(f"{who if event.by_another else f'Fault {clean(event.kind)} is'} {does}.", "fault")
        case ev.Paused():
            return Said(f"Paused after read {event.n:,}{', as you asked' if event.asked else ''}.", "paused")
        case ev.Resumed():
            return Said(f"Resumed after read {event.n:,}.", "resumed")
        case ev.SecondarySeen():
            return _secondary_seen(event, run)
        case ev.Finished():
            parts = f"{event.primary:,} primary, {event.secondary:,} secondary, {event.failed:,} failed"
            return Said(f"Finished after {reads(event.reads)}: {parts}.", "finished", bad=event.failed > 0)
        case ev.CleanedUp(container=container, error=None):
            return Said(f"Container {clean(container)} is deleted.", "cleaned-up")
        case ev.CleanedUp(container=container, error=error):
            left = "could not be deleted (--clean-up removes it later)"
            return Said(f"Container {clean(container)} {left}: {clean(str(error))}", "cleaned-up", bad=True)
    return None


def why_failed(event: ev.Read) -> str:
    """Why a read was not answered."""
    return clean(event.error or "neither endpoint answered")


def _failed(event: ev.Read, first: int) -> Said:
    which = f"Read {event.n:,}" if first == event.n else f"Reads {first:,} to {event.n:,}"
    return Said(f"{which} failed: {why_failed(event)}", f"failed {first}", bad=True)


def _slow(event: ev.Read, run: RunState) -> Said | None:
    if not event.failures or event.endpoint != ev.PRIMARY or event.state != ev.CLOSED:
        return None
    told = f"Read {event.n:,}: the primary took {seconds(event.ms / 1000)}. The answer is used, but counts"
    return Said(f"{told} as failure {event.failures} of {run.threshold}.", f"attempts {event.n}")


def _hedged(event: ev.Read, run: RunState) -> Said:
    first = run.hedging_since or event.n
    which = f"Read {event.n:,} asks" if first == event.n else f"Reads {first:,} to {event.n:,} ask"
    won = f", and the {event.endpoint} is quicker" if first == event.n else ""
    after = (run.settings.hedge if run.settings else None) or 0.0
    late = "while it probes the primary" if event.n == run.probe else f"after {seconds(after)} without an answer"
    return Said(f"{which} the secondary too, {late}{won}.", f"hedged {first}")


def _transition(event: ev.Transitioned, run: RunState) -> Said:
    """What the primary's circuit does has the topic of the attempts before it: the outcome stands for them."""
    topic = f"attempts {event.n}"
    reason = clean(event.reason).rstrip(".")
    if event.new == ev.HALF_OPEN:
        which = "a read of this process" if _is_shared(run) else f"read {event.n:,}"  # others number theirs
        return Said(f"The circuit is half-open: {which} probes the primary.", topic)
    if event.new == ev.CLOSED:
        if event.old == ev.HALF_OPEN:
            return Said("The primary answered the probe. The circuit is closed: reads go to the primary again.", topic)
        return Said(f"The circuit is closed ({reason}): reads go to the primary.", topic)
    if event.old == ev.HALF_OPEN:
        because = f"primary {run.why}" if run.why else reason.removeprefix("the probe failed: ")
        told = f"The probe failed ({because}). The circuit is open again: {_until_probe(run)}."
        return Said(told, topic, because=because if run.why else "")
    why = f"Primary {run.why} {times(run.threshold)} in a row" if run.why else reason[:1].upper() + reason[1:]
    why += "" if run.own else " (not by our fault: that is off)"
    return Said(f"{why}. The circuit is open: {_until_probe(run)}.", topic)


def _transition_of_another(event: ev.Transitioned, run: RunState) -> Said:
    """What another process found out: it shares the circuit, and may be the one that probes."""
    topic = f"attempts {event.n}"
    if event.new == ev.HALF_OPEN:
        return Said("The circuit is half-open: another process probes the primary.", topic)
    if event.new == ev.CLOSED:
        found = "The primary answered another process. The circuit is closed: reads go to the primary again."
        return Said(found, topic)
    found = "The probe of another process failed. The circuit is open again"
    if event.old == ev.CLOSED:
        found = "Another process found that the primary fails. The circuit is open"
    return Said(f"{found}: {_until_probe(run)}.", topic)


def _secondary_transition(event: ev.Transitioned) -> Said:
    topic = f"secondary {event.n}"
    if event.new == ev.HALF_OPEN:
        return Said(f"The secondary's circuit is half-open: read {event.n:,} probes the secondary.", topic)
    if event.new == ev.CLOSED:
        return Said("The secondary answers again: its circuit is closed.", topic)
    reason = clean(event.reason).rstrip(".")
    return Said(f"The secondary's circuit is open ({reason}): there is no net.", topic, bad=True)


def _until_probe(run: RunState) -> str:
    if _is_shared(run):
        return "reads go to the secondary until a process probes the primary"
    threshold = run.settings.secondary_threshold if run.settings else None
    if threshold is not None:
        return f"the next {'read goes' if threshold == 1 else f'{threshold:,} reads go'} to the secondary"
    if run.settings is not None and run.settings.cooldown is not None:
        return f"for {seconds(run.settings.cooldown)} reads go to the secondary"
    return "reads go to the secondary"


def _is_shared(run: RunState) -> bool:
    return run.settings is not None and run.settings.shared


def _secondary_seen(event: ev.SecondarySeen, run: RunState) -> Said | None:
    """Told where it has changed; that it answers from the beginning is no news."""
    reached = None if run.secondary_seen is None else run.secondary_seen.reachable
    if reached is event.reachable or (reached is None and event.reachable):
        return None
    if event.reachable:
        return Said("The secondary answers again: there is a net.", "net")
    return Said(f"The secondary {no_net(event)}.", "net", bad=True)


def no_net(event: ev.SecondarySeen) -> str:
    """That the secondary does not answer: the rest of a sentence about it."""
    return f"does not answer{f' ({clean(event.error)})' if event.error else ''}: there is no net"


def what_it_holds(event: ev.SecondarySeen) -> str:
    """What a look at the secondary has found, change or not."""
    if not event.reachable:
        return no_net(event)
    if event.staleness is None:
        return "answers; how old its data may be is not known"
    return f"answers; what it holds may be {seconds(event.staleness)} old"


def waited(event: ev.Waiting) -> str:
    """For how long the secondary has been waited for."""
    return f"{seconds(event.seconds)} of at most {seconds(event.limit)}"


def failed_probes(count: int, because: str) -> str:
    """That so many probes of the primary failed, at least two; `because`: what each of them met."""
    return f"{count:,} probes failed{f' ({because})' if because else ''}: it stayed open."


def failed_probes_of_secondary(count: int) -> str:
    """That so many probes of the secondary failed."""
    if count == 1:
        return "The secondary's probe failed. Its circuit is open again: there is no net."
    return f"{count:,} probes of the secondary failed: there is no net."


def and_before(text: str, count: int) -> str:
    """A sentence of an attempt that led to nothing, with how many there were before it."""
    return f"{text.rstrip('.')}, and {count:,} before it."


def paused_for(duration: float) -> str:
    """For how many seconds the run was paused."""
    return f"Paused for {max(0.0, duration):.1f} s."


def paused(count: int) -> str:
    """How often the run was paused with nothing in between."""
    return f"Paused {times(count)}."


def more_events(count: int) -> str:
    """What stands for entries that are left out."""
    return f"and {count:,} more {'event' if count == 1 else 'events'}"


def until_probe(run: RunState, now: float) -> str:
    """What happens before the circuit's next state, while it is not closed; `now` in seconds since the start."""
    if run.state == ev.HALF_OPEN:
        return "probed by another process" if run.probed_by_another else "one read probes the primary"
    left = run.seconds_left(now)
    if left is None and run.reads_left is None:
        return "the primary is left alone"
    if not (left or run.reads_left):
        return "the next read is the probe"
    return f"{reads(run.reads_left or 0) if left is None else seconds(left)} until the probe"


def what_now(run: RunState) -> tuple[str, ...]:
    """What can be done now, at the end of a round, one sentence a line; nothing in a pause that was asked for."""
    if run.paused is None or run.paused.asked or run.settings is None:
        return ()
    return advice(
        fault=clean(run.fault, 20),
        fault_on=run.fault_on,
        opened_by_fault=run.opened_by_fault,
        state=run.state,
        proxy=run.settings.proxy is not None,
    )


def advice(*, fault: str, fault_on: bool, opened_by_fault: bool, state: str, proxy: bool) -> tuple[str, ...]:
    """What to do at the end of a round, one sentence a line.

    `fault` is the kind that f switches, `state` that of the primary's circuit. A circuit that opened with our own
    fault off means that somebody else fails the primary: the rule in Fiddler, or a real outage.
    """
    rule = f"Rules > {FIDDLER_RULE}"
    if state == ev.CLOSED:
        if fault_on:
            return (f"Fault {fault} is on: the primary is about to fail.", "Resume, and watch the circuit open.")
        watch = "Then resume, and watch the circuit open."
        if proxy:
            return (f"In Fiddler tick {rule}", f"(or press f: fault {fault}, the same without Fiddler).", watch)
        return (f"Press f: it fails the primary's reads ({fault}).", f"Or in Fiddler tick {rule}", watch)
    if fault_on:
        return (
            f"Press f to switch fault {fault} off: the primary answers again,",
            "and the next probe closes the circuit.",
        )
    if opened_by_fault:
        return (
            f"Fault {fault} is off again: the primary answers.",
            "Resume, and watch the next probe close the circuit.",
        )
    then = "The next probe that the primary answers closes the circuit."
    if proxy:
        return (f"In Fiddler untick {rule}", "(it is not our own fault that fails the primary: that is off).", then)
    return ("The primary fails, and not by our fault: that is off.", f"Is it Fiddler? Then untick {rule}", then)
