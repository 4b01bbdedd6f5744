"""Instances of the app that share one circuit, and a store that no request waits for."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import uuid
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from circuit import circuit_for
from failover.breaker.stores import StoredRecord
from failover.breaker.stores.memory import MemoryStore
from tests.breaker.circuits import PATIENCE
from tests.breaker.conftest import connection_string
from tests.breaker.distributed.fleet import Side
from tests.function_app.app_fixture import Lab, run
from tests.function_app.remote import Remote, held
from tests.servers import Azurite

ROOT = Path(__file__).parents[2]


class Host:
    """A process that runs the app."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process, self.log = process, log
        self._asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._listener = asyncio.create_task(self._listen())

    @classmethod
    async def start(cls, settings: dict[str, str], log: Path) -> Host:
        path = os.pathsep.join([str(ROOT / "examples" / "function_app"), str(ROOT)])
        with log.open("wb") as errors:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(Path(__file__).with_name("host.py")),
                env={**os.environ, **settings, "PYTHONPATH": path},
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
            )
        return cls(process, log)

    def ask(self, query: str) -> asyncio.Future[dict[str, Any]]:
        number = len(self._asked)
        self._asked[number] = asyncio.get_running_loop().create_future()
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"id": number, "query": query}).encode() + b"\n")
        return self._asked[number]

    async def status(self, query: str) -> int:
        answer = await asyncio.wait_for(self.ask(query), PATIENCE)
        return int(answer["status"])

    async def until(self, state: str) -> None:
        while (await asyncio.wait_for(self.ask("snapshot"), PATIENCE))["body"]["state"] != state:
            await asyncio.sleep(0.05)

    async def end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()
        await self._listener

    async def _listen(self) -> None:
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            said = json.loads(line)
            self._asked[said["id"]].set_result(said)
        for each in self._asked.values():
            if not each.done():
                each.set_exception(RuntimeError(f"the host ended; it said: {self.log.read_text()}"))


@pytest.mark.azurite
def test_two_hosts_share_a_circuit_over_tables(azurite: Azurite, tmp_path: Path) -> None:
    async def story() -> None:
        remote = Remote()
        await remote.start()
        settings = {
            "DOWNSTREAM_API_BASE_URL": remote.url,
            "CIRCUIT_BREAKER_COOLDOWN_SECONDS": "2",
            "CIRCUIT_BREAKER_STATE": f"table://t{uuid.uuid4().hex}",
            "FAILOVER_STATE_CONNECTION_STRING": connection_string(azurite),
        }
        hosts = [await Host.start(settings, tmp_path / name) for name in ("first", "second")]
        first, second = hosts
        try:
            await asyncio.gather(first.until("closed"), second.until("closed"))
            assert [await first.status("status=503") for _ in range(3)] == [502] * 3
            await second.until("open")
            assert await second.status("status=200") == 503, "it has heard of it without a failure of its own"
            assert remote.calls == ["/503"] * 3

            remote.calls.clear()
            answer_now = asyncio.Event()
            remote.responder = held(answer_now)
            asked: list[asyncio.Future[dict[str, Any]]] = []
            while not remote.calls:  # until the cooldown is over and one of them may probe
                asked += [host.ask("timeout=30") for host in hosts for _ in range(5)]
                await asyncio.sleep(0.05)
            answers = await asyncio.gather(*(host.status("timeout=30") for host in hosts for _ in range(25)))
            assert answers == [503] * 50
            assert remote.calls == ["/200"], "one probe of the fleet, not one of each process"

            answer_now.set()
            done = await asyncio.wait_for(asyncio.gather(*asked), PATIENCE)
            assert [each["status"] for each in done if each["status"] != 503] == [200]
            await asyncio.gather(first.until("closed"), second.until("closed"))
            assert [await host.status("status=200") for host in hosts] == [200, 200]
        finally:
            for host in hosts:
                await host.end()
            await remote.stop()

    asyncio.run(asyncio.wait_for(story(), 3 * PATIENCE))
    logs = [(tmp_path / name).read_text() for name in ("first", "second")]
    for log in logs:
        assert "Circuit opened after repeated downstream failures." in log
        assert azurite.account_key not in log
        assert " azure.core." not in log, "a line for each of the store's requests would drown the rest"
    assert "Downstream failure recorded." not in logs[1]
    assert "Downstream probe succeeded; circuit closed." in "".join(logs)


class Watched(Side):
    """A store that notes on which threads its work is done."""

    is_local = False

    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.threads: set[int] = set()

    def read(self, names: Iterable[str]) -> dict[str, StoredRecord]:
        self.threads.add(threading.get_ident())
        return super().read(names)

    def compare_and_set(self, name: str, body: bytes, expected: str | None, ttl: float | None = None) -> str | None:
        self.threads.add(threading.get_ident())
        return super().compare_and_set(name, body, expected, ttl)


def test_the_event_loop_does_none_of_the_stores_work(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story(lab: Lab) -> None:
        store = Watched()
        shared = circuit_for(replace(lab.module.settings, store=store), clock=lab.clock)
        monkeypatch.setattr(lab.module, "breaker", shared)
        await lab.fail()
        while store.world.read([shared.name]) == {}:  # published
            await asyncio.sleep(0.01)
        lab.clock.now += 15.0
        while (await lab.get("status=200")).status_code != 200:  # a place is claimed, the probe is sent
            await asyncio.sleep(0.01)
        assert store.threads
        assert threading.get_ident() not in store.threads

    run(story)
