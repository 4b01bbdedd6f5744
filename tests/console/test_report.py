"""The picture of a run: SVG with a mark for each read, bounded, harmless, and in its file whole or not at all."""

from __future__ import annotations

import errno
import itertools
import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from pathlib import Path

import pytest

from failover.console.report import Report, picture
from failover.console.run_history import GROUPS, RunHistory
from failover.demo import events as ev
from tests.console.sample_run import ACCOUNT, aside, read, started, trip, whole
from tests.console.test_run_history import probe, recorded

SVG = "{http://www.w3.org/2000/svg}"
KINDS = {"primary": "p", "secondary": "s", "tried": "t", "failed": "x"}
MOST_BYTES = 150_000
posix = pytest.mark.skipif(os.name == "nt", reason="POSIX permissions and devices")


def drawn(history: RunHistory) -> ET.Element:
    return ET.fromstring(picture(history))  # noqa: S314 (our own)


def part(root: ET.Element, name: str) -> ET.Element:
    (found,) = [each for each in root.iter(f"{SVG}g") if each.get("id") == name]
    return found


def words(element: ET.Element) -> str:
    """All that is written in it, a line for each text."""
    return "\n".join("".join(each.itertext()) for each in element.iter(f"{SVG}text"))


def marks(root: ET.Element) -> dict[str, int]:
    """How many marks of each kind the strip holds."""
    paths = {each.get("class"): each.get("d", "") for each in part(root, "strip").iter(f"{SVG}path")}
    return {kind: len(re.findall("M", paths.get(style, ""))) for kind, style in KINDS.items()}


def sample() -> Iterable[ev.Event]:
    return (event for _, event in whole())


def test_it_has_a_mark_for_each_read_and_tells_all_in_words() -> None:
    root = drawn(recorded(*sample()))
    assert marks(root) == {"primary": 200, "secondary": 190, "tried": 10, "failed": 1}
    head = words(part(root, "head"))
    assert head.startswith(f"RA-GRS failover· {ACCOUNT}")
    assert "401 of 1,000 reads, 1 failed" in head
    assert "200 by the primary, 200 by the secondary (seen 0.8 s behind at most), 1 by neither." in head
    assert "The circuit opened once, was probed nine times and is open at the end." in head
    legend = words(part(root, "legend")).split("\n")
    assert legend == [
        *("200 primary", "190 secondary", "10 secondary after trying the primary", "1 failed"),
        *("fault 503 is on", "9 probes while half-open"),
    ]
    lanes = words(part(root, "timeline")).split("\n")
    assert {"fault", "circuit", "503 is on", "OPEN", "closed", "ms", "401"} <= set(lanes)
    (cuts,) = part(root, "probes")
    assert cuts.get("d", "").count("M") == 9
    events = words(part(root, "events"))
    assert "222–390" in events
    assert "9 probes failed (primary answered 503): it stayed open." in events
    assert "Container ra-grs-1 is deleted." in events
    described = root.findtext(f"{SVG}desc", "")
    assert "401 of 1,000 reads, 1 failed. 200 by the primary" in described


def test_what_came_from_outside_is_text_and_nothing_else() -> None:
    evil = "]]><script>alert(1)</script>&lt;\x00\x07\x1b[31m\ud800\u202e\ufffe\"' onload='x"
    root = drawn(
        recorded(
            started(account=evil, fault=evil, requests=3),
            ev.Uploaded(t=0.1, container=evil, blob=evil, bytes=13, account=evil),
            ev.Noted(t=0.2, text=evil),
            ev.FaultSwitched(t=0.3, kind=evil, on=True),
            *(ev.Retried(t=1.0, n=1, failures=n, threshold=5, error=evil) for n in range(1, 6)),
            ev.Transitioned(t=1.0, n=1, circuit="primary", old="closed", new="open", reason=evil),
            ev.SecondarySeen(t=1.1, reachable=False, staleness=None, error=evil),
            read(1, endpoint=None, ok=False, error=evil, state="open"),
            ev.CleanedUp(t=2.0, container=evil, error=evil),
        )
    )
    assert {each.tag.removeprefix(SVG) for each in root.iter()} == {
        *("svg", "title", "desc", "style", "g", "rect", "path", "text", "tspan")
    }
    assert {name for each in root.iter() for name in each.attrib} <= {
        *("viewBox", "width", "height", "role", "aria-labelledby", "id", "class", "x", "y", "dx", "d", "rx", "fill"),
        *("stroke", "stroke-width", "stroke-linecap"),
    }
    written = "".join(root.itertext())
    assert "<script>alert(1)</script>" in written
    assert "\\x1b[31m" in written
    assert not set(written) & set("\x00\x07\x1b\u202e\ufffe")


def test_it_loads_nothing() -> None:
    text = picture(recorded(*sample()))
    assert re.findall(r"https?://[^\"' ]+", text) == ["http://www.w3.org/2000/svg"]
    for word in ("url(", "@import", "@font-face", "href", "<image", "<script", "<foreignObject", "onload", "style="):
        assert word not in text, word


def _long(reads: int) -> Iterable[ev.Event]:
    """A run in which as much as can be happens in each hundred reads."""
    yield started(requests=0, pause_every=7)
    for n in range(1, reads + 1):
        if n % 100 == 1:
            yield ev.FaultSwitched(t=n * 0.04, kind="503", on=True)
            yield from trip(n)
        elif n % 100 == 41:
            yield ev.FaultSwitched(t=n * 0.04, kind="503", on=False)
            yield from probe(n, fails=False)
        elif n % 100 < 41 and n % 2:
            yield from probe(n, fails=True)
        else:
            yield read(n, ms=1.0 + n % 17) if n % 13 else read(n, endpoint=None, ok=False, error="both " * 99)


def test_it_stays_bounded_however_long_the_run_is() -> None:
    history, sizes = RunHistory(), {}
    for event in _long(4_500):
        history.apply(event)
        if isinstance(event, ev.Read) and event.n in (100, 1_000, GROUPS, GROUPS + 1, 4_500):
            text = picture(history)
            sizes[event.n] = len(text)
            root = ET.fromstring(text)  # noqa: S314 (our own)
            assert sum(marks(root).values()) == len(history.groups) == -(-event.n // history.per)
            assert float(root.get("height", "")) < 1_500
    assert max(sizes.values()) < MOST_BYTES, sizes
    assert "each mark stands for 4 reads and shows the worst of them" in words(part(root, "legend"))
    assert "more events" in words(part(root, "events"))


@pytest.mark.parametrize("events", [[], [started()], [started(), read(1)], [started(requests=0), read(1), aside(2, 1)]])
def test_a_run_that_hardly_began_has_its_picture_too(events: list[ev.Event]) -> None:
    root = drawn(recorded(*events))
    reads = sum(isinstance(event, ev.Read) for event in events)
    assert sum(marks(root).values()) == reads
    assert (f"{reads:,}" if reads else "Ended before the first read") in words(part(root, "head"))


def test_all_of_it_is_inside() -> None:
    """Each line of text, reckoned as wide as the widest font makes it, and each mark."""
    root = drawn(recorded(*sample(), ev.Noted(t=30.0, text="word " * 80), ev.Noted(t=31.0, text="x" * 290)))
    width, height = float(root.get("width", "")), float(root.get("height", ""))
    for each in root.iter(f"{SVG}text"):
        told, style = "".join(each.itertext()), each.get("class", "").split()
        size = 26.0 if "h" in style else 13.0 if "m" in style else 12.0
        long = len(told) * size * 0.605
        x = float(each.get("x", "")) - (long if "r" in style else long / 2 if "c" in style else 0.0)
        assert x >= 0, told
        assert x + long <= width, told
        assert 0 < float(each.get("y", "")) < height
    for each in root.iter(f"{SVG}path"):
        for x, y in re.findall(r"M([\d.]+) ([\d.]+)", each.get("d", "")):
            assert 0 < float(x) < width
            assert 0 < float(y) < height


@pytest.mark.parametrize("reads", [1, 2, 7, 103, 401, 436, 998, 1_021, 2_600])
def test_the_numbers_below_the_axis_never_collide(reads: int) -> None:
    history = recorded(started(requests=0, pause_every=0), *(read(n) for n in range(1, reads + 1)))
    rows: dict[str, list[tuple[float, float]]] = {}
    for each in part(drawn(history), "timeline").iter(f"{SVG}text"):
        told, style, x = "".join(each.itertext()), each.get("class", "").split(), float(each.get("x", ""))
        long = len(told) * 12.0 * 0.605
        left = x - (long if "r" in style else long / 2 if "c" in style else 0.0)
        rows.setdefault(each.get("y", ""), []).append((left, left + long))
    for spans in rows.values():
        ordered = sorted(spans)
        assert all(one[1] < following[0] for one, following in itertools.pairwise(ordered)), ordered


def test_the_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "run.svg"
    file.write_text("the last one")
    with Report(file, time_of_day=lambda: 1_760_000_000.0) as report:
        for event in sample():
            report(event)
        assert file.read_text() == "the last one"
        assert [each.name for each in tmp_path.iterdir()] == ["run.svg"]
    ET.parse(file)  # noqa: S314 (our own)
    assert "2025-10-0" in file.read_text(encoding="utf-8")
    assert [each.name for each in tmp_path.iterdir()] == ["run.svg"]


@pytest.mark.parametrize(
    ("error", "reads", "left"),
    [
        (KeyboardInterrupt(), 0, True),
        (KeyboardInterrupt(), 1, True),
        (RuntimeError("the upload failed"), 0, False),
        (RuntimeError("a fault of ours"), 1, True),
    ],
)
def test_what_ends_the_run_decides_whether_there_is_a_picture(
    tmp_path: Path, error: BaseException, reads: int, left: bool
) -> None:
    file = tmp_path / "run.svg"
    with pytest.raises(type(error)), Report(file) as report:  # noqa: PT012 (as a run would raise it)
        for event in [started(), *(read(n) for n in range(1, reads + 1))]:
            report(event)
        raise error
    assert file.exists() is left


def test_a_path_that_cannot_be_written_is_found_out_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for file, number in (
        (tmp_path / "nowhere" / "run.svg", errno.ENOENT),
        (tmp_path, errno.EISDIR),
        (tmp_path / "file" / "run.svg", errno.ENOENT if os.name == "nt" else errno.ENOTDIR),
        *([] if os.name == "nt" else [(tmp_path / ("x" * 300), errno.ENAMETOOLONG)]),
    ):
        with pytest.raises(OSError, match=os.strerror(number)):
            Report(file)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


@posix
def test_a_link_stays_one_and_so_do_permissions(tmp_path: Path) -> None:
    real, link = tmp_path / "real.svg", tmp_path / "link.svg"
    real.touch(mode=0o640)
    link.symlink_to(real)
    with Report(link) as report:
        report(started())
    assert link.is_symlink()
    assert "</svg>" in real.read_text()
    assert real.stat().st_mode & 0o777 == 0o640
    new = tmp_path / "new.svg"
    with Report(new) as report:
        report(started())
    umask = os.umask(0)
    os.umask(umask)
    assert new.stat().st_mode & 0o777 == 0o666 & ~umask


def test_a_disk_that_is_full_by_then_is_told_and_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.svg"
    file.write_text("the last one")
    half = itertools.count()

    def full(self: Path, data: bytes) -> int:
        next(half)
        with self.open("wb") as stream:
            stream.write(data[:100])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with Report(file) as report:
        report(started())
    assert next(half) == 1
    assert file.read_text() == "the last one"
    assert [each.name for each in tmp_path.iterdir()] == ["run.svg"]
    told = capsys.readouterr().err
    assert told == f"circuitbreaker.py: --report {file} could not be written: {os.strerror(errno.ENOSPC)}.\n"


def test_the_picture_of_the_readme_is_one_of_these() -> None:
    file = Path(__file__).parents[2] / "docs" / "run.svg"
    root = ET.parse(file).getroot()  # noqa: S314 (our own)
    assert marks(root) == {"primary": 790, "secondary": 200, "tried": 10, "failed": 0}
    assert "1,000 reads, all answered" in words(part(root, "head"))
    assert file.stat().st_size < MOST_BYTES
