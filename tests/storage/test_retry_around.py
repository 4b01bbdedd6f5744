"""The SDK's retry surrounds a failover attempt: what it would have answered after a backoff is answered then."""

from __future__ import annotations

from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError

from failover.storage import BothEndpointsDown, NotReplicated
from tests.never_worse.world import Fault
from tests.storage.both_kinds import retry
from tests.storage.virtual import BOTH, FOREVER, FRESH, KINDS, OLD, Lab, P, S

BLIP = 0.3

# What an account without a readable secondary says there: none of that name, a private network, a firewall.
NO_SECONDARY = ("dns", "refuse", "connect-hang", "hang", "403")


@pytest.mark.parametrize("kind", KINDS)
def test_a_blip_of_the_primary_is_waited_for_where_the_secondary_does_not_hold_it(kind: str) -> None:
    with Lab(kind, Fault(0.0, BLIP, P, "503")) as lab:
        assert lab.read("fresh") == FRESH

        assert lab.clock.now < 22, "one backoff of the SDK's"
        assert lab.trail.startswith("PPS")
        assert lab.trail.endswith("P")


@pytest.mark.parametrize("secondary", NO_SECONDARY)
@pytest.mark.parametrize("kind", KINDS)
def test_a_blip_of_the_primary_is_waited_for_where_the_secondary_cannot_be_read(kind: str, secondary: str) -> None:
    with Lab(kind, Fault(0.0, BLIP, P, "503"), Fault(0.0, FOREVER, S, secondary)) as lab:
        assert lab.read("old") == OLD
        assert lab.names() == ["fresh", "old"]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_reads_of_a_fresh_blob_survive_a_primary_that_fails_now_and_then(kind: str, seed: int) -> None:
    with Lab(kind, Fault(0.0, FOREVER, P, "503", share=0.2), seed=seed) as lab:
        lost = [n for n in range(500) if lab.try_to_read("fresh") is not None]

        assert lost == []


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_retry_the_failure_comes_at_once(kind: str) -> None:
    with Lab(kind, Fault(0.0, BLIP, P, "503"), retry=None) as lab:
        error = lab.try_to_read("fresh")

        assert isinstance(error, NotReplicated)
        assert lab.trail == "PPS"
        assert lab.clock.now < BLIP


# Writes


def _retries(kind: str) -> list[tuple[Any, list[float]]]:
    own = "aio" if kind == "aio" else "sync"
    return [
        (retry(own, "LinearRetry", backoff=1, retry_total=3, random_jitter_range=0), [0, 1, 2, 3]),
        (retry(own, "ExponentialRetry", initial_backoff=2, increment_base=3, random_jitter_range=0), [0, 5]),
        (retry(own, "ExponentialRetry", retry_total=0), [0]),
        (None, [0]),
    ]


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_writes_are_retried_as_retry_says(kind: str, which: int) -> None:
    policy, expected = _retries(kind)[which]
    with Lab(kind, Fault(0.0, 2.5, P, "503"), retry=policy) as lab:
        if expected == [0]:
            with pytest.raises(HttpResponseError):
                lab.write()
        else:
            lab.write()

        assert [round(at) for at in lab.times] == expected
        assert set(lab.trail) == {"P"}
        assert lab.policy.primary.snapshot()["failures"] == 0, "writes feed no circuit"


@pytest.mark.parametrize("which", range(4))
@pytest.mark.parametrize("kind", KINDS)
def test_reads_are_retried_as_retry_says(kind: str, which: int) -> None:
    policy, expected = _retries(kind)[which]
    with Lab(kind, Fault(0.0, 2.5, BOTH, "503"), retry=policy) as lab:
        if expected == [0]:
            with pytest.raises(BothEndpointsDown):
                lab.read("old")
        else:
            assert lab.read("old") == OLD

        assert sorted({round(at) for at in lab.times}) == expected


# What a call says


@pytest.mark.parametrize("kind", KINDS)
def test_a_call_may_want_no_retries(kind: str) -> None:
    with Lab(kind, Fault(0.0, FOREVER, BOTH, "503")) as lab:
        with pytest.raises(BothEndpointsDown):
            lab.read("old", retry_total=0)
        assert lab.trail == "PPSS"

        lab.forget()
        with pytest.raises(HttpResponseError):
            lab.write(retry_total=0)
        assert lab.trail == "P"
        assert lab.clock.now < 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_retry_hook_is_told_what_the_sdk_tells_it(kind: str) -> None:
    def heard(*, bare: bool) -> list[tuple[Any, ...]]:
        told: list[tuple[Any, ...]] = []

        def hook(**context: Any) -> None:
            response = context.get("response")
            status = None if response is None else response.status_code
            told.append((context["retry_count"], context["location_mode"], status, context["error"] is not None))

        own = "aio" if kind == "aio" else "sync"
        settings = (
            {"random_jitter_range": 0} if bare else {"retry": retry(own, "ExponentialRetry", random_jitter_range=0)}
        )
        with Lab(kind, Fault(0.0, 10.0, BOTH, "503"), Fault(10.0, 30.0, BOTH, "refuse"), bare=bare, **settings) as lab:
            lab.read("old", retry_hook=hook)
            lab.clock.now = 0.0
            lab.write(retry_hook=hook)
        return told

    told = heard(bare=False)
    assert told == heard(bare=True)
    assert len(told) == 4
