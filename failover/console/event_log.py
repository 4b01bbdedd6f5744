"""What happened in a run, as a list that stays short: the narrator's sentences, with those that repeat told once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from failover.console.narrator import Narrator, cause, times
from failover.demo import events as ev

_FIRST, _LAST = 12, 36  # entries that are kept of a run that has more
_NEAR = 8  # entries back from the last in which the same is looked for, of what has others in between
_SPREAD = ("primary probed", "secondary probed", "failed")
_QUIET = (ev.Started, ev.Waiting, ev.Resumed, ev.Finished)  # the head of the summary says these


@dataclass(slots=True)
class Entry:
    """Something that happened `t` seconds after the start, from read `first` to read `last` (0: before all reads).

    Where there is no room, those with the highest `minor` give way first. Entries of one `topic` that are near each
    other are one.
    """

    t: float
    first: int
    last: int
    text: str
    topic: str
    bad: bool = False
    minor: int = 0
    count: int = 1

    @property
    def which(self) -> str:
        """The number of the read, or those of the first and the last; empty where it belongs to none."""
        if not self.first:
            return ""
        return f"{self.first:,}" if self.first == self.last else f"{self.first:,}–{self.last:,}"


class EventLog:
    """The entries so far, of which a long run keeps the first and the last. `apply` each event, in order."""

    def __init__(self) -> None:
        self.omitted = 0
        self._entries: list[Entry] = []
        self._narrator = Narrator()
        self._n = 0  # reads that are over
        self._why = ""  # what the last failed attempt at the primary got
        self._circuit = 0  # how often it has closed: probes of two outages are not one

    def apply(self, event: ev.Event) -> None:
        """Take in what happened."""
        said = self._narrator.tell(event)
        if isinstance(event, ev.Read):
            self._n = event.n
            if event.endpoint == ev.PRIMARY and not event.failures:
                self._recovered()
        if isinstance(event, ev.Retried):
            self._why = cause(event.error)
        if isinstance(event, ev.Resumed):
            self._resumed(event)
        if said is None or isinstance(event, _QUIET):
            return
        n = getattr(event, "n", 0) or (self._n + 1 if isinstance(event, ev.FaultSwitched) else 0)
        minor = 2 if isinstance(event, (ev.Uploaded, ev.Replicated, ev.Paused)) else 0
        minor = 1 if isinstance(event, ev.FaultSwitched) else minor  # a lane shows it too
        entry = Entry(event.t, n, n, said.text, said.topic, said.bad, minor)
        if isinstance(event, ev.Transitioned) and not self._transition(event, entry):
            return
        if isinstance(event, ev.Retried) or (isinstance(event, ev.Read) and event.ok and not event.hedged):
            entry.topic = "attempts"
        if isinstance(event, ev.FaultSwitched):
            entry.topic = f"fault before read {n}"
            if self._entries and self._entries[-1].topic == entry.topic:
                self._entries.pop()  # on and off again, or off and on, with no read between them
                return
        self._take(entry)

    def chosen(self, most: int) -> tuple[list[Entry], int, list[Entry]]:
        """At most `most` entries: from the beginning, how many are left out, and from the end."""
        entries = list(self._entries)
        for level in (2, 1):
            if len(entries) > most:
                entries = [each for each in entries if each.minor != level]
        cut = _FIRST if self.omitted else 0
        if len(entries) <= most and not self.omitted:
            return entries[:-1], 0, entries[-1:]
        head = min(most // 3, cut or most)
        tail = entries[max(head, len(entries) - (most - head)) :]
        return entries[:head], self.omitted + len(entries) - head - len(tail), tail

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def _transition(self, event: ev.Transitioned, entry: Entry) -> bool:
        """Give the entry its topic; False where there is nothing to tell yet."""
        if event.new == ev.HALF_OPEN:
            return False  # how the probe ends is told
        which = "secondary" if event.circuit == ev.SECONDARY else "primary"
        if event.new == ev.OPEN and event.old == ev.HALF_OPEN:
            entry.topic = f"{which} probed {self._circuit}"
            if which == "secondary":
                entry.text = "The secondary's probe failed. Its circuit is open again: there is no net."
        else:
            entry.topic = f"{which} {event.new} {event.n}"
            self._circuit += 1
        if which == "primary":  # its attempts led to this
            while self._entries and self._entries[-1].topic == "attempts":
                self._entries.pop()
        return True

    def _take(self, entry: Entry) -> None:
        back = _NEAR if entry.topic.startswith(_SPREAD) else 1
        before = next((each for each in reversed(self._entries[-back:]) if each.topic == entry.topic), None)
        if before is None:
            self._add(entry)
            return
        before.count += entry.count
        before.last = entry.last
        before.text = self._again(before, entry)

    def _again(self, before: Entry, entry: Entry) -> str:
        if entry.topic.startswith("primary probed"):
            why = f" (primary {self._why})" if self._why else ""
            return f"{before.count:,} probes failed{why}: it stayed open."
        if entry.topic.startswith("secondary probed"):
            return f"{before.count:,} probes of the secondary failed: there is no net."
        if entry.topic == "recovered":
            return f"{entry.text.rstrip('.')}, and {before.count - 1:,} before it."
        if entry.topic == "paused":
            return f"Paused {times(before.count)}."
        return entry.text

    def _recovered(self) -> None:
        """The attempts that failed last led to nothing: they are told, whatever comes after them."""
        if self._entries and self._entries[-1].topic == "attempts":
            entry = self._entries.pop()
            entry.topic = "recovered"
            self._take(entry)

    def _resumed(self, event: ev.Resumed) -> None:
        paused = next((each for each in reversed(self._entries[-_NEAR:]) if each.topic == "paused"), None)
        if paused is not None and paused.count == 1 and paused.first == event.n:
            paused.text = f"Paused for {max(0.0, event.t - paused.t):.1f} s."

    def _add(self, entry: Entry) -> None:
        self._entries.append(entry)
        if len(self._entries) > _FIRST + _LAST:
            del self._entries[_FIRST]
            self.omitted += 1


def more(count: int) -> str:
    """What stands for entries that are left out."""
    return f"and {count:,} more {'event' if count == 1 else 'events'}"


def moment(t: float) -> str:
    """A time since the start: minutes, seconds and tenths, or hours, minutes and seconds."""
    tenths = round(max(t, 0.0) * 10)
    minutes, rest = divmod(tenths, 600)
    if minutes < 60:
        return f"{minutes}:{rest // 10:02}.{rest % 10}"
    return f"{minutes // 60}:{minutes % 60:02}:{rest // 10:02}"
