"""A client of an account in memory, whose time is virtual: what waits for minutes is over at once."""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from azure.core.configuration import ConnectionConfiguration

from failover.breaker import CircuitBreaker
from tests.never_worse.clock import LoopClock, ThreadClock, virtual_sleep
from tests.never_worse.transports import AsyncOwnTransport, OwnTransport, sdk_transport
from tests.never_worse.world import PRIMARY, SECONDARY, Fault, World
from tests.storage.both_kinds import each, geo_failover, read, result, retry, run_in_thread, service

KINDS: Final = ("sync", "sdk", "aio")
"""Threads over a transport of a user's own, threads over the SDK's, tasks over a transport of a user's own."""
URL: Final = "https://account.blob.core.windows.net"
HOSTS: Final = types.MappingProxyType(
    {"account.blob.core.windows.net": PRIMARY, "account-secondary.blob.core.windows.net": SECONDARY}
)
OLD: Final = b"held by both endpoints"
FRESH: Final = b"held by the primary alone"
FOREVER: Final = 1e9

_KEY: Final = types.MappingProxyType({"account_name": "account", "account_key": "a2V5"})  # of nobody

P: Final = frozenset({PRIMARY})
S: Final = frozenset({SECONDARY})
BOTH: Final = P | S


class Lab:
    """An account and a client of it. Blob `old` is held by both endpoints, `fresh` by the primary alone.

    Args:
        kind: One of `KINDS`.
        faults: What goes wrong, and when.
        bare: The SDK's own retry policy and nothing else; it then is what `settings` are for.
        circuits: For `GeoFailover`.
        url: Of the client.
        hosts: Which endpoint is at which host.
        timeouts: Seconds that the client is made with, for a connection and without a byte; None: the SDK's own.
        credential: Of the client.
        blobs: Further ones, held by both endpoints.
        make_transport: Takes a world, its clock and the number of a node; None: that of the kind.
        seed: Of what is left to luck.
        settings: Of `GeoFailover`.
    """

    def __init__(
        self,
        kind: str,
        *faults: Fault,
        bare: bool = False,
        circuits: tuple[CircuitBreaker, ...] = (),
        blobs: Mapping[str, bytes] = types.MappingProxyType({}),
        seed: int = 0,
        url: str = URL,
        hosts: Mapping[str, str] = HOSTS,
        timeouts: tuple[float, float] | None = None,
        credential: Any = _KEY,
        make_transport: Callable[..., Any] | None = None,
        **settings: Any,
    ) -> None:
        self.kind = "aio" if kind == "aio" else "sync"
        self.world = World(seed, faults, FOREVER / 2, hosts)
        for name, data in {"old": OLD, **blobs}.items():
            self.world.put(name, data, -FOREVER)
        self.world.put("fresh", FRESH, 0.0)
        self.clock: Any = LoopClock() if kind == "aio" else ThreadClock()
        transports: Mapping[str, Any] = {"sync": OwnTransport, "sdk": sdk_transport, "aio": AsyncOwnTransport}
        if bare:
            self.policy = retry(self.kind, "ExponentialRetry", **settings)
        else:
            self.policy = geo_failover(self.kind, *circuits, clock=self.clock, **settings)
        transport = (make_transport or transports[kind])(self.world, self.clock, 0)
        if timeouts is not None:
            connect, silence = timeouts
            transport.connection_config = ConnectionConfiguration(connection_timeout=connect, read_timeout=silence)
        self.service = service(
            self.kind,
            url,
            credential=dict(credential) if credential is _KEY else credential,
            transport=transport,
            retry_policy=self.policy,
        )

    def __enter__(self) -> Lab:
        self._patch = virtual_sleep()
        self._patch.__enter__()
        return self

    def __exit__(self, *about: Any) -> None:
        self.run(result(self.service.close()))
        if self.kind == "aio":
            self.clock.close()
        self._patch.__exit__(*about)

    def run(self, steps: Coroutine[Any, Any, Any]) -> Any:
        """What a coroutine returns that is written for both kinds."""
        if self.kind == "aio":
            return self.clock.run(steps)
        return self.clock.run(lambda: run_in_thread(steps))

    def read(self, name: str, **options: Any) -> bytes:
        """A blob's content."""
        content: bytes = self.run(read(self.service, name, **options))
        return content

    def try_to_read(self, name: str, **options: Any) -> Exception | None:
        """What a read raises, if anything."""
        try:
            self.read(name, **options)
        except Exception as error:
            return error
        return None

    def write(self, name: str = "new", data: bytes = b"data", **options: Any) -> None:
        """Upload a blob."""

        async def write() -> None:
            await result(self.service.get_blob_client("demo", name).upload_blob(data, overwrite=True, **options))

        self.run(write())

    def names(self, **options: Any) -> list[str]:
        """The names of all blobs, as they are listed."""

        async def names() -> list[str]:
            container = self.service.get_container_client("demo")
            return [blob.name async for blob in each(container.list_blobs(**options))]

        listed: list[str] = self.run(names())
        return listed

    @property
    def trail(self) -> str:
        """The requests so far: P for one at the primary, S for the secondary."""
        return "".join(entry.endpoint[0].upper() for entry in self.world.trace)

    @property
    def times(self) -> list[float]:
        """When the requests so far were sent, in seconds."""
        return [entry.at for entry in self.world.trace]

    def forget(self) -> None:
        """Let the trail begin anew."""
        self.world.trace = []
