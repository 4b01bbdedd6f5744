"""What a package index and an installer are told, what wheel and sdist hold, and the command without its extra."""

from __future__ import annotations

import email.parser
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from failover import __version__
from failover.__main__ import uv_command
from tests.checkout import ROOT, copy_project, project_files
from tests.program import environment

PROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
WITHOUT_PACKAGES = [sys.executable, "-I", "-S"]  # -S: no site-packages; -I: nothing from outside


def names_of(requirements: list[str]) -> list[str]:
    return [re.split(r"[<>=~;\[ ]", each)[0] for each in requirements]


def listed(name: str) -> list[str]:
    found = re.search(rf"^{name} = \[(.*?)\]", PROJECT, re.DOTALL | re.MULTILINE)
    assert found is not None
    return re.findall(r'"(.*?)"', found[1])


def test_one_package_is_required_and_requirements_txt_adds_the_three_of_the_demonstration() -> None:
    required = (ROOT / "requirements.txt").read_text(encoding="utf-8").split()
    assert names_of(required) == ["azure-storage-blob", "rich", "typer", "python-dotenv"]
    assert names_of(listed("dependencies")) == ["azure-storage-blob"]
    assert listed("dependencies") + listed("demo") == required


def test_whoever_tests_has_the_demonstration() -> None:
    assert "ra-grs-failover[demo]" in PROJECT.partition("\ntest = [")[2].partition("\n]")[0]
    assert "ra-grs-failover[test]" in PROJECT.partition("\ndev = [")[2].partition("\n]")[0]


def test_the_version_stands_in_one_place() -> None:
    told = [name for name in project_files() if name.endswith((".py", ".toml")) and not name.startswith("tests/")]
    assert [name for name in told if f'"{__version__}"' in (ROOT / name).read_text(encoding="utf-8")] == [
        "failover/__init__.py"
    ]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a wheel that was made from the sdist, and the sdist."""
    folder = tmp_path_factory.mktemp("built")
    source = copy_project(folder / "source")  # a copy has no files of this checkout's own
    command = [sys.executable, "-m", "build", "--outdir", str(folder), str(source)]
    made = subprocess.run(command, cwd=folder, check=False, capture_output=True, text=True)
    assert made.returncode == 0, made.stdout + made.stderr
    return folder


def test_a_wheel_holds_the_package_and_the_command_but_not_circuitbreaker_py(built: Path) -> None:
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as opened:
        inside = opened.namelist()
        (scripts,) = [name for name in inside if name.endswith("/entry_points.txt")]
        assert opened.read(scripts).decode().split() == [
            "[console_scripts]",
            "ra-grs-failover",
            "=",
            "failover.__main__:main",
        ]
        (metadata,) = [name for name in inside if name.endswith("/METADATA")]
        told = email.parser.Parser().parsestr(opened.read(metadata).decode())
    assert told["Version"] == __version__
    always = [each for each in told.get_all("Requires-Dist", []) if "extra ==" not in each]
    assert names_of(always) == ["azure-storage-blob"]
    assert "circuitbreaker.py" not in inside  # PyPI has a package of that name
    package = {name for name in project_files() if name.startswith("failover/")}
    assert {name for name in inside if ".dist-info/" not in name} == package


def test_an_sdist_holds_the_whole_project_and_its_tests_run(built: Path, tmp_path: Path) -> None:
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as opened:
        opened.extractall(tmp_path, filter="data")
    (folder,) = tmp_path.iterdir()
    inside = {each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file()}
    assert inside == {*project_files(), "PKG-INFO"}
    some = ["tests/test_docs.py", "tests/test_packaging.py::test_no_file_is_a_stray"]
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", *some]
    ran = subprocess.run(command, cwd=folder, env=environment(), check=False, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_no_file_is_a_stray() -> None:
    """The top level is the design's: whatever else there is lives in a folder."""
    assert {name for name in project_files() if "/" not in name} == {
        ".env.example",
        ".gitattributes",
        ".gitignore",
        "Fiddler_script.txt",
        "LICENSE",
        "README.md",
        "circuitbreaker.py",
        "pyproject.toml",
        "requirements.txt",
    }


def test_the_breaker_needs_nothing_else() -> None:
    code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import failover.breaker, failover.breaker.stores"
    ran = subprocess.run([*WITHOUT_PACKAGES, "-c", code], check=False, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "")


@pytest.mark.parametrize(("checkout", "extra"), [(True, ".[demo]"), (False, "ra-grs-failover[demo]")])
@pytest.mark.parametrize("called", ["ra-grs-failover", "python -m failover"])
def test_without_its_extra_the_command_says_in_one_line_what_to_install(
    tmp_path: Path, called: str, checkout: bool, extra: str
) -> None:
    for name in project_files():
        if name.startswith("failover/") or (checkout and name == "pyproject.toml"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    script = tmp_path / "ra-grs-failover"
    script.write_text(
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nfrom failover.__main__ import main\nmain()\n"
    )
    command = [sys.executable, "-S", str(script)] if called == script.name else [sys.executable, "-S", "-m", "failover"]
    env = environment()
    env.pop("UV", None)
    ran = subprocess.run(command, cwd=tmp_path, env=env, check=False, capture_output=True, text=True)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert re.fullmatch(
        rf"{called}: the package \w+ is not installed for .+\. "
        rf"The demonstration is an extra: pip install '{re.escape(extra)}'\n",
        ran.stderr,
    )


@pytest.mark.program
def test_uvx_from_a_checkout_shows_reads(tmp_path: Path) -> None:
    source = copy_project(tmp_path / "source")
    command = [sys.executable, "-m", "uv", "tool", "run", "--python", sys.executable, "--from", ".", "ra-grs-failover"]
    options = ["--plain", "--requests", "3", "--replication-lag", "0"]
    ran = subprocess.run([*command, *options], cwd=source, env=environment(), check=False, capture_output=True)
    assert ran.returncode == 0, ran.stderr
    assert re.search(rb"^ +3  primary    closed ", ran.stdout, re.MULTILINE), ran.stdout


class _Installed:
    version = __version__

    def __init__(self, origin: str | None) -> None:
        self._origin = origin

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return self._origin


@pytest.mark.parametrize(
    ("origin", "wanted"),
    [
        (None, f"ra-grs-failover[demo]=={__version__}"),
        ('{"url": "file:///home/me/project", "dir_info": {}}', "ra-grs-failover[demo] @ file:///home/me/project"),
        ('{"url": "https://git.example/project", "vcs_info": {"vcs": "git"}}', None),
    ],
)
def test_uv_is_asked_for_the_extra_once(
    monkeypatch: pytest.MonkeyPatch, origin: str | None, wanted: str | None
) -> None:
    monkeypatch.setattr("failover.__main__.distribution", lambda _: _Installed(origin))
    uv = os.fspath(Path("bin", "uv"))
    asked = [uv, "tool", "run", "--from", wanted, "ra-grs-failover", "--plain"]
    environ = {"UV": uv}
    assert uv_command(environ, ["--plain"]) == (asked if wanted else None)
    assert uv_command({}, ["--plain"]) is None
    assert uv_command({**environ, "RA_GRS_FAILOVER_ASKED_UV": "1"}, ["--plain"]) is None


@pytest.mark.parametrize("workflow", sorted((ROOT / ".github" / "workflows").glob("*.yml")), ids=lambda each: each.name)
def test_workflows_pin_each_action_by_its_digest_and_may_only_read(workflow: Path) -> None:
    text = workflow.read_text(encoding="utf-8")
    used = re.findall(r"^ *-? *uses: (.*)$", text, re.MULTILINE)
    assert used
    assert [each for each in used if not re.fullmatch(r"[\w./-]+@[0-9a-f]{40} # v[\d.]+", each)] == []
    assert re.search(r"^permissions:\n  contents: read\n(?! )", text, re.MULTILINE)
