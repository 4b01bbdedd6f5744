"""GeoFailover with the real SDK over real sockets: which endpoint a read asks, how often, and what comes of it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from azure.core import MatchConditions
from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError

from failover.breaker import AfterCalls, CircuitBreaker, ConsecutiveFailures, Cooldown, Policy, State
from failover.standin import StandIn
from failover.storage import BothEndpointsDown, NotReplicated
from tests.clock import Clock
from tests.servers import Account, credential
from tests.storage.account import HELLO, Trail, spoil, status, store
from tests.storage.clients import TEACHING, blob_of, connect, container_of, make, noting_transport
from tests.storage.raw_server import Answer, RawServer, Relay

# Dropping in


def test_nothing_else_changes_in_the_callers_code(account: Account, geo_failover: Any) -> None:
    store(account, b"old")
    policy = geo_failover()
    service = make("BlobServiceClient", account.primary_url, credential=credential(account), retry_policy=policy)
    blob = service.get_container_client("demo").get_blob_client("HelloWorld")

    blob.upload_blob(HELLO, overwrite=True)

    assert blob.download_blob().readall() == HELLO
    assert blob.exists()
    assert blob.get_blob_properties().size == len(HELLO)
    assert [each.name for each in service.get_container_client("demo").list_blobs(name_starts_with="Hello")]
    blob.delete_blob()
    assert not blob.exists()


@pytest.mark.azurite
def test_azurite_reads_on_when_its_primary_is_lost(azurite: Any, geo_failover: Any) -> None:
    store(azurite)
    relay = Relay(azurite.primary_url)
    policy = geo_failover(retry=None, policy=TEACHING)
    blob = make(
        "BlobServiceClient",
        relay.url,
        credential=credential(azurite),
        secondary_hostname=azurite.secondary_url.partition("://")[2],
        retry_policy=policy,
    ).get_blob_client("demo", "HelloWorld")
    assert blob.download_blob().readall() == HELLO

    relay.lose()
    for _ in range(24):  # 3 that open the circuit, 20 that are turned away, a probe
        assert blob.download_blob().readall() == HELLO
        assert blob.get_blob_properties().size == len(HELLO)
    assert policy.primary.state is State.OPEN
    relay.restore()
    for _ in range(21):
        assert blob.download_blob().readall() == HELLO

    assert policy.primary.snapshot()["state"] == "closed"
    assert policy.secondary.snapshot()["failures"] == 0
    relay.lose()


# Within one read


def test_the_primary_twice_then_the_secondary(standin: StandIn, geo_failover: Any) -> None:
    store(standin)
    policy = geo_failover(retry=None)
    blob = blob_of(standin, policy)
    spoil(standin, status(503))
    trail = Trail(standin)

    reads = []
    for _ in range(5):
        assert blob.download_blob().readall() == HELLO
        reads.append(trail.look())

    # The fifth failure opens the circuit in the middle of the third read.
    assert reads == ["PPS", "PPS", "PS", "S", "S"]
    assert policy.primary.state is State.OPEN


@pytest.mark.parametrize(
    ("attempts", "threshold", "reads"),
    [
        (None, 5, ["PPPPPS", "S"]),
        (None, 3, ["PPPS", "S"]),
        (None, 50, ["P" * 10 + "S", "P" * 10 + "S"]),
        (1, 5, ["PS", "PS"]),
        (12, 50, ["P" * 12 + "S"]),
    ],
)
def test_tries_within_one_read(
    standin: StandIn, attempts: int | None, threshold: int, reads: list[str], geo_failover: Any
) -> None:
    store(standin)
    trip = Policy(trip=ConsecutiveFailures(threshold), recovery=AfterCalls(20))
    blob = blob_of(standin, geo_failover(retry=None, policy=trip, primary_attempts=attempts))
    spoil(standin, status(503))
    trail = Trail(standin)

    for expected in reads:
        assert blob.download_blob().readall() == HELLO
        assert trail.look() == expected


def test_the_second_try_may_be_the_answer(standin: StandIn, geo_failover: Any) -> None:
    store(standin)
    policy = geo_failover(retry=None, policy=TEACHING)
    spoil(standin, status(503), times=1)
    trail = Trail(standin)

    assert blob_of(standin, policy).download_blob().readall() == HELLO

    assert trail.look() == "PP"
    assert policy.primary.snapshot()["failures"] == 0


def test_what_the_ramp_holds_back_is_read_from_the_secondary(standin: StandIn, geo_failover: Any) -> None:
    store(standin)
    policy = Policy(trip=ConsecutiveFailures(2), recovery=Cooldown(10.0), ramp=60.0)
    clock, dice = Clock(), iter([0.5, 0.05, 0.5])
    primary = CircuitBreaker("primary", policy, clock=clock, random=lambda: next(dice))
    blob = blob_of(standin, geo_failover(primary=primary))
    primary.trip()
    clock.now += 10.0
    trail = Trail(standin)

    for _ in range(4):
        assert blob.download_blob().readall() == HELLO

    assert trail.look() == "PSPS"


@pytest.mark.parametrize("backoff", [0.0, 7.5])
def test_backoff_lies_between_tries_at_one_endpoint(standin: StandIn, backoff: float, geo_failover: Any) -> None:
    store(standin)
    policy = geo_failover(retry=None, policy=TEACHING, primary_attempts=3, backoff=backoff)
    transport = noting_transport(policy)
    slept = transport.slept
    blob = blob_of(standin, policy, transport=transport)
    spoil(standin, status(503))

    assert blob.download_blob().readall() == HELLO

    assert slept == ([backoff] * 2 if backoff else [])
    slept.clear()
    assert blob.download_blob().readall() == HELLO  # its second failure opens the circuit: none follows
    assert slept == ([backoff] if backoff else [])
    for _ in range(21):  # the last is a probe
        blob.exists()
    assert len(slept) <= 1


def test_no_from_the_primary_is_no(standin: StandIn, geo_failover: Any) -> None:
    store(standin)
    blob = blob_of(standin, geo_failover(retry=None), "another")
    trail = Trail(standin)

    assert not blob.exists()
    with pytest.raises(ResourceNotFoundError):
        blob.download_blob()

    assert trail.look() == "PP"


# AfterCalls, probes


def test_exactly_twenty_reads_do_not_touch_the_primary_in_every_cycle(standin: StandIn, geo_failover: Any) -> None:
    store(standin)
    policy = geo_failover(retry=None, policy=TEACHING, primary_attempts=None)
    blob = blob_of(standin, policy)
    spoil(standin, status(503))
    trail = Trail(standin)

    for cycle in range(6):
        assert blob.download_blob().readall() == HELLO
        assert trail.look() == ("PPPPPS" if cycle == 0 else "PS")
        for _ in range(20):
            assert policy.primary.state is State.OPEN
            assert blob.download_blob().readall() == HELLO
        assert trail.look() == "S" * 20
    standin.interfere = None
    for _ in range(3):
        assert blob.download_blob().readall() == HELLO

    assert trail.look() == "PPP"
    assert policy.primary.snapshot()["state"] == "closed"


def test_each_kind_of_read_is_one_of_the_twenty(standin: StandIn, geo_failover: Any) -> None:
    store(standin)
    policy = geo_failover(retry=None, policy=Policy(recovery=AfterCalls(4)))
    service = connect(standin, policy)
    container, blob = service.get_container_client("demo"), service.get_blob_client("demo", "HelloWorld")
    trail = Trail(standin)
    policy.primary.trip()

    assert blob.exists()
    assert [each.name for each in container.list_blobs()] == ["HelloWorld"]
    assert container.exists()
    assert blob.download_blob().readall() == HELLO
    assert trail.look() == "SSSS"
    assert blob.get_blob_properties().size == len(HELLO)
    assert trail.look() == "P"


def test_while_a_probe_is_under_way_other_reads_go_to_the_secondary(standin: StandIn, geo_failover: Any) -> None:
    store(standin)
    policy = geo_failover(retry=None, policy=Policy(recovery=AfterCalls(1)))
    blob = blob_of(standin, policy)
    policy.primary.trip()
    blob.exists()
    arrived, go_on = threading.Event(), threading.Event()

    def hold(_exchange: object) -> None:
        arrived.set()
        go_on.wait(10)

    spoil(standin, hold)
    trail = Trail(standin)
    with ThreadPoolExecutor(1) as pool:
        probe = pool.submit(lambda: blob.download_blob().readall())
        assert arrived.wait(10)
        for _ in range(5):
            assert blob.download_blob().readall() == HELLO
        assert policy.primary.state is State.HALF_OPEN
        assert trail.look() == "SSSSS"
        go_on.set()
        assert probe.result(10) == HELLO

    assert trail.look() == "P"
    assert policy.primary.snapshot()["state"] == "closed"


def test_with_a_cooldown_the_probe_comes_by_time(standin: StandIn, geo_failover: Any) -> None:
    store(standin)
    clock = Clock()
    primary = CircuitBreaker("primary", Policy(recovery=Cooldown(30.0)), clock=clock)
    blob = blob_of(standin, geo_failover(primary))
    primary.trip()
    trail = Trail(standin)

    clock.advance(29.9)
    blob.exists()
    clock.advance(0.1)
    blob.exists()

    assert trail.look() == "SP"


def test_a_probe_gets_one_attempt_even_where_several_probes_must_succeed(standin: StandIn, geo_failover: Any) -> None:
    store(standin)
    rules = Policy(recovery=AfterCalls(1), successes_to_close=2, max_probes=2)
    policy = geo_failover(retry=None, policy=rules, primary_attempts=5)
    blob = blob_of(standin, policy)
    policy.primary.trip()
    blob.exists()
    trail = Trail(standin)

    blob.exists()
    assert policy.primary.state is State.HALF_OPEN
    spoil(standin, status(503))
    blob.exists()

    assert trail.look() == "PPS"
    assert policy.primary.snapshot()["state"] == "open"


# When no endpoint can answer


def test_both_endpoints_down_names_both_causes(standin: StandIn, geo_failover: Any) -> None:
    store(standin)
    policy = geo_failover(retry=None, policy=TEACHING)
    blob = blob_of(standin, policy)
    standin.lose_primary()
    spoil(standin, status(503, "ServerBusy"), at="secondary")
    trail = Trail(standin)

    with pytest.raises(BothEndpointsDown) as down:
        blob.download_blob()

    assert not isinstance(down.value, HttpResponseError)
    assert (down.value.primary, down.value.secondary) == ("connection refused", "503 ServerBusy")
    assert str(down.value) == "Neither endpoint answered. Primary: connection refused. Secondary: 503 ServerBusy."
    assert trail.look() == "SS"
    assert policy.secondary.snapshot()["failures"] == 2


def test_the_secondarys_circuit_opens_and_closes_on_its_own(standin: StandIn, geo_failover: Any) -> None:
    store(standin)
    policy = geo_failover(retry=None, policy=Policy(trip=ConsecutiveFailures(2), recovery=AfterCalls(3)))
    blob = blob_of(standin, policy)
    spoil(standin, status(503), at="primary+secondary")
    trail = Trail(standin)

    with pytest.raises(BothEndpointsDown):
        blob.download_blob()
    assert trail.look() == "PPSS"
    assert {policy.primary.state, policy.secondary.state} == {State.OPEN}
    with pytest.raises(BothEndpointsDown) as down:
        blob.download_blob()
    # A circuit never refuses a read's only hope.
    assert trail.look() == "PPSS"
    assert (down.value.primary, down.value.secondary) == ("503 ServerBusy", "503 ServerBusy")
    assert {policy.primary.state, policy.secondary.state} == {State.OPEN}
    standin.interfere = None
    assert blob.download_blob().readall() == HELLO
    assert trail.look() == "P"
    assert policy.primary.state is State.CLOSED
    assert policy.secondary.state is State.OPEN  # nobody has asked it since
    policy.primary.isolate()
    assert blob.download_blob().readall() == HELLO

    assert trail.look() == "S"
    assert policy.secondary.snapshot()["state"] == "closed"


def test_one_with_no_secondary(caplog: pytest.LogCaptureFixture, geo_failover: Any) -> None:
    # No path and no account's name: its secondary cannot be guessed.
    with RawServer(lambda _: Answer("HTTP/1.1 503 Busy\nContent-Length: 0"), path="") as server:
        blob = make(
            "BlobServiceClient", server.url, credential="sv=1&sig=x", retry_policy=geo_failover(retry=None)
        ).get_blob_client("demo", "b")
        for _ in range(2):
            with pytest.raises(HttpResponseError) as failed:
                blob.download_blob()
            assert failed.value.status_code == 503
        assert len(server.asked) == 4

    warnings = [each.getMessage() for each in caplog.records if each.name == "failover.storage"]
    assert len(warnings) == 1
    assert "secondary_endpoint=" in warnings[0]


def test_not_replicated_is_no_resource_not_found(standin: StandIn, geo_failover: Any) -> None:
    store(standin)
    policy = geo_failover(retry=None, policy=TEACHING, primary_attempts=1)
    service = connect(standin, policy)
    blob = service.get_blob_client("demo", "another")
    spoil(standin, status(503))

    for read in (blob.download_blob, blob.exists, blob.get_blob_properties):
        trail = Trail(standin)
        with pytest.raises(NotReplicated) as unknown:
            read()
        assert trail.look() == "PS"
        assert not isinstance(unknown.value, HttpResponseError)
        assert unknown.value.primary == "503 ServerBusy"
        assert unknown.value.secondary == "404 BlobNotFound"
        assert str(unknown.value).startswith("The secondary does not hold it (404 BlobNotFound), and the primary")

    assert policy.secondary.snapshot()["failures"] == 0


def test_not_replicated_for_containers(standin: StandIn, geo_failover: Any) -> None:
    policy = geo_failover(retry=None, policy=TEACHING)
    container = container_of(standin, policy, "another")
    standin.lose_primary()

    for read in (container.exists, container.get_container_properties, lambda: list(container.list_blobs())):
        with pytest.raises(NotReplicated, match="ContainerNotFound"):
            read()
    assert isinstance(NotReplicated("a", "b"), AzureError)


def test_a_condition_that_the_secondarys_version_does_not_meet_says_nothing(
    standin: StandIn, geo_failover: Any
) -> None:
    store(standin)
    policy = geo_failover(retry=None, policy=TEACHING)
    blob = blob_of(standin, policy)
    standin.lose_primary()

    with pytest.raises(NotReplicated, match="412"):
        blob.download_blob(etag='"0x2"', match_condition=MatchConditions.IfNotModified)


def test_what_the_secondary_does_not_know_is_asked_of_the_primary_whatever_its_circuit_says(
    standin: StandIn, geo_failover: Any
) -> None:
    store(standin)
    policy = geo_failover(retry=None, policy=TEACHING)
    blob = blob_of(standin, policy)
    policy.primary.trip()
    spoil(standin, status(404, "BlobNotFound"), at="secondary")
    trail = Trail(standin)

    assert blob.download_blob().readall() == HELLO

    assert trail.look() == "SP"
    assert policy.primary.state is State.CLOSED


def test_a_primary_that_is_isolated_is_no_last_resort(standin: StandIn, geo_failover: Any) -> None:
    store(standin)
    policy = geo_failover(policy=TEACHING)  # waiting would help nobody
    blob = blob_of(standin, policy, "another")
    policy.primary.isolate()
    trail = Trail(standin)

    with pytest.raises(NotReplicated, match="gives no answer: circuit open"):
        blob.download_blob()

    assert trail.look() == "S"


@pytest.mark.parametrize("read", ["exists", "download_blob"])
@pytest.mark.parametrize("code", [400, 401, 403, 405, 409, 410, 501, 505])
def test_what_the_secondary_alone_refuses_names_both(standin: StandIn, read: str, code: int, geo_failover: Any) -> None:
    store(standin)
    policy = geo_failover(retry=None, policy=TEACHING)
    blob = blob_of(standin, policy)
    standin.lose_primary()
    spoil(standin, status(code, "AuthorizationFailure"), at="secondary")

    with pytest.raises(BothEndpointsDown) as refused:
        getattr(blob, read)()

    assert (refused.value.primary, refused.value.secondary) == ("connection refused", f"{code} AuthorizationFailure")
    assert policy.secondary.snapshot()["failures"] == 0
    standin.restore_primary()
    policy.primary.trip()
    assert getattr(blob, read)()  # the primary knows better
