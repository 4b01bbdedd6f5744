"""The stand-in account: its two endpoints, and how a test or a fault stops and restarts them."""

from __future__ import annotations

import base64
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import NamedTuple

from failover.standin.blobs import Contents
from failover.standin.server import HOST, Exchange, Port
from failover.standin.service import ACCOUNT, Endpoint, Request, answer

_HITS_KEPT = 10_000


class Hit(NamedTuple):
    """A request to this account that arrived whole, and the status of its answer.

    `path` is `/container/blob`, without the account's name and without the query, which may contain a SAS.
    """

    endpoint: Endpoint
    method: str
    path: str
    status: int


class StandIn:
    """An RA-GRS account named `devstoreaccount1`, on two ports of 127.0.0.1 that are open until `close()`.

    The secondary shows the account as it was `replication_lag` seconds ago, refuses writes and reports its Last
    Sync Time. While the primary is lost nothing reaches the secondary and that time stands still.

    Signatures are NOT verified: a request needs an Authorization header or a SAS, whatever it says. What is stored is
    kept in memory.

    Set `interfere` to a callable that takes an `Exchange`, to change answers before they are sent. It runs in the
    threads of the requests, and so possibly in several at once. It may lose an endpoint.

    Args:
        replication_lag: Seconds until a write reaches the secondary, at least 0 (0: at once).
        sku: What Get Account Information answers as the account's kind.
        clock: A monotonic clock, in seconds, by which the lag is measured.
        wall_clock: Seconds since the epoch, for every date in an answer and for the Last Sync Time.

    Raises:
        ValueError: `replication_lag` is negative or not finite.
        OSError: No port of 127.0.0.1 is free.
    """

    def __init__(
        self,
        replication_lag: float = 1.0,
        *,
        sku: str = "Standard_RAGRS",
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self.account_name = ACCOUNT
        self.account_key = base64.b64encode(secrets.token_bytes(64)).decode()
        self.interfere: Callable[[Exchange], None] | None = None
        self._contents = Contents(replication_lag, clock=clock, wall_clock=wall_clock)
        self._sku = sku
        self._wall_clock = wall_clock
        self._hits: deque[Hit] = deque(maxlen=_HITS_KEPT)
        self._hits_lock = threading.Lock()
        self._primary = Port("primary", ACCOUNT, self._exchange)
        try:
            self._secondary = Port("secondary", f"{ACCOUNT}-secondary", self._exchange)
        except OSError:
            self._primary.close()
            raise

    @property
    def primary_url(self) -> str:
        """The URL of the primary. It stays the same when the primary is lost and restored."""
        return f"http://{HOST}:{self._primary.number}/{ACCOUNT}"

    @property
    def secondary_url(self) -> str:
        """The URL of the secondary. Its path ends in `-secondary`, as Azurite's does."""
        return f"http://{HOST}:{self._secondary.number}/{ACCOUNT}-secondary"

    @property
    def connection_string(self) -> str:
        """A connection string with both endpoints and with the account's key: not for any log."""
        return (
            f"DefaultEndpointsProtocol=http;AccountName={self.account_name};AccountKey={self.account_key};"
            f"BlobEndpoint={self.primary_url};BlobSecondaryEndpoint={self.secondary_url};"
        )

    @property
    def hits(self) -> list[Hit]:
        """The last 10,000 requests, oldest first. A request is added before its answer is sent."""
        with self._hits_lock:
            return list(self._hits)

    def lose_primary(self) -> None:
        """Refuse connections to the primary, break those that are open, halt replication. Idempotent."""
        self._primary.shut()
        self._contents.halt_replication()

    def restore_primary(self) -> None:
        """Open the primary's port again, with all that was stored. No effect on a primary that was not lost."""
        self._contents.resume_replication()
        self._primary.open()

    def lose_secondary(self) -> None:
        """Refuse connections to the secondary, and break those that are open. Idempotent."""
        self._secondary.shut()

    def restore_secondary(self) -> None:
        """Open the secondary's port again. No effect on a secondary that was not lost."""
        self._secondary.open()

    def close(self) -> None:
        """Close both ports and end every thread, for good. Idempotent."""
        self._primary.close()
        self._secondary.close()

    def __enter__(self) -> StandIn:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<StandIn {self.primary_url} {self.secondary_url}>"

    def _exchange(self, request: Request) -> Exchange:
        exchange = Exchange(request, answer(request, self._contents, sku=self._sku, now=self._wall_clock()))
        if self.interfere is not None:
            self.interfere(exchange)
        with self._hits_lock:
            self._hits.append(Hit(request.endpoint, request.method, request.path, exchange.reply.status))
        return exchange
