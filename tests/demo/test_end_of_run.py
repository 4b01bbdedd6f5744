"""The end of a run: what its threads do when it comes before they know."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from failover.demo import cleanup
from failover.demo import events as ev
from failover.standin import StandIn
from tests.cli.test_bad_input import SECONDS, Told


def _looks(name: str) -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == name]


def test_nothing_is_told_between_the_finish_and_the_clean_up(standin: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    finishing = threading.Event()

    def react(event: ev.Event) -> None:
        if isinstance(event, ev.Finished):
            finishing.set()
            for each in _looks("last-sync"):  # it has its answer now, and this is told first
                each.join(0.3)

    told = Told(standin, react, requests=2)
    look = told.demo._check_secondary

    def late() -> dict[str, Any]:
        seen = look()
        assert finishing.wait(SECONDS)
        return seen

    monkeypatch.setattr(told.demo, "_check_secondary", late)
    assert told.run()
    for each in _looks("last-sync"):
        each.join(SECONDS)
    assert [type(each) for each in told.events[-2:]] == [ev.Finished, ev.CleanedUp]


@pytest.mark.parametrize("name", ["last-sync", "heartbeat"])
def test_a_thread_that_comes_too_late_is_silent(standin: StandIn, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(cleanup, "_HEARTBEAT_EVERY", 0.01)
    over, late, broken = threading.Event(), threading.Event(), list[object]()

    def react(event: ev.Event) -> None:
        if isinstance(event, ev.Read):
            late.wait(SECONDS)

    told = Told(standin, react, requests=1)
    send = told._faults.send

    def wait_first(request: Any, **options: Any) -> Any:
        if threading.current_thread().name == name:
            late.set()
            assert over.wait(SECONDS)
        return send(request, **options)

    monkeypatch.setattr(told._faults, "send", wait_first)
    monkeypatch.setattr(threading, "excepthook", lambda arguments: broken.append(arguments.exc_value))
    assert told.run()
    threads = _looks(name)
    assert threads
    over.set()
    for each in threads:
        each.join(SECONDS)
    assert not broken
