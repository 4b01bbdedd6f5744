"""Where settings come from: the environment, and a `.env` as editors on any system leave it."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from pathlib import Path

import pytest
from dotenv import dotenv_values
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from failover.demo import account, config
from failover.demo.account import BadSettings
from failover.demo.settings import REPLICA_WAIT, STATE, STATE_URL, read_settings, replica_wait, state_store

ROOT = Path(__file__).parents[2]
SECRET = "c2VjcmV0IHZhbHVlIHRoYXQgbm8gb25lIG1heSBzZWU="


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / ".env"


def test_no_file_is_no_problem(file: Path) -> None:
    assert read_settings({"A": "1"}, file) == {"A": "1"}


@pytest.mark.parametrize("begin", [b"", b"\xef\xbb\xbf"], ids=["plain", "BOM"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
def test_a_byte_order_mark_and_any_line_ends(file: Path, begin: bytes, end: bytes) -> None:
    file.write_bytes(begin + end.join([b"A=1", b"# comment", b"", b"  B = two ", b"export C=3"]) + end)
    assert read_settings({}, file) == {"A": "1", "B": "two", "C": "3"}


def test_the_last_line_needs_no_end(file: Path) -> None:
    file.write_text("A=1\nB=2")
    assert read_settings({}, file) == {"A": "1", "B": "2"}


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("A=one=two==", "one=two=="),
        ("A=sv=2024-11-04&sig=a%2Fb%3D", "sv=2024-11-04&sig=a%2Fb%3D"),
        ("A=AccountName=x;AccountKey=a+b/c==", "AccountName=x;AccountKey=a+b/c=="),
        ('A="in # quotes"', "in # quotes"),
        ("A='in # quotes'", "in # quotes"),
        ("A=value # comment", "value"),
        ("A=no#comment", "no#comment"),
        ("A=${HOME}$x", "${HOME}$x"),
        ('A="äöü"', "äöü"),
        ("A=", ""),
        ("A", None),
    ],
)
def test_values(file: Path, line: str, value: str | None) -> None:
    file.write_text(line + "\n", encoding="utf-8")
    assert read_settings({}, file) == {"A": value}


def test_the_environment_goes_first_and_nothing_hides_the_file(file: Path) -> None:
    file.write_text("A=file\nB=file\nC=file\n")
    assert read_settings({"A": "environment", "B": ""}, file) == {"A": "environment", "B": "", "C": "file"}


def test_the_process_environment_is_left_alone(file: Path) -> None:
    file.write_text("FAILOVER_TEST_ONLY=1\n")
    read_settings(os.environ, file)
    assert "FAILOVER_TEST_ONLY" not in os.environ


def _refused(file: Path) -> str:
    with pytest.raises(BadSettings) as caught:
        read_settings({}, file)
    told = str(caught.value)
    assert told.startswith(".env")
    assert "\n" not in told
    assert SECRET not in told
    assert caught.value.__cause__ is None
    return told


def test_a_directory(file: Path) -> None:
    file.mkdir()
    assert "cannot be read" in _refused(file)


def test_a_file_that_may_not_be_read(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(errno.EACCES, "Permission denied", str(file))  # root, as in CI, is never refused

    file.write_text("A=1")
    monkeypatch.setattr(Path, "read_text", refuse)
    assert "Permission denied" in _refused(file)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "latin-1", "cp1252"])
def test_another_encoding(file: Path, encoding: str) -> None:
    file.write_bytes(f"A=ä{SECRET}\n".encode(encoding))
    told = _refused(file)
    assert "UTF-8" in told or "line 1" in told


def test_a_nul_which_no_environment_can_hold(file: Path) -> None:
    file.write_text(f"{STATE}='{SECRET}\0'\n")
    assert "UTF-8" in _refused(file)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"A=1\nmy key is {SECRET}\n", 2),
        (f"A=1\n\n\nB='{SECRET}\n", 4),
        (f"=\nA={SECRET}", 1),
        (f'A="{SECRET}" and more\n', 1),
    ],
)
def test_a_line_that_makes_no_sense_is_numbered_and_not_shown(file: Path, text: str, line: int) -> None:
    file.write_text(text)
    assert f"line {line}," in _refused(file)


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf", "1 s", "1,5"])
def test_a_wait_that_is_no_number_of_seconds(text: str) -> None:
    with pytest.raises(BadSettings, match=REPLICA_WAIT):
        replica_wait({REPLICA_WAIT: text}, 60.0)


def test_the_wait(file: Path) -> None:
    file.write_text(f"{REPLICA_WAIT}=1.5\n")
    assert replica_wait(read_settings({}, file), 60.0) == 1.5
    assert replica_wait(read_settings({REPLICA_WAIT: "2"}, file), 60.0) == 2.0
    assert replica_wait(read_settings({REPLICA_WAIT: ""}, file), 60.0) == 60.0
    assert replica_wait({}, 60.0) == 60.0


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=60) | st.text("AB=\"'#\n\r\\ $é\x00", max_size=30).map(str.encode))
def test_any_bytes_give_settings_or_a_sentence(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    found: dict[str, str | None] = {}
    with contextlib.suppress(BadSettings):
        found = read_settings({}, file)
    assert all(isinstance(name, str) and isinstance(value, str | None) for name, value in found.items())


# --- .env.example ---------------------------------------------------------------------------------------------


def test_the_example_names_exactly_the_settings_that_are_read() -> None:
    text = (ROOT / ".env.example").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^#([A-Z_]+)=", text, re.MULTILINE)) == sorted(
        [*account.SETTINGS, REPLICA_WAIT, STATE, STATE_URL]
    )
    assert f"{REPLICA_WAIT}={config.REPLICA_WAIT:g}\n" in text


def test_the_account_of_the_state_is_not_put_into_the_environment() -> None:
    before = dict(os.environ)
    key = "aHVudGVyMiBodW50ZXIy"
    text = f"DefaultEndpointsProtocol=http;AccountName=mine;AccountKey={key};BlobEndpoint=http://127.0.0.1:9/mine;"
    assert state_store("blob://circuits", {STATE: text}) is not None
    assert state_store(None, {STATE: text, STATE_URL: "blob://circuits"}) is not None
    assert state_store(None, {STATE: text}) is state_store(None, {STATE_URL: ""}) is None
    assert dict(os.environ) == before


def test_all_settings_of_the_code_are_known() -> None:
    """No variable is read behind the settings' back."""
    found: set[str] = set()
    for source in [ROOT / "circuitbreaker.py", *(ROOT / "failover").rglob("*.py")]:
        found |= set(re.findall(r'"((?:AZURE|FAILOVER)_[A-Z_]+)"', source.read_text(encoding="utf-8")))
    assert found <= {*account.SETTINGS, REPLICA_WAIT, STATE, STATE_URL}
    assert set(account.SETTINGS) <= found


def test_the_example_sets_nothing_and_says_what_each_is_for() -> None:
    file = ROOT / ".env.example"
    assert dotenv_values(file) == {}
    assert read_settings({}, file) == {}
    lines = file.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        if re.match(r"#[A-Z_]+=", line):
            about = next(index for index in range(number, -1, -1) if not lines[index].strip())
            assert "Default: " in " ".join(lines[about:number]) or "Default: " in lines[number - 1], line
