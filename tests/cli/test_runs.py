"""Whole runs of `python circuitbreaker.py` against real servers, judged by the log, the lines and the account."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from failover.standin import Exchange, StandIn
from tests.program import Log, Story, check_plain, is_gone, run
from tests.servers import Azurite

pytestmark = pytest.mark.program

TIMEOUT = 0.3  # seconds; half of it is what an answer may take on a busy machine


def test_the_model_tells_what_the_design_says() -> None:
    story = Story.of(600, (201, 400))
    assert story.reads[199:202] == [
        ("primary", "closed", 1),
        ("secondary", "open", 6),
        ("secondary", "open", 1),
    ]
    probes = [n for n, _, new in story.transitions if new == "half-open"]
    assert probes == [201 + 21 * k for k in range(1, 11)]
    assert story.reads[410] == ("primary", "closed", 1)
    assert [read[0] for read in story.reads].count("secondary") == 210


def _check_600(code: int, out: str, err: str, log: Log, kind: str) -> None:
    assert (code, err) == (0, "")
    log.check()
    Story.of(600, (201, 400), kind=kind).check(log)
    check_plain(out, log)
    assert [(line["kind"], line["on"]) for line in log.all("fault")] == [(kind, True), (kind, False)]
    fault_on, fault_off = (log.lines.index(line) for line in log.all("fault"))
    assert log.lines[fault_on - 1].get("n", 200) == 200
    assert next(line["n"] for line in log.lines[fault_on:] if "n" in line) == 201
    assert next(line["n"] for line in log.lines[fault_off:] if "n" in line) == 401
    assert {line["threshold"] for line in log.all("retry")} <= {5}
    assert all(0 < line["ms"] < 10_000 for line in log.all("read"))
    assert log.one("finished")["failed"] == 0


@pytest.mark.parametrize("kind", ["503", "timeout", "reset", "slow"])
def test_600_reads_against_the_stand_in(standin: StandIn, tmp_path: Path, kind: str) -> None:
    short = ["--timeout", TIMEOUT] if kind in ("timeout", "slow") else []
    ran = run(tmp_path, "--requests", 600, "--fail", "201:400", "--fault", kind, *short, account=standin)
    _check_600(ran.code, ran.out, ran.err, ran.log, kind)

    uploaded = ran.log.one("uploaded")
    container = uploaded["container"]
    assert (uploaded["blob"], uploaded["bytes"], uploaded["account"]) == ("HelloWorld", 13, standin.account_name)
    hits = [(hit.endpoint, hit.method, hit.path, hit.status) for hit in standin.hits if hit.path.strip("/")]
    assert [hit for hit in hits if hit[1] not in ("GET", "HEAD")] == [
        ("primary", "PUT", f"/{container}", 201),
        ("primary", "PUT", f"/{container}/HelloWorld", 201),
        ("primary", "DELETE", f"/{container}", 202),
    ]
    reads = [hit[0] for hit in hits if hit[1] == "GET" and hit[2] == f"/{container}/HelloWorld"]
    retries = len(ran.log.all("retry"))
    assert reads.count("secondary") == ran.log.one("finished")["secondary"]
    # What times out or is reset never arrives; the 503 replaces an answer.
    assert reads.count("primary") == ran.log.one("finished")["primary"] + (retries if kind == "503" else 0)


@pytest.mark.parametrize("kind", ["503", "reset"])
def test_600_reads_against_azurite(azurite: Azurite, tmp_path: Path, kind: str) -> None:
    ran = run(tmp_path, "--requests", 600, "--fail", "201:400", "--fault", kind, account=azurite)
    _check_600(ran.code, ran.out, ran.err, ran.log, kind)
    assert is_gone(azurite, ran.log.one("uploaded")["container"])


def test_600_reads_while_the_stand_in_loses_its_primary(tmp_path: Path) -> None:
    ran = run(tmp_path, "--requests", 600, "--fail", "201:400", "--fault", "down", "--replication-lag", 0)
    _check_600(ran.code, ran.out, ran.err, ran.log, "down")
    assert ran.log.one("uploaded")["account"] == "stand-in"
    assert "no Azure account is set" in ran.out.splitlines()[0]
    assert ran.log.all("secondary")[0]["reachable"]


def test_thresholds_and_two_faults(tmp_path: Path) -> None:
    ran = run(
        tmp_path,
        *("--requests", 60, "--fail", "11:20", "--fail", "41:41", "--replication-lag", 0),
        *("--retry-threshold", 2, "--secondary-threshold", 3),
    )
    assert ran.code == 0
    ran.log.check()
    story = Story.of(60, (11, 20), (41, 41), threshold=2, aside=3)
    assert story.reads[10] == ("secondary", "open", 3)
    assert [n for n, _, _ in story.transitions] == [11, 15, 15, 19, 19, 23, 23, 41, 45, 45]
    story.check(ran.log)
    check_plain(ran.out, ran.log)
    assert [line["on"] for line in ran.log.all("fault")] == [True, False, True, False]


def test_a_cooldown_probes_after_a_time(tmp_path: Path) -> None:
    cooldown = 0.4
    ran = run(
        tmp_path,
        *("--requests", 150, "--rate", 50, "--fail", "11:80", "--replication-lag", 0, "--cooldown", cooldown),
    )
    assert ran.code == 0
    ran.log.check()
    opened = 0.0
    for line in ran.log.all("transition"):
        if line["to"] == "open":
            opened = line["t"]
        elif line["to"] == "half-open":
            assert cooldown - 0.01 <= line["t"] - opened <= cooldown + 5
    reads = ran.log.all("read")
    assert [read["endpoint"] for read in reads[:10]] == ["primary"] * 10
    assert {read["endpoint"] for read in reads[10:80]} == {"secondary"}
    assert reads[-1]["endpoint"] == "primary"
    assert len(ran.log.all("transition")) >= 5  # opened, probed in vain, probed and closed


def test_hedged_reads_wait_for_no_primary_that_hangs(standin: StandIn, tmp_path: Path) -> None:
    options = ["--fault", "timeout", "--fail", "11:120", "--timeout", 1.5, "--hedge", 0.1]
    ran = run(tmp_path, "--requests", 150, "--rate", 50, *options, account=standin)
    assert (ran.code, ran.err) == (0, "")
    reads = ran.log.all("read")
    hedged = [line for line in reads if line.get("hedged")]
    assert len(hedged) >= 5, "as many as open the circuit"
    assert {line["endpoint"] for line in reads[10:50]} == {"secondary"}
    assert all(line["ms"] < 1000 for line in hedged), "none has waited for the primary's time-out"
    assert [(line["from"], line["to"]) for line in ran.log.all("transition")][:1] == [("closed", "open")]


def test_a_rate_is_kept(tmp_path: Path) -> None:
    ran = run(tmp_path, "--requests", 31, "--rate", 50, "--replication-lag", 0)
    ran.log.check()
    reads = ran.log.all("read")
    began = [read["t"] - read["ms"] / 1000 for read in reads]
    assert 0.55 <= began[-1] - began[0] <= 10
    assert min(later - earlier for earlier, later in itertools.pairwise(began)) > 0.01


def test_without_a_terminal_there_is_no_pause_and_the_lag_is_waited_for(tmp_path: Path) -> None:
    ran = run(tmp_path, "--requests", 30, "--pause-every", 10, "--replication-lag", 0.6)
    ran.log.check()
    assert ran.log.all("paused") == []
    assert ran.log.one("replicated")["seconds"] >= 0.5
    assert ran.log.one("replicated")["attempts"] == len(ran.log.all("waiting")) + 1


def test_reads_that_nobody_answers_are_seen_and_the_run_goes_on(standin: StandIn, tmp_path: Path) -> None:
    spoilt: list[Exchange] = []

    def spoil(exchange: Exchange) -> None:
        asked = exchange.request
        if asked.endpoint == "secondary" and asked.method == "GET" and asked.path.endswith("/HelloWorld"):
            spoilt.append(exchange)
            if len(spoilt) <= 5 + 9:
                exchange.fail(503)

    standin.interfere = spoil
    ran = run(tmp_path, "--requests", 60, "--fail", "11:20", account=standin)
    assert (ran.code, ran.err) == (1, "")
    failed = [line for line in ran.log.all("read") if not line["ok"]]
    # Read 11 opens both circuits. As long as nobody answers, each read asks both: it has no other hope.
    assert [(line["n"], line["attempts"]) for line in failed] == [(11, 10), *((n, 2) for n in range(12, 21))]
    assert all("503" in line["error"] for line in failed)
    opened = [(line["n"], line["circuit"]) for line in ran.log.all("transition") if line["to"] == "open"]
    assert opened == [(11, "primary"), (11, "secondary")]
    check_plain(ran.out, ran.log)
    ran.log.check()
    assert {line["endpoint"] for line in ran.log.all("read")[20:]} == {"primary"}
    assert is_gone(standin, ran.log.one("uploaded")["container"])
