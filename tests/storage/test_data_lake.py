"""Clients of Data Lake: reads fail over to the secondary's two services, writes stay, with each kind of credential."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest
from azure.core.credentials import AccessToken, AzureSasCredential
from azure.core.exceptions import HttpResponseError
from azure.storage import filedatalake
from azure.storage.filedatalake import aio

from failover.breaker import ConsecutiveFailures, Cooldown, Policy, State
from failover.storage import NotReplicated, protect
from tests.storage.account import MIB
from tests.storage.both_kinds import both_kinds, close, each, geo_failover, result
from tests.storage.data_lake import ACCOUNT, DFS, KEY, DataLake, data_lake, transport

FILES: Final = {"a": b"content of a", "folder/b": b"b", "folder/c": b"c" * (3 * MIB), "folder/d": b"d", "e": b"e"}
QUICK: Final = Policy(trip=ConsecutiveFailures(2), recovery=Cooldown(1000.0))
SAS: Final = "sv=2024-01-01&sig=SECRET"


@pytest.fixture
def lake() -> Iterator[DataLake]:
    with data_lake(FILES) as account:
        yield account


class Token:
    """A credential of Microsoft Entra ID, of either kind."""

    def __init__(self, kind: str) -> None:
        self._kind = kind

    def get_token(self, *_scopes: str, **_options: Any) -> Any:
        token = AccessToken("token", int(time.time()) + 3600)
        if self._kind == "sync":
            return token

        async def later() -> AccessToken:
            return token

        return later()

    async def close(self) -> None:
        pass


CREDENTIALS: Final[dict[str, Callable[[str], Any]]] = {
    "SharedKey": lambda _: {"account_name": ACCOUNT, "account_key": KEY},
    "sas": lambda _: SAS,
    "sas object": lambda _: AzureSasCredential(SAS),
    "Bearer": Token,
    "none": lambda _: None,
}


def connect(kind: str, lake: DataLake, name: str = "DataLakeServiceClient", *args: str, **options: Any) -> Any:
    options.setdefault("credential", CREDENTIALS["SharedKey"](kind))
    package: Any = aio if kind == "aio" else filedatalake
    return getattr(package, name)(DFS, *args, transport=transport(kind, lake), **options)


def quick(kind: str, **settings: Any) -> Any:
    return geo_failover(kind, policy=QUICK, **settings)


async def download(file: Any) -> bytes:
    stream = await result(file.download_file())
    data: bytes = await result(stream.readall())
    return data


async def names(paths: Any) -> list[str]:
    return [path.name async for path in each(paths)]


async def reads(service: Any) -> list[Any]:
    """Each kind of read, by a service client and what it makes."""
    system = service.get_file_system_client("fs")
    file, folder = system.get_file_client("a"), system.get_directory_client("folder")
    return [
        await download(file),
        await download(folder.get_file_client("c")),
        (await result(file.get_file_properties())).size,
        await result(file.exists()),
        (await result(file.get_access_control()))["owner"],
        (await result(folder.get_directory_properties())).name,
        await names(system.get_paths()),
        await names(service.list_file_systems()),
        (await result(system.get_file_system_properties())).etag,
    ]


@pytest.mark.parametrize("credential", CREDENTIALS)
@both_kinds
async def test_every_kind_of_read_fails_over(client_kind: str, credential: str, lake: DataLake) -> None:
    service = connect(client_kind, lake, credential=CREDENTIALS[credential](client_kind))
    wanted = await reads(service)
    assert wanted[0] == FILES["a"]
    assert set(lake.look()) == {"blob P", "dfs P"}
    policy = quick(client_kind)

    assert protect(service, policy) is service

    assert await reads(service) == wanted
    assert set(lake.look()) == {"blob P", "dfs P"}
    lake.primary.lose()
    lake.credentials.clear()
    assert await reads(service) == wanted
    assert set(lake.look()) == {"blob S", "dfs S"}
    assert set(lake.credentials) == {credential.partition(" ")[0]}
    assert policy.primary.state is State.OPEN
    assert policy.secondary.state is State.CLOSED
    await close(service)


LONE: Final[dict[str, tuple[str, ...]]] = {
    "FileSystemClient": ("fs",),
    "DataLakeDirectoryClient": ("fs", "folder"),
    "DataLakeFileClient": ("fs", "a"),
}


@pytest.mark.parametrize("name", LONE)
@both_kinds
async def test_clients_that_no_service_has_made(client_kind: str, name: str, lake: DataLake) -> None:
    client = connect(client_kind, lake, name, *LONE[name])
    protect(client, quick(client_kind))
    lake.primary.lose()

    file = client if name == "DataLakeFileClient" else client.get_file_client("folder/b" if name[0] == "F" else "b")
    assert await download(file) == (FILES["a"] if file is client else b"b")
    assert (await result(file.get_access_control()))["owner"] == "me"
    if name != "DataLakeFileClient":
        assert await names(client.get_paths()) == sorted(FILES)
    assert set(lake.look()) == {"blob S", "dfs S"}
    await close(client)


@both_kinds
async def test_subclients_of_before(client_kind: str, lake: DataLake) -> None:
    service = connect(client_kind, lake)
    system = service.get_file_system_client("fs")
    file = system.get_file_client("a")
    protect(service, quick(client_kind))
    lake.primary.lose()
    assert await download(file) == FILES["a"]
    assert await names(system.get_paths()) == sorted(FILES)
    assert await download(system.get_file_client("a")) == FILES["a"]
    await close(service)


@both_kinds
async def test_the_two_services_of_one_client_share_circuits(client_kind: str, lake: DataLake) -> None:
    service = connect(client_kind, lake)
    policy = quick(client_kind)
    protect(service, policy)
    lake.primary.lose()
    assert await names(service.list_file_systems()) == ["fs"]  # by a pipeline of its own
    lake.look()
    assert policy.primary.state is State.OPEN
    lake.primary.restore()
    assert await names(service.get_file_system_client("fs").get_paths()) == sorted(FILES)
    assert set(lake.look()) == {"dfs S"}
    await close(service)


@both_kinds
async def test_writes_stay_at_the_primary(client_kind: str, lake: DataLake) -> None:
    service = protect(connect(client_kind, lake, retry_total=0), quick(client_kind))
    file = service.get_file_client("fs", "new")

    async def write() -> None:
        await result(file.create_file())
        await result(file.append_data(b"xy", 0))
        await result(file.flush_data(2))
        await result(file.set_metadata({"a": "b"}))

    await write()
    assert set(lake.look()) == {"dfs P", "blob P"}
    lake.broken |= {f"{ACCOUNT}.dfs.core.windows.net", f"{ACCOUNT}.blob.core.windows.net"}
    for call in (file.create_file, file.delete_file, lambda: file.set_metadata({"a": "b"})):
        with pytest.raises(HttpResponseError) as raised:
            await result(call())
        assert raised.value.status_code == 503
    assert set(lake.look()) == {"dfs P", "blob P"}
    await close(service)


@both_kinds
async def test_a_listing_goes_on_where_its_last_page_came_from(client_kind: str, lake: DataLake) -> None:
    """Only the endpoint that has given a token can make sense of it, and the SDK does not say which it was."""
    service = protect(connect(client_kind, lake, retry_total=0), quick(client_kind))
    system = service.get_file_system_client("fs")
    lake.broken.add(f"{ACCOUNT}.dfs.core.windows.net")
    pages = each(system.get_paths().by_page())
    first = [path.name async for path in each(await anext(pages))]
    lake.broken.clear()
    lake.look()
    assert first + [path.name async for page in pages async for path in each(page)] == sorted(FILES)
    assert lake.look() == ["dfs S", "dfs S"]
    await close(service)


@both_kinds
async def test_a_listing_that_the_primary_began_is_the_primarys(client_kind: str, lake: DataLake) -> None:
    service = protect(connect(client_kind, lake, retry_total=0), quick(client_kind))
    pages = each(service.get_file_system_client("fs").get_paths().by_page())
    await anext(pages)
    lake.broken.add(f"{ACCOUNT}.dfs.core.windows.net")
    lake.look()
    with pytest.raises(HttpResponseError) as raised:
        await anext(pages)
    assert raised.value.status_code == 503
    assert set(lake.look()) == {"dfs P"}
    await close(service)


@both_kinds
async def test_a_large_file_goes_on_at_the_secondary(client_kind: str, lake: DataLake) -> None:
    """Later ranges are bound to the endpoint of the first, whose name the SDK does not know for Data Lake."""
    sizes: dict[str, Any] = {"max_single_get_size": MIB, "max_chunk_get_size": MIB}
    service = protect(connect(client_kind, lake, **sizes), quick(client_kind))
    lake.broken.add(f"{ACCOUNT}.blob.core.windows.net")
    file = service.get_file_client("fs", "folder/c")
    assert await download(file) == FILES["folder/c"]
    lone = protect(connect(client_kind, lake, "DataLakeFileClient", "fs", "folder/c", **sizes), quick(client_kind))
    assert await download(lone) == FILES["folder/c"]
    assert set(lake.look()) == {"blob P", "blob S"}
    await close(lone)
    await close(service)


@both_kinds
async def test_a_file_that_is_not_replicated(client_kind: str, lake: DataLake) -> None:
    service = protect(connect(client_kind, lake, retry_total=0), quick(client_kind))
    lake.primary.lose()
    with pytest.raises(NotReplicated):
        await download(service.get_file_client("fs", "absent"))
    await close(service)


@both_kinds
async def test_max_staleness_is_asked_of_the_blob_service(client_kind: str, lake: DataLake) -> None:
    service = protect(connect(client_kind, lake), quick(client_kind, max_staleness=600.0))
    lake.primary.lose()
    assert await names(service.get_file_system_client("fs").get_paths()) == sorted(FILES)
    assert "blob S" in lake.look()
    await close(service)


@pytest.mark.parametrize("service_named", ["blob", "dfs"])
@both_kinds
async def test_a_secondary_that_is_named_for_one_of_the_services(
    client_kind: str, service_named: str, lake: DataLake
) -> None:
    named = f"https://elsewhere-secondary.{service_named}.core.windows.net"
    service = protect(connect(client_kind, lake), quick(client_kind, secondary_endpoint=named))
    wanted = await reads(service)
    lake.primary.lose()
    lake.look()
    assert await reads(service) == wanted
    assert set(lake.look()) == {"blob S", "dfs S"}
    await close(service)


@both_kinds
async def test_a_policy_as_an_argument_says_to_protect(client_kind: str, lake: DataLake) -> None:
    with pytest.raises((ValueError, TypeError), match=r"protect\(client, policy\)"):  # by its version
        connect(client_kind, lake, retry_policy=quick(client_kind))
