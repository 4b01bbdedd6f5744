"""Some schedules of each kind, and that the judge sees what is worse."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from azure.core.exceptions import ServiceRequestError

from failover.storage import BothEndpointsDown
from tests.never_worse.play import Report, judge, play, play_seed
from tests.never_worse.schedule import FORMS, Call, Form, make
from tests.never_worse.sides import KINDS, Kind, Outcome
from tests.never_worse.world import World

SEEDS = 20
SHARES = 4


def _expect_nothing_worse(report: Report) -> None:
    if report.violations:
        pytest.fail("\n".join([line for each in report.violations[:3] for line in each.text] + report.lines()))


@pytest.mark.parametrize("share", range(SHARES))
def test_a_client_with_geofailover_is_never_worse_than_one_without(share: int) -> None:
    report = Report()
    for seed in range(share, SEEDS, SHARES):
        report.add(play_seed(seed))
    _expect_nothing_worse(report)
    assert report.saved + report.sooner > 0


@pytest.mark.parametrize(
    ("seed", "form", "kind"), [(753, "alone", "sdk"), (852, "together", "sync"), (1054, "together", "aio")]
)
def test_what_was_worse_once(seed: int, form: Form, kind: Kind) -> None:
    _expect_nothing_worse(play_seed(seed, form=form, kind=kind))


@pytest.mark.parametrize("hedge", [0.02, 1.0])
def test_a_client_that_hedges_is_never_worse(hedge: float) -> None:
    report = Report()
    for seed in range(3):
        report.add(play_seed(seed, hedge=hedge))
    _expect_nothing_worse(report)
    assert report.saved + report.sooner > 0


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_stands_for_one_play(kind: Kind, form: Form) -> None:
    """What is found can be played again."""
    first: list[str] = []
    second: list[str] = []
    play(make(3, form), kind, first.append)
    play(make(3, form), kind, second.append)
    assert first == second


OLD, NEW = b"old", b"new"
_READ = Call(0.0, "download", "blob")


def _world() -> World:
    world = World(0, (), 10.0, {})
    world.put("blob", OLD, -100.0)
    world.put("blob", NEW, -5.0)
    return world


def _judge(bare: Any, ours: Any, *, bare_took: float = 1.0, ours_took: float = 1.0, call: Call = _READ) -> list[str]:
    world = _world()
    etags = {each.data: each.etag for each in world.blobs["blob"]}

    def outcome(came: Any, took: float) -> Outcome:
        if isinstance(came, Exception):
            return Outcome(None, came, 0.0, took)
        return Outcome((came, etags.get(came, "?")) if isinstance(came, bytes) else came, None, 0.0, took)

    return judge(call, outcome(bare, bare_took), outcome(ours, ours_took), world)


def test_the_judge_takes_what_is_as_good() -> None:
    assert _judge(NEW, NEW) == []
    assert _judge(NEW, OLD) == [], "which the secondary still held"
    assert _judge(NEW, NEW, ours_took=11.9) == []
    lost = ServiceRequestError("refused")
    assert _judge(lost, NEW) == []
    assert _judge(lost, ServiceRequestError("refused")) == []
    assert _judge(lost, BothEndpointsDown("refused", "refused")) == []


def test_the_judge_sees_what_is_worse() -> None:
    lost = ServiceRequestError("refused")
    assert _judge(NEW, lost) == ["lost"]
    assert _judge(NEW, b"what nobody wrote") == ["wrong"]
    assert _judge(lost, b"what nobody wrote") == ["wrong"]
    assert _judge(NEW, ("status", 404)) == ["wrong"]
    assert _judge(True, False, call=dataclasses.replace(_READ, kind="exists")) == ["wrong"]
    assert _judge(NEW, NEW, ours_took=12.1) == ["late"]
    assert _judge(lost, AttributeError("internal")) == ["type"]
    assert _judge(lost, lost, ours_took=12.1) == ["late-error"]
    fresh = _world()
    assert fresh.blob("blob", "secondary", 0.0) == fresh.blobs["blob"][0]
