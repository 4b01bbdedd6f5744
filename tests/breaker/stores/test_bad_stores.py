"""Stores on their worst days: answers that drip, records of any shape. One warning, no spinning, no waiting."""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import redis

from failover.breaker import CircuitBreaker, CircuitOpen, ConsecutiveFailures, Cooldown, Policy, State
from failover.breaker.stores import Store, StoreError, open_store
from failover.breaker.stores.blob import BlobStore
from failover.breaker.stores.redis import RedisStore
from failover.breaker.stores.store import OPERATION_SECONDS, key_of
from failover.breaker.stores.table import TableStore
from tests.breaker.circuits import state, wait_for
from tests.breaker.conftest import KINDS, connection_string
from tests.breaker.distributed.fleet import boom
from tests.breaker.stores.deployments import run_cluster
from tests.breaker.stores.fronts import front
from tests.redis_server import RedisServer, run_redis
from tests.servers import Azurite


@pytest.fixture(autouse=True)
def _close_all(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A store that is still looked at would be counted in the next test."""
    made: list[Store] = []
    for kind in (RedisStore, BlobStore, TableStore):
        init: Any = kind.__init__

        def noted(self: Any, *args: Any, init: Any = init) -> None:
            init(self, *args)
            made.append(self)

        monkeypatch.setattr(kind, "__init__", noted)
    yield
    for store in made:
        store.close()


POLICY = Policy(trip=ConsecutiveFailures(2), recovery=Cooldown(0.3), probe_lease=2.0)

# --- answers that drip ----------------------------------------------------------------------------------------


def port_of(kind: str, request: pytest.FixtureRequest) -> int:
    if kind == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        return server.port
    azurite: Azurite = request.getfixturevalue("azurite")
    return int((azurite.primary_url if kind == "blob" else azurite.table_url).split(":")[2].split("/")[0])


def store_at(kind: str, port: int, request: pytest.FixtureRequest, name: str = "dripping") -> Store:
    if kind == "redis":
        return RedisStore(f"redis://127.0.0.1:{port}/0?prefix={name}:")
    azurite: Azurite = request.getfixturevalue("azurite")
    url = f"http://127.0.0.1:{port}/{azurite.account_name}"
    return open_store(f"{kind}://{name}", connection_string(replace(azurite, primary_url=url, table_url=url)))


@pytest.mark.parametrize("kind", KINDS[1:])
def test_an_operation_is_bounded_as_a_whole(kind: str, request: pytest.FixtureRequest) -> None:
    with front(port_of(kind, request), each_byte=0.1) as slow:
        store = store_at(kind, slow.port, request)
        acts: list[Callable[[], object]] = [
            lambda: store.read(["one"]),
            lambda: store.compare_and_set("one", b"x", None),
            lambda: list(store.changes({"one": None})),  # type: ignore[attr-defined]
        ]
        for act in acts:
            started = time.monotonic()
            with pytest.raises(StoreError, match="no whole answer within 2 s") as caught:
                act()
            assert time.monotonic() - started < OPERATION_SECONDS + 1.0
            assert store.url in str(caught.value)
        slow.each_byte = None
        assert store.read(["one"]).keys() <= {"one"}  # and then it is used again at once


def at_once(acts: list[Callable[[], object]]) -> list[tuple[StoreError, float]]:
    """The error that each of them ends in, and after how many seconds, all begun at the same time."""

    def timed(act: Callable[[], object]) -> tuple[StoreError, float]:
        started = time.monotonic()
        with pytest.raises(StoreError) as caught:
            act()
        return caught.value, time.monotonic() - started

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(timed, acts))


@pytest.mark.redis
def test_a_cluster_or_sentinel_that_drips_is_bounded_too(tmp_path: Any) -> None:
    with run_cluster(tmp_path) as nodes, front(nodes[0].port, each_byte=0.1) as slow:
        urls = (f"redis+cluster://127.0.0.1:{slow.port}", f"redis+sentinel://127.0.0.1:{slow.port}/mine")
        stores = [open_store(url) for url in urls]
        for _ in range(2):
            for _, took in at_once([partial(store.read, ["one"]) for store in stores]):
                assert took < OPERATION_SECONDS + 1.0


@pytest.mark.parametrize("kind", KINDS[1:3])
def test_circuits_whose_store_drips_are_alone_after_one_warning_and_shared_when_it_flows(
    kind: str, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    name = f"drips{os.getpid()}"
    with front(port_of(kind, request)) as line:
        here, there = store_at(kind, line.port, request, name), store_at(kind, port_of(kind, request), request, name)
        for store in (here, there):
            store.refresh = 0.2
        a, b, other = (CircuitBreaker(each, POLICY, store=here) for each in ("a", "b", "other"))
        far = CircuitBreaker("a", POLICY, store=there)
        a.isolate()
        wait_for(lambda: state(far) is State.OPEN)
        line.each_byte = 0.1
        for _ in range(2):
            with pytest.raises(OSError, match="down"):
                b.call(boom)
        wait_for(lambda: f"decide locally until their store works again: {here.url}" in caplog.text, 10.0)
        wait_for(lambda: succeeds(b))
        far.reset()
        other.isolate()
        threads = our_threads()
        time.sleep(3.0)  # it goes on and on
        assert our_threads() <= threads
        assert caplog.text.count("decide locally") == 1
        line.each_byte = None
        wait_for(lambda: f"the store {here.url} is back" in caplog.text, 15.0)
        wait_for(lambda: state(a) is State.CLOSED)
        wait_for(lambda: b"true" in there.read(["other"])["other"].body)
        assert caplog.text.count("decide locally") == 1


def our_threads() -> int:
    return sum(thread.name.startswith("failover") for thread in threading.enumerate())


def succeeds(circuit: CircuitBreaker) -> bool:
    with suppress(CircuitOpen):
        circuit.call(int)
        return True
    return False


# --- records of any shape -------------------------------------------------------------------------------------

FUTURE = json.dumps({"format": 2, "state": "ajar"}).encode()
SHAPES: dict[str, Callable[[Any, str], object]] = {
    "text": lambda client, key: client.set(key, "x"),
    "list": lambda client, key: client.rpush(key, "x"),
    "set": lambda client, key: client.sadd(key, "x"),
    "sorted set": lambda client, key: client.zadd(key, {"x": 1}),
    "stream": lambda client, key: client.xadd(key, {"x": 1}),
    "hash without our fields": lambda client, key: client.hset(key, mapping={"format": "2", "state": "open"}),
    "hash without a version": lambda client, key: client.hset(key, mapping={"b": "x", "t": "1"}),
    "hash without a body": lambda client, key: client.hset(key, mapping={"v": "1", "t": "1"}),
    "hash without a time": lambda client, key: client.hset(key, mapping={"v": "1", "b": "x"}),
    "hash with a time that is none": lambda client, key: client.hset(key, mapping={"v": "1", "b": "x", "t": "noon"}),
    "hash with an endless time": lambda client, key: client.hset(key, mapping={"v": "1", "b": "x", "t": "inf"}),
    "hash with no number": lambda client, key: client.hset(key, mapping={"v": "1", "b": "x", "t": "nan"}),
    "hash of empty texts": lambda client, key: client.hset(key, mapping={"v": "", "b": "", "t": ""}),
    "version that is no text": lambda client, key: client.hset(key, mapping={"v": b"\xff\x00", "b": "x", "t": "1"}),
    "no JSON": lambda client, key: client.hset(key, mapping={"v": "1", "b": "x", "t": "1"}),
    "huge": lambda client, key: client.hset(key, mapping={"v": "1", "b": "x" * 10_000_000, "t": "1"}),
    "another format": lambda client, key: client.hset(key, mapping={"v": "1", "b": FUTURE, "t": "1"}),
}


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One whose commands can be counted: the other's may still be used by what tests before have left."""
    with run_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


def busy_for_half_a_second() -> float:
    """Seconds of a core that this process uses meanwhile, also for what tests before have left running."""
    began = time.process_time()
    time.sleep(0.5)
    return time.process_time() - began


@pytest.mark.redis
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("late", [False, True], ids=["there before", "comes later"])
def test_what_is_no_record_of_ours_costs_one_warning_and_no_core(
    shape: Callable[[Any, str], object],
    late: bool,
    own_redis: RedisServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = f"{own_redis.url}?prefix={os.urandom(4).hex()}"
    client: Any = redis.Redis(port=own_redis.port)
    key = f"{url.partition('prefix=')[2]}circuit:{key_of('remote')}"
    store = open_store(url)
    store.refresh = 0.05
    others = busy_for_half_a_second()
    if not late:
        shape(client, key)
    circuit, neighbour = (CircuitBreaker(name, POLICY, store=store) for name in ("remote", "neighbour"))
    if late:
        neighbour.isolate()
        wait_for(lambda: store.read(["neighbour"]))
        shape(client, key)
    before = client.dump(key)
    for _ in range(2):
        with pytest.raises(OSError, match="down"):
            circuit.call(boom)
    said = f"what {store.url} holds for it is left as it is"
    wait_for(lambda: said in caplog.text)
    wait_for(lambda: succeeds(circuit))
    for _ in range(3):
        circuit.trip()
        circuit.reset()
    neighbour.isolate()
    wait_for(lambda: store.read(["neighbour"]))
    commands = client.info("stats")["total_commands_processed"]
    busy = busy_for_half_a_second()  # of ten refreshes
    assert client.info("stats")["total_commands_processed"] - commands < 40
    assert busy - others < 0.2
    assert caplog.text.count(said) == 1
    assert "locally" not in caplog.text
    assert client.dump(key) == before


@pytest.mark.azurite
def test_blobs_that_are_no_records_of_ours(
    store_url: Callable[[str], str], azurite: Azurite, caplog: pytest.LogCaptureFixture
) -> None:
    from azure.storage.blob import ContainerClient

    url = store_url("blob")
    store = open_store(url)
    store.refresh = 0.2
    assert isinstance(store, BlobStore)
    container = ContainerClient.from_connection_string(connection_string(azurite), url[7:])
    container.create_container()
    container.upload_blob("circuits/empty", b"")
    container.upload_blob("circuits/text", b"x")
    container.upload_blob("circuits/huge", b"x" * 1_000_000)
    container.get_blob_client("circuits/pages").create_page_blob(512)
    container.get_blob_client("circuits/appended").create_append_blob()
    names = ["empty", "text", "huge", "pages", "appended"]
    circuits = [CircuitBreaker(name, POLICY, store=store) for name in names]
    for circuit in circuits:
        circuit.trip()
    wait_for(lambda: caplog.text.count("decides alone") == len(names))
    wait_for(lambda: all(succeeds(circuit) for circuit in circuits))
    time.sleep(1.0)  # of five refreshes
    assert caplog.text.count("decides alone") == len(names)
    assert "locally" not in caplog.text
    assert container.download_blob("circuits/text").readall() == b"x"


@pytest.mark.redis
def test_a_redis_that_is_full_is_one_warning(tmp_path: Any, caplog: pytest.LogCaptureFixture) -> None:
    with run_redis(tmp_path, more="--maxmemory 100kb --maxmemory-policy noeviction") as server:
        store = open_store(server.url)
        store.refresh = 0.1
        circuit = CircuitBreaker("remote", POLICY, store=store)
        for _ in range(2):
            with pytest.raises(OSError, match="down"):
                circuit.call(boom)
        wait_for(lambda: "decides alone" in caplog.text)
        wait_for(lambda: succeeds(circuit))
        client: Any = redis.Redis(port=server.port)
        client.config_set("maxmemory", "100mb")
        circuit.trip()
        wait_for(lambda: store.read(["remote"]))
        assert caplog.text.count("decides alone") == 1


@pytest.mark.redis
def test_who_is_cut_off_by_another_threads_deadline_gets_a_store_error(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deadline closes all connections of a store, and redis-py raises many things then."""
    with run_redis(tmp_path) as server:
        store: Any = open_store(server.url)

        def closed_meanwhile(*_args: Any, **_options: Any) -> Any:
            store._connections.abort()
            raise ValueError("I/O operation on closed file")

        with monkeypatch.context() as patch:
            patch.setattr("redis.client.Pipeline.execute", closed_meanwhile)
            with pytest.raises(StoreError, match="I/O operation on closed file"):
                store.read(["any"])
        assert store.read(["any"]) == {}
