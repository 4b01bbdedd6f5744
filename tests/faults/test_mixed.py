"""Some seconds of the mixed load, and that it sees what is wrong."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.endpoints import CONTENTS, Account, serving
from tests.faults.mixed import Mixed

pytestmark = pytest.mark.program  # one Python is enough


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    with serving() as account:
        yield account


def test_no_read_fails_while_one_endpoint_is_well(account: Account) -> None:
    mixed = Mixed(account, seconds=8, threads=32, tasks=200, seed=7)
    mixed.run()
    assert mixed.wrong == []
    assert mixed.reads["thread: right"] > 0
    assert mixed.reads["task: right"] > 0


def test_it_sees_what_is_wrong(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(CONTENTS, "blob13", b"something else")
    mixed = Mixed(account, seconds=0.5, threads=4, tasks=4, seed=7)
    mixed.run()
    assert mixed.wrong
    assert all("blob13" in each and "the wrong bytes" in each for each in mixed.wrong)
