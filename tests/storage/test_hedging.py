"""Hedged reads: the first good answer wins, nobody waits for a loser, and circuits learn what is the endpoint's."""

from __future__ import annotations

import copy
import threading
import time
from email.utils import formatdate
from typing import Any

import pytest

from failover.breaker import AfterCalls, ConsecutiveFailures, Policy, State
from failover.storage import NotReplicated, ReadEnded
from failover.storage.hedging import FREE, LEAST_SEEN, LEAST_WAIT, WINDOW, Hedging
from tests.storage.account import CONTENT, HELLO
from tests.storage.clients import BLOCK, TEACHING, blob_of, connect
from tests.storage.gates import LONG, SOON, Gate, account, eventually, hello, losers, status
from tests.storage.raw_server import Answer, Asked, ranged

# --- which answer wins ----------------------------------------------------------------------------------------------


def test_the_other_endpoint_answers_for_one_that_hangs(geo_failover: Any, gate: Gate) -> None:
    told: list[Any] = []
    policy = geo_failover(hedge_after=SOON, retry=None, listeners=[told.append])
    with account(gate(hello)) as pair:
        assert blob_of(pair, policy).download_blob().readall() == HELLO

        eventually(lambda: pair.trail() == "1 at the primary, 1 at the secondary")
        ended = [each for each in told if isinstance(each, ReadEnded)]
        assert [(each.endpoint, each.attempts, each.hedged) for each in ended] == [("secondary", 2, True)]
        gate.open()


def test_a_healthy_primary_is_asked_alone(geo_failover: Any) -> None:
    told: list[Any] = []
    policy = geo_failover(hedge_after=LONG, retry=None, listeners=[told.append])
    with account(hello) as pair:
        blob = blob_of(pair, policy)
        assert blob.download_blob().readall() == HELLO
        assert blob.get_blob_properties().size == len(HELLO)
        assert pair.trail() == "2 at the primary, 0 at the secondary"
        assert [each.hedged for each in told if isinstance(each, ReadEnded)] == [False, False]


@pytest.mark.parametrize("said", [status(404, "BlobNotFound"), status(503), status(403)])
def test_an_answer_that_is_not_good_does_not_win(geo_failover: Any, gate: Gate, said: Any) -> None:
    def secondary(asked: Asked) -> Answer:
        gate.open()
        answer: Answer = said(asked)
        return answer

    policy = geo_failover(hedge_after=SOON, retry=None)
    with account(gate(hello), secondary) as pair:
        assert blob_of(pair, policy).download_blob().readall() == HELLO
        assert pair.trail() == "1 at the primary, 1 at the secondary"
        assert policy.primary.snapshot()["failures"] == 0


def test_the_first_endpoint_wins_where_it_comes_first(geo_failover: Any, gate: Gate) -> None:
    other = Gate()

    def secondary(asked: Asked) -> Answer:
        gate.open()
        return other(hello)(asked)

    told: list[Any] = []
    policy = geo_failover(hedge_after=SOON, retry=None, listeners=[told.append])
    try:
        with account(gate(hello), secondary) as pair:
            assert blob_of(pair, policy).download_blob().readall() == HELLO
            ended = [each for each in told if isinstance(each, ReadEnded)]
            assert [(each.endpoint, each.attempts, each.hedged) for each in ended] == [("primary", 2, True)]
            other.open()
    finally:
        other.open()
    assert policy.secondary.snapshot()["failures"] == 0


def test_both_fail(geo_failover: Any, gate: Gate) -> None:
    def secondary(_asked: Asked) -> Answer:
        gate.open()
        return Answer("HTTP/1.1 404 No\nContent-Length: 0\nx-ms-error-code: BlobNotFound")

    policy = geo_failover(hedge_after=SOON, retry=None, policy=TEACHING, primary_attempts=1)
    with account(gate(status(503)), secondary) as pair, pytest.raises(NotReplicated):
        blob_of(pair, policy).download_blob()
    assert policy.primary.snapshot()["failures"] == 1


def test_a_hedge_that_fails_leaves_each_endpoint_its_other_attempt(geo_failover: Any, gate: Gate) -> None:
    """As many as without hedging: the primary hangs, and the secondary is busy for a moment."""
    said = iter([status(503)])
    policy = geo_failover(hedge_after=SOON, retry=None, attempt_timeout=1.0)
    with account(gate(hello), lambda asked: next(said, hello)(asked)) as pair:
        assert blob_of(pair, policy).download_blob().readall() == HELLO
        assert pair.trail() == "1 at the primary, 2 at the secondary"
        gate.open()


def test_the_first_endpoint_is_tried_again_though_a_hedge_was_sent(geo_failover: Any, gate: Gate) -> None:
    def secondary(asked: Asked) -> Answer:
        gate.open()
        return status(404, "BlobNotFound")(asked)

    said = iter([gate(status(503))])
    policy = geo_failover(hedge_after=SOON, retry=None)
    with account(lambda asked: next(said, hello)(asked), secondary) as pair:
        assert blob_of(pair, policy).download_blob().readall() == HELLO
        assert pair.trail() == "2 at the primary, 1 at the secondary"


def test_a_preferred_secondary_that_does_not_know_leaves_the_primary_its_request(geo_failover: Any) -> None:
    """It comes first, and is no answer: the primary's is waited for, and asked for once."""
    mine, others = Gate(), Gate()

    def secondary(asked: Asked) -> Answer:
        return mine(status(404, "BlobNotFound"))(asked)

    def primary(asked: Asked) -> Answer:
        mine.open()
        return others(hello)(asked)

    policy = geo_failover(hedge_after=SOON, retry=None, prefer="secondary")
    try:
        with account(primary, secondary) as pair:
            blob = blob_of(pair, policy)
            threading.Timer(0.2, others.open).start()
            assert blob.download_blob().readall() == HELLO
            assert pair.trail() == "1 at the primary, 1 at the secondary"
    finally:
        mine.open()
        others.open()


def test_nobody_waits_for_a_last_sync_time_that_would_settle_a_doubt(geo_failover: Any, gate: Gate) -> None:
    """Of two versions of one second, at a secondary that does not tell how far it is."""
    first, moment = threading.Event(), f"\nLast-Modified: {formatdate(1e9, usegmt=True)}"

    def primary(asked: Asked) -> Answer:
        if first.is_set():
            gate.waiting.acquire(timeout=LONG)  # until the secondary has been asked how far it is
        first.set()
        return ranged(HELLO, asked, extra=moment)

    def secondary(asked: Asked) -> Answer:
        if "comp=stats" in asked.target:
            return gate(status(500))(asked)
        return ranged(HELLO, asked, etag='"0x2"', extra=moment)

    policy = geo_failover(hedge_after=SOON, retry=None, consistency="session", attempt_timeout=LONG)
    with account(primary, secondary) as pair:
        blob = blob_of(pair, policy)
        blob.download_blob().readall()
        began = time.perf_counter()
        assert blob.download_blob().readall() == HELLO
        assert time.perf_counter() - began < LONG / 2
        assert pair.trail() == "2 at the primary, 2 at the secondary"
        gate.open()


@pytest.mark.parametrize("head", [False, True])
def test_hooks_hear_the_answer_that_is_used_alone_where_the_caller_waits(
    geo_failover: Any, client_kind: str, gate: Gate, head: bool
) -> None:
    heard: list[Any] = []

    def hook(response: Any) -> None:
        heard.append((response.http_response.location_mode, threading.get_ident()))

    policy = geo_failover(hedge_after=SOON, retry=None)
    with account(gate(hello)) as pair:
        blob = blob_of(pair, policy)
        blob.get_blob_properties(raw_response_hook=hook) if head else blob.download_blob(raw_response_hook=hook)
        gate.open()
        eventually(lambda: gate.waiting.acquire(blocking=False))
    assert [location for location, _ in heard] == ["secondary"]
    if client_kind == "sync":
        assert [thread for _, thread in heard] == [threading.get_ident()]


def test_the_rest_of_a_body_follows_who_sent_its_first_range(geo_failover: Any, gate: Gate) -> None:
    def big(asked: Asked) -> Answer:
        return ranged(CONTENT, asked)

    policy = geo_failover(hedge_after=SOON, retry=None)
    with account(gate(big), big) as pair:
        blob = blob_of(pair, policy, max_single_get_size=BLOCK, max_chunk_get_size=BLOCK)
        assert blob.download_blob().readall() == CONTENT
        assert pair.trail() == f"1 at the primary, {len(CONTENT) // BLOCK} at the secondary"
        gate.open()


# --- what circuits learn --------------------------------------------------------------------------------------------


def failed_once(policy: Any) -> None:
    """What a success would forget."""
    policy.primary.admit().failed(OSError("once"))


def test_a_primary_that_answers_late_has_neither_failed_nor_succeeded(geo_failover: Any, gate: Gate) -> None:
    sent = threading.Event()

    def late(asked: Asked) -> Answer:
        try:
            return hello(asked)
        finally:
            sent.set()

    policy = geo_failover(hedge_after=SOON, retry=None, policy=TEACHING)
    with account(gate(late)) as pair:
        blob = blob_of(pair, policy)
        failed_once(policy)
        assert blob.download_blob().readall() == HELLO
        gate.open()
        assert sent.wait(LONG)
        eventually(lambda: not losers())
        assert policy.primary.snapshot()["failures"] == 1


@pytest.mark.parametrize("caller_sets", [{}, {"read_timeout": LONG, "connection_timeout": LONG}])
def test_a_primary_that_does_not_answer_in_time_has_failed(
    geo_failover: Any, gate: Gate, caller_sets: dict[str, float]
) -> None:
    policy = geo_failover(hedge_after=SOON, retry=None, policy=TEACHING, attempt_timeout=0.2)
    with account(gate(hello)) as pair:
        blob = blob_of(pair, policy)
        assert blob.download_blob(**caller_sets).readall() == HELLO
        eventually(lambda: policy.primary.snapshot()["failures"] == 1)
        assert policy.primary.snapshot()["last_error"] == "no answer within 0.2 s"
        gate.open()


def test_a_primary_that_answers_late_by_a_status_that_is_a_failure_has_failed(geo_failover: Any, gate: Gate) -> None:
    policy = geo_failover(hedge_after=SOON, retry=None, policy=TEACHING)
    with account(gate(status(503))) as pair:
        assert blob_of(pair, policy).download_blob().readall() == HELLO
        gate.open()
        eventually(lambda: policy.primary.snapshot()["failures"] == 1)


def test_a_probe_is_hedged_at_once(geo_failover: Any, gate: Gate) -> None:
    teaching = Policy(trip=ConsecutiveFailures(1), recovery=AfterCalls(1))
    policy = geo_failover(hedge_after=LONG, retry=None, policy=teaching, attempt_timeout=0.5)
    with account(gate(hello)) as pair:
        blob = blob_of(pair, policy)
        failed_once(policy)
        assert blob.download_blob().readall() == HELLO
        assert pair.trail() == "0 at the primary, 1 at the secondary"
        assert blob.download_blob().readall() == HELLO, "a probe, which hangs"
        eventually(lambda: pair.trail() == "1 at the primary, 2 at the secondary")
        eventually(lambda: policy.primary.state is State.OPEN)
        gate.open()


@pytest.mark.parametrize("after", [LONG, "p95"])
def test_a_probe_that_answers_soon_closes_the_circuit_though_the_other_was_quicker(
    geo_failover: Any, gate: Gate, after: Any
) -> None:
    teaching = Policy(trip=ConsecutiveFailures(1), recovery=AfterCalls(1))
    policy = geo_failover(hedge_after=after, retry=None, policy=teaching)
    with account(gate(hello)) as pair:
        blob = blob_of(pair, policy)
        failed_once(policy)
        for _ in range(2):
            assert blob.download_blob().readall() == HELLO
        gate.open()
        eventually(lambda: policy.primary.state is State.CLOSED)


# --- which reads ----------------------------------------------------------------------------------------------------


def test_no_hedge_where_the_secondary_may_not_be_asked(geo_failover: Any, gate: Gate) -> None:
    policy = geo_failover(hedge_after=SOON, retry=None)
    with account(gate(hello)) as pair:
        blob = blob_of(pair, policy)
        policy.secondary.isolate()

        def let_go() -> None:
            gate.waiting.acquire(timeout=LONG)
            gate.open()

        opener = threading.Thread(target=let_go)
        opener.start()
        assert blob.download_blob().readall() == HELLO
        opener.join()
        assert pair.trail() == "1 at the primary, 0 at the secondary"


def test_for_one_call(geo_failover: Any, gate: Gate) -> None:
    policy = geo_failover(retry=None)
    with account(gate(hello)) as pair:
        assert blob_of(pair, policy).download_blob(failover_hedge=SOON).readall() == HELLO
        assert pair.trail() == "1 at the primary, 1 at the secondary"
        gate.open()


def test_not_for_one_call(geo_failover: Any) -> None:
    policy = geo_failover(retry=None, hedge_after=1e-9)
    with account(hello) as pair:
        assert blob_of(pair, policy).download_blob(failover_hedge=None).readall() == HELLO
        assert pair.trail() == "1 at the primary, 0 at the secondary"


def test_a_write_is_not_hedged(geo_failover: Any) -> None:
    def stored(_asked: Asked) -> Answer:
        return Answer('HTTP/1.1 201 Created\nContent-Length: 0\nETag: "0x1"')

    policy = geo_failover(retry=None, hedge_after=1e-9)
    with account(stored) as pair:
        blob_of(pair, policy).upload_blob(b"data", overwrite=True, failover_hedge=SOON)
        assert pair.trail() == "1 at the primary, 0 at the secondary"


@pytest.mark.parametrize("after", [0, -1, float("nan"), float("inf"), True, "p99", "soon"])
def test_a_wrong_time_is_refused(geo_failover: Any, after: Any) -> None:
    with pytest.raises(ValueError, match="hedge_after must be seconds above 0"):
        geo_failover(hedge_after=after)
    with account(hello) as pair, pytest.raises(ValueError, match="failover_hedge must be seconds above 0"):
        blob_of(pair, geo_failover(retry=None)).download_blob(failover_hedge=after)


@pytest.mark.parametrize("budget", [0, -0.1, 1.1, float("nan"), True, "0.1", None])
def test_a_wrong_budget_is_refused(geo_failover: Any, budget: Any) -> None:
    with pytest.raises(ValueError, match="hedge_budget must be a share"):
        geo_failover(hedge_budget=budget)


# --- how many -------------------------------------------------------------------------------------------------------


def test_the_budget_is_a_share_of_the_last_thousand_reads() -> None:
    hedging = Hedging(0.1, 0.1)
    taken = []
    for _ in range(10 * WINDOW):
        assert hedging.begin(0.1) == 0.1
        taken.append(hedging.take(is_probe=False))
    assert sum(taken[:10]) == FREE
    for first in range(0, 9 * WINDOW, 100):
        window = sum(taken[first : first + WINDOW])
        assert window <= 0.1 * WINDOW + FREE
        assert window >= 0.1 * WINDOW - 10 or first < 100


def test_a_probe_is_hedged_whatever_the_budget_says_and_counts() -> None:
    hedging = Hedging(0.1, 0.01)
    for _ in range(FREE):
        hedging.begin(0.1)
        assert hedging.take(is_probe=True)
    assert not hedging.take(is_probe=False)
    assert hedging.take(is_probe=True)


def test_the_clients_of_a_policy_share_its_budget(geo_failover: Any, gate: Gate) -> None:
    policy = geo_failover(hedge_after=SOON, hedge_budget=1e-6, retry=None)
    with account(gate(hello)) as pair:
        first, second = blob_of(pair, policy), blob_of(pair, copy.copy(policy))
        for blob in [first, second] * FREE:
            opener = threading.Timer(0.5, gate.open)
            opener.daemon = True
            opener.start()
            assert blob.download_blob().readall() == HELLO
        assert pair.trail().endswith(f" {FREE} at the secondary")


def test_p95_is_learned() -> None:
    hedging = Hedging("p95", 0.1)
    for n in range(LEAST_SEEN):
        assert hedging.begin("p95") == float("inf")
        hedging.learn(0.001 * n)
    assert hedging.begin("p95") == pytest.approx(0.094)
    for _ in range(WINDOW):
        hedging.learn(0.001)
    assert hedging.begin("p95") == LEAST_WAIT


def test_p95_of_a_policy(geo_failover: Any, gate: Gate) -> None:
    slow = threading.Event()

    def primary(asked: Asked) -> Answer:
        return gate(hello)(asked) if slow.is_set() else hello(asked)

    policy = geo_failover(hedge_after="p95", retry=None)
    with account(primary) as pair:
        blob = connect(pair, policy).get_blob_client("demo", "HelloWorld")
        for _ in range(LEAST_SEEN):
            blob.get_blob_properties()
        assert pair.trail() == f"{LEAST_SEEN} at the primary, 0 at the secondary"
        slow.set()
        assert blob.download_blob().readall() == HELLO
        assert pair.trail() == f"{LEAST_SEEN + 1} at the primary, 1 at the secondary"
        gate.open()


def test_p95_is_of_the_answers_that_are_used_and_no_loser_moves_it(geo_failover: Any) -> None:
    slow = threading.Event()

    def primary(asked: Asked) -> Answer:
        if slow.is_set():
            time.sleep(1.0)
        return hello(asked)

    told: list[Any] = []
    policy = geo_failover(hedge_after="p95", hedge_budget=1.0, retry=None, listeners=[told.append])
    with account(primary) as pair:
        blob = connect(pair, policy).get_blob_client("demo", "HelloWorld")
        for _ in range(LEAST_SEEN):
            blob.get_blob_properties()
        slow.set()
        told.clear()
        for _ in range(LEAST_SEEN):
            blob.get_blob_properties()
        assert {each.endpoint for each in told if isinstance(each, ReadEnded)} == {"secondary"}
