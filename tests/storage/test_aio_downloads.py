"""What test_geo_downloads asks of GeoFailover, asked of AsyncGeoFailover."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from failover.breaker import AfterCalls, Policy, State
from failover.standin import StandIn
from tests.storage import test_geo_downloads
from tests.storage.aio import GeoFailover, cases_of, in_a_loop, run
from tests.storage.raw import Trail
from tests.storage.test_geo_bodies import CONTENT
from tests.storage.test_geo_downloads import half_open

CASES = test_geo_downloads
globals().update(cases_of(CASES))
__all__ = ["in_a_loop"]  # a fixture


@pytest.mark.parametrize("where", ["request", "body"])
def test_an_interrupted_read_gives_the_probes_place_back(
    standin: StandIn, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Interrupted as an event loop does it. How a task is cancelled from outside: see test_aio.
    policy: Any = GeoFailover(policy=Policy(recovery=AfterCalls(1)))
    client = half_open(standin, policy)
    trail = Trail(standin)

    def interrupt(*_: object) -> None:
        raise asyncio.CancelledError

    with monkeypatch.context() as patch:
        if where == "body":
            patch.setattr("azure.core.pipeline.transport._aiohttp.AioHttpStreamDownloadGenerator.__anext__", interrupt)
        with pytest.raises(BaseException, match=r"^$"):
            client.download_blob(raw_request_hook=interrupt if where == "request" else None)
    policy.primary.admit().released()

    assert client.download_blob().readall() == CONTENT
    assert trail.look() == ("P" if where == "request" else "PP")
    assert policy.primary.state is State.CLOSED


def test_an_abandoned_body_gives_the_probes_place_back(standin: StandIn) -> None:
    policy: Any = GeoFailover(policy=Policy(recovery=AfterCalls(1)))
    client = half_open(standin, policy)
    trail = Trail(standin)
    bodies = [client._client.blob.download()]
    next(bodies[0])
    assert client.exists()
    assert trail.look() == "PS"
    assert policy.primary.state is State.HALF_OPEN

    async def drop() -> None:  # where its connection lives
        bodies.clear()

    gc.disable()  # at once, and not when the collector comes round
    try:
        run(drop())
        assert client.exists()
    finally:
        gc.enable()

    assert trail.look() == "P"
    assert policy.primary.snapshot()["state"] == "closed"


def test_a_body_may_be_collected_while_the_circuit_decides(standin: StandIn) -> None:
    # Another thread shares the circuit and is about to replace the record that it has read.
    policy: Any = GeoFailover(policy=Policy(recovery=AfterCalls(1)))
    bodies = [half_open(standin, policy)._client.blob.download()]
    next(bodies[0])

    async def collect() -> None:
        bodies.clear()
        gc.collect()

    with policy.primary._lock:
        before = policy.primary._record
        run(collect())
        assert policy.primary._record is before
