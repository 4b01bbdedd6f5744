"""The faults of the Fiddler rule as a transport. They have the same effect on the SDK, without a proxy."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final
from urllib.parse import urlsplit

from azure.core.exceptions import ServiceResponseError, ServiceResponseTimeoutError
from azure.core.pipeline.transport import HttpTransport

SLOW_SHARE: Final = 0.75
"""The share of the time-out that a slow answer takes: over a half, so that it counts as a failure, and below 1."""


_SLICE: Final = 0.2  # seconds


def sleep_in_slices(seconds: float, *, sleep: Callable[[float], None] = time.sleep) -> None:
    """Let `seconds` pass, and signals through: one that comes just before a sleep is handled only when that ends."""
    while seconds > 0:
        sleep(min(seconds, _SLICE))
        seconds -= _SLICE


class Fault(str, Enum):
    """What happens to reads of the blob on the primary; DOWN: to the stand-in's primary as a whole."""

    STATUS_503 = "503"
    TIMEOUT = "timeout"
    RESET = "reset"
    SLOW = "slow"
    DOWN = "down"


class FaultTransport(HttpTransport[Any, Any]):
    """A transport that, while the fault is on, injects it into each GET and HEAD of one blob on the primary.

    STATUS_503 replaces the status of the real answer; TIMEOUT never answers; RESET breaks the connection; SLOW
    answers after three quarters of the read time-out; DOWN takes the stand-in's primary down.

    Args:
        inner: Sends the requests.
        kind: The fault. It may be changed while it is off.
        primary: Base URL of the primary, without a slash at the end.
        blob: Name of the blob, in whichever container.
        timeout: The read time-out, in seconds.
        lose: Takes the primary down; needed for DOWN.
        restore: Brings it back; needed for DOWN.
        sleep: Waits for so many seconds.

    Raises:
        ValueError: DOWN without `lose` and `restore`.
    """

    def __init__(
        self,
        inner: HttpTransport[Any, Any],
        kind: Fault,
        *,
        primary: str,
        blob: str,
        timeout: float,
        lose: Callable[[], None] | None = None,
        restore: Callable[[], None] | None = None,
        sleep: Callable[[float], None] = sleep_in_slices,
    ) -> None:
        if kind is Fault.DOWN and (lose is None or restore is None):
            raise ValueError("kind down needs lose and restore: only the stand-in's primary can be taken down")
        self._inner = inner
        self.kind = kind
        self._base = urlsplit(primary)
        self._blob = blob
        self._timeout = timeout
        self._lose = lose
        self._restore = restore
        self._sleep = sleep
        self._on = False
        self.on_change: Callable[[Fault, bool], None] = lambda _kind, _on: None  # by anybody but `switch`

    @property
    def on(self) -> bool:
        """Whether the fault is switched on."""
        return self._on

    def switch(self, on: bool) -> None:
        """Switch the fault on or off, from any thread."""
        self._on = on
        if self.kind is Fault.DOWN and self._lose is not None and self._restore is not None:
            (self._lose if on else self._restore)()

    def send(self, request: Any, **kwargs: Any) -> Any:
        """Send as `HttpTransport.send` does; raise what the SDK's own transport raises for the fault that is on."""
        kind = self.kind if self._on and self._is_affected(request) else None
        self._fail(kind, kwargs)
        response = self._inner.send(request, **kwargs)
        self._spoil(kind, response)
        return response

    def _fail(self, kind: Fault | None, options: Mapping[str, Any]) -> None:
        """Let the time pass that the fault costs, and raise what it raises."""
        if kind is Fault.TIMEOUT:
            self._sleep(options.get("read_timeout", self._timeout))
            raise ServiceResponseTimeoutError("Read timed out (injected)")
        if kind is Fault.RESET:
            cause = ConnectionResetError("Connection reset by peer (injected)")
            raise ServiceResponseError(cause, error=cause)
        if kind is Fault.SLOW:
            self._sleep(SLOW_SHARE * self._timeout)

    def _spoil(self, kind: Fault | None, response: Any) -> None:
        """Do to an answer what the fault does to it."""
        if kind is Fault.STATUS_503:
            response.status_code, response.reason = 503, "Service Unavailable"

    def _is_affected(self, request: Any) -> bool:
        url = urlsplit(request.url)
        if request.method not in ("GET", "HEAD") or not url.path.startswith(f"{self._base.path}/"):
            return False
        container, _, blob = url.path[len(self._base.path) + 1 :].partition("/")
        here = (url.scheme, url.netloc.lower()) == (self._base.scheme, self._base.netloc.lower())
        return here and bool(container) and blob == self._blob

    def open(self) -> None:
        """Open the inner transport."""
        self._inner.open()

    def close(self) -> None:
        """Close the inner transport."""
        self._inner.close()

    def __enter__(self) -> FaultTransport:
        self._inner.__enter__()
        return self

    def __exit__(self, *about: Any) -> None:
        self._inner.__exit__(*about)
