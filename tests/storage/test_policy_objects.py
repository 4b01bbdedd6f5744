"""A policy as an object: copied, pickled and freed as users' programs do it, and refused where it makes no sense."""

from __future__ import annotations

import copy
import gc
import logging
import multiprocessing
import pickle
import re
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Final

import pytest

from failover.breaker import CircuitBreaker, ConsecutiveFailures, Cooldown, Policy, State
from failover.standin import StandIn
from failover.storage import AsyncGeoFailover, GeoFailover, ReadEnded, Retry
from tests.storage.account import HELLO, Trail, spoil, status, store
from tests.storage.both_kinds import (
    both_kinds,
    close,
    connect_options,
    geo_failover,
    read,
    retry,
    run,
    service,
)

QUICK: Final = Policy(trip=ConsecutiveFailures(2), recovery=Cooldown(1000.0))


def by_pickle(thing: Any) -> Any:
    return pickle.loads(pickle.dumps(thing))  # noqa: S301 (our own)


COPIES: Final[dict[str, Callable[[Any], Any]]] = {"pickle": by_pickle, "deepcopy": copy.deepcopy}


@pytest.fixture(params=list(COPIES.values()), ids=list(COPIES))
def duplicate(request: pytest.FixtureRequest) -> Any:
    return request.param


# Pickle and deepcopy: dask, multiprocessing


def test_a_policy_without_a_client(client_kind: str, duplicate: Any) -> None:
    given = {
        "policy": QUICK,
        "retry": retry(client_kind, "LinearRetry", backoff=7),
        "primary_attempts": 3,
        "attempt_timeout": 2.0,
        "max_staleness": 60.0,
        "secondary_endpoint": "https://second.example.com",
    }
    policy = geo_failover(client_kind, **given)

    other = duplicate(policy)

    assert type(other) is type(policy)
    assert other.primary is not policy.primary
    assert (other.primary.policy, other.secondary.policy) == (QUICK, QUICK)
    assert repr(copy.copy(other).primary.policy) == repr(QUICK)


@both_kinds
async def test_a_client_and_what_it_makes(client_kind: str, duplicate: Any, standin: StandIn) -> None:
    """As the bare client's: it reads, and fails over, where it arrives."""
    store(standin)
    policy = geo_failover(client_kind, policy=QUICK, retry=None)
    client = service(client_kind, standin.primary_url, retry_policy=policy, **connect_options(standin))
    for original in (client, client.get_container_client("demo"), client.get_blob_client("demo", "HelloWorld")):
        other = duplicate(original)
        assert type(other) is type(original)

    other = duplicate(client)
    spoil(standin, status(503))
    trail = Trail(standin)
    assert await read(other) == HELLO
    assert await read(other) == HELLO
    assert trail.look() == "PPSS"
    assert policy.primary.state is State.CLOSED, "the copy has circuits of its own"
    await close(other)
    await close(client)


@both_kinds
async def test_a_client_that_has_been_used(client_kind: str, duplicate: Any, standin: StandIn) -> None:
    store(standin)
    client = service(
        client_kind, standin.primary_url, retry_policy=geo_failover(client_kind), **connect_options(standin)
    )
    if client_kind == "sync":  # nobody can pickle aiohttp's session, nor the bare client that has one
        assert await read(client) == HELLO
    other = duplicate(client)
    assert await read(other) == HELLO
    await close(other)
    await close(client)


def _read_in_worker(kind: str, client: Any) -> bytes:
    async def read_it() -> bytes:
        try:
            return await read(client)
        finally:
            await close(client)

    return run(kind, read_it())


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as processes:
        yield processes


def test_a_client_goes_to_another_process(client_kind: str, standin: StandIn, pool: ProcessPoolExecutor) -> None:
    store(standin)
    spoil(standin, status(503))
    options = connect_options(standin)

    async def make() -> Any:
        return service(client_kind, standin.primary_url, retry_policy=geo_failover(client_kind), **options)

    client = run(client_kind, make())
    assert pool.submit(_read_in_worker, client_kind, client).result(60) == HELLO


def test_no_secret_is_pickled_with_a_policy(standin: StandIn) -> None:
    store(standin)
    policy = GeoFailover()
    options = {**connect_options(standin), "credential": "sv=1&sig=SECRET"}
    with service("sync", standin.primary_url, retry_policy=policy, **options) as client:
        client.get_blob_client("demo", "HelloWorld").exists()
    assert "SECRET" not in repr(policy)
    assert "SECRET" not in repr(policy.__reduce__()[1])


# copy.copy: another client, the same circuits


@both_kinds
async def test_a_copy_shares_the_circuits(client_kind: str, standin: StandIn) -> None:
    store(standin)
    spoil(standin, status(503))
    trail = Trail(standin)
    events: list[Any] = []
    policy = geo_failover(client_kind, policy=QUICK, listeners=[events.append])
    first = service(client_kind, standin.primary_url, retry_policy=policy, **connect_options(standin))
    assert await read(first) == HELLO
    second = service(client_kind, standin.primary_url, retry_policy=copy.copy(policy), **connect_options(standin))

    assert await read(second) == HELLO

    assert trail.look() == "PPSS", "what one has learnt the other knows"
    assert len([each for each in events if isinstance(each, ReadEnded)]) == 2
    await close(first)
    await close(second)


@both_kinds
async def test_a_second_client_is_told_how_to_have_one(client_kind: str, standin: StandIn) -> None:
    policy = geo_failover(client_kind)
    first = service(client_kind, standin.primary_url, retry_policy=policy, **connect_options(standin))
    with pytest.raises(ValueError, match=re.escape("copy.copy(policy)")):
        service(client_kind, standin.primary_url, retry_policy=policy, **connect_options(standin))
    await close(first)


# Freed


def test_policies_that_are_dropped_are_freed(client_kind: str) -> None:
    """Although they share two circuits that live on, and listen to them."""
    circuits = CircuitBreaker("one", QUICK), CircuitBreaker("two", QUICK)
    told: list[Any] = []
    kept = geo_failover(client_kind, *circuits, listeners=[told.append])
    left = weakref.WeakSet[Any]()
    for _ in range(5000):
        left.add(geo_failover(client_kind, *circuits, listeners=[told.append]))
    gc.collect()

    assert len(left) == 0
    circuits[0].trip()
    assert len(told) == 1, "the one that is used is told, and no other"
    del kept


def test_clients_that_are_dropped_are_freed(standin: StandIn) -> None:
    store(standin)
    circuits = CircuitBreaker("one", QUICK), CircuitBreaker("two", QUICK)
    told: list[Any] = []
    left = weakref.WeakSet[Any]()
    for _ in range(20):
        policy = GeoFailover(*circuits, listeners=[told.append])
        with service("sync", standin.primary_url, retry_policy=policy, **connect_options(standin)) as client:
            assert client.get_blob_client("demo", "HelloWorld").exists()
        left.add(policy)
        left.add(client)
    del policy, client
    gc.collect()

    assert len(left) == 0


# Names


@both_kinds
async def test_the_circuits_of_two_accounts_can_be_told_apart(
    client_kind: str, standin: StandIn, caplog: pytest.LogCaptureFixture
) -> None:
    with StandIn(0.0) as other:
        accounts = standin, other
        policies = [geo_failover(client_kind, policy=QUICK) for _ in accounts]
        for account, policy in zip(accounts, policies, strict=True):
            store(account)
            spoil(account, status(503))
            client = service(client_kind, account.primary_url, retry_policy=policy, **connect_options(account))
            with caplog.at_level(logging.ERROR, "failover.breaker"):
                assert await read(client) == HELLO
            await close(client)
        names = {circuit.name for policy in policies for circuit in (policy.primary, policy.secondary)}
        urls = {url.partition("://")[2] for each in accounts for url in (each.primary_url, each.secondary_url)}
    assert names == urls
    opened = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert len(opened) == 2
    assert all(name in text for name, text in zip([policy.primary.name for policy in policies], opened, strict=True))


def test_a_circuit_that_was_given_keeps_its_name(standin: StandIn) -> None:
    store(standin)
    mine = CircuitBreaker("mine", QUICK)
    policy = GeoFailover(mine)
    with service("sync", standin.primary_url, retry_policy=policy, **connect_options(standin)) as client:
        client.get_blob_client("demo", "HelloWorld").exists()
    assert policy.primary.name == "mine"
    assert policy.secondary.name == standin.secondary_url.partition("://")[2]


# Nonsense


@pytest.mark.parametrize("listeners", [print, 5, ["no callable"], [print, None]])
def test_listeners_that_are_none(client_kind: str, listeners: Any) -> None:
    with pytest.raises(ValueError, match=r"^listeners must be"):
        geo_failover(client_kind, listeners=listeners)


@pytest.mark.parametrize(("kind", "policy"), [("sync", GeoFailover), ("aio", AsyncGeoFailover)])
def test_the_class_instead_of_a_policy(kind: str, policy: Any, standin: StandIn) -> None:
    with pytest.raises((TypeError, ValueError), match=rf"retry_policy={policy.__name__}\(\)"):
        service(kind, standin.primary_url, retry_policy=policy, **connect_options(standin))


@pytest.mark.parametrize(("kind", "policy"), [("sync", AsyncGeoFailover), ("aio", GeoFailover)])
def test_the_policy_of_the_other_kind(kind: str, policy: Any, standin: StandIn) -> None:
    with pytest.raises((TypeError, ValueError), match="AsyncGeoFailover"):
        service(kind, standin.primary_url, retry_policy=policy(), **connect_options(standin))


def test_a_retry_that_is_none(client_kind: str) -> None:
    other = "sync" if client_kind == "aio" else "aio"
    for nonsense in (3, "ExponentialRetry", type(retry(client_kind, "LinearRetry")), geo_failover(client_kind)):
        with pytest.raises(ValueError, match=r"^retry must be"):
            geo_failover(client_kind, retry=nonsense)
    with pytest.raises(ValueError, match=r"^retry must be of the client's package"):
        geo_failover(client_kind, retry=retry(other, "LinearRetry"))


@both_kinds
async def test_one_retry_may_be_given_to_several_policies(client_kind: str, standin: StandIn) -> None:
    """Each takes a copy: a pipeline keeps what comes after it on its policies."""
    store(standin)
    mine = retry(client_kind, "LinearRetry", backoff=0, random_jitter_range=0)
    with StandIn(0.0) as other:
        store(other, b"another account's")
        clients = [
            service(
                client_kind,
                each.primary_url,
                retry_policy=geo_failover(client_kind, retry=mine),
                **connect_options(each),
            )
            for each in (standin, other)
        ]
        assert [await read(client) for client in clients] == [HELLO, b"another account's"]
        for client in clients:
            await close(client)


def test_events_say_which_endpoint(standin: StandIn) -> None:
    """The names of circuits are not the names of locations."""
    store(standin)
    spoil(standin, status(503))
    events: list[Any] = []
    policy = GeoFailover(listeners=[events.append])
    with service("sync", standin.primary_url, retry_policy=policy, **connect_options(standin)) as client:
        run("sync", read(client))
    assert [each.endpoint for each in events if isinstance(each, Retry)] == ["primary", "primary"]
