"""Which statuses are failures of the endpoint: those that the SDK asks again for, whoever made them up, and 429."""

from __future__ import annotations

from typing import Any, Final

import pytest
from azure.core.exceptions import HttpResponseError

from failover.standin import StandIn
from tests.storage.account import HELLO, Trail, spoil, status, store
from tests.storage.both_kinds import both_kinds, close, connect_options, geo_failover, read, result, service

# Also those that proxies, content delivery networks and load balancers make up.
FAILURES: Final = [408, 429, 500, 502, 503, 504, 506, 507, 508, 509, 510, 511, *range(520, 531), 598, 599]
ANSWERS: Final = [400, 401, 403, 404, 409, 412, 416, 418, 501, 505]


@pytest.mark.parametrize("code", FAILURES)
@both_kinds
async def test_a_failure_is_answered_by_the_secondary(client_kind: str, code: int, standin: StandIn) -> None:
    store(standin)
    spoil(standin, status(code, "Whatever"))
    trail = Trail(standin)
    policy = geo_failover(client_kind)
    client = service(client_kind, standin.primary_url, retry_policy=policy, **connect_options(standin))

    assert await read(client) == HELLO
    properties: Any = await result(client.get_blob_client("demo", "HelloWorld").get_blob_properties())
    assert properties.size == len(HELLO)

    await close(client)
    assert trail.look() == "PPSPPS"
    assert policy.primary.snapshot()["failures"] == 4


@pytest.mark.parametrize("code", ANSWERS)
@both_kinds
async def test_an_answer_is_an_answer(client_kind: str, code: int, standin: StandIn) -> None:
    store(standin)
    spoil(standin, status(code, "Whatever"))
    trail = Trail(standin)
    policy = geo_failover(client_kind)
    client = service(client_kind, standin.primary_url, retry_policy=policy, **connect_options(standin))

    with pytest.raises(HttpResponseError) as caught:
        await read(client)

    await close(client)
    assert caught.value.status_code == code
    assert set(trail.look()) == {"P"}  # after a 416 the SDK looks whether the blob is empty
    assert policy.primary.snapshot()["failures"] == 0
