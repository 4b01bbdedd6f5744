"""The contract of a store, the same for memory, Redis, Blob and Table: records, races, ages, and bad days."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from failover.breaker.stores import Store, StoredRecord, StoreError, open_store
from failover.breaker.stores.memory import MemoryStore
from failover.breaker.stores.store import LARGEST, age_by, changes_of, key_of
from tests.breaker.conftest import KINDS, NAMES, connection_string
from tests.breaker.stores.fronts import silent_server
from tests.clock import Clock
from tests.redis_server import RedisServer, free_port, run_redis, run_tls_front
from tests.servers import Azurite, make_certificate

ROOT = Path(__file__).parents[3]


def test_what_is_written_is_read_with_its_version_and_age(store: Store) -> None:
    assert store.read(["one"]) == {}
    version = store.compare_and_set("one", b'{"v": 1}', None)
    assert version
    held = store.read(["one", "two"])
    assert set(held) == {"one"}
    assert held["one"].body == b'{"v": 1}'
    assert held["one"].version == version
    assert 0 <= held["one"].age < 2


def test_a_swap_wants_the_version_that_is_held(store: Store) -> None:
    other = store.compare_and_set("another", b"a", None)
    assert store.compare_and_set("one", b"a", other) is None
    assert set(store.read(["one", "another"])) == {"another"}
    first = store.compare_and_set("one", b"a", None)
    assert first is not None
    assert store.compare_and_set("one", b"b", None) is None
    second = store.compare_and_set("one", b"c", first)
    assert second not in (None, first)
    assert store.compare_and_set("one", b"d", first) is None
    assert store.read(["one"])["one"].body == b"c"


def test_the_same_body_again_is_a_new_version(store: Store) -> None:
    first = store.compare_and_set("one", b"same", None)
    second = store.compare_and_set("one", b"same", first)
    assert second is not None
    assert second != first
    assert store.compare_and_set("one", b"late", first) is None


def test_changes_are_what_is_not_known(store: Store) -> None:
    names = [str(number) for number in range(30)]
    known: dict[str, str | None] = dict.fromkeys(names)

    def changes() -> dict[str, StoredRecord | None]:
        found = {name: stored for part in changes_of(store, known) for name, stored in part.items()}
        news = {name: stored for name, stored in found.items() if (stored and stored.version) != known[name]}
        known.update({name: stored.version if stored else None for name, stored in news.items()})
        return news

    assert changes() == {}
    for name in names[:5]:
        store.compare_and_set(name, b"a", None)
    assert {name: stored and stored.body for name, stored in changes().items()} == dict.fromkeys(names[:5], b"a")
    assert changes() == {}
    assert store.compare_and_set("3", b"b", known["3"])
    store.compare_and_set("unknown", b"c", None)
    assert {name: stored and stored.body for name, stored in changes().items()} == {"3": b"b"}
    store.forget_connections()
    known["17"] = "what is gone"
    assert changes() == {"17": None}


def test_reading_nothing_is_no_mistake(store: Store) -> None:
    assert store.read([]) == {}


def test_any_name_is_a_record_of_its_own(store: Store) -> None:
    for number, name in enumerate(NAMES):
        assert store.compare_and_set(name, str(number).encode(), None) is not None, name
    held = store.read(NAMES)
    assert [int(held[name].body) for name in NAMES] == list(range(len(NAMES)))


def test_keys_are_short_plain_and_unlike() -> None:
    keys = {key_of(name) for name in NAMES}
    assert len(keys) == len(NAMES)
    assert all(len(key) <= 200 and set(key) <= set(map(chr, range(45, 123))) - set("./:;<=>?@[\\]^`") for key in keys)


@pytest.mark.parametrize("size", [0, 1, 300, LARGEST])
def test_a_record_of_any_size_up_to_the_largest(store: Store, size: int) -> None:
    body = os.urandom(size)
    version = store.compare_and_set("one", body, None)
    assert store.read(["one"])["one"].body == body
    assert store.compare_and_set("one", body[::-1], version) is not None


def test_a_larger_one_is_refused_before_anything_is_sent(store: Store) -> None:
    with pytest.raises(ValueError, match=str(LARGEST)):
        store.compare_and_set("one", b"x" * (LARGEST + 1), None)
    assert store.read(["one"]) == {}


# --- two writers at once, always ------------------------------------------------------------------------------


def add_one(store: Store, name: str) -> int:
    """Adds one to the number held; gives how often another writer was first."""
    lost = 0
    while True:
        held = store.read([name]).get(name)
        number = int(held.body) if held else 0
        if store.compare_and_set(name, str(number + 1).encode(), held.version if held else None) is not None:
            return lost
        lost += 1


def test_threads_that_count_together_lose_nothing(store: Store) -> None:
    barrier = threading.Barrier(6)

    def count() -> None:
        barrier.wait()
        for _ in range(5):
            add_one(store, "sum")

    with ThreadPoolExecutor(6) as pool:
        for done in [pool.submit(count) for _ in range(6)]:
            done.result()
    assert store.read(["sum"])["sum"].body == b"30"


def test_of_writers_at_a_barrier_one_wins_each_round(store: Store) -> None:
    writers, rounds = 4, 10
    barrier = threading.Barrier(writers)
    version: list[str | None] = [None]

    def write(me: int) -> list[str | None]:
        won: list[str | None] = []
        for number in range(rounds):
            barrier.wait()
            expected = version[0]
            barrier.wait()
            new = store.compare_and_set("one", f"{number} {me}".encode(), expected)
            won.append(new)
            if new is not None:
                version[0] = new
        return won

    with ThreadPoolExecutor(writers) as pool:
        results = [done.result() for done in [pool.submit(write, me) for me in range(writers)]]
    assert [sum(won[number] is not None for won in results) for number in range(rounds)] == [1] * rounds


COUNT = """
import sys
from failover.breaker.stores import open_store
from tests.breaker.stores.test_stores import add_one
store = open_store(sys.argv[1])
sys.stdin.readline()
print(sum(add_one(store, "sum") for _ in range(int(sys.argv[2]))))
"""


@pytest.mark.parametrize("kind", KINDS[1:])
def test_processes_that_count_together_lose_nothing(kind: str, store_url: Callable[[str], str]) -> None:
    url, each = store_url(kind), 15
    command = [sys.executable, "-c", COUNT, url, str(each)]
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in "ab"
    ]
    said = [process.communicate("go\n", timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert open_store(url).read(["sum"])["sum"].body == str(2 * each).encode()


# --- age ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_wall_clock_that_is_wrong_changes_no_age(store: Store, hours: int, monkeypatch: pytest.MonkeyPatch) -> None:
    store.compare_and_set("one", b"x", None)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + hours * 3600)
    assert 0 <= store.read(["one"])["one"].age < 3
    other = store.compare_and_set("two", b"x", None)
    assert other is not None
    assert 0 <= store.read(["two"])["two"].age < 3


def test_a_record_ages_until_it_is_written_again(store: Store) -> None:
    started = time.monotonic()
    version = store.compare_and_set("one", b"x", None)
    account = store.url.startswith(("blob", "table"))
    time.sleep(2.1 if account else 0.2)  # the store's own clock is the matter here, and nobody can move that
    age, passed = store.read(["one"])["one"].age, time.monotonic() - started
    assert (0.9 if account else 0.19) < age < passed + 0.01
    store.compare_and_set("one", b"y", version)
    assert store.read(["one"])["one"].age < 0.1


def test_age_of_memory_is_by_its_clock() -> None:
    clock = Clock()
    store = MemoryStore(clock=clock)
    store.compare_and_set("one", b"x", None)
    clock.advance(12.5)
    assert store.read(["one"])["one"].age == 12.5
    clock.advance(-100)
    assert store.read(["one"])["one"].age == 0


@pytest.mark.parametrize("date", [None, "", "yesterday", "Tue, 99 Nov 2026 00:00:00 GMT"])
def test_an_answer_without_a_usable_date_has_age_0(date: str | None) -> None:
    import datetime as dt

    assert age_by(date, dt.datetime.now(dt.timezone.utc)) == 0.0


# --- what others left there -----------------------------------------------------------------------------------


def test_what_is_not_ours_is_read_as_it_is_and_not_overwritten(
    store_url: Callable[[str], str], redis_server: RedisServer, azurite: Azurite
) -> None:
    import redis
    from azure.data.tables import TableClient
    from azure.storage.blob import ContainerClient

    url = store_url("redis")
    prefix = url.partition("prefix=")[2]
    client: Any = redis.Redis(port=redis_server.port)
    client.set(f"{prefix}circuit:one", "a string")
    client.hset(f"{prefix}circuit:two", mapping={"v": "1", "b": "x", "t": "noon"})
    client.hset(f"{prefix}circuit:three", "else", "x")
    store = open_store(url)
    held = store.read(["one", "two", "three", "four"])
    assert {name: each.body for name, each in held.items()} == {"one": b"", "two": b"", "three": b""}
    for name in ("one", "two", "three"):
        assert store.compare_and_set(name, b"ours", None) is None
        assert store.compare_and_set(name, b"ours", held[name].version if name in held else "v") is None
    assert client.get(f"{prefix}circuit:one") == b"a string"

    store = open_store(store_url("blob"))
    container = ContainerClient.from_connection_string(connection_string(azurite), store.url[7:])
    container.create_container()
    container.upload_blob("circuits/one", b"x" * (LARGEST * 10))
    assert len(store.read(["one"])["one"].body) <= LARGEST + 1
    assert store.compare_and_set("one", b"ours", None) is None

    store = open_store(store_url("table"))
    table = TableClient.from_connection_string(connection_string(azurite), store.url[8:])
    table.create_table()
    table.create_entity({"PartitionKey": "circuits", "RowKey": "one", "record": 17})
    table.create_entity({"PartitionKey": "circuits", "RowKey": "two", "else": "x"})
    assert {name: each.body for name, each in store.read(["one", "two"]).items()} == {"one": b"", "two": b""}
    assert {name: each.body for name, each in store.read(["one", "two", "x"]).items()} == {"one": b"", "two": b""}
    assert store.compare_and_set("one", b"ours", None) is None


# --- bad days -------------------------------------------------------------------------------------------------


def url_at(kind: str, port: int, monkeypatch: pytest.MonkeyPatch) -> str:
    """A store that is said to be at this port, with a password that must not be seen."""
    key = base64.b64encode(b"hunter2 hunter2").decode()
    account = Azurite(f"http://127.0.0.1:{port}/a", "", f"http://127.0.0.1:{port}/a", key)
    monkeypatch.setenv("FAILOVER_STATE_CONNECTION_STRING", connection_string(account))
    return f"redis://ann:hunter2@127.0.0.1:{port}/0" if kind == "redis" else f"{kind}://lost"


@pytest.mark.parametrize("kind", ["redis", "blob", "table"])
@pytest.mark.parametrize("how", ["refuses", "says nothing"])
def test_an_unreachable_store_says_so_soon(kind: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with silent_server() as silent:
        store = open_store(url_at(kind, silent if how == "says nothing" else free_port(), monkeypatch))
        acts: list[Callable[[], object]] = [
            lambda: store.read(["one"]),
            lambda: store.compare_and_set("one", b"x", None),
        ]
        for act in acts[1:] if how == "says nothing" else acts:
            started = time.monotonic()
            with pytest.raises(StoreError) as caught:
                act()
            assert time.monotonic() - started < 2.5
            assert store.url in str(caught.value)
            assert_no_secret(str(caught.value))
            assert caught.value.__cause__ is None


def assert_no_secret(text: str) -> None:
    assert "hunter2" not in text
    assert base64.b64encode(b"hunter2").decode()[:8] not in text


@pytest.mark.redis
def test_redis_refuses_a_wrong_password_without_showing_it(tmp_path: Path) -> None:
    with run_redis(tmp_path, password="right") as server:
        for user in ("", "hunter2ann"):
            store = open_store(f"redis://{user}:hunter2@127.0.0.1:{server.port}/0")
            with pytest.raises(StoreError, match=r"Authentication|WRONGPASS|password") as caught:
                store.read(["one"])
            assert_no_secret(str(caught.value))
            assert_no_secret(repr(store))
        store = open_store(f"redis://127.0.0.1:{server.port}/0")
        with pytest.raises(StoreError, match="Authentication"):
            store.compare_and_set("one", b"x", None)
        store = open_store(f"redis://:right@127.0.0.1:{server.port}/0")
        assert store.compare_and_set("one", b"x", None)


@pytest.mark.parametrize("kind", ["blob", "table"])
def test_an_account_refuses_a_wrong_key_without_showing_it(
    kind: str, azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = base64.b64encode(b"hunter2 hunter2 hunter2").decode()
    monkeypatch.setenv("FAILOVER_STATE_CONNECTION_STRING", connection_string(azurite, key=key))
    store = open_store(f"{kind}://wrongkey")
    for act in (lambda: store.read(["one"]), lambda: store.compare_and_set("one", b"x", None)):
        with pytest.raises(StoreError, match="403") as caught:
            act()
        assert_no_secret(str(caught.value))


@pytest.mark.redis
def test_redis_that_was_lost_is_used_again_when_it_is_back(tmp_path: Path) -> None:
    with run_redis(tmp_path) as server:
        store = open_store(server.url)
        assert store.compare_and_set("one", b"x", None)
        server.stop()
        with pytest.raises(StoreError):
            store.read(["one"])
        server.start()
        assert store.read(["one"]) == {}


@pytest.mark.redis
def test_redis_over_a_unix_socket_and_over_tls(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    with (
        run_redis(tmp_path, password="right", more=f"--unixsocket {tmp_path}/s") as server,
        run_tls_front(server.port, certificate, key) as port,
    ):
        unix = open_store(f"unix://:right@{tmp_path}/s?db=3")
        assert unix.compare_and_set("one", b"x", None)
        trusting = open_store(f"rediss://:right@127.0.0.1:{port}/3?ssl_ca_certs={certificate}")
        assert trusting.read(["one"])["one"].body == b"x"
        with pytest.raises(StoreError, match=r"CERTIFICATE_VERIFY_FAILED|certificate"):
            open_store(f"rediss://:right@127.0.0.1:{port}/3").read(["one"])
        assert "right" not in unix.url + trusting.url


# --- Redis alone ----------------------------------------------------------------------------------------------


def test_redis_pushes_each_change(store_url: Callable[[str], str], redis_server: RedisServer) -> None:
    url = store_url("redis")
    store, seen, subscribed = open_store(url), [], threading.Semaphore(0)
    came = threading.Semaphore(0)

    def changed(name: str | None) -> None:
        seen.append(name)
        (subscribed if name is None else came).release()

    assert store.subscribe(changed)
    assert subscribed.acquire(timeout=5)
    name = "https://x/日本 \ud83d"
    took = []
    for _ in range(20):
        held = store.read([name]).get(name)
        started = time.perf_counter()
        store.compare_and_set(name, b"x", held.version if held else None)
        assert came.acquire(timeout=5)
        took.append(time.perf_counter() - started)
    assert set(seen) == {None, name}
    assert sorted(took)[10] < 0.05
    store.forget_connections()  # ends the listener


def test_redis_forgets_what_need_not_be_kept(store_url: Callable[[str], str], redis_server: RedisServer) -> None:
    import redis

    client: Any = redis.Redis(port=redis_server.port)
    url = store_url("redis")
    store, key = open_store(url), f"{url.partition('prefix=')[2]}circuit:one"
    version = store.compare_and_set("one", b"x", None, ttl=90.0)
    assert 85 < client.ttl(key) <= 90
    version = store.compare_and_set("one", b"x", version)
    assert client.ttl(key) == -1
    version = store.compare_and_set("one", b"x", version, ttl=0.001)
    deadline = time.monotonic() + 5
    while store.read(["one"]) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert store.compare_and_set("one", b"x", version) is None
    assert store.compare_and_set("one", b"x", None)


def test_redis_databases_and_prefixes_are_apart(store_url: Callable[[str], str], redis_server: RedisServer) -> None:
    url = store_url("redis")
    stores = [open_store(each) for each in (url, url.replace("/0?", "/1?"), f"{url}x")]
    assert all(each.compare_and_set("one", b"x", None) for each in stores)


# --- opening --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_one_store_per_url_and_process(kind: str, store_url: Callable[[str], str]) -> None:
    url = store_url(kind)
    assert open_store(url) is open_store(url)
    assert open_store(store_url(kind)) is not open_store(url)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "memory",
        "memory:",
        "hunter2",
        "http://hunter2@host",
        "redis://",
        "redis://:hunter2@",
        "redis://:hunter2@host:port/0",
        "redis://:hunter2@host:99999/0",
        "redis://:hunter2@host/first",
        "redis://:hunter2@host/-1",
        "redis://:hunter2@[::1/0",
        "redis://host/0?password=hunter2",
        "redis://host/0?hunter2",
        "rediss://:hunter2@host/1/2",
        "redis://host/0?ssl_ca_certs=hunter2.pem",
        "redis+cluster://host?ssl_certfile=hunter2.pem",
        "valkey://host/0?ssl_keyfile=hunter2.pem",
        "unix:///path?ssl_ca_certs=hunter2.pem",
        "redis://:hunter2#x@host:6379/0",
        "redis://ann:hunter#2@host/0",
        "rediss://:#hunter2@host/0",
        "redis+sentinel://:hunter2#@host/mine",
        "redis://:1/hunter2@host/0",
        "redis://:hunter2?x@host/0",
        "redis://one,two/0?prefix=hunter2",
        "redis+cluster://host/1?prefix=hunter2",
        "redis+cluster://:hunter2@",
        "redis+sentinel://:hunter2@host:26379",
        "redis+sentinel://:hunter2@host/mine/first",
        "redis+sentinel://host/mine?password=hunter2",
        "redis+ssh://:hunter2@host/0",
        "unix://",
        "blob://",
        "blob://Upper",
        "blob://a--b",
        "blob://hunter2@container",
        "blob://container/hunter2",
        "table://",
        "table://1st",
        "table://with-dash",
        "table://name?key=hunter2!",
    ],
)
def test_a_bad_url_is_refused_without_being_shown(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAILOVER_STATE_CONNECTION_STRING", "UseDevelopmentStorage=true")
    with pytest.raises(ValueError, match="//") as caught:
        open_store(url)
    assert "hunter2" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("redis://host/0?ssl_ca_certs=x.pem", "ssl_ca_certs is for TLS: write rediss"),
        ("redis://:pa#ss@host/0", "a #: in a password write %23"),
        ("redis+sentinel://host", "names no service"),
    ],
)
def test_a_url_that_nearly_is_one_says_what_to_change(url: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        open_store(url)


def test_a_url_without_credentials_is_shown() -> None:
    shown = {
        "redis://ann:hunter2@host": "redis://host:6379/0",
        "redis://:hunter%232@host:1/2?prefix=x": "redis://host:1/2",
        "valkeys://:hunter2@[::1]:1/2": "valkeys://[::1]:1/2",
        "redis+cluster://:hunter2@one:1,two": "redis+cluster://one:1,two:6379",
        "redis+sentinel://:hunter2@one,two:2/mine/3?sentinel_password=hunter2": "redis+sentinel://one:26379,two:2/mine/3",
        "unix://:hunter2@/run/redis?db=2": "unix:///run/redis/2",
    }
    assert {url: open_store(url).url for url in shown} == shown


@pytest.mark.parametrize("kind", ["blob", "table"])
def test_a_connection_string_by_hand_goes_before_the_environment(
    kind: str, azurite: Azurite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAILOVER_STATE_CONNECTION_STRING", "AccountKey=hunter2")
    before = dict(os.environ)
    store = open_store(f"{kind}://byhand", connection_string(azurite))
    assert store.compare_and_set("one", b"x", None)
    assert dict(os.environ) == before
    assert open_store(f"{kind}://byhand", connection_string(azurite)) is store
    with pytest.raises(ValueError, match="connection_string, as of FAILOVER_STATE_CONNECTION_STRING, is no") as caught:
        open_store(f"{kind}://byhand", "AccountKey=hunter2")
    assert_no_secret(str(caught.value))


@pytest.mark.parametrize("url", [None, 3, b"memory://"])
def test_a_url_is_a_string(url: Any) -> None:
    with pytest.raises(ValueError, match="memory://"):
        open_store(url)


@pytest.mark.parametrize("scheme", ["blob", "table"])
def test_an_account_for_the_state_must_be_set(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FAILOVER_STATE_CONNECTION_STRING", raising=False)
    with pytest.raises(ValueError, match="FAILOVER_STATE_CONNECTION_STRING, which is not set"):
        open_store(f"{scheme}://circuits")
    monkeypatch.setenv("FAILOVER_STATE_CONNECTION_STRING", "AccountKey=hunter2")
    with pytest.raises(ValueError, match="FAILOVER_STATE_CONNECTION_STRING is no") as caught:
        open_store(f"{scheme}://circuits")
    assert "hunter2" not in str(caught.value)


def test_an_account_without_a_host_is_no_account(monkeypatch: pytest.MonkeyPatch) -> None:
    # The tables' SDK raises a TypeError for it.
    account = "DefaultEndpointsProtocol=:https;AccountName=mine;AccountKey=aHVudGVyMg==;EndpointSuffix=core.windows.net"
    monkeypatch.setenv("FAILOVER_STATE_CONNECTION_STRING", account)
    with pytest.raises(ValueError, match="FAILOVER_STATE_CONNECTION_STRING is no") as caught:
        open_store("table://circuits")
    assert "aHVudGVyMg" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "package", "install"),
    [
        ("redis://host/0", "redis", r"redis>=5.1"),
        ("rediss://host/0", "redis", r"redis>=5.1"),
        ("table://name", "azure.data.tables", r"azure-data-tables>=12.5"),
        ("blob://name", "azure.storage.blob", "azure-storage-blob>=12.24"),
    ],
)
def test_a_missing_package_is_named(url: str, package: str, install: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAILOVER_STATE_CONNECTION_STRING", "UseDevelopmentStorage=true")
    for name in [name for name in sys.modules if name.startswith("failover.breaker.stores.")]:
        if name.rpartition(".")[2] not in ("store", "memory"):
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setattr("failover.breaker.stores._opened", weakref.WeakValueDictionary())
    with pytest.raises(ImportError, match=f"pip install '{install}'"):
        open_store(url)


def test_what_is_to_be_installed_is_what_the_extras_want() -> None:
    # By the SDK's own name: this project is on no index, where anybody could take its name.
    source = (ROOT / "failover" / "breaker" / "stores" / "__init__.py").read_text(encoding="utf-8")
    named = set(re.findall(r'"([a-z-]+>=[0-9.]+)"', source))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert named == {"redis>=5.1", "azure-storage-blob>=12.24", "azure-data-tables>=12.5"}
    assert all(f'"{each}"' in project for each in named)


def test_nothing_is_imported_before_its_url_is_used() -> None:
    code = (
        "import sys; from failover.breaker.stores import open_store; open_store('memory://');"
        "sys.exit(any(name.split('.')[0] in ('redis', 'azure') for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True, timeout=60)
