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


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    folder.mkdir()
    command = [sys.executable, str(ROOT / "circuitbreaker.py"), "--log", "log", "--replication-lag", "0", *options]
    environment = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT") if name in os.environ}
    return subprocess.Popen(
        command, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
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
