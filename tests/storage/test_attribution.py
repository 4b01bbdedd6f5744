"""Nothing but the endpoint's own doing feeds a circuit: no sign-in, no full pool, no bad setting."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import aiohttp
import pytest
from azure.core.credentials import AccessToken
from azure.core.exceptions import (
    AzureError,
    ClientAuthenticationError,
    HttpResponseError,
    ServiceRequestError,
    ServiceResponseError,
)
from azure.core.pipeline.policies import SansIOHTTPPolicy
from azure.core.pipeline.transport import AioHttpTransport, RequestsTransport
from azure.identity import EnvironmentCredential
from azure.identity.aio import EnvironmentCredential as AsyncEnvironmentCredential

from failover.breaker import Policy, State
from failover.standin import StandIn
from failover.storage import AsyncGeoFailover, GeoFailover, Retry
from tests.never_worse.world import Fault
from tests.servers import make_certificate
from tests.storage.account import HELLO, delay, spoil, store
from tests.storage.both_kinds import (
    both_kinds,
    close,
    connect_options,
    geo_failover,
    read,
    retry,
    run,
    run_in_thread,
    service,
)
from tests.storage.clients import connect
from tests.storage.raw_server import Answer, Asked, Pair, RawServer, ranged
from tests.storage.virtual import FOREVER, KINDS, OLD, Lab, P


class Blamed(list[str]):
    """A listener: the failures that some circuit was told of."""

    def __call__(self, event: Any) -> None:
        if isinstance(event, Retry):
            self.append(f"{event.endpoint}: {event.error}")


@pytest.fixture
def blamed() -> Blamed:
    return Blamed()


# Signing in


class SignIn:
    """A credential whose sign-in takes `seconds`, and fails as often as there are `failures`."""

    def __init__(self, seconds: float, *failures: Exception) -> None:
        self._seconds = seconds
        self._failures: Iterator[Exception] = iter(failures)
        self.count = 0

    def get_token(self, *scopes: str, **options: Any) -> Any:
        time.sleep(self._seconds)  # virtual in a Lab
        return self._token()

    def _token(self) -> AccessToken:
        self.count += 1
        error = next(self._failures, None)
        if error is not None:
            raise error
        return AccessToken("token", 4_000_000_000)


class AsyncSignIn(SignIn):
    """The same for clients of event loops."""

    async def get_token(self, *scopes: str, **options: Any) -> Any:
        await asyncio.sleep(self._seconds)
        return self._token()

    async def __aexit__(self, *about: object) -> None:
        """The client closes its credential."""


def sign_in(kind: str, seconds: float, *failures: Exception) -> SignIn:
    return (AsyncSignIn if kind == "aio" else SignIn)(seconds, *failures)


@pytest.mark.parametrize(("seconds", "settings"), [(3.0, {"attempt_timeout": 0.5}), (25.0, {})])
@pytest.mark.parametrize("kind", KINDS)
def test_a_slow_sign_in_is_waited_for(kind: str, seconds: float, settings: dict[str, Any], blamed: Blamed) -> None:
    with Lab(kind, credential=sign_in(kind, seconds), listeners=[blamed], **settings) as lab:
        assert lab.read("old") == OLD

        assert lab.clock.now < seconds + 1
        assert (lab.trail, blamed) == ("P", [])


@pytest.mark.parametrize(
    "error",
    [
        ClientAuthenticationError("expired"),
        AzureError("no token"),
        ServiceRequestError("no way to the identity provider"),
        ServiceResponseError("the identity provider hung up"),
        HttpResponseError("503"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("kind", KINDS)
def test_a_sign_in_that_fails_once_is_tried_again(kind: str, error: Exception, blamed: Blamed) -> None:
    def play(**settings: Any) -> float:
        credential = sign_in(kind, 0.1, error)
        with Lab(kind, credential=credential, **settings) as lab:
            assert lab.read("old") == OLD
            assert credential.count == 2
            assert lab.trail == "P"
            return float(lab.clock.now)

    own = "aio" if kind == "aio" else "sync"
    bare = play(bare=True, random_jitter_range=0)
    ours = play(listeners=[blamed], retry=retry(own, "ExponentialRetry", random_jitter_range=0))
    assert ours == pytest.approx(bare, abs=0.1)
    assert blamed == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_sign_in_that_always_fails_raises_what_it_raises(kind: str, blamed: Blamed) -> None:
    error = ClientAuthenticationError("expired")
    with Lab(kind, credential=sign_in(kind, 0.1, *[error] * 100), listeners=[blamed]) as lab:
        assert lab.try_to_read("old") is error
        assert (lab.trail, blamed) == ("", [])


@pytest.mark.parametrize("kind", KINDS)
def test_an_outage_is_survived_with_a_slow_sign_in(kind: str, blamed: Blamed) -> None:
    outage = Fault(0.0, FOREVER, P, "503")
    with Lab(kind, outage, credential=sign_in(kind, 3.0), listeners=[blamed], attempt_timeout=0.5) as lab:
        assert lab.read("old") == OLD
        assert lab.trail == "PPS"
        assert blamed == ["primary: 503 ServerBusy"] * 2


@both_kinds
async def test_a_real_credential_that_cannot_sign_in(
    client_kind: str, blamed: Blamed, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AZURE_CLIENT_ID", "AZURE_CLIENT_SECRET", "AZURE_TENANT_ID", "AZURE_USERNAME"):
        monkeypatch.delenv(name, raising=False)
    credential: Any = AsyncEnvironmentCredential() if client_kind == "aio" else EnvironmentCredential()
    policy = geo_failover(client_kind, listeners=[blamed])
    client = service(client_kind, "https://mine.blob.core.windows.net", credential=credential, retry_policy=policy)
    with pytest.raises(ClientAuthenticationError, match="EnvironmentCredential"):
        await read(client, retry_total=0)
    await close(client)
    assert blamed == []


@both_kinds
async def test_a_slow_sign_in_over_https_in_real_time(client_kind: str, blamed: Blamed, tmp_path: Path) -> None:
    """Longer than several attempts may take."""
    certificate, key = make_certificate(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate, key)
    signing = sign_in(client_kind, 0.7)
    with RawServer(lambda asked: ranged(HELLO, asked), tls=tls) as server:
        client = service(
            client_kind,
            server.url,
            credential=signing,
            retry_policy=geo_failover(client_kind, listeners=[blamed], attempt_timeout=0.1),
            secondary_hostname="127.0.0.1:1/devstoreaccount1-secondary",
            connection_verify=str(certificate),
        )
        assert await read(client) == HELLO
        await close(client)
    assert signing.count == 1
    assert blamed == []


# Waiting for a free connection of the client's own


@pytest.mark.parametrize("policy", [None, Policy(timeout=0.3)], ids=["time-out of an attempt", "time-out of a call"])
def test_waiting_for_a_free_connection_counts_neither_way(standin: StandIn, blamed: Blamed, policy: Any) -> None:
    """16 reads over 2 connections: the last ones wait for longer than an attempt may take."""
    store(standin)
    spoil(standin, delay(0.1))

    async def read_all() -> list[bytes]:
        session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=2))
        geo = AsyncGeoFailover(policy=policy, attempt_timeout=0.4, listeners=[blamed], retry=None)
        options = {**connect_options(standin), "transport": AioHttpTransport(session=session)}
        client = service("aio", standin.primary_url, retry_policy=geo, **options)
        contents = await asyncio.gather(*(read(client) for _ in range(16)))
        await close(client)
        assert geo.primary.state is State.CLOSED
        return contents

    assert asyncio.run(read_all()) == [HELLO] * 16
    assert blamed == []
    assert {hit.endpoint for hit in standin.hits} == {"primary"}


# Connections that went stale in the pool


class Stale:
    """Answers; but who comes over a connection that is older than `turn` is cut off without an answer."""

    def __init__(self) -> None:
        self._old: set[threading.Thread] = set()
        self._seen: set[threading.Thread] = set()

    def turn(self) -> None:
        self._old |= self._seen

    def __call__(self, asked: Asked) -> Answer:
        connection = threading.current_thread()  # each has a thread of its own
        self._seen.add(connection)
        return Answer("", then="reset") if connection in self._old else ranged(HELLO, asked)


AT_ONCE: Final = 8


@pytest.mark.parametrize("by_proxy", [False, True])
def test_connections_that_went_stale_are_no_outage_to_threads(by_proxy: bool, blamed: Blamed) -> None:
    stale = Stale()
    with RawServer(stale) as first, RawServer(lambda asked: ranged(HELLO, asked)) as second:
        policy = geo_failover("sync", listeners=[blamed], retry=None)
        options = connect_options(Pair(first, second)) | {"retry_policy": policy}
        if by_proxy:  # the server is one, for an endpoint that only it knows
            proxy = first.url.removesuffix(first.path)
            client = service("sync", "http://primary.test/devstoreaccount1", proxies={"http": proxy}, **options)
        else:
            client = service("sync", first.url, **options)
        barrier = threading.Barrier(AT_ONCE)

        def read_once() -> bytes:
            barrier.wait()
            return run_in_thread(read(client))

        with ThreadPoolExecutor(AT_ONCE) as threads:
            for _ in range(5):
                for future in [threads.submit(read_once) for _ in range(AT_ONCE)]:
                    assert future.result() == HELLO
                stale.turn()
        assert blamed == []
        assert second.asked == []
        assert len(first.asked) > 5 * AT_ONCE, "some were cut off"


def test_connections_that_went_stale_are_no_outage_to_tasks(blamed: Blamed) -> None:
    async def read_all() -> None:
        policy = geo_failover("aio", listeners=[blamed], retry=None)
        client = service("aio", first.url, retry_policy=policy, **connect_options(Pair(first, second)))
        for _ in range(5):
            assert await asyncio.gather(*(read(client) for _ in range(AT_ONCE))) == [HELLO] * AT_ONCE
            stale.turn()
        await close(client)

    stale = Stale()
    with RawServer(stale) as first, RawServer(lambda asked: ranged(HELLO, asked)) as second:
        asyncio.run(read_all())
        assert blamed == []
        assert second.asked == []
        assert len(first.asked) > 5 * AT_ONCE, "some were cut off"


@both_kinds
async def test_a_connection_that_is_reset_again_was_the_endpoints_doing(client_kind: str, blamed: Blamed) -> None:
    def reset(_asked: Asked) -> Answer:
        return Answer("", then="reset")

    path = "/devstoreaccount1-secondary"
    with RawServer(reset) as first, RawServer(lambda asked: ranged(HELLO, asked), path=path) as second:
        policy = geo_failover(client_kind, listeners=[blamed], primary_attempts=1)
        client = service(client_kind, first.url, retry_policy=policy, **connect_options(Pair(first, second)))
        assert await read(client) == HELLO
        await close(client)
        assert blamed == ["primary: connection reset"] * 2


# A client that is closed while its reads are under way


class _Closed(RequestsTransport):  # type: ignore[misc]  # azure-core loads it lazily, as Any
    """Is closed by another thread, as soon as it has a request."""

    def send(self, *_args: Any, **_options: Any) -> Any:
        self.open()
        self.close()
        raise ServiceRequestError("closed")


class _AsyncClosed(AioHttpTransport):  # type: ignore[misc]  # as above
    async def send(self, *_args: Any, **_options: Any) -> Any:
        await self.open()
        await self.close()
        raise ServiceRequestError("Connector is closed.")  # as aiohttp says then to who waits for a connection


@both_kinds
async def test_a_client_that_is_closed_blames_nobody(client_kind: str, standin: StandIn, blamed: Blamed) -> None:
    transport = _AsyncClosed() if client_kind == "aio" else _Closed()
    policy = geo_failover(client_kind, listeners=[blamed], retry=None)
    options = connect_options(standin) | {"retry_policy": policy, "transport": transport}
    client = service(client_kind, standin.primary_url, **options)
    with pytest.raises(ServiceRequestError):
        await read(client)
    assert blamed == []


# Settings of the client's own that nobody can use


# aiohttp takes any scheme for HTTP's.
PROXIES: Final = [
    ("sync", "socks5://127.0.0.1:1"),  # without PySocks
    ("sync", "http://"),
    ("sync", "gopher://127.0.0.1:1"),
    ("aio", "http://"),
]


@pytest.mark.parametrize(("kind", "proxy"), PROXIES)
@pytest.mark.parametrize("how", ["argument", "environment"])
def test_a_proxy_that_nobody_can_use_is_no_endpoints_fault(
    kind: str, proxy: str, how: str, standin: StandIn, blamed: Blamed, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(standin)
    for name in ("no_proxy", "NO_PROXY", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    options: dict[str, Any] = connect_options(standin)
    if how == "environment":
        monkeypatch.setenv("http_proxy", proxy)
    else:
        options["proxies"] = {"http": proxy}

    async def failure(policy: Any) -> Any:
        client = service(kind, standin.primary_url, retry_policy=policy, **options)
        try:
            return await read(client, retry_total=0)
        except Exception as error:
            return error
        finally:
            await close(client)

    bare = run(kind, failure(retry(kind, "ExponentialRetry")))
    ours = run(kind, failure(geo_failover(kind, listeners=[blamed])))
    assert (type(ours), str(ours)) == (type(bare), str(bare))
    assert blamed == []


@pytest.mark.parametrize("url", ["gopher://127.0.0.1/account", "http://127.0.0.1:99999/account"])
@both_kinds
async def test_an_endpoint_that_nobody_can_use_is_told_as_the_sdk_tells_it(
    client_kind: str, url: str, blamed: Blamed
) -> None:
    async def failure(policy: Any) -> Exception | bytes:
        client = service(client_kind, "https://account.blob.core.windows.net", retry_policy=policy, credential=None)
        try:
            return await read(client, retry_total=0, raw_request_hook=lambda request: redirect(request, url))
        except Exception as error:
            return error
        finally:
            await close(client)

    def redirect(request: Any, url: str) -> None:
        request.http_request.url = url

    bare = await failure(retry(client_kind, "ExponentialRetry"))
    ours = await failure(geo_failover(client_kind, listeners=[blamed]))
    assert type(ours) is type(bare)
    assert blamed == []


class _MakesSubClients(SansIOHTTPPolicy[Any, Any]):
    """Makes a sub-client while a request is on its way to the transport, as another thread or task may."""

    service: Any = None
    reads = fails = busy = False

    def on_request(self, request: Any) -> None:
        if self.service is None or self.busy:
            return
        self.service.get_blob_client("demo", "another")
        if self.reads:
            self.busy = True
            with suppress(AzureError):
                self.service.get_blob_client("demo", "another").exists()
            self.busy = False
        if self.fails:
            raise ServiceRequestError("no sign-in")


@pytest.mark.parametrize("another_reads", [False, True])
def test_a_sub_client_made_meanwhile_costs_a_read_nothing(standin: StandIn, another_reads: bool) -> None:
    """It takes away the probe that tells the endpoint's doing from that of others; another read puts it back."""
    store(standin)
    policy, makes = GeoFailover(retry=None), _MakesSubClients()
    service = connect(standin, policy, _additional_pipeline_policies=[makes])
    blob = service.get_blob_client("demo", "HelloWorld")
    makes.service, makes.reads = service, another_reads
    standin.lose_primary()

    for _ in range(10):
        assert blob.download_blob().readall() == HELLO


def test_a_sign_in_that_fails_while_a_sub_client_is_made_is_nobodys_failure(standin: StandIn) -> None:
    store(standin)
    policy, makes = GeoFailover(retry=None), _MakesSubClients()
    service = connect(standin, policy, _additional_pipeline_policies=[makes])
    blob = service.get_blob_client("demo", "HelloWorld")
    makes.service, makes.fails = service, True

    for _ in range(8):
        with pytest.raises(AzureError):
            blob.download_blob()

    assert policy.primary.snapshot()["failures"] == policy.secondary.snapshot()["failures"] == 0
