"""Single keys from a terminal, which gets its settings back whatever happens: all code that knows the platform."""

from __future__ import annotations

import _thread
import atexit
import codecs
import contextlib
import importlib
import os
import re
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, Protocol

_ESC = "\x1b"
_PASTE, _PASTE_END = "\x1b[200~", "\x1b[201~"
_LONGEST = 256  # characters; a longer sequence is noise and counts as one key

# One escape sequence, complete: Linux console function keys, old mouse reports, CSI, SS3, strings (replies of the
# terminal), and Alt with a key.
_SEQUENCE = re.compile(
    r"\x1b{1,2}(?:\[\[.|\[M...|\[(?![\[M])[0-?]*[ -/]*[@-~]|O.|[\]P_^X][^\x07\x1b]*(?:\x07|\x1b\\)|[^\[O\]P_^X\x1b])",
    re.DOTALL,
)
# What a terminal sends without a key being pressed: it gained or lost the focus, the mouse moved, a reply.
_NO_KEY = re.compile(r"\x1b(?:\[[IO]|\[M...|\[<[\d;]*[Mm]|\[\?[\d;]*[a-z]|\[>[\d;]*c|[\]P_^X].*)", re.DOTALL)
_PARTIAL = re.compile(r"\x1b{1,2}(?:\[(?:\[|M.{0,2}|[0-?]*[ -/]*)?|O|[\]P_^X][^\x07]*)?", re.DOTALL)


class KeyDecoder:
    """Bytes in, keys out: a character is a key, and so is an escape sequence (an arrow).

    A bracketed paste is no key, whatever is in it. Reports of focus and mouse and replies of the terminal are none
    either: clicking into another window, Fiddler's say, must not resume a paused run. Pure: no terminal, no clock.
    """

    def __init__(self) -> None:
        """Start with nothing pending."""
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._text = ""
        self._pasting = False

    @property
    def patience(self) -> float | None:
        """After how many seconds of silence to `flush`; None when nothing is pending."""
        if self._pasting:
            return 1.0
        return 0.05 if self._text else None

    def feed(self, data: bytes) -> list[str]:
        """The keys completed by these bytes."""
        self._text += self._utf8.decode(data)
        return list(self._keys())

    def flush(self) -> list[str]:
        """The keys in what is pending, now that nothing followed: a lone Esc, or a sequence cut off, is one."""
        pending, pasting = self._text, self._pasting
        self._text, self._pasting = "", False
        return [pending] if pending and not pasting else []

    def _keys(self) -> Iterator[str]:
        while self._text:
            if self._pasting:
                _, end, rest = self._text.partition(_PASTE_END)
                if not end:
                    self._text = self._text[-len(_PASTE_END) + 1 :]
                    return
                self._pasting, self._text = False, rest
            elif self._text[0] != _ESC:
                key, self._text = self._text[0], self._text[1:]
                yield key
            elif sequence := _SEQUENCE.match(self._text):
                self._text = self._text[sequence.end() :]
                self._pasting = sequence.group() == _PASTE
                if not (self._pasting or _NO_KEY.fullmatch(sequence.group())):
                    yield sequence.group()
            elif len(self._text) < _LONGEST and _PARTIAL.fullmatch(self._text):
                return
            else:
                yield self._text
                self._text = ""


class _Keyboard(Protocol):
    def open(self) -> None: ...
    def close(self) -> None: ...
    def read(self, on_key: Callable[[str], None]) -> None: ...
    def wake(self) -> None: ...


class KeyReader:
    """Reads single keys in a thread of its own, as a context manager.

    `on_key` is called from that thread with each key, `on_end` at most once when no more can come (end of
    file, or the terminal is gone). When the process is stopped and continued (Ctrl-Z, fg), `on_stop` is called before
    and `on_continue` after, in the main thread. Ctrl-C is not a key: it interrupts the main thread.

    Raises OSError on entering when `fd`, by default stdin, is no terminal.
    """

    def __init__(
        self,
        on_key: Callable[[str], None],
        *,
        on_end: Callable[[], None] | None = None,
        on_stop: Callable[[], None] | None = None,
        on_continue: Callable[[], None] | None = None,
        fd: int | None = None,
    ) -> None:
        """Prepare; nothing is touched before the context is entered."""
        self._on_key = on_key
        self._on_end = on_end
        self._stopping = False
        self._keyboard: _Keyboard
        if sys.platform == "win32":
            self._keyboard = WindowsKeyboard()
        else:
            self._keyboard = PosixKeyboard(sys.stdin.fileno() if fd is None else fd, on_stop, on_continue)
        self._thread = threading.Thread(target=self._run, name="keys", daemon=True)

    def __enter__(self) -> KeyReader:
        """Switch the terminal to single keys and start to read."""
        self._keyboard.open()
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop reading and give the terminal its settings back."""
        try:
            self._stopping = True
            self._keyboard.wake()
            if threading.current_thread() is not self._thread:
                self._thread.join(1.0)  # not for ever: on_key may be busy, and the terminal must be given back
        finally:
            self._keyboard.close()

    def _run(self) -> None:
        self._keyboard.read(self._on_key)
        if not self._stopping and self._on_end is not None:
            self._on_end()


class WindowsKeyboard:
    """Keys of a Windows console. Its settings are not touched, so there are none to give back."""

    _TICK = 0.03  # seconds between looks; a console offers no wait that can be ended from outside
    _PREFIXES = "\x00\xe0"

    def __init__(self) -> None:
        """Needs the module `msvcrt`."""
        self._msvcrt = importlib.import_module("msvcrt")
        self._stop = threading.Event()

    def open(self) -> None:
        """Nothing to switch."""

    def close(self) -> None:
        """Nothing to give back."""

    def wake(self) -> None:
        """End `read`."""
        self._stop.set()

    def read(self, on_key: Callable[[str], None]) -> None:
        """Call `on_key` for each key until woken, or until the console is gone."""
        with contextlib.suppress(OSError):
            while not self._stop.wait(self._TICK):
                while not self._stop.is_set() and self._msvcrt.kbhit():
                    self._one(on_key)

    def _one(self, on_key: Callable[[str], None]) -> None:
        key: str = self._msvcrt.getwch()
        if key == "\x03":
            _thread.interrupt_main()
        elif key in self._PREFIXES and self._msvcrt.kbhit():
            on_key(key + self._msvcrt.getwch())  # an arrow or function key: two characters, one key
        else:
            on_key(key)


if sys.platform != "win32":
    import termios
    import tty

    _Handler = Callable[[int, FrameType | None], object] | int | None

    class PosixKeyboard:
        """Keys of a POSIX terminal, in cbreak mode: one at a time, without echo, and Ctrl-C still a signal."""

        def __init__(
            self, fd: int, on_stop: Callable[[], None] | None = None, on_continue: Callable[[], None] | None = None
        ) -> None:
            """`fd` must be a terminal when `open` is called."""
            self._fd = fd
            self._on_stop = on_stop
            self._on_continue = on_continue
            self._saved: list[Any] | None = None
            self._wake_r = self._wake_w = -1
            self._before: dict[int, _Handler] = {}
            self._stopped = False
            self._closed = False

        def open(self) -> None:
            """Switch to cbreak. Raises OSError when this is no terminal."""
            try:
                self._saved = termios.tcgetattr(self._fd)
            except termios.error as error:
                raise OSError(*error.args) from error
            self._wake_r, self._wake_w = os.pipe()
            atexit.register(self._restore)
            self._watch()
            self._cbreak()

        def close(self) -> None:
            """Give the terminal the settings it had, and the signals their handlers."""
            self._closed = True
            try:
                for number, handler in self._before.items():
                    signal.signal(number, handler)
                self._before.clear()
            finally:
                self._restore()
                self._saved = None
                atexit.unregister(self._restore)
                for fd in (self._wake_r, self._wake_w):
                    with contextlib.suppress(OSError):
                        os.close(fd)

        def wake(self) -> None:
            """End `read`."""
            with contextlib.suppress(OSError):
                os.write(self._wake_w, b"\0")

        def read(self, on_key: Callable[[str], None]) -> None:
            """Call `on_key` for each key until woken, or until the terminal has no more to give."""
            decoder = KeyDecoder()
            while not self._closed:
                try:
                    ready, _, _ = select.select([self._fd, self._wake_r], [], [], decoder.patience)
                    if self._wake_r in ready:
                        return
                    data = os.read(self._fd, 4096) if ready else b""
                except (OSError, ValueError):  # hung up, or closed under our feet
                    return
                if ready and not data:
                    return
                for key in decoder.feed(data) if ready else decoder.flush():
                    on_key(key)

        def _cbreak(self) -> None:
            with contextlib.suppress(termios.error):
                tty.setcbreak(self._fd, termios.TCSANOW)

        def _restore(self) -> None:
            if self._saved is not None:
                with contextlib.suppress(termios.error):  # the terminal is gone: nothing to give back
                    termios.tcsetattr(self._fd, termios.TCSANOW, self._saved)

        def _watch(self) -> None:
            """Be told of Ctrl-Z and fg, unless the process ignores them. Python allows it in the main thread only."""
            if threading.current_thread() is not threading.main_thread():
                return
            for number, handler in ((signal.SIGTSTP, self._stop), (signal.SIGCONT, self._continue)):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, handler)

        def _stop(self, number: int, frame: FrameType | None) -> None:
            self._stopped = True
            if self._on_stop is not None:
                self._on_stop()
            self._restore()
            before = self._before[number]
            if callable(before):
                before(number, frame)
            else:
                signal.signal(number, signal.SIG_DFL)
                signal.pthread_kill(threading.get_ident(), number)  # to this thread: it stops here, not a little later
                signal.signal(number, self._stop)
            if self._stopped:  # no SIGCONT came: without a shell above us (docker run -it), Ctrl-Z stops nobody
                self._back()

        def _continue(self, number: int, frame: FrameType | None) -> None:
            self._back()
            before = self._before[number]
            if callable(before):
                before(number, frame)

        def _back(self) -> None:
            if not self._in_foreground():
                return  # `bg`: touching the terminal would stop us again; `fg` brings another SIGCONT
            self._stopped = False
            self._cbreak()
            if self._on_continue is not None:
                self._on_continue()

        def _in_foreground(self) -> bool:
            try:
                return os.tcgetpgrp(self._fd) == os.getpgrp()
            except OSError:  # not our controlling terminal, so nobody stops us for touching it
                return True
