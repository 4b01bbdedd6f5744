"""The queue's function: a message is done, or goes back to the queue, or can never succeed and is set aside."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import uuid
from pathlib import Path

import aiohttp
import pytest
from azure.storage.queue import QueueClient

from failover.breaker import CircuitOpen
from settings import Settings
from tests.function_app.app_fixture import Lab, run
from tests.function_app.remote import Responder, break_off, never
from tests.servers import Azurite, credential

FOLDER = Path(__file__).parents[2] / "examples" / "function_app"
GOOD = b'{"status": 200, "timeout": 5}'
BAD = b'{"status": 503, "timeout": 5}'


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.name == "function_app"]


def test_a_message_is_done_when_the_downstream_has_answered() -> None:
    async def story(lab: Lab) -> None:
        assert await lab.take(GOOD) is None
        assert await lab.take(b'{"status": 404}') is None
        assert await lab.take(b"{}") is None
        assert lab.remote.calls == ["/200", "/404", "/200"]

    run(story)


@pytest.mark.parametrize(
    ("body", "responder"),
    [(BAD, None), (b'{"timeout": 0.2}', never), (GOOD, break_off)],
    ids=["503", "time-out", "breaks-off"],
)
def test_a_message_whose_call_fails_goes_back(
    body: bytes, responder: Responder | None, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(lab: Lab) -> None:
        lab.remote.responder = responder or lab.remote.responder
        with pytest.raises((aiohttp.ClientError, asyncio.TimeoutError)):
            await lab.take(body)
        assert lines(caplog)[-1] == "Message message-1 goes back to the queue: the call failed. tries=2"

    run(story)


@pytest.mark.parametrize("fallback", ["", "Prices of yesterday"])
def test_a_message_that_the_circuit_refuses_goes_back_also_where_requests_have_a_fallback(
    fallback: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(lab: Lab) -> None:
        await lab.fail()
        with pytest.raises(CircuitOpen):
            await lab.take(GOOD)
        assert len(lab.remote.calls) == 3
        text = "Message message-1 goes back to the queue: refused by the open circuit. tries=2"
        assert lines(caplog)[-1] == text

    run(story, CIRCUIT_BREAKER_FALLBACK=fallback)


def test_both_functions_share_the_circuit() -> None:
    async def story(lab: Lab) -> None:
        for _ in range(3):
            with pytest.raises(aiohttp.ClientResponseError):
                await lab.take(BAD)
        assert (await lab.get("status=200")).status_code == 503

    run(story)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"hello",
        b"\xff\xfe",
        b"[1]",
        b"null",
        b'{"status": "abc"}',
        b'{"status": 503.5}',
        b'{"status": true}',
        b'{"status": null}',
        b'{"status": [503]}',
        b'{"timeout": 0}',
        b'{"timeout": NaN}',
        b'{"timeout": Infinity}',
        b'{"timeout": 1e400}',
        b'{"timeout": -1}',
        b"[" * 100_000,
    ],
    ids=lambda body: str(body[:24]),
)
def test_a_bad_message_is_set_aside_at_once_and_told(body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def story(lab: Lab) -> None:
        assert await lab.take(body) == body
        (line,) = lines(caplog)
        assert line.startswith(
            "Message message-1 goes to circuit-breaker-requests-poison, since it can never succeed: "
        )
        assert caplog.records[-1].levelname == "ERROR"
        assert lab.remote.calls == []

    run(story)


def options() -> tuple[dt.timedelta, int]:
    """`visibilityTimeout` and `maxDequeueCount` of host.json."""
    queues = json.loads((FOLDER / "host.json").read_text(encoding="utf-8"))["extensions"]["queues"]
    hours, minutes, seconds = map(int, queues["visibilityTimeout"].split(":"))
    return dt.timedelta(hours=hours, minutes=minutes, seconds=seconds), queues["maxDequeueCount"]


def test_good_messages_outlive_an_outage_of_hours() -> None:
    pause, tries = options()
    # The last try, after which the message is poison, is at the end of so many pauses.
    lasts = pause * (tries - 1)
    assert dt.timedelta(hours=6) <= lasts < dt.timedelta(days=7), "a message lives for seven days"
    cooldown = Settings.read({"DOWNSTREAM_API_BASE_URL": "http://127.0.0.1"}).cooldown
    assert pause.total_seconds() > 2 * cooldown, "each try must find that the circuit may probe"
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert f"`visibilityTimeout` | {pause.seconds // 60} minutes" in readme
    assert f"`maxDequeueCount` | {tries} " in readme
    assert f"{tries - 1} × {pause.seconds // 60} minutes = {lasts.total_seconds() / 3600:g} hours" in readme


@pytest.mark.azurite
def test_no_message_of_a_real_queue_is_lost_in_an_outage(azurite: Azurite) -> None:
    """The host's part is played by its documented rule: delete what succeeded, show again what failed."""
    account = azurite.queue_url, f"q{uuid.uuid4().hex}"
    queue = QueueClient(*account, credential=credential(azurite))
    queue.create_queue()
    for number in range(20):
        queue.send_message(json.dumps({"status": 200, "number": number}))
    done: list[int] = []
    _, most = options()

    async def story(lab: Lab) -> None:
        await lab.fail()  # the outage
        for turn in range(4):
            for message in list(queue.receive_messages(max_messages=20, visibility_timeout=60)):
                try:
                    await lab.take(message.content.encode())
                except CircuitOpen:
                    assert message.dequeue_count == turn + 1 < most
                    queue.update_message(message, visibility_timeout=0)
                else:
                    done.append(json.loads(message.content)["number"])
                    queue.delete_message(message)
            if turn == 2:
                assert done == []
                lab.clock.now += 15.0  # and its end
        assert sorted(done) == list(range(20))

    run(story)
    assert queue.get_queue_properties().approximate_message_count == 0
    queue.delete_queue()
