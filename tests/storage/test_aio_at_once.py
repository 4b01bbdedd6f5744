"""Short bodies in an event loop: one that came with its headers is the answer, any other is watched."""

from __future__ import annotations

from typing import Any

import pytest

from failover.breaker import AfterCalls, Policy, State
from failover.standin import StandIn
from failover.storage import AsyncGeoFailover
from tests.storage import aio
from tests.storage.aio import run
from tests.storage.raw import HELLO, Answer, Pair, RawServer, ranged, store


def probing(account: Any) -> tuple[Any, AsyncGeoFailover]:
    """A client whose next read is a probe, and its policy."""
    policy = AsyncGeoFailover(policy=Policy(recovery=AfterCalls(1)))
    client = aio.connect(account, policy).get_blob_client("demo", "HelloWorld")
    policy.primary.trip()
    client.download_blob()
    return client, policy


@pytest.mark.parametrize("missing", [0, 1])
def test_it_is_the_answer_once_all_of_it_is_there(missing: int) -> None:
    def most(asked: Any) -> Answer:
        answer = ranged(HELLO, asked)
        return Answer(answer.head, answer.body[: len(HELLO) - missing], "hang" if missing else "keep")

    with RawServer(most) as primary, RawServer(lambda asked: ranged(HELLO, asked)) as secondary:
        client, policy = probing(Pair(primary, secondary))
        body = client._client.blob.download()
        assert policy.primary.state is (State.HALF_OPEN if missing else State.CLOSED)
        del body
        run(client._inner.close())


def test_it_is_read_as_ever(standin: StandIn) -> None:
    store(standin)
    client, policy = probing(standin)
    assert client.download_blob().readall() == HELLO
    assert b"".join(client.download_blob().chunks()) == HELLO
    assert policy.primary.state is State.CLOSED
    standin.lose_primary()
    assert client.download_blob().readall() == HELLO
    assert policy.primary.snapshot()["failures"] == 2
    run(client._inner.close())
