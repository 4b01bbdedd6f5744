"""Each test that makes a `geo_failover` meets the SDK's two kinds of client, of threads and of event loops."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from azure.storage.blob import ExponentialRetry
from azure.storage.blob.aio import ExponentialRetry as AsyncExponentialRetry

from failover.storage import GeoFailover
from tests.storage.async_client import WaitingGeoFailover
from tests.storage.both_kinds import KINDS
from tests.storage.gates import Gate


@pytest.fixture(params=KINDS)
def client_kind(request: pytest.FixtureRequest) -> str:
    """The kind of client: "sync" or "aio"."""
    kind: str = request.param
    return kind


@pytest.fixture
def geo_failover(client_kind: str) -> Any:
    """`GeoFailover`, or `AsyncGeoFailover`, for its kind of client: see `tests.storage.clients`."""
    return GeoFailover if client_kind == "sync" else WaitingGeoFailover


@pytest.fixture
def sdk_retry(client_kind: str) -> Any:
    """The SDK's `ExponentialRetry` of its kind."""
    return ExponentialRetry if client_kind == "sync" else AsyncExponentialRetry


@pytest.fixture
def gate() -> Iterator[Gate]:
    """It is open at the end, so that no server waits at it."""
    made = Gate()
    yield made
    made.open()
