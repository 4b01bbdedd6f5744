"""Whose time-outs an attempt has: the call's, the client's, and else `attempt_timeout`; and what they end."""

from __future__ import annotations

from typing import Any, Final

import aiohttp
import pytest
from requests.adapters import HTTPAdapter

from failover.standin import StandIn
from failover.storage import Retry
from tests.never_worse.world import Fault
from tests.storage.account import store
from tests.storage.both_kinds import both_kinds, close, connect_options, geo_failover, read, service
from tests.storage.virtual import BOTH, FOREVER, FRESH, KINDS, OLD, Lab, P, S

SDK: Final = (20, 60)
"""Seconds: the SDK's own time-outs, for a connection and without a byte."""


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """The time-outs of requests' and aiohttp's requests, for a connection and without a byte."""
    noted: list[tuple[Any, Any]] = []
    send, request = HTTPAdapter.send, aiohttp.ClientSession.request

    def note(self: Any, *args: Any, **options: Any) -> Any:
        noted.append(options["timeout"])
        return send(self, *args, **options)

    def note_async(self: Any, *args: Any, **options: Any) -> Any:
        timeout = options["timeout"]
        noted.append((timeout.sock_connect, timeout.sock_read))
        return request(self, *args, **options)

    monkeypatch.setattr(HTTPAdapter, "send", note)
    monkeypatch.setattr(aiohttp.ClientSession, "request", note_async)
    return noted


@pytest.mark.parametrize(
    ("client", "call", "expected"),
    [
        ({}, {}, (5, 5)),
        ({"connection_timeout": 33, "read_timeout": 120}, {}, (33, 120)),
        ({"read_timeout": 120}, {}, (5, 120)),
        ({"connection_timeout": 33}, {}, (33, 5)),
        ({}, {"read_timeout": 7}, (5, 7)),
        ({"connection_timeout": 33, "read_timeout": 120}, {"read_timeout": 7}, (33, 7)),
        ({}, {"connection_timeout": 3, "read_timeout": 7}, (3, 7)),
    ],
)
@both_kinds
async def test_a_time_out_that_the_caller_set_is_the_callers(
    client_kind: str,
    client: dict[str, Any],
    call: dict[str, Any],
    expected: Any,
    standin: StandIn,
    sent: list[tuple[Any, Any]],
) -> None:
    store(standin)
    sent.clear()
    options = {**connect_options(standin), **client, "retry_policy": geo_failover(client_kind)}
    made = service(client_kind, standin.primary_url, **options)
    await read(made, **call)
    await close(made)
    assert sent == [expected]


@both_kinds
async def test_where_there_is_no_other_endpoint_the_time_outs_are_the_sdks(
    client_kind: str, standin: StandIn, sent: list[tuple[Any, Any]]
) -> None:
    """The client is set to the secondary."""
    store(standin)
    sent.clear()
    options = {**connect_options(standin), "retry_policy": geo_failover(client_kind)}
    client = service(client_kind, standin.primary_url, **options)
    client.location_mode = "secondary"
    await read(client)
    await close(client)
    assert sent == [SDK]


@pytest.mark.parametrize("call", [{}, {"results_per_page": 1}])
@pytest.mark.parametrize("kind", KINDS)
def test_a_slow_listing_has_the_time_that_the_madegives_it(kind: str, call: dict[str, Any]) -> None:
    with Lab(kind, Fault(0.0, FOREVER, BOTH, "slow", seconds=8.0), timeouts=(33, 120)) as lab:
        assert lab.names(**call) == ["fresh", "old"]

        assert set(lab.trail) == {"P"}
        assert lab.clock.now == pytest.approx(8.0 * len(lab.trail), abs=0.2)


@pytest.mark.parametrize("kind", KINDS)
def test_a_question_that_is_slow_everywhere_is_asked_with_the_sdks_time_outs(kind: str) -> None:
    blamed: list[Any] = []
    with Lab(kind, Fault(0.0, FOREVER, BOTH, "slow", seconds=8.0), listeners=[blamed.append]) as lab:
        assert lab.names() == ["fresh", "old"]

        assert lab.trail == "PSP"
        assert lab.clock.now == pytest.approx(5 + 5 + 8, abs=0.2)
        assert [each for each in blamed if isinstance(each, Retry)] == [], "the question was slow, nobody failed"


@pytest.mark.parametrize("kind", KINDS)
def test_an_endpoint_that_hangs_is_blamed_where_the_other_answers(kind: str) -> None:
    told: list[Any] = []
    with Lab(kind, Fault(0.0, FOREVER, P, "hang"), listeners=[told.append]) as lab:
        assert lab.read("old") == OLD

        assert lab.trail == "PS"
        assert lab.clock.now == pytest.approx(5, abs=0.2)
        assert [(each.endpoint, each.error) for each in told if isinstance(each, Retry)] == [
            ("primary", "no answer within 5 s")
        ]


@pytest.mark.parametrize("kind", KINDS)
def test_where_both_hang_the_sdks_retry_goes_on_until_one_is_back(kind: str) -> None:
    with Lab(kind, Fault(0.0, 100.0, BOTH, "hang")) as lab:
        assert lab.read("old") == OLD
        assert lab.clock.now < 200


@pytest.mark.parametrize("kind", KINDS)
def test_bodies_that_hang_cost_a_read_no_more_than_two_time_outs(kind: str) -> None:
    """Then it waits as long as it would without us: here the primary's bodies come again before the SDK gives up."""
    with Lab(kind, Fault(0.0, 150.0, P, "body-hang")) as lab:
        assert lab.read("fresh") == FRESH
        assert lab.clock.now < 250


@pytest.mark.parametrize("kind", KINDS)
def test_an_errors_body_that_hangs_is_asked_for_as_often_as_without_us(kind: str) -> None:
    """The SDK reads it behind its retry."""
    seconds = []
    for bare in (True, False):
        with Lab(kind, Fault(0.0, FOREVER, P, "body-hang"), Fault(0.0, FOREVER, S, "refuse"), bare=bare) as lab:
            assert lab.try_to_read("nowhere") is not None
            seconds.append(lab.clock.now)
    assert seconds[1] <= seconds[0] + 2 * 5 + 1
