"""Keys, on a pseudo-terminal and on a faked Windows console: what they do, and the terminal as it was before."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import sys
import textwrap
import threading
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from failover.console.keys import KEYS, KeyReader, footer, press
from failover.console.terminal import KeyDecoder, WindowsKeyboard

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")


@dataclass
class Recorder:
    """Controls that write down what was asked of them."""

    paused: bool = False
    asked: list[str] = field(default_factory=list)

    def pause(self) -> None:
        self.asked.append("pause")

    def resume(self) -> None:
        self.asked.append("resume")

    def toggle_fault(self) -> None:
        self.asked.append("fault")

    def quit(self) -> None:
        self.asked.append("quit")


@pytest.mark.parametrize(
    ("key", "running", "paused"),
    [
        (" ", ["pause"], ["resume"]),
        ("p", ["pause"], ["resume"]),
        ("P", ["pause"], ["resume"]),
        ("f", ["fault"], ["fault"]),
        ("F", ["fault"], ["fault"]),
        ("q", ["quit"], ["quit"]),
        ("x", [], ["resume"]),
        ("\r", [], ["resume"]),
        ("\x1b", [], ["resume"]),
        ("\x1b[A", [], ["resume"]),
        ("\x1bq", [], ["resume"]),
    ],
)
def test_what_a_key_does(key: str, running: list[str], paused: list[str]) -> None:
    for is_paused, expected in ((False, running), (True, paused)):
        controls = Recorder(is_paused)
        press(key, controls)
        assert controls.asked == expected


def test_the_footer_explains_each_key_of_the_table() -> None:
    assert footer(paused=False, fault="503", fault_on=False) == [
        ("space", "pause"),
        ("f", "break the primary (503)"),
        ("q", "quit"),
    ]
    assert footer(paused=True, fault="slow", fault_on=True) == [
        ("any key", "resume"),
        ("f", "repair the primary"),
        ("q", "quit"),
    ]
    assert len(footer(paused=False, fault="503", fault_on=False)) == len(KEYS)


@pytest.mark.parametrize(
    ("sent", "keys"),
    [
        (b"f q", ["f", " ", "q"]),
        ("é漢".encode(), ["é", "漢"]),
        (b"\x1b[A", ["\x1b[A"]),
        (b"\x1b[1;5C\x1bOP", ["\x1b[1;5C", "\x1bOP"]),
        (b"\x1b[[A\x1b[15~", ["\x1b[[A", "\x1b[15~"]),
        (b"\x1bq", ["\x1bq"]),
        (b"\x1b\x1b[A", ["\x1b\x1b[A"]),
        (b"\x1b[200~q f\x1b[A rm -rf\n\x1b[201~f", ["f"]),  # a paste is no key, whatever is in it
        (b"\x1b[I\x1b[O", []),  # the focus came and went: nobody pressed anything
        (b"\x1b[Mq f\x1b[<0;12;7M\x1b[<0;12;7m", []),  # the mouse
        (b"\x1b[?62;22c\x1b]11;rgb:00/00/00\x1b\\\x1b]0;q\x07\x1bP1$r q\x1b\\", []),  # replies of the terminal
        (b"\xff", ["\ufffd"]),
    ],
)
def test_bytes_become_keys_whole_or_in_pieces(sent: bytes, keys: list[str]) -> None:
    assert KeyDecoder().feed(sent) == keys
    decoder = KeyDecoder()
    assert [key for index in range(len(sent)) for key in decoder.feed(sent[index : index + 1])] == keys
    assert decoder.patience is None


def test_what_stays_incomplete_is_one_key_after_a_moment() -> None:
    decoder = KeyDecoder()
    for pending in (b"\x1b", b"\x1b[", b"\x1b[1;", b"\x1bO", b"\x1b]0;title"):
        assert decoder.feed(pending) == []
        assert decoder.patience is not None
        assert len(decoder.flush()) == 1
        assert decoder.patience is None
    assert decoder.feed(b"\x1b[200~never ended") == []
    assert decoder.flush() == []
    assert decoder.feed(b"f") == ["f"]


def test_noise_does_not_pile_up() -> None:
    decoder = KeyDecoder()
    decoder.feed(b"\x1b]" + b"x" * 100_000)
    decoder.feed(b"\x1b[200~" + b"x" * 100_000)
    assert len(decoder._text) < 300


if sys.platform != "win32":
    import pty
    import termios

    @pytest.fixture
    def terminal() -> Iterator[tuple[int, int]]:
        master, slave = pty.openpty()
        yield master, slave
        for fd in (master, slave):
            with contextlib.suppress(OSError):
                os.close(fd)

    def test_keys_arrive_and_the_terminal_is_as_before(terminal: tuple[int, int]) -> None:
        master, slave = terminal
        before, keys = termios.tcgetattr(slave), queue.Queue[str]()
        with KeyReader(keys.put, fd=slave):
            during = termios.tcgetattr(slave)
            assert not during[3] & (termios.ECHO | termios.ICANON)
            assert during[3] & termios.ISIG  # Ctrl-C stays a signal
            for sent, key in ((b"f", "f"), (b"\x1b[A", "\x1b[A"), (b" ", " "), (b"\x1b", "\x1b")):
                os.write(master, sent)
                assert keys.get(timeout=10) == key
        assert termios.tcgetattr(slave) == before
        assert keys.empty()

    def test_the_terminal_is_as_before_after_an_error(terminal: tuple[int, int]) -> None:
        _, slave = terminal
        before = termios.tcgetattr(slave)
        with pytest.raises(ZeroDivisionError), KeyReader(lambda _: None, fd=slave):
            raise ZeroDivisionError
        assert termios.tcgetattr(slave) == before
        assert signal.getsignal(signal.SIGTSTP) == signal.SIG_DFL
        assert signal.getsignal(signal.SIGCONT) == signal.SIG_DFL

    def test_it_ends_once_when_the_terminal_hangs_up(terminal: tuple[int, int]) -> None:
        master, slave = terminal
        ended = queue.Queue[str]()
        with KeyReader(lambda _: None, fd=slave, on_end=lambda: ended.put("end")) as reader:
            os.close(master)
            assert ended.get(timeout=10) == "end"
            reader._thread.join(10)
        assert ended.empty()

    def test_leaving_is_no_end_of_input(terminal: tuple[int, int]) -> None:
        ended: list[bool] = []
        with KeyReader(lambda _: None, fd=terminal[1], on_end=lambda: ended.append(True)):
            pass
        assert ended == []

    def test_what_is_no_terminal_is_refused_untouched() -> None:
        read_end, write_end = os.pipe()
        try:
            with pytest.raises(OSError, match="ioctl"), KeyReader(lambda _: None, fd=read_end):
                pass
        finally:
            os.close(read_end)
            os.close(write_end)

    def test_it_reads_from_a_thread_that_is_not_the_main_one(terminal: tuple[int, int]) -> None:
        master, slave = terminal
        keys = queue.Queue[str]()

        def run() -> None:
            with KeyReader(keys.put, fd=slave):
                os.write(master, b"k")
                keys.put(keys.get(timeout=10))

        thread = threading.Thread(target=run)
        thread.start()
        thread.join(10)
        assert keys.get_nowait() == "k"

    _PROGRAM = """
        import sys, termios, threading
        from failover.console.keys import KeyReader
        done = threading.Event()
        def tell(word):
            sys.stdout.write(f"<{word}>")
            sys.stdout.flush()
        def key(key):
            tell("quit" if key == "q" else ascii(key))
            if key == "q": done.set()
        before = termios.tcgetattr(0)
        with KeyReader(key, on_stop=lambda: tell("stop"), on_continue=lambda: tell("continue")):
            tell("ready")
            while not done.wait(0.05): pass
        tell("same" if termios.tcgetattr(0) == before else "changed")
    """

    @pytest.fixture
    def program(tmp_path: Path) -> str:
        path = tmp_path / "program.py"
        path.write_text(textwrap.dedent(_PROGRAM))
        return str(path)

    def test_ctrl_z_and_fg_under_a_shell(program: str) -> None:
        import pexpect  # which Windows has no use for

        shell = pexpect.spawn("bash", ["--norc", "-i"], env={**os.environ, "PS1": "$ ", "PYTHONPATH": str(Path.cwd())})
        try:
            shell.sendline(f"stty -g > {program}.before; {sys.executable} {program}")
            shell.expect("<ready>")
            shell.send("\x1a")
            shell.expect("<stop>")
            shell.expect("Stopped")
            shell.sendline(f"stty -g > {program}.stopped; fg")
            shell.expect("<continue>")
            shell.send("k")
            shell.expect("<'k'>")
            shell.send("q")
            shell.expect("<quit><same>")
            shell.sendline(f"stty -g > {program}.after; echo over")
            shell.expect("\rover")
        finally:
            shell.close(force=True)
        settings = [Path(f"{program}.{when}").read_text() for when in ("before", "stopped", "after")]
        assert settings[0] == settings[1] == settings[2]

    def test_ctrl_z_where_no_shell_could_continue_it(program: str) -> None:
        import pexpect

        child = pexpect.spawn(sys.executable, [program], env={**os.environ, "PYTHONPATH": str(Path.cwd())})
        try:
            child.expect("<ready>")
            child.send("\x1a")
            child.expect("<stop><continue>")
            child.send("kq")
            child.expect("<'k'><quit><same>")
        finally:
            child.close(force=True)


class _Console(types.ModuleType):
    """`msvcrt` with keys waiting."""

    def __init__(self, waiting: str) -> None:
        super().__init__("msvcrt")
        self.waiting = list(waiting)
        self.empty = threading.Event()

    def kbhit(self) -> bool:
        if not self.waiting:
            self.empty.set()
        return bool(self.waiting)

    def getwch(self) -> str:
        return self.waiting.pop(0)


def _pressed(monkeypatch: pytest.MonkeyPatch, waiting: str) -> list[str]:
    console = _Console(waiting)
    monkeypatch.setitem(sys.modules, "msvcrt", console)
    keyboard, keys = WindowsKeyboard(), list[str]()
    keyboard.open()
    thread = threading.Thread(target=keyboard.read, args=(keys.append,))
    thread.start()
    assert console.empty.wait(10)
    keyboard.wake()
    thread.join(10)
    assert not thread.is_alive()
    keyboard.close()
    return keys


def test_keys_of_a_windows_console(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _pressed(monkeypatch, "f q") == ["f", " ", "q"]
    assert _pressed(monkeypatch, "\xe0Hf\x00;") == ["\xe0H", "f", "\x00;"]  # arrow up; F1: one key each
    assert _pressed(monkeypatch, "\xe0") == ["\xe0"]  # à, with nothing behind it


def test_ctrl_c_on_a_windows_console_interrupts_the_main_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupted: list[bool] = []
    monkeypatch.setattr("_thread.interrupt_main", lambda: interrupted.append(True))
    assert _pressed(monkeypatch, "\x03f") == ["f"]
    assert interrupted == [True]
