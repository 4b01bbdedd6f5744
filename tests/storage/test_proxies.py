"""Questions of our own go the way of the client's: through its proxy."""

from __future__ import annotations

from typing import Any

import pytest

from failover.standin import StandIn
from failover.storage import GeoFailover, preflight
from tests.storage.account import HELLO, store
from tests.storage.clients import blob_of, connect
from tests.storage.raw_server import Answer, Asked, RawServer


@pytest.fixture
def asked_of_proxy() -> Any:
    """A proxy that answers nothing but 502, and the URLs that it was asked for."""
    with RawServer(lambda _: Answer("HTTP/1.1 502 Bad Gateway\nContent-Length: 0")) as proxy:
        yield proxy


def hosts(asked: list[Asked]) -> set[str]:
    return {each.target.split("/devstoreaccount1")[0] for each in asked if each.target.startswith("http://")}


def test_preflight_asks_through_the_clients_proxy(standin: StandIn, asked_of_proxy: RawServer) -> None:
    proxies = {"http": f"http://127.0.0.1:{asked_of_proxy.port}"}
    found = preflight(connect(standin, GeoFailover(retry=None), proxies=proxies))
    assert found.problems
    assert len(hosts(asked_of_proxy.asked)) == 2, "both endpoints"
    assert [hit for hit in standin.hits if hit.method in ("GET", "HEAD")] == []


def test_the_last_sync_time_is_asked_for_through_the_clients_proxy(standin: StandIn, asked_of_proxy: RawServer) -> None:
    store(standin)
    policy = GeoFailover(retry=None)
    blob = blob_of(standin, policy)
    assert blob.download_blob().readall() == HELLO
    proxies = {"http": f"http://127.0.0.1:{asked_of_proxy.port}"}
    with pytest.raises(Exception, match="502"):
        blob.download_blob(proxies=proxies)
    before = len(asked_of_proxy.asked)
    with pytest.raises(Exception, match="502"):
        policy.staleness()
    assert len(asked_of_proxy.asked) == before + 1
