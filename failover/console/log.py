"""The run as a file: every event as a line of JSON, flushed as it happens."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from failover.demo.events import Event, as_log


class JsonLines:
    """A sink that writes each event to `file`, which is begun anew. Raises `OSError` where it cannot be written."""

    def __init__(self, file: Path) -> None:
        self.written = True  # as far as it goes
        self._stream = file.open("w", encoding="utf-8", newline="\n")

    def __call__(self, event: Event) -> None:
        self._stream.write(json.dumps(as_log(event), separators=(",", ":")) + "\n")
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
