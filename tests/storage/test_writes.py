"""Writes go to the primary, always, are retried as the SDK would, and know nothing of the circuits."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
from azure.core.exceptions import AzureError

from failover.breaker import AfterCalls, Policy
from failover.standin import StandIn
from tests.storage.account import HELLO, Trail, spoil, status, store
from tests.storage.clients import blob_of, lone_blob_of, noting_transport

WRITES: dict[str, Callable[..., object]] = {
    "upload": lambda blob, **options: blob.upload_blob(b"new", overwrite=True, **options),
    "delete": lambda blob, **options: blob.delete_blob(**options),
    "block": lambda blob, **options: blob.stage_block("MDE=", b"part", **options),
}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"retry_total": 0},
    {"retry_total": 2},
    {"retry_status": 1},
    {"retry_connect": 1},
    {"retry_read": 0, "retry_status": 0},
    {"retry_to_secondary": True, "retry_total": 2},
]


def attempt(account: StandIn, retry_policy: Any, write: str, options: dict[str, Any]) -> dict[str, Any]:
    """All that a caller and the account can see of a write."""
    transport = noting_transport(retry_policy)
    hooked: list[tuple[int, str, str]] = []
    blob = lone_blob_of(account, retry_policy, transport=transport)
    trail = Trail(account)

    def hook(**about: Any) -> None:
        hooked.append((about["retry_count"], about["location_mode"], type(about["error"]).__name__))

    try:
        WRITES[write](blob, retry_hook=hook, **options)
        outcome = "done"
    except AzureError as error:
        outcome = type(error).__name__
    return {
        "outcome": outcome,
        "trail": trail.look(("PUT", "DELETE")),
        "sent": transport.sent,
        "hooked": hooked,
        "waits": [
            seconds > 10 for seconds in transport.slept
        ],  # ExponentialRetry's default begins with 15 s, give or take 3
        "timeouts": {(each.get("connection_timeout"), each.get("read_timeout")) for each in transport.options},
    }


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("fault", ["none", "once", "503", "lost"])
def test_a_write_is_retried_as_the_sdk_would(
    standin: StandIn, write: str, fault: str, options: dict[str, Any], geo_failover: Any, sdk_retry: Any
) -> None:
    seen = []
    policy = geo_failover()
    for retry_policy in (sdk_retry(), policy):
        standin.restore_primary()
        standin.interfere = None
        store(standin)
        if fault == "lost":
            standin.lose_primary()
        elif fault != "none":
            spoil(standin, status(503), methods=("PUT", "DELETE"), times=1 if fault == "once" else None)
        given = dict(options)
        if retry_policy is not policy:
            given.pop("retry_to_secondary", None)  # the one thing that is not as the SDK would
        seen.append(attempt(standin, retry_policy, write, given))

    assert seen[1] == seen[0]
    assert set(seen[1]["trail"]) <= {"P"}
    assert policy.primary.snapshot()["era"] == policy.primary.snapshot()["failures"] == 0


@pytest.mark.parametrize("write", WRITES)
def test_circuits_are_neither_asked_nor_fed(standin: StandIn, write: str, geo_failover: Any) -> None:
    store(standin)
    policy = geo_failover(retry=None, policy=Policy(recovery=AfterCalls(2)))
    blob = blob_of(standin, policy)
    policy.primary.trip()
    before = policy.primary.snapshot(), policy.secondary.snapshot()
    spoil(standin, status(503), methods=("PUT", "DELETE"))
    for _ in range(3):
        with pytest.raises(AzureError):
            WRITES[write](blob)
    standin.interfere = None
    store(standin)  # a deletion whose answer was spoilt has been made
    trail = Trail(standin)

    WRITES[write](blob)

    assert trail.look(("PUT", "DELETE")) == "P"
    assert (policy.primary.snapshot(), policy.secondary.snapshot()) == before


def test_a_client_set_to_the_secondary_writes_to_the_primary(standin: StandIn, geo_failover: Any) -> None:
    store(standin)
    blob = blob_of(standin, geo_failover())
    blob.location_mode = "secondary"
    trail = Trail(standin)

    blob.upload_blob(b"new", overwrite=True)
    blob.upload_blob(b"newer", overwrite=True, use_location="secondary")

    assert trail.look(("PUT",)) == "PP"
    assert blob.download_blob().readall() == b"newer"


def test_a_body_that_is_a_stream_is_sent_again_from_its_beginning(
    standin: StandIn, tmp_path: Any, geo_failover: Any
) -> None:
    store(standin)
    policy = geo_failover()
    blob = lone_blob_of(standin, policy, transport=noting_transport(policy))
    spoil(standin, status(503), methods=("PUT",), times=2)
    (tmp_path / "content").write_bytes(HELLO * 1000)

    with (tmp_path / "content").open("rb") as stream:
        blob.upload_blob(stream, overwrite=True)

    assert blob.download_blob().readall() == HELLO * 1000


def test_the_hook_of_a_read_hears_of_each_failed_failover_attempt(standin: StandIn, geo_failover: Any) -> None:
    store(standin)
    policy = geo_failover()
    transport = noting_transport(policy)
    blob = lone_blob_of(standin, policy, transport=transport)
    spoil(standin, status(503), at="primary+secondary", times=8)  # of two failover attempts
    heard: list[tuple[int, str, int]] = []

    def hook(**about: Any) -> None:
        heard.append((about["retry_count"], about["location_mode"], about["response"].status_code))
        assert about["error"] is None
        assert about["request"].method == "GET"

    assert blob.download_blob(retry_hook=hook).readall() == HELLO
    assert heard == [(0, "primary", 503), (1, "primary", 503)]
    assert len(transport.slept) == 2
    spoil(standin, status(503))
    assert blob.download_blob(retry_hook=hook).readall() == HELLO
    assert len(heard) == 2  # the secondary answered: there was nothing to repeat


def test_an_upload_is_not_kept(standin: StandIn, geo_failover: Any) -> None:
    # What the policy remembers of a request for its own must not hold the bytes of the last upload.
    store(standin)
    policy = geo_failover()
    content = b"x" * 1000
    blob_of(standin, policy).upload_blob(content, overwrite=True)

    assert policy._seen is not None
    assert all(not hasattr(each, "content") for each in policy._seen)
    assert content not in [each for part in policy._seen for each in gc.get_referents(part) if isinstance(each, bytes)]
