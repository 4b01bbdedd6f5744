"""A bad setting stops the start with one line that names it and shows no secret."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from failover.breaker.stores.memory import MemoryStore
from settings import SettingError, Settings

FOLDER = Path(__file__).parents[2] / "examples" / "function_app"
URL = {"DOWNSTREAM_API_BASE_URL": "http://127.0.0.1:8090"}
SECRET = "c2VjcmV0"


def test_what_holds_where_nothing_is_set() -> None:
    found = Settings.read({**URL, "CIRCUIT_BREAKER_COOLDOWN_SECONDS": " "})
    assert (found.downstream, found.threshold, found.cooldown) == ("http://127.0.0.1:8090", 3, 15.0)
    assert found.fallback is None
    assert isinstance(found.store, MemoryStore)


def test_a_last_slash_makes_no_difference() -> None:
    found = Settings.read({"DOWNSTREAM_API_BASE_URL": "https://api.example/v1/"})
    assert found.downstream == "https://api.example/v1"


BAD = [
    ("DOWNSTREAM_API_BASE_URL", ""),
    ("DOWNSTREAM_API_BASE_URL", "api.example"),
    ("DOWNSTREAM_API_BASE_URL", "ftp://api.example"),
    ("DOWNSTREAM_API_BASE_URL", "http://"),
    ("DOWNSTREAM_API_BASE_URL", "http://api.example:port"),
    ("DOWNSTREAM_API_BASE_URL", "http://api.example:99999"),
    ("DOWNSTREAM_API_BASE_URL", "http://[::1"),
    ("DOWNSTREAM_API_BASE_URL", "http://api.example/a\nb"),
    ("DOWNSTREAM_API_BASE_URL", f"https://user:{SECRET}@api.example"),
    ("DOWNSTREAM_API_BASE_URL", f"https://api.example/?key={SECRET}"),
    ("CIRCUIT_BREAKER_FAILURE_THRESHOLD", "0"),
    ("CIRCUIT_BREAKER_FAILURE_THRESHOLD", "-1"),
    ("CIRCUIT_BREAKER_FAILURE_THRESHOLD", "2.5"),
    ("CIRCUIT_BREAKER_FAILURE_THRESHOLD", "three"),
    ("CIRCUIT_BREAKER_FAILURE_THRESHOLD", "9" * 5000),
    ("CIRCUIT_BREAKER_COOLDOWN_SECONDS", "0"),
    ("CIRCUIT_BREAKER_COOLDOWN_SECONDS", "-15"),
    ("CIRCUIT_BREAKER_COOLDOWN_SECONDS", "nan"),
    ("CIRCUIT_BREAKER_COOLDOWN_SECONDS", "inf"),
    ("CIRCUIT_BREAKER_COOLDOWN_SECONDS", "15s"),
    ("CIRCUIT_BREAKER_STATE", "memory"),
    ("CIRCUIT_BREAKER_STATE", "s3://bucket"),
    ("CIRCUIT_BREAKER_STATE", f"redis://:{SECRET}@127.0.0.1:port"),
    ("CIRCUIT_BREAKER_STATE", f"postgres://user:{SECRET}@host/db"),
    ("CIRCUIT_BREAKER_STATE", "table://no-table"),
]


@pytest.mark.parametrize(("name", "value"), BAD, ids=lambda text: repr(text[:40]))
def test_a_bad_value_is_named_and_not_shown(name: str, value: str) -> None:
    with pytest.raises(SettingError) as caught:
        Settings.read({**URL, name: value})
    said = str(caught.value)
    assert said.startswith(f"{name}: ")
    assert "\n" not in said
    assert SECRET not in said
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__, "the error behind it may quote the value"


def test_shared_state_without_its_account_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAILOVER_STATE_CONNECTION_STRING", raising=False)
    with pytest.raises(SettingError, match=r"CIRCUIT_BREAKER_STATE: .*FAILOVER_STATE_CONNECTION_STRING.* is not set"):
        Settings.read({**URL, "CIRCUIT_BREAKER_STATE": "table://circuits"})


def test_a_bad_account_of_the_state_is_told_without_its_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAILOVER_STATE_CONNECTION_STRING", f"AccountKey={SECRET}")
    with pytest.raises(SettingError, match="FAILOVER_STATE_CONNECTION_STRING") as caught:
        Settings.read({**URL, "CIRCUIT_BREAKER_STATE": "table://circuits"})
    assert SECRET not in str(caught.value)


def test_settings_do_not_show_the_store() -> None:
    state = f"redis://:{SECRET}@127.0.0.1:6379/0"
    assert SECRET not in repr(Settings.read({**URL, "CIRCUIT_BREAKER_STATE": state}))


def test_the_app_does_not_start_with_a_bad_setting() -> None:
    settings = {"DOWNSTREAM_API_BASE_URL": "http://127.0.0.1", "CIRCUIT_BREAKER_COOLDOWN_SECONDS": "soon"}
    environment = {**os.environ, **settings, "PYTHONPATH": str(FOLDER.parents[1])}
    command = [sys.executable, "-c", "import function_app"]
    done = subprocess.run(command, cwd=FOLDER, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last == (
        "settings.SettingError: CIRCUIT_BREAKER_COOLDOWN_SECONDS: "
        "it must be a finite number of seconds above 0, such as 15"
    )
