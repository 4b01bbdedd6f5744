"""Stores end: closed by hand, with their `Breakers`, or when nobody uses them any more."""

from __future__ import annotations

import gc
import logging
import socket
import threading
import weakref
from collections.abc import Callable

import pytest

from failover.breaker import Breakers, CircuitBreaker, State
from failover.breaker.stores import Store, StoreClosed, open_store
from tests.breaker.circuits import state, wait_for
from tests.breaker.conftest import KINDS, another_way

_earlier: set[threading.Thread] = set()
"""Of other tests of this process, which something of theirs may keep alive: a traceback, a client."""


def threads_of(store_url: str) -> list[str]:
    """Of this store, and of any store's push."""
    names = [thread.name for thread in threading.enumerate() if thread not in _earlier]
    return [name for name in names if store_url in name or name == "failover push"]


@pytest.fixture(autouse=True)
def _no_push_yet() -> None:
    gc.collect()
    _earlier.clear()
    _earlier.update(threading.enumerate())


@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_stores_that_nobody_uses_are_freed(kind: str, store_url: Callable[[str], str]) -> None:
    url = store_url(kind)
    threads, kept = threading.active_count(), []
    for number in range(1000 if kind in ("memory", "redis") else 50):
        each = f"{url}{number}" if kind != "redis" else f"redis://127.0.0.1:9/0?prefix={number}"
        kept.append(weakref.ref(open_store(each)))
    gc.collect()
    assert [ref for ref in kept if ref() is not None] == []
    assert threading.active_count() <= threads


def use(store: Store) -> tuple[str, weakref.ref[Store]]:
    circuit = CircuitBreaker("remote", store=store)
    circuit.trip()
    wait_for(lambda: store.read(["remote"]))
    return store.url, weakref.ref(store)


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_that_was_used_is_freed_with_its_circuits(kind: str, store_url: Callable[[str], str]) -> None:
    url = store_url(kind)
    shown, gone = use(open_store(url))
    wait_for(lambda: gc.collect() >= 0 and gone() is None)
    wait_for(lambda: threads_of(shown) == [])


@pytest.mark.parametrize("kind", KINDS)
def test_a_closed_store_does_nothing_more(
    kind: str, store_url: Callable[[str], str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    url = store_url(kind)
    store = open_store(url)
    circuit = CircuitBreaker("remote", store=store)
    circuit.trip()
    wait_for(lambda: store.read(["remote"]))
    store.close()
    store.close()
    acts: list[Callable[[], object]] = [
        lambda: store.read(["remote"]),
        lambda: store.compare_and_set("remote", b"x", None),
    ]
    for act in acts:
        with pytest.raises(StoreClosed, match="is closed"):
            act()
    wait_for(lambda: threads_of(store.url) == [])
    circuit.reset()
    assert circuit.call(int) == 0
    assert [record for record in caplog.records if record.levelno == logging.WARNING] == []
    again = open_store(url)
    assert again is not store
    if kind != "memory":
        assert b"open" in again.read(["remote"])["remote"].body


@pytest.mark.parametrize("kind", KINDS)
def test_breakers_that_are_closed_publish_what_they_know_and_go_on_alone(
    kind: str, store_url: Callable[[str], str]
) -> None:
    store = open_store(store_url(kind))
    breakers = Breakers(store=store)
    circuits = [breakers.on(f"https://host{number}/") for number in range(5)]
    wait_for(lambda: store.read([circuits[0].name]) == {})
    for circuit in circuits:
        circuit.trip()
    breakers.close()
    breakers.close()
    wait_for(lambda: threads_of(store.url) == [])
    assert len(store.read([circuit.name for circuit in circuits])) == 5
    other = CircuitBreaker(circuits[0].name, store=store)
    other.reset()
    assert state(circuits[0]) is State.OPEN
    circuits[0].reset()
    assert circuits[0].call(int) == 0
    assert breakers.on("https://another/").call(int) == 0


@pytest.mark.redis
def test_breakers_leave_a_store_that_others_use(store_url: Callable[[str], str]) -> None:
    url = store_url("redis")
    store = open_store(url)
    first, second = Breakers(store=store), Breakers(store=store)
    first.on("https://host/").trip()
    kept = second.on("https://host/")
    wait_for(lambda: state(kept) is State.OPEN)
    first.close()
    CircuitBreaker(kept.name, store=another_way(url)).reset()
    wait_for(lambda: state(kept) is State.CLOSED)


def test_breakers_close_at_once_whatever_the_store_does() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        store: Store = open_store(f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        breakers = Breakers(store=store)
        breakers.on("https://host/").trip()
        timer = threading.Timer(5.0, lambda: None)
        timer.start()
        breakers.close()
        assert timer.is_alive()
        timer.cancel()
