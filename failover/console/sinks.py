"""What takes the events of a run: the plain lines, the log, and what hands each event to all that show or keep it."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Protocol, TextIO

from failover.console import narrator
from failover.console.run_history import RunHistory
from failover.demo import events as ev

Sink = Callable[[ev.Event], None]


class Keeper(Protocol):
    """A sink that writes a file, and can say whether that is there."""

    @property
    def written(self) -> bool:
        """Whether the file holds what it should."""

    def __call__(self, event: ev.Event) -> None:
        """Take in an event."""


class Sinks:
    """A sink made of sinks, for events of any thread; each sees one event at a time, in one order.

    `nobody_left` is called when what shows the run is gone, as after `| head`.
    """

    def __init__(self) -> None:
        self.nobody_left: Callable[[], None] = lambda: None
        self._keepers: dict[str, tuple[Path, Keeper]] = {}
        self._shower: Sink | None = None
        self._lock = threading.RLock()

    @property
    def shown(self) -> bool:
        """Whether what shows the run is there still."""
        return self._shower is not None

    def keep(self, name: str, file: Path, sink: Keeper) -> None:
        """Add one that writes `file` and without which the run goes on; `name` says what ended when it breaks."""
        self._keepers[name] = file, sink

    def kept(self) -> list[tuple[str, Path]]:
        """The names and files of those that did not break."""
        return [(name, file) for name, (file, sink) in self._keepers.items() if sink.written]

    def show(self, sink: Sink) -> None:
        """Set the one that shows the run."""
        self._shower = sink

    def __call__(self, event: ev.Event) -> None:
        with self._lock:
            self._show(event)
            for name, (_, sink) in list(self._keepers.items()):
                try:
                    sink(event)
                except OSError as error:
                    del self._keepers[name]
                    self(ev.Noted(t=event.t, text=f"The {name} ends here: {error.strerror or type(error).__name__}."))

    def _show(self, event: ev.Event) -> None:
        if self._shower is not None:
            try:
                self._shower(event)
            except OSError as error:
                self._shower = None
                _forget(sys.stdout)
                if not isinstance(error, BrokenPipeError):  # a reader that went away has seen enough
                    tell_stderr(f"stdout cannot be written: {error.strerror or type(error).__name__}.")
                self.nobody_left()
        if self._shower is None and isinstance(event, ev.CleanedUp) and event.error is not None:
            tell_stderr(f"the container {event.container} is left behind: --clean-up removes it.")


class PlainLines:
    """A sink for events that writes each as a line to `stream` and flushes it, for a pipe, a CI log or --plain.

    A read's line starts with its number, any other line with the name that the event has in the log. Raises what the
    stream raises: BrokenPipeError when its reader has gone away.
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


def write_line(line: str, stream: TextIO) -> None:
    """Write it and flush. What the stream's encoding cannot express is written as an escape."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    stream.flush()


class JsonLines:
    """A sink that writes each event to `file`, which is begun anew. Raises `OSError` where it cannot be written."""

    def __init__(self, file: Path) -> None:
        self.written = True  # as far as it goes
        self._stream = file.open("w", encoding="utf-8", newline="\n")

    def __call__(self, event: ev.Event) -> None:
        self._stream.write(json.dumps(ev.as_log(event), separators=(",", ":")) + "\n")
        self._stream.flush()

    def __enter__(self) -> JsonLines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; what a full disk did not take is lost. No effect the second time."""
        with suppress(OSError):
            self._stream.close()


def tell_stderr(text: str) -> None:
    """One line for the user, where the screen is not the place for it."""
    with suppress(OSError, AttributeError):  # it may be closed
        sys.stderr.write(f"circuitbreaker.py: {text}\n")


def _forget(stream: TextIO) -> None:
    """Python flushes stdout and stderr once more when it ends, and would complain of the same again."""
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def flush_or_forget() -> None:
    """Flush what is left for a stdout or stderr, which may be gone with its terminal.

    Python would try again when it ends, and turn a failure into an exit code of its own (120).
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except (OSError, ValueError):
            _forget(stream)
