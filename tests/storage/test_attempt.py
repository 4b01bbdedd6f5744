"""What one attempt may take, and what the endpoint's circuit learns from it: nothing but the endpoint's own doing."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

import pytest
from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError, ServiceRequestError

from failover.breaker import AfterCalls, ConsecutiveFailures, Policy, State
from failover.standin import StandIn
from failover.storage import BothEndpointsDown, NotReplicated
from tests.storage.account import HELLO, Trail, delay, spoil, status, store
from tests.storage.clients import TEACHING, blob_of, connect, noting_transport
from tests.storage.raw_server import Answer, Asked, Pair, RawServer, ranged

# Answers


@pytest.mark.parametrize("code", [408, 429, 500, 502, 503, 504, 506, 507, 511, 520, 599])
@pytest.mark.parametrize("head", [False, True])
def test_statuses_that_are_failures(standin: StandIn, code: int, head: bool, geo_failover: Any) -> None:
    store(standin)
    policy = geo_failover(retry=None, policy=TEACHING)
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
def test_statuses_of_the_primary_that_are_answers(standin: StandIn, code: int, head: bool, geo_failover: Any) -> None:
    store(standin)
    policy = geo_failover(retry=None, policy=TEACHING, primary_attempts=4)
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


def test_a_slow_answer_is_used_and_counts(standin: StandIn, geo_failover: Any) -> None:
    store(standin)
    # No answer is as fast as a nanosecond.
    policy = geo_failover(retry=None, policy=Policy(trip=ConsecutiveFailures(3), recovery=AfterCalls(20), timeout=1e-9))
    blob = blob_of(standin, policy)
    trail = Trail(standin)

    for failures in (1, 2):
        assert blob.download_blob().readall() == HELLO
        assert policy.primary.snapshot()["failures"] == failures
    assert blob.exists()

    assert trail.look() == "PPP"
    assert policy.primary.state is State.OPEN
    assert "1e-09 s" in policy.primary.snapshot()["last_error"]


def test_a_body_read_at_leisure_is_not_slow(geo_failover: Any) -> None:
    # Its headers come at once, the rest when the reader asks for it.
    content = bytes(range(256)) * 4096
    with RawServer(lambda asked: ranged(content, asked)) as server:
        policy = geo_failover(retry=None, policy=Policy(timeout=0.5, recovery=AfterCalls(20)), attempt_timeout=5)
        client: Any = blob_of(Pair(server, server), policy)
        body = client._client.blob.download()
        threading.Event().wait(0.6)

        assert b"".join(body) == content

    assert policy.primary.snapshot()["failures"] == 0


# Time-outs


def test_a_time_out_counts_and_is_not_tried_again_within_its_read(standin: StandIn, geo_failover: Any) -> None:
    store(standin)
    policy = geo_failover(retry=None, policy=TEACHING, primary_attempts=5, attempt_timeout=0.2)
    blob = blob_of(standin, policy)
    spoil(standin, delay(10))
    trail = Trail(standin)

    assert blob.download_blob().readall() == HELLO

    assert trail.look() == "PS"
    assert policy.primary.snapshot()["failures"] == 1


def test_time_outs_are_those_of_the_policy_or_of_the_call(standin: StandIn, geo_failover: Any) -> None:
    store(standin)
    policy = geo_failover(retry=None, attempt_timeout=3.5)
    transport = noting_transport(policy)
    blob = blob_of(standin, policy, transport=transport)

    blob.exists()
    blob.exists(connection_timeout=1.25, read_timeout=2.25)
    blob.exists(read_timeout=2.25)
    blob.exists(connection_timeout=(1, 2))

    seen = [(each.get("connection_timeout"), each.get("read_timeout")) for each in transport.options]
    assert seen == [(3.5, 3.5), (1.25, 2.25), (3.5, 2.25), ((1, 2), None)]


def test_a_calls_own_time_out_is_what_is_told(standin: StandIn, geo_failover: Any) -> None:
    store(standin)
    blob = blob_of(standin, geo_failover(retry=None))
    spoil(standin, delay(10), at="primary+secondary")

    with pytest.raises(BothEndpointsDown, match=re.escape("Primary: no answer within 0.2 s.")):
        blob.exists(read_timeout=0.2)


def test_retry_options_of_a_read_do_not_reach_the_transport(standin: StandIn, geo_failover: Any) -> None:
    store(standin)
    policy = geo_failover(retry=None)
    transport = noting_transport(policy)
    blob = blob_of(standin, policy, transport=transport)

    blob.download_blob(retry_total=0, retry_connect=1, retry_read=2, retry_status=3, retry_to_secondary=True)

    assert set(transport.options[0]) <= {"connection_timeout", "read_timeout", "stream", "proxies"}


def test_time_outs_of_the_client_stand(standin: StandIn, geo_failover: Any) -> None:
    store(standin)
    policy = geo_failover(retry=None, attempt_timeout=3.5)
    transport = noting_transport(policy, connection_timeout=33, read_timeout=120)
    service = connect(standin, policy, transport=transport)
    container = service.get_container_client("demo")  # whose transport hides the service's, and the blob's that one

    for each in (service.get_blob_client("demo", "HelloWorld"), container.get_blob_client("HelloWorld")):
        each.exists()
        each.exists(read_timeout=7)

    seen = [(each.get("connection_timeout"), each.get("read_timeout")) for each in transport.options]
    assert seen == [(None, None), (None, 7)] * 2


def test_a_slow_question_is_asked_again_with_the_sdks_time_outs_and_counts_neither_way(geo_failover: Any) -> None:
    def answer(asked: Asked) -> Answer:
        answered = ranged(HELLO, asked)
        return Answer("", trickle=[answered.as_bytes()], pause=0.5)  # no byte for half a second

    policy = geo_failover(retry=None, policy=TEACHING, attempt_timeout=0.2)
    with RawServer(answer) as primary, RawServer(answer, path="/devstoreaccount1-secondary") as secondary:
        pair = Pair(primary, secondary)
        assert blob_of(pair, policy).download_blob().readall() == HELLO

        assert pair.trail() == "2 at the primary, 1 at the secondary"
    assert policy.primary.snapshot()["failures"] == policy.secondary.snapshot()["failures"] == 0


# Connections


def test_a_lost_port_is_tried_again_and_then_given_up(standin: StandIn, geo_failover: Any) -> None:
    store(standin)
    policy = geo_failover(retry=None, policy=TEACHING)
    blob = blob_of(standin, policy)
    standin.lose_primary()
    trail = Trail(standin)

    assert blob.download_blob().readall() == HELLO

    assert trail.look() == "S"
    assert policy.primary.snapshot()["failures"] == 2


def test_a_connection_is_kept_after_503s(geo_failover: Any) -> None:
    body = b"<?xml version='1.0'?><Error><Code>ServerBusy</Code></Error>"
    busy = Answer(f"HTTP/1.1 503 Busy\nContent-Type: application/xml\nContent-Length: {len(body)}", body)
    missing = Answer("HTTP/1.1 404 No\nx-ms-error-code: BlobNotFound\nContent-Length: 5", b"<a/>\n")
    with (
        RawServer(lambda _: busy) as primary,
        RawServer(lambda _: missing, path="/devstoreaccount1-secondary") as other,
    ):
        policy = geo_failover(retry=None, policy=Policy(trip=ConsecutiveFailures(100)))
        blob = blob_of(Pair(primary, other), policy)
        for _ in range(5):
            with pytest.raises(NotReplicated):
                blob.download_blob()

        assert (len(primary.asked), len(other.asked)) == (10, 5)
        assert (primary.connections, other.connections) == (1, 1)


def test_a_long_error_is_not_read(geo_failover: Any) -> None:
    huge = Answer("HTTP/1.1 503 Busy\nContent-Length: 100000000", b"x" * 1000, then="hang")
    with RawServer(lambda _: huge) as primary, RawServer(lambda asked: ranged(HELLO, asked)) as other:
        blob = blob_of(Pair(primary, other), geo_failover(retry=None, attempt_timeout=30))

        assert blob.download_blob().readall() == HELLO


def closing(*closes: bool) -> Callable[[Asked], Answer]:
    """Answers that go well, but for those (by their number) whose connection is closed before any byte."""
    left = list(closes)

    def answer(asked: Asked) -> Answer:
        return Answer("", then="close") if left and left.pop(0) else ranged(HELLO, asked)

    return answer


def test_a_connection_that_went_stale_counts_neither_way(geo_failover: Any) -> None:
    policy = geo_failover(retry=None, policy=TEACHING)
    with RawServer(closing(False, True)) as primary, RawServer(closing(), path="/devstoreaccount1-secondary") as other:
        pair = Pair(primary, other)
        blob = blob_of(pair, policy)
        for _ in range(2):
            assert blob.download_blob().readall() == HELLO

        assert pair.trail() == "3 at the primary, 0 at the secondary"
        assert primary.connections == 2
    assert policy.primary.snapshot()["failures"] == 0


def test_a_new_connection_that_is_reset_too_is_a_failure(geo_failover: Any) -> None:
    policy = geo_failover(retry=None, policy=TEACHING, primary_attempts=1)
    with (
        RawServer(lambda _: Answer("", then="close")) as primary,
        RawServer(closing(), path="/devstoreaccount1-secondary") as other,
    ):
        assert blob_of(Pair(primary, other), policy).download_blob().readall() == HELLO

        assert len(primary.asked) in (2, 3, 4)  # aiohttp itself sends again on a connection that was used before
        assert len(other.asked) == 1
    assert policy.primary.snapshot()["failures"] == 2  # so was the first
    assert policy.primary.snapshot()["last_error"] == "connection reset"


# Not the endpoint's doing


@pytest.mark.parametrize("error", [ClientAuthenticationError, AzureError, ServiceRequestError, ZeroDivisionError])
def test_what_fails_before_the_transport_has_the_request_is_nobodys_failure(
    standin: StandIn, geo_failover: Any, error: type[Exception]
) -> None:
    store(standin)
    policy = geo_failover(retry=None, policy=TEACHING)
    blob = blob_of(standin, policy)
    trail = Trail(standin)

    def refuse(_request: object) -> None:
        raise error("no token")

    with pytest.raises(error, match="no token"):
        blob.download_blob(raw_request_hook=refuse)

    assert trail.look() == ""
    assert policy.primary.snapshot()["failures"] == policy.secondary.snapshot()["failures"] == 0
