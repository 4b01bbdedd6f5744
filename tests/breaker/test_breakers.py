"""The registry: one circuit per remote URI, policy by longest prefix, memory that is bounded."""

from __future__ import annotations

import copy
import gc
import json
import threading
import weakref
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from failover.breaker import Breakers, CircuitBreaker, CircuitOpen, ConsecutiveFailures, Policy, State
from failover.breaker.uris import itself_and_above, normal
from tests.clock import Clock

FRAGILE = Policy(trip=ConsecutiveFailures(1))


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("https://Account.Blob.core.windows.net/", "https://account.blob.core.windows.net"),
        ("HTTPS://account.blob.core.windows.net:443/c/b", "https://account.blob.core.windows.net/c/b"),
        ("http://h:80", "http://h"),
        ("http://h:8080/", "http://h:8080"),
        ("https://h:80/", "https://h:80"),
        ("https://user:secret@h/p", "https://h/p"),
        ("https://h/p?sv=2024&sig=secret#part", "https://h/p"),
        ("https://h/Path/", "https://h/Path"),
        ("https://[2001:DB8::1]:443/x", "https://[2001:db8::1]/x"),
        ("redis://:secret@cache:6379/0", "redis://cache/0"),
        ("postgresql://user:secret@db:5432/orders", "postgresql://db:5432/orders"),
        ("billing", "billing"),
        ("orders/eu 1", "orders/eu 1"),
    ],
)
def test_two_ways_to_write_a_uri_are_one_circuit(written: str, name: str) -> None:
    assert normal(written) == name
    breakers = Breakers()
    assert breakers.on(written) is breakers.on(name)
    assert breakers.on(written).name == name
    assert len(breakers) == 1


@pytest.mark.parametrize(
    "uri", ["", "https://", "https:///path", "https://h:port/", "https://h:99999/", "user:secret@h", "k=secret", "a\nb"]
)
def test_what_is_no_uri_is_refused_and_not_shown(uri: str) -> None:
    with pytest.raises(ValueError, match="uri") as refused:
        Breakers().on(uri)
    assert "secret" not in str(refused.value)
    with pytest.raises(ValueError, match="uri"):
        Breakers().policy(uri, FRAGILE)


def test_credentials_reach_no_key_no_log_and_no_repr(caplog: pytest.LogCaptureFixture) -> None:
    events: list[object] = []
    breakers = Breakers(FRAGILE, listeners=[events.append])
    circuit = breakers.on("https://user:hunter2@h/p?sig=hunter2")
    with pytest.raises(ConnectionError):
        circuit.call(_fail)
    with pytest.raises(CircuitOpen) as refused:
        circuit.call(_fail)
    told = [
        repr(circuit),
        repr(breakers),
        str(refused.value),
        repr(events),
        caplog.text,
        json.dumps(breakers.snapshot()),
    ]
    assert "hunter2" not in "".join(told)


def _fail() -> None:
    raise ConnectionError("down")


def test_the_longest_prefix_gives_the_policy() -> None:
    breakers = Breakers()
    account, container, blob = (Policy(trip=ConsecutiveFailures(n)) for n in (2, 3, 4))
    breakers.policy("https://account.blob.core.windows.net/", account)
    breakers.policy("https://account.blob.core.windows.net/c/b", blob)
    breakers.policy("https://account.blob.core.windows.net/c", container)
    for uri, policy in {
        "https://ACCOUNT.blob.core.windows.net": account,
        "https://account.blob.core.windows.net/d": account,
        "https://account.blob.core.windows.net/cc": account,
        "https://account.blob.core.windows.net/c/": container,
        "https://account.blob.core.windows.net:443/c/x/y": container,
        "https://account.blob.core.windows.net/c/b": blob,
        "https://account.blob.core.windows.net/c/b/d?x=1": blob,
        "https://account.blob.core.windows.net.evil.example/c": Policy(),
        "http://account.blob.core.windows.net/c": Policy(),
        "elsewhere": Policy(),
    }.items():
        assert breakers.on(uri).policy == policy, uri


def test_circuits_that_exist_keep_their_policy() -> None:
    breakers = Breakers()
    before = breakers.on("https://h/a")
    breakers.policy("https://h/", FRAGILE)
    assert breakers.on("https://h/a") is before
    assert before.policy == Policy()
    assert breakers.on("https://h/b").policy == FRAGILE


@given(st.lists(st.sampled_from("abc"), max_size=6))
def test_above_is_each_prefix_of_whole_segments(segments: list[str]) -> None:
    uri = "https://h" + "".join(f"/{each}" for each in segments)
    expected = ["https://h" + "".join(f"/{each}" for each in segments[:n]) for n in range(len(segments), -1, -1)]
    assert list(itself_and_above(uri)) == expected


def test_the_nearest_fallback_wins() -> None:
    def of(name: str) -> Any:
        return lambda error, circuit: (name, type(error).__name__, circuit.name)

    breakers = Breakers(FRAGILE, fallback=of("all"))
    breakers.policy("https://own", Policy(trip=ConsecutiveFailures(1), fallback=of("policy")))
    assert breakers.on("https://any").call(_fail) == ("all", "ConnectionError", "https://any")
    assert breakers.on("https://any").call(_fail) == ("all", "CircuitOpen", "https://any")
    assert breakers.on("https://own/x").call(_fail) == ("policy", "ConnectionError", "https://own/x")
    assert str(breakers.on("https://own/x").execute(_fail, on_open=str)).startswith("circuit")


def test_fifty_threads_get_the_same_circuit() -> None:
    for _ in range(50):
        breakers = Breakers()
        barrier = threading.Barrier(50)
        got: list[CircuitBreaker] = []

        def ask(breakers: Breakers = breakers, barrier: threading.Barrier = barrier, got: Any = got) -> None:
            barrier.wait()
            got.append(breakers.on("https://h/x"))

        threads = [threading.Thread(target=ask) for _ in range(50)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        assert len(got) == 50
        assert len(set(map(id, got))) == 1


def test_idle_closed_circuits_are_dropped_and_tripped_ones_never() -> None:
    clock = Clock()
    breakers = Breakers(FRAGILE, max_idle=60.0, clock=clock)
    tripped = breakers.on("https://tripped")
    tripped.trip()
    for n in range(1000):
        breakers.on(f"https://h/{n}")
        clock.now += 1.0
    assert len(breakers) <= 70
    assert breakers.on("https://tripped") is tripped
    assert tripped.state is State.OPEN


def test_memory_is_bounded_by_max_idle() -> None:
    clock = Clock()
    breakers = Breakers(max_idle=10.0, clock=clock)
    first = weakref.ref(breakers.on("https://h/first"))
    for n in range(100):
        clock.now += 1.0
        breakers.on(f"https://h/{n}")
    gc.collect()
    assert first() is None


def test_a_dropped_circuit_that_is_still_used_comes_back_as_the_same_object() -> None:
    clock = Clock()
    breakers = Breakers(max_idle=10.0, clock=clock)
    held = breakers.on("https://held")
    clock.now += 100.0
    breakers.on("https://other")
    assert len(breakers) == 1
    assert breakers.on("https://held") is held


def test_asking_keeps_a_circuit() -> None:
    clock = Clock()
    breakers = Breakers(max_idle=10.0, clock=clock)
    kept = weakref.ref(breakers.on("https://kept"))
    for n in range(100):
        clock.now += 1.0
        breakers.on("https://kept/")
        breakers.on(f"https://h/{n}")
    assert kept() is breakers.on("https://kept")


def test_the_snapshot_is_json() -> None:
    breakers = Breakers(FRAGILE)
    breakers.on("https://b").trip()
    breakers.on("a")
    shown = json.loads(json.dumps(breakers.snapshot()))
    assert {name: each["state"] for name, each in shown.items()} == {"https://b": "open", "a": "closed"}


@pytest.mark.parametrize("kwargs", [{"max_idle": 0}, {"max_idle": float("nan")}, {"fallback": 5}])
def test_nonsense_names_the_field(kwargs: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=rf"^{next(iter(kwargs))} must "):
        Breakers(**kwargs)


# --- orders for all below a URI ---------------------------------------------------------------------------------------


def test_its_circuits_can_be_iterated_while_others_are_made() -> None:
    breakers = Breakers()
    for name in ("a", "b", "c"):
        breakers.on(name)
    seen = []
    for circuit in breakers:
        seen.append(circuit.name)
        breakers.on(f"{circuit.name}/more")
    assert seen == ["a", "b", "c"]
    assert len(breakers) == 6


@pytest.mark.parametrize("order", ["trip", "isolate"])
def test_an_order_holds_for_a_uri_and_all_below_it_and_for_no_other(order: str) -> None:
    breakers = Breakers()
    below = [breakers.on(uri) for uri in ("https://db", "https://db/orders", "https://db/orders/7")]
    beside = [breakers.on(uri) for uri in ("https://db2", "https://db.example/orders", "http://db")]
    getattr(breakers, order)("HTTPS://user:secret@DB:443/?query")
    assert [circuit.state for circuit in below] == [State.OPEN] * 3
    assert [circuit.state for circuit in beside] == [State.CLOSED] * 3
    breakers.reset("https://db/orders")
    assert [circuit.state for circuit in below] == [State.OPEN, State.CLOSED, State.CLOSED]
    with pytest.raises(ValueError, match="uri"):
        getattr(breakers, order)("https://")


def test_an_isolation_holds_for_circuits_that_are_made_later() -> None:
    breakers = Breakers()
    breakers.isolate("https://db")
    assert breakers.on("https://db/new").snapshot()["isolated"]
    assert breakers.on("https://other").state is State.CLOSED
    breakers.reset("https://db/part")
    assert breakers.on("https://db/part/x").state is State.CLOSED
    assert breakers.on("https://db/else").snapshot()["isolated"]
    breakers.reset("https://db")
    assert {circuit.state for circuit in breakers} == {State.CLOSED}
    assert breakers.on("https://db/newest").state is State.CLOSED


def test_an_order_reaches_a_circuit_that_was_dropped_and_is_still_used() -> None:
    clock = Clock()
    breakers = Breakers(max_idle=10.0, clock=clock)
    kept = breakers.on("https://db/a")
    clock.now += 20
    breakers.on("https://other")
    assert len(breakers) == 1
    breakers.isolate("https://db")
    assert kept.state is State.OPEN


def test_breakers_say_that_they_cannot_be_copied() -> None:
    with pytest.raises(TypeError, match="neither copied nor pickled"):
        copy.copy(Breakers())
