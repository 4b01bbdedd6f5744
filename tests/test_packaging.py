"""What a package index and an installer are told: the dependencies, what a wheel holds, the command it installs."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def tracked_files() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return listed.stdout.split("\n")[:-1]


def test_four_packages_are_required_and_both_files_say_so() -> None:
    required = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    names = [re.split(r"[<>=~]", each)[0] for each in required]
    assert names == ["azure-storage-blob", "rich", "typer", "python-dotenv"]
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    dependencies = re.search(r"\ndependencies = \[(.*?)\]", project, re.DOTALL)
    assert dependencies is not None
    assert re.findall(r'"(.*?)"', dependencies[1]) == required


def test_a_wheel_holds_the_package_and_the_command_but_not_circuitbreaker_py(tmp_path: Path) -> None:
    # From a copy, since setuptools writes beside the sources.
    files = [
        name for name in tracked_files() if name.startswith("failover/") or name in ("pyproject.toml", "README.md")
    ]
    for name in files:
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / name).write_bytes((ROOT / name).read_bytes())
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(tmp_path), str(tmp_path / "src")]
    subprocess.run(command, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        inside = opened.namelist()
        (scripts,) = [name for name in inside if name.endswith("/entry_points.txt")]
        assert opened.read(scripts).decode().split() == [
            "[console_scripts]",
            "ra-grs-failover",
            "=",
            "failover.__main__:main",
        ]
    assert "circuitbreaker.py" not in inside  # PyPI has a package of that name
    assert {name for name in inside if name.endswith(".py")} == {name for name in files if name.endswith(".py")}
