"""The command where it cannot run: a Python that is too old, or one without the packages."""

from __future__ import annotations

import ast
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.program import PROGRAM, environment

SOURCE = PROGRAM.read_text(encoding="utf-8")
OLD = ("2.7", "3.6", "3.8", "3.9")


def found() -> list[tuple[str, str]]:
    """The old interpreters of this machine: version and path. There may be none."""
    folders = [*map(Path, os.environ.get("PATH", "").split(os.pathsep)), *Path.home().glob(".pyenv/versions/*/bin")]
    there = {version: folder / f"python{version}" for folder in folders for version in OLD
             if (folder / f"python{version}").exists() and "shims" not in folder.parts}  # fmt: skip
    return [(version, str(path)) for version, path in there.items()]


def test_an_old_grammar_parses_it() -> None:
    tree = ast.parse(SOURCE, feature_version=(3, 4))
    nodes = list(ast.walk(tree))
    # What Python 2 lacks beside that: annotations, f-strings, and the future that annotations come from.
    assert not [each for each in nodes if isinstance(each, (ast.AnnAssign, ast.JoinedStr, ast.FunctionDef))]
    assert not [each for each in nodes if isinstance(each, ast.ImportFrom) and each.module == "__future__"]
    assert SOURCE.isascii()


@pytest.mark.parametrize("version", [(2, 7, 18), (3, 9, 18)])
def test_an_old_python_is_told_which_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], version: tuple[int, int, int]
) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    with pytest.raises(SystemExit) as caught:
        runpy.run_path(str(PROGRAM), run_name="__main__")
    assert caught.value.code == 2
    told = f"circuitbreaker.py: needs Python 3.10 or newer; this is {version[0]}.{version[1]}.\n"
    assert capsys.readouterr() == ("", told)


def test_the_old_pythons_of_this_machine_say_so_themselves(tmp_path: Path) -> None:
    for version, python in found():
        ran = subprocess.run(
            [python, str(PROGRAM), "--plain"],
            cwd=tmp_path,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        told = f"circuitbreaker.py: needs Python 3.10 or newer; this is {version}.\n"
        assert (ran.returncode, ran.stdout, ran.stderr) == (2, "", told)


def test_without_the_packages_it_says_how_to_get_them(tmp_path: Path) -> None:
    # -S: without site-packages, as outside the environment.
    ran = subprocess.run(
        [sys.executable, "-S", str(PROGRAM)],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (2, "")
    assert re.fullmatch(r"circuitbreaker\.py: the package \w+ is not installed [^\n]+\n", ran.stderr)
    assert "pip install -r requirements.txt" in ran.stderr
