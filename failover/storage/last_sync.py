"""How far the secondary may be behind: its Last Sync Time, from Get Blob Service Stats.

All writes made before the Last Sync Time are on the secondary; later ones may not be. Both it and the time of the
answer come from the service's clock, so this machine's wall clock does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from azure.core.exceptions import AzureError
from azure.core.rest import HttpRequest

_LAST_SYNC_TIME: Final = re.compile(r"<LastSyncTime>\s*([^<]*?)\s*</LastSyncTime>")

# The parts of a shared access signature in a URL's query: sv, ss, srt, sp, ...
_SAS: Final = re.compile("s(v|s|rt|p|t|e|pr|ip|ig|i|r|dd|es|aoid|uoid|cid|koid|ktid|kt|ke|ks|kv|kdutid|duoid)")


def stats_request(secondary: str, *, like: str, version: str | None) -> HttpRequest:
    """Get Blob Service Stats at the base URL `secondary`, with the SAS that the URL `like` may have.

    `version` is the API version, None: the service's own choice.
    """
    sas = [(name, value) for name, value in parse_qsl(urlsplit(like).query) if _SAS.fullmatch(name)]
    query = urlencode([("restype", "service"), ("comp", "stats"), *sas])
    headers = {"Accept": "application/xml"}
    if version:
        headers["x-ms-version"] = version
    return HttpRequest("GET", f"{secondary}/?{query}", headers=headers)


def staleness(status: int, headers: Mapping[str, str], body: str) -> float:
    """The age of the Last Sync Time in seconds, from 0; inf where the service has never synchronised.

    Raises `AzureError` where the answer does not tell it.
    """
    match = _LAST_SYNC_TIME.search(body)
    if status != 200 or match is None:
        raise AzureError(f"The secondary answered {status} when asked for its Last Sync Time.")
    if not match[1]:
        return float("inf")
    try:
        then, now = parsedate_to_datetime(match[1]), parsedate_to_datetime(headers.get("Date") or "")
        return max(0.0, (now - then).total_seconds())
    except (TypeError, ValueError):
        raise AzureError("The secondary's Last Sync Time cannot be read.") from None
