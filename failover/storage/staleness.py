"""How far the secondary lags: its Last Sync Time, and whether a read may use what the secondary answers.

Writes older than the Last Sync Time are on the secondary; later ones may not be. The Last Sync Time and the time of the
answer both come from the service's clock, so this machine's clock does not matter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode, urlsplit

from azure.core.exceptions import AzureError
from azure.core.pipeline import PipelineContext, PipelineRequest
from azure.core.rest import HttpRequest

from failover.storage.attempt import ATTEMPT, Attempt
from failover.storage.causes import failure_cause
from failover.storage.endpoints import Endpoints, blob_address
from failover.storage.runtime import IO

_LAST_SYNC_TIME: Final = re.compile(r"<LastSyncTime>\s*([^<]*?)\s*</LastSyncTime>")
_POLL: Final = 0.01  # seconds between two looks whether another read has the answer
_LOOK_AGAIN: Final = 1.0  # seconds between two questions for the Last Sync Time at least
_SHARE: Final = 0.1  # of the time that reads may wait for an answer: a secondary that hangs is seldom asked

# The parts of a shared access signature in a URL's query: sv, ss, srt, sp, ...
_SAS: Final = re.compile("s(v|s|rt|p|t|e|pr|ip|ig|i|r|dd|es|aoid|uoid|cid|koid|ktid|kt|ke|ks|kv|kdutid|duoid)")


class Seen(tuple[str, Mapping[str, str], Any, Endpoints]):
    """The client's last request, as the model of our own: its URL, headers and transport, and the endpoints.

    The request itself is not kept, because its body may be large.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return "..."  # the URL may hold a SAS


class LastSync:
    """What one policy knows of its secondary's Last Sync Time.

    Args:
        io: Of threads or of event loops.
        limit: Seconds that it may be old; None: any number.
        timeout: Seconds for the question to the secondary, for a connection and without a byte.
        clock: Seconds that only grow.
    """

    proxies: Any = None
    """Those of the client's last request."""

    def __init__(self, io: IO, limit: float | None, timeout: float, clock: Callable[[], float]) -> None:
        self._io = io
        self._limit = limit
        self._timeout = timeout
        self._clock = clock
        self._synced_at = -math.inf  # by our clock: a lower bound of the Last Sync Time
        self.synced_to = -math.inf
        """The Last Sync Time as far as it is known, in seconds since the epoch, by the service's clock."""
        self._look_at = -math.inf
        self._trouble: str | None = None  # what the last question came to
        self._asking = False

    async def ask(self, policy: Any, seen: Seen | None, attempt: Attempt | None = None) -> float:
        """The age of the Last Sync Time in seconds; inf where the secondary has never synchronised.

        Args:
            policy: The rest of the client's pipeline.
            seen: The client's last request; None: there was none.
            attempt: The question takes part in its race; None: it is waited for.

        Raises:
            AzureError: The secondary does not tell, or is not known.
        """
        if seen is None or (secondary := seen[-1].secondary) is None:
            raise AzureError("No secondary endpoint is known yet.")
        like, headers, transport, _ = seen
        request = stats_request(blob_address(secondary), like=like, version=headers.get("x-ms-version"))
        options: dict[str, Any] = {"connection_timeout": self._timeout, "read_timeout": self._timeout}
        if self.proxies:
            options["proxies"] = self.proxies
        asked = self._clock()
        context = PipelineContext(transport, **options)
        if attempt is not None:
            context[ATTEMPT] = attempt
        response = await self._io.send(policy, PipelineRequest(request, context))
        answer = response.http_response
        last_sync, age = _last_sync(answer.status_code, answer.headers, answer.text())
        self._synced_at = max(self._synced_at, asked - age)
        self.synced_to = max(self.synced_to, last_sync)
        return age

    async def refuses(self, policy: Any, seen: Seen | None, attempt: Attempt | None = None) -> str | None:
        """Why a read must not use the secondary's answer; None: it may. Args: see `ask`."""
        limit = self._limit
        if limit is None or self._clock() - self._synced_at <= limit:
            return None
        if self._asking and attempt is not None:
            return "another read is asking for its Last Sync Time"
        await self._look(policy, seen, attempt)
        age = self._clock() - self._synced_at
        if age <= limit:
            return None
        if self._trouble is not None:
            return self._trouble
        old = f"{age:.0f} s old" if math.isfinite(age) else "unknown"
        return f"its Last Sync Time is {old}, and max_staleness is {limit:g} s"

    async def reaches(self, time: float, policy: Any, seen: Seen | None, attempt: Attempt | None = None) -> bool:
        """Whether all writes before `time` (seconds since the epoch, by the service's clock) are on the secondary.

        Other args: see `ask`.
        """
        if self.synced_to < time and not (self._asking and attempt is not None):  # another read is asking
            await self._look(policy, seen, attempt)
        return self.synced_to >= time

    async def _look(self, policy: Any, seen: Seen | None, attempt: Attempt | None = None) -> None:
        """Ask, unless that was done a moment ago."""
        while self._asking and seen is not None:  # another read is: no lock works in threads and in any event loop
            await self._io.sleep(seen[2], _POLL)
        asked = self._clock()
        if asked < self._look_at:
            return
        self._asking, self._trouble = True, None
        try:
            await self.ask(policy, seen, attempt)
        except AzureError as error:
            self._trouble = f"its Last Sync Time cannot be had: {failure_cause(error, self._timeout)}"
        finally:
            self._asking = False
        answered = self._clock()
        self._look_at = answered + max(_LOOK_AGAIN, (answered - asked) / _SHARE)


def stats_request(secondary: str, *, like: str, version: str | None) -> HttpRequest:
    """Get Blob Service Stats at the base URL `secondary`, with the SAS that the URL `like` may have.

    version: the API version; None: the service's own choice.
    """
    headers = {"Accept": "application/xml"}
    if version:
        headers["x-ms-version"] = version
    return HttpRequest("GET", with_sas_of(like, f"{secondary}/?restype=service&comp=stats"), headers=headers)


def with_sas_of(like: str, url: str) -> str:
    """The URL with the SAS that the URL `like` may have."""
    sas = urlencode([(name, value) for name, value in parse_qsl(urlsplit(like).query) if _SAS.fullmatch(name)])
    return f"{url}{'&' if '?' in url else '?'}{sas}" if sas else url


def staleness(status: int, headers: Mapping[str, str], body: str) -> float:
    """The age of the Last Sync Time in seconds, from 0; inf where the service has never synchronised.

    Raises:
        AzureError: The answer does not tell it.
    """
    return _last_sync(status, headers, body)[1]


def _last_sync(status: int, headers: Mapping[str, str], body: str) -> tuple[float, float]:
    """The Last Sync Time in seconds since the epoch, and its age."""
    match = _LAST_SYNC_TIME.search(body)
    if status != 200 or match is None:
        raise AzureError(f"The secondary answered {status} when asked for its Last Sync Time.")
    if not match[1]:
        return -math.inf, math.inf
    try:
        then, now = parsedate_to_datetime(match[1]), parsedate_to_datetime(headers.get("Date") or "")
        return then.timestamp(), max(0.0, (now - then).total_seconds())
    except (TypeError, ValueError):
        raise AzureError("The secondary's Last Sync Time cannot be read.") from None
