"""The run as lines of text, for a pipe, a CI log or --plain: one line for each read, one for each other event.

A read's line starts with its number, any other line with the name that the event has in the log.
"""

from __future__ import annotations

from typing import TextIO

from failover.console.narrator import KEYS_WHILE_PAUSED, WHY_TWO, Narrator, advice, clean, seconds
from failover.demo import events as ev


def write_line(line: str, stream: TextIO) -> None:
    """Write it and flush. What the stream's encoding cannot express is written as an escape."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    stream.flush()


class PlainLines:
    """A sink for events that writes each as a line to `stream` and flushes it.

    Raises what the stream raises: BrokenPipeError when its reader has gone away.
    """

    def __init__(self, stream: TextIO) -> None:
        """Write to `stream`."""
        self._stream = stream
        self._narrator = Narrator()
        self._settings: ev.Started | None = None
        self._fault_on = False
        self._opened_by_fault = False
        self._state = ev.CLOSED
        self._pauses = 0

    def __call__(self, event: ev.Event) -> None:
        """Write the line of this event."""
        write_line(self._line(event), self._stream)

    def _line(self, event: ev.Event) -> str:
        said = self._narrator.tell(event)
        text = said.text if said else ""
        match event:
            case ev.Read():
                self._state = event.state
                return _read(event)
            case ev.Started():
                self._settings = event
            case ev.FaultSwitched():
                self._fault_on = event.on
            case ev.Transitioned():
                if event.circuit == ev.PRIMARY and event.new == ev.OPEN:
                    self._opened_by_fault = self._fault_on
                text = f"{event.circuit} {event.old} -> {event.new}: {text}"
            case ev.Paused():
                self._pauses += 1
                text = f"{text} {self._what_now(event)}"
            case ev.SecondarySeen():
                text = _secondary(event)
        return f"{ev.as_log(event)['event']:<12}{text}".rstrip()

    def _what_now(self, event: ev.Paused) -> str:
        if event.asked or self._settings is None:
            return KEYS_WHILE_PAUSED
        told = advice(
            fault=self._settings.fault,
            fault_on=self._fault_on,
            opened_by_fault=self._opened_by_fault and not self._narrator.outside,
            state=self._state,
            proxy=self._settings.proxy is not None,
        )
        told = (WHY_TWO, *told) if self._pauses == 1 else told
        return " ".join(each if each.endswith((".", ",")) else f"{each}." for each in (*told, KEYS_WHILE_PAUSED))


def _read(event: ev.Read) -> str:
    line = f"{event.n:>6}  {event.endpoint or 'neither':<9}  {event.state:<9} {event.ms:>4.1f} ms"
    return line if event.ok else f"{line}  failed: {clean(event.error or 'neither endpoint answered')}"


def _secondary(event: ev.SecondarySeen) -> str:
    if not event.reachable:
        return f"does not answer{f' ({clean(event.error)})' if event.error else ''}: there is no net"
    if event.staleness is None:
        return "answers; how old its data may be is not known"
    return f"answers; what it holds may be {seconds(event.staleness)} old"
