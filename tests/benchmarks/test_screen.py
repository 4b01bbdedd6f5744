"""benchmarks.screen films the program itself, and what moves in its picture is what was on the screen."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("a pseudo-terminal", allow_module_level=True)

from benchmarks.drawing import LIGHT
from benchmarks.screen import __main__ as screen
from benchmarks.screen.camera import ROWS
from benchmarks.screen.picture import DRAWN, Film, Look, Row, draw, picture

ROOT = Path(__file__).parents[2]
SVG = "{http://www.w3.org/2000/svg}"
LIMIT = 1_000_000  # bytes
PLAIN = Look("default", bold=False, faint=False, reverse=False)


def words(row: Row) -> list[str]:
    """The words of a row, without what is drawn."""
    text = "".join(part for part, _ in row)
    return "".join(" " if character in DRAWN else character for character in text).split()


def words_of(line: ET.Element) -> list[str]:
    texts = sorted(line.iter(f"{SVG}text"), key=lambda text: float(text.get("x", "0")))
    return " ".join(text.text or "" for text in texts).split()


def plays(svg: str) -> tuple[list[list[list[str]]], list[list[str]]]:
    """By row: what it shows in each step, as its keyframes have it; and what it shows at rest."""
    root = ET.fromstring(svg)  # noqa: S314 (our own)
    steps, rest = [], []
    for y in range(ROWS):
        lines = {line.get("id"): words_of(line) for line in root.iter(f"{SVG}g")}
        rest.append(lines.get(f"line-{y}-0", []))
        moves = re.search(rf"@keyframes move-{y}\{{(.*)\}}\n", svg)
        places = [int(px) // -30 for px in re.findall(r"translateY\((-?\d+)px\)", moves[1])] if moves else [0]
        steps.append([lines.get(f"line-{y}-{place}", []) for place in places])
    return steps, rest


@pytest.fixture(scope="module")
def filmed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Film, list[str]]:
    """A short run, and the pictures that the command makes of it."""
    folder = tmp_path_factory.mktemp("film")
    # On a busy machine `f` may come late. From the first probe to the second pause there is time: 118 reads.
    options = ("--pause-every", "140", "--requests", "420", "--replication-lag", "0.1")
    films: list[Film] = []

    def keep(film: Film, name: Path) -> list[Path]:
        films.append(film)
        return draw(film, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(screen, "draw", keep)
        assert screen.main([str(folder / "live"), "--look", "0.5", *options]) == 0
    return films[0], [(folder / f"{name}.svg").read_text(encoding="utf-8") for name in ("live", "live-dark")]


@pytest.mark.program
def test_each_row_plays_what_was_on_the_screen_and_nothing_else(filmed: tuple[Film, list[str]]) -> None:
    film, pictures = filmed
    for svg in pictures:
        steps, rest = plays(svg)
        assert rest == [words(row) for row in film.still]
        for y in range(ROWS):
            shown = [words(each[y]) for each in film.frames]
            changes = [now for n, now in enumerate(shown) if n == 0 or now != shown[n - 1]]
            played = [now for n, now in enumerate(steps[y]) if n == 0 or now != steps[y][n - 1]]
            assert played == changes


@pytest.mark.program
def test_the_film_tells_the_whole_story_and_rests_where_the_circuit_is_open(filmed: tuple[Film, list[str]]) -> None:
    film, _ = filmed
    told = ["\n".join("".join(text for text, _ in row) for row in each) for each in film.frames]
    story = ["[ CLOSED ]", "Paused after read 140", "is ON", "[ OPEN ]", "The probe failed", "is off", "[ CLOSED ]"]
    at = 0
    for words_shown in story:
        at = next(n for n in range(at, len(told)) if words_shown in told[n])
    assert any("[ HALF-OPEN ]" in each for each in told)
    still = "\n".join("".join(text for text, _ in row) for row in film.still)
    assert "[ OPEN ]" in still
    assert "The probe failed" in still


@pytest.mark.program
def test_a_picture_is_small_and_has_nothing_of_the_machine(filmed: tuple[Film, list[str]], tmp_path: Path) -> None:
    for svg in filmed[1]:
        assert len(svg.encode()) < LIMIT
        check_has_nothing_private(svg)
        for private in (str(ROOT), str(Path.home()), str(tmp_path.parent), sys.prefix):
            assert private not in svg


@pytest.mark.parametrize("name", ["live", "live-dark"])
def test_the_pictures_in_docs_are_such_ones(name: str) -> None:
    svg = (ROOT / "docs" / f"{name}.svg").read_text(encoding="utf-8")
    assert len(svg.encode()) < LIMIT
    check_has_nothing_private(svg)
    steps, rest = plays(svg)
    assert max(map(len, steps)) > 20
    assert "OPEN" in {word for line in rest for word in line}


def check_has_nothing_private(svg: str) -> None:
    assert not re.search(r"AccountKey|sig=|password|/home/|/root|/tmp|/Users/", svg)
    assert set(re.findall(r"\d+\.\d+\.\d+\.\d+", svg)) == {"127.0.0.1"}
    assert set(re.findall(r"\w+://[^\"]*", svg)) == {"http://www.w3.org/2000/svg"}


def test_lines_that_come_back_are_in_the_file_once_and_none_moves_for_who_wants_no_motion() -> None:
    one, two = (((text, PLAIN),) for text in ("one ■○  <&>", "two"))
    film = Film(5, [(one, one), (two, one), (one, one)], still=(two, one))
    svg = picture(film, LIGHT)
    assert re.findall(r"<text[^>]*>([^<]*)</text>", svg) == ["two", "one", "&lt;&amp;&gt;", "one", "&lt;&amp;&gt;"]
    assert plays(svg)[0][0] == [["one", "<&>"], ["two"], ["one", "<&>"]]
    assert "@keyframes move-1" not in svg
    assert "0.6s step-end infinite" in svg
    assert "@media(prefers-reduced-motion:reduce){g{animation:none!important}}" in svg
    assert plays(svg)[1][0] == ["two"]


@pytest.mark.parametrize("reverse", [False, True])
def test_each_look_has_its_colour_in_both_themes(reverse: bool) -> None:
    look = Look("brown", bold=True, faint=False, reverse=reverse)
    film = Film(5, [((("│ x", look),),)], ((("│ x", look),),))
    svg = picture(film, LIGHT)
    used = {name for classes in re.findall(r'class="([^"]+)"', svg) for name in classes.split()}
    assert {name for name in used if f".{name}{{" not in svg} == set()
