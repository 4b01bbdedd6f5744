"""The same policy in azure-storage-queue, as far as its reads are reads: against Azurite, behind a port that dies."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest
from azure.core.exceptions import AzureError, ClientAuthenticationError
from azure.core.pipeline.transport import HttpTransport
from azure.storage.queue import QueueClient, QueueServiceClient

from failover.breaker import State
from failover.standin import StandIn
from failover.storage import GeoFailover
from tests.servers import Azurite, credential
from tests.storage.raw import HELLO, TEACHING, NotingTransport, Relay, Trail, blob_of, container_of, plain, store


@pytest.fixture
def relay(azurite: Azurite) -> Iterator[Relay]:
    relay = Relay(azurite.queue_url)
    yield relay
    relay.lose()


@pytest.fixture
def policy() -> GeoFailover:
    return GeoFailover(policy=TEACHING)


@pytest.fixture
def transport() -> NotingTransport:
    return NotingTransport()


@pytest.fixture
def queue(azurite: Azurite, relay: Relay, policy: GeoFailover, transport: NotingTransport) -> QueueClient:
    service = QueueServiceClient(
        relay.url,
        credential=credential(azurite),
        secondary_hostname=azurite.queue_url.partition("://")[2] + "-secondary",
        retry_policy=policy,
        transport=transport,
    )
    queue = service.create_queue(f"jobs-{uuid.uuid4().hex}")
    queue.send_message("first")
    queue.send_message("second")
    transport.sent.clear()
    return queue


def to_secondary(transport: NotingTransport) -> list[bool]:
    """Of each request sent since the last look, whether it went to the secondary."""
    sent = ["-secondary/" in url for _, url in transport.sent]
    transport.sent.clear()
    return sent


def test_a_peek_is_a_read(queue: QueueClient, relay: Relay, policy: GeoFailover, transport: NotingTransport) -> None:
    assert [each.content for each in queue.peek_messages(2)] == ["first", "second"]
    assert to_secondary(transport) == [False]
    relay.lose()

    assert [each.content for each in queue.peek_messages(2)] == ["first", "second"]
    assert to_secondary(transport) == [False, False, True]
    assert queue.get_queue_properties().approximate_message_count == 2
    assert to_secondary(transport) == [False, False, True]
    assert queue.peek_messages()[0].content == "first"
    assert to_secondary(transport) == [False, True]
    assert policy.primary.state is State.OPEN


def test_receiving_is_no_read(
    queue: QueueClient,
    relay: Relay,
    policy: GeoFailover,
    transport: NotingTransport,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(HttpTransport, "sleep", lambda _self, _seconds: None)
    policy.primary.isolate()
    first = queue.receive_message()
    assert first is not None
    assert first.content == "first"
    assert [each.content for each in queue.receive_messages()] == ["second"]
    queue.delete_message(first)
    assert not any(to_secondary(transport))
    policy.primary.reset()
    relay.lose()

    with pytest.raises(AzureError):
        queue.receive_message()
    assert not any(to_secondary(transport))
    with pytest.raises(AzureError):
        queue.receive_message(retry_total=0)
    assert to_secondary(transport) == [False]
    assert policy.primary.snapshot()["failures"] == 0


def test_a_key_that_cannot_sign_is_nobodys_failure(
    policy: GeoFailover, standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr(HttpTransport, "sleep", lambda _self, seconds: slept.append(seconds))
    key = {"account_name": "devstoreaccount1", "account_key": "x"}
    jobs = QueueServiceClient(standin.primary_url, credential=key, retry_policy=policy).get_queue_client("jobs")
    blob = blob_of(standin, GeoFailover(policy.primary, policy.secondary), credential=key)

    for call in (
        jobs.peek_messages,
        jobs.receive_message,
        lambda: jobs.send_message("x"),
        blob.exists,
        lambda: blob.upload_blob(b"x"),
    ):
        with pytest.raises(ClientAuthenticationError):
            call()

    assert not slept
    assert not standin.hits
    assert policy.primary.snapshot()["failures"] == policy.secondary.snapshot()["failures"] == 0


def test_stats_of_the_queue_service(
    azurite: Azurite, relay: Relay, policy: GeoFailover, transport: NotingTransport
) -> None:
    service = QueueServiceClient(
        relay.url,
        credential=credential(azurite),
        secondary_hostname=azurite.queue_url.partition("://")[2] + "-secondary",
        retry_policy=policy,
        transport=transport,
    )

    assert service.get_service_stats()["geo_replication"]["status"] == "live"
    assert "-secondary" in transport.sent[0][1]


def test_a_blob_or_a_container_named_messages_is_read_like_any_other(standin: StandIn, policy: GeoFailover) -> None:
    store(standin, HELLO, "messages")
    with plain(standin) as service:
        service.create_container("messages").upload_blob("b", HELLO)
    blob = blob_of(standin, policy, "messages")
    policy.primary.trip()
    trail = Trail(standin)

    assert blob.download_blob().readall() == HELLO
    container = container_of(standin, GeoFailover(policy.primary, policy.secondary), "messages")
    assert [each.name for each in container.list_blobs()] == ["b"]
    assert container.get_container_properties().name == "messages"

    assert trail.look() == "SSS"
