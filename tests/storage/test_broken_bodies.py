"""Bodies that break as only a socket of our own can break them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytest
from azure.core.exceptions import AzureError, IncompleteReadError

from failover.breaker import ConsecutiveFailures, Policy
from failover.standin import StandIn
from failover.storage import BothEndpointsDown, GeoFailover, ReadEnded
from tests.storage.account import CONTENT, MIB, store
from tests.storage.clients import BLOCK, TEACHING, blob_of, forbid_sleep, replace_sdk_sleep
from tests.storage.raw_server import Answer, Asked, Pair, RawServer, ranged


@pytest.fixture(autouse=True)
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_sleep(monkeypatch)


@pytest.fixture
def policy(geo_failover: Any) -> Any:
    return geo_failover(retry=None, policy=TEACHING)


def misbehave(
    first: Callable[[Asked], Answer], *, content: bytes = CONTENT, path: str = "/devstoreaccount1"
) -> RawServer:
    """A server whose first answer is `first`'s and whose others are good."""
    once = threading.Semaphore(1)

    def answer(asked: Asked) -> Answer:
        return first(asked) if once.acquire(blocking=False) else ranged(content, asked)

    return RawServer(answer, path=path)


@pytest.fixture
def good() -> Iterator[RawServer]:
    with RawServer(lambda asked: ranged(CONTENT, asked), path="/devstoreaccount1-secondary") as server:
        yield server


def chunked(asked: Asked, *, whole: bool = True, etag: str = '\nETag: "0x1"') -> Answer:
    """A body in two chunks, without a length; not whole: without its second half."""
    half = len(CONTENT) // 2
    parts = [CONTENT[:half], CONTENT[half:]] if whole else [CONTENT[:half]]
    body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts)
    head = (
        f"HTTP/1.1 206 Partial Content{etag}\nContent-Range: bytes 0-{len(CONTENT) - 1}/{len(CONTENT)}"
        "\nx-ms-blob-type: BlockBlob\nTransfer-Encoding: chunked"
    )
    return Answer(head, body + b"0\r\n\r\n" if whole else body, then="keep" if whole else "close")


def test_a_body_in_chunks(policy: Any, good: RawServer) -> None:
    with misbehave(chunked) as primary:
        pair = Pair(primary, good)
        assert blob_of(pair, policy).download_blob().readall() == CONTENT
        assert pair.trail() == "1 at the primary, 0 at the secondary"


def test_a_body_in_chunks_that_breaks(policy: Any, good: RawServer) -> None:
    with misbehave(lambda asked: chunked(asked, whole=False)) as primary:
        pair = Pair(primary, good)
        assert blob_of(pair, policy).download_blob().readall() == CONTENT
        assert pair.trail() == "1 at the primary, 1 at the secondary"
        assert good.asked[0].headers["if-match"] == '"0x1"'
        assert policy.primary.snapshot()["failures"] == 1


def test_the_rest_of_a_range_is_asked_for_without_a_digest(policy: Any, good: RawServer) -> None:
    # Asked for a digest, this primary gives none, so that the body is not read before the SDK has it.
    with misbehave(lambda asked: chunked(asked, whole=False)) as primary:
        content = blob_of(Pair(primary, good), policy).download_blob(validate_content=True).readall()

    assert content == CONTENT
    assert "x-ms-range-get-content-md5" in primary.asked[0].headers
    assert "x-ms-range-get-content-md5" not in good.asked[0].headers


def test_a_break_after_the_last_byte_costs_nothing_but_a_count(policy: Any, good: RawServer) -> None:
    def unfinished(asked: Asked) -> Answer:
        answer = chunked(asked)
        return Answer(answer.head, answer.body.removesuffix(b"0\r\n\r\n"), then="close")

    with misbehave(unfinished) as primary:
        pair = Pair(primary, good)
        assert blob_of(pair, policy).download_blob().readall() == CONTENT
        assert pair.trail() == "1 at the primary, 0 at the secondary"
        assert policy.primary.snapshot()["failures"] == 1


def test_the_sdks_own_request_stays_as_it_was(policy: Any, good: RawServer) -> None:
    with misbehave(lambda asked: chunked(asked, whole=False)) as primary:
        client: Any = blob_of(Pair(primary, good), policy)
        span = f"bytes=0-{MIB - 1}"
        answer, body = client._client.blob.download(range=span, cls=lambda answer, body, _headers: (answer, body))
        assert b"".join(body) == CONTENT

    headers = answer.http_response.request.headers
    assert (headers["x-ms-range"], headers.get("If-Match")) == (span, None)


def test_a_body_that_ends_with_its_connection_is_measured(policy: Any, good: RawServer) -> None:
    def cut_short(asked: Asked) -> Answer:
        answer = ranged(CONTENT, asked, length=False)
        return Answer(answer.head, answer.body[:5000], then="close")

    with misbehave(cut_short) as primary:
        pair = Pair(primary, good)
        assert blob_of(pair, policy).download_blob().readall() == CONTENT
        assert pair.trail() == "1 at the primary, 1 at the secondary"
        assert good.asked[0].span == (5000, MIB - 1)


def test_a_body_in_chunks_that_ends_too_early_is_measured(policy: Any, good: RawServer) -> None:
    def cut_short(asked: Asked) -> Answer:
        answer = ranged(CONTENT, asked, length=False, extra="\nTransfer-Encoding: chunked")
        return Answer(answer.head, b"1388\r\n%b\r\n0\r\n\r\n" % answer.body[:5000])

    with misbehave(cut_short) as primary:
        pair = Pair(primary, good)
        assert blob_of(pair, policy).download_blob().readall() == CONTENT
        assert pair.trail() == "1 at the primary, 1 at the secondary"
        assert good.asked[0].span == (5000, MIB - 1)


@pytest.mark.parametrize("then", ["reset", "close"])
@pytest.mark.parametrize("sent", [0, BLOCK + 1])
def test_a_connection_that_is_reset(policy: Any, good: RawServer, then: Literal["reset", "close"], sent: int) -> None:
    def half(asked: Asked) -> Answer:
        answer = ranged(CONTENT, asked)
        return Answer(answer.head, answer.body[:sent], then=then)

    with misbehave(half) as primary:
        pair = Pair(primary, good)
        assert blob_of(pair, policy).download_blob().readall() == CONTENT
        assert pair.trail() == "1 at the primary, 1 at the secondary"


def hang_after(size: int, extra: str = "") -> Callable[[Asked], Answer]:
    def hang(asked: Asked) -> Answer:
        answer = ranged(CONTENT, asked, extra=extra)
        return Answer(answer.head, answer.body[:size], then="hang")

    return hang


@pytest.mark.parametrize("options", [{}, {"decompress": False}])
def test_bodies_that_hang_at_both_endpoints_go_on_in_turn(options: dict[str, Any], geo_failover: Any) -> None:
    policy = geo_failover(retry=None, policy=TEACHING, attempt_timeout=0.3)
    hang = hang_after(BLOCK + 1)
    with RawServer(hang) as primary, RawServer(hang, path="/devstoreaccount1-secondary") as secondary:
        pair = Pair(primary, secondary)
        assert blob_of(pair, policy).download_blob(**options).readall() == CONTENT
        assert pair.trail() == "2 at the primary, 2 at the secondary"
        assert policy.primary.snapshot()["last_error"] == "no answer within 0.3 s"
        assert policy.secondary.snapshot()["failures"] == 0  # it has sent the end


def test_bodies_that_hang_at_both_endpoints_and_give_nothing_end_as_the_sdks(
    monkeypatch: pytest.MonkeyPatch, geo_failover: Any
) -> None:
    replace_sdk_sleep(monkeypatch, lambda _: None)
    policy = geo_failover(retry=None, policy=Policy(trip=ConsecutiveFailures(100)))
    hang = hang_after(0)
    with RawServer(hang) as primary, RawServer(hang, path="/devstoreaccount1-secondary") as secondary:
        pair = Pair(primary, secondary)
        with pytest.raises(AzureError):
            blob_of(pair, policy, read_timeout=0.3).download_blob()
    # Each has been asked in vain: three times over, or once by older SDKs. A head that comes late costs one more.
    assert 3 <= len(primary.asked) + len(secondary.asked) <= 12


def test_a_checked_body_that_hangs_is_not_asked_of_the_same_endpoint_again(geo_failover: Any) -> None:
    policy = geo_failover(retry=None, policy=TEACHING)
    hang = hang_after(BLOCK + 1, "\nContent-MD5: AAAA")
    with RawServer(hang) as primary, RawServer(hang, path="/devstoreaccount1-secondary") as secondary:
        pair = Pair(primary, secondary)
        with pytest.raises(BothEndpointsDown, match=r"Primary: no answer within 0.3 s. Secondary: no answer within"):
            blob_of(pair, policy, read_timeout=0.3).download_blob(validate_content=True)
        assert pair.trail() == "1 at the primary, 1 at the secondary"
        assert policy.primary.snapshot()["failures"] == policy.secondary.snapshot()["failures"] == 1


def test_a_checked_body_that_hangs_is_not_retried_where_the_sdk_would_not() -> None:
    """What requests raises of a body is no `AzureError`, and the SDK's retry judges no other."""
    hang = hang_after(BLOCK + 1, "\nContent-MD5: AAAA")
    with RawServer(hang) as primary, RawServer(hang, path="/devstoreaccount1-secondary") as secondary:
        pair = Pair(primary, secondary)
        with pytest.raises(BothEndpointsDown, match=r"Primary: no answer within 0.3 s. Secondary: no answer within"):
            blob_of(pair, GeoFailover(), read_timeout=0.3).download_blob(validate_content=True)
        assert pair.trail() == "1 at the primary, 1 at the secondary"


@pytest.mark.parametrize("etag", ["", '\nETag: W/"0x1"'])
def test_without_an_etag_nothing_is_pieced_together(
    good: RawServer, etag: str, monkeypatch: pytest.MonkeyPatch, geo_failover: Any
) -> None:
    # The SDK begins again, as it would without us: all that is lost is its second.
    replace_sdk_sleep(monkeypatch, lambda _: None)
    policy = geo_failover(retry=None, policy=TEACHING)
    with misbehave(lambda asked: chunked(asked, whole=False, etag=etag)) as primary:
        pair = Pair(primary, good)
        assert blob_of(pair, policy).download_blob().readall() == CONTENT
        assert pair.trail() == "2 at the primary, 0 at the secondary"
        assert policy.primary.snapshot()["failures"] == 0


def test_a_body_framed_with_checksums_of_its_own_is_not_pieced_together(good: RawServer, geo_failover: Any) -> None:
    def half(asked: Asked) -> Answer:
        answer = ranged(CONTENT, asked, extra="\nx-ms-structured-body: XSM/1.0; properties=crc64")
        return Answer(answer.head, answer.body[: BLOCK + 1], then="close")

    heard: list[object] = []
    with misbehave(half) as primary:
        client: Any = blob_of(Pair(primary, good), geo_failover(retry=None, policy=TEACHING, listeners=[heard.append]))
        with pytest.raises(IncompleteReadError):
            list(client._client.blob.download())

    assert not good.asked
    assert [each.endpoint for each in heard if isinstance(each, ReadEnded)] == [None]


@pytest.mark.parametrize(
    "lie",
    [
        lambda _: ranged(CONTENT, Asked("GET", "", {})),  # from the beginning, whatever was asked
        lambda asked: ranged(CONTENT, asked, etag='"0x2"'),
        lambda asked: ranged(CONTENT + b"more", Asked("GET", "", {"range": f"bytes={asked.span[0]}-"})),
        lambda asked: ranged(CONTENT, asked, extra="\nContent-Encoding: gzip"),
        lambda _: Answer("HTTP/1.1 200 OK\nContent-Length: 2", b"no"),
    ],
)
def test_an_answer_that_does_not_continue_is_not_used(policy: Any, lie: Callable[[Asked], Answer]) -> None:
    def half(asked: Asked) -> Answer:
        answer = ranged(CONTENT, asked)
        return Answer(answer.head, answer.body[: BLOCK + 1], then="close")

    with misbehave(half) as primary, RawServer(lie, path="/devstoreaccount1-secondary") as secondary:
        pair = Pair(primary, secondary)
        assert blob_of(pair, policy).download_blob().readall() == CONTENT
        assert pair.trail() == "2 at the primary, 1 at the secondary"


def test_an_empty_body_is_whole(standin: StandIn, policy: Any) -> None:
    store(standin, b"")
    blob = blob_of(standin, policy, "HelloWorld")

    assert blob.download_blob().readall() == b""
    assert policy.primary.snapshot()["failures"] == 0
