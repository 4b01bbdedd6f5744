"""What listeners hear and in which order, and that nothing that is said, raised or logged holds a secret."""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from azure.core.exceptions import AzureError, HttpResponseError, ResourceNotFoundError

from failover.breaker import AfterCalls, CircuitBreaker, ConsecutiveFailures, Policy, State, Transition
from failover.standin import StandIn
from failover.storage import ReadEnded, Retry
from tests.storage.account import HELLO, MIB, cut, delay, sas_of, spoil, status, store
from tests.storage.clients import TEACHING, blob_of, replace_sdk_sleep
from tests.storage.raw_server import Answer, Pair, RawServer

Heard = list[Any]


def told(heard: Heard) -> list[str]:
    """The events since the last look, in short."""
    lines = []
    for event in heard:
        if isinstance(event, Retry):
            lines.append(f"retry {event.endpoint} {event.failures}/{event.threshold} {event.error}")
        elif isinstance(event, Transition):
            name = re.sub(
                r".*/devstoreaccount1(-secondary)?", lambda at: "secondary" if at[1] else "primary", event.name
            )
            lines.append(f"{name} {event.old.value} -> {event.new.value}")
        else:
            assert 0 < event.seconds < 60
            lines.append(f"ended {event.endpoint} {event.attempts}")
    heard.clear()
    return lines


def listening(geo_failover: Any, standin: StandIn, **options: Any) -> tuple[Any, Heard, Any]:
    store(standin)
    heard: Heard = []
    policy = geo_failover(retry=None, policy=Policy(recovery=AfterCalls(2)), listeners=[heard.append], **options)
    return blob_of(standin, policy), heard, policy


def test_a_whole_outage(standin: StandIn, geo_failover: Any) -> None:
    blob, heard, _ = listening(geo_failover, standin, primary_attempts=None)
    blob.download_blob()
    assert told(heard) == ["ended primary 1"]
    spoil(standin, status(503))

    blob.download_blob()
    assert told(heard) == [
        "retry primary 1/5 503 ServerBusy",
        "retry primary 2/5 503 ServerBusy",
        "retry primary 3/5 503 ServerBusy",
        "retry primary 4/5 503 ServerBusy",
        "retry primary 5/5 503 ServerBusy",
        "primary closed -> open",
        "ended secondary 6",
    ]
    blob.download_blob()
    blob.exists()
    assert told(heard) == ["ended secondary 1", "ended secondary 1"]
    blob.download_blob()
    assert told(heard) == [
        "primary open -> half-open",
        "retry primary 5/5 503 ServerBusy",
        "primary half-open -> open",
        "ended secondary 2",
    ]
    standin.interfere = None
    for _ in range(3):
        blob.download_blob()
    assert told(heard)[2:] == ["primary open -> half-open", "primary half-open -> closed", "ended primary 1"]


def test_a_read_ends_once(standin: StandIn, geo_failover: Any) -> None:
    blob, heard, policy = listening(geo_failover, standin)
    missing = blob_of(standin, geo_failover(policy.primary, policy.secondary, listeners=[heard.append]), "missing")
    with pytest.raises(ResourceNotFoundError):
        missing.download_blob()
    assert told(heard) == ["ended primary 1"]
    standin.lose_primary()
    policy.primary.trip()
    heard.clear()

    with pytest.raises(AzureError, match="does not hold it"):
        missing.download_blob()
    assert [each for each in told(heard) if each.startswith("ended")] == ["ended None 3"]
    standin.lose_secondary()
    with pytest.raises(AzureError, match="Neither endpoint"):
        blob.exists()
    assert told(heard)[-1] == "ended None 3"  # a probe is not repeated
    with pytest.raises(ZeroDivisionError):
        blob.exists(raw_request_hook=lambda _: 1 // 0)
    assert [each for each in told(heard) if each.startswith("ended")] == ["ended None 1"]


def test_a_body_that_breaks_off(standin: StandIn, geo_failover: Any) -> None:
    blob, heard, _ = listening(geo_failover, standin)
    store(standin, HELLO * MIB)
    spoil(standin, cut(3 * MIB), times=1)

    assert blob.download_blob().readall() == HELLO * MIB

    assert told(heard) == ["retry primary 1/5 the body broke off", "ended secondary 2"]


def test_a_body_that_breaks_off_at_both(standin: StandIn, monkeypatch: pytest.MonkeyPatch, geo_failover: Any) -> None:
    replace_sdk_sleep(monkeypatch, lambda _: None)
    blob, heard, _ = listening(geo_failover, standin)
    spoil(standin, cut(0), at="primary+secondary")

    # The SDK begins again, as it would without us.
    with pytest.raises(HttpResponseError, match=r"Connection broken|not completed"):
        blob.download_blob()

    lines = told(heard)
    assert lines[0] == "retry primary 1/5 the body broke off"
    assert [each for each in lines if each.startswith("ended")] == ["ended None 3"] * 3
    assert lines[-1] == "ended None 3"


def test_a_replica_of_another_version_is_no_end(standin: StandIn, geo_failover: Any) -> None:
    blob, heard, _ = listening(geo_failover, standin)

    def break_and_refuse(exchange: Any) -> None:
        if exchange.request.endpoint == "secondary":
            exchange.fail(412, "ConditionNotMet")
        else:
            exchange.cut_after = 3

    spoil(standin, break_and_refuse, at="primary+secondary", times=2)

    assert blob.download_blob().readall() == HELLO
    assert told(heard) == ["retry primary 1/5 the body broke off", "ended primary 3"]


def test_a_slow_answer_that_opens_the_circuit(standin: StandIn, geo_failover: Any) -> None:
    store(standin)
    heard: Heard = []
    rules = Policy(trip=ConsecutiveFailures(1), recovery=AfterCalls(2), timeout=1e-9)
    blob = blob_of(standin, geo_failover(retry=None, policy=rules, listeners=[heard.append]))

    blob.download_blob()

    assert told(heard) == ["primary closed -> open", "ended primary 1"]


def test_listeners_of_a_shared_circuit_hear_of_it(standin: StandIn, geo_failover: Any) -> None:
    store(standin)
    circuit, heard = CircuitBreaker("both", TEACHING), list[Any]()
    policy = geo_failover(circuit, listeners=[heard.append])
    circuit.trip()

    assert policy.primary is circuit
    assert told(heard) == ["both closed -> open"]
    del policy  # nobody uses it any more
    circuit.reset()
    assert told(heard) == []


def test_a_listener_that_raises_changes_nothing(
    standin: StandIn, caplog: pytest.LogCaptureFixture, geo_failover: Any
) -> None:
    store(standin)
    heard: Heard = []

    def fail(_event: object) -> None:
        raise ZeroDivisionError

    policy = geo_failover(retry=None, policy=TEACHING, listeners=[fail, heard.append])
    blob = blob_of(standin, policy)
    spoil(standin, status(503))

    assert blob.download_blob().readall() == HELLO

    assert told(heard) == ["retry primary 1/5 503 ServerBusy", "retry primary 2/5 503 ServerBusy", "ended secondary 3"]
    errors = [each for each in caplog.records if each.name == "failover.storage"]
    assert len(errors) == 3
    assert all(each.levelno == logging.ERROR for each in errors)


FAULTS: dict[str, Callable[[StandIn], object]] = {
    "status": lambda account: spoil(account, status(503), at="primary+secondary"),
    "body": lambda account: spoil(account, cut(0), at="primary+secondary"),
    "time-out": lambda account: spoil(account, delay(10), at="primary+secondary"),
    "refused": lambda account: [lose() for lose in (account.lose_primary, account.lose_secondary)],
    "missing": lambda account: account.lose_primary(),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_no_secret_comes_out(
    standin: StandIn, caplog: pytest.LogCaptureFixture, fault: str, monkeypatch: pytest.MonkeyPatch, geo_failover: Any
) -> None:
    replace_sdk_sleep(monkeypatch, lambda _: None)
    store(standin)
    sas = sas_of(standin)
    secret = sas.partition("sig=")[2].partition("&")[0]
    heard: Heard = []
    policy = geo_failover(retry=None, listeners=[heard.append], attempt_timeout=0.2, max_staleness=3600)
    name = "missing" if fault == "missing" else "HelloWorld"
    blob = blob_of(standin, policy, name, credential=sas, connection_timeout=0.2, read_timeout=0.2)
    caplog.set_level(logging.DEBUG, logger="failover")
    FAULTS[fault](standin)

    said = []
    for _ in range(4):
        with pytest.raises(AzureError) as failed:
            blob.download_blob()
        assert isinstance(failed.value, HttpResponseError) is (fault == "body")
        said += [*traceback.format_exception(failed.value), repr(failed.value), repr(failed.value.__dict__)]
        said += [repr(failed.value.__context__), repr(failed.value.__cause__)]
    said += [repr(each) for each in heard]
    said += [repr(policy), repr(vars(policy)), repr(policy.primary.snapshot()), repr(policy.secondary.snapshot())]
    logged = [each for each in caplog.records if each.name.startswith("failover")]
    said += [each.getMessage() + repr(each.args) + (each.exc_text or "") for each in logged]

    assert logged
    for text in said:
        assert secret not in text
        assert "sig=" not in text
        assert standin.account_key not in text


def test_an_error_that_others_told_the_circuit_is_not_repeated(standin: StandIn, geo_failover: Any) -> None:
    circuit = CircuitBreaker("shared", Policy(trip=ConsecutiveFailures(1), recovery=AfterCalls(9)))
    circuit.admit().failed(ConnectionError("https://a.blob.core.windows.net/c/b?sig=SECRET"))
    circuit.isolate()
    standin.lose_secondary()

    with pytest.raises(AzureError) as failed:
        blob_of(standin, geo_failover(circuit, retry=None)).exists()

    assert "circuit open after ConnectionError." in str(failed.value)


def test_a_reason_phrase_is_cleaned(geo_failover: Any) -> None:
    with RawServer(lambda _: Answer("HTTP/1.1 503 \x1b[31mBusy\x07\nContent-Length: 0")) as server:
        policy = geo_failover(retry=None, policy=TEACHING)
        with pytest.raises(AzureError) as failed:
            blob_of(Pair(server, server), policy, secondary_hostname="127.0.0.1:1/x-secondary").exists()

    assert "503 ?[31mBusy?" in str(failed.value)
    assert policy.primary.state is State.CLOSED


def test_events_are_values() -> None:
    assert Retry("primary", 1, 5, "x") == Retry("primary", 1, 5, "x")
    assert hash(ReadEnded("primary", 1, 0.5)) == hash(ReadEnded("primary", 1, 0.5))
