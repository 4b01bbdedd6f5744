"""For how long a failed remote asks not to be called: the Retry-After header of the response of an outcome."""

from __future__ import annotations

import math
import time
from datetime import timezone
from email.utils import parsedate_to_datetime
from typing import Any


def retry_after_of(outcome: object) -> float | None:
    """Seconds from now, above 0; None where nothing is asked, or not understandably. Never raises.

    `outcome` is what a call raised or returned: its `retry_after` (a number), else the header of its `response`, else
    of itself, in seconds or as an HTTP date. A date is compared with the response's own Date where it has one, so
    that this machine's clock need not be right.
    """
    try:
        told = getattr(outcome, "retry_after", None)
        if isinstance(told, (int, float)) and not isinstance(told, bool):
            return _sensible(float(told))
        headers = getattr(getattr(outcome, "response", None), "headers", None) or getattr(outcome, "headers", None)
        text = _header(headers, "Retry-After")
        if text is None:
            return None
        if text.isascii() and text.isdigit():
            return _sensible(float(text))
        return _sensible(_moment(text) - _now(_header(headers, "Date")))
    except Exception:  # noqa: BLE001 (anybody's objects: their properties may raise anything)
        return None


def _now(date: str | None) -> float:
    try:
        return _moment(date) if date else time.time()
    except (ValueError, TypeError, OverflowError):  # a date that is none
        return time.time()


def _moment(date: str) -> float:
    moment = parsedate_to_datetime(date)
    # HTTP's oldest format names no zone and means UTC.
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


def _header(headers: Any, name: str) -> str | None:
    get = getattr(headers, "get", None)
    if get is None:
        return None
    value = get(name) or get(name.lower())
    return value.strip() if isinstance(value, str) else None


def _sensible(seconds: float) -> float | None:
    return seconds if math.isfinite(seconds) and seconds > 0 else None
