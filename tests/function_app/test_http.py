"""Each row of what GET /api/circuit-breaker answers, over real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import aiohttp
import azure.functions as func
import pytest
from aiohttp import web

from tests.function_app.app_fixture import Lab, body_of, run
from tests.function_app.remote import Responder, break_off, held, never, saying

STORY = "function_app"  # the logger


@pytest.mark.parametrize("status", [200, 204, 302, 404, 501])
def test_an_answer_is_passed_on(status: int) -> None:
    async def story(lab: Lab) -> None:
        answer = await lab.get(f"status={status}&timeout=5")
        body = body_of(answer)
        assert answer.status_code == 200
        assert body["message"] == f"The downstream answered {status}."
        assert (body["downstream"]["status"], body["downstream"]["url"]) == (status, f"{lab.remote.url}/{status}")
        assert (body["breaker"]["state"], body["breaker"]["failures"]) == ("closed", 0)
        assert lab.remote.calls == [f"/{status}"], "a redirect is not followed"

    run(story)


def test_status_and_timeout_have_defaults_and_other_parameters_are_left_alone() -> None:
    async def story(lab: Lab) -> None:
        assert (await lab.get("code=the-function-key")).status_code == 200
        assert lab.remote.calls == ["/200"]

    run(story)


@pytest.mark.parametrize(
    ("query", "responder", "error"),
    [
        ("status=500", None, "it answered 500"),
        ("status=429", None, "it answered 429"),
        ("timeout=0.2", never, "it did not answer in time"),
        ("", break_off, "the call failed (ClientPayloadError)"),
    ],
    ids=["500", "429", "time-out", "breaks-off"],
)
def test_a_failure_is_a_502(query: str, responder: Responder | None, error: str) -> None:
    async def story(lab: Lab) -> None:
        lab.remote.responder = responder or lab.remote.responder
        answer = await lab.get(query)
        body = body_of(answer)
        assert (answer.status_code, body["error"]) == (502, error)
        assert (body["breaker"]["state"], body["breaker"]["failures"]) == ("closed", 1)

    run(story)


def test_a_refused_connection_is_a_502() -> None:
    async def story(lab: Lab) -> None:
        await lab.remote.stop()
        answer = await lab.get("status=200")
        assert answer.status_code == 502
        assert body_of(answer)["error"] == "the call failed (ClientConnectorError)"

    run(story)


def test_an_open_circuit_is_a_503_without_a_call() -> None:
    async def story(lab: Lab) -> None:
        await lab.fail()
        lab.clock.now += 0.8
        answer = await lab.get("status=200")
        body = body_of(answer)
        assert answer.status_code == 503
        assert answer.headers["Retry-After"] == "15", "14.2 s, and not a moment earlier"
        assert body["reason"].startswith("The circuit is open")
        assert (body["breaker"]["state"], body["breaker"]["opened"]) == ("open", 1)
        assert body["breaker"]["retry_after"] == pytest.approx(14.2)
        assert len(lab.remote.calls) == 3

    run(story)


def test_the_settings_decide_when_it_opens_and_for_how_long() -> None:
    async def story(lab: Lab) -> None:
        await lab.fail(5)
        assert (await lab.get("status=200")).headers["Retry-After"] == "3"
        lab.clock.now += 2.5
        assert (await lab.get("status=200")).status_code == 200

    run(story, CIRCUIT_BREAKER_FAILURE_THRESHOLD="5", CIRCUIT_BREAKER_COOLDOWN_SECONDS="2.5")


def test_what_the_downstream_asks_for_lengthens_the_cooldown() -> None:
    async def story(lab: Lab) -> None:
        lab.remote.responder = saying(b"", 503, Retry_After="60")
        await lab.fail()
        assert (await lab.get("status=200")).headers["Retry-After"] == "60"

    run(story)


def test_a_circuit_opened_by_hand_says_so(caplog: pytest.LogCaptureFixture) -> None:
    async def story(lab: Lab) -> None:
        lab.module.breaker.isolate()
        answer = await lab.get("status=200")
        assert answer.status_code == 503
        assert body_of(answer)["reason"].startswith("The circuit was opened by hand")
        assert int(answer.headers["Retry-After"]) > 0
        lab.module.breaker.reset()
        assert (await lab.get("status=200")).status_code == 200
        assert [each.getMessage() for each in caplog.records if each.name == STORY] == [
            "Circuit went from closed to open: isolated by hand.",
            "Circuit opened by hand; rejecting request until it is reset.",
            "Circuit went from open to closed: reset by hand.",
        ]

    run(story)


def test_at_half_open_50_requests_send_one_probe_and_get_49_times_503(caplog: pytest.LogCaptureFixture) -> None:
    async def story(lab: Lab) -> None:
        await lab.fail()
        lab.clock.now += 15.0
        lab.remote.calls.clear()
        answer_now = asyncio.Event()
        lab.remote.responder = held(answer_now)
        requests = [asyncio.ensure_future(lab.get("timeout=30")) for _ in range(50)]
        refused = [await each for each in await settled(requests, 49)]
        assert "Circuit half-open; rejecting request while a probe is in flight." in caplog.messages
        assert {each.status_code for each in refused} == {503}
        assert {each.headers["Retry-After"] for each in refused} == {"1"}
        assert {body_of(each)["reason"] for each in refused} == {
            "The circuit is half-open: a probe of the downstream is in flight."
        }
        answer_now.set()
        answers = await asyncio.gather(*requests)
        assert sorted(each.status_code for each in answers) == [200, *[503] * 49]
        assert lab.remote.calls == ["/200"]
        assert (await lab.get("status=200")).status_code == 200

    run(story)


async def settled(
    requests: Sequence[asyncio.Future[func.HttpResponse]], number: int
) -> list[asyncio.Future[func.HttpResponse]]:
    """The first so many that are done."""
    while len(done := [each for each in requests if each.done()]) < number:
        await asyncio.wait([each for each in requests if not each.done()], return_when=asyncio.FIRST_COMPLETED)
    return done


@pytest.mark.parametrize(
    "query",
    [
        "status=abc",
        "status=199",
        "status=600",
        "status=20",
        "status=2000",
        "status=200.0",
        "status=",
        "status=+200",
        "status=٢٠٠",
        "status=503/../200",
        "timeout=0",
        "timeout=-1",
        "timeout=nan",
        "timeout=inf",
        "timeout=1e3",
        "timeout=30.1",
        "timeout=99999",
        "timeout=",
        "timeout=five",
    ],
)
def test_bad_parameters_are_a_400_with_an_example(query: str) -> None:
    async def story(lab: Lab) -> None:
        answer = await lab.get(query.replace("+", "%2B"))
        body = body_of(answer)
        assert answer.status_code == 400
        assert body["message"].startswith(f"Bad request: {query.partition('=')[0]} must be")
        assert body["example"] == "GET /api/circuit-breaker?status=503&timeout=5"
        assert (await lab.get(body["example"].partition("?")[2])).status_code == 502, "the example is a good one"
        assert lab.remote.calls == ["/503"]

    run(story)


def test_a_fallback_answers_for_an_open_circuit_and_for_nothing_else() -> None:
    async def story(lab: Lab) -> None:
        await lab.fail()
        answer = await lab.get("status=200")
        body = body_of(answer)
        assert (answer.status_code, body["message"], body["degraded"]) == (200, "Prices of yesterday", True)
        assert body["breaker"]["state"] == "open"
        assert len(lab.remote.calls) == 3
        assert (await lab.get("status=1")).status_code == 400

    run(story, CIRCUIT_BREAKER_FALLBACK="Prices of yesterday")


def test_what_the_downstream_writes_is_cut_and_escaped() -> None:
    async def story(lab: Lab) -> None:
        text = "<script>\x1b[2J\u202e\r\nSet-Cookie: a=b ä" + "x" * 5000
        lab.remote.responder = saying(text.encode())
        answer = await lab.get("status=200")
        assert body_of(answer)["downstream"]["body"] == text[:500]
        raw = answer.get_body()
        assert raw.isascii()
        assert b"\x1b" not in raw
        assert b"\r" not in raw
        assert answer.headers["X-Content-Type-Options"] == "nosniff"

    run(story)


def test_of_a_huge_answer_only_the_beginning_is_read() -> None:
    async def story(lab: Lab) -> None:
        sent = []

        async def flood(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse()
            await response.prepare(request)
            for _ in range(10_000):  # of 64 KiB: more than a test has memory for
                await response.write(b"x" * (1 << 16))
                sent.append(1)
            return response

        lab.remote.responder = flood
        assert (await lab.get("timeout=30")).status_code == 200
        assert len(sent) < 1000

    run(story)


def test_the_log_tells_the_whole_cycle_in_order(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", STORY)

    async def story(lab: Lab) -> None:
        await lab.fail()
        assert (await lab.get("status=200")).status_code == 503
        lab.clock.now += 15.0
        await lab.fail(1)  # the probe
        lab.clock.now += 15.0
        assert (await lab.get("status=200")).status_code == 200
        calling = f"Calling downstream URL {lab.remote.url}"
        assert [(each.levelname, each.getMessage()) for each in caplog.records if each.name == STORY] == [
            ("INFO", f"{calling}/503"),
            ("WARNING", "Downstream failure recorded. failure_count=1 threshold=3"),
            ("INFO", f"{calling}/503"),
            ("WARNING", "Downstream failure recorded. failure_count=2 threshold=3"),
            ("INFO", f"{calling}/503"),
            ("WARNING", "Downstream failure recorded. failure_count=3 threshold=3"),
            ("ERROR", "Circuit opened after repeated downstream failures."),
            ("WARNING", "Circuit open; rejecting request during cooldown."),
            ("INFO", "Cooldown elapsed; circuit moved to half-open."),
            ("INFO", f"{calling}/503"),
            ("WARNING", "Downstream failure recorded. failure_count=3 threshold=3"),
            ("ERROR", "Downstream probe failed; circuit opened again."),
            ("INFO", "Cooldown elapsed; circuit moved to half-open."),
            ("INFO", f"{calling}/200"),
            ("INFO", "Downstream probe succeeded; circuit closed."),
        ]

    run(story)


def test_requests_wait_for_the_downstream_side_by_side() -> None:
    async def story(lab: Lab) -> None:
        all_here = asyncio.Event()

        async def together(request: web.Request) -> web.StreamResponse:
            if len(lab.remote.calls) == 50:
                all_here.set()
            await all_here.wait()
            return web.Response()

        lab.remote.responder = together
        answers = await asyncio.gather(*(lab.get("timeout=30") for _ in range(50)))
        assert {each.status_code for each in answers} == {200}

    run(story)


def test_one_session_keeps_its_connection_and_closes_with_the_event_loop() -> None:
    sessions: list[aiohttp.ClientSession] = []

    async def story(lab: Lab) -> None:
        for _ in range(20):
            assert (await lab.get("status=200")).status_code == 200
        assert len(lab.remote.clients) == 1
        sessions.extend(session for session, _ in lab.module.downstream._sessions.values())
        assert [each.closed for each in sessions] == [False]

    run(story)
    assert [each.closed for each in sessions] == [True]


def test_every_answer_is_json_of_ascii() -> None:
    async def story(lab: Lab) -> None:
        for query in ("status=200", "status=503", "status=x"):
            answer = await lab.get(query)
            assert answer.get_body().isascii()
            json.loads(answer.get_body())
            assert answer.headers["Cache-Control"] == "no-store"

    run(story)
