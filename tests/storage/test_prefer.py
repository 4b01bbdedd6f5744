"""`prefer="secondary"`: which endpoint a read asks first, and who has the last word."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Final

import pytest
from azure.core import MatchConditions
from azure.core.exceptions import AzureError, ResourceNotFoundError

from failover.breaker import State
from failover.storage import BothEndpointsDown, NotReplicated
from tests.never_worse.transports import AsyncOwnTransport, OwnTransport, sdk_transport
from tests.never_worse.world import Fault
from tests.storage.both_kinds import each, geo_failover, read, result, service
from tests.storage.virtual import BOTH, FOREVER, FRESH, KINDS, OLD, URL, Lab, P, S

HERE: Final[dict[str, Any]] = {"prefer": "secondary"}
CALL: Final[dict[str, Any]] = {"failover_prefer": "secondary"}
THERE: Final[dict[str, Any]] = {}
CREDENTIAL: Final = {"account_name": "account", "account_key": "a2V5"}  # of nobody
TRANSPORTS: Final[dict[str, Any]] = {"sync": OwnTransport, "sdk": sdk_transport, "aio": AsyncOwnTransport}


def the_blob(lab: Lab, name: str = "old") -> Any:
    return lab.service.get_blob_client("demo", name)


def demo(lab: Lab) -> Any:
    return lab.service.get_container_client("demo")


# Which is asked first


@pytest.mark.parametrize("kind", KINDS)
def test_reads_go_to_the_secondary(kind: str) -> None:
    with Lab(kind, **HERE) as lab:
        assert lab.read("old") == OLD
        assert lab.run(result(the_blob(lab).exists()))
        assert lab.run(result(the_blob(lab).get_blob_properties())).size == len(OLD)
        assert lab.names() == ["old"]
        lab.write()

        assert lab.trail == "SSSSP", "writes go to the primary"


@pytest.mark.parametrize("kind", KINDS)
def test_one_call_may_say_otherwise(kind: str) -> None:
    with Lab(kind) as near, Lab(kind, **HERE) as far:
        assert near.read("old", failover_prefer="secondary") == OLD
        assert near.read("old", failover_prefer="primary") == OLD
        assert near.read("old", failover_prefer=None) == OLD
        assert near.trail == "SPP"

        assert far.read("old", failover_prefer="primary") == OLD
        assert far.read("old", failover_prefer=None) == OLD
        assert far.trail == "PS"


CALLS: Final[dict[str, Callable[[Lab, dict[str, Any]], Any]]] = {
    "download": lambda lab, options: the_blob(lab).download_blob(**options),
    "properties": lambda lab, options: the_blob(lab).get_blob_properties(**options),
    "exists": lambda lab, options: the_blob(lab).exists(**options),
    "upload": lambda lab, options: the_blob(lab).upload_blob(b"new", overwrite=True, **options),
    "block": lambda lab, options: the_blob(lab).stage_block("MDE=", b"part", **options),
    "delete": lambda lab, options: the_blob(lab).delete_blob(**options),
    "list": lambda lab, options: _listed(demo(lab).list_blobs(**options)),
}


async def _listed(items: Any) -> list[Any]:
    return [item async for item in each(items)]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_transport_sees_the_option(kind: str, call: str) -> None:
    """Of reads and of writes. requests would raise a `TypeError`."""

    seen: list[str] = []

    def make_transport(*args: Any) -> Any:
        transport = TRANSPORTS[kind](*args)
        send = transport.send

        def noting(request: Any, **given: Any) -> Any:
            seen.extend(given)
            return send(request, **given)

        transport.send = noting
        return transport

    with Lab(kind, make_transport=make_transport) as lab:
        lab.run(result(CALLS[call](lab, CALL)))

    assert lab.trail
    assert not [name for name in seen if name.startswith("failover")]


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_call_that_says_nonsense(kind: str, call: str) -> None:
    with Lab(kind) as lab:
        for nonsense in ("nearest", "SECONDARY", "", 1, ["secondary"]):
            with pytest.raises(ValueError, match=r'^failover_prefer must be "primary" or "secondary", not '):
                lab.run(result(CALLS[call](lab, {"failover_prefer": nonsense})))
        for wrong in (0, -1.0, True, "soon"):
            with pytest.raises(ValueError, match=r"^failover_hedge must be seconds above 0"):
                lab.run(result(CALLS[call](lab, {"failover_hedge": wrong})))
        assert lab.trail == ""


def test_a_policy_that_says_nonsense(client_kind: str) -> None:
    for nonsense in ("nearest", "SECONDARY", "", 1, None, ["secondary"]):
        with pytest.raises(ValueError, match=r'^prefer must be "primary" or "secondary", not '):
            geo_failover(client_kind, prefer=nonsense)


@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_prefers_the_same(kind: str) -> None:
    with Lab(kind, **HERE) as lab:
        for duplicate in (copy.copy, copy.deepcopy):
            policy = duplicate(geo_failover(lab.kind, prefer="secondary"))
            transport = TRANSPORTS[kind](lab.world, lab.clock, 0)
            client = service(lab.kind, URL, credential=CREDENTIAL, transport=transport, retry_policy=policy)
            assert lab.run(read(client, "old")) == OLD
        assert lab.trail == "SS"


# The primary has the last word


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_secondary_does_not_hold(kind: str) -> None:
    with Lab(kind, **HERE) as lab:
        assert lab.read("fresh") == FRESH
        assert lab.trail == "SP"
        lab.forget()
        assert isinstance(lab.try_to_read("never was"), ResourceNotFoundError)
        assert lab.trail == "SP"
        assert not lab.run(result(the_blob(lab, "never was").exists()))


@pytest.mark.parametrize("kind", KINDS)
def test_a_range_that_the_secondary_does_not_have_yet(kind: str) -> None:
    with Lab(kind, blobs={"grown": b"s" * 100}, **HERE) as lab:
        lab.world.put("grown", b"l" * 300, 0.0)

        assert lab.read("grown", offset=150, length=50) == b"l" * 50

        assert lab.trail == "SP"


@pytest.mark.parametrize("secondary", ["404", "412"])
@pytest.mark.parametrize("kind", KINDS)
def test_do_not_know_is_not_no(kind: str, secondary: str) -> None:
    with Lab(kind, Fault(1.0, FOREVER, P, "503"), retry=None, **HERE) as lab:
        etag = lab.world.put("old", FRESH, 0.0).etag
        lab.clock.now = 1.0

        if secondary == "404":
            error = lab.try_to_read("fresh")
        else:
            error = lab.try_to_read("old", etag=etag, match_condition=MatchConditions.IfNotModified)

        assert isinstance(error, NotReplicated)
        assert error.secondary.startswith(secondary)
        assert error.primary == "503 ServerBusy"
        assert lab.trail == "SPP"


@pytest.mark.parametrize("secondary", ["403", "501"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_refusal_of_the_secondarys_own(kind: str, secondary: str) -> None:
    """Its firewall, a gateway in front of it."""
    with Lab(kind, Fault(0.0, FOREVER, S, secondary), **HERE) as lab:
        assert lab.read("fresh") == FRESH
        assert lab.trail == "SP"


# Failing over


@pytest.mark.parametrize("fault", ["503", "refuse", "dns", "reset"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_primary_answers_for_a_secondary_that_is_down(kind: str, fault: str) -> None:
    with Lab(kind, Fault(0.0, FOREVER, S, fault), **HERE) as lab:
        for _ in range(3):
            assert lab.read("fresh") == FRESH
        assert lab.policy.secondary.state is State.OPEN
        lab.forget()

        assert lab.read("fresh") == FRESH

        assert lab.trail == "P", "an open circuit is passed over"
        assert lab.policy.primary.snapshot()["failures"] == 0


@pytest.mark.parametrize("fault", ["hang", "connect-hang"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_secondary_that_hangs_costs_one_time_out(kind: str, fault: str) -> None:
    with Lab(kind, Fault(0.0, FOREVER, S, fault), **HERE) as lab:
        assert lab.read("old") == OLD

        assert lab.trail == "SP"
        assert lab.clock.now == pytest.approx(5.0, abs=0.1)
        assert lab.policy.secondary.snapshot()["failures"] == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_slow_question_is_asked_of_the_primary_again(kind: str) -> None:
    """With the SDK's own time-outs, and nobody has failed."""
    with Lab(kind, Fault(0.0, FOREVER, BOTH, "slow", seconds=20.0), **HERE) as lab:
        assert lab.read("old") == OLD

        assert lab.trail == "SPP"
        assert lab.clock.now == pytest.approx(30.0, abs=0.2)
        assert lab.policy.secondary.snapshot()["failures"] == lab.policy.primary.snapshot()["failures"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_primarys_failure_is_what_the_retry_judges(kind: str) -> None:
    """A 503 of the primary's is tried again, a 429 is not, whatever the secondary says."""
    with Lab(kind, Fault(0.0, 10.0, P, "503"), Fault(0.0, 10.0, S, "429"), **HERE) as lab:
        assert lab.read("old") == OLD
    with Lab(kind, Fault(0.0, 10.0, P, "429"), Fault(0.0, 10.0, S, "503"), **HERE) as lab:
        error = lab.try_to_read("old")
        assert isinstance(error, BothEndpointsDown)
        assert error.status_code == 429
        assert lab.clock.now < 1


@pytest.mark.parametrize("kind", KINDS)
def test_both_circuits_are_open_and_the_primary_is_well_again(kind: str) -> None:
    with Lab(kind, Fault(0.0, 1.0, BOTH, "503"), Fault(1.0, FOREVER, S, "503"), retry=None, **HERE) as lab:
        for _ in range(3):
            assert isinstance(lab.try_to_read("old"), BothEndpointsDown)
        assert [each.state for each in (lab.policy.primary, lab.policy.secondary)] == [State.OPEN] * 2
        lab.clock.now = 1.0
        lab.forget()

        assert lab.read("fresh") == FRESH

        assert lab.trail == "P", "the last resort is the primary first"
        assert lab.policy.primary.state is State.CLOSED


@pytest.mark.parametrize("kind", KINDS)
def test_nobody_waits_where_the_primary_alone_may_hold_it(kind: str) -> None:
    with Lab(kind, Fault(0.0, FOREVER, P, "503"), **HERE) as lab:
        lab.policy.primary.trip()

        error = lab.try_to_read("fresh")

        assert isinstance(error, NotReplicated)
        assert lab.clock.now < 1


# Bodies, pages, and what is bound


LARGE: Final = bytes(range(256)) * 40
PIECES: Final = {"max_single_get_size": 4096, "max_chunk_get_size": 4096}


async def _download(lab: Lab, **options: Any) -> bytes:
    client = type(lab.service)(
        lab.service.url, credential=lab.service.credential, _pipeline=lab.service._pipeline, **PIECES
    )
    stream = await result(client.get_blob_client("demo", "large").download_blob(**options))
    data: bytes = await result(stream.readall())
    return data


@pytest.mark.parametrize("kind", KINDS)
def test_later_ranges_stay_with_who_sent_the_first(kind: str) -> None:
    with Lab(kind, blobs={"large": LARGE}, **HERE) as lab:
        assert lab.run(_download(lab)) == LARGE
        assert lab.trail == "SSS"
        lab.forget()
        assert lab.run(_download(lab, failover_prefer="primary")) == LARGE
        assert lab.trail == "PPP"


@pytest.mark.parametrize("broken", ["truncated", "body-reset"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_body_that_breaks_off_goes_on_at_the_primary(kind: str, broken: str) -> None:
    with Lab(kind, Fault(0.0, FOREVER, S, broken), blobs={"large": LARGE}, **HERE) as lab:
        assert lab.read("large") == LARGE
        assert lab.trail == "SP"


@pytest.mark.parametrize("kind", KINDS)
def test_pages_stay(kind: str) -> None:
    blobs = {f"b{n}": b"x" for n in range(5)}
    with Lab(kind, blobs=blobs, **HERE) as lab:
        assert lab.names(results_per_page=2) == [*blobs, "old"]
        assert lab.trail == "SS"
        lab.forget()
        assert lab.names(results_per_page=2, failover_prefer="primary") == [*blobs, "fresh", "old"]
        assert lab.trail == "PP"


@pytest.mark.parametrize("location", ["primary", "secondary"])
@pytest.mark.parametrize("kind", KINDS)
def test_use_location_stays(kind: str, location: str) -> None:
    for settings in (THERE, HERE):
        with Lab(kind, **settings) as lab:
            assert lab.read("old", use_location=location, **CALL) == OLD
            assert lab.read("old", use_location=location) == OLD
            assert lab.trail == location[0].upper() * 2
            lab.forget()
            error = lab.try_to_read("fresh", use_location="secondary")
            assert isinstance(error, ResourceNotFoundError)
            assert set(lab.trail) == {"S"}


@pytest.mark.parametrize("kind", KINDS)
def test_an_account_whose_secondary_is_not_known(kind: str) -> None:
    hosts = {"storage.example.com": "primary"}
    with Lab(kind, url="https://storage.example.com", hosts=hosts, credential=None, **HERE) as lab:
        assert lab.read("old") == OLD
        assert lab.trail == "P"
        assert isinstance(lab.try_to_read("never was", **CALL), ResourceNotFoundError)


# max_staleness


@pytest.mark.parametrize("kind", KINDS)
def test_a_secondary_that_is_too_old(kind: str) -> None:
    with Lab(kind, max_staleness=60.0, **HERE) as lab:
        lab.world.lag = 100.0

        assert lab.read("fresh") == FRESH
        assert lab.trail == "SP", "its Last Sync Time, and the read"
        lab.forget()
        assert lab.read("fresh") == FRESH
        assert lab.trail == "P"

        lab.world.lag = 30.0
        lab.clock.now = 40.0
        lab.forget()
        assert lab.read("fresh") == FRESH
        assert lab.read("fresh") == FRESH
        assert lab.trail == "SSS", "it has caught up"


@pytest.mark.parametrize("kind", KINDS)
def test_a_secondary_that_hangs_is_seldom_asked_for_its_last_sync_time(kind: str) -> None:
    """Else each read, once a second, would wait for it although the primary is well."""
    with Lab(kind, Fault(0.0, FOREVER, S, "hang"), max_staleness=60.0, **HERE) as lab:
        waited = 0.0
        for second in range(100):
            lab.clock.now = began = max(lab.clock.now, 10.0 * second)
            assert lab.read("fresh") == FRESH
            waited += lab.clock.now - began

    assert waited / lab.clock.now < 0.1


def test_without_the_primary_a_secondary_that_is_too_old_is_no_answer() -> None:
    with Lab("sync", Fault(0.0, FOREVER, P, "503"), max_staleness=60.0, retry=None, **HERE) as lab:
        error = lab.try_to_read("old")
        assert isinstance(error, AzureError)
        assert "max_staleness is 60 s" in str(error)
