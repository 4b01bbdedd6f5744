"""Sharing over a Redis Cluster, over sentinels, as a user with few rights, and by each scheme."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from failover.breaker import CircuitBreaker, Cooldown, Policy, State
from failover.breaker.distributed.worker import worker_of
from failover.breaker.stores import Store, StoreError, open_store
from failover.breaker.stores.redis import RedisStore
from tests.breaker.circuits import state, wait_for
from tests.breaker.conftest import NAMES
from tests.breaker.distributed.fleet import boom
from tests.breaker.stores.deployments import Group, run_cluster, run_sentinel
from tests.redis_server import RedisServer, run_redis

pytestmark = pytest.mark.redis

POLICY = Policy(recovery=Cooldown(0.3), probe_lease=2.0)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RedisServer]]:
    with run_cluster(tmp_path_factory.mktemp("cluster")) as nodes:
        yield nodes


def url_of(nodes: list[RedisServer], prefix: str = "failover:") -> str:
    return f"redis+cluster://{','.join(f'127.0.0.1:{node.port}' for node in nodes)}?prefix={prefix}"


def is_shared(stores: list[Store], name: str) -> None:
    """Two circuits over two ways to one store: a trip, one probe, the recovery."""
    a, b = (CircuitBreaker(name, POLICY, store=store) for store in stores)
    for _ in range(5):
        with pytest.raises(OSError, match="down"):
            a.call(boom)
    wait_for(lambda: state(b) is State.OPEN)
    wait_for(lambda: succeeds(b), 10.0)
    wait_for(lambda: [a.state, b.state] == [State.CLOSED, State.CLOSED])


def succeeds(circuit: CircuitBreaker) -> bool:
    try:
        circuit.call(int)
    except RuntimeError:
        raise
    except Exception:
        return False
    return True


# --- a cluster ------------------------------------------------------------------------------------------------


def test_a_cluster_of_three_is_shared(cluster: list[RedisServer]) -> None:
    stores: list[Store] = [RedisStore(url_of(cluster, "shared:")) for _ in "ab"]
    for number in range(6):  # which lie on different nodes
        is_shared(stores, f"https://host/{number}")
    held: list[Any] = [redis.Redis(port=node.port) for node in cluster]
    assert all(client.keys("shared:circuit:*") for client in held)


def test_one_node_is_enough_to_find_the_cluster(cluster: list[RedisServer]) -> None:
    store = RedisStore(url_of(cluster[1:2], "one:"))
    assert store.url == f"redis+cluster://127.0.0.1:{cluster[1].port}"
    for number, name in enumerate(NAMES):
        assert store.compare_and_set(name, str(number).encode(), None) is not None, name
    stored = store.read(NAMES)
    assert [int(stored[name].body) for name in NAMES] == list(range(len(NAMES)))
    version = stored["a/b"].version
    assert store.compare_and_set("a/b", b"x", "another") is None
    assert store.compare_and_set("a/b", b"x", version) is not None
    assert 0 <= store.read(["a/b"])["a/b"].age < 2


def test_a_cluster_pushes_and_lists_changes(cluster: list[RedisServer]) -> None:
    writer, reader = (RedisStore(url_of(cluster, "pushed:")) for _ in "ab")
    heard: list[str | None] = []
    came, subscribed = threading.Semaphore(0), threading.Semaphore(0)

    def changed(name: str | None) -> None:
        heard.append(name)
        (subscribed if name is None else came).release()

    reader.subscribe(changed)
    assert subscribed.acquire(timeout=10)
    known: dict[str, str | None] = dict.fromkeys(map(str, range(20)))
    assert [name for part in reader.changes(known) for name, stored in part.items() if stored] == []
    for name in ("3", "7", "11"):
        assert writer.compare_and_set(name, b"x", None)
        assert came.acquire(timeout=5)
    assert heard[1:] == ["3", "7", "11"]
    changes = {name: stored for part in reader.changes(known) for name, stored in part.items()}
    assert set(changes) == {"3", "7", "11"}
    assert list(reader.changes(known)) == []
    reader.close()


def test_a_single_servers_url_that_leads_to_a_cluster_says_what_to_write(cluster: list[RedisServer]) -> None:
    store = open_store(f"redis://127.0.0.1:{cluster[0].port}/0")
    with pytest.raises(StoreError, match=r"write redis\+cluster://"):
        store.read([str(number) for number in range(20)])


def test_a_node_that_is_lost_and_comes_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with run_cluster(tmp_path) as nodes:
        stores: list[Store] = [RedisStore(url_of(nodes)) for _ in "ab"]
        for store in stores:
            store.refresh = 0.1
        is_shared(stores, "before")
        started = time.monotonic()
        nodes[2].stop()
        circuits = [CircuitBreaker(f"during {n}", POLICY, store=stores[0]) for n in range(8)]
        for circuit in circuits:
            circuit.trip()
        wait_for(lambda: "decide locally" in caplog.text or "decides alone" in caplog.text)
        assert time.monotonic() - started < 10
        wait_for(lambda: all(succeeds(circuit) for circuit in circuits), 10.0)  # each decides by itself


# --- sentinels ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    with run_sentinel(tmp_path_factory.mktemp("sentinel")) as made:
        yield made


def test_a_group_with_a_sentinel_is_shared_and_survives_its_master(
    group: Group, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    url = f"redis+sentinel://127.0.0.1:{group.sentinel}/mine"
    stores: list[Store] = [open_store(url), open_store(f"{url}/0")]
    assert stores[0].url == f"redis+sentinel://127.0.0.1:{group.sentinel}/mine/0"
    for store in stores:
        store.refresh = 0.1
    is_shared(stores, "before")
    isolated = CircuitBreaker("isolated", store=stores[0])
    isolated.isolate()
    replica: Any = redis.Redis(port=group.replica.port)
    wait_for(lambda: replica.exists("failover:circuit:isolated"))
    group.master.stop()
    wait_for(lambda: caplog.text.count("decide locally") == 2)
    wait_for(lambda: caplog.text.count("is back") == 2)
    is_shared(stores, "after")
    late = CircuitBreaker("isolated", store=stores[1])
    wait_for(lambda: late.snapshot()["isolated"])


def test_a_service_that_the_sentinel_does_not_know(tmp_path: Path) -> None:
    with run_redis(tmp_path) as server:
        store = open_store(f"redis+sentinel://:hunter2@127.0.0.1:{server.port}/lost?sentinel_password=hunter3")
        with pytest.raises(StoreError) as caught:
            store.read(["one"])
        assert "hunter" not in str(caught.value)


# --- a user with few rights -----------------------------------------------------------------------------------

KEYS = "~failover:* +@all"
NO_PUSH = {
    "may not publish": f"{KEYS} allchannels -publish",
    "may not subscribe": f"{KEYS} allchannels -subscribe -psubscribe",
    "has no channel": f"{KEYS} resetchannels",
}


@pytest.mark.parametrize("rights", NO_PUSH.values(), ids=NO_PUSH)
def test_a_user_without_push_shares_by_polling_and_it_is_said_once(
    rights: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with run_redis(tmp_path) as server:
        admin: Any = redis.Redis(port=server.port)
        admin.execute_command("ACL", "SETUSER", "ann", "on", ">hunter2", *rights.split())
        ann, other = open_store(f"redis://ann:hunter2@127.0.0.1:{server.port}/0"), open_store(server.url)
        for store in (ann, other):
            store.refresh = 0.2
        for first, second in ((ann, other), (other, ann)):
            for number in range(3):
                is_shared([first, second], f"{number}")
        said = [record.getMessage() for record in caplog.records if server.url in record.getMessage()]
        assert len(said) == 1
        assert "its user may not" in said[0]
        assert "hunter2" not in caplog.text
        assert not worker_of(ann).broken


def test_a_user_who_may_read_only_hears_and_decides_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with run_redis(tmp_path) as server:
        admin: Any = redis.Redis(port=server.port)
        admin.execute_command("ACL", "SETUSER", "ann", "on", ">hunter2", *f"{KEYS} allchannels -hset".split())
        ann, other = open_store(f"redis://ann:hunter2@127.0.0.1:{server.port}/0"), open_store(server.url)
        ann.refresh = 0.2
        a, b = CircuitBreaker("remote", POLICY, store=ann), CircuitBreaker("remote", store=other)
        a.trip()
        wait_for(lambda: "decides alone" in caplog.text)
        commands = admin.info("stats")["total_commands_processed"]
        time.sleep(2.0)  # of ten refreshes
        assert admin.info("stats")["total_commands_processed"] - commands < 100
        assert caplog.text.count("decides alone") == 1
        assert not worker_of(ann).broken
        assert succeeds(a)
        assert state(b) is State.CLOSED
        b.isolate()
        wait_for(lambda: a.snapshot()["isolated"])


def test_a_user_who_may_not_see_the_log_of_changes(tmp_path: Path) -> None:
    with run_redis(tmp_path) as server:
        admin: Any = redis.Redis(port=server.port)
        rights = f"{KEYS} allchannels -xadd -xrevrange -subscribe"
        admin.execute_command("ACL", "SETUSER", "ann", "on", ">hunter2", *rights.split())
        ann, other = open_store(f"redis://ann:hunter2@127.0.0.1:{server.port}/0"), open_store(server.url)
        ann.refresh = 0.2
        for number in range(3):
            is_shared([other, ann], f"{number}")
        assert not worker_of(ann).broken


# --- schemes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
def test_a_valkey_is_a_redis(scheme: str, redis_server: RedisServer, store_url: Callable[[str], str]) -> None:
    store = open_store(store_url("redis").replace("redis://", f"{scheme}://"))
    assert store.compare_and_set("one", b"x", None)
    assert store.read(["one"])["one"].body == b"x"
