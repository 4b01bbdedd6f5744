"""Two programs that share their circuits: one finds the outage, and both turn to the secondary."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.program import Log, wait_until
from tests.redis_server import run_redis

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.program


def start(folder: Path, *options: str, **more: str) -> subprocess.Popen[str]:
    """The program in a new folder; `more` is for its environment."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, str(ROOT / "circuitbreaker.py"), "--log", "log", "--replication-lag", "0", *options]
    environment = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    return subprocess.Popen(
        command, cwd=folder, env={**environment, **more}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
    )


def log_of(folder: Path) -> list[dict[str, Any]]:
    return list(Log.of(folder / "log").lines)


def transitions(folder: Path) -> list[dict[str, Any]]:
    return [line for line in log_of(folder) if line["event"] == "transition"]


@pytest.mark.redis
def test_what_one_program_finds_the_other_knows(tmp_path: Path) -> None:
    with run_redis(tmp_path) as server:
        shared = ("--state", server.url, "--requests", "150", "--rate", "30", "--secondary-threshold", "1000")
        healthy = start(tmp_path / "healthy", *shared, "--retry-threshold", "1000")  # finds nothing out by itself
        failing = start(tmp_path / "failing", *shared, "--fail", "40:150")
        assert [each.wait(60) for each in (healthy, failing)] == [0, 0]
    told = {name: transitions(tmp_path / name) for name in ("healthy", "failing")}
    for opened in told.values():
        assert [(line["circuit"], line["from"], line["to"]) for line in opened] == [("primary", "closed", "open")]
    assert ["another process" in opened[0]["reason"] for opened in told.values()] == [True, False]
    for name in told:
        last = [line for line in log_of(tmp_path / name) if line["event"] == "read"][-1]
        assert (last["endpoint"], last["state"]) == ("secondary", "open")


@pytest.mark.redis
def test_two_programs_are_one_story(tmp_path: Path) -> None:
    """The README's two terminals: f is pressed in one, and both see the same outage from its beginning to its end."""
    with run_redis(tmp_path) as server:
        shared = ("--state", server.url, "--rate", "25")
        first = start(tmp_path / "first", *shared, "--requests", "300", "--fail", "150:250")
        wait_until(lambda: "read" in {line["event"] for line in log_of(tmp_path / "first")}, "the first one reads")
        second = start(tmp_path / "second", *shared, "--requests", "300")
        out = [each.communicate(timeout=60)[0] for each in (first, second)]
        assert [first.returncode, second.returncode] == [0, 0]
    logs = [log_of(tmp_path / name) for name in ("first", "second")]
    assert "stand-in account on 127.0.0.1 (no Azure account is set)" in out[0]
    assert "stand-in account on 127.0.0.1, shared with another process" in out[1]
    for log, text in zip(logs, out, strict=True):
        assert [line["on"] for line in log if line["event"] == "fault"] == [True, False]
        changed = [line for line in log if line["event"] == "transition"]
        assert [each["to"] for each in changed if "closed" in (each["from"], each["to"])] == ["open", "closed"], (
            "it flaps"
        )
        # While the circuit is open no read is answered by the primary, and nobody is told that it answers.
        told = text.split("\n")
        begins = next(n for n, line in enumerate(told) if " closed -> open" in line)
        ends = next(n for n, line in enumerate(told) if " -> closed" in line)
        between = told[begins + 2 : ends]
        assert not [line for line in between if re.match(r" +\d+  primary", line)]
        assert "rimary answered" not in "\n".join(between).replace("rimary answered 503", "")
        assert log[-1]["event"] == "cleaned-up"
        assert "error" not in log[-1]
    both = "\n".join(out)
    assert "Another process switched fault 503 ON: the primary answers reads with 503." in out[1]
    assert "Another process switched fault 503 off." in out[1]
    assert "The probe of another process failed." in both
    assert "not by our fault" not in both


@pytest.mark.redis
@pytest.mark.skipif(sys.platform == "win32", reason="pseudo-terminals are POSIX")
def test_two_terminals_and_either_switches_the_fault(tmp_path: Path) -> None:
    from tests.terminal import Terminal

    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    with run_redis(tmp_path) as server:
        options = ("--requests", 0, "--pause-every", 0, "--replication-lag", 0, "--state", server.url)
        with Terminal(*options, folder=tmp_path / "one") as one:
            one.until("answered in")
            with Terminal(*options, folder=tmp_path / "two") as two:
                two.until("answered in")
                assert "shared with another process" in two.screen.text
                one.press("f")
                for each in (one, two):
                    each.until("fault 503 is ON")
                    each.until("[ OPEN ]")
                    assert "f repair the primary" in each.screen.text
                two.press("f")
                for each in (one, two):
                    each.until("fault 503 is off")
                    each.until("[ CLOSED ]")
                one.press("q")
                one.until("another process reads from this stand-in account")
                reads = len(two.log.all("read"))
                two.until(lambda: len(two.log.all("read")) > reads + 10)
                assert "failed 0" in two.screen.text
                two.press("q")
                assert two.ended() == 0
                assert one.ended() == 0
                for each in (one, two):
                    each.check_given_back()
                    assert each.log.one("finished")["failed"] == 0
                    assert "error" not in each.log.one("cleaned-up")


@pytest.mark.redis
def test_a_url_with_a_password_comes_from_the_environment_or_env_file(tmp_path: Path) -> None:
    with run_redis(tmp_path, password="hunter2") as server:
        url = server.url.replace("redis://", "redis://:hunter2@")
        (tmp_path / "healthy").mkdir()
        (tmp_path / "healthy" / ".env").write_text(f"FAILOVER_STATE_URL={url}\n")
        run = ("--requests", "100", "--rate", "30", "--secondary-threshold", "1000")
        healthy = start(tmp_path / "healthy", *run)
        failing = start(tmp_path / "failing", *run, "--fail", "30:100", FAILOVER_STATE_URL=url)
        assert [each.wait(60) for each in (healthy, failing)] == [0, 0]
        opened = [line for line in log_of(tmp_path / "healthy") if line["event"] == "transition"]
        assert [line["to"] for line in opened] == ["open"]
        for each in (healthy, failing):
            assert "hunter2" not in each.communicate()[0] + " ".join(map(str, each.args))  # type: ignore[arg-type]


def test_the_option_goes_before_the_variable_and_the_variable_is_named(tmp_path: Path) -> None:
    bad = "redis://:hunter#2@host/0"
    alone = start(tmp_path / "alone", "--state", "memory://", "--requests", "5", FAILOVER_STATE_URL=bad)
    assert alone.wait(60) == 0
    environment = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    refused = subprocess.run(
        [sys.executable, str(ROOT / "circuitbreaker.py")],
        cwd=tmp_path,
        env={**environment, "FAILOVER_STATE_URL": bad},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert refused.returncode == 2
    assert "FAILOVER_STATE_URL: " in refused.stderr
    assert "%23" in refused.stderr
    assert "hunter" not in refused.stderr + refused.stdout


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("ftp://h", "--state: a store's URL is"),
        ("redis://:secret@", "--state"),
        ("blob://circuits", "FAILOVER_STATE_CONNECTION_STRING"),
    ],
)
def test_a_state_that_cannot_be_is_refused_in_one_line(tmp_path: Path, url: str, told: str) -> None:
    ran = subprocess.run(
        [sys.executable, str(ROOT / "circuitbreaker.py"), "--state", url],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"]},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 2
    assert told in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert "secret" not in ran.stderr + ran.stdout


def test_a_store_that_is_down_delays_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "alone"
    alone = start(folder, "--state", "redis://127.0.0.1:9/0", "--requests", "60", "--fail", "10:20")
    assert alone.wait(60) == 0
    reads = [line for line in log_of(folder) if line["event"] == "read"]
    assert [read["endpoint"] for read in reads] == ["primary"] * 9 + ["secondary"] * 21 + ["primary"] * 30
