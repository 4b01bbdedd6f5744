"""Settings from the environment and from the file `.env`. The environment has precedence."""

from __future__ import annotations

import io
import math
import stat
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from failover.breaker.stores import Store, open_store
from failover.demo.account import BadSettings

__all__ = ["REPLICA_WAIT", "STATE", "STATE_URL", "Store", "read_settings", "replica_wait", "state_store"]

REPLICA_WAIT: Final = "FAILOVER_REPLICA_WAIT_SECONDS"
STATE: Final = "FAILOVER_STATE_CONNECTION_STRING"
STATE_URL: Final = "FAILOVER_STATE_URL"


def read_settings(
    environment: Mapping[str, str], file: Path, *, tell: Callable[[str], object] = lambda _: None
) -> dict[str, str | None]:
    """Return the variables of `environment`, and those of `file` that are not among them.

    A variable that is empty in the environment hides that of the file.

    Args:
        environment: Names and values, such as `os.environ`.
        file: A `.env` in UTF-8, with or without BOM, with any line ends. It need not exist. A pipe or a device, which
            could be waited for without end, is ignored.
        tell: Called with a sentence for the user where the file is ignored.

    Raises:
        BadSettings: The file cannot be read, or a line of it is malformed.
    """
    try:
        mode = file.stat().st_mode
        if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            tell(f"{file.name} is ignored: it is a pipe or a device, not a file.")
            return dict(environment)
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return dict(environment)
    except UnicodeDecodeError:
        raise BadSettings(f"{file.name} cannot be read: it is not UTF-8. Save it as UTF-8.") from None
    except OSError as error:
        raise BadSettings(f"{file.name} cannot be read: {error.strerror or type(error).__name__}.") from None
    if "\0" in text:  # which no environment can contain. UTF-16 without a BOM looks like this
        raise BadSettings(f"{file.name} cannot be read: it holds NUL characters. Save it as UTF-8.")
    for binding in parse_stream(io.StringIO(text)):
        if binding.error:
            # Not the line itself: it may contain a key. The parser counts empty lines before it as part of it.
            text_of_it = binding.original.string
            line = binding.original.line + text_of_it[: len(text_of_it) - len(text_of_it.lstrip())].count("\n")
            raise BadSettings(f"{file.name}, line {line}, cannot be understood: write NAME=value.")
    return {**dotenv_values(stream=io.StringIO(text), interpolate=False), **environment}


def replica_wait(settings: Mapping[str, str | None], default: float) -> float:
    """Return for how many seconds to wait for the replica at most.

    Raises:
        BadSettings: The setting is not a finite number above 0.
    """
    text = settings.get(REPLICA_WAIT)
    try:
        seconds = float(text) if text else default
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise BadSettings(f"{REPLICA_WAIT} must be a number of seconds above 0.")
    return seconds


def state_store(url: str | None, settings: Mapping[str, str | None]) -> Store | None:
    """Return the store that `--state` names, or else FAILOVER_STATE_URL; None for memory://, which is this process's.

    Args:
        url: Of `--state`. None: it was not given. Other users of the machine see an option, but no variable.
        settings: Of the environment and `.env`.

    Raises:
        BadSettings: There is no such kind of store, or its account or package is missing.
    """
    source = STATE_URL if url is None else "--state"
    url = (settings.get(STATE_URL) or "memory://") if url is None else url
    if url == "memory://":
        return None
    try:
        return open_store(url, settings.get(STATE) or None)
    except (ValueError, ImportError) as error:
        raise BadSettings(f"{source}: {error}.") from None
