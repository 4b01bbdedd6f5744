"""The same policy in azure-storage-queue, as far as its reads are reads: against Azurite, behind a port that dies."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from azure.core.exceptions import AzureError, ClientAuthenticationError

from failover.breaker import State
from failover.standin import StandIn
from tests.servers import Azurite, credential
from tests.storage.account import HELLO, Trail, plain, store
from tests.storage.clients import TEACHING, blob_of, container_of, lone_blob_of, make, noting_transport
from tests.storage.raw_server import Relay


@pytest.fixture
def relay(azurite: Azurite) -> Iterator[Relay]:
    relay = Relay(azurite.queue_url)
    yield relay
    relay.lose()


@pytest.fixture
def policy(geo_failover: Any) -> Any:
    return geo_failover(retry=None, policy=TEACHING)


@pytest.fixture
def transport(policy: Any) -> Any:
    return noting_transport(policy)


@pytest.fixture
def queue(azurite: Azurite, relay: Relay, policy: Any, transport: Any) -> Any:
    service = make(
        "QueueServiceClient",
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


def to_secondary(transport: Any) -> list[bool]:
    """Of each request sent since the last look, whether it went to the secondary."""
    sent = ["-secondary/" in url for _, url in transport.sent]
    transport.sent.clear()
    return sent


def test_a_peek_is_a_read(queue: Any, relay: Relay, policy: Any, transport: Any) -> None:
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
    queue: Any,
    relay: Relay,
    policy: Any,
    transport: Any,
) -> None:
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


def test_a_key_that_cannot_sign_is_nobodys_failure(standin: StandIn, geo_failover: Any) -> None:
    policy, other = geo_failover(), geo_failover()
    waits, others = noting_transport(policy), noting_transport(other)
    key = {"account_name": "devstoreaccount1", "account_key": "x"}
    given = {"credential": key, "retry_policy": policy, "transport": waits}
    jobs = make("QueueClient", standin.primary_url, "jobs", **given)
    blob = lone_blob_of(standin, other, credential=key, transport=others)

    for call in (
        jobs.peek_messages,
        jobs.receive_message,
        lambda: jobs.send_message("x"),
        blob.exists,
        lambda: blob.upload_blob(b"x"),
    ):
        with pytest.raises(ClientAuthenticationError):
            call()

    assert not waits.slept + others.slept
    assert not standin.hits
    assert not [each for each in (policy, other) if each.primary.snapshot()["failures"]]
    assert not [each for each in (policy, other) if each.secondary.snapshot()["failures"]]


def test_stats_of_the_queue_service(azurite: Azurite, relay: Relay, policy: Any, transport: Any) -> None:
    service = make(
        "QueueServiceClient",
        relay.url,
        credential=credential(azurite),
        secondary_hostname=azurite.queue_url.partition("://")[2] + "-secondary",
        retry_policy=policy,
        transport=transport,
    )

    assert service.get_service_stats()["geo_replication"]["status"] == "live"
    assert "-secondary" in transport.sent[0][1]


def test_a_blob_or_a_container_named_messages_is_read_like_any_other(
    standin: StandIn, policy: Any, geo_failover: Any
) -> None:
    store(standin, HELLO, "messages")
    with plain(standin) as service:
        service.create_container("messages").upload_blob("b", HELLO)
    blob = blob_of(standin, policy, "messages")
    policy.primary.trip()
    trail = Trail(standin)

    assert blob.download_blob().readall() == HELLO
    container = container_of(standin, geo_failover(policy.primary, policy.secondary), "messages")
    assert [each.name for each in container.list_blobs()] == ["b"]
    assert container.get_container_properties().name == "messages"

    assert trail.look() == "SSS"
