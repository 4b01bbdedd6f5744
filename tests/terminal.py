"""The program on a pseudo-terminal, as its user sees it: keys in, a screen out. POSIX only."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import pexpect
import pyte
import pyte.screens

from tests.program import PROGRAM, SECONDS, Log, environment
from tests.servers import Account

CTRL_C, CTRL_Z, UP = "\x03", "\x1a", "\x1b[A"
TITLE = "RA-GRS failover"


class Screen(pyte.Screen):
    """pyte's screen with an alternate one beside it, and with a count of what should not happen on that."""

    def __init__(self, columns: int, lines: int) -> None:
        self.alternate = False
        self.scrolled = 0
        self._normal: list[str] = []
        super().__init__(columns, lines)

    def set_mode(self, *modes: int, **kwargs: Any) -> None:
        super().set_mode(*modes, **kwargs)
        if 1049 in modes and kwargs.get("private") and not self.alternate:
            self.alternate = True
            self._normal = list(self.display)
            self._clear()

    def reset_mode(self, *modes: int, **kwargs: Any) -> None:
        super().reset_mode(*modes, **kwargs)
        if 1049 in modes and kwargs.get("private") and self.alternate:
            self.alternate = False
            self._clear()
            for line in self._normal:
                if line.strip():
                    self.draw(line.rstrip())
                    self.index()
                    self.carriage_return()

    def select_graphic_rendition(self, *attributes: int, **kwargs: Any) -> None:
        """As pyte's, which knows no faint text: that is told as italics, which the program does not use."""
        super().select_graphic_rendition(*attributes, **kwargs)
        if 2 in attributes:
            self.cursor.attrs = self.cursor.attrs._replace(italics=True)

    def _clear(self) -> None:
        self.erase_in_display(2)
        self.cursor_position()

    def index(self) -> None:
        bottom = (self.margins or pyte.screens.Margins(0, self.lines - 1)).bottom
        if self.alternate and self.cursor.y == bottom:
            self.scrolled += 1
        super().index()

    @property
    def cursor_shown(self) -> bool:
        return not self.cursor.hidden

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.display)


class Terminal:
    """`with Terminal("--requests", 10) as terminal:` runs the program; a process that is left at the end is killed.

    columns, rows: its size. account: instead of the stand-in. python: options for the interpreter. command: run this
    instead of the program.
    """

    def __init__(
        self,
        *options: object,
        folder: Path,
        columns: int = 80,
        rows: int = 24,
        account: Account | None = None,
        env: Mapping[str, str] | None = None,
        python: Sequence[str] = (),
        command: Sequence[str] = (),
    ) -> None:
        self.log_file = folder / "run.jsonl"
        run = [sys.executable, *python, str(PROGRAM), *map(str, options), "--log", str(self.log_file)]
        self.command = run
        first, *rest = command or run
        self._child = pexpect.spawn(
            first,
            rest,
            cwd=str(folder),
            env=environment(account, **(env or {})),
            dimensions=(rows, columns),
            timeout=SECONDS,
        )
        self.pid: int = self._child.pid
        self.before = termios.tcgetattr(self._child.child_fd)
        self.screen = Screen(columns, rows)
        self.watched = True  # that row 0 shows the title and nothing scrolls
        self._stream = pyte.ByteStream(self.screen)
        self._titled = False
        self._ended = False
        self.sent = b""  # by the program, all of it

    @property
    def settings(self) -> list[Any]:
        """Of the terminal, now."""
        return termios.tcgetattr(self._child.child_fd)

    @property
    def log(self) -> Log:
        return Log.of(self.log_file)

    def press(self, keys: str) -> None:
        os.write(self._child.child_fd, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        """As a window does: the terminal knows its new size, and its foreground process is told."""
        self._titled = False
        self.read()
        self.screen.resize(rows, columns)
        self._child.setwinsize(rows, columns)
        self.screen.scrolled = 0

    def read(self) -> bool:
        """Take in what the program has written by now, and look at it. False when nothing more will come."""
        if self._ended:
            return False
        try:
            data = self._child.read_nonblocking(65536, timeout=0.05)
        except pexpect.TIMEOUT:
            return True
        except pexpect.EOF:
            self._ended = True
            return False
        self.sent += data
        # Byte by byte would show each state that a terminal can be in; between two rows is often enough.
        for part in re.split(rb"(?<=\n)", data):
            self._stream.feed(part)
            self._look()
        return True

    def _look(self) -> None:
        if not (self.watched and self.screen.alternate):
            self._titled = False  # until the next frame
            return
        top = TITLE in self.screen.display[0]
        self._titled = self._titled or top
        assert top or not self._titled or self.screen.lines < 12, f"row 0 is lost:\n{self.screen.text}"
        assert self.screen.scrolled == 0, f"scrolled:\n{self.screen.text}"

    def until(self, what: str | Callable[[], bool], seconds: float = SECONDS) -> str:
        """Read until the screen shows these words, or this holds; the screen then. Raises AssertionError if never."""
        deadline = time.monotonic() + seconds

        def holds() -> bool:
            return what in self.screen.text if isinstance(what, str) else what()

        while not holds():
            more = self.read()
            assert more or holds(), f"ended without {what!r}:\n{self.sent[-3000:].decode(errors='replace')}"
            assert time.monotonic() < deadline, f"not within {seconds:g} s: {what!r}\n{self.screen.text}"
        return self.screen.text

    def ended(self, seconds: float = SECONDS) -> int:
        """Read until the program is over; its exit code, or minus the signal that killed it."""
        deadline = time.monotonic() + seconds
        while self.read():
            assert time.monotonic() < deadline, f"still running after {seconds:g} s:\n{self.screen.text}"
        self._child.wait()
        status: int | None = self._child.exitstatus
        return -self._child.signalstatus if status is None else status

    def hang_up(self) -> None:
        """Close the window: the program gets SIGHUP, and an error from all that it writes."""
        self._child.ptyproc.fileobj.close()
        self._child.closed = self._ended = True

    def gone(self) -> bool:
        """Whether the process has ended; for after `hang_up`."""
        return not self._child.isalive()

    @property
    def exit_code(self) -> int | None:
        status: int | None = self._child.exitstatus
        return status

    def check_given_back(self) -> None:
        """That the terminal is as the program found it."""
        assert self.settings == self.before
        assert not self.screen.alternate
        assert self.screen.cursor_shown
        assert self.sent.rfind(b"\x1b[?2004l") >= self.sent.rfind(b"\x1b[?2004h")
        assert b"Traceback" not in self.sent

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if self._child.isalive():
                os.killpg(os.getpgid(self.pid), 9)
                self._child.wait()
        if not self._child.closed:
            self._child.ptyproc.fileobj.close()
            self._child.closed = True
