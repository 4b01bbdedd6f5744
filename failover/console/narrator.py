"""What happened, in plain words: the one place where events become sentences, for the live screen and the plain lines.

A sentence needs more than its event: that the circuit opened is worth more with "answered 503 five times in
a row" in front. The `Narrator` remembers the little that this takes.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

from failover.demo import events as ev

_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_STATUS = re.compile(r"\s*([1-5]\d\d)\b")
_LONGEST = 300
_CAUSES = tuple(
    (re.compile(pattern, re.IGNORECASE), told)
    for pattern, told in (
        (r"proxy", "could not be reached through the proxy"),
        (r"time[d -]*out|too slow|no answer", "did not answer in time"),
        (r"broke off|incomplete", "broke off its answer"),
        (r"refused", "refused the connection"),
        (r"reset|aborted|closed|disconnect|broken", "cut the connection"),
        (r"resolve|getaddrinfo|name or service|nodename", "could not be found"),
        (r"certificate|TLS", "could not be trusted"),
        (r"no connection", "could not be connected to"),
    )
)
_EFFECTS = {
    "503": "the primary answers reads with 503",
    "timeout": "the primary does not answer reads",
    "reset": "the primary cuts the connections of reads",
    "slow": "the primary takes its time over reads",
    "down": "the primary's port is closed",
}

_ANOTHER = "another process"  # begins the reason of what another process has found out
FIDDLER_RULE = "RA-GRS: fail primary reads with 503"
WHY_TWO = "RA-GRS: the secondary is a copy in another region that may be read."
KEYS_WHILE_PAUSED = "Any key resumes; f breaks or repairs, and stays here; q quits."


def clean(text: str, longest: int = _LONGEST) -> str:
    """The text on one line of at most `longest` characters, with nothing in it that a terminal would obey.

    Errors carry what a server or a proxy wrote: line ends become spaces, control and formatting characters
    (escape sequences, text that runs backwards, half a surrogate) their escapes.
    """
    text = " ".join(text[: longest * 2].split())
    text = "".join(_escape(each) if unicodedata.category(each)[0] == "C" else each for each in text)
    return text if len(text) <= longest else text[: longest - 3] + "..."


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def number(count: int) -> str:
    """A count as one writes it in a sentence: words up to ten, then digits with their thousands apart."""
    return _NUMBERS[count] if 0 <= count <= 10 else f"{count:,}"


def times(count: int) -> str:
    """How often: once, twice, three times."""
    return {1: "once", 2: "twice"}.get(count, f"{number(count)} times")


def reads(count: int) -> str:
    """A number of reads, in digits."""
    return f"{count:,} read{'' if count == 1 else 's'}"


def seconds(value: float) -> str:
    """A duration of `value` seconds, as exact as a person wants it: 0.8 s, 12 s, 3 min, 2 h, 3 days."""
    if value < 9.95:
        return f"{max(value, 0.0):.1f} s"
    if value < 120:
        return f"{value:.0f} s"
    if value < 7200:
        return f"{value / 60:.0f} min"
    return f"{value / 3600:.0f} h" if value < 172800 else f"{value / 86400:.0f} days"


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


@dataclass(frozen=True, slots=True)
class Said:
    """One sentence. Of sentences that follow each other with the same `topic`, only the last is news."""

    text: str
    topic: str
    bad: bool = False


class Narrator:
    """Turns the events of one run into sentences, in order. Holds what the next sentences need, and no history.

    Attributes:
        outside: Whether the primary fails though this program's own fault is off: somebody else fails it.
    """

    def __init__(self) -> None:
        """Start with no event heard."""
        self.outside = False
        self._fault_on = self._own = False  # the fault is on; it was, at some time during the read that is under way
        self._threshold = 0
        self._secondary_threshold: int | None = None
        self._cooldown: float | None = None
        self._shared = False
        self._causes: set[str] = set()
        self._failures = 0
        self._probing = False
        self._failed_from: int | None = None
        self._hedged_from: int | None = None
        self._hedge = 0.0
        self._probe = 0  # the read that probed last
        self._net: bool | None = None

    def tell(self, event: ev.Event) -> Said | None:
        """The sentence for this event; None when there is nothing to say (a read that was answered)."""
        self._blame(event)
        match event:
            case ev.Started():
                self._threshold = event.retry_threshold
                self._secondary_threshold = event.secondary_threshold
                self._cooldown = event.cooldown
                self._shared = event.shared
                self._hedge = event.hedge or 0.0
                return Said(clean(event.account), "started")
            case ev.Noted():
                return Said(clean(event.text), f"note {event.text}")
            case ev.Uploaded():
                size = f"{event.bytes:,} bytes"
                return Said(
                    f"{clean(event.blob)} ({size}) is on the primary, in container {clean(event.container)}.",
                    "uploaded",
                )
            case ev.Waiting():
                told = f"{seconds(event.seconds)} of at most {seconds(event.limit)}"
                return Said(f"The secondary does not have it yet: {told}, look {event.attempts}.", "waiting")
            case ev.Replicated():
                return Said(f"The secondary has it too, {seconds(event.seconds)} after the upload.", "waiting")
            case ev.Read():
                return self._read(event)
            case ev.Retried():
                return self._retried(event)
            case ev.Transitioned():
                return self._transition(event)
            case ev.FaultSwitched():
                if event.by_another:
                    does = f"ON: {_EFFECTS.get(event.kind, 'reads of the primary fail')}" if event.on else "off"
                    return Said(f"Another process switched fault {clean(event.kind)} {does}.", "fault")
                does = f"is ON: {_EFFECTS.get(event.kind, 'reads of the primary fail')}" if event.on else "is off"
                return Said(f"Fault {clean(event.kind)} {does}.", "fault")
            case ev.Paused():
                return Said(f"Paused after read {event.n:,}{', as you asked' if event.asked else ''}.", "paused")
            case ev.Resumed():
                return Said(f"Resumed after read {event.n:,}.", "resumed")
            case ev.SecondarySeen():
                return self._secondary(event)
            case ev.Finished():
                parts = f"{event.primary:,} primary, {event.secondary:,} secondary, {event.failed:,} failed"
                return Said(f"Finished after {reads(event.reads)}: {parts}.", "finished", bad=event.failed > 0)
            case ev.CleanedUp(error=None):
                return Said(f"Container {clean(event.container)} is deleted.", "cleaned-up")
            case ev.CleanedUp(error=error):
                why = clean(str(error))
                return Said(
                    f"Container {clean(event.container)} could not be deleted (--clean-up removes it later): {why}",
                    "cleaned-up",
                    bad=True,
                )
        return None

    def _blame(self, event: ev.Event) -> None:
        match event:
            case ev.FaultSwitched():
                self._fault_on = event.on
                self._own = self._own or event.on
            case ev.Retried() | ev.Transitioned(circuit=ev.PRIMARY, new=ev.OPEN):
                others = isinstance(event, ev.Transitioned) and event.reason.startswith(_ANOTHER)
                self.outside = self.outside if others else not self._own
            case ev.Transitioned(circuit=ev.PRIMARY, new=ev.CLOSED):
                self.outside = False
            case ev.Resumed():
                self._own = self._fault_on
            case ev.Read():
                self.outside = self.outside and not (event.endpoint == ev.PRIMARY and not event.failures)
                self._own = self._fault_on

    def _read(self, event: ev.Read) -> Said | None:
        hedged_from, self._hedged_from = self._hedged_from, None
        if event.ok:
            self._failed_from = None
            if event.hedged:
                self._hedged_from = hedged_from or event.n
                return self._hedged(event, self._hedged_from)
            if event.failures == 0 and event.state == ev.CLOSED:
                self._forget_failures()
            if event.failures and event.endpoint == ev.PRIMARY and event.state == ev.CLOSED:
                count = f"failure {event.failures} of {self._threshold}"
                told = f"Read {event.n:,}: the primary took {seconds(event.ms / 1000)}. The answer is used, but counts"
                return Said(f"{told} as {count}.", f"attempts {event.n}")
            return None
        if self._failed_from is None:
            self._failed_from = event.n
        which = f"Read {event.n:,}" if self._failed_from == event.n else f"Reads {self._failed_from:,} to {event.n:,}"
        return Said(
            f"{which} failed: {clean(event.error or 'neither endpoint answered')}",
            f"failed {self._failed_from}",
            bad=True,
        )

    def _hedged(self, event: ev.Read, first: int) -> Said:
        one = first == event.n
        which = f"Read {event.n:,} asks" if one else f"Reads {first:,} to {event.n:,} ask"
        late = (
            "while it probes the primary"
            if event.n == self._probe
            else f"after {seconds(self._hedge)} without an answer"
        )
        won = f", and the {event.endpoint} is quicker" if one else ""
        return Said(f"{which} the secondary too, {late}{won}.", f"hedged {first}")

    def _retried(self, event: ev.Retried) -> Said:
        why = cause(event.error)
        self._causes.add(why)
        self._failures = event.failures
        more = "" if _STATUS.match(event.error) else f": {clean(event.error, 120)}"
        count = "it was the probe" if self._probing else f"failure {event.failures} of {event.threshold}"
        return Said(f"Read {event.n:,}: the primary {why} ({count}){more}", f"attempts {event.n}")

    def _transition(self, event: ev.Transitioned) -> Said:
        """What the primary's circuit does has the topic of the attempts before it: the outcome stands for them."""
        reason = clean(event.reason).rstrip(".")
        if event.circuit == ev.SECONDARY:
            return self._secondary_transition(event, reason)
        if reason.startswith(_ANOTHER):
            return self._transition_of_another(event)
        topic = f"attempts {event.n}"
        self._probing = event.new == ev.HALF_OPEN
        if self._probing:
            self._probe = event.n
            which = f"read {event.n:,}" if not self._shared else "a read of this process"  # once the others agree
            return Said(f"The circuit is half-open: {which} probes the primary.", topic)
        why, many = self._why(), self._failures or self._threshold
        self._forget_failures()
        if event.new == ev.CLOSED:
            if event.old == ev.HALF_OPEN:
                return Said(
                    "The primary answered the probe. The circuit is closed: reads go to the primary again.", topic
                )
            return Said(f"The circuit is closed ({reason}): reads go to the primary.", topic)
        if event.old == ev.HALF_OPEN:
            why = f"primary {why}" if why else reason.removeprefix("the probe failed: ")
            return Said(f"The probe failed ({why}). The circuit is open again: {self._until_probe()}.", topic)
        why = f"Primary {why} {times(many)} in a row" if why else reason[:1].upper() + reason[1:]
        why += " (not by our fault: that is off)" if self.outside else ""
        return Said(f"{why}. The circuit is open: {self._until_probe()}.", topic)

    def _transition_of_another(self, event: ev.Transitioned) -> Said:
        """What another process found out: it shares the circuit, and may be the one that probes."""
        topic = f"attempts {event.n}"
        self._forget_failures()
        self._probing = False
        if event.new == ev.HALF_OPEN:
            return Said("The circuit is half-open: another process probes the primary.", topic)
        if event.new == ev.CLOSED:
            return Said(
                "The primary answered another process. The circuit is closed: reads go to the primary again.", topic
            )
        found = "The probe of another process failed. The circuit is open again"
        if event.old == ev.CLOSED:
            found = "Another process found that the primary fails. The circuit is open"
        return Said(f"{found}: {self._until_probe()}.", topic)

    def _secondary_transition(self, event: ev.Transitioned, reason: str) -> Said:
        topic = f"secondary {event.n}"
        if event.new == ev.HALF_OPEN:
            return Said(f"The secondary's circuit is half-open: read {event.n:,} probes the secondary.", topic)
        if event.new == ev.CLOSED:
            return Said("The secondary answers again: its circuit is closed.", topic)
        return Said(f"The secondary's circuit is open ({reason}): there is no net.", topic, bad=True)

    def _until_probe(self) -> str:
        if self._shared:
            return "reads go to the secondary until a process probes the primary"
        if self._secondary_threshold is not None:
            one = self._secondary_threshold == 1
            return f"the next {'read goes' if one else f'{self._secondary_threshold:,} reads go'} to the secondary"
        if self._cooldown is not None:
            return f"for {seconds(self._cooldown)} reads go to the secondary"
        return "reads go to the secondary"

    def _why(self) -> str:
        """What all failures since the last success had in common; empty when none was reported."""
        return "" if not self._causes else self._causes.copy().pop() if len(self._causes) == 1 else "failed"

    def _forget_failures(self) -> None:
        self._causes.clear()
        self._failures = 0

    def _secondary(self, event: ev.SecondarySeen) -> Said | None:
        before, self._net = self._net, event.reachable
        if before is event.reachable or (before is None and event.reachable):
            return None
        if event.reachable:
            return Said("The secondary answers again: there is a net.", "net")
        why = f" ({clean(event.error)})" if event.error else ""
        return Said(f"The secondary does not answer{why}: there is no net.", "net", bad=True)


def cause(error: str) -> str:
    """What an endpoint did instead of answering, from the text of the error: the rest of a sentence about it."""
    status = _STATUS.match(error)
    if status:
        return f"answered {status.group(1)}"
    return next((told for pattern, told in _CAUSES if pattern.search(error)), "failed")
