"""The README's commands, in order and as they stand there, in a fresh clone: one shell, as a newcomer has it.

Only the network is spared: a new environment finds the packages of this one, so that pip has nothing to fetch.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.checkout import copy_project
from tests.program import environment

if sys.platform == "win32":
    pytest.skip("the README's commands for POSIX shells", allow_module_level=True)

ROOT = Path(__file__).parents[2]
PAGES = ("README.md", "docs/demonstration.md", "docs/sharing.md")
_TEXTS = [(ROOT / name).read_text(encoding="utf-8") for name in PAGES]
README = "\n".join(re.sub(r"^```\{.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE) for text in _TEXTS)
"""What the README says, and what it leads a newcomer to."""
LOOK = 4  # seconds after which a command that measures something for minutes has begun to
STOPPED = 124  # the exit code of `timeout`, where it had to end the command
EXPECTED = {  # a command that is to be refused here, and the words
    "--proxy": (2, "--ca-bundle FiddlerRoot.cer cannot be read"),
}

pytestmark = pytest.mark.program


def commands() -> list[str]:
    """All that stand in the README, in fenced blocks without a language and between backticks; its first one first."""
    blocks_of = re.findall(r"^```(\w*)\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    fenced = [block for language, block in blocks_of if not language]
    blocks = [line for block in fenced for line in block.splitlines() if re.match(r"(python|\.venv)", line)]
    first, *others = [line for line in blocks if "pytest" not in line]
    prose = re.sub(r"^```.*?^```", "", README, flags=re.DOTALL | re.MULTILINE)
    spans = [each for each in re.findall(r"`([^`\n]+)`", prose) if re.match(r"(\.venv-test/bin/)?python ", each)]
    return [first, *dict.fromkeys([*spans, *others])]


def _measures(command: str) -> bool:
    return "-m benchmarks" in command or "-m tests" in command


def newcomers_path(folder: Path) -> str:
    """A PATH with a `python3` whose environments find the packages of this one, and no environment active."""
    folder.mkdir()
    packages = sysconfig.get_path("purelib")
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    base = Path(sys.base_prefix) / "bin" / version
    (folder / "python3").write_text(
        f'#!/bin/sh\n"{base}" "$@" || exit\n'
        f'[ "$1 $2" != "-m venv" ] || echo "{packages}" > "$3/lib/{version}/site-packages/ready.pth"\n'
    )
    (folder / "python3").chmod(0o755)
    return f"{folder}{os.pathsep}/usr/bin{os.pathsep}/bin"


def test_all_of_them_are_looked_at() -> None:
    found = commands()
    assert found[0].startswith("python3 -m venv .venv && ")
    assert len(found) >= 9
    for part in ("--fail 201:400", "--report run.svg", "--state", "--clean-up", "--proxy", "benchmarks.outage"):
        assert any(part in each for each in found), part


@pytest.mark.timeout(600)
def test_each_works_as_it_stands_in_order(tmp_path: Path) -> None:
    folder = copy_project(tmp_path / "clone")
    home = tmp_path / "home"
    home.mkdir()
    env = environment(PATH=newcomers_path(tmp_path / "bin"), HOME=str(home), PIP_NO_INDEX="1")
    env = {name: value for name, value in env.items() if name not in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME")}
    first, *others = commands()
    lines = ["python3 -m venv .venv-test"]  # of "Test it", whose command is this suite
    for n, each in enumerate([first, *others]):
        limit = f"timeout {LOOK} " if _measures(each) else ""
        lines.append(f"{{ {limit}{each}; }} >{n}.out 2>{n}.err </dev/null; echo code {n} $?")
    # One shell: what one of them leaves behind, such as an active environment, the next one has.
    ran = subprocess.run(
        ["bash", "-c", "\n".join(lines)],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    codes = {int(n): int(code) for n, code in re.findall(r"^code (\d+) (\d+)$", ran.stdout, re.MULTILINE)}
    assert len(codes) == len(others) + 1, ran
    for n, each in enumerate([first, *others]):
        err = (folder / f"{n}.err").read_text()
        expected, words = next((told for part, told in EXPECTED.items() if part in each), (0, ""))
        stopped = STOPPED if _measures(each) else expected  # it was at work
        assert codes[n] in (expected, stopped), (each, codes[n], err)
        assert words in err, (each, err)
        assert "Traceback" not in err or codes[n] == STOPPED, (each, err)
        assert "ModuleNotFoundError" not in err, (each, err)
