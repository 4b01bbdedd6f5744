"""A circuit may spare a read a hopeless attempt, never its only hope."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from failover.breaker import State
from failover.storage import BothEndpointsDown, NotReplicated
from tests.never_worse.world import Fault
from tests.storage.both_kinds import each, read, result
from tests.storage.virtual import BOTH, FOREVER, FRESH, KINDS, OLD, Lab, P, S

NAMES = [f"blob{n}" for n in range(10)]
ALL = [*NAMES, "fresh", "old"]
BLOBS = dict.fromkeys(NAMES, b"listed")
SETTINGS: list[dict[str, Any]] = [{}, {"retry": None}]


def _open_primary(lab: Lab) -> None:
    """Let failures of the primary open its circuit."""
    for _ in range(3):
        lab.try_to_read("old")
    assert lab.policy.primary.state is State.OPEN
    lab.forget()


# The primary is well again, and its circuit does not know


@pytest.mark.parametrize("settings", SETTINGS, ids=["retry", "no retry"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_open_circuit_does_not_keep_a_read_from_a_primary_that_is_well_again(
    kind: str, settings: dict[str, Any]
) -> None:
    with Lab(kind, Fault(0.0, 1.0, P, "503"), **settings) as lab:
        _open_primary(lab)
        lab.clock.now = 1.0

        assert lab.read("fresh") == FRESH

        assert lab.trail == "SP"
        assert lab.clock.now < 2, "nothing was waited for"
        assert lab.policy.primary.state is State.CLOSED


@pytest.mark.parametrize("secondary", ["dns", "refuse", "connect-hang", "503", "403"])
@pytest.mark.parametrize("settings", SETTINGS, ids=["retry", "no retry"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_open_circuit_does_not_keep_a_read_from_the_primary_where_there_is_no_secondary(
    kind: str, settings: dict[str, Any], secondary: str
) -> None:
    with Lab(kind, Fault(0.0, 1.0, P, "503"), Fault(1.0, FOREVER, S, secondary), **settings) as lab:
        _open_primary(lab)
        lab.clock.now = 1.0

        assert lab.read("old") == OLD

        assert lab.clock.now < 12, "two attempts that hang, and no backoff of the SDK's"


@pytest.mark.parametrize("kind", KINDS)
def test_what_only_the_primary_may_hold_is_not_waited_for_while_it_is_down(kind: str) -> None:
    """Its circuit is open, the last resort failed, and the secondary says no: to wait helps nobody."""
    with Lab(kind, Fault(0.0, FOREVER, P, "503")) as lab:
        _open_primary(lab)

        assert isinstance(lab.try_to_read("fresh"), NotReplicated)

        assert "P" in lab.trail
        assert lab.clock.now < 1


# This machine's network


@pytest.mark.parametrize(("seconds", "pace"), [(3, 1), (40, 1), (100, 1), (400, 4)], ids=["3", "40", "100", "400"])
@pytest.mark.parametrize("fault", ["dns", "refuse", "connect-hang"])
@pytest.mark.parametrize("settings", SETTINGS, ids=["retry", "no retry"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_first_read_after_the_network_is_back_is_answered(
    kind: str, settings: dict[str, Any], fault: str, seconds: int, pace: int
) -> None:
    """A laptop without its network, read after read, at most one in `pace` seconds."""
    began, back = 10.0, 10.0 + seconds
    with Lab(kind, Fault(began, back, BOTH, fault), **settings) as lab:
        lost = []
        while lab.clock.now < back + 5:
            start = lab.clock.now
            if lab.try_to_read("old") is not None:
                lost.append(start)
            lab.clock.now = max(lab.clock.now, start + pace)

        assert all(start < back for start in lost)
        start = lab.clock.now
        lab.read("old")
        assert lab.clock.now < start + 1


@pytest.mark.parametrize("kind", KINDS)
def test_both_circuits_close_again_by_what_reads_find(kind: str) -> None:
    with Lab(kind, Fault(0.0, 100.0, BOTH, "dns"), retry=None) as lab:
        for _ in range(10):
            assert isinstance(lab.try_to_read("old"), BothEndpointsDown)
        assert {lab.policy.primary.state, lab.policy.secondary.state} == {State.OPEN}
        lab.clock.now = 100.0
        lab.forget()

        assert lab.read("old") == OLD
        assert lab.trail == "P"
        assert lab.policy.primary.state is State.CLOSED


# Pages: their marker means something to the endpoint alone that gave it


async def _names(container: Any) -> AsyncIterator[list[str]]:
    """The names on each page of a listing: four of them on the first."""
    async for page in each(container.list_blobs(results_per_page=4).by_page()):
        yield [blob.name async for blob in each(page)]


@pytest.mark.parametrize(("fault", "seconds"), [("503", 0.15), ("refuse", 0.1), ("reset", 0.1), ("hang", 3.0)])
@pytest.mark.parametrize("kind", KINDS)
def test_a_listing_goes_on_after_a_blip_on_its_second_page(kind: str, fault: str, seconds: float) -> None:
    with Lab(kind, Fault(50.0, 50.0 + seconds, P, fault), blobs=BLOBS) as lab:

        async def list_them() -> list[str]:
            found: list[str] = []
            async for page in _names(lab.service.get_container_client("demo")):
                if not found:
                    lab.clock.now = 50.0
                found += page
            return found

        assert lab.run(list_them()) == ALL
        assert set(lab.trail) == {"P"}
        assert lab.trail.count("P") > 2, "one of them in vain"


@pytest.mark.parametrize("settings", SETTINGS, ids=["retry", "no retry"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_listing_goes_on_although_its_circuit_has_opened_meanwhile(kind: str, settings: dict[str, Any]) -> None:
    with Lab(kind, Fault(50.0, 51.0, P, "503"), blobs=BLOBS, **settings) as lab:

        async def list_them() -> list[str]:
            found: list[str] = []
            async for page in _names(lab.service.get_container_client("demo")):
                if not found:  # reads of others meet the blip
                    lab.clock.now = 50.0
                    for _ in range(3):
                        blob = lab.service.get_blob_client("demo", "old")
                        await result(blob.get_blob_properties())
                    assert lab.policy.primary.state is State.OPEN
                    lab.clock.now = 51.0
                found += page
            return found

        assert lab.run(list_them()) == ALL
        assert lab.clock.now < 52


@pytest.mark.parametrize("kind", KINDS)
def test_a_listing_that_the_secondary_began_goes_on_there(kind: str) -> None:
    """Also while the primary is well again: the marker is the secondary's."""
    with Lab(kind, Fault(0.0, 1.0, P, "503"), Fault(50.0, 50.15, S, "503"), blobs=BLOBS) as lab:

        async def list_them() -> list[str]:
            found: list[str] = []
            async for page in _names(lab.service.get_container_client("demo")):
                if not found:
                    lab.forget()
                    lab.clock.now = 50.0
                found += page
            return found

        assert lab.run(list_them()) == [*NAMES, "old"], "which the secondary holds"
        assert set(lab.trail) == {"S"}


def test_a_slow_primary_answers_those_too_who_found_no_place() -> None:
    """At most `max_probes` are asked as a last resort, until the places of those who are under way are free again."""
    faults = Fault(0.0, 1.0, P, "503"), Fault(1.0, FOREVER, P, "slow", seconds=40.0), Fault(0.0, FOREVER, S, "dns")
    with Lab("aio", *faults, retry=None) as lab:
        _open_primary(lab)
        lab.clock.now = 1.0

        async def together() -> list[bytes]:
            return list(await asyncio.gather(*(read(lab.service, "old") for _ in range(8))))

        assert lab.run(together()) == [OLD] * 8
        assert lab.clock.now < 1 + 30 + 2 * 5 + 40 + 1


def test_who_found_no_place_asks_although_those_who_had_one_have_failed() -> None:
    """A little later it may be another answer: the primary recovers while the first of them waits for it."""
    faults = Fault(0.0, 1.0, P, "503"), Fault(1.0, 16.0, P, "hang"), Fault(0.0, FOREVER, S, "dns")
    with Lab("aio", *faults, retry=None) as lab:
        _open_primary(lab)
        lab.clock.now = 1.0

        async def together() -> list[BaseException | bytes]:
            reads = (read(lab.service, "old", read_timeout=20) for _ in range(3))
            return list(await asyncio.gather(*reads, return_exceptions=True))

        first, *others = lab.run(together())
        assert isinstance(first, BothEndpointsDown)
        assert others == [OLD] * 2
