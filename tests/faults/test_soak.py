"""Ten seconds of the soak, and that it sees what is wrong."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import pytest

from failover.storage import BothEndpointsDown
from tests.faults.endpoints import CONTENTS, Account, serving
from tests.faults.soak import Holdings, Soak

pytestmark = pytest.mark.program  # one Python is enough


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    with serving() as account:
        yield account


def _soak(hedge: float | None) -> tuple[list[str], dict[str, int]]:
    with serving() as account:
        soak = Soak(account, reads=4000, threads=16, seed=7, seconds=5, hedge=hedge)
        soak.run()
        return soak.wrong, dict(soak.outcomes)


@pytest.mark.parametrize("hedge", [None, 0.05])
def test_ten_seconds_of_faults_at_random(hedge: float | None) -> None:
    """Right bytes, or both endpoints were out; no circuit stuck; threads, sockets and memory as before."""
    # In a process of its own: other tests' sockets come and go.
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        wrong, outcomes = pool.submit(_soak, hedge).result()
    assert wrong == []
    assert outcomes["right"] > 0
    assert outcomes["no excuse to fail"] > 0
    assert (outcomes["requests hedged"] > 0) is (hedge is not None)


def test_it_sees_what_is_wrong(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong bytes, a failure without an excuse, and what has grown."""
    soak = Soak(account, reads=1, threads=1, seed=1)
    assert soak.read("blob13")
    monkeypatch.setitem(CONTENTS, "blob13", b"something else")
    assert not soak.read("blob13")

    def fail(*_: Any) -> None:
        raise BothEndpointsDown("503", "503")

    monkeypatch.setattr(soak.service, "get_blob_client", fail)
    monkeypatch.setattr(account, "both_out", lambda *_: False)
    assert not soak.read("blob13")
    assert ["the wrong bytes" in soak.wrong[0], "one was well" in soak.wrong[1]] == [True, True]
    soak.service.close()

    before = Holdings(threads=18, sockets=20, objects=60_000, mib=80.0)
    assert Holdings(18, 24, 61_000, 99.0).exceed(before) == []
    assert [each.split()[0] for each in Holdings(19, 25, 70_000, 120.0).exceed(before)] == [
        "threads",
        "sockets",
        "objects",
        "mib",
    ]
