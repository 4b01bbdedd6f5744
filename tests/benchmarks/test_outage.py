"""benchmarks.outage says what its figures say: on reads made up here, and through real ones in its quick form."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.outage.configurations import CONFIGURATIONS, OURS, TAIL
from benchmarks.outage.figures import Reading, Run, Series, cost
from benchmarks.outage.picture import draw
from benchmarks.outage.report import throughput_verdicts, verdicts
from benchmarks.outage.server import HANGING, HEALTHY, KINDS, WORLDS
from benchmarks.outage.tail import Tail, tail_verdicts
from benchmarks.outage.tail_picture import draw as draw_tails
from benchmarks.outage.throughput import Throughput
from tests.servers import Azurite

ROOT = Path(__file__).parents[2]
OUTAGE = 10.0


def reads(seconds: float, endpoint: str | None = "secondary") -> list[Reading]:
    """Through a whole outage, one read after the other, and then the primary."""
    during = [Reading(n * seconds, (n + 1) * seconds, endpoint) for n in range(int(OUTAGE / seconds))]
    return [Reading(-1.0, -0.99, "primary"), *during, Reading(OUTAGE + 2.0, OUTAGE + 2.5, "primary")]


def good_run() -> Run:
    """One in which each demand holds."""
    series = [
        Series(kind, name, reads(0.01), hits=[-1.0, *range(7), OUTAGE + 2.0], probes=2)
        for kind in (HEALTHY, *KINDS)
        for name in CONFIGURATIONS
    ]
    return Run(OUTAGE, series, threshold=5)


def failed(run: Run) -> list[str]:
    return [verdict.demand for verdict in verdicts(run) if verdict.holds is False]


def slower(run: Run) -> None:
    run.of("reset", OURS).readings = reads(0.0112)


def one_lost(run: Run) -> None:
    run.of("body", OURS).readings[3] = replace(run.of("body", OURS).readings[3], endpoint=None)


def lost_after_it(run: Run) -> None:
    run.of("slow", OURS).readings.append(Reading(OUTAGE + 3.0, OUTAGE + 3.1, None))


def one_hit_too_many(run: Run) -> None:
    run.of("timeout", OURS).hits.append(9.0)


def fewer_probes(run: Run) -> None:
    run.of("timeout", OURS).probes = 1


def test_all_demands_hold_where_the_figures_say_so() -> None:
    assert [verdict.holds for verdict in verdicts(good_run())] == [True] * 5


@pytest.mark.parametrize(
    ("spoil", "demand"),
    [
        (slower, "reset: a median"),
        (one_lost, "no read fails"),
        (lost_after_it, "no read fails"),
        (one_hit_too_many, "timeout"),
        (fewer_probes, "timeout"),
    ],
)
def test_a_demand_fails_with_its_figures(spoil: Callable[[Run], None], demand: str) -> None:
    run = good_run()
    spoil(run)
    (only,) = failed(run)
    assert only.startswith(demand)


def test_what_was_left_out_is_not_said_to_hold() -> None:
    run = good_run()
    run.series = [series for series in run.series if series.kind != "down"]
    told = {verdict.demand.partition(":")[0]: verdict for verdict in verdicts(run)}
    assert told["down"].holds is None
    assert "NOT MEASURED" in str(told["down"])


def test_throughput_is_judged_by_the_median_of_the_pairs() -> None:
    quick = Throughput("1 thread", 500.0, 490.0, [0.5, 0.96, 0.97, 0.98, 0.99])
    assert [each.holds for each in throughput_verdicts([quick])] == [True]
    assert [each.holds for each in throughput_verdicts([replace(quick, ratios=[0.9, 0.94, 0.99])])] == [False]


def test_the_figures_of_a_configuration() -> None:
    readings = [Reading(n / 10, n / 10 + (0.001 if n else 0.05), "secondary") for n in range(100)]
    readings[50] = replace(readings[50], endpoint=None)
    readings += [Reading(9.95, 12.0, "primary"), Reading(13.0, 13.1, "primary")]
    of = cost(Series("503", OURS, readings, hits=[-0.5, 0.0, 3.0, 12.0]), OUTAGE)
    assert (of.reads, of.failed, of.hits, of.at_least) == (100, 1, 2, False)
    assert (of.median, of.p99, of.worst, of.back) == pytest.approx((0.001, 0.001, 0.05, 2.0))


def test_a_read_that_outlasts_the_outage_is_told_by_what_it_had_taken() -> None:
    of = cost(Series("503", "SDK default", [Reading(1.0, 30.0, "primary")]), OUTAGE)
    assert (of.at_least, of.reads, of.worst, of.back) == (True, 0, 9.0, 20.0)
    assert cost(Series("503", "SDK default", [Reading(1.0, float("inf"), None)]), OUTAGE).back == float("inf")


def test_a_run_is_saved_and_drawn_the_same_each_time(tmp_path: Path) -> None:
    run = good_run()
    run.series = [replace(series, readings=reads(0.05)) for series in run.series if series.kind == "503"]
    run.of("503", "SDK default").readings = reads(4.0, None)
    run.save(tmp_path / "run.json")
    run = Run.load(tmp_path / "run.json")  # rounded
    run.save(tmp_path / "run.json")
    again = Run.load(tmp_path / "run.json")
    assert again == run
    files = draw(run, tmp_path / "one")
    assert [file.name for file in files] == ["one.svg", "one.png", "one-dark.svg", "one-dark.png"]
    for one, other in zip(files, draw(again, tmp_path / "two"), strict=True):
        assert one.read_bytes() == other.read_bytes()
    for svg in files[::2]:
        assert svg.stat().st_size < 200_000
        assert ET.parse(svg).getroot().get("width") == "622.5pt"  # noqa: S314 (our own) 830 pixels


def quick(*options: str, **environment: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.outage", "--quick", *options],
        cwd=ROOT, capture_output=True, text=True, timeout=110, env={**os.environ, **environment}, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


def rows(output: str, kind: str) -> dict[str, list[str]]:
    """The table of this kind: by configuration its reads, times, failed and hits."""
    block = output.partition(f"{kind}\n")[2].partition("\n\n")[0].splitlines()[2:]
    return {line[:22].strip(): re.sub(r"> ", ">", line[22:]).split() for line in block}


@pytest.mark.program
def test_the_quick_form_measures_every_configuration_under_every_kind(tmp_path: Path) -> None:
    code, output = quick("--save", str(tmp_path / "run.json"), "--kinds", *KINDS)
    run = Run.load(tmp_path / "run.json")
    for kind in (HEALTHY, *KINDS):
        table = rows(output, "no fault, for comparison" if kind == HEALTHY else f"the primary: {kind}")
        assert set(table) == set(CONFIGURATIONS)
        for name, cells in table.items():
            of = cost(run.of(kind, name), run.outage)
            assert (cells[0], cells[4], cells[5]) == (f"{of.reads:,}", str(of.failed), f"{of.hits:,}")
            assert cells[1].startswith(">") is of.at_least
    # The SDK by itself never leaves the primary, tuned it asks it each time, and we soon do not.
    assert all(reading.endpoint != "secondary" for reading in run.of("503", "SDK default").readings)
    tuned, ours = cost(run.of("503", "SDK tuned"), run.outage), cost(run.of("503", OURS), run.outage)
    assert tuned.hits >= tuned.reads >= 3
    assert ours.hits <= 5 + 2 * (run.of("503", OURS).probes or 0) < ours.hits + ours.reads
    # Slow answers are answers to the default policy, and failures to the demonstration's.
    slow = run.of("slow", OURS)
    assert next(each.seconds > 0.2 for each in slow.readings if each.start >= 0 and each.end <= run.outage)
    assert any(each.endpoint == "secondary" for each in run.of("down", OURS).readings)
    for how in ("1 thread", "16 threads", "aio, 16 tasks", "64 MiB, 1 connection", "64 MiB, 4 connections"):
        assert f"healthy, {how}: at least 0.95" in output
    verdicts_told = [line for line in output.splitlines() if re.search(r": (holds|DOES NOT HOLD)$", line)]
    assert len(verdicts_told) == 10
    assert code == (0 if all(line.endswith(": holds") for line in verdicts_told) else 1)


# A primary that limps, or hangs


def good_tails() -> list[Tail]:
    """In which each demand holds."""
    return [
        Tail(world, callers, name, [0.002] * 990 + [0.11] * 10, 0, 0, 0.004, 0.012, 0.1)
        for world in WORLDS
        for callers in (1, 50)
        for name in TAIL
    ]


def test_the_demands_on_hedged_reads() -> None:
    tails = [replace(each, slow=0.1) for each in good_tails()]
    told = tail_verdicts(tails)
    assert [each.holds for each in told] == [True] * 16
    later = replace(tails[3], seconds=[0.002] * 980 + [0.2] * 20)
    assert [each.holds for each in tail_verdicts([later])] == [False, True]
    more = replace(tails[3], extra=0.12)
    assert [each.holds for each in tail_verdicts([more])] == [True, False]
    rare = replace(tails[3], seconds=[0.002] * 995 + [3.0] * 5)
    assert [each.holds for each in tail_verdicts([rare])] == [True, True], "limping is judged by its p99"
    assert [each.holds for each in tail_verdicts([replace(rare, world=HANGING)])] == [False, True], "by its worst"


def test_the_tail_is_drawn_the_same_each_time(tmp_path: Path) -> None:
    files = draw_tails(good_tails(), tmp_path / "one")
    assert [file.name for file in files] == ["one.svg", "one.png", "one-dark.svg", "one-dark.png"]
    for one, other in zip(files, draw_tails(good_tails(), tmp_path / "two"), strict=True):
        assert one.read_bytes() == other.read_bytes()


@pytest.mark.program
def test_the_quick_form_measures_those_who_limp_and_hang() -> None:
    code, output = quick("--kinds", *WORLDS, "--pairs", "0")
    assert code in (0, 1)
    for world in WORLDS:
        for who in ("one caller", "50 callers"):
            table = output.partition(f"{world}: ")[2].partition(f"; {who}\n")[2].partition("\n\n")[0].splitlines()[2:]
            assert {line[:17].strip() for line in table} == set(TAIL)
    assert len([line for line in output.splitlines() if re.search(r": (holds|DOES NOT HOLD)$", line)]) == 16


@pytest.mark.azurite
@pytest.mark.program
def test_the_quick_form_breaks_azurite_in_the_client(azurite: Azurite, tmp_path: Path) -> None:
    settings = (
        f"DefaultEndpointsProtocol=http;AccountName={azurite.account_name};AccountKey={azurite.account_key};"
        f"BlobEndpoint={azurite.primary_url};"
    )
    kinds = ("503", "down", "body")
    options = ["--account", "azurite", "--attempt", "5", "--pairs", "0", "--save", str(tmp_path / "run.json")]
    code, output = quick(*options, "--kinds", *kinds, AZURE_STORAGE_CONNECTION_STRING=settings)
    assert code in (0, 1)
    run = Run.load(tmp_path / "run.json")
    for kind in kinds:
        assert set(rows(output, f"the primary: {kind}")) == set(CONFIGURATIONS)
        during = [each for each in run.of(kind, OURS).readings if each.start >= 0 and each.end <= run.outage]
        assert {each.endpoint for each in during} == {"secondary"}
        assert "secondary" not in {each.endpoint for each in run.of(kind, "SDK default").readings}
    assert azurite.account_key not in output


@pytest.mark.program
def test_azurite_without_an_address_is_told_in_a_line() -> None:
    code, output = quick("--account", "azurite", AZURE_STORAGE_CONNECTION_STRING="")
    assert (code, output) == (2, "")
