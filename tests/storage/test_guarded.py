"""A response whose body goes through us, whatever its transport does with it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from azure.core.pipeline.transport import RequestsTransport

from failover.standin import StandIn
from failover.storage import GeoFailover
from tests.storage.raw import BLOCK, KIB, MIB, Trail, blob_of, cut, spoil, store


class Placing(RequestsTransport):  # type: ignore[misc]  # its module has no types
    """A transport that puts a function of its own in the place of its responses' method."""

    opened = 0

    def send(self, request: Any, **kwargs: Any) -> Any:
        response: Any = super().send(request, **kwargs)
        whole = response.stream_download

        def counted(*args: Any, **options: Any) -> Any:
            self.opened += 1
            return whole(*args, **options)

        response.stream_download = counted
        return response


@pytest.mark.parametrize("size", [KIB, MIB])
def test_a_transport_with_an_opener_of_its_own(standin: StandIn, size: int) -> None:
    content = random.Random(1).randbytes(size)
    store(standin, content)
    spoil(standin, cut(size // 2), times=1)
    trail = Trail(standin)
    transport = Placing(use_env_settings=False, connection_data_block_size=BLOCK)

    assert blob_of(standin, GeoFailover(), transport=transport).download_blob().readall() == content

    assert trail.look() == "PS"
    assert transport.opened == 2
