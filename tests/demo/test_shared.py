"""One stand-in account for all demonstrations of a machine: who starts it, who joins it, and the fault they share."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

import pytest
from azure.core.exceptions import ServiceResponseError, ServiceResponseTimeoutError
from azure.core.rest import HttpRequest

from failover.breaker.stores import Store, StoredRecord, StoreError, open_store
from failover.demo.account import stand_in_account
from failover.demo.client import make_transport
from failover.demo.faults import Fault
from failover.demo.shared import Host, Place, SharedFaults, shared_stand_in
from failover.standin import StandIn


def _store(name: str) -> Store:
    return open_store(f"memory://{name}")


def _start() -> StandIn:
    return StandIn(0.0)


def _blob(place: Place, endpoint: str = "primary") -> HttpRequest:
    account = stand_in_account(place.connection_string)
    base = account.primary if endpoint == "primary" else account.secondary
    return HttpRequest("GET", f"{base}/box/HelloWorld", headers={"Authorization": "SharedKey any"})


def _faults(place: Place, kind: Fault = Fault.STATUS_503) -> tuple[SharedFaults, list[tuple[str, bool]]]:
    account = stand_in_account(place.connection_string)
    transport = make_transport(account, timeout=5.0)
    faults = SharedFaults(
        transport, kind, place=place, primary=account.primary, blob="HelloWorld", timeout=0.1, sleep=lambda _: None
    )
    heard: list[tuple[str, bool]] = []
    faults.on_change = lambda kind, on: heard.append((kind.value, on))
    return faults, heard


def test_the_second_joins_the_first_until_it_leaves() -> None:
    store = _store("joins")
    with shared_stand_in(store, _start) as (first, host):
        assert host is not None
        assert not first.joined
        assert not host.in_use
        with shared_stand_in(store, pytest.fail) as (second, none):
            assert none is None
            assert second.joined
            assert second.id == first.id
            assert host.in_use
        assert not host.in_use
    with shared_stand_in(store, _start) as (third, host):
        assert host is not None, "what the first one left behind is not there any more"
        assert third.id != first.id


def test_many_that_begin_at_once_use_one() -> None:
    for round_ in range(20):
        store, ids, hosts = _store(f"race{round_}"), list[str](), list[Host | None]()
        begin, done = threading.Barrier(6), threading.Barrier(6)

        def run(store: Store, ids: list[str], hosts: list[Host | None], begin: Any, done: Any) -> None:
            begin.wait()
            with shared_stand_in(store, _start) as (place, host):
                ids.append(place.id)
                hosts.append(host)
                done.wait(30)

        threads = [threading.Thread(target=run, args=(store, ids, hosts, begin, done)) for _ in range(6)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(60)
        assert len(ids) == 6
        assert len(set(ids)) == 1
        assert len([host for host in hosts if host is not None]) == 1


@pytest.mark.parametrize("body", [b"", b"no JSON", b"[]", b"{}", json.dumps({"id": "x", "primary": 1}).encode()])
def test_garbage_in_the_store_is_replaced(body: bytes) -> None:
    store = _store(f"garbage{len(body)}")
    with shared_stand_in(store, _start):
        pass
    with shared_stand_in(store, _start) as (first, _):
        pass
    name = _name_in(store)
    held = store.read([name])[name]
    assert store.compare_and_set(name, body, held.version) is not None
    with shared_stand_in(store, _start) as (second, host):
        assert host is not None
        assert second.id != first.id
        with shared_stand_in(store, pytest.fail) as (third, _):
            assert third.id == second.id


def _name_in(store: Store) -> str:
    import socket

    name = f"stand-in account on {socket.gethostname()}"
    assert store.read([name])
    return name


def test_another_server_on_its_port_is_not_joined(standin: StandIn) -> None:
    store = _store("impostor")
    with shared_stand_in(store, _start) as (first, _):
        pass
    about = {"id": first.id, "primary": standin.primary_url, "secondary": standin.secondary_url}
    name = _name_in(store)
    store.compare_and_set(name, json.dumps(about).encode(), store.read([name])[name].version)
    with shared_stand_in(store, _start) as (_, host):
        assert host is not None


def test_the_store_leads_nowhere_but_to_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(Place, "join", lambda self: asked.append(self.connection_string))
    store = _store("elsewhere")
    with shared_stand_in(store, _start):
        pass
    name = _name_in(store)
    for url in ("http://192.0.2.1:80/devstoreaccount1", "https://127.0.0.1:443/x", "http://127.0.0.1:1@192.0.2.1/x"):
        about = {"id": "x", "primary": "http://127.0.0.1:9/devstoreaccount1", "secondary": url}
        store.compare_and_set(name, json.dumps(about).encode(), store.read([name])[name].version)
        with shared_stand_in(store, _start) as (_, host):
            assert host is not None
    assert asked == []


class _Broken:
    """A store that is down."""

    url, is_local, refresh = "broken://", False, 1.0

    def read(self, names: Iterable[str]) -> dict[str, StoredRecord]:
        raise StoreError("down")

    def compare_and_set(self, name: str, body: bytes, expected: str | None, ttl: float | None = None) -> str | None:
        raise StoreError("down")


def test_without_the_store_it_goes_alone() -> None:
    broken: Any = _Broken()
    with shared_stand_in(broken, _start) as (place, host):
        assert host is not None
        assert not place.joined


@pytest.mark.parametrize("by", [0, 1])
@pytest.mark.parametrize("kind", list(Fault))
def test_whoever_switches_the_fault_it_is_on_for_all(kind: Fault, by: int) -> None:
    store = _store(f"fault{kind.value}{by}")
    with ExitStack() as stack:
        places = [stack.enter_context(shared_stand_in(store, _start))[0] for _ in range(2)]
        both = [_faults(place, kind) for place in places]
        for faults, _ in both:
            stack.enter_context(faults)
        mine, theirs = both[by], both[1 - by]
        assert [faults.send(_blob(places[0])).status_code for faults, _ in both] == [404, 404]
        mine[0].switch(True)
        assert mine[0].on
        for (faults, _), place in zip(both, places, strict=True):
            assert faults.send(_blob(place, "secondary")).status_code == 404, "the secondary is left alone, and tells"
            assert faults.on
            if kind is Fault.STATUS_503:
                assert faults.send(_blob(place)).status_code == 503
            elif kind is Fault.SLOW:
                assert faults.send(_blob(place)).status_code == 404
            else:
                with pytest.raises((ServiceResponseTimeoutError, ServiceResponseError, OSError, Exception)):
                    faults.send(_blob(place))
        assert mine[1] == []
        assert theirs[1] == [(kind.value, True)]
        theirs[0].switch(False)
        assert [faults.send(_blob(places[0])).status_code for faults, _ in both] == [404, 404]
        assert mine[1] == [(kind.value, False)]
        assert theirs[1] == [(kind.value, True)]
        assert not any(faults.on for faults, _ in both)


def test_a_switch_that_finds_nobody_changes_nothing() -> None:
    with shared_stand_in(_store("gone"), _start) as (place, _):
        faults, heard = _faults(place)
    faults.switch(True)
    assert not faults.on
    assert heard == []
