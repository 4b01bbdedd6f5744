"""Hedged reads behind what else is in a client's pipeline, and those that must not be hedged."""

from __future__ import annotations

import inspect
import threading
import time
from typing import Any

import pytest
from azure.core.exceptions import ClientAuthenticationError
from azure.core.pipeline.policies import AsyncHTTPPolicy, HTTPPolicy

from failover.breaker import CircuitBreaker, ConsecutiveFailures, Policy, State
from tests.storage.account import HELLO, sas_of
from tests.storage.clients import TEACHING, blob_of, container_of, is_async, make
from tests.storage.gates import LONG, SOON, Gate, account, eventually, hello, status
from tests.storage.raw_server import Answer, Asked


class _Each(HTTPPolicy[Any, Any]):
    """Lets `act` have its way with each request: it is given the request and what sends it on."""

    def __init__(self, act: Any) -> None:
        super().__init__()
        self._act = act

    def send(self, request: Any) -> Any:
        steps = self._act(request, lambda: self.next.send(request))
        try:
            steps.send(None)
        except StopIteration as end:
            return end.value
        raise AssertionError("it never suspends")


class _AsyncEach(AsyncHTTPPolicy[Any, Any]):
    def __init__(self, act: Any) -> None:
        super().__init__()
        self._act = act

    async def send(self, request: Any) -> Any:
        return await self._act(request, lambda: self.next.send(request))


def between(policy: Any, act: Any) -> Any:
    """A policy of a user's own behind the retries, for the kind of client of `policy`."""
    return (_AsyncEach if is_async(policy) else _Each)(act)


async def result(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


def asks(asked: Asked) -> str:
    """The parameters of a request."""
    return asked.target.partition("?")[2]


# --- policies -------------------------------------------------------------------------------------------------------


def test_a_policy_that_turns_all_errors_into_its_own(geo_failover: Any, gate: Gate) -> None:
    async def wraps(_: Any, send: Any) -> Any:
        try:
            return await result(send())
        except Exception as error:
            raise RuntimeError("something went wrong") from error

    policy = geo_failover(hedge_after=SOON, retry=None)
    with account(gate(hello)) as pair:
        blob = blob_of(pair, policy, _additional_pipeline_policies=[between(policy, wraps)])
        assert blob.download_blob().readall() == HELLO
        gate.open()


def test_a_policy_that_sends_again_after_any_error(geo_failover: Any, gate: Gate) -> None:
    async def again(_: Any, send: Any) -> Any:
        try:
            return await result(send())
        except Exception:
            return await result(send())

    policy = geo_failover(hedge_after=SOON, retry=None)
    with account(gate(hello)) as pair:
        blob = blob_of(pair, policy, _additional_pipeline_policies=[between(policy, again)])
        assert blob.download_blob().readall() == HELLO
        eventually(lambda: pair.trail() == "1 at the primary, 1 at the secondary")
        gate.open()


@pytest.mark.parametrize("error", [ClientAuthenticationError("no token"), ValueError("no token")])
def test_a_sign_in_that_fails_for_the_hedge_alone(geo_failover: Any, gate: Gate, error: Exception) -> None:
    async def sign(request: Any, send: Any) -> Any:
        if "-secondary" in request.http_request.url:
            gate.open()
            raise error
        return await result(send())

    policy = geo_failover(hedge_after=SOON, retry=None)
    with account(gate(hello)) as pair:
        blob = blob_of(pair, policy, _additional_pipeline_policies=[between(policy, sign)])
        assert blob.download_blob().readall() == HELLO
        assert pair.trail() == "1 at the primary, 0 at the secondary"
    assert policy.secondary.snapshot()["failures"] == 0


@pytest.mark.parametrize("hangs", ["the challenge", "what follows"])
def test_a_challenge_is_answered_within_a_pass(geo_failover: Any, gate: Gate, hangs: str) -> None:
    """As a bearer token's: 401 first, and then the same request again with a token."""

    async def answer(request: Any, send: Any) -> Any:
        response = await result(send())
        if response.http_response.status_code == 401:
            request.http_request.headers["x-token"] = "yes"
            response = await result(send())
        return response

    def endpoint(asked: Asked) -> Answer:
        return hello(asked) if "x-token" in asked.headers else status(401)(asked)

    held = gate(endpoint)

    def primary(asked: Asked) -> Answer:
        return held(asked) if ("x-token" in asked.headers) is (hangs == "what follows") else endpoint(asked)

    policy = geo_failover(hedge_after=SOON, retry=None, policy=TEACHING)
    with account(primary, endpoint) as pair:
        blob = blob_of(pair, policy, _additional_pipeline_policies=[between(policy, answer)])
        assert blob.download_blob().readall() == HELLO
        assert "x-token" in pair.secondary.asked[-1].headers
        gate.open()
    assert policy.primary.snapshot()["failures"] == 0


def test_the_first_endpoint_answers_while_the_hedge_is_challenged(geo_failover: Any, gate: Gate) -> None:
    other = Gate()

    async def answer(request: Any, send: Any) -> Any:
        response = await result(send())
        if response.http_response.status_code == 401:
            request.http_request.headers["x-token"] = "yes"
            response = await result(send())
        return response

    def secondary(asked: Asked) -> Answer:
        if "x-token" not in asked.headers:
            return status(401)(asked)
        gate.open()
        return other(hello)(asked)

    policy = geo_failover(hedge_after=SOON, retry=None)
    with account(gate(hello), secondary) as pair:
        blob = blob_of(pair, policy, _additional_pipeline_policies=[between(policy, answer)])
        assert blob.download_blob().readall() == HELLO
        other.open()
    assert policy.secondary.snapshot()["failures"] == 0


def test_a_stale_connection_to_the_secondary(geo_failover: Any, gate: Gate) -> None:
    """Its hedge is sent again, and the first endpoint may answer meanwhile."""
    other = Gate()
    resets = iter([True])

    def secondary(asked: Asked) -> Answer:
        if next(resets, False):
            return Answer("", then="reset")
        gate.open()
        return other(hello)(asked)

    policy = geo_failover(hedge_after=SOON, retry=None, attempt_timeout=2 * LONG)
    with account(gate(hello), secondary) as pair:
        assert blob_of(pair, policy).download_blob().readall() == HELLO
        other.open()
    assert policy.secondary.snapshot()["failures"] == 0


def test_a_sas(geo_failover: Any, gate: Gate) -> None:
    policy = geo_failover(hedge_after=SOON, retry=None)
    with account(gate(hello)) as pair:
        sas = sas_of(pair)
        assert blob_of(pair, policy, credential=sas).download_blob().readall() == HELLO
        assert "sig=" in asks(pair.secondary.asked[0])
        gate.open()


# --- queues, listings, bound reads ----------------------------------------------------------------------------------


def _messages(_asked: Asked) -> Answer:
    body = b"<?xml version='1.0'?><QueueMessagesList />"
    return Answer(f"HTTP/1.1 200 OK\nContent-Type: application/xml\nContent-Length: {len(body)}", body)


def test_queues(geo_failover: Any) -> None:
    """A look at messages is a read; to receive them is none."""
    gate = Gate()
    policy = geo_failover(hedge_after=SOON, retry=None)

    def primary(asked: Asked) -> Answer:
        return gate(_messages)(asked) if "peekonly" in asks(asked) else _messages(asked)

    with account(primary, _messages) as pair:
        secondary = pair.secondary_url.partition("://")[2]
        options = {"credential": {"account_name": pair.account_name, "account_key": pair.account_key}}
        queue = make(
            "QueueServiceClient", pair.primary_url, retry_policy=policy, secondary_hostname=secondary, **options
        ).get_queue_client("jobs")
        assert len(queue.peek_messages()) == 0
        assert len(pair.secondary.asked) == 1
        gate.open()
        assert list(queue.receive_messages(failover_hedge=1e-9)) == []
        assert len(pair.secondary.asked) == 1


def _page(asked: Asked) -> Answer:
    more = "" if "marker=" in asks(asked) else "next"
    name = b"second" if not more else b"first"
    body = (
        b"<?xml version='1.0'?><EnumerationResults><Blobs><Blob><Name>%s</Name><Properties>"
        b"<BlobType>BlockBlob</BlobType></Properties></Blob></Blobs>"
        b"<NextMarker>%s</NextMarker></EnumerationResults>" % (name, more.encode())
    )
    return Answer(f"HTTP/1.1 200 OK\nContent-Type: application/xml\nContent-Length: {len(body)}", body)


def test_the_first_page_of_a_listing_is_hedged_and_later_ones_stay_where_it_came_from(
    geo_failover: Any, gate: Gate
) -> None:
    policy = geo_failover(hedge_after=SOON, retry=None)

    def slowly(asked: Asked) -> Answer:
        time.sleep(5 * SOON if "marker=" in asks(asked) else 0)
        return _page(asked)

    with account(gate(_page), slowly) as pair:
        names = [each.name for each in container_of(pair, policy).list_blobs()]
        assert names == ["first", "second"]
        assert pair.trail() == "1 at the primary, 2 at the secondary"
        gate.open()


@pytest.mark.parametrize("location", ["primary", "secondary"])
def test_a_read_that_its_caller_has_bound_is_not_hedged(geo_failover: Any, location: str) -> None:
    def slowly(asked: Asked) -> Answer:
        time.sleep(5 * SOON)
        return hello(asked)

    policy = geo_failover(hedge_after=SOON, retry=None)
    with account(slowly, slowly) as pair:
        # The SDK's own `use_location` spoils the URL of a path-style secondary.
        blob = blob_of(pair, policy)
        blob.location_mode = location
        options = {"use_location": "primary"} if location == "primary" else {}
        assert blob.get_blob_properties(**options).size == len(HELLO)
        at = {"primary": "1 at the primary, 0", "secondary": "0 at the primary, 1"}[location]
        assert pair.trail() == f"{at} at the secondary"


# --- how old the secondary may be -----------------------------------------------------------------------------------


def _stats(age: float) -> Answer:
    now = time.time()
    when = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(now - age))
    body = (
        f"<?xml version='1.0'?><StorageServiceStats><GeoReplication><Status>live</Status>"
        f"<LastSyncTime>{when}</LastSyncTime></GeoReplication></StorageServiceStats>"
    ).encode()
    date = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(now))
    head = f"HTTP/1.1 200 OK\nContent-Type: application/xml\nDate: {date}\nContent-Length: {len(body)}"
    return Answer(head, body)


@pytest.mark.parametrize(("age", "hedged"), [(10.0, True), (1000.0, False)])
def test_a_secondary_that_is_too_old_is_not_asked(geo_failover: Any, gate: Gate, age: float, hedged: bool) -> None:
    def secondary(asked: Asked) -> Answer:
        if "comp=stats" not in asked.target:
            return hello(asked)
        if not hedged:
            gate.open()
        return _stats(age)

    policy = geo_failover(hedge_after=SOON, retry=None, max_staleness=100.0)
    with account(gate(hello), secondary) as pair:
        assert blob_of(pair, policy).download_blob().readall() == HELLO
        reads = [each for each in pair.secondary.asked if "comp=stats" not in each.target]
        assert len(reads) == hedged


def test_nobody_waits_for_a_secondary_that_does_not_tell_how_old_it_is(geo_failover: Any, gate: Gate) -> None:
    other = Gate()

    def secondary(asked: Asked) -> Answer:
        gate.open()
        return other(hello)(asked)

    policy = geo_failover(hedge_after=SOON, retry=None, max_staleness=100.0, attempt_timeout=2 * LONG)
    with account(gate(hello), secondary) as pair:
        blob = blob_of(pair, policy)
        assert blob.download_blob().readall() == HELLO
        assert [each.target.count("comp=stats") for each in pair.secondary.asked] == [1]
        assert blob.download_blob().readall() == HELLO
        other.open()


# --- circuits -------------------------------------------------------------------------------------------------------


def test_circuits_that_are_shared_learn_of_losers(geo_failover: Any, gate: Gate) -> None:
    shared = CircuitBreaker("shared", Policy(trip=ConsecutiveFailures(2)))
    policies = [geo_failover(shared, hedge_after=SOON, attempt_timeout=0.2, retry=None) for _ in range(2)]
    with account(gate(hello)) as pair:
        for policy in policies:
            assert blob_of(pair, policy).download_blob().readall() == HELLO
        eventually(lambda: shared.state is State.OPEN)
        gate.open()


def test_many_threads_share_a_policy(geo_failover: Any) -> None:
    """One answer in four of the primary's is late."""
    numbers, wrong = iter(range(10**9)), []

    def limping(asked: Asked) -> Answer:
        if next(numbers) % 4 == 0:
            time.sleep(5 * SOON)
        return hello(asked)

    policy = geo_failover(hedge_after=SOON, hedge_budget=1, retry=None)
    with account(limping) as pair:
        blob = blob_of(pair, policy)

        def read() -> None:
            for _ in range(10):
                try:
                    if blob.download_blob().readall() != HELLO:
                        wrong.append("bytes")
                except Exception as error:
                    wrong.append(repr(error))

        threads = [threading.Thread(target=read) for _ in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(2 * LONG)
    assert wrong == []
    assert policy.primary.snapshot()["failures"] == 0
    assert policy.secondary.snapshot()["failures"] == 0
