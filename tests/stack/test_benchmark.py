"""`python -m benchmarks.stack`, and its table in docs/in-your-stack.md."""

from __future__ import annotations

import hashlib
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.stack import survival
from benchmarks.stack.reader import LIBRARIES

ROOT = Path(__file__).parents[2]
RIGHT = hashlib.sha256(survival.CONTENT).hexdigest()
TEXT = (ROOT / "docs" / "in-your-stack.md").read_text(encoding="utf-8")


def test_it_prints_a_row() -> None:
    options = ["--libraries", "smart_open", "--seconds", "0.2", "--faults", "503", "cut", "reset"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.stack", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    head, _, row, *_ = done.stdout.splitlines()
    assert head == "| library | version | how | 503 | cut | reset | cost per read |"
    assert re.fullmatch(r"\| smart_open \| [\d.]+ \| `retry_policy=GeoFailover\(\)` \|( yes \|){3} \d+\.\d\d \|", row)


def test_a_library_that_does_not_survive_is_a_no(monkeypatch: pytest.MonkeyPatch) -> None:
    (library,) = [each for each in LIBRARIES if each.name == "smart_open"]
    answers = iter([{"hash": RIGHT}, {"error": "HttpResponseError: 503"}])
    monkeypatch.setattr(survival.Reader, "ask", lambda *_: next(answers))
    assert survival.survives(library, "503") == "no: HttpResponseError: 503"


def test_nothing_that_was_not_tried_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    (library,) = [each for each in LIBRARIES if each.name == "smart_open"]
    good: dict[str, Any] = {"hash": RIGHT}
    monkeypatch.setattr(survival.Reader, "ask", lambda *_: good)
    with pytest.raises(RuntimeError, match="nothing was tried"):
        survival.survives(library, "503")


def test_the_doc_holds_its_table() -> None:
    table = TEXT.partition("<!-- begin: python -m benchmarks.stack -->\n")[2].partition("\n<!-- end -->")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
    assert rows[0] == ["library", "version", "how", *survival.FAULTS, "cost per read"]
    assert [(row[0], row[2]) for row in rows[2:]] == [(each.name, each.how) for each in LIBRARIES]
    assert {cell for row in rows[2:] for cell in row[3:-1]} == {"yes"}
