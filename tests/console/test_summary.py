"""What stays on the terminal after a live run: all of it in one screen of any size, with and without colour."""

from __future__ import annotations

import re

import pytest
from rich.cells import cell_len

from failover.console.run_history import RunHistory
from failover.console.summary import summary
from failover.demo import events as ev
from tests.console.sample_run import ACCOUNT, aside, read, started, whole
from tests.console.test_run_history import recorded

SIZES = [(80, 22), (120, 38), (100, 28), (60, 13), (40, 8), (20, 5), (79, 48), (300, 5), (300, 98), (2, 3), (1, 1)]


def _plain(history: RunHistory, width: int = 80, height: int = 22, **options: bool) -> str:
    return summary(history, width, height, **options).plain


@pytest.mark.parametrize("ascii_only", [False, True])
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_it_fits_every_size_at_every_stage(width: int, height: int, ascii_only: bool) -> None:
    history, seen = RunHistory(), set()
    assert summary(history, width, height).lines == ()
    for stage, event in whole():
        history.apply(event)
        if stage in seen:
            continue
        seen.add(stage)
        picture = summary(history, width, height, ascii_only=ascii_only)
        assert max(cell_len(line.plain) for line in picture.lines) <= width, stage
        assert "\x1b" not in picture.plain
        assert not ascii_only or picture.plain.isascii(), stage
        if width >= 60 and ("failing" not in seen or stage == "cleaned up"):  # a last sentence is told whole, if long
            assert len(picture.lines) <= max(height, 6), stage


@pytest.mark.parametrize(("width", "height"), [(80, 22), (120, 38), (60, 13)])
def test_it_says_how_the_run_came_out(width: int, height: int) -> None:
    plain = _plain(recorded(*(event for _, event in whole())), width, height)
    joined = re.sub(r"\s+", " ", plain)
    assert "401 of 1,000 reads, 1 failed" in joined
    assert "200 by the primary, 200 by the secondary (seen 0.8 s behind at most), 1 by neither." in joined
    assert "The circuit opened once, was probed nine times and is open at the end." in joined
    assert plain.endswith("Container ra-grs-1 is deleted.")
    if width >= 80:
        assert ACCOUNT in plain
        assert "Median 2.1 ms primary, 2.1 ms secondary; p99 2.1; slowest 9.8 (read 201)." in plain
        assert "Primary answered 503 five times in a row." in joined
        assert re.search(r"fault +▮ 503 is on ▮+", plain)
        assert re.search(r"circuit  ─ closed ─+█ OPEN █+", plain)


def test_a_cell_for_each_read_where_there_is_room() -> None:
    history = recorded(*(event for _, event in whole()))
    rows = [line.split() for line in _plain(history, 120, 38).split("\n") if re.match(r" +[\d,]+  [■○◍✕]", line)]
    assert [int(row[0]) for row in rows] == [1, 101, 201, 301, 401]
    assert (
        "".join(row[1] for row in rows)
        == "■" * 200 + "".join("◍" if n == 201 or (n - 201) % 21 == 0 else "○" for n in range(201, 401)) + "✕"
    )
    assert "each mark stands" not in _plain(history, 120, 38)


def test_where_there_is_none_a_cell_for_a_few_and_the_worst_of_them() -> None:
    history = recorded(started(requests=0, pause_every=0))
    for n in range(1, 25_001):
        history.apply(
            read(n) if n % 5_000 else aside(n, 3) if n % 2 else read(n, endpoint=None, ok=False, error="both")
        )
    plain = _plain(history)
    assert len(plain.split("\n")) <= 22
    per = int(re.findall(r"each mark stands for ([\d,]+) reads", plain)[0].replace(",", ""))
    strip = "".join(re.findall(r"^ +[\d,]+  ([■○◍✕]+)$", plain, re.MULTILINE))
    assert len(strip) == -(-25_000 // per)
    assert strip.count("✕") == 5
    assert strip.count("■") == len(strip) - 5


def test_a_container_that_is_left_behind_is_named_whole_on_the_lowest_terminal() -> None:
    left = ev.CleanedUp(t=9.0, container="circuitbreaker-demo-0123456789ab", error="503 The server is busy.")
    history = recorded(*(event for _, event in whole() if not isinstance(event, ev.CleanedUp)), left)
    for width, height in ((80, 22), (80, 4), (60, 13)):
        joined = re.sub(r"\s+", " ", _plain(history, width, height))
        assert f"Container {left.container} could not be deleted (--clean-up removes it later): 503" in joined


def test_a_run_that_ended_before_its_first_read_says_so() -> None:
    plain = _plain(recorded(started()))
    assert plain.split("\n")[1].strip() == "Ended before the first read"


@pytest.mark.parametrize("reads", [9, 103, 401, 436, 998, 1_021])
def test_labels_of_the_axes_never_collide(reads: int) -> None:
    history = recorded(started(requests=0, pause_every=0))
    for n in range(1, reads + 1):
        history.apply(read(n, ms=12_000.0 if n == 3 else 2.1))
    for width in range(40, 200, 3):
        plain = _plain(history, width, 38)
        (axis,) = re.findall(r"^ +read  (.*)$", plain, re.MULTILINE)
        numbers = [int(each.replace(",", "")) for each in axis.split()]
        assert numbers == sorted(set(numbers))
        assert (numbers[0], numbers[-1]) == (1, reads)
        assert re.search(r"^    20 s  ", plain, re.MULTILINE)  # and the chart begins where the lanes do
        assert re.search(r"^    2 ms  ", plain, re.MULTILINE)
