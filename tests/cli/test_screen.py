"""The interactive screen, driven on a real pseudo-terminal: what its user sees, presses, interrupts and gets back."""

from __future__ import annotations

import itertools
import os
import re
import shlex
import shutil
import signal
import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("pseudo-terminals are POSIX", allow_module_level=True)

from failover.standin import StandIn
from tests.program import CONTAINER, SECONDS, is_gone, wait_until
from tests.servers import Account
from tests.terminal import CTRL_C, CTRL_Z, TITLE, UP, Terminal

pytestmark = pytest.mark.program

PRIMARY = "█▀▀▄ █▀▀▄ ▀█▀ █▄ ▄█ ▄▀▀▄ █▀▀▄ ▀▄ ▄▀"
BIG_PRIMARY = "██████    ██████    ██████  ██      ██"
COLOUR = re.compile(rb"\x1b\[[\d;]*?(?<!\d)(3[0-8]|4[0-8]|9[0-7]|10[0-7])(?!\d)[\d;]*m")
NO_LAG = ("--replication-lag", 0)


def _reads(terminal: Terminal, n: int) -> None:
    """Until read n is on the screen."""

    def reached() -> bool:
        found = re.search(r"\bread ([\d,]+)", terminal.screen.text)
        return found is not None and int(found[1].replace(",", "")) >= n

    terminal.until(reached)


def _more(terminal: Terminal, reads: int) -> None:
    """Until so many more reads are over."""
    at = len(terminal.log.all("read"))
    terminal.until(lambda: len(terminal.log.all("read")) >= at + reads)


@pytest.mark.parametrize(
    ("server", "columns", "rows"),
    [("standin", 80, 24), pytest.param("azurite", 120, 40, marks=pytest.mark.azurite)],
)
def test_a_run_by_hand(request: pytest.FixtureRequest, tmp_path: Path, server: str, columns: int, rows: int) -> None:
    account: Account = request.getfixturevalue(server)
    with Terminal(
        *("--requests", 160, "--pause-every", 40, "--rate", 200),
        folder=tmp_path,
        columns=columns,
        rows=rows,
        account=account,
    ) as terminal:
        screen = terminal.until("Paused after read 40")
        assert terminal.settings != terminal.before
        assert (PRIMARY if columns == 80 else BIG_PRIMARY) in screen
        assert "[ CLOSED ]" in screen
        assert "read 40 of 160" in screen
        assert "Press f: it fails the primary's reads (503)." in screen
        assert "Rules > RA-GRS: fail primary reads with 503" in screen
        assert "any key resume   f break the primary (503)   q quit" in screen

        terminal.press("f")
        screen = terminal.until("fault 503 is ON")
        assert "Paused after read 40" in screen
        terminal.press("ff")
        terminal.until(lambda: len(terminal.log.all("fault")) == 3)
        assert terminal.log.all("resumed") == []
        assert len(terminal.log.all("read")) == 40

        terminal.press(UP)  # three bytes, one key
        screen = terminal.until("Paused after read 80")
        assert "[ OPEN ]" in screen
        assert (PRIMARY if columns == 80 else BIG_PRIMARY) not in screen
        assert "primary 40    secondary 40    retries 6    failed 0" in screen
        assert "Press f to switch fault 503 off" in screen
        assert "Primary answered 503 five times in a row." in screen or rows == 24
        assert "space pause" not in screen
        terminal.press("f")
        terminal.until("fault 503 is off")
        assert len(terminal.log.all("resumed")) == 1
        terminal.press("x")
        screen = terminal.until("Paused after read 120")
        assert "[ CLOSED ]" in screen
        assert (PRIMARY if columns == 80 else BIG_PRIMARY) in screen
        terminal.press("\r")
        assert terminal.ended() == 0
        terminal.check_given_back()
        assert "160 reads, all answered" in terminal.screen.text
        assert "The circuit opened once" in terminal.screen.text
        log = terminal.log
    log.check()
    assert [line["n"] for line in log.all("paused")] == [40, 80, 120]
    assert [line["n"] for line in log.all("resumed")] == [40, 80, 120]
    assert log.one("finished")["failed"] == 0
    assert is_gone(account, log.one("uploaded")["container"])


def test_each_probe_is_seen_and_the_reads_are_not_slower_for_it(tmp_path: Path) -> None:
    options = ("--requests", 70, "--fail", "5:50", "--pause-every", 0, "--rate", 40, *NO_LAG)
    with Terminal(*options, folder=tmp_path) as terminal:
        assert terminal.ended() == 0
        terminal.check_given_back()
        log, frames = terminal.log, terminal.sent.split(b"\x1b[H")
    shown = [b"[ HALF-OPEN ]" in frame for frame in frames]
    seen = sum(now and not before for before, now in itertools.pairwise([False, *shown]))
    probes = [line for line in log.all("transition") if line["to"] == "half-open"]
    assert seen == len(probes) == 3
    assert max(line["ms"] for line in log.all("read")) < 400


def test_space_pauses_at_any_moment_and_q_quits(tmp_path: Path) -> None:
    with Terminal("--requests", 0, "--rate", 100, "--pause-every", 0, *NO_LAG, folder=tmp_path) as terminal:
        for key, resume in ((" ", " "), ("p", "p"), ("P", "\x1b")):
            before = len(terminal.log.all("paused"))
            _more(terminal, 1)
            terminal.press(key)
            screen = terminal.until("Any key resumes")
            assert "─ Paused after read " in screen
            assert "Fiddler" not in screen
            assert len(terminal.log.all("paused")) == before + 1
            terminal.press(resume)
            terminal.until("space pause")
        terminal.press(UP)  # not paused: no key at all
        _more(terminal, 5)
        assert len(terminal.log.all("paused")) == 3
        terminal.press("q")
        assert terminal.ended() == 0
        terminal.check_given_back()
        terminal.log.check()


def test_quitting_while_paused_and_arrows_that_resume_once(tmp_path: Path) -> None:
    with Terminal("--requests", 50, "--pause-every", 5, "--rate", 200, *NO_LAG, folder=tmp_path) as terminal:
        terminal.until("Paused after read 5")
        terminal.press(UP)
        terminal.until("Paused after read 10")
        terminal.press("\x1b[1;5C")  # Ctrl-Right
        terminal.until("Paused after read 15")
        terminal.press("\x1b[I\x1b[O")  # the window gained and lost the focus: no key
        terminal.press("f")
        terminal.until("fault 503 is ON")
        assert [line["n"] for line in terminal.log.all("paused")] == [5, 10, 15]
        assert len(terminal.log.all("read")) == 15
        terminal.press("q")
        assert terminal.ended() == 0
        terminal.check_given_back()
        log = terminal.log
    log.check()
    assert [line["n"] for line in log.all("resumed")] == [5, 10]
    assert log.one("finished")["reads"] == 15


def test_quitting_while_it_waits_for_the_replica(standin: StandIn, tmp_path: Path) -> None:
    standin.lose_secondary()
    with Terminal(folder=tmp_path, account=standin) as terminal:
        terminal.until("Waiting for the secondary to have the blob too")
        terminal.press("q")
        assert terminal.ended() == 0
        terminal.check_given_back()
        assert is_gone(standin, terminal.log.one("uploaded")["container"])


def test_ctrl_c_while_python_imports(tmp_path: Path) -> None:
    with Terminal(folder=tmp_path, python=["-X", "importtime"]) as terminal:
        terminal.until(lambda: b"| " in terminal.sent and b" typer" in terminal.sent)
        terminal.press(CTRL_C)
        assert terminal.ended() == 130
        terminal.check_given_back()


def test_ctrl_c_while_it_waits_for_the_replica(tmp_path: Path) -> None:
    with Terminal("--replication-lag", 30, folder=tmp_path) as terminal:
        terminal.until("Waiting for the secondary to have the blob too")
        terminal.until("of at most 60 s")
        _interrupt(terminal)


def test_ctrl_c_while_it_runs(tmp_path: Path) -> None:
    with Terminal(*NO_LAG, folder=tmp_path) as terminal:
        _reads(terminal, 3)
        _interrupt(terminal)


def test_ctrl_c_while_it_pauses(tmp_path: Path) -> None:
    with Terminal("--pause-every", 2, *NO_LAG, folder=tmp_path) as terminal:
        terminal.until("Paused after read 2")
        _interrupt(terminal)


def test_ctrl_c_while_a_read_hangs(standin: StandIn, tmp_path: Path) -> None:
    with Terminal(
        "--fault", "timeout", "--fail", "1:5", "--timeout", SECONDS, folder=tmp_path, account=standin
    ) as terminal:
        terminal.until("no answer yet")
        _interrupt(terminal)
        assert is_gone(standin, terminal.log.one("uploaded")["container"])


def test_ctrl_c_twice(tmp_path: Path) -> None:
    with Terminal(*NO_LAG, folder=tmp_path) as terminal:
        _reads(terminal, 3)
        terminal.press(CTRL_C + CTRL_C)
        assert terminal.ended() == 130
        terminal.check_given_back()


def _interrupt(terminal: Terminal) -> None:
    terminal.press(CTRL_C)
    assert terminal.ended(SECONDS / 3) == 130
    terminal.check_given_back()
    last = terminal.log.lines[-1]
    assert (last["event"], last["container"]) == ("cleaned-up", terminal.log.one("uploaded")["container"])
    assert "error" not in last
    assert f"Container {last['container']} is deleted." in terminal.screen.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_it(standin: StandIn, tmp_path: Path, number: signal.Signals) -> None:
    with Terminal(folder=tmp_path, account=standin) as terminal:
        _reads(terminal, 3)
        os.kill(terminal.pid, number)
        assert terminal.ended() == 128 + number
        terminal.check_given_back()
        assert is_gone(standin, terminal.log.one("uploaded")["container"])


def test_a_closed_window_ends_it(account: Account, tmp_path: Path) -> None:
    with Terminal(folder=tmp_path, account=account) as terminal:
        _reads(terminal, 3)
        _close_window(terminal, account)


def test_a_closed_window_ends_a_pause(standin: StandIn, tmp_path: Path) -> None:
    with Terminal("--pause-every", 2, folder=tmp_path, account=standin) as terminal:
        terminal.until("Paused after read 2")
        _close_window(terminal, standin)


def test_a_closed_window_ends_the_wait_for_the_replica(standin: StandIn, tmp_path: Path) -> None:
    standin.lose_secondary()
    with Terminal(folder=tmp_path, account=standin) as terminal:
        terminal.until("of at most 60 s")
        _close_window(terminal, standin)


def _close_window(terminal: Terminal, account: Account) -> None:
    terminal.hang_up()
    wait_until(terminal.gone, "the process ends")
    assert terminal.exit_code == 128 + signal.SIGHUP
    assert terminal.log.lines[-1]["event"] == "cleaned-up"
    assert is_gone(account, terminal.log.one("uploaded")["container"])


def test_ctrl_z_and_fg(tmp_path: Path) -> None:
    if shutil.which("bash") is None:
        pytest.skip("needs bash")
    with Terminal(
        *("--requests", 0, "--pause-every", 5, *NO_LAG),
        folder=tmp_path,
        env={"PS1": "$ "},
        command=["bash", "--norc", "--noediting", "-i"],
    ) as terminal:
        terminal.until("$")
        before = terminal.settings
        terminal.press(shlex.join(terminal.command) + "\r")
        terminal.until("Paused after read 5")
        assert terminal.settings != before
        terminal.press(CTRL_Z)
        terminal.until("Stopped")
        assert not terminal.screen.alternate
        assert terminal.screen.cursor_shown
        assert terminal.settings == before
        terminal.press("echo so$((1+1)) || f\r")
        terminal.until("so2")
        terminal.press("fg\r")
        terminal.until("Paused after read 5")
        assert terminal.screen.alternate
        assert not terminal.screen.cursor_shown
        assert terminal.log.all("resumed") == []
        terminal.press("k")
        terminal.until("Paused after read 10")
        terminal.press(CTRL_Z)
        terminal.until("Stopped")
        terminal.press("fg\r")
        terminal.until("Paused after read 10")
        terminal.press("q")
        terminal.until(lambda: terminal.screen.text.rstrip().endswith("\n$"))  # before that, keys are the program's
        assert not terminal.screen.alternate
        terminal.press("echo code=$?\r")
        terminal.until("code=0")
        assert terminal.settings == before
        terminal.log.check()
        terminal.press("exit\r")
        terminal.ended()
        assert b"Traceback" not in terminal.sent


def test_it_follows_the_size_of_its_window(tmp_path: Path) -> None:
    with Terminal("--requests", 0, "--pause-every", 0, *NO_LAG, "--fail", "20:40", folder=tmp_path) as terminal:
        _reads(terminal, 3)
        for columns, rows, shown in (
            (120, 40, BIG_PRIMARY),
            (20, 5, "keys:"),
            (80, 24, "q quit"),
            (1, 1, ""),
            (80, 24, TITLE),
        ):
            terminal.watched = False  # what was on its way was drawn for the old size
            terminal.resize(columns, rows)
            _more(terminal, 5)
            terminal.until(shown)
            terminal.screen.scrolled = 0
            terminal.watched = True
            _more(terminal, 5)
            if rows >= 24:
                assert TITLE in terminal.screen.display[0]
                assert terminal.screen.display[-1].strip().startswith("space pause")
        terminal.press("q")
        assert terminal.ended() == 0
        terminal.check_given_back()


def test_no_color_means_none(tmp_path: Path) -> None:
    options = ("--requests", 12, "--pause-every", 6, "--fail", "3:6", *NO_LAG)
    sent = {}
    for value in ("", "1"):
        with Terminal(*options, folder=tmp_path, env={"NO_COLOR": value} if value else {}) as terminal:
            terminal.until("Paused after read 6")
            terminal.press(" ")
            assert terminal.ended() == 0
            terminal.check_given_back()
            sent[value] = terminal.sent
    assert COLOUR.search(sent[""])
    assert not COLOUR.search(sent["1"])
    assert b"[ OPEN ]" in sent["1"]


@pytest.mark.parametrize(
    "env",
    [
        {"TERM": "dumb"},
        {"TERM": "Dumb"},
        {"TERM": "unknown"},
        {"TTY_COMPATIBLE": "0"},
        {"TTY_INTERACTIVE": "0"},
    ],
)
def test_a_terminal_that_cannot_draw_gets_lines(tmp_path: Path, env: dict[str, str]) -> None:
    with Terminal("--requests", 12, "--pause-every", 6, *NO_LAG, folder=tmp_path, env=env) as terminal:
        terminal.until(lambda: len(terminal.log.all("paused")) == 1)
        terminal.until(lambda: b"paused      Paused after read 6" in terminal.sent, seconds=3)
        terminal.press(" ")
        assert terminal.ended() == 0
        terminal.check_given_back()
        assert terminal.log.one("finished")["reads"] == 12
        assert b"\x1b" not in terminal.sent


def test_a_screen_that_cannot_be_drawn_is_refused(tmp_path: Path) -> None:
    with Terminal("--live", folder=tmp_path, env={"TERM": "unknown"}) as terminal:
        assert terminal.ended() == 2
        assert b"--live needs a terminal that can move its cursor" in terminal.sent


@pytest.mark.parametrize("env", [{"COLUMNS": "200", "LINES": "60"}, {"COLUMNS": "33", "LINES": "9"}, {"LINES": "200"}])
def test_the_size_is_the_terminals_whatever_is_exported(tmp_path: Path, env: dict[str, str]) -> None:
    options = ("--requests", 0, "--pause-every", 0, *NO_LAG)
    with Terminal(*options, folder=tmp_path, env=env) as terminal:
        _reads(terminal, 5)
        _more(terminal, 5)
        assert TITLE in terminal.screen.display[0]
        assert terminal.screen.display[1] == "─" * 80
        assert terminal.screen.display[-1].strip().startswith("space pause")
        terminal.watched = False
        terminal.resize(100, 30)
        terminal.until(lambda: terminal.screen.display[1] == "─" * 100)
        terminal.until(lambda: terminal.screen.display[-1].strip().startswith("space pause"))
        terminal.press("q")
        assert terminal.ended() == 0
        terminal.check_given_back()


@pytest.mark.parametrize("paused", [False, True])
def test_a_paste_is_no_key(tmp_path: Path, paused: bool) -> None:
    with Terminal("--requests", 0, "--pause-every", 0, *NO_LAG, folder=tmp_path) as terminal:
        _reads(terminal, 3)
        assert b"\x1b[?2004h" in terminal.sent, "a terminal marks a paste only when it is asked to"
        if paused:
            terminal.press(" ")
            terminal.until("Paused after read")
        before = len(terminal.log.all("paused"))
        terminal.press("\x1b[200~sudo apt install -q ff p\n\x1b[201~")
        terminal.press("f")  # a key that follows is one
        terminal.until("fault 503 is ON")
        assert [line["on"] for line in terminal.log.all("fault")] == [True]
        assert len(terminal.log.all("paused")) == before
        assert terminal.log.all("resumed") == []
        if not paused:
            _more(terminal, 5)
        terminal.press("q")
        assert terminal.ended() == 0
        terminal.check_given_back()


def test_plain_on_a_terminal_pauses_too(tmp_path: Path) -> None:
    with Terminal("--plain", "--requests", 0, "--pause-every", 20, *NO_LAG, folder=tmp_path) as terminal:
        terminal.until(lambda: len(terminal.log.all("paused")) == 1)
        terminal.until("Any key resumes")
        terminal.press("f")
        terminal.until("Fault 503 is ON")
        terminal.press(" ")
        terminal.until(lambda: len(terminal.log.all("paused")) == 2)
        terminal.press("q")
        assert terminal.ended() == 0
        assert terminal.settings == terminal.before
        assert b"\x1b" not in terminal.sent
        log = terminal.log
        lines = terminal.sent.decode().replace("\r\n", "\n").splitlines()
    log.check()
    assert log.one("finished")["reads"] == 40
    assert len(lines) == len(log.lines) + 1
    assert CONTAINER.search(lines[-2])
    assert lines[-1] == "written     log run.jsonl"
