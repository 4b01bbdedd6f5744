"""What a read raises that nobody answers: why, in fields; also in another process, and in a copy."""

from __future__ import annotations

import copy
import functools
import multiprocessing
import pickle
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Final

import pytest
from azure.core.exceptions import AzureError, HttpResponseError, ServiceRequestError, ServiceResponseTimeoutError

from failover.standin import Exchange, StandIn
from failover.storage import BothEndpointsDown, NotReplicated
from tests.never_worse.world import Fault
from tests.storage.account import spoil, status, store
from tests.storage.both_kinds import (
    both_kinds,
    close,
    connect_options,
    geo_failover,
    read,
    run,
    service,
)
from tests.storage.virtual import BOTH, FOREVER, KINDS, OLD, Lab, P, S

FIELDS: Final = ("primary", "secondary", "status_code", "error_code", "request_id")


def _fields(error: Any) -> dict[str, Any]:
    return {
        "type": type(error),
        "text": str(error),
        "args": error.args,
        **{name: getattr(error, name) for name in FIELDS},
        # Their `str` has the response's text, which no copy has.
        "primary_error": (type(error.primary_error), error.primary_error.message),
        "secondary_error": (type(error.secondary_error), error.secondary_error.message),
        "statuses": [getattr(each, "status_code", None) for each in (error.primary_error, error.secondary_error)],
        "cause": error.__cause__.message,
    }


def _error(kind: str, *faults: Fault, name: str = "old", **options: Any) -> Any:
    with Lab(kind, *faults, retry=None) as lab:
        error = lab.try_to_read(name, **options)
        assert error is not None
        return error


# Fields


@pytest.mark.parametrize("kind", KINDS)
def test_both_endpoints_say_no(kind: str) -> None:
    error = _error(kind, Fault(0.0, FOREVER, P, "503"), Fault(0.0, FOREVER, S, "500"))

    assert isinstance(error, BothEndpointsDown)
    assert (error.primary, error.secondary) == ("503 ServerBusy", "500 InternalError")
    assert (error.status_code, error.error_code) == (503, "ServerBusy")
    assert isinstance(error.primary_error, HttpResponseError)
    assert isinstance(error.secondary_error, HttpResponseError)
    assert (error.primary_error.status_code, error.secondary_error.status_code) == (503, 500)
    assert error.response.status_code == 503
    assert error.__cause__ is error.primary_error


@pytest.mark.parametrize("kind", KINDS)
def test_the_primary_cannot_be_reached(kind: str) -> None:
    error = _error(kind, Fault(0.0, FOREVER, P, "dns"), Fault(0.0, FOREVER, S, "503"))

    assert isinstance(error, BothEndpointsDown)
    assert isinstance(error.primary_error, ServiceRequestError)
    assert (error.status_code, error.error_code) == (503, "ServerBusy"), "of the only one that answered"
    assert error.__cause__ is error.primary_error


@pytest.mark.parametrize("kind", KINDS)
def test_neither_can_be_reached(kind: str) -> None:
    error = _error(kind, Fault(0.0, FOREVER, P, "hang"), Fault(0.0, FOREVER, S, "refuse"))

    assert isinstance(error, BothEndpointsDown)
    assert isinstance(error.primary_error, ServiceResponseTimeoutError)
    assert isinstance(error.secondary_error, ServiceRequestError)
    assert (error.response, error.status_code, error.error_code, error.request_id) == (None, None, None, None)


@pytest.mark.parametrize("kind", KINDS)
def test_the_secondary_does_not_hold_it(kind: str) -> None:
    error = _error(kind, Fault(0.0, FOREVER, P, "503"), name="fresh")

    assert isinstance(error, NotReplicated)
    assert (error.primary, error.secondary) == ("503 ServerBusy", "404 BlobNotFound")
    assert (error.status_code, error.error_code) == (503, "ServerBusy")
    assert isinstance(error.secondary_error, HttpResponseError)
    assert error.secondary_error.status_code == 404


NUMBER: Final = "00000000-0000-0000-0000-000000000001"


def fail_with_number(exchange: Exchange) -> None:
    exchange.fail(503)
    exchange.reply.headers["x-ms-request-id"] = NUMBER


@both_kinds
async def test_the_number_of_the_request_for_a_support_case(client_kind: str, standin: StandIn) -> None:
    store(standin)
    spoil(standin, fail_with_number, at="primary+secondary")
    client = service(
        client_kind, standin.primary_url, retry_policy=geo_failover(client_kind, retry=None), **connect_options(standin)
    )
    with pytest.raises(BothEndpointsDown) as caught:
        await read(client)
    await close(client)
    assert caught.value.request_id == caught.value.response.headers["x-ms-request-id"] == NUMBER


@pytest.mark.parametrize("kind", KINDS)
def test_the_firewall_of_the_secondary_alone(kind: str) -> None:
    """Its 403 must not be taken for the primary's: both are named."""
    error = _error(kind, Fault(0.0, FOREVER, P, "503"), Fault(0.0, FOREVER, S, "403"))

    assert isinstance(error, BothEndpointsDown)
    assert (error.primary, error.secondary) == ("503 ServerBusy", "403 AuthorizationFailure")
    assert "503 ServerBusy" in str(error)
    assert "403 AuthorizationFailure" in str(error)


@pytest.mark.parametrize("kind", KINDS)
def test_a_403_of_the_primary_is_its_answer(kind: str) -> None:
    error = _error(kind, Fault(0.0, FOREVER, BOTH, "403"))

    assert isinstance(error, HttpResponseError)
    assert error.status_code == 403


# What a replica that lags says of what has changed meanwhile


SECRET: Final = "a SAS"

GROWN: Final = {"offset": 150, "length": 50}


@pytest.mark.parametrize("kind", KINDS)
def test_a_range_that_the_replica_does_not_have_yet(kind: str) -> None:
    """The blob has 300 bytes, its replica 100: what is behind them is not "no"."""
    small, large = b"s" * 100, b"l" * 300
    with Lab(kind, Fault(10.0, FOREVER, P, "refuse"), blobs={"grown": small}, retry=None) as lab:
        lab.world.put("grown", large, 0.0)
        assert lab.read("grown", **GROWN) == large[150:200]
        lab.clock.now = 10.0

        error = lab.try_to_read("grown", **GROWN)

    assert isinstance(error, NotReplicated)
    assert error.secondary.startswith("416")


@pytest.mark.parametrize("kind", KINDS)
def test_a_range_that_the_primary_does_not_have_is_no(kind: str) -> None:
    error = _error(kind, offset=1000, length=50)
    assert isinstance(error, HttpResponseError)
    assert error.status_code == 416


# Copies


@pytest.fixture(params=["BothEndpointsDown", "NotReplicated", "unreachable"])
def error(request: pytest.FixtureRequest) -> Any:
    """An error of a read."""
    if request.param == "NotReplicated":
        return _error("sync", Fault(0.0, FOREVER, P, "503"), name="fresh")
    fault = "dns" if request.param == "unreachable" else "503"
    return _error("sync", Fault(0.0, FOREVER, BOTH, fault))


def by_pickle(error: Any, protocol: int = pickle.DEFAULT_PROTOCOL) -> Any:
    return pickle.loads(pickle.dumps(error, protocol))  # noqa: S301 (our own)


COPIES: Final[list[Callable[[Any], Any]]] = [
    copy.copy,
    copy.deepcopy,
    *(functools.partial(by_pickle, protocol=protocol) for protocol in range(pickle.HIGHEST_PROTOCOL + 1)),
]


@pytest.mark.parametrize("duplicate", COPIES)
def test_a_copy_says_the_same(error: Any, duplicate: Callable[[Any], Any]) -> None:
    assert _fields(duplicate(error)) == _fields(error)
    assert _fields(duplicate(duplicate(error))) == _fields(error)


def _while_handling(work: Callable[[], Any]) -> Any:
    """What `work` gives, called as handlers of other errors call."""
    try:
        raise ValueError(SECRET)  # noqa: TRY301 (it has a traceback)
    except ValueError:
        return work()


def test_an_error_is_copied_while_it_is_handled(error: Any) -> None:
    """As a pool of processes does."""
    try:
        raise error
    except AzureError:
        copied = by_pickle(error)
    assert _fields(copied) == _fields(error)


def test_a_read_is_made_while_another_error_is_handled() -> None:
    """azure-core's errors keep what is being handled, with its traceback, which cannot be pickled."""
    faults = Fault(0.0, FOREVER, P, "dns"), Fault(0.0, FOREVER, S, "503")
    error = _while_handling(lambda: _error("sync", *faults))

    assert _fields(by_pickle(error)) == _fields(error)
    assert SECRET.encode() not in pickle.dumps(error)


def _read_in_worker(kind: str, url: str, options: dict[str, Any], name: str) -> bytes:
    async def read_it() -> bytes:
        client = service(kind, url, retry_policy=geo_failover(kind, retry=None), **options)
        try:
            return await read(client, name)
        finally:
            await close(client)

    return run(kind, read_it())


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as processes:
        yield processes


@pytest.mark.parametrize(("where", "expected"), [("primary+secondary", BothEndpointsDown), ("primary", NotReplicated)])
def test_an_error_comes_out_of_a_pool_of_processes(
    where: str, expected: type[Exception], client_kind: str, standin: StandIn, pool: ProcessPoolExecutor
) -> None:
    store(standin)
    spoil(standin, fail_with_number, at=where)
    future = pool.submit(_read_in_worker, client_kind, standin.primary_url, connect_options(standin), "Missing")

    with pytest.raises(expected) as caught:
        future.result(60)

    assert "503 ServerBusy" in str(caught.value)
    assert caught.value.status_code == 503  # type: ignore[attr-defined]
    assert caught.value.error_code == "ServerBusy"  # type: ignore[attr-defined]
    assert caught.value.request_id == NUMBER  # type: ignore[attr-defined]
    assert pool.submit(len, "the pool still works").result(60) == 20


def test_no_secret_is_in_an_error(standin: StandIn) -> None:
    """Nor in its causes, its copies, or the traceback."""
    store(standin)
    spoil(standin, status(503), at="primary+secondary")
    options = {**connect_options(standin), "credential": "sv=1&sig=SECRET"}
    client = service("sync", standin.primary_url, retry_policy=geo_failover("sync", retry=None), **options)
    with client, pytest.raises(BothEndpointsDown) as caught:
        run("sync", read(client))
    for each in (caught.value, by_pickle(caught.value)):
        assert "SECRET" not in "".join(traceback.format_exception(each))
    assert b"SECRET" not in pickle.dumps(caught.value)


@pytest.mark.parametrize("fault", ["refuse", "reset", "hang", "503"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_callers_hook_hears_the_answer_behind_an_error(kind: str, fault: str) -> None:
    """The SDK forgets it with the first error of the transport."""
    heard: list[tuple[int, str]] = []

    def hook(response: Any) -> None:
        http = response.http_response
        heard.append((http.status_code, http.location_mode))

    with Lab(kind, Fault(0.0, FOREVER, P, fault), retry=None) as lab:
        assert lab.read("old", raw_response_hook=hook) == OLD
    assert [status for status, _ in heard if status != 503] == [206]
    assert heard[-1] == (206, "secondary")
