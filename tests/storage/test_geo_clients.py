"""What a GeoFailover is given, who may share what, and what many threads and connections make of it."""

from __future__ import annotations

import inspect
import math
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from azure.core.exceptions import AzureError

from failover.breaker import AfterCalls, CircuitBreaker, ConsecutiveFailures, Cooldown, Policy, State
from failover.standin import StandIn
from failover.storage import PRODUCTION, BothEndpointsDown, GeoFailover, NotReplicated
from tests.storage.raw import (
    HELLO,
    TEACHING,
    Answer,
    NotingTransport,
    Pair,
    RawServer,
    Trail,
    blob_of,
    connect,
    delay,
    ranged,
    spoil,
    status,
    store,
)

# Settings


def test_default_policies_are_for_production() -> None:
    policy = GeoFailover()

    cooldown = Cooldown(30.0, factor=2.0, maximum=300.0, jitter=0.1)
    expected = Policy(trip=ConsecutiveFailures(5), recovery=cooldown)
    assert policy.primary.policy == policy.secondary.policy == expected == PRODUCTION
    assert (policy.primary.name, policy.secondary.name) == ("primary", "secondary")
    assert policy.primary is not policy.secondary
    parameters = inspect.signature(GeoFailover).parameters
    assert [(name, each.default) for name, each in parameters.items() if name != "clock"] == [
        ("primary", None),
        ("secondary", None),
        ("policy", None),
        ("primary_attempts", 2),
        ("backoff", 0.0),
        ("attempt_timeout", 5.0),
        ("max_staleness", None),
        ("listeners", ()),
    ]
    assert all(each.kind is each.KEYWORD_ONLY for name, each in parameters.items() if "ary" not in name[-3:])


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("primary_attempts", [0, -1, True, 2.5, "3", math.nan]),
        ("backoff", [-0.1, math.nan, math.inf, "1", True, None]),
        ("attempt_timeout", [0, 0.0, -1, math.nan, math.inf, "1", True, None]),
        ("max_staleness", [0, -1, math.nan, math.inf, "1", True]),
        ("listeners", [["no callable"]]),
        ("primary", ["primary", 1]),
        ("secondary", [object()]),
        ("policy", [TEACHING.trip, "fast"]),
    ],
)
def test_nonsense_raises_and_names_the_field(field: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ValueError, match=f"^{field} must"):
            GeoFailover(**{field: value})


def test_circuits_that_contradict_each_other_raise() -> None:
    circuit, other = CircuitBreaker("a"), CircuitBreaker("b")
    with pytest.raises(ValueError, match="primary and secondary must be two circuits"):
        GeoFailover(circuit, circuit)
    with pytest.raises(ValueError, match="policy has no circuit"):
        GeoFailover(circuit, other, policy=TEACHING)
    policy = GeoFailover(circuit, policy=TEACHING)
    assert (policy.primary, policy.secondary.policy) == (circuit, TEACHING)


def test_time_outs_are_those_of_the_policy_or_of_the_call(standin: StandIn) -> None:
    store(standin)
    transport = NotingTransport()
    blob = blob_of(standin, GeoFailover(attempt_timeout=3.5), transport=transport)

    blob.exists()
    blob.exists(connection_timeout=1.25, read_timeout=2.25)
    blob.exists(read_timeout=2.25)
    blob.exists(connection_timeout=(1, 2))

    seen = [(each.get("connection_timeout"), each.get("read_timeout")) for each in transport.options]
    assert seen == [(3.5, 3.5), (1.25, 2.25), (3.5, 2.25), ((1, 2), None)]


def test_a_calls_own_time_out_is_what_is_told(standin: StandIn) -> None:
    store(standin)
    blob = blob_of(standin, GeoFailover())
    spoil(standin, delay(10), at="primary+secondary")

    with pytest.raises(BothEndpointsDown, match=re.escape("Primary: no answer within 0.2 s.")):
        blob.exists(read_timeout=0.2)


def test_retry_options_of_a_read_do_not_reach_the_transport(standin: StandIn) -> None:
    store(standin)
    transport = NotingTransport()
    blob = blob_of(standin, GeoFailover(), transport=transport)

    blob.download_blob(retry_total=0, retry_connect=1, retry_read=2, retry_status=3, retry_to_secondary=True)

    assert set(transport.options[0]) <= {"connection_timeout", "read_timeout", "stream", "proxies"}


# One policy, one service client; several clients, shared circuits


def test_a_second_service_client_is_refused(standin: StandIn) -> None:
    store(standin)
    policy = GeoFailover()
    service = connect(standin, policy)

    for second in (lambda: connect(standin, policy), lambda: blob_of(standin, policy)):
        with pytest.raises(ValueError, match="one GeoFailover belongs to one service client"):
            second()

    # The first one is as it was, and so are its sub-clients.
    blob = service.get_container_client("demo").get_blob_client("HelloWorld")
    assert blob.download_blob().readall() == HELLO
    assert service.get_blob_client("demo", "HelloWorld").exists()
    with service.get_container_client("demo") as container:
        assert [each.name for each in container.list_blobs()] == ["HelloWorld"]


def test_a_policy_without_a_client_says_so() -> None:
    with pytest.raises(AzureError, match="belongs to no client yet"):
        GeoFailover().next  # noqa: B018  # a property that raises


def test_circuits_shared_between_clients(standin: StandIn) -> None:
    store(standin)
    first = GeoFailover(policy=TEACHING)
    second = GeoFailover(first.primary, first.secondary)
    one, other = blob_of(standin, first), blob_of(standin, second)
    spoil(standin, status(503))
    trail = Trail(standin)

    assert one.download_blob().readall() == HELLO
    assert other.download_blob().readall() == HELLO
    assert one.download_blob().readall() == HELLO
    assert trail.look() == "PPSPPSPS"
    assert other.download_blob().readall() == HELLO

    assert trail.look() == "S"
    assert second.primary.state is State.OPEN


def test_fifty_threads_while_the_primary_dies_and_returns(standin: StandIn) -> None:
    contents = {f"b{n}": bytes([n]) * 5000 for n in range(10)}
    for name, content in contents.items():
        store(standin, content, name)
    policy = GeoFailover(policy=Policy(trip=ConsecutiveFailures(5), recovery=AfterCalls(20)))
    service = connect(standin, policy)
    done = threading.Semaphore(0)
    opened: list[int] = []

    def read(n: int) -> list[bool]:
        blob = service.get_blob_client("demo", f"b{n % 10}")
        right = []
        for _ in range(12):
            right.append(blob.download_blob().readall() == contents[f"b{n % 10}"])
            done.release()
        return right

    with ThreadPoolExecutor(50) as pool:
        results = [pool.submit(read, n) for n in range(50)]
        for lose in (True, False, True, False):
            for _ in range(110):
                assert done.acquire(timeout=30)
            standin.lose_primary() if lose else standin.restore_primary()
            opened.append(policy.primary.snapshot()["opened"])
        assert all(all(each.result(60)) for each in results)

    assert opened[-1] >= 1
    for _ in range(21):
        assert service.get_blob_client("demo", "b1").exists()
    assert policy.primary.state is State.CLOSED
    assert policy.secondary.snapshot()["opened"] == 0


def test_fifty_threads_get_one_probe(standin: StandIn) -> None:
    store(standin)
    policy = GeoFailover(policy=Policy(recovery=AfterCalls(1)))
    blob = blob_of(standin, policy)
    policy.primary.trip()
    blob.exists()
    answered = threading.Semaphore(0)

    def hold(_exchange: object) -> None:
        for _ in range(49):  # until all the others have their answer
            assert answered.acquire(timeout=20)

    def read() -> bytes:
        content = blob.download_blob().readall()
        answered.release()
        return content

    spoil(standin, hold)
    trail = Trail(standin)
    with ThreadPoolExecutor(50) as pool:
        reads = [pool.submit(read) for _ in range(50)]
        assert all(each.result(30) == HELLO for each in reads)

    assert sorted(trail.look()) == ["P"] + ["S"] * 49
    assert policy.primary.state is State.CLOSED


# Connections


def test_a_connection_is_kept_after_503s() -> None:
    body = b"<?xml version='1.0'?><Error><Code>ServerBusy</Code></Error>"
    busy = Answer(f"HTTP/1.1 503 Busy\nContent-Type: application/xml\nContent-Length: {len(body)}", body)
    missing = Answer("HTTP/1.1 404 No\nx-ms-error-code: BlobNotFound\nContent-Length: 5", b"<a/>\n")
    with (
        RawServer(lambda _: busy) as primary,
        RawServer(lambda _: missing, path="/devstoreaccount1-secondary") as other,
    ):
        policy = GeoFailover(policy=Policy(trip=ConsecutiveFailures(100)))
        blob = blob_of(Pair(primary, other), policy)
        for _ in range(5):
            with pytest.raises(NotReplicated):
                blob.download_blob()

        assert (len(primary.asked), len(other.asked)) == (10, 5)
        assert (primary.connections, other.connections) == (1, 1)


def test_a_long_error_is_not_read() -> None:
    huge = Answer("HTTP/1.1 503 Busy\nContent-Length: 100000000", b"x" * 1000, then="hang")
    with RawServer(lambda _: huge) as primary, RawServer(lambda asked: ranged(HELLO, asked)) as other:
        blob = blob_of(Pair(primary, other), GeoFailover(attempt_timeout=30))

        assert blob.download_blob().readall() == HELLO


def test_the_answers_location_is_told(standin: StandIn) -> None:
    store(standin)
    policy = GeoFailover(policy=TEACHING)
    client: Any = blob_of(standin, policy)
    seen: list[str] = []

    def note(answer: Any, _deserialized: Any, _headers: Any) -> None:
        seen.append(answer.http_response.location_mode)

    client._client.blob.get_properties(cls=note)
    policy.primary.trip()
    client._client.blob.get_properties(cls=note)

    assert seen == ["primary", "secondary"]
