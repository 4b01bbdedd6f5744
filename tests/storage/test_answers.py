"""Answers to another question than was asked, redirects, and what a Retry-After is worth."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from failover.breaker import ConsecutiveFailures, Cooldown, Policy
from tests.storage.account import CONTENT, HELLO, KIB
from tests.storage.clients import TEACHING, blob_of
from tests.storage.raw_server import Answer, Asked, Pair, RawServer, ranged

SECOND = "/devstoreaccount1-secondary"


def ask(answer: Callable[[Asked], Answer], policy: Any, content: bytes = HELLO, **options: Any) -> tuple[bytes, Pair]:
    """Read a blob whose primary answers so, and whose secondary is well."""
    with RawServer(answer) as primary, RawServer(lambda asked: ranged(content, asked), path=SECOND) as secondary:
        pair = Pair(primary, secondary)
        return blob_of(pair, policy, **options).download_blob().readall(), pair


def test_a_redirect_is_followed_and_counts_neither_way(geo_failover: Any) -> None:
    def answer(asked: Asked) -> Answer:
        if asked.target.endswith("/HelloWorld"):
            return Answer("HTTP/1.1 302 Found\nLocation: /devstoreaccount1/demo/Moved\nContent-Length: 0")
        return ranged(HELLO, asked)

    policy = geo_failover(retry=None, policy=TEACHING)
    policy.primary.admit().failed(ConnectionError())
    content, pair = ask(answer, policy)

    assert content == HELLO
    assert pair.trail() == "2 at the primary, 0 at the secondary"
    assert policy.primary.snapshot()["failures"] == 0  # by the answer behind the redirect


@pytest.mark.parametrize("way", ["download", "properties", "upload"])
def test_a_redirect_to_another_host_leads_where_the_sdk_goes(way: str, geo_failover: Any) -> None:
    def serve(asked: Asked) -> Answer:
        answer = ranged(HELLO, asked)
        if asked.method == "GET":
            return answer
        status = {"HEAD": "200 OK", "PUT": "201 Created"}[asked.method]
        return Answer(f'HTTP/1.1 {status}\nETag: "0x1"\nContent-Length: 0')

    def moved(asked: Asked) -> Answer:
        location = f"http://127.0.0.1:{other.port}{asked.target}"
        return Answer(f"HTTP/1.1 307 Temporary Redirect\nLocation: {location}\nContent-Length: 0")

    policy = geo_failover(retry=None, policy=TEACHING)
    with RawServer(serve) as other, RawServer(moved) as primary, RawServer(serve, path=SECOND) as secondary:
        pair = Pair(primary, secondary)
        blob = blob_of(pair, policy)
        if way == "download":
            assert blob.download_blob().readall() == HELLO
        else:
            found = blob.get_blob_properties() if way == "properties" else blob.upload_blob(HELLO, overwrite=True)
            assert found["etag"] == '"0x1"'
        assert pair.trail() == "1 at the primary, 0 at the secondary"
        assert len(other.asked) == 1
    assert policy.primary.snapshot()["failures"] == 0


def test_redirects_without_end_are_a_failure(geo_failover: Any) -> None:
    def answer(asked: Asked) -> Answer:
        return Answer(f"HTTP/1.1 302 Found\nLocation: {asked.target}x\nContent-Length: 0")

    policy = geo_failover(retry=None, policy=TEACHING)
    policy.primary.admit().failed(ConnectionError())
    content, pair = ask(answer, policy)

    assert content == HELLO
    assert pair.trail() == "7 at the primary, 1 at the secondary"
    assert policy.primary.snapshot()["failures"] == 3


@pytest.mark.parametrize("etag", ['\nETag: "0x2"', ""])
def test_a_later_range_of_another_version_is_not_used(etag: str, geo_failover: Any) -> None:
    def answer(asked: Asked) -> Answer:
        good = ranged(CONTENT, asked)
        if asked.span and asked.span[0] == 256 * KIB:
            return Answer(good.head.replace('\nETag: "0x1"', etag), bytes(len(good.body)))
        return good

    policy = geo_failover(retry=None, policy=TEACHING)
    content, pair = ask(answer, policy, CONTENT, max_single_get_size=256 * KIB, max_chunk_get_size=256 * KIB)

    assert content == CONTENT
    assert pair.trail() == "5 at the primary, 1 at the secondary"


def test_a_compressed_answer_may_have_another_length(geo_failover: Any) -> None:
    def answer(asked: Asked) -> Answer:
        good = ranged(HELLO, asked, length=False)
        return Answer(good.head + "\nContent-Encoding: deflate\nContent-Length: 15", bytes.fromhex(DEFLATED))

    policy = geo_failover(retry=None, policy=TEACHING)
    content, pair = ask(answer, policy)

    assert content == HELLO
    assert pair.trail() == "1 at the primary, 0 at the secondary"


DEFLATED = "f348cdc9c9d75108cf2fca49510400"  # HELLO


@pytest.mark.parametrize(("header", "least", "most"), [("", 0, 30), ("120", 100, 120), ("9999", 200, 300)])
def test_a_retry_after_lengthens_the_cooldown(header: str, least: float, most: float, geo_failover: Any) -> None:
    def answer(_: Asked) -> Answer:
        return Answer("HTTP/1.1 503 Busy\nContent-Length: 0" + (f"\nRetry-After: {header}" if header else ""))

    policy = geo_failover(
        retry=None, policy=Policy(trip=ConsecutiveFailures(2), recovery=Cooldown(30.0, factor=2.0, maximum=300.0))
    )
    content, _ = ask(answer, policy)

    assert content == HELLO
    assert least < policy.primary.snapshot()["retry_after"] <= most
