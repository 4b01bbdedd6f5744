"""What a request or a message asks for: which status of the downstream, and how long to wait for it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

MOST_SECONDS: Final = 30.0
_STATUS: Final = re.compile(r"[2-5][0-9]{2}")
_SECONDS: Final = re.compile(r"[0-9]{1,2}(\.[0-9]{1,6})?")


class BadRequest(ValueError):  # noqa: N818 (what HTTP calls it)
    """It cannot be understood; the message says what would be, and quotes nothing."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """status: 200 to 599, by default 200. timeout: seconds above 0, at most `MOST_SECONDS`, by default 5."""

    status: int
    timeout: float

    @classmethod
    def of(cls, values: Mapping[str, object]) -> Wanted:
        """Of a query's parameters or a message's fields; others are left alone. Raises `BadRequest`."""
        status, timeout = _text(values.get("status", 200)), _text(values.get("timeout", 5))
        if not _STATUS.fullmatch(status):
            raise BadRequest("status must be an integer from 200 to 599")
        if not _SECONDS.fullmatch(timeout) or not 0 < float(timeout) <= MOST_SECONDS:
            raise BadRequest(f"timeout must be a number of seconds above 0, at most {MOST_SECONDS:g}")
        return cls(int(status), float(timeout))

    @classmethod
    def of_json(cls, body: bytes) -> Wanted:
        """Of a message. Raises `BadRequest`."""
        try:
            values = json.loads(body)
        except (ValueError, RecursionError):
            raise BadRequest("the message must be JSON") from None
        if not isinstance(values, dict):
            raise BadRequest('the message must be a JSON object such as {"status": 503, "timeout": 5}')
        return cls.of(values)


def _text(value: object) -> str:
    """A number in JSON is as good as its digits in a query."""
    return str(value) if isinstance(value, (str, int, float)) else ""
