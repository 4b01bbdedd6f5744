"""`--report`: the run as a picture in a file, which is whole or not there at all."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from failover.console.drawing import picture
from failover.console.run_history import RunHistory
from failover.console.sinks import tell_stderr
from failover.console.wording import clean
from failover.demo.events import Event


class Report:
    """A sink whose context, when it ends, writes the picture of the run so far to `file`.

    Raises `OSError` at once where it cannot be written. What is in the file stays there until the new picture is
    complete; a disk that is full by then is told on stderr and changes nothing else. A run that an error ended
    before its first read leaves no picture.
    """

    def __init__(self, file: Path, *, time_of_day: Callable[[], float] = time.time) -> None:
        """Write to `file`. `time_of_day` in seconds since the epoch."""
        self.history = RunHistory()
        self.written = False
        self._file = file
        self._time_of_day = time_of_day
        self._replaced = _is_replaceable(file)
        if self._replaced:
            beside = self._beside()
            beside.touch(exist_ok=False)
            beside.unlink()

    def __call__(self, event: Event) -> None:
        """Take in what happened."""
        if self.history.start is None:
            self.history.start = self._time_of_day() - event.t
        self.history.apply(event)

    def __enter__(self) -> Report:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Exception) and not self.history.reads:
            return
        try:
            self._write(picture(self.history).encode())
            self.written = True
        except OSError as problem:
            why = problem.strerror or type(problem).__name__
            tell_stderr(f"--report {clean(str(self._file))} could not be written: {why}.")

    def _write(self, drawn: bytes) -> None:
        if not self._replaced:
            self._file.write_bytes(drawn)
            return
        beside = self._beside()
        try:
            beside.write_bytes(drawn)
            with suppress(OSError):
                shutil.copymode(self._file, beside)
            beside.replace(os.path.realpath(self._file))  # a link stays one
        except OSError:
            with suppress(OSError):
                beside.unlink()
            raise

    def _beside(self) -> Path:
        return Path(os.path.realpath(self._file)).with_name(f".report-{secrets.token_hex(6)}.tmp")


def _is_replaceable(file: Path) -> bool:
    """Whether a new file may take its place; a device or a pipe stays one. Raises `OSError` if neither can be."""
    try:
        mode = file.stat().st_mode
    except FileNotFoundError:
        return True
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not os.access(file, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    return stat.S_ISREG(mode)
