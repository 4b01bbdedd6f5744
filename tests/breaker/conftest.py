"""Every kind of store, over real servers: the contract is the same for all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator

import pytest

from failover.breaker.stores import Store, open_store
from failover.breaker.stores.blob import BlobStore
from failover.breaker.stores.redis import RedisStore
from failover.breaker.stores.table import TableStore
from tests.redis_server import RedisServer, run_redis
from tests.servers import Azurite

KINDS = [
    "memory",
    pytest.param("redis", marks=pytest.mark.redis),
    pytest.param("blob", marks=pytest.mark.azurite),
    pytest.param("table", marks=pytest.mark.azurite),
]


NAMES = [
    "primary",
    "https://account.blob.core.windows.net/container/blob",
    "https://account.blob.core.windows.net/Container/blob",
    "a/b",
    "a_2fb",
    "a\\b#c?d%2F",
    "..",
    ".",
    "dot.",
    "",
    " ",
    "tab\tnewline\n\x00\x7f",
    "日本語 🐍",
    "half a pair \ud83d",
    "'; DROP TABLE",
    "x" * 10_000,
    "x" * 10_001,
]
"""Of circuits, which a store must tell apart."""


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One Redis for all tests: each uses a prefix of its own. For stopping and starting, make another."""
    with run_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def store_url(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Gives for a kind of store the URL of one that nobody has used, its server running."""

    def make(kind: str) -> str:
        unique = uuid.uuid4().hex
        if kind == "redis":
            server: RedisServer = request.getfixturevalue("redis_server")
            return f"{server.url}?prefix={unique}:"
        if kind in ("blob", "table"):
            account: Azurite = request.getfixturevalue("azurite")
            monkeypatch.setenv("FAILOVER_STATE_CONNECTION_STRING", connection_string(account))
            return f"{kind}://t{unique}"
        return f"memory://{unique}"

    return make


@pytest.fixture(params=KINDS)
def store(request: pytest.FixtureRequest, store_url: Callable[[str], str]) -> Store:
    """A new store of each kind in turn."""
    return open_store(store_url(request.param))


def another_way(url: str) -> Store:
    """A second store object for one URL, as another process has it."""
    kind, _, name = url.partition("://")
    if kind == "blob":
        return BlobStore(name, os.environ["FAILOVER_STATE_CONNECTION_STRING"])
    if kind == "table":
        return TableStore(name, os.environ["FAILOVER_STATE_CONNECTION_STRING"])
    return RedisStore(url)


def connection_string(account: Azurite, *, key: str | None = None, blob: str | None = None) -> str:
    """As FAILOVER_STATE_CONNECTION_STRING takes it."""
    return (
        f"DefaultEndpointsProtocol=http;AccountName={account.account_name};AccountKey={key or account.account_key};"
        f"BlobEndpoint={blob or account.primary_url};TableEndpoint={blob or account.table_url};"
    )


@pytest.hookimpl(tryfirst=True)  # before -m takes its pick
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "redis_server" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.redis)
