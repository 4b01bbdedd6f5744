"""Two programs that share their circuits: one finds the outage, and both turn to the secondary."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

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
    return [json.loads(line) for line in (folder / "log").read_text(encoding="utf-8").splitlines()]


@pytest.mark.redis
def test_what_one_program_finds_the_other_knows(tmp_path: Path) -> None:
    with run_redis(tmp_path) as server:
        shared = ("--state", server.url, "--requests", "150", "--rate", "30", "--secondary-threshold", "1000")
        healthy = start(tmp_path / "healthy", *shared)
        failing = start(tmp_path / "failing", *shared, "--fail", "40:150")
        assert [each.wait(60) for each in (healthy, failing)] == [0, 0]
    opened = [line for line in log_of(tmp_path / "healthy") if line["event"] == "transition"]
    assert [(line["circuit"], line["from"], line["to"]) for line in opened] == [("primary", "closed", "open")]
    assert "another process" in opened[0]["reason"]
    for name in ("healthy", "failing"):
        last = [line for line in log_of(tmp_path / name) if line["event"] == "read"][-1]
        assert (last["endpoint"], last["state"]) == ("secondary", "open")


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
