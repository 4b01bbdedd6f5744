"""The examples of docs/breaker.md and docs/geo-failover.md, as they stand there."""

from __future__ import annotations

import datetime as dt
import re
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import BlobServiceClient

from failover.breaker import FAILURE, NEUTRAL, SUCCESS, CircuitBreaker, CircuitOpen, State
from failover.standin import StandIn
from failover.storage import uninstall
from tests.storage.account import HELLO, store
from tests.storage.both_kinds import connect_options


def connect(standin: StandIn) -> BlobServiceClient:
    return BlobServiceClient(standin.primary_url, **connect_options(standin))


DOCS = Path(__file__).parent.parent / "docs"
TEXT = (DOCS / "breaker.md").read_text(encoding="utf-8")


def run(heading: str, text: str = TEXT, **names: Any) -> dict[str, Any]:
    """Run the block below this heading, and give what it defines."""
    section = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    exec(code, names)  # noqa: S102 (that is the test)
    return names


@pytest.mark.parametrize("day", [1, 2])
def test_planned_downtime(day: int) -> None:
    names = run("Planned downtime")
    breaker = CircuitBreaker("database")

    def at(hour: int, minute: int) -> State:
        names["follow_the_plan"](breaker, lambda: dt.datetime(2026, 11, day, hour, minute))  # noqa: DTZ001
        return breaker.state

    for _ in range(2):
        assert at(23, 29) is State.CLOSED
        assert at(23, 30) is State.OPEN
        with pytest.raises(CircuitOpen):
            breaker.call(int)
        assert at(23, 54) is State.OPEN
        assert at(23, 55) is State.CLOSED
        assert breaker.call(int) == 0


def test_ramp() -> None:
    breaker: CircuitBreaker = run("A remote that has just recovered")["breaker"]
    breaker.isolate()
    breaker.reset()
    assert breaker.snapshot()["ramp"] == pytest.approx(0.1, abs=0.05)


def test_own_classifier() -> None:
    judge = run("What counts as a failure")["policy"].classify
    assert judge(KeyError("x")) is NEUTRAL
    assert judge({"degraded": True}) is FAILURE
    assert judge({"degraded": False}) is SUCCESS
    assert judge(ConnectionError()) is FAILURE


def test_sharing() -> None:
    url = "memory://docs"
    here, there = (run("One circuit in many processes", url=url)["breakers"] for _ in "ab")
    here.on("https://orders.example/").isolate()
    assert there.on("https://orders.example/").state is State.OPEN


def test_the_stores_in_the_docs_are_those_that_open() -> None:
    from failover.breaker.stores.redis_url import SCHEMES

    section = TEXT.partition("## One circuit in many processes\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"`([a-z+]+)://", section))
    assert named <= {*SCHEMES, "memory", "blob", "table"}
    assert named >= {"redis", "redis+cluster", "redis+sentinel", "valkey", "memory", "blob", "table", "unix"}


@pytest.mark.parametrize(("down", "price", "stock"), [(False, 5, 7), (True, {"price": "ask us"}, 0)])
def test_fallbacks(down: bool, price: object, stock: int) -> None:
    def answer(value: object) -> object:
        if down:
            raise ConnectionError("down")
        return value

    names = run("Fallbacks", fetch_price=lambda: answer(5), fetch_stock=lambda: answer(7))
    assert (names["price"], names["stock"]) == (price, stock)
    assert names["breakers"].on("https://other.example/").call(answer, None) is None


def test_metrics_of_the_programs_own_provider() -> None:
    breakers = run("Monitoring")["breakers"]
    assert breakers.on("https://orders.example/").call(int) == 0


def test_a_caller_with_nowhere_else_to_go() -> None:
    names = run("When there is no alternative")
    names["breaker"].trip()
    assert names["read_anyway"](lambda: "answer") == "answer"
    assert names["breaker"].state is State.CLOSED


def test_a_fallback_that_knows_the_call() -> None:
    prices = {"pen": 2}
    names = run("A fallback that uses the call's arguments", fetch_price=lambda article: prices.pop(article))
    assert names["price"]("pen") == 2
    assert names["price"]("pen") == 2, "it is remembered"
    assert names["price"]("ink") is None


def test_orders_for_many_circuits() -> None:
    names = run("Controlling many circuits")
    assert names["states"] == {}
    assert names["breakers"].on("https://db.example/customers").state is State.OPEN
    assert names["breakers"].on("https://db.example/orders/7").state is State.CLOSED


# docs/geo-failover.md


@pytest.mark.parametrize("heading", ["A client that somebody else has made", "Every client of a process"])
def test_failover_for_clients_of_others(heading: str, standin: StandIn) -> None:
    store(standin)
    text = (DOCS / "geo-failover.md").read_text(encoding="utf-8")
    before = connect(standin)
    try:
        run(heading, text, client=before)
        after = connect(standin)
    finally:
        uninstall()
    standin.lose_primary()
    chosen = before if "somebody" in heading else after
    assert chosen.get_blob_client("demo", "HelloWorld").download_blob().readall() == HELLO
    before.close()
    after.close()


def test_what_stands_in_the_way(standin: StandIn, capsys: pytest.CaptureFixture[str]) -> None:
    text = (DOCS / "geo-failover.md").read_text(encoding="utf-8")
    standin.lose_secondary()
    with connect(standin) as client:
        run("Before an outage", text, client=client)
    assert "connection refused" in capsys.readouterr().out
