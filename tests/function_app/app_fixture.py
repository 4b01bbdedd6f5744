"""The function app with settings of its own, a downstream beside it, and time that is moved by hand."""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qsl

import azure.functions as func
import pytest
from azure.functions.queue import QueueMessage  # the one that the worker makes

from circuit import circuit_for
from downstream import Downstream
from settings import Settings
from tests.clock import Clock
from tests.function_app.remote import Remote


class Lab:
    def __init__(self, module: Any, remote: Remote, clock: Clock) -> None:
        self.module, self.remote, self.clock = module, remote, clock
        # As Microsoft documents it for unit tests.
        self._http = module.circuit_breaker.build().get_user_function()
        self._queue = module.circuit_breaker_queue.build().get_user_function()

    async def get(self, query: str) -> func.HttpResponse:
        url, params = "http://127.0.0.1:7071/api/circuit-breaker", dict(parse_qsl(query, keep_blank_values=True))
        answer = await self._http(func.HttpRequest(method="GET", url=url, params=params, body=b""))
        assert isinstance(answer, func.HttpResponse)
        return answer

    async def take(self, body: bytes) -> bytes | None:
        """Give the queue's function a message; returns what it put into the poison queue."""
        poison = Out()
        message = QueueMessage(id="message-1", body=body, dequeue_count=2)  # type: ignore[no-untyped-call]
        assert await self._queue(message, poison) is None
        return poison.get()

    async def fail(self, times: int = 3) -> None:
        for _ in range(times):
            assert (await self.get("status=503&timeout=5")).status_code == 502


class Out(func.Out[bytes]):
    def __init__(self) -> None:
        self._value: bytes | None = None

    def set(self, val: bytes) -> None:
        self._value = val

    def get(self) -> bytes | None:  # type: ignore[override]  # the SDK's says bytes, and gives None where none is set
        return self._value


def body_of(answer: func.HttpResponse) -> dict[str, Any]:
    assert answer.mimetype == "application/json"
    body = json.loads(answer.get_body())
    assert isinstance(body, dict)
    return body


@asynccontextmanager
async def lab(**settings: str) -> AsyncIterator[Lab]:
    remote, clock = Remote(), Clock()
    await remote.start()
    state = f"memory://{uuid.uuid4().hex}"
    environment = {"DOWNSTREAM_API_BASE_URL": remote.url, "CIRCUIT_BREAKER_STATE": state, **settings}
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            module: Any = importlib.import_module("function_app")
            found = Settings.read(os.environ)
            patch.setattr(module, "settings", found)
            patch.setattr(module, "breaker", circuit_for(found, clock=clock))
            patch.setattr(module, "downstream", Downstream(found.downstream))
            yield Lab(module, remote, clock)
    finally:
        await remote.stop()


def run(story: Callable[[Lab], Awaitable[None]], **settings: str) -> None:
    """The whole of a test: an event loop, as a worker has one, and the story in it."""

    async def tell() -> None:
        async with lab(**settings) as it:
            await story(it)

    asyncio.run(tell())
