"""What test_geo_bodies asks of GeoFailover, asked of AsyncGeoFailover."""

from __future__ import annotations

import zlib

import pytest
from azure.storage.blob import ContentSettings

from failover.standin import StandIn
from failover.storage import GeoFailover
from tests.storage import test_geo_bodies
from tests.storage.aio import cases_of, in_a_loop
from tests.storage.raw import BLOCK, KIB, MIB, Trail, blob_of, cut, store
from tests.storage.test_geo_bodies import CONTENT, spans

CASES = test_geo_bodies
globals().update(cases_of(CASES))
__all__ = ["in_a_loop"]  # a fixture

# What differs: aiohttp hands out all that came before a break, and not whole blocks only.


@pytest.mark.parametrize("after", [0, 1, BLOCK - 1, BLOCK, 600 * KIB, MIB - 1])
def test_the_other_endpoint_sends_the_rest(standin: StandIn, policy: GeoFailover, after: int) -> None:
    store(standin, CONTENT)
    seen = spans(standin, cut(after), times=1)

    assert blob_of(standin, policy).download_blob().readall() == CONTENT

    assert seen == [f"P bytes=0-{32 * MIB - 1}", f"S bytes={after}-{MIB - 1}"]
    assert policy.primary.snapshot()["failures"] == 1
    assert policy.primary.snapshot()["last_error"] == "the body broke off"
    assert policy.secondary.snapshot()["failures"] == 0


def test_a_part_of_a_blob_ends_where_it_should(standin: StandIn, policy: GeoFailover) -> None:
    store(standin, CONTENT)
    seen = spans(standin, cut(BLOCK + 7), times=1)

    part = blob_of(standin, policy).download_blob(offset=1000, length=3 * BLOCK).readall()

    assert part == CONTENT[1000 : 1000 + 3 * BLOCK]
    assert seen[1] == f"S bytes={1000 + BLOCK + 7}-{1000 + 3 * BLOCK - 1}"


def test_both_endpoints_break_in_turn(standin: StandIn, policy: GeoFailover) -> None:
    store(standin, CONTENT)
    seen = spans(standin, cut(BLOCK + 5), at="primary+secondary", times=3)

    assert blob_of(standin, policy).download_blob().readall() == CONTENT

    starts = [each.partition("-")[0] for each in seen]
    step = BLOCK + 5
    assert starts == ["P bytes=0", f"S bytes={step}", f"P bytes={2 * step}", f"S bytes={3 * step}"]


def test_a_body_that_cannot_be_decoded_is_no_failure_of_an_endpoint(standin: StandIn, policy: GeoFailover) -> None:
    # The async SDK lets zlib's error through, and does not ask again.
    store(standin, CONTENT, content_settings=ContentSettings(content_encoding="gzip"))
    trail = Trail(standin)

    with pytest.raises(zlib.error):
        blob_of(standin, policy).download_blob()

    assert trail.look() == "P"
    assert policy.primary.snapshot()["failures"] == 0
