"""What happened in a run, as the narrator tells it: the last sentences, and a list of all that stays short."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from failover.console import narrator
from failover.console.narrator import Said
from failover.console.run_state import RunState
from failover.demo import events as ev

_RECENT = 200  # sentences; more than the highest terminals have rows for
_FIRST, _LAST = 12, 36  # entries that are kept of a run that has more
_NEAR = 8  # entries back from the last in which the same is looked for, of what has others in between
_SPREAD = ("primary probed", "secondary probed", "failed")
_ATTEMPTS = "attempts"
_NO_NEWS = (ev.Started, ev.Waiting)  # the header of the screen says these
_QUIET = (*_NO_NEWS, ev.Resumed, ev.Finished)  # and the head of the summary these


@dataclass(slots=True)
class Entry:
    """Something that happened `t` seconds after the start, from read `first` to read `last` (0: before all reads).

    Where there is no room, those with the highest `minor` give way first. Entries of one `topic` that are near each
    other are one, of `count`.
    """

    t: float
    first: int
    last: int
    text: str
    topic: str
    bad: bool = False
    because: str = ""
    minor: int = 0
    count: int = 1

    @property
    def which(self) -> str:
        """The number of the read, or those of the first and the last; empty where it belongs to none."""
        if not self.first:
            return ""
        return f"{self.first:,}" if self.first == self.last else f"{self.first:,}–{self.last:,}"


class EventLog:
    """The entries so far: as they came, of which the last are `recent`; and condensed, in which case it is iterated.

    In the condensed list what repeats is one entry, attempts give way to what came of them, and a long run keeps the
    first and the last.
    """

    def __init__(self) -> None:
        """Start with no entry."""
        self.recent: deque[Entry] = deque(maxlen=_RECENT)
        self.omitted = 0
        self._entries: list[Entry] = []
        self._turns = 0  # how often a circuit has opened or closed: probes of two outages are not one

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries)

    def add(self, event: ev.Event, run: RunState) -> Said | None:
        """Take in what happened, and return its sentence, if it has one; `run` is what was true until then."""
        said = narrator.tell(event, run)
        if isinstance(event, ev.Read) and event.endpoint == ev.PRIMARY and not event.failures:
            self._recovered()
        if isinstance(event, ev.Resumed):
            self._resumed(event)
        if said is not None and not isinstance(event, _NO_NEWS):
            if self.recent and self.recent[-1].topic == said.topic:
                self.recent.pop()
            self.recent.append(Entry(event.t, run.reads, run.reads, said.text, said.topic, said.bad))
        if said is not None and not isinstance(event, _QUIET):
            self._condense(event, said, run)
        return said

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

    def _condense(self, event: ev.Event, said: Said, run: RunState) -> None:
        n = getattr(event, "n", 0)
        entry = Entry(event.t, n, n, said.text, said.topic, said.bad, said.because)
        match event:
            case ev.Uploaded() | ev.Replicated() | ev.Paused():
                entry.minor = 2
            case ev.FaultSwitched():
                entry.minor = 1  # a lane shows it too
                entry.first = entry.last = run.reads + 1
                entry.topic = f"fault before read {entry.first}"
                if self._entries and self._entries[-1].topic == entry.topic:
                    self._entries.pop()  # on and off again, or off and on, with no read between them
                    return
            case ev.Transitioned(new=ev.HALF_OPEN):
                return  # how the probe ends is told
            case ev.Transitioned():
                self._transition(event, entry)
            case ev.Retried() | ev.Read(ok=True, hedged=False):
                entry.topic = _ATTEMPTS
        self._take(entry)

    def _transition(self, event: ev.Transitioned, entry: Entry) -> None:
        which = ev.SECONDARY if event.circuit == ev.SECONDARY else ev.PRIMARY
        if event.new == ev.OPEN and event.old == ev.HALF_OPEN:
            entry.topic = f"{which} probed {self._turns}"
            if which == ev.SECONDARY:
                entry.text = narrator.failed_probes_of_secondary(1)
        else:
            entry.topic = f"{which} {event.new} {event.n}"
            self._turns += 1
        if which == ev.PRIMARY:  # its attempts led to this
            while self._entries and self._entries[-1].topic == _ATTEMPTS:
                self._entries.pop()

    def _take(self, entry: Entry) -> None:
        back = _NEAR if entry.topic.startswith(_SPREAD) else 1
        before = next((each for each in reversed(self._entries[-back:]) if each.topic == entry.topic), None)
        if before is not None:
            before.count += entry.count
            before.last = entry.last
            before.because = before.because if before.because == entry.because else ""
            before.text = _again(before, entry)
            return
        self._entries.append(entry)
        if len(self._entries) > _FIRST + _LAST:
            del self._entries[_FIRST]
            self.omitted += 1

    def _recovered(self) -> None:
        """The attempts that failed last led to nothing: they are told, whatever comes after them."""
        if self._entries and self._entries[-1].topic == _ATTEMPTS:
            entry = self._entries.pop()
            entry.topic = "recovered"
            self._take(entry)

    def _resumed(self, event: ev.Resumed) -> None:
        paused = next((each for each in reversed(self._entries[-_NEAR:]) if each.topic == "paused"), None)
        if paused is not None and paused.count == 1 and paused.first == event.n:
            paused.text = narrator.paused_for(event.t - paused.t)


def _again(before: Entry, entry: Entry) -> str:
    """The sentence of an entry that has taken in another one of its topic."""
    if entry.topic.startswith("primary probed"):
        return narrator.failed_probes(before.count, before.because)
    if entry.topic.startswith("secondary probed"):
        return narrator.failed_probes_of_secondary(before.count)
    if entry.topic == "recovered":
        return narrator.and_before(entry.text, before.count - 1)
    if entry.topic == "paused":
        return narrator.paused(before.count)
    return entry.text
