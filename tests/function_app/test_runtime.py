"""The folder as Microsoft's own runtime for Python loads and calls it: `azure-functions-runtime`, from Python 3.13.

That package is all of the worker but its gRPC: it indexes the folder, turns what the host sends into requests and
messages, runs the functions, and turns back what they return. Here it is given what a host would send.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.function_app.remote import Remote

FOLDER = Path(__file__).parents[2] / "examples" / "function_app"


class Protos:
    """The messages of the host's protocol as plain attributes: the package that has them is not on PyPI."""

    class BindingInfo(SimpleNamespace):
        out, inout, undefined = 1, 2, 0

    class StatusResult(SimpleNamespace):
        Success, Failure = "success", "failure"

    def __getattr__(self, name: str) -> type[SimpleNamespace]:
        return SimpleNamespace


class Worker:
    """What the host asks of a worker, in its order."""

    def __init__(self) -> None:
        self._runtime: Any = importlib.import_module("azure_functions_runtime")
        self._native: Any = importlib.import_module("azure_functions_runtime.native_invocation")
        self._datum: Any = importlib.import_module("azure_functions_runtime.bindings.datumdef").Datum
        self._ids: dict[str, str] = {}
        self.bindings: dict[str, Any] = {}

    async def start(self) -> Any:
        init = SimpleNamespace(capabilities={}, function_app_directory=str(FOLDER))
        properties = {"host": "127.0.0.1", "protos": Protos()}
        request = SimpleNamespace(request=SimpleNamespace(worker_init_request=init), properties=properties)
        return (await self._runtime.worker_init_request(request)).result

    async def index(self) -> None:
        listed = await self._runtime.functions_metadata_request(None)
        for each in listed.function_metadata_results:
            self._ids[each.name] = each.function_id
            self.bindings[each.name] = [json.loads(raw) for raw in each.raw_bindings]

    async def get(self, query: dict[str, str]) -> tuple[int, dict[str, Any]]:
        request = {
            "method": self._datum("GET", "string"),
            "url": self._datum("http://127.0.0.1:7071/api/circuit-breaker", "string"),
            "headers": {},
            "body": self._datum(b"", "bytes"),
            "params": {},
            "query": {name: self._datum(value, "string") for name, value in query.items()},
        }
        ok, answer, _, error, _ = await self._invoke("circuit_breaker", ("req", self._datum(request, "http")), {})
        assert ok, error
        return int(answer.value["status_code"].value), json.loads(answer.value["body"].value)

    async def take(self, message: str) -> tuple[bool, list[Any], str | None]:
        """Whether the host may delete the message, what goes to other queues, and the error it is told."""
        metadata = {"Id": self._datum("message-1", "string"), "DequeueCount": self._datum("2", "json")}
        given = ("message", self._datum(message, "string"))
        ok, _, outputs, error, _ = await self._invoke("circuit_breaker_queue", given, metadata)
        return ok, [(name, datum.value) for name, datum in outputs], error

    async def _invoke(self, name: str, given: tuple[str, Any], metadata: dict[str, Any]) -> Any:
        return await self._native.invocation_request_native(uuid.uuid4().hex, self._ids[name], [given], metadata)


def run(story: Callable[[Worker, Remote], Awaitable[None]], monkeypatch: pytest.MonkeyPatch, **settings: str) -> None:
    async def tell() -> None:
        remote = Remote()
        await remote.start()
        state = f"memory://{uuid.uuid4().hex}"
        for name, value in {"DOWNSTREAM_API_BASE_URL": remote.url, "CIRCUIT_BREAKER_STATE": state, **settings}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.delitem(sys.modules, "function_app", raising=False)
        try:
            await story(Worker(), remote)
        finally:
            await remote.stop()

    asyncio.run(tell())


def test_the_runtime_finds_both_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(worker: Worker, remote: Remote) -> None:
        started = await worker.start()
        assert started.status == "success", started
        await worker.index()
        http, _ = worker.bindings["circuit_breaker"]
        assert (http["type"], http["route"], http["methods"]) == ("httpTrigger", "circuit-breaker", ["GET"])
        queues = {each["type"]: each["queueName"] for each in worker.bindings["circuit_breaker_queue"]}
        expected = {"queueTrigger": "circuit-breaker-requests", "queue": "circuit-breaker-requests-poison"}
        assert queues == expected

    run(story, monkeypatch)


def test_the_runtime_runs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(worker: Worker, remote: Remote) -> None:
        await worker.start()
        await worker.index()
        assert (await worker.get({"status": "200", "timeout": "5"}))[0] == 200
        assert await worker.take('{"status": 200}') == (True, [], None)
        assert await worker.take("hello") == (True, [("poison", b"hello")], None)
        assert [(await worker.get({"status": "503"}))[0] for _ in range(2)] == [502, 502]
        ok, _, error = await worker.take('{"status": 503}')
        assert (ok, error is not None and "503" in error) == (False, True)
        status, body = await worker.get({})
        assert (status, body["breaker"]["state"]) == (503, "open")
        ok, _, error = await worker.take('{"status": 200}')
        assert (ok, error is not None and "CircuitOpen" in error) == (False, True)
        assert len(remote.calls) == 5
        assert (await worker.get({"status": "x"}))[0] == 400

    run(story, monkeypatch)


def test_a_bad_setting_is_what_the_host_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(worker: Worker, remote: Remote) -> None:
        started = await worker.start()
        assert started.status == "failure"
        said = "SettingError: CIRCUIT_BREAKER_FAILURE_THRESHOLD: it must be an integer from 1, such as 3"
        assert started.exception.message == said

    run(story, monkeypatch, CIRCUIT_BREAKER_FAILURE_THRESHOLD="none")
