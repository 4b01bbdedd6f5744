"""`--report` of real runs: in a pipe, on a terminal, interrupted, refused, and with a disk that is full at the end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from failover.standin import StandIn
from tests.console.test_report import marks, part, words
from tests.program import PROGRAM, SECONDS, Log, environment, is_gone, run, wait_until

pytestmark = pytest.mark.program

NO_LAG = ("--replication-lag", 0)
OUTAGE = ("--requests", 120, "--fail", "31:60", "--pause-every", 0)
SUMMARY = ("120 reads, all answered", "The circuit opened once, was probed twice and is closed again.")


def _parsed(file: Path) -> ET.Element:
    return ET.parse(file).getroot()  # noqa: S314 (our own)


def _check(file: Path, log: Log) -> ET.Element:
    """That the picture tells of the same reads as the log."""
    root, reads = _parsed(file), log.all("read")
    went = {"primary": 0, "secondary": 0, "tried": 0, "failed": 0}
    for read in reads:
        tried = read["endpoint"] == "secondary" and read["attempts"] > 1
        went["tried" if tried else read["endpoint"] or "failed"] += 1
    assert marks(root) == went
    assert words(part(root, "head")).count(f"{len(reads):,}")
    return root


def _interrupted(file: Path, log: Log) -> ET.Element:
    """The same where a signal may have come between the picture's hearing of the last read and the log's."""
    root, reads = _parsed(file), len(log.all("read"))
    shown = marks(root)["primary"]
    assert shown in (reads, reads + 1)
    assert f"{shown} of 1,000 reads, all answered" in words(part(root, "head"))
    return root


def test_a_run_in_a_pipe_leaves_its_picture_without_a_secret(standin: StandIn, tmp_path: Path) -> None:
    file = tmp_path / "run.svg"
    ran = run(tmp_path, *OUTAGE, "--report", file, account=standin)
    assert (ran.code, ran.err) == (0, "")
    ran.log.check()
    root = _check(file, ran.log)
    head, events = words(part(root, "head")), words(part(root, "events"))
    assert all(line in head for line in SUMMARY)
    assert "Primary answered 503 five times in a row. The circuit is open" in events
    assert f"Container {ran.log.one('uploaded')['container']} is deleted." in events
    assert f"account {standin.account_name} at 127.0.0.1" in head
    assert standin.account_key[:12] not in file.read_text(encoding="utf-8")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["run.jsonl", "run.svg"]
    assert ran.out.splitlines()[-1] == "written     report run.svg, log run.jsonl"


def test_a_path_that_cannot_be_written_ends_the_run_before_it_sends_anything(standin: StandIn, tmp_path: Path) -> None:
    (tmp_path / "run.jsonl").write_text("the last one\n")
    ran = subprocess.run(
        [sys.executable, str(PROGRAM), "--report", "nowhere/run.svg", "--log", "run.jsonl"],
        cwd=tmp_path,
        env=environment(standin),
        capture_output=True,
        text=True,
        timeout=2 * SECONDS,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.count("\n") == 1
    assert "--report nowhere" in ran.stderr
    assert standin.hits == []
    assert (tmp_path / "run.jsonl").read_text() == "the last one\n"


def test_a_run_that_is_refused_leaves_the_old_picture(standin: StandIn, tmp_path: Path) -> None:
    file = tmp_path / "run.svg"
    file.write_text("the last one")
    standin.lose_primary()
    ran = run(tmp_path, "--report", file, account=standin)
    assert ran.code == 2
    assert ran.err.count("\n") == 1
    assert file.read_text() == "the last one"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["run.jsonl", "run.svg"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_disk_that_is_full_at_the_end_changes_nothing_else(standin: StandIn, tmp_path: Path) -> None:
    ran = run(tmp_path, "--requests", 3, "--report", "/dev/full", account=standin)
    assert ran.code == 0
    assert ran.out.splitlines()[-1] == "written     log run.jsonl"
    assert ran.err == "circuitbreaker.py: --report /dev/full could not be written: No space left on device.\n"
    assert is_gone(standin, ran.log.one("uploaded")["container"])
    assert not Path("/dev/full").is_file()


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
def test_interrupted_in_a_pipe_it_shows_what_happened_so_far(tmp_path: Path) -> None:
    options = ("--requests", 1000, "--rate", 50, *NO_LAG, "--report", "run.svg", "--log", "run.jsonl")
    with subprocess.Popen(
        [sys.executable, str(PROGRAM), *map(str, options)],
        cwd=tmp_path,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    ) as process:
        wait_until(lambda: len(Log.of(tmp_path / "run.jsonl").all("read")) >= 5, "five reads")
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 130
    log = Log.of(tmp_path / "run.jsonl")
    root = _interrupted(tmp_path / "run.svg", log)
    assert f"Container {log.one('uploaded')['container']} is deleted." in words(part(root, "events"))


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")
@pytest.mark.parametrize(("columns", "rows"), [(80, 24), (33, 7)])
def test_the_summary_that_stays_on_the_terminal_is_that_of_the_picture(tmp_path: Path, columns: int, rows: int) -> None:
    from tests.terminal import Terminal

    file = tmp_path / "run.svg"
    options = (*OUTAGE, *NO_LAG, "--rate", 0, "--report", file)
    with Terminal(*options, folder=tmp_path, columns=columns, rows=rows) as terminal:
        assert terminal.ended() == 0
        terminal.check_given_back()
        root, shown = _check(file, terminal.log), re.sub(r"\s+", " ", terminal.screen.text)
        container = terminal.log.one("uploaded")["container"]
    head = words(part(root, "head"))
    assert all(line in head for line in SUMMARY)
    if columns >= 80:
        assert "RA-GRS failover · stand-in account" in terminal.screen.text.split("\n")[0]
        assert all(line in shown for line in SUMMARY)
        assert "circuit ─ closed ─" in shown
        assert "█ OPEN █" in shown
        assert f"Container {container} is deleted." in shown
        assert terminal.screen.text.rstrip().endswith("\nWritten: report run.svg, log run.jsonl")
    else:
        assert container in shown.replace(" ", "")
    for line in terminal.screen.text.split("\n"):
        assert len(line) <= columns


@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")
def test_ctrl_c_on_a_terminal_leaves_summary_and_picture(tmp_path: Path) -> None:
    from tests.terminal import CTRL_C, Terminal

    file = tmp_path / "run.svg"
    with Terminal("--rate", 50, *NO_LAG, "--report", file, folder=tmp_path, env={"NO_COLOR": "1"}) as terminal:
        terminal.until(lambda: len(terminal.log.all("read")) >= 5)
        terminal.press(CTRL_C)
        assert terminal.ended() == 130
        terminal.check_given_back()
        assert " of 1,000 reads, all answered" in terminal.screen.text
        assert terminal.screen.text.rstrip().endswith("\nWritten: report run.svg, log run.jsonl")
        assert not re.search(rb"\x1b\[[\d;]*?3[0-8][\d;]*m", terminal.sent.rpartition(b"1049l")[2])
        _interrupted(file, terminal.log)
