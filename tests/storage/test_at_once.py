"""Short bodies, which are read at once: whole in memory however they are opened, or asked of the other endpoint."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from typing import Any

import pytest
from azure.core.pipeline.transport import HttpRequest as FirstKindOfRequest
from azure.core.rest import HttpRequest
from azure.storage.blob import ContentSettings

from failover.breaker import AfterCalls, Policy, State
from failover.standin import StandIn
from failover.storage import BothEndpointsDown, GeoFailover, at_once
from tests.storage.raw import (
    BLOCK,
    HELLO,
    TEACHING,
    Answer,
    Asked,
    Pair,
    RawServer,
    Trail,
    blob_of,
    connect,
    cut,
    forbid_sleep,
    ranged,
    spoil,
    store,
)

JSON = b'{"told": "in JSON"}'


@pytest.fixture(autouse=True)
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    forbid_sleep(monkeypatch)


@pytest.fixture
def policy() -> GeoFailover:
    return GeoFailover(policy=TEACHING)


@pytest.mark.parametrize("after", [0, 5, BLOCK - 1])
def test_one_that_breaks_comes_from_the_other_endpoint(standin: StandIn, policy: GeoFailover, after: int) -> None:
    content = (HELLO * BLOCK)[:BLOCK]
    store(standin, content)
    spoil(standin, cut(after), times=1)
    trail = Trail(standin)
    blob = blob_of(standin, policy)

    assert blob.download_blob().readall() == content
    assert trail.look() == "PS"
    assert policy.primary.snapshot()["failures"] == 1
    assert policy.primary.snapshot()["last_error"] == "the body broke off"
    assert blob.download_blob().readall() == content
    assert trail.look() == "P"
    assert policy.primary.snapshot()["failures"] == 0


def test_one_that_breaks_at_both(standin: StandIn, policy: GeoFailover) -> None:
    store(standin)
    spoil(standin, cut(3), at="primary+secondary")
    with pytest.raises(BothEndpointsDown, match=r"Primary: .*the body broke off.*Secondary: the body broke off"):
        blob_of(standin, policy).download_blob()


def test_it_is_the_answer_before_anybody_reads_it(standin: StandIn) -> None:
    store(standin)
    policy = GeoFailover(policy=Policy(recovery=AfterCalls(1)))
    client: Any = blob_of(standin, policy)
    policy.primary.trip()
    client.exists()

    body = client._client.blob.download()
    assert policy.primary.state is State.CLOSED
    standin.lose_primary()
    assert next(body) == HELLO


def test_an_interrupted_read_gives_the_probes_place_back(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    store(standin)
    policy = GeoFailover(policy=Policy(recovery=AfterCalls(1)))
    client = blob_of(standin, policy)
    policy.primary.trip()
    client.exists()

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(at_once, "timed", interrupt)
        with pytest.raises(KeyboardInterrupt):
            client.download_blob()
    policy.primary.admit().released()  # at once, and not when the collector comes round
    assert client.download_blob().readall() == HELLO
    assert policy.primary.state is State.CLOSED


OPENERS: dict[str, Callable[[Any], object]] = {
    "read": lambda answer: answer.read(),
    "content": lambda answer: (answer.read(), answer.content)[1],
    "text": lambda answer: (answer.read(), answer.text().encode())[1],
    "json": lambda answer: answer.read() and answer.json() == {"told": "in JSON"} and JSON,
    "iter_bytes": lambda answer: b"".join(answer.iter_bytes()),
    "iter_raw": lambda answer: b"".join(answer.iter_raw()),
    "stream_download": lambda answer: b"".join(answer.stream_download(None)),
    "stream_download undecoded": lambda answer: b"".join(answer.stream_download(None, decompress=False)),
    "body": lambda answer: answer.body(),
    "twice": lambda answer: answer.body() and answer.body(),
}


@pytest.mark.parametrize("way", list(OPENERS))
def test_it_is_whole_however_it_is_opened(standin: StandIn, policy: GeoFailover, way: str) -> None:
    store(standin, JSON)
    with connect(standin, policy) as service:
        blob: Any = service.get_blob_client("demo", "HelloWorld")
        answer = blob._client._client.send_request(HttpRequest("GET", blob.url), stream=True)
        assert OPENERS[way](answer) == JSON
        answer.close()
        assert service.get_blob_client("demo", "HelloWorld").exists()


@pytest.mark.parametrize("way", ["body", "text", "stream_download", "stream_download undecoded", "twice"])
def test_so_it_is_in_azure_cores_first_kind_of_response(standin: StandIn, policy: GeoFailover, way: str) -> None:
    openers = {**OPENERS, "text": lambda answer: answer.text().encode()}
    store(standin, JSON)
    with connect(standin, policy) as service:
        blob: Any = service.get_blob_client("demo", "HelloWorld")
        answer = blob._pipeline.run(FirstKindOfRequest("GET", blob.url), stream=True).http_response
        assert not hasattr(answer, "iter_raw")
        assert openers[way](answer) == JSON  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("decompress", [True, False])
def test_a_compressed_one_is_its_readers_to_decode(standin: StandIn, policy: GeoFailover, decompress: bool) -> None:
    packed = gzip.compress(JSON)
    store(standin, packed, content_settings=ContentSettings(content_encoding="gzip"))

    read = blob_of(standin, policy).download_blob(decompress=decompress).readall()

    assert read == (JSON if decompress else packed)


def test_without_a_length_it_may_be_of_any(policy: GeoFailover) -> None:
    def chunks(asked: Asked) -> Answer:
        answer = ranged(HELLO, asked, length=False, extra="\nTransfer-Encoding: chunked")
        return Answer(answer.head, b"%x\r\n%s\r\n0\r\n\r\n" % (len(answer.body), answer.body))

    with RawServer(chunks) as primary, RawServer(chunks) as secondary:
        pair = Pair(primary, secondary)
        assert blob_of(pair, policy).download_blob().readall() == HELLO
        assert blob_of(pair, GeoFailover()).download_blob().readall() == HELLO
        assert pair.trail() == "2 at the primary, 0 at the secondary"


def test_connections_are_used_again(policy: GeoFailover) -> None:
    with RawServer(lambda asked: ranged(HELLO, asked)) as primary, RawServer(lambda _: Answer("")) as secondary:
        blob = blob_of(Pair(primary, secondary), policy)
        for _ in range(5):
            assert blob.download_blob().readall() == HELLO
        blob.download_blob()  # which nobody reads
        assert blob.download_blob().readall() == HELLO
        assert (primary.connections, len(primary.asked)) == (1, 7)


def test_a_failure_meanwhile_is_made_good(standin: StandIn, policy: GeoFailover) -> None:
    # The circuit was calm when the read began, and is not when it ends.
    store(standin)
    blob = blob_of(standin, policy)
    spoil(standin, lambda _: policy.primary.admit().failed(OSError("another's")), times=1)

    assert blob.download_blob().readall() == HELLO

    assert policy.primary.snapshot()["last_error"] == "OSError: another's"
    assert policy.primary.snapshot()["failures"] == 0
