"""GeoFailover with the real SDK over real sockets: which endpoint a read asks, how often, and what comes of it."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from azure.core import MatchConditions
from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError
from azure.storage.blob import BlobServiceClient

from failover.breaker import AfterCalls, CircuitBreaker, ConsecutiveFailures, Cooldown, Policy, State
from failover.standin import StandIn
from failover.storage import BothEndpointsDown, GeoFailover, NotReplicated
from tests.servers import Account, Clock, credential
from tests.storage.raw import (
    HELLO,
    TEACHING,
    Answer,
    Pair,
    RawServer,
    Relay,
    Trail,
    blob_of,
    connect,
    container_of,
    delay,
    ranged,
    replace_sleep,
    spoil,
    status,
    store,
)

# Dropping in


def test_nothing_else_changes_in_the_callers_code(account: Account) -> None:
    store(account, b"old")
    service = BlobServiceClient(account.primary_url, credential=credential(account), retry_policy=GeoFailover())
    blob = service.get_container_client("demo").get_blob_client("HelloWorld")

    blob.upload_blob(HELLO, overwrite=True)

    assert blob.download_blob().readall() == HELLO
    assert blob.exists()
    assert blob.get_blob_properties().size == len(HELLO)
    assert [each.name for each in service.get_container_client("demo").list_blobs(name_starts_with="Hello")]
    blob.delete_blob()
    assert not blob.exists()


@pytest.mark.azurite
def test_azurite_reads_on_when_its_primary_is_lost(azurite: Any) -> None:
    store(azurite)
    relay = Relay(azurite.primary_url)
    policy = GeoFailover(policy=TEACHING)
    blob = BlobServiceClient(
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


def test_the_primary_twice_then_the_secondary(standin: StandIn) -> None:
    store(standin)
    policy = GeoFailover()
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
def test_tries_within_one_read(standin: StandIn, attempts: int | None, threshold: int, reads: list[str]) -> None:
    store(standin)
    trip = Policy(trip=ConsecutiveFailures(threshold), recovery=AfterCalls(20))
    blob = blob_of(standin, GeoFailover(policy=trip, primary_attempts=attempts))
    spoil(standin, status(503))
    trail = Trail(standin)

    for expected in reads:
        assert blob.download_blob().readall() == HELLO
        assert trail.look() == expected


def test_the_second_try_may_be_the_answer(standin: StandIn) -> None:
    store(standin)
    policy = GeoFailover(policy=TEACHING)
    spoil(standin, status(503), times=1)
    trail = Trail(standin)

    assert blob_of(standin, policy).download_blob().readall() == HELLO

    assert trail.look() == "PP"
    assert policy.primary.snapshot()["failures"] == 0


def test_what_the_ramp_holds_back_is_read_from_the_secondary(standin: StandIn) -> None:
    store(standin)
    policy = Policy(trip=ConsecutiveFailures(2), recovery=Cooldown(10.0), ramp=60.0)
    clock, dice = Clock(), iter([0.5, 0.05, 0.5])
    primary = CircuitBreaker("primary", policy, clock=clock, random=lambda: next(dice))
    blob = blob_of(standin, GeoFailover(primary=primary))
    primary.trip()
    clock.now += 10.0
    trail = Trail(standin)

    for _ in range(4):
        assert blob.download_blob().readall() == HELLO

    assert trail.look() == "PSPS"


@pytest.mark.parametrize("backoff", [0.0, 7.5])
def test_backoff_lies_between_tries_at_one_endpoint(
    standin: StandIn, backoff: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    store(standin)
    slept: list[float] = []
    replace_sleep(monkeypatch, slept.append)
    blob = blob_of(standin, GeoFailover(policy=TEACHING, primary_attempts=3, backoff=backoff))
    spoil(standin, status(503))

    assert blob.download_blob().readall() == HELLO

    assert slept == ([backoff] * 2 if backoff else [])
    slept.clear()
    assert blob.download_blob().readall() == HELLO  # its second failure opens the circuit: none follows
    assert slept == ([backoff] if backoff else [])
    for _ in range(21):  # the last is a probe
        blob.exists()
    assert len(slept) <= 1


def test_a_time_out_counts_and_is_not_tried_again_within_its_read(standin: StandIn) -> None:
    store(standin)
    policy = GeoFailover(policy=TEACHING, primary_attempts=5, attempt_timeout=0.2)
    blob = blob_of(standin, policy)
    spoil(standin, delay(10))
    trail = Trail(standin)

    assert blob.download_blob().readall() == HELLO

    assert trail.look() == "PS"
    assert policy.primary.snapshot()["failures"] == 1


def test_a_lost_port_is_tried_again_and_then_given_up(standin: StandIn) -> None:
    store(standin)
    policy = GeoFailover(policy=TEACHING)
    blob = blob_of(standin, policy)
    standin.lose_primary()
    trail = Trail(standin)

    assert blob.download_blob().readall() == HELLO

    assert trail.look() == "S"
    assert policy.primary.snapshot()["failures"] == 2


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504])
@pytest.mark.parametrize("head", [False, True])
def test_statuses_that_are_failures(standin: StandIn, code: int, head: bool) -> None:
    store(standin)
    policy = GeoFailover(policy=TEACHING)
    blob = blob_of(standin, policy)
    spoil(standin, status(code))
    trail = Trail(standin)

    if head:
        assert blob.get_blob_properties().size == len(HELLO)
    else:
        assert blob.download_blob().readall() == HELLO

    assert trail.look() == "PPS"
    assert policy.primary.snapshot()["failures"] == 2


@pytest.mark.parametrize("code", [400, 401, 403, 404, 409, 412, 501, 505])
@pytest.mark.parametrize("head", [False, True])
def test_statuses_of_the_primary_that_are_answers(standin: StandIn, code: int, head: bool) -> None:
    store(standin)
    policy = GeoFailover(policy=TEACHING, primary_attempts=4)
    blob = blob_of(standin, policy)
    spoil(standin, status(503), times=4)
    assert blob.download_blob().readall() == HELLO
    assert policy.primary.snapshot()["failures"] == 4
    spoil(standin, status(code, "SomeCode"))
    trail = Trail(standin)

    with pytest.raises(HttpResponseError) as refused:
        blob.get_blob_properties() if head else blob.download_blob()

    assert refused.value.status_code == code
    assert trail.look() == "P"
    assert policy.primary.snapshot()["failures"] == 0


def test_no_from_the_primary_is_no(standin: StandIn) -> None:
    store(standin)
    blob = blob_of(standin, GeoFailover(), "another")
    trail = Trail(standin)

    assert not blob.exists()
    with pytest.raises(ResourceNotFoundError):
        blob.download_blob()

    assert trail.look() == "PP"


def test_a_slow_answer_is_used_and_counts(standin: StandIn) -> None:
    store(standin)
    # No answer is as fast as a nanosecond.
    policy = GeoFailover(policy=Policy(trip=ConsecutiveFailures(3), recovery=AfterCalls(20), timeout=1e-9))
    blob = blob_of(standin, policy)
    trail = Trail(standin)

    for failures in (1, 2):
        assert blob.download_blob().readall() == HELLO
        assert policy.primary.snapshot()["failures"] == failures
    assert blob.exists()

    assert trail.look() == "PPP"
    assert policy.primary.state is State.OPEN
    assert "1e-09 s" in policy.primary.snapshot()["last_error"]


def test_a_body_read_at_leisure_is_not_slow() -> None:
    # Its headers come at once, the rest when the reader asks for it.
    content = bytes(range(256)) * 4096
    with RawServer(lambda asked: ranged(content, asked)) as server:
        policy = GeoFailover(policy=Policy(timeout=0.5, recovery=AfterCalls(20)), attempt_timeout=5)
        client: Any = blob_of(Pair(server, server), policy)
        body = client._client.blob.download()
        threading.Event().wait(0.6)

        assert b"".join(body) == content

    assert policy.primary.snapshot()["failures"] == 0


# AfterCalls, probes


def test_exactly_twenty_reads_do_not_touch_the_primary_in_every_cycle(standin: StandIn) -> None:
    store(standin)
    policy = GeoFailover(policy=TEACHING, primary_attempts=None)
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


def test_each_kind_of_read_is_one_of_the_twenty(standin: StandIn) -> None:
    store(standin)
    policy = GeoFailover(policy=Policy(recovery=AfterCalls(4)))
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


def test_while_a_probe_is_under_way_other_reads_go_to_the_secondary(standin: StandIn) -> None:
    store(standin)
    policy = GeoFailover(policy=Policy(recovery=AfterCalls(1)))
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


def test_with_a_cooldown_the_probe_comes_by_time(standin: StandIn) -> None:
    store(standin)
    clock = Clock()
    primary = CircuitBreaker("primary", Policy(recovery=Cooldown(30.0)), clock=clock)
    blob = blob_of(standin, GeoFailover(primary))
    primary.trip()
    trail = Trail(standin)

    clock.advance(29.9)
    blob.exists()
    clock.advance(0.1)
    blob.exists()

    assert trail.look() == "SP"


def test_a_probe_gets_one_attempt_even_where_several_probes_must_succeed(standin: StandIn) -> None:
    store(standin)
    rules = Policy(recovery=AfterCalls(1), successes_to_close=2, max_probes=2)
    policy = GeoFailover(policy=rules, primary_attempts=5)
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


def test_both_endpoints_down_names_both_causes(standin: StandIn) -> None:
    store(standin)
    policy = GeoFailover(policy=TEACHING)
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


def test_the_secondarys_circuit_opens_and_closes_on_its_own(standin: StandIn) -> None:
    store(standin)
    policy = GeoFailover(policy=Policy(trip=ConsecutiveFailures(2), recovery=AfterCalls(3)))
    blob = blob_of(standin, policy)
    spoil(standin, status(503), at="primary+secondary")
    trail = Trail(standin)

    with pytest.raises(BothEndpointsDown):
        blob.download_blob()
    assert trail.look() == "PPSS"
    assert {policy.primary.state, policy.secondary.state} == {State.OPEN}
    with pytest.raises(BothEndpointsDown) as down:
        blob.download_blob()
    assert trail.look() == ""
    assert down.value.primary == "circuit open after 503 ServerBusy"
    assert down.value.secondary == "circuit open after 503 ServerBusy"
    standin.interfere = None
    for _ in range(2):
        with pytest.raises(BothEndpointsDown):
            blob.download_blob()
    assert blob.download_blob().readall() == HELLO
    assert trail.look() == "P"
    assert policy.secondary.state is State.OPEN  # nobody has asked it since
    policy.primary.isolate()
    assert blob.download_blob().readall() == HELLO

    assert trail.look() == "S"
    assert policy.secondary.snapshot()["state"] == "closed"


def test_one_with_no_secondary() -> None:
    # No path and no account's name: its secondary cannot be guessed.
    with RawServer(lambda _: Answer("HTTP/1.1 503 Busy\nContent-Length: 0"), path="") as server:
        blob = BlobServiceClient(server.url, credential="sv=1&sig=x", retry_policy=GeoFailover()).get_blob_client(
            "demo", "b"
        )
        with pytest.raises(BothEndpointsDown, match="Secondary: no such endpoint is known"):
            blob.download_blob()
        assert len(server.asked) == 2


def test_not_replicated_is_no_resource_not_found(standin: StandIn) -> None:
    store(standin)
    policy = GeoFailover(policy=TEACHING, primary_attempts=1)
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


def test_not_replicated_for_containers(standin: StandIn) -> None:
    policy = GeoFailover(policy=TEACHING)
    container = container_of(standin, policy, "another")
    policy.primary.trip()

    for read in (container.exists, container.get_container_properties, lambda: list(container.list_blobs())):
        with pytest.raises(NotReplicated, match="ContainerNotFound"):
            read()
    assert isinstance(NotReplicated("a", "b"), AzureError)


def test_a_condition_that_the_secondarys_version_does_not_meet_says_nothing(standin: StandIn) -> None:
    store(standin)
    policy = GeoFailover(policy=TEACHING)
    blob = blob_of(standin, policy)
    policy.primary.trip()

    with pytest.raises(NotReplicated, match="412"):
        blob.download_blob(etag='"0x2"', match_condition=MatchConditions.IfNotModified)


@pytest.mark.parametrize("read", ["exists", "download_blob"])
def test_what_the_secondary_refuses_otherwise_is_its_answer(standin: StandIn, read: str) -> None:
    store(standin)
    policy = GeoFailover(policy=TEACHING)
    blob = blob_of(standin, policy)
    policy.primary.trip()
    spoil(standin, status(403, "AuthorizationFailure"), at="secondary")

    with pytest.raises(HttpResponseError) as refused:
        getattr(blob, read)()

    assert refused.value.status_code == 403
