"""Checks of arguments. If a value is invalid, `ValueError` names the field."""

from __future__ import annotations

import sys

# Compared with, unlike math.isfinite, an integer of any size.
LARGEST = sys.float_info.max


def count(field: str, value: object) -> None:
    """An integer from 1, and one that a machine can count to."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= sys.maxsize:
        raise ValueError(f"{field} must be an integer from 1, not {value!r}")


def number(field: str, value: object) -> None:
    """An int or a float."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ValueError(f"{field} must be a number, not {value!r}")  # noqa: TRY004 (contract)


def seconds(field: str, value: float) -> None:
    """Finite and above 0."""
    number(field, value)
    if not 0 < value <= LARGEST:
        raise ValueError(f"{field} must be finite and above 0 seconds, not {value!r}")


def share(field: str, value: float) -> None:
    """From 0 to 1."""
    number(field, value)
    if not 0 <= value <= 1:
        raise ValueError(f"{field} must lie in 0 to 1, not {value!r}")


def instance(field: str, value: object, kind: type) -> None:
    """One of that kind."""
    if not isinstance(value, kind):
        raise ValueError(f"{field} must be a {kind.__name__}, not {value!r}")  # noqa: TRY004 (contract)


def is_callable(field: str, value: object) -> None:
    """A callable."""
    if not callable(value):
        raise ValueError(f"{field} must be callable, not {value!r}")  # noqa: TRY004 (contract)


def optional_callable(field: str, value: object) -> None:
    """None or a callable."""
    if value is not None:
        is_callable(field, value)


def optional_store(field: str, value: object) -> None:
    """None or a store: not its URL, which may have a password in it and so is not shown."""
    if value is not None and not hasattr(value, "compare_and_set"):
        raise ValueError(f"{field} must be one that open_store() gives, not a {type(value).__name__}")
