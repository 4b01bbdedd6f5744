"""What the folder needs besides its functions: it deploys by itself, and its README and example say what is true."""

from __future__ import annotations

import http.client
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from failover import __version__
from settings import Settings
from tests.breaker.circuits import PATIENCE

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "examples" / "function_app"
README = (FOLDER / "README.md").read_text(encoding="utf-8")
SOURCES = sorted(FOLDER.glob("*.py"))


def code(file: str) -> str:
    return (FOLDER / file).read_text(encoding="utf-8")


@pytest.mark.parametrize("file", [each.name for each in SOURCES])
def test_each_file_is_short_and_says_first_why_it_exists(file: str) -> None:
    assert code(file).startswith('"""')
    assert len(code(file).splitlines()) <= 250


def test_the_example_of_settings_is_a_good_one_and_has_them_all(monkeypatch: pytest.MonkeyPatch) -> None:
    values = json.loads(code("local.settings.json.example"))["Values"]
    found = Settings.read(values)
    assert (found.threshold, found.cooldown, found.store.url) == (3, 15.0, "memory://")
    in_code = set(re.findall(r'"((?:CIRCUIT_BREAKER|DOWNSTREAM)_\w+)"', code("settings.py")))
    assert len(in_code) == 5
    in_table = set(re.findall(r"^\| `([A-Z_]+)` \|", README, re.MULTILINE))
    assert in_table == in_code | {"FAILOVER_STATE_CONNECTION_STRING"}
    assert in_table <= values.keys()


def test_the_requirements_name_the_wheel_that_the_readmes_command_makes() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    name = re.search(r'^name = "(.*)"$', project, re.MULTILINE)
    assert name is not None
    wheel = f"./wheels/{name[1].replace('-', '_')}-{__version__}-py3-none-any.whl[redis,table]"
    lines = [line for line in code("requirements.txt").splitlines() if not line.startswith("#")]
    assert lines[0] == wheel
    assert "pip wheel --no-deps --wheel-dir wheels ../.." in README


def test_nothing_of_the_folder_that_is_deployed_needs_the_rest_of_the_repository() -> None:
    imported = {
        name for file in SOURCES for name in re.findall(r"^(?:from|import) (\w+)", code(file.name), re.MULTILINE)
    }
    ours = {each.stem for each in SOURCES} - {"substitute"}
    assert imported - set(sys.stdlib_module_names) <= ours | {"aiohttp", "azure", "failover"}
    ignored = code(".funcignore").splitlines()
    assert "local.settings.json*" in ignored
    assert not any(each.startswith("wheels") or each == "*.whl" for each in ignored)


def test_the_substitute_answers_what_is_asked_for() -> None:
    command = [sys.executable, str(FOLDER / "substitute.py"), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = re.search(r"http://127\.0\.0\.1:(\d+)", process.stdout.readline())
            assert said is not None
            client = http.client.HTTPConnection("127.0.0.1", int(said[1]), timeout=PATIENCE)
            for path, status in (("/200", 200), ("/204", 204), ("/503", 503), ("/", 404), ("/1000", 404)):
                client.request("GET", path)
                answer = client.getresponse()
                assert (answer.status, answer.will_close) == (status, False), "the connection is kept"
                answer.read()
            client.close()
        finally:
            process.kill()


def test_the_files_of_the_readme_exist() -> None:
    for name in re.findall(r"`(\w+\.(?:py|json|txt))`", README):
        assert (FOLDER / name).exists(), name


def test_the_readmes_log_is_what_the_code_writes() -> None:
    (story,) = re.findall(r"^```\n(Calling downstream.*?)^```", README, re.DOTALL | re.MULTILINE)
    written = code("circuit.py") + code("downstream.py")
    for line in story.splitlines():
        fixed = re.sub(r" http://\S+$| failure_count=.*$", "", line)
        assert fixed in written, line
