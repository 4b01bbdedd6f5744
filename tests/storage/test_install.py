"""`install`: each client made from now on has failover, one pair of circuits per account; `uninstall` undoes it all."""

from __future__ import annotations

import functools
import gc
import logging
import threading
import warnings
from collections.abc import Iterator
from typing import Any, Final

import pytest
import requests
from azure.core.credentials import AzureNamedKeyCredential
from azure.data import tables
from azure.data.tables import aio as tables_aio
from azure.storage import blob, filedatalake, queue
from azure.storage.blob import aio as blob_aio
from azure.storage.filedatalake import aio as filedatalake_aio
from azure.storage.queue import aio as queue_aio

from failover.breaker import ConsecutiveFailures, Cooldown, Policy, State, Transition
from failover.standin import StandIn
from failover.storage import AsyncGeoFailover, GeoFailover, _sdk, install, protect, uninstall
from failover.storage.hedging import FREE
from tests.clock import Clock
from tests.storage.account import HELLO, Trail, delay, spoil, status, store
from tests.storage.both_kinds import (
    at_once,
    both_kinds,
    close,
    connect_options,
    geo_failover,
    read,
    result,
    service,
)
from tests.storage.data_lake import DFS, KEY, data_lake
from tests.storage.data_lake import transport as routed

QUICK: Final = Policy(trip=ConsecutiveFailures(2), recovery=Cooldown(1000.0))


def init_methods() -> dict[Any, Any]:
    """What stands in the SDK's base classes as `__init__`."""
    clients = (
        blob.BlobServiceClient,
        queue.QueueClient,
        filedatalake.FileSystemClient,
        tables.TableClient,
        blob_aio.BlobClient,
        queue_aio.QueueServiceClient,
        filedatalake_aio.DataLakeFileClient,
        tables_aio.TableServiceClient,
    )
    return {base: vars(base).get("__init__") for client in clients for base in client.__mro__}


@pytest.fixture(autouse=True)
def _without_a_trace() -> Iterator[None]:
    before = init_methods()
    yield
    uninstall()
    after = init_methods()
    assert all(after[base] is before[base] for base in before)


def connect(kind: str, account: StandIn, **options: Any) -> Any:
    return service(kind, account.primary_url, **{**connect_options(account), **options})


def installed(account: StandIn, **settings: Any) -> None:
    install(policy=QUICK, secondary_endpoint=account.secondary_url, **settings)


def policy_of(client: Any) -> Any:
    """The policy of a client; None: it has none."""
    place = _sdk.retry_places(client)[0]
    return place.retry if isinstance(place.retry, (GeoFailover, AsyncGeoFailover)) else place.replacement


@both_kinds
async def test_clients_made_from_now_on(client_kind: str, standin: StandIn) -> None:
    store(standin)
    installed(standin)
    client = connect(client_kind, standin)
    spoil(standin, status(503))
    trail = Trail(standin)
    assert await read(client) == HELLO
    assert await read(client) == HELLO
    assert trail.look() == "PPSS"
    await close(client)


@both_kinds
async def test_clients_share_a_session(client_kind: str) -> None:
    clock = Clock()
    with StandIn(60.0, clock=clock, wall_clock=clock) as account:
        store(account)
        clock.advance(61.0)
        installed(account, consistency="session", prefer="secondary")
        writer = connect(client_kind, account)
        await result(writer.get_blob_client("demo", "HelloWorld").upload_blob(b"new", overwrite=True))
        await close(writer)
        for kind in (client_kind, "sync"):
            reader = connect(kind, account)
            assert await read(reader) == b"new"
            await close(reader)


@both_kinds
async def test_clients_share_a_budget(client_kind: str, standin: StandIn) -> None:
    store(standin)
    installed(standin, hedge_after=0.01)
    spoil(standin, delay(0.3))
    trail = Trail(standin)
    for _ in range(FREE + 2):
        client = connect(client_kind, standin)
        assert await read(client) == HELLO
        await close(client)
    assert trail.look().count("S") == FREE


MADE: Final[dict[str, tuple[Any, Any, str, tuple[str, ...]]]] = {
    "blob service": (blob, blob_aio, "BlobServiceClient", ()),
    "container": (blob, blob_aio, "ContainerClient", ("c",)),
    "blob": (blob, blob_aio, "BlobClient", ("c", "b")),
    "queue service": (queue, queue_aio, "QueueServiceClient", ()),
    "queue": (queue, queue_aio, "QueueClient", ("q",)),
    "data lake": (filedatalake, filedatalake_aio, "DataLakeServiceClient", ()),
    "file system": (filedatalake, filedatalake_aio, "FileSystemClient", ("fs",)),
    "directory": (filedatalake, filedatalake_aio, "DataLakeDirectoryClient", ("fs", "d")),
    "file": (filedatalake, filedatalake_aio, "DataLakeFileClient", ("fs", "f")),
    "table service": (tables, tables_aio, "TableServiceClient", ()),
    "table": (tables, tables_aio, "TableClient", ("t",)),
}


@pytest.mark.parametrize("name", MADE)
@both_kinds
async def test_every_class_of_client(client_kind: str, name: str) -> None:
    package, package_aio, maker, args = MADE[name]
    host = {"azure.storage.filedatalake": "dfs", "azure.data.tables": "table"}.get(package.__name__)
    url = f"https://mine.{host or package.__name__.rpartition('.')[2]}.core.windows.net"
    key: Any = AzureNamedKeyCredential("mine", KEY)
    make = functools.partial(
        getattr(package_aio if client_kind == "aio" else package, maker), url, *args, credential=key
    )
    bare = make()
    install()
    client = make()
    assert type(policy_of(client)) is type(geo_failover(client_kind))
    assert all(place.retry is not None and policy_of(client) is not None for place in _sdk.retry_places(client))
    assert policy_of(bare) is None
    uninstall()
    after = make()
    assert policy_of(after) is None
    for each in (bare, client, after):
        await close(each)


@both_kinds
async def test_one_pair_of_circuits_per_account(client_kind: str, standin: StandIn) -> None:
    store(standin)
    installed(standin)
    trail = Trail(standin)
    spoil(standin, status(503))
    # One after the other, as a program does that makes a client for each request; by both kinds of client.
    for other in (client_kind, client_kind, "sync"):
        if other == "sync" and client_kind == "aio":
            with connect("sync", standin) as client:
                assert client.get_blob_client("demo", "HelloWorld").download_blob().readall() == HELLO
            continue
        client = connect(other, standin)
        assert await read(client) == HELLO
        await close(client)
        del client
        gc.collect()
    assert trail.look() == "PPSSS"

    with StandIn(0.0) as second:
        store(second)
        client = connect(client_kind, second)
        trail = Trail(second)
        assert await read(client) == HELLO
        assert trail.look() == "P", "another account's circuits are its own"
        await close(client)


@both_kinds
async def test_data_lake_shares_the_circuits_of_blobs(client_kind: str) -> None:
    with data_lake({"a": b"content"}) as lake:
        install(policy=QUICK)
        package: Any = filedatalake_aio if client_kind == "aio" else filedatalake
        client = package.DataLakeServiceClient(DFS, credential=KEY, transport=routed(client_kind, lake))
        lake.primary.lose()
        stream = await result(client.get_file_client("fs", "a").download_file())
        assert await result(stream.readall()) == b"content"
        other = service(
            client_kind, DFS.replace(".dfs.", ".blob."), credential=KEY, transport=routed(client_kind, lake)
        )
        assert policy_of(other).primary is policy_of(client).primary
        assert policy_of(other).primary.state is State.OPEN
        assert policy_of(other).primary.name == "mine.blob.core.windows.net"
        assert policy_of(other).secondary.name == "mine-secondary.blob.core.windows.net"
        await close(other)
        await close(client)


@both_kinds
async def test_a_retry_policy_of_its_own_goes_on_inside(client_kind: str, standin: StandIn) -> None:
    store(standin)
    installed(standin, primary_attempts=1)
    client = connect(client_kind, standin, retry_policy=at_once(client_kind, 2))
    spoil(standin, status(503), times=1, methods=("PUT",))
    await result(client.get_blob_client("demo", "other").upload_blob(b"x", overwrite=True))
    spoil(standin, status(503), at="primary+secondary")
    trail = Trail(standin)
    with pytest.raises(Exception, match="503"):
        await read(client)
    assert trail.look() == "PS" * 3
    await close(client)


@both_kinds
async def test_a_retry_policy_that_many_clients_have(client_kind: str, standin: StandIn) -> None:
    store(standin)
    installed(standin)
    constant = at_once(client_kind, 1)
    with StandIn(0.0) as second:
        store(second, b"second")
        first_client = connect(client_kind, standin, retry_policy=constant)
        second_client = connect(client_kind, second, retry_policy=constant)
        assert await read(first_client) == HELLO
        assert await read(second_client) == b"second"
        assert policy_of(first_client) is not policy_of(second_client)
        await close(first_client)
        await close(second_client)


@both_kinds
async def test_a_client_that_has_failover_is_left_alone(client_kind: str, standin: StandIn) -> None:
    installed(standin)
    own = geo_failover(client_kind)
    client = connect(client_kind, standin, retry_policy=own)
    assert policy_of(client) is own
    await close(client)


@both_kinds
async def test_clients_that_were_there_before(client_kind: str, standin: StandIn) -> None:
    store(standin)
    client = connect(client_kind, standin)
    container = client.get_container_client("demo")
    installed(standin)
    assert policy_of(client) is None
    blob_client = container.get_blob_client("HelloWorld")  # which shares its connections
    standin.lose_primary()
    stream = await result(blob_client.download_blob())
    assert await result(stream.readall()) == HELLO
    assert await read(client) == HELLO
    await close(client)


def test_install_twice_is_once(standin: StandIn) -> None:
    store(standin)
    originals = init_methods()
    installed(standin)
    with connect("sync", standin) as first:
        wrapped = init_methods()
        installed(standin)
        assert init_methods() == wrapped
        with connect("sync", standin) as second:
            assert policy_of(first).primary is policy_of(second).primary
        install(policy=QUICK, attempt_timeout=9.0)
        with connect("sync", standin) as third:
            assert policy_of(first).primary is not policy_of(third).primary
    uninstall()
    uninstall()
    assert init_methods() == originals


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"retry": None}, "retry"),
        ({"primary": 1}, "primary"),
        ({"secondary": 1}, "secondary"),
        ({"nonsense": 1}, "nonsense"),
        ({"attempt_timeout": -1}, "attempt_timeout"),
        ({"policy": 5}, "policy"),
        ({"listeners": 5}, "listeners"),
        ({"secondary_endpoint": "https://a/?sig=SECRET"}, "secondary_endpoint"),
    ],
)
def test_bad_settings_install_nothing(settings: dict[str, Any], named: str) -> None:
    before = init_methods()
    with pytest.raises(ValueError, match=named) as raised:
        install(**settings)
    assert "SECRET" not in str(raised.value)
    assert init_methods() == before


def test_a_client_that_cannot_be_protected_is_made_all_the_same(
    standin: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    install(max_staleness=60.0)
    for _ in range(2):
        client = tables.TableServiceClient(
            "https://mine.table.core.windows.net", credential=AzureNamedKeyCredential("mine", KEY)
        )
        assert policy_of(client) is None
    said = [each.getMessage() for each in caplog.records]
    assert len(said) == 1
    assert "TableServiceClient" in said[0]
    assert "max_staleness" in said[0]
    assert KEY not in said[0]


@both_kinds
async def test_listeners_hear_each_transition_once(client_kind: str, standin: StandIn) -> None:
    store(standin)
    heard: list[Any] = []
    installed(standin, listeners=[heard.append])
    clients = [connect(client_kind, standin) for _ in range(3)]
    spoil(standin, status(503))
    assert await read(clients[0]) == HELLO
    assert [each.new for each in heard if isinstance(each, Transition)] == [State.OPEN]
    for client in clients:
        await close(client)


@both_kinds
async def test_an_account_without_a_known_secondary_is_told_of_once(
    client_kind: str, standin: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    install()
    for _ in range(2):
        client = service(client_kind, "https://files.example.invalid", credential="sv=1&sig=SECRET", retry_total=0)
        with pytest.raises(Exception, match=r"files\.example\.invalid"):
            await read(client)
        await close(client)
    said = [each.getMessage() for each in caplog.records if each.name == "failover.storage"]
    assert len([each for each in said if "No secondary endpoint is known" in each]) == 1
    assert "SECRET" not in caplog.text


def test_many_threads_install_uninstall_and_make_clients(standin: StandIn) -> None:
    store(standin)
    together = threading.Barrier(6)
    wrong: list[BaseException] = []

    def work(number: int) -> None:
        try:
            together.wait()
            for _ in range(30):
                if number == 0:
                    installed(standin)
                elif number == 1:
                    uninstall()
                else:
                    with connect("sync", standin) as client:
                        assert client.get_blob_client("demo", "HelloWorld").download_blob().readall() == HELLO
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert wrong == []


def test_somebody_else_wraps_the_clients_after_us(standin: StandIn) -> None:
    """As another instrumentation may: ours stays within theirs, and is without effect once it is undone."""
    base: Any = next(each for each in blob.BlobServiceClient.__mro__ if each.__name__ == "StorageAccountHostsMixin")
    original = vars(base)["__init__"]
    installed(standin)
    ours = vars(base)["__init__"]

    @functools.wraps(ours)
    def theirs(self: Any, *args: Any, **options: Any) -> None:
        ours(self, *args, **options)

    base.__init__ = theirs
    try:
        uninstall()
        assert vars(base)["__init__"] is theirs
        with connect("sync", standin) as client:
            assert policy_of(client) is None
        installed(standin)
        with connect("sync", standin) as client:
            assert policy_of(client) is not None
    finally:
        base.__init__ = ours
    uninstall()
    assert vars(base)["__init__"] is original


class Played:
    """A recorded body, as vcrpy plays it: much like urllib3's, and not the same."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def read1(self, *sizes: int) -> bytes:
        raise AssertionError("this is no body of urllib3's")

    def stream(self, amt: int = 65536, decode_content: bool | None = None) -> Iterator[bytes]:
        yield from self._raw.stream(amt, decode_content=decode_content)


def wrap_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """As OpenTelemetry's instrumentation of requests does."""
    send = requests.Session.send

    @functools.wraps(send)
    def traced(self: Any, request: Any, **options: Any) -> Any:
        request.headers["traceparent"] = "00-0-0-00"
        return send(self, request, **options)

    monkeypatch.setattr(requests.Session, "send", traced)


def replace_adapter(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `responses` does, and with bodies like those of vcrpy."""
    send = requests.adapters.HTTPAdapter.send

    def played(self: Any, request: Any, *args: Any, **options: Any) -> Any:
        response = send(self, request, *args, **options)
        response.raw = Played(response.raw)
        return response

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", played)


@pytest.mark.parametrize("patch", [wrap_session, replace_adapter])
@pytest.mark.parametrize("way", ["protect", "install"])
def test_in_a_program_that_patches_requests(
    way: str, patch: Any, standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(standin)
    patch(monkeypatch)
    if way == "install":
        installed(standin)
    with connect("sync", standin) as client:
        if way == "protect":
            protect(client, GeoFailover(policy=QUICK))
        blob_client = client.get_blob_client("demo", "HelloWorld")
        assert blob_client.download_blob().readall() == HELLO
        trail = Trail(standin)
        spoil(standin, status(503))
        assert blob_client.download_blob().readall() == HELLO
        assert trail.look() == "PPS"


def test_nothing_is_warned_of(standin: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    store(standin)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        installed(standin)
        with connect("sync", standin) as client:
            protect(client)
            assert client.get_blob_client("demo", "HelloWorld").download_blob().readall() == HELLO
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []
