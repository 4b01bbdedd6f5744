"""What can be pressed: one table of keys serves the handler and the footer that explains them.

How keys come from a terminal is in `terminal.py`; what they do is in the hands of `Controls`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from failover.console.terminal import KeyReader

__all__ = ["KEYS", "Controls", "Key", "KeyReader", "footer", "press"]


class Controls(Protocol):
    """What a key can do to the run. Called from the thread that reads the keys."""

    @property
    def paused(self) -> bool:
        """Whether the run waits for a key."""

    def pause(self) -> None:
        """Stop before the next read."""

    def resume(self) -> None:
        """Go on."""

    def toggle_fault(self) -> None:
        """Switch the injected fault on or off; a paused run stays paused."""

    def quit(self) -> None:
        """End the run before the next read."""


@dataclass(frozen=True, slots=True)
class Key:
    """What one action is called and which keys ask for it. `resumes`: while paused these keys, as any other, resume."""

    keys: tuple[str, ...]
    name: str
    label: str
    act: Callable[[Controls], None]
    resumes: bool = False


KEYS = (
    Key((" ", "p"), "space", "pause", lambda controls: controls.pause(), resumes=True),
    Key(("f",), "f", "break", lambda controls: controls.toggle_fault()),
    Key(("q",), "q", "quit", lambda controls: controls.quit()),
)


def press(key: str, controls: Controls) -> None:
    """Do what this key asks for. While paused, a key without an action of its own resumes; else it does nothing."""
    pressed = next((each for each in KEYS if key.lower() in each.keys), None)
    if controls.paused and (pressed is None or pressed.resumes):
        controls.resume()
    elif pressed is not None:
        pressed.act(controls)


def footer(*, paused: bool, fault: str, fault_on: bool) -> list[tuple[str, str]]:
    """The keys that do something now, each with what it would do, in the order of the table."""
    shown = []
    for key in KEYS:
        if key.resumes and paused:
            shown.append(("any key", "resume"))
        elif key.label == "break":
            shown.append((key.name, "repair the primary" if fault_on else f"break the primary ({fault})"))
        else:
            shown.append((key.name, key.label))
    return shown
