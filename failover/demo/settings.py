"""Settings from the environment and the file `.env`; the environment goes first."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from failover.breaker.stores import Store, open_store
from failover.demo.account import BadSettings

__all__ = ["REPLICA_WAIT", "STATE", "Store", "read_settings", "replica_wait", "state_store"]

REPLICA_WAIT: Final = "FAILOVER_REPLICA_WAIT_SECONDS"
STATE: Final = "FAILOVER_STATE_CONNECTION_STRING"


def read_settings(environment: Mapping[str, str], file: Path) -> dict[str, str | None]:
    """The variables of `environment` over those of `file` (UTF-8, a BOM and any line ends allowed), if it exists.

    A variable that is set to nothing in the environment hides that of the file. Raises `BadSettings` where the
    file cannot be read or a line of it cannot be understood.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return dict(environment)
    except UnicodeDecodeError:
        raise BadSettings(f"{file.name} cannot be read: it is not UTF-8. Save it as UTF-8.") from None
    except OSError as error:
        raise BadSettings(f"{file.name} cannot be read: {error.strerror or type(error).__name__}.") from None
    if "\0" in text:  # no environment can hold it; and so UTF-16 without its mark reads
        raise BadSettings(f"{file.name} cannot be read: it holds NUL characters. Save it as UTF-8.")
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            # Not the line itself: it may hold a key. Empty lines before it are counted as its own.
            text_of_it = binding.original.string
            line = binding.original.line + text_of_it[: len(text_of_it) - len(text_of_it.lstrip())].count("\n")
            raise BadSettings(f"{file.name}, line {line}, cannot be understood: write NAME=value.")
    return {**dotenv_values(stream=io.StringIO(text), interpolate=False), **environment}


def replica_wait(settings: Mapping[str, str | None], default: float) -> float:
    """Seconds to wait for the replica at most. Raises `BadSettings` where they are no finite number above 0."""
    text = settings.get(REPLICA_WAIT)
    try:
        seconds = float(text) if text else default
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise BadSettings(f"{REPLICA_WAIT} must be a number of seconds above 0.")
    return seconds


def state_store(url: str, settings: Mapping[str, str | None]) -> Store | None:
    """The store that `--state` names; None for memory://, since nobody else can see that one.

    Raises `BadSettings` where there is none of that kind, or its account or package is missing.
    """
    if url == "memory://":
        return None
    connection_string = settings.get(STATE)
    if connection_string:
        os.environ[STATE] = connection_string  # where `open_store` looks: it may have come from .env
    try:
        return open_store(url)
    except (ValueError, ImportError) as error:
        raise BadSettings(f"--state: {error}.") from None
