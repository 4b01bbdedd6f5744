"""The Fiddler rule as a transport: what it hits, what it leaves alone, and that the SDK sees the real thing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from azure.core.exceptions import ServiceResponseError, ServiceResponseTimeoutError
from azure.core.pipeline.transport import HttpTransport
from azure.core.rest import HttpRequest
from azure.storage.blob import BlobServiceClient

from failover.demo.faults import SLOW_SHARE, Fault, FaultTransport, sleep_in_slices
from failover.standin import StandIn
from failover.storage.causes import failure_cause, is_endpoint_failure, is_timeout
from tests.servers import credential

BASE = "https://mine.blob.core.windows.net"
KINDS = [Fault.STATUS_503, Fault.TIMEOUT, Fault.RESET, Fault.SLOW]


class Inner(HttpTransport[Any, Any]):
    """Answers everything with 200 and remembers what was sent."""

    def __init__(self) -> None:
        self.sent: list[str] = []
        self.state = "closed"

    def send(self, request: Any, **kwargs: Any) -> Any:
        self.sent.append(f"{request.method} {request.url}")
        return type("Response", (), {"status_code": 200, "reason": "OK"})()

    def open(self) -> None:
        self.state = "open"

    def close(self) -> None:
        self.state = "closed"

    def __exit__(self, *about: Any) -> None:
        self.close()

    def __enter__(self) -> Inner:
        self.open()
        return self


def _transport(
    kind: Fault,
    *,
    primary: str = BASE,
    lose: Callable[[], None] | None = None,
    restore: Callable[[], None] | None = None,
) -> tuple[FaultTransport, Inner, list[float]]:
    inner, slept = Inner(), list[float]()
    about: dict[str, Any] = {"primary": primary, "blob": "HelloWorld", "timeout": 2.0, "sleep": slept.append}
    return FaultTransport(inner, kind, lose=lose, restore=restore, **about), inner, slept


def _is_hit(transport: FaultTransport, method: str, url: str) -> bool:
    return bool(transport.send(HttpRequest(method, url)).status_code == 503)


@pytest.mark.parametrize(
    ("primary", "method", "path", "hit"),
    [
        (BASE, "GET", "/box/HelloWorld", True),
        (BASE, "HEAD", "/box/HelloWorld", True),
        (BASE, "GET", "/box/HelloWorld?timeout=3&sv=x", True),
        (BASE, "PUT", "/box/HelloWorld", False),
        (BASE, "DELETE", "/box/HelloWorld", False),
        (BASE, "POST", "/box/HelloWorld", False),
        (BASE, "GET", "/box/HelloWorld2", False),
        (BASE, "GET", "/box/helloworld", False),
        (BASE, "GET", "/box/folder/HelloWorld", False),
        (BASE, "GET", "/HelloWorld", False),
        (BASE, "GET", "//HelloWorld", False),
        (BASE, "GET", "/?comp=list&prefix=/box/HelloWorld", False),
        (BASE, "DELETE", "/box?restype=container", False),
        ("http://127.0.0.1:10000/mine", "GET", "/box/HelloWorld", True),
        ("http://127.0.0.1:10000/mine", "GET", "-secondary/box/HelloWorld", False),
    ],
)
def test_it_hits_reads_of_the_blob_on_the_primary(primary: str, method: str, path: str, hit: bool) -> None:
    transport, inner, _ = _transport(Fault.STATUS_503, primary=primary)
    assert not _is_hit(transport, method, primary + path)
    transport.switch(on=True)
    assert _is_hit(transport, method, primary + path) is hit
    transport.switch(on=False)
    assert not _is_hit(transport, method, primary + path)
    assert len(inner.sent) == 3


@pytest.mark.parametrize(
    "url",
    [
        "https://mine-secondary.blob.core.windows.net/box/HelloWorld",
        "https://other.blob.core.windows.net/box/HelloWorld",
        "http://mine.blob.core.windows.net/box/HelloWorld",
        "https://mine.blob.core.windows.net:8443/box/HelloWorld",
    ],
)
def test_other_endpoints_are_left_alone(url: str) -> None:
    transport, _, _ = _transport(Fault.STATUS_503)
    transport.switch(on=True)
    assert not _is_hit(transport, "GET", url)
    assert _is_hit(transport, "GET", BASE.replace("mine", "MINE") + "/box/HelloWorld")


def test_a_503_replaces_the_real_answer() -> None:
    transport, inner, slept = _transport(Fault.STATUS_503)
    transport.switch(on=True)
    response = transport.send(HttpRequest("GET", f"{BASE}/box/HelloWorld"))
    assert (response.status_code, response.reason) == (503, "Service Unavailable")
    assert (len(inner.sent), slept) == (1, [])


def test_a_timeout_takes_as_long_as_the_attempt_may() -> None:
    transport, inner, slept = _transport(Fault.TIMEOUT)
    transport.switch(on=True)
    for kwargs in ({}, {"read_timeout": 0.7}):
        with pytest.raises(ServiceResponseTimeoutError) as caught:
            transport.send(HttpRequest("GET", f"{BASE}/box/HelloWorld"), **kwargs)
        assert is_timeout(caught.value)
    assert (inner.sent, slept) == ([], [2.0, 0.7])


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.2, 1.5, 60.0])
def test_no_sleep_is_so_long_that_ctrl_c_must_wait_for_it(seconds: float) -> None:
    slept: list[float] = []
    sleep_in_slices(seconds, sleep=slept.append)
    assert sum(slept) == pytest.approx(seconds)
    assert all(0 < each <= 0.2 for each in slept)


def test_a_reset_is_told_as_one() -> None:
    transport, inner, _ = _transport(Fault.RESET)
    transport.switch(on=True)
    with pytest.raises(ServiceResponseError) as caught:
        transport.send(HttpRequest("GET", f"{BASE}/box/HelloWorld"))
    assert is_endpoint_failure(caught.value)
    assert not is_timeout(caught.value)
    assert failure_cause(caught.value) == "connection reset"
    assert inner.sent == []


def test_slow_is_over_half_the_timeout_and_below_all_of_it() -> None:
    transport, inner, slept = _transport(Fault.SLOW)
    transport.switch(on=True)
    assert transport.send(HttpRequest("GET", f"{BASE}/box/HelloWorld")).status_code == 200
    assert slept == [SLOW_SHARE * 2.0]
    assert 0.5 < SLOW_SHARE < 1
    assert len(inner.sent) == 1


def test_down_loses_and_restores_and_touches_no_request() -> None:
    told: list[str] = []
    transport, _, slept = _transport(
        Fault.DOWN, lose=lambda: told.append("lose"), restore=lambda: told.append("restore")
    )
    assert not transport.on
    transport.switch(on=True)
    assert transport.on
    assert not _is_hit(transport, "GET", f"{BASE}/box/HelloWorld")
    transport.switch(on=False)
    assert told == ["lose", "restore"]
    assert slept == []


def test_down_needs_a_primary_that_can_be_lost() -> None:
    for lose, restore in ((None, None), (print, None), (None, print)):
        with pytest.raises(ValueError, match="needs lose and restore"):
            _transport(Fault.DOWN, lose=lose, restore=restore)


def test_other_kinds_lose_nothing() -> None:
    told: list[str] = []
    for kind in KINDS:
        transport, _, _ = _transport(kind, lose=lambda: told.append("lose"), restore=lambda: told.append("restore"))
        transport.switch(on=True)
        transport.switch(on=False)
    assert told == []


def test_it_opens_and_closes_the_inner_transport() -> None:
    transport, inner, _ = _transport(Fault.RESET)
    with transport as entered:
        assert entered is transport
        assert inner.state == "open"
    assert inner.state == "closed"
    transport.open()
    assert inner.state == "open"
    transport.close()
    assert inner.state == "closed"


@pytest.mark.parametrize("kind", KINDS)
def test_the_sdk_uploads_and_deletes_as_ever_and_its_reads_fail(standin: StandIn, kind: Fault) -> None:
    from azure.core.exceptions import AzureError
    from azure.core.pipeline.transport import RequestsTransport

    slept: list[float] = []
    transport = FaultTransport(
        RequestsTransport(use_env_settings=False),
        kind,
        primary=standin.primary_url,
        blob="HelloWorld",
        timeout=2.0,
        sleep=slept.append,
    )
    transport.switch(on=True)
    with BlobServiceClient(
        standin.primary_url, credential=credential(standin), transport=transport, retry_total=0
    ) as service:
        container = service.create_container("box")
        container.upload_blob("HelloWorld", b"Hello")
        container.upload_blob("Other", b"other")
        assert container.download_blob("Other").readall() == b"other"
        if kind is Fault.SLOW:
            assert container.download_blob("HelloWorld").readall() == b"Hello"
        else:
            with pytest.raises(AzureError):
                container.download_blob("HelloWorld").readall()
        transport.switch(on=False)
        assert container.download_blob("HelloWorld").readall() == b"Hello"
        transport.switch(on=True)
        container.delete_blob("HelloWorld")
        container.delete_container()
    reached = [hit.method for hit in standin.hits if hit.path == "/box/HelloWorld"]
    assert reached.count("GET") == (2 if kind in (Fault.STATUS_503, Fault.SLOW) else 1)
