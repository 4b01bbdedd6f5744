"""The app's settings, checked before anything starts: a bad one raises a `SettingError` of one line that names it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import urlsplit

from failover.breaker.stores import Store, open_store

T = TypeVar("T")


class SettingError(ValueError):
    """A setting cannot be used. The message names it and never shows its value, which may be a secret."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What `read` found.

    downstream: the base URL, without a last slash. threshold: failures in a row. cooldown: seconds. store: where the
    circuit is shared. fallback: the text to answer with while the circuit is open, or None: refuse.
    """

    downstream: str
    threshold: int
    cooldown: float
    store: Store = field(repr=False)
    fallback: str | None = None

    @classmethod
    def read(cls, environ: Mapping[str, str]) -> Settings:
        """The settings in `environ`, where an empty one is as good as none. Raises `SettingError`."""

        def setting(name: str, default: str, check: Callable[[str], T]) -> T:
            try:
                return check(environ.get(name, "").strip() or default)
            except (ValueError, ImportError) as error:
                raise SettingError(f"{name}: {error}") from None

        return cls(
            downstream=setting("DOWNSTREAM_API_BASE_URL", "", _base_url),
            threshold=setting("CIRCUIT_BREAKER_FAILURE_THRESHOLD", "3", _count),
            cooldown=setting("CIRCUIT_BREAKER_COOLDOWN_SECONDS", "15", _seconds),
            store=setting("CIRCUIT_BREAKER_STATE", "memory://", open_store),
            fallback=environ.get("CIRCUIT_BREAKER_FALLBACK", "").strip() or None,
        )


def _base_url(text: str) -> str:
    """It becomes the circuit's name and stands in answers and logs: so it must hold no credentials."""
    try:
        parts = urlsplit(text)
        usable = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable or parts.scheme not in ("http", "https") or not text.isprintable() or " " in text:
        raise ValueError("it must be set to the URL of the API, such as http://127.0.0.1:8090")
    if "@" in parts.netloc or "?" in text or "#" in text:
        raise ValueError("it must have no user, password, query or fragment")
    return text.rstrip("/")


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 9 and int(text) > 0):
        raise ValueError("it must be an integer from 1, such as 3")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < math.inf:
        raise ValueError("it must be a finite number of seconds above 0, such as 15")
    return seconds
