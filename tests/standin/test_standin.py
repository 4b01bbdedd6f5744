"""What only the stand-in has: a secondary that lags and takes no writes, endpoints that are lost for real, faults."""

from __future__ import annotations

import datetime as dt
import email.utils
import http.client
import logging
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from urllib.parse import urlsplit

import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError, ServiceRequestError, ServiceResponseError
from azure.storage.blob import BlobClient, BlobServiceClient, ContainerClient

from failover.standin import Exchange, Hit, StandIn
from tests.clock import Clock
from tests.servers import credential

HELLO = b"Hello, World!"


class Clocks:
    """The monotonic clock and the wall clock: time passes on both, and the wall clock can be set."""

    def __init__(self) -> None:
        self.monotonic = Clock(50.0)
        self.wall = Clock(1_700_000_000.0)

    def advance(self, seconds: float) -> None:
        self.monotonic.advance(seconds)
        self.wall.advance(seconds)


@pytest.fixture
def clock() -> Clocks:
    return Clocks()


@pytest.fixture
def lagging(clock: Clocks) -> Iterator[StandIn]:
    """Ten seconds behind, by clocks that stand."""
    with StandIn(10.0, clock=clock.monotonic, wall_clock=clock.wall) as account:
        yield account


def service(account: StandIn, url: str | None = None) -> BlobServiceClient:
    return BlobServiceClient(url or account.primary_url, credential=credential(account), retry_total=0)


def container(account: StandIn, url: str | None = None) -> ContainerClient:
    return service(account, url).get_container_client("demo")


def upload(account: StandIn, content: bytes = HELLO) -> BlobClient:
    """A client of `HelloWorld` at the primary, where it now is."""
    client = container(account)
    if not client.exists():
        client.create_container()
    return client.upload_blob("HelloWorld", content, overwrite=True)


def at_secondary(account: StandIn) -> BlobClient:
    return container(account, account.secondary_url).get_blob_client("HelloWorld")


def raw(account: StandIn, method: str, path: str, headers: dict[str, str] | None = None) -> http.client.HTTPResponse:
    """An answer as it comes over the wire; `path` follows the account's name."""
    url = urlsplit(account.primary_url)
    assert url.hostname is not None
    with closing(http.client.HTTPConnection(url.hostname, url.port, timeout=10)) as connection:
        connection.request(method, url.path + path, headers={"Authorization": "SharedKey any:one", **(headers or {})})
        response = connection.getresponse()
        response.read()
        return response


def last_sync(account: StandIn) -> dt.datetime:
    """Get Blob Service Stats; the SDK asks the host of `secondary_hostname` for it, so its URL is repaired here."""
    url = urlsplit(account.secondary_url)
    with BlobServiceClient(
        account.primary_url, secondary_hostname=url.netloc + url.path, credential=credential(account), retry_total=0
    ) as client:

        def repair(request: object) -> None:
            request.http_request.url = f"{account.secondary_url}/?restype=service&comp=stats"  # type: ignore[attr-defined]  # the SDK gives its hooks no type

        stats = client.get_service_stats(raw_request_hook=repair)
    assert stats["geo_replication"]["status"] == "live"
    found: dt.datetime = stats["geo_replication"]["last_sync_time"]
    return found


def at(seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(seconds, dt.timezone.utc)


# The secondary


def test_a_write_arrives_when_the_lag_has_passed(lagging: StandIn, clock: Clocks) -> None:
    upload(lagging)
    clock.advance(9.9)
    with pytest.raises(ResourceNotFoundError):
        at_secondary(lagging).download_blob()

    clock.advance(0.1)

    assert at_secondary(lagging).download_blob().readall() == HELLO


def test_the_secondary_shows_the_old_version_until_the_new_one_arrives(lagging: StandIn, clock: Clocks) -> None:
    blob = upload(lagging, b"old")
    clock.advance(10)
    upload(lagging, b"new")

    assert blob.download_blob().readall() == b"new"
    assert at_secondary(lagging).download_blob().readall() == b"old"
    clock.advance(10)
    assert at_secondary(lagging).download_blob().readall() == b"new"
    assert at_secondary(lagging).get_blob_properties().etag == blob.get_blob_properties().etag


def test_a_deletion_arrives_late_too(lagging: StandIn, clock: Clocks) -> None:
    blob = upload(lagging)
    clock.advance(10)
    blob.delete_blob()
    there = container(lagging, lagging.secondary_url)

    assert [each.name for each in there.list_blobs()] == ["HelloWorld"]
    clock.advance(10)
    assert list(there.list_blobs()) == []


@pytest.mark.parametrize("by", [-3600.0, 3600.0], ids=["back", "forward"])
def test_setting_the_wall_clock_after_the_upload_neither_delays_replication_nor_hurries_it(
    lagging: StandIn, clock: Clocks, by: float
) -> None:
    upload(lagging)
    clock.wall.advance(by)
    clock.advance(9.9)
    assert not at_secondary(lagging).exists()

    clock.advance(0.1)

    assert at_secondary(lagging).exists()


def test_setting_the_wall_clock_back_takes_nothing_from_the_secondary(lagging: StandIn, clock: Clocks) -> None:
    upload(lagging)
    clock.advance(10)
    assert at_secondary(lagging).exists()

    clock.wall.advance(-3600)

    assert at_secondary(lagging).exists()


def test_setting_the_wall_clock_while_the_primary_is_lost_changes_no_replication(
    lagging: StandIn, clock: Clocks
) -> None:
    upload(lagging)
    clock.advance(5)
    lagging.lose_primary()
    clock.wall.advance(3600)
    clock.advance(100)
    assert not at_secondary(lagging).exists()

    lagging.restore_primary()

    assert at_secondary(lagging).exists()


def test_dates_and_last_sync_time_follow_the_wall_clock(lagging: StandIn, clock: Clocks) -> None:
    clock.wall.advance(-3600)

    upload(lagging)

    assert last_sync(lagging) == at(1_700_000_000 - 3600 - 10)
    written = raw(lagging, "GET", "/demo/HelloWorld").getheader("Last-Modified")
    assert written == email.utils.formatdate(1_700_000_000 - 3600, usegmt=True)


def test_the_secondary_refuses_writes(lagging: StandIn) -> None:
    with pytest.raises(HttpResponseError) as refused:
        container(lagging, lagging.secondary_url).create_container()

    assert refused.value.status_code == 403
    assert refused.value.error_code == "InsufficientAccountPermissions"  # type: ignore[attr-defined]  # the storage SDK puts it there
    assert "Write operations are not allowed" in refused.value.message


def test_last_sync_time_is_the_lag_ago_in_whole_seconds(lagging: StandIn, clock: Clocks) -> None:
    clock.advance(0.9)

    assert last_sync(lagging) == at(1_700_000_000 - 10)


def test_a_lost_primary_sends_nothing_and_the_last_sync_time_stands_still(lagging: StandIn, clock: Clocks) -> None:
    upload(lagging)
    clock.advance(5)
    lagging.lose_primary()
    clock.advance(100)

    assert last_sync(lagging) == at(1_700_000_000 - 5)
    with pytest.raises(ResourceNotFoundError):
        at_secondary(lagging).download_blob()

    lagging.restore_primary()

    assert last_sync(lagging) == at(1_700_000_000 + 95)
    assert at_secondary(lagging).download_blob().readall() == HELLO


def test_stats_are_to_be_had_from_the_secondary_only(lagging: StandIn) -> None:
    response = raw(lagging, "GET", "/?restype=service&comp=stats")

    assert (response.status, response.getheader("x-ms-error-code")) == (400, "InvalidQueryParameterValue")


def test_date_and_last_modified_follow_the_injected_clock(lagging: StandIn, clock: Clocks) -> None:
    upload(lagging)
    clock.advance(30)
    response = raw(lagging, "GET", "/demo/HelloWorld")

    assert response.getheader("Last-Modified") == email.utils.formatdate(1_700_000_000, usegmt=True)
    assert response.getheader("Date") == email.utils.formatdate(1_700_000_030, usegmt=True)


@pytest.mark.parametrize("lag", [-1.0, float("nan"), float("inf")])
def test_a_lag_that_makes_no_sense(lag: float) -> None:
    with pytest.raises(ValueError, match="replication_lag"):
        StandIn(lag)


# Lost and found


def test_a_lost_primary_refuses_connections_and_comes_back_on_its_port_with_its_blobs(standin: StandIn) -> None:
    blob, url = upload(standin), standin.primary_url
    standin.lose_primary()
    with pytest.raises(ServiceRequestError, match="refused"):
        blob.download_blob()
    assert at_secondary(standin).download_blob().readall() == HELLO

    standin.restore_primary()

    assert standin.primary_url == url
    assert blob.download_blob().readall() == HELLO


def test_a_lost_secondary_too(standin: StandIn) -> None:
    upload(standin)
    standin.lose_secondary()
    with pytest.raises(ServiceRequestError, match="refused"):
        at_secondary(standin).download_blob()

    standin.restore_secondary()

    assert at_secondary(standin).download_blob().readall() == HELLO


def test_losing_twice_and_restoring_twice_change_nothing(standin: StandIn) -> None:
    blob = upload(standin)
    for _ in range(2):
        standin.lose_primary()
    for _ in range(2):
        standin.restore_primary()

    assert blob.download_blob().readall() == HELLO


def test_the_port_of_a_lost_primary_stays_ours(standin: StandIn) -> None:
    port = urlsplit(standin.primary_url).port
    standin.lose_primary()

    with socket.socket() as other, pytest.raises(OSError):  # noqa: PT011  # each system has its own words
        other.bind(("127.0.0.1", port))


def test_losing_the_primary_cuts_a_connection_that_waits_for_its_answer(standin: StandIn) -> None:
    blob = upload(standin)
    waiting, errors = threading.Event(), []

    def hang(exchange: Exchange) -> None:
        exchange.delay = 60
        waiting.set()

    def read() -> None:
        try:
            blob.download_blob()
        except Exception as error:
            errors.append(error)

    standin.interfere = hang
    reader = threading.Thread(target=read)
    reader.start()
    assert waiting.wait(10)
    standin.lose_primary()
    reader.join(10)

    assert not reader.is_alive()
    assert [type(error) for error in errors] == [ServiceResponseError]
    start = time.monotonic()
    standin.close()
    assert time.monotonic() - start < 1  # the delay is over, and so is its thread


def test_losing_the_primary_cuts_an_idle_connection(standin: StandIn) -> None:
    url = urlsplit(standin.primary_url)
    with socket.create_connection(("127.0.0.1", url.port or 0), timeout=10) as idle:
        idle.sendall(f"GET {url.path}/?restype=account&comp=properties&sig=x HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert idle.recv(4096).startswith(b"HTTP/1.1 200 ")

        standin.lose_primary()

        assert idle.recv(4096) == b""


def test_a_hook_may_lose_the_primary_in_the_middle_of_a_read(standin: StandIn) -> None:
    blob = upload(standin)
    standin.interfere = lambda _: standin.lose_primary()

    with pytest.raises((ServiceResponseError, ServiceRequestError)):
        blob.download_blob()


# Faults


def test_a_hook_answers_chosen_requests_with_another_status(standin: StandIn) -> None:
    blob = upload(standin)

    def busy(exchange: Exchange) -> None:
        if (exchange.request.endpoint, exchange.request.path) == ("primary", "/demo/HelloWorld"):
            exchange.fail(503)

    standin.interfere = busy
    with pytest.raises(HttpResponseError) as refused:
        blob.download_blob()
    assert refused.value.status_code == 503
    assert at_secondary(standin).download_blob().readall() == HELLO
    assert [(hit.endpoint, hit.status) for hit in standin.hits[-2:]] == [("primary", 503), ("secondary", 206)]

    standin.interfere = None

    assert blob.download_blob().readall() == HELLO


def test_a_body_breaks_off_after_so_many_bytes(standin: StandIn) -> None:
    upload(standin)
    url = urlsplit(standin.primary_url)

    def cut(exchange: Exchange) -> None:
        exchange.cut_after = 5

    standin.interfere = cut
    with closing(http.client.HTTPConnection("127.0.0.1", url.port, timeout=10)) as connection:
        connection.request("GET", f"{url.path}/demo/HelloWorld?sig=x")
        response = connection.getresponse()
        assert (response.status, response.getheader("Content-Length")) == (200, "13")
        with pytest.raises(http.client.IncompleteRead) as broken:
            response.read()

    assert broken.value.partial == b"Hello"


def test_a_delay_is_as_long_as_the_hook_says(standin: StandIn) -> None:
    def slow(exchange: Exchange) -> None:
        exchange.delay = 0.05

    standin.interfere = slow
    start = time.monotonic()
    raw(standin, "GET", "/?restype=account&comp=properties")

    assert time.monotonic() - start >= 0.05


def test_hits_tell_what_arrived_and_keep_no_secret(standin: StandIn) -> None:
    upload(standin)
    raw(standin, "GET", "/demo/HelloWorld?sig=secret&se=2030")

    assert standin.hits == [
        Hit("primary", "GET", "/demo", 404),
        Hit("primary", "PUT", "/demo", 201),
        Hit("primary", "PUT", "/demo/HelloWorld", 201),
        Hit("primary", "GET", "/demo/HelloWorld", 200),
    ]


# What it will not do


@pytest.mark.parametrize(
    ("method", "path", "headers", "named"),
    [
        ("GET", "/?restype=service&comp=properties", {}, "restype=service&comp=properties"),
        ("POST", "/?comp=batch", {"Content-Length": "0"}, "comp=batch"),
        ("PUT", "/demo/x?comp=snapshot", {"Content-Length": "0"}, "comp=snapshot"),
        ("PUT", "/demo/x", {"Content-Length": "0", "x-ms-blob-type": "PageBlob"}, "block blobs"),
        ("GET", "/demo/HelloWorld?snapshot=2030-01-01T00:00:00Z", {}, "snapshot"),
        ("GET", "/demo/HelloWorld", {"If-Modified-Since": "Tue, 14 Nov 2023 22:13:20 GMT"}, "if-modified-since"),
        ("GET", "/demo?restype=container&comp=list&include=metadata,tags", {}, "include"),
        ("GET", "/?comp=list&include=metadata", {}, "include"),
        ("GET", "/demo/x?delimiter=/", {}, "delimiter"),
    ],
)
def test_what_it_does_not_do_it_says(
    standin: StandIn, method: str, path: str, headers: dict[str, str], named: str
) -> None:
    upload(standin)
    url = urlsplit(standin.primary_url)
    with closing(http.client.HTTPConnection("127.0.0.1", url.port, timeout=10)) as connection:
        connection.request(method, url.path + path, headers={"Authorization": "SharedKey any:one", **headers})
        response = connection.getresponse()
        body = response.read().decode()

    assert response.status == 501
    assert response.getheader("x-ms-error-code") == "NotImplemented"
    assert "The stand-in account does not do this" in body
    assert named.replace("&", "&amp;") in body


def test_the_sdk_shows_that_message_to_its_user(standin: StandIn) -> None:
    with pytest.raises(HttpResponseError, match="The stand-in account does not do this"):
        upload(standin).create_snapshot()


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "code"),
    [
        ("GET", "/demo/HelloWorld", {"x-ms-range": "bytes=13-"}, 416, "InvalidRange"),
        ("GET", "/demo/HelloWorld", {"x-ms-range": "bytes=5-2"}, 400, "InvalidHeaderValue"),
        ("GET", "/demo/HelloWorld", {"x-ms-range-get-content-md5": "true"}, 400, "MissingRequiredHeader"),
        ("GET", "/demo?restype=container&comp=list&maxresults=0", {}, 400, "OutOfRangeQueryParameterValue"),
        ("PUT", "/demo/x", {"x-ms-blob-type": "BlockBlob", "Content-Length": "-1"}, 400, "InvalidHeaderValue"),
        ("PUT", "/demo/x", {"x-ms-blob-type": "BlockBlob", "Content-Length": "9" * 12}, 413, "RequestBodyTooLarge"),
        ("PUT", "/demo/x", {"Transfer-Encoding": "chunked"}, 501, "NotImplemented"),
        (
            "PUT",
            "/demo/x",
            {"x-ms-blob-type": "BlockBlob", "Content-Length": "0", "Content-MD5": "AAAA"},
            400,
            "Md5Mismatch",
        ),
        ("PUT", "/demo/x?comp=block&blockid=%21", {"Content-Length": "0"}, 400, "InvalidQueryParameterValue"),
        ("PUT", "/demo/x?comp=blocklist", {"Content-Length": "0"}, 400, "InvalidXmlDocument"),
        ("PUT", "/Demo?restype=container", {"Content-Length": "0"}, 400, "InvalidResourceName"),
        ("GET", "-secondary/demo/HelloWorld", {}, 400, "InvalidUri"),
        ("BREW", "/demo", {}, 501, "InvalidInput"),
    ],
)
def test_nonsense_is_refused_in_the_services_form(
    standin: StandIn, method: str, path: str, headers: dict[str, str], status: int, code: str
) -> None:
    upload(standin)
    response = raw(standin, method, path, headers)

    assert (response.status, response.getheader("x-ms-error-code")) == (status, code)
    assert response.getheader("Content-Type") == "application/xml"


def test_without_key_and_sas_the_answer_is_401(standin: StandIn) -> None:
    with BlobServiceClient(standin.primary_url, retry_total=0) as nobody, pytest.raises(HttpResponseError) as refused:
        nobody.get_blob_client("demo", "HelloWorld").download_blob()

    assert refused.value.status_code == 401


def test_the_sku_is_what_it_was_told() -> None:
    with StandIn(sku="Standard_LRS") as account:
        assert service(account).get_account_information()["sku_name"] == "Standard_LRS"


# The house


def test_it_listens_on_loopback_only(standin: StandIn) -> None:
    for url in (standin.primary_url, standin.secondary_url):
        port = urlsplit(url).port or 0
        # Another loopback address than ours: answers where a server listens on all addresses.
        with pytest.raises(OSError), socket.create_connection(("127.0.0.2", port), timeout=5):  # noqa: PT011  # refused, or no route
            pass


def test_closing_gives_back_ports_and_threads() -> None:
    before = set(threading.enumerate())
    with StandIn(0.0) as account:
        blob = upload(account)
        account.lose_primary()
        account.restore_primary()
        blob.download_blob().readall()
        at_secondary(account).download_blob().readall()
        ports = [urlsplit(url).port for url in (account.primary_url, account.secondary_url)]
        assert set(threading.enumerate()) > before

    assert set(threading.enumerate()) <= before
    for port in ports:
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the connections of before may linger
            other.bind(("127.0.0.1", port))
    account.close()
    with pytest.raises(RuntimeError, match="closed"):
        account.restore_primary()


def test_closing_while_a_client_hangs_is_fast() -> None:
    account = StandIn(0.0)
    upload(account, b"x" * 20_000_000)
    url = urlsplit(account.primary_url)
    with socket.create_connection(("127.0.0.1", url.port or 0), timeout=10) as hung:
        hung.sendall(f"GET {url.path}/demo/HelloWorld?sig=x HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert hung.recv(1)  # and never another byte
        with socket.create_connection(("127.0.0.1", url.port or 0), timeout=10) as half:
            half.sendall(f"PUT {url.path}/demo/x?sig=x HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf".encode())
            start = time.monotonic()
            account.close()

            assert time.monotonic() - start < 1


def test_a_client_that_goes_away_prints_nothing(
    standin: StandIn, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    upload(standin, b"x" * 20_000_000)
    url = urlsplit(standin.primary_url)
    for request in (f"GET {url.path}/demo/HelloWorld?sig=x HTTP/1.1\r\nHost: x\r\n\r\n", "NONSENSE\r\n\r\n", ""):
        with socket.create_connection(("127.0.0.1", url.port or 0), timeout=10) as rude:
            rude.sendall(request.encode())
            if request:
                rude.recv(1)
            linger = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)
            rude.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)  # close with a reset
    standin.close()  # every thread has ended, and has said what it had to

    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")
    assert [each for each in caplog.records if each.name.startswith("failover")] == []


def test_half_a_body_is_not_stored(standin: StandIn) -> None:
    blob = upload(standin)
    url = urlsplit(standin.primary_url)
    with socket.create_connection(("127.0.0.1", url.port or 0), timeout=10) as half:
        half.sendall(
            f"PUT {url.path}/demo/HelloWorld?sig=x HTTP/1.1\r\nHost: x\r\nx-ms-blob-type: BlockBlob\r\n"
            "Content-Length: 100\r\n\r\nhalf".encode()
        )
        half.shutdown(socket.SHUT_WR)
        assert half.recv(1) == b""

    assert blob.download_blob().readall() == HELLO


def test_a_bug_in_a_hook_is_logged(standin: StandIn, caplog: pytest.LogCaptureFixture) -> None:
    def broken(exchange: Exchange) -> None:
        raise ZeroDivisionError

    standin.interfere = broken
    with caplog.at_level(logging.ERROR, "failover.standin"), pytest.raises(http.client.RemoteDisconnected):
        raw(standin, "GET", "/?restype=account&comp=properties")

    standin.close()
    assert [record.exc_info and record.exc_info[0] for record in caplog.records] == [ZeroDivisionError]


def test_writers_and_readers_at_once_see_whole_blobs(standin: StandIn) -> None:
    blob = upload(standin, b"0" * 1000)
    torn: list[bytes] = []

    def write(digit: bytes) -> None:
        for _ in range(20):
            service(standin).get_blob_client("demo", "HelloWorld").upload_blob(digit * 1000, overwrite=True)

    def read() -> None:
        for _ in range(40):
            content = blob.download_blob().readall()
            if len(set(content)) != 1 or len(content) != 1000:
                torn.append(content)

    threads = [threading.Thread(target=write, args=(digit,)) for digit in (b"1", b"2")]
    threads += [threading.Thread(target=read) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert torn == []


def test_the_key_is_new_each_time_and_is_not_shown(standin: StandIn) -> None:
    with StandIn() as other:
        assert other.account_key != standin.account_key
    assert standin.account_key not in repr(standin)
    assert standin.account_key in standin.connection_string
    assert f"BlobSecondaryEndpoint={standin.secondary_url};" in standin.connection_string
