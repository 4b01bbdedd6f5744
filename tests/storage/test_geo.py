"""What a GeoFailover is given, who may share what, and what many threads and connections make of it."""

from __future__ import annotations

import inspect
import math
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from azure.core.exceptions import AzureError, HttpResponseError
from azure.storage.blob import ExponentialRetry

from failover.breaker import AfterCalls, CircuitBreaker, ConsecutiveFailures, Cooldown, Policy, State
from failover.standin import StandIn
from failover.storage import PRODUCTION, AsyncGeoFailover, GeoFailover
from tests.servers import Account, Azurite, credential
from tests.storage.account import CONTENT, HELLO, Trail, sas_of, spoil, status, store
from tests.storage.clients import BLOCK, TEACHING, blob_of, connect, make
from tests.storage.raw_server import Answer, Asked, Pair, RawServer, ranged

# Settings


def test_default_policies_are_for_production(geo_failover: Any) -> None:
    policy = geo_failover(retry=None)

    cooldown = Cooldown(30.0, factor=2.0, maximum=300.0, jitter=0.1)
    expected = Policy(trip=ConsecutiveFailures(5), recovery=cooldown)
    assert policy.primary.policy == policy.secondary.policy == expected == PRODUCTION
    assert (policy.primary.name, policy.secondary.name) == ("primary", "secondary")
    assert policy.primary is not policy.secondary
    parameters = inspect.signature(geo_failover).parameters
    assert [(name, each.default) for name, each in parameters.items() if name != "clock"] == [
        ("primary", None),
        ("secondary", None),
        ("policy", None),
        ("retry", inspect.signature(geo_failover).parameters["retry"].default),
        ("primary_attempts", 2),
        ("backoff", 0.0),
        ("attempt_timeout", 5.0),
        ("max_staleness", None),
        ("secondary_endpoint", None),
        ("hedge_after", None),
        ("hedge_budget", 0.1),
        ("prefer", "primary"),
        ("consistency", "eventual"),
        ("listeners", ()),
    ]
    assert repr(parameters["retry"].default) == "ExponentialRetry()"
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
        ("retry", [1, "no", ExponentialRetry, GeoFailover(retry=None), AsyncGeoFailover(retry=None)]),
        ("secondary_endpoint", [1, "", "https://host/path?sv=1", "two words"]),
    ],
)
def test_nonsense_raises_and_names_the_field(field: str, values: list[Any], geo_failover: Any) -> None:
    for value in values:
        with pytest.raises(ValueError, match=f"^{field} must"):
            geo_failover(**{field: value})


def test_circuits_that_contradict_each_other_raise(geo_failover: Any) -> None:
    circuit, other = CircuitBreaker("a"), CircuitBreaker("b")
    with pytest.raises(ValueError, match="primary and secondary must be two circuits"):
        geo_failover(circuit, circuit)
    with pytest.raises(ValueError, match="policy has no circuit"):
        geo_failover(circuit, other, policy=TEACHING)
    policy = geo_failover(circuit, policy=TEACHING)
    assert (policy.primary, policy.secondary.policy) == (circuit, TEACHING)


# One policy, one service client; several clients, shared circuits


def test_a_second_service_client_is_refused(standin: StandIn, geo_failover: Any) -> None:
    store(standin)
    policy = geo_failover(retry=None)
    service = connect(standin, policy)

    for second in (partial(connect, standin, policy), partial(blob_of, standin, policy)):
        with pytest.raises(ValueError, match=f"one {geo_failover.__name__} belongs to one service client"):
            second()

    # The first one is as it was, and so are its sub-clients.
    blob = service.get_container_client("demo").get_blob_client("HelloWorld")
    assert blob.download_blob().readall() == HELLO
    assert service.get_blob_client("demo", "HelloWorld").exists()
    with service.get_container_client("demo") as container:
        assert [each.name for each in container.list_blobs()] == ["HelloWorld"]


def test_a_policy_without_a_client_says_so(geo_failover: Any) -> None:
    with pytest.raises(AzureError, match="belongs to no client yet"):
        geo_failover(retry=None).next  # noqa: B018  # a property that raises


def test_circuits_shared_between_clients(standin: StandIn, geo_failover: Any) -> None:
    store(standin)
    first = geo_failover(retry=None, policy=TEACHING)
    second = geo_failover(first.primary, first.secondary)
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


def test_fifty_threads_while_the_primary_dies_and_returns(standin: StandIn, geo_failover: Any) -> None:
    contents = {f"b{n}": bytes([n]) * 5000 for n in range(10)}
    for name, content in contents.items():
        store(standin, content, name)
    policy = geo_failover(retry=None, policy=Policy(trip=ConsecutiveFailures(5), recovery=AfterCalls(20)))
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


def test_fifty_threads_get_one_probe(standin: StandIn, geo_failover: Any) -> None:
    store(standin)
    policy = geo_failover(retry=None, policy=Policy(recovery=AfterCalls(1)))
    blob = blob_of(standin, policy)
    policy.primary.trip()
    blob.exists()
    answered = threading.Semaphore(0)

    def hold(_exchange: object) -> None:
        for _ in range(49):  # until all the others have their answer
            assert answered.acquire(timeout=20)

    def read() -> bytes:
        content: bytes = blob.download_blob().readall()
        answered.release()
        return content

    spoil(standin, hold)
    trail = Trail(standin)
    with ThreadPoolExecutor(50) as pool:
        reads = [pool.submit(read) for _ in range(50)]
        assert all(each.result(30) == HELLO for each in reads)

    assert sorted(trail.look()) == ["P"] + ["S"] * 49
    assert policy.primary.state is State.CLOSED


def test_the_answers_location_is_told(standin: StandIn, geo_failover: Any) -> None:
    store(standin)
    policy = geo_failover(retry=None, policy=TEACHING)
    client: Any = blob_of(standin, policy)
    seen: list[str] = []

    def note(answer: Any, _deserialized: Any, _headers: Any) -> None:
        seen.append(answer.http_response.location_mode)

    client._client.blob.get_properties(cls=note)
    policy.primary.trip()
    client._client.blob.get_properties(cls=note)

    assert seen == ["primary", "secondary"]


# However the client was made

RANGES: dict[str, Any] = {"max_single_get_size": BLOCK, "max_chunk_get_size": BLOCK}


@pytest.fixture
def policy(geo_failover: Any) -> Any:
    return geo_failover(retry=None, policy=TEACHING)


def service_by(way: str, account: Account, policy: Any) -> Any:
    if way == "hostname":
        return connect(account, policy)
    if way == "url":
        # The SDK guesses no secondary for a path-style URL; ours is at the same host.
        return make("BlobServiceClient", account.primary_url, credential=credential(account), retry_policy=policy)
    if way == "sas":
        return connect(account, policy, credential=sas_of(account))
    return make(
        "BlobServiceClient.from_connection_string",
        f"DefaultEndpointsProtocol=http;AccountName={account.account_name};AccountKey={account.account_key};"
        f"BlobEndpoint={account.primary_url};BlobSecondaryEndpoint={account.secondary_url}{'/' * (way == 'slash')};",
        retry_policy=policy,
        **RANGES,
    )


@pytest.mark.parametrize("way", ["hostname", "url", "sas", "connection string", "slash"])
def test_however_the_client_was_made(account: Account, policy: Any, way: str) -> None:
    if way == "url" and not isinstance(account, Azurite):
        return  # the stand-in's secondary has a port of its own
    store(account, CONTENT)
    service = service_by(way, account, policy)
    blob = service.get_blob_client("demo", "HelloWorld")

    assert blob.download_blob().readall() == CONTENT
    assert service.get_service_stats()["geo_replication"]["status"] == "live"
    policy.primary.isolate()
    assert blob.download_blob().readall() == CONTENT
    assert service.get_service_stats()["geo_replication"]["last_sync_time"]
    assert "HelloWorld" in [each.name for each in service.get_container_client("demo").list_blobs(results_per_page=1)]
    assert policy.staleness() >= 0


def test_endpoints_with_names_of_their_own(policy: Any) -> None:
    # Host-style: the path begins with the container.
    def answer(asked: Asked) -> Answer:
        if "comp=stats" in asked.target:
            body = b"<StorageServiceStats><GeoReplication><Status>live</Status></GeoReplication></StorageServiceStats>"
            return Answer(f"HTTP/1.1 200 OK\nContent-Type: application/xml\nContent-Length: {len(body)}", body)
        return ranged(CONTENT, asked)

    busy = "HTTP/1.1 503 Busy\nContent-Length: 0"
    with RawServer(lambda _: Answer(busy), path="") as primary, RawServer(answer, path="") as secondary:
        service = connect(Pair(primary, secondary), policy, credential="sv=1&sig=SECRET", **RANGES)

        assert service.get_blob_client("demo", "a b/c").download_blob().readall() == CONTENT
        assert service.get_service_stats()["geo_replication"]["status"] == "live"

    assert [each.target for each in primary.asked] == ["/demo/a%20b/c?sv=1&sig=SECRET"] * 2
    targets = [each.target for each in secondary.asked]
    assert targets[:4] == ["/demo/a%20b/c?sv=1&sig=SECRET"] * 4
    assert targets[4].startswith("/?")


def test_service_stats_are_the_secondarys_alone(standin: StandIn, policy: Any) -> None:
    service = connect(standin, policy)
    trail = Trail(standin)

    service.get_service_stats()
    spoil(standin, status(503), at="secondary")
    with pytest.raises(HttpResponseError) as failed:
        service.get_service_stats()

    assert failed.value.status_code == 503
    assert trail.look() == "SSS"
