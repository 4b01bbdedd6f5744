"""What idle circuits cost: a bounded number of store operations per refresh, however many they are."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit
from xml.etree import ElementTree as ET

import pytest
import redis
from azure.storage.blob import ContainerClient

from failover.breaker import CircuitBreaker, State
from failover.breaker.distributed.worker import worker_of
from failover.breaker.stores import Store, blob, open_store
from tests.breaker.circuits import state, wait_for
from tests.breaker.conftest import connection_string
from tests.breaker.stores.fronts import Front, front
from tests.redis_server import RedisServer
from tests.servers import Azurite

REFRESH = 0.1  # seconds, for 1
SECONDS = 1.5  # of fifteen refreshes


@contextmanager
def counted_account(kind: str, azurite: Azurite, name: str) -> Iterator[tuple[Store, Front]]:
    """A store in Azurite, and what counts its requests."""
    url = azurite.primary_url if kind == "blob" else azurite.table_url
    port = urlsplit(url).port
    assert port is not None
    with front(port) as counter:
        moved = url.replace(str(port), str(counter.port))
        account = replace(azurite, primary_url=moved, table_url=moved)
        yield open_store(f"{kind}://{name}", connection_string(account)), counter


def warm(store: Store, count: int, opened: int) -> list[CircuitBreaker]:
    """So many circuits, of which the first few have been open; all are known."""
    store.refresh = REFRESH
    circuits = [CircuitBreaker(f"https://host/{number}", store=store) for number in range(count)]
    for circuit in circuits[:opened]:
        circuit.isolate()
        circuit.reset()
    names = [each.name for each in circuits[:opened]]
    wait_for(lambda: sum(b'"closed"' in each.body for each in store.read(names).values()) == opened, 60.0)
    time.sleep(1.0)  # until the last first look is over: it is the server's time that passes
    return circuits


def _asked(counter: Front, seconds: float) -> int:
    before = counter.requests
    time.sleep(seconds)
    return counter.requests - before


@pytest.mark.azurite
@pytest.mark.parametrize("kind", ["blob", "table"])
def test_an_account_is_asked_once_per_refresh(kind: str, azurite: Azurite, store_url: Callable[[str], str]) -> None:
    name = store_url(kind).partition("://")[2]
    with counted_account(kind, azurite, name) as (store, counter):
        circuits = warm(store, 100, opened=10)
        wait_for(
            lambda: _asked(counter, 1.0) <= 1.0 / store.refresh + 1, 60.0
        )  # on a busy machine first looks take long
        asked = _asked(counter, SECONDS)
        print(f"\n{kind}: {asked} requests of 100 idle circuits in {SECONDS / store.refresh:.0f} refreshes")
        assert 2 <= asked <= SECONDS / store.refresh + 1
        # And what another process writes is seen.
        other = open_store(f"{kind}://{name}")
        assert other is not store
        CircuitBreaker(circuits[5].name, store=other).isolate()
        CircuitBreaker(circuits[50].name, store=other).isolate()
        wait_for(lambda: [state(circuits[n]) for n in (4, 5, 50)] == [State.CLOSED, State.OPEN, State.OPEN])


@pytest.mark.azurite
def test_a_listing_that_comes_as_it_came_is_neither_parsed_nor_compared_again(
    azurite: Azurite, store_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Thousands of blobs would take more of a core to look at than to ask for."""
    monkeypatch.setattr(blob, "_AT_ONCE", 3)
    store, parsed = open_store(store_url("blob")), 0
    assert isinstance(store, blob.BlobStore)
    from_text = ET.fromstring

    def counted(text: bytes) -> ET.Element:
        nonlocal parsed
        parsed += 1
        return from_text(text)

    monkeypatch.setattr(ET, "fromstring", counted)
    names = [f"circuit-{number}" for number in range(8)]
    known: dict[str, str | None] = dict.fromkeys(names)

    def look() -> list[str]:
        found = {name: stored for part in store.changes(dict(known)) for name, stored in part.items()}
        known.update({name: None if stored is None else stored.version for name, stored in found.items()})
        return sorted(found)

    assert look() == []
    for name in names[:7]:
        assert store.compare_and_set(name, b"one", None)
    assert look() == names[:7]
    assert (look(), look()) == ([], [])
    before = parsed
    assert (look(), parsed - before) == ([], 0)
    # What changes then is found: a write, a circuit that is made, a blob that is gone, what was not read.
    assert store.compare_and_set(names[5], b"two", known[names[5]])
    assert (look(), parsed - before) == ([names[5]], 1)
    assert look() == []
    del known[names[2]]
    known[names[3]] = None
    assert look() == [names[3]]
    known[names[2]] = None
    assert look() == [names[2]]
    ContainerClient.from_connection_string(connection_string(azurite), store.url[7:]).delete_container()
    assert look() == names[:7]
    assert look() == []


def test_redis_is_asked_once_per_refresh(redis_server: RedisServer, store_url: Callable[[str], str]) -> None:
    client: Any = redis.Redis(port=redis_server.port)
    store = open_store(store_url("redis"))
    circuits = warm(store, 5000, opened=50)

    def commands() -> int:
        return int(client.info("stats")["total_commands_processed"])

    before, started = commands(), time.process_time()
    time.sleep(SECONDS)
    asked, busy = commands() - before - 1, time.process_time() - started
    print(f"\nredis: {asked} commands of 5,000 idle circuits in {SECONDS / store.refresh:.0f} refreshes, {busy:.3f} s")
    assert 2 <= asked <= SECONDS / store.refresh + 3
    assert len(circuits) == 5000


def test_redis_is_looked_at_without_push(
    redis_server: RedisServer, store_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = store_url("redis")
    store = open_store(url)
    monkeypatch.setattr(store, "subscribe", lambda _: False)
    circuits = warm(store, 20, opened=1)
    other = open_store(url.replace("127.0.0.1", "localhost"))
    for _ in range(3):
        for number in (0, 7):
            CircuitBreaker(circuits[number].name, store=other).isolate()
        wait_for(lambda: [state(circuits[n]) for n in (0, 1, 7)] == [State.OPEN, State.CLOSED, State.OPEN])
        for number in (0, 7):
            circuits[number].reset()
        wait_for(
            lambda: all(b"closed" in each.body for each in other.read([circuits[0].name, circuits[7].name]).values())
        )


def test_a_redis_that_is_wiped_is_told_again(redis_server: RedisServer, store_url: Callable[[str], str]) -> None:
    url = store_url("redis")
    client: Any = redis.Redis(port=redis_server.port)
    store = open_store(url)
    (circuit, _) = warm(store, 2, opened=1)
    circuit.isolate()
    wait_for(lambda: b"true" in store.read([circuit.name])[circuit.name].body)
    keys = client.keys(f"{url.partition('prefix=')[2]}*")
    assert len(keys) == 2  # the record, and the log
    client.delete(*keys)
    wait_for(lambda: store.read([circuit.name]))
    assert not worker_of(store).broken
