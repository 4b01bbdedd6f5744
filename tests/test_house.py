"""The layout that users and maintainers rely on: what is where, and who may import whom."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TOP_LEVEL = {
    "circuitbreaker.py",
    "Fiddler_script.txt",
    ".env.example",
    "requirements.txt",
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "failover",
    "examples",
    "benchmarks",
    "tests",
    "docs",
    ".ci",
    ".github",
    ".gitignore",
    ".gitattributes",
}
SOURCES = sorted([ROOT / "circuitbreaker.py", *(ROOT / "failover").rglob("*.py")])

# Whom each part may import, beside itself and what is not ours.
MAY_IMPORT = {
    "failover.breaker": set(),
    "failover.storage": {"failover.breaker"},
    "failover.standin": set(),
    "failover.demo.events": set(),
    "failover.demo": {"failover.demo.events", "failover.breaker", "failover.storage"},
    "failover.console": {"failover.demo.events"},
    "failover.cli": {"failover.console", "failover.demo", "failover.standin"},
    "failover.__main__": {"failover.cli"},
    "circuitbreaker": {"failover.__main__"},
}
# Of the library, what may import packages of an extra.
EXTRAS: dict[str, set[str]] = {
    "failover.breaker.stores.": {"redis", "azure"},
    "failover.breaker.otel": {"opentelemetry"},
}
NO_SCREEN = {"rich", "typer"}
NO_SDK = {"azure", "requests", "dotenv"}


def part_of(module: str) -> str:
    return module if module == "failover.demo.events" else ".".join(module.split(".")[:2])


def module_of(file: Path) -> str:
    names = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(names[:-1] if names[-1] == "__init__" else names)


def imports_of(file: Path) -> Iterator[str]:
    package = module_of(file) if file.name == "__init__.py" else module_of(file).rpartition(".")[0]
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [base])])
            # `from failover.demo import events` imports the part, not the package.
            whole = base not in ("failover", "failover.demo")
            yield from (base if whole else f"{base}.{alias.name}" for alias in node.names)


def tracked_files() -> list[str]:
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return listed.stdout.split("\n")[:-1]


def test_the_top_level_holds_what_the_design_draws_and_no_more() -> None:
    assert {name.partition("/")[0] for name in tracked_files()} <= TOP_LEVEL


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_imports_run_one_way(file: Path) -> None:
    part = part_of(module_of(file))
    if part == "failover":
        return
    ours = {part_of(name) for name in imports_of(file) if name.startswith("failover.")}
    assert ours - {part} <= MAY_IMPORT[part]


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_screen_and_sdk_stay_where_they_belong(file: Path) -> None:
    part = part_of(module_of(file))
    foreign = {name.partition(".")[0] for name in imports_of(file)}
    if part not in ("failover.console", "failover.cli"):
        assert not foreign & NO_SCREEN
    if part in ("failover.console", "failover.demo.events", "failover.cli", "circuitbreaker"):
        assert not foreign & NO_SDK
    if part == "failover.breaker":
        extra = next((found for module, found in EXTRAS.items() if module_of(file).startswith(module)), set())
        assert foreign <= set(sys.stdlib_module_names) | {"failover"} | extra


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_each_file_says_first_why_it_exists(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.startswith('"""')
    assert len(text.splitlines()) <= 350


def test_the_four_packages_and_nothing_else() -> None:
    required = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    names = [re.split(r"[<>=~]", each)[0] for each in required]
    assert names == ["azure-storage-blob", "rich", "typer", "python-dotenv"]
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    dependencies = re.search(r"\ndependencies = \[(.*?)\]", project, re.DOTALL)
    assert dependencies is not None
    assert re.findall(r'"(.*?)"', dependencies[1]) == required


def test_a_wheel_leaves_our_circuitbreaker_py_out(tmp_path: Path) -> None:
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
    inside = zipfile.ZipFile(wheel).namelist()
    assert "circuitbreaker.py" not in inside
    modules = {name for name in files if name.endswith(".py")}
    assert {name for name in inside if name.endswith(".py")} == modules
