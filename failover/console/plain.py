"""The run as lines of text, for a pipe, a CI log or --plain: one line for each read, one for each other event.

A read's line starts with its number, any other line with the name that the event has in the log.
"""

from __future__ import annotations

from typing import TextIO

from failover.console import narrator
from failover.console.run_history import RunHistory
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
        self._history = RunHistory()

    def __call__(self, event: ev.Event) -> None:
        """Write the line of this event."""
        write_line(self._line(event), self._stream)

    def _line(self, event: ev.Event) -> str:
        said = self._history.apply(event)
        text = said.text if said else ""
        match event:
            case ev.Read():
                return _read(event)
            case ev.Transitioned():
                text = f"{event.circuit} {event.old} -> {event.new}: {text}"
            case ev.Paused():
                text = f"{text} {self._what_now()}"
            case ev.SecondarySeen():
                text = narrator.what_it_holds(event)
        return f"{ev.as_log(event)['event']:<12}{text}".rstrip()

    def _what_now(self) -> str:
        run = self._history.run
        told = narrator.what_now(run)
        told = (narrator.WHY_TWO, *told) if told and run.pauses == 1 else told
        told = (*told, narrator.KEYS_WHILE_PAUSED)
        return " ".join(each if each.endswith((".", ",")) else f"{each}." for each in told)


def _read(event: ev.Read) -> str:
    line = f"{event.n:>6}  {event.endpoint or 'neither':<9}  {event.state:<9} {event.ms:>4.1f} ms"
    return line if event.ok else f"{line}  failed: {narrator.why_failed(event)}"
