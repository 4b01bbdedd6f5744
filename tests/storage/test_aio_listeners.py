"""What test_geo_listeners asks of GeoFailover, asked of AsyncGeoFailover."""

from __future__ import annotations

import pytest
from azure.core.exceptions import AzureError

from failover.standin import StandIn
from tests.storage import test_geo_listeners
from tests.storage.aio import cases_of, in_a_loop
from tests.storage.raw import cut, spoil
from tests.storage.test_geo_listeners import listening, told

CASES = test_geo_listeners
globals().update(cases_of(CASES))
__all__ = ["in_a_loop"]  # a fixture

# aiohttp hands out all that came before a break: so that a body never ends, nothing must come.


@pytest.fixture(autouse=True)
def empty_bodies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CASES.FAULTS, "body", lambda account: spoil(account, cut(0), at="primary+secondary"))


def test_a_body_that_breaks_off_at_both(standin: StandIn) -> None:
    blob, heard, _ = listening(standin)
    spoil(standin, cut(0), at="primary+secondary")

    with pytest.raises(AzureError, match="Neither endpoint answered"):
        blob.download_blob()

    lines = told(heard)
    assert lines[0] == "retry primary 1/5 the body broke off"
    assert [each for each in lines if each.startswith("ended")] == [lines[-1]] == ["ended None 10"]
