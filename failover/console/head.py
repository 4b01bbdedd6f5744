"""The head of the screen: the account, and as large as the room allows, which endpoint answers."""

from __future__ import annotations

from rich.text import Text

from failover.console import words
from failover.console.glyphs import ALARM, ASCII, CELL_STYLES, gauge
from failover.console.letters import blocks, halves, pixels
from failover.console.scene import MARGIN, NARROW, WIDE, WIDEST, Scene
from failover.console.view import Cell, Stage
from failover.demo import events as ev

_SLOW = 0.5  # seconds after which a read without an answer is worth a word
_WORDS = {
    Cell.PRIMARY: "PRIMARY",
    Cell.SECONDARY: "SECONDARY",
    Cell.HEDGED: "SECONDARY",
    Cell.TRIED: "SECONDARY",
    Cell.FAILED: "NEITHER",
}


def title(scene: Scene, _rows: int) -> list[Text]:
    """Which account is read."""
    account = words.clean(scene.view.settings.account) if scene.view.settings else "starting"
    if scene.width < NARROW:
        return [Text(account, "bold")]
    return [Text.assemble(" ", ("RA-GRS failover", "bold"), f" {scene.glyphs.separator} {account}")]


def rule(scene: Scene, _rows: int) -> list[Text]:
    """A line across."""
    return [Text(scene.glyphs.rule * scene.width, "dim")]


def word_rows(scene: Scene) -> tuple[int, ...]:
    """The heights at which the word looks its best on this screen."""
    if scene.width < WIDE:
        return (1, 2)
    if scene.glyphs is ASCII:
        return (1, 2, 5)
    return (1, 2, 3, 5) if scene.width >= WIDEST else (1, 2, 3)


def word(scene: Scene, rows: int) -> list[Text]:
    """Which endpoint answered the last read, and beside it what else is true of that read."""
    last = scene.view.last
    if last is None:
        return _before_reading(scene, rows)
    cell = scene.view.cells[-1]
    if rows < 3:
        return _small_word(scene, cell, rows)
    failed = [Text(words.clean(last.error or ""), "red")] if not last.ok else _secondary(scene)
    beside = [_count(scene), _answer(scene), *([Text()] if rows >= 5 else []), *failed]
    beside += [Text()] * (rows - len(beside))
    left = len(_letters(scene, "SECONDARY", rows)[0]) + MARGIN + 2
    lines = []
    for row, right in zip(_letters(scene, _WORDS[cell], rows), beside, strict=True):
        line = Text.assemble(scene.margin, (row, CELL_STYLES[cell]))
        line.pad_right(left - line.cell_len)
        lines.append(line.append_text(right))
    return lines


def _letters(scene: Scene, name: str, rows: int) -> list[str]:
    if scene.glyphs is ASCII:
        return pixels(name)
    return blocks(name) if rows >= 5 else halves(name)


def _small_word(scene: Scene, cell: Cell, rows: int) -> list[Text]:
    name, style = _WORDS[cell], f"reverse bold {CELL_STYLES[cell]}"
    count = _count(scene)
    first = Text.assemble(scene.margin, (f" {' '.join(name)} ", style), "  ", count)
    if first.cell_len > scene.width:
        total = scene.view.settings.requests if scene.view.settings else 0
        first = Text.assemble(scene.margin, (name, style), " ", f"{scene.view.reads}{f'/{total}' if total else ''}")
    if first.cell_len > scene.width:
        first = Text.assemble(scene.margin, (name, style), " ", f"{scene.view.reads}")
    if first.cell_len > scene.width:
        first = Text(name, style)
    if rows < 2:
        waited = _waited(scene)
        return [first.append(f"  {waited}" if waited else "")]
    second = Text.assemble(scene.margin, _answer(scene))
    for each in _secondary(scene):
        second.append("   ").append_text(each)
    return [first, second]


def _count(scene: Scene) -> Text:
    total = scene.view.settings.requests if scene.view.settings else 0
    return Text.assemble("read ", (f"{scene.view.reads:,}", "bold"), f" of {total:,}" if total else "")


def _waited(scene: Scene) -> str | None:
    """For how long the read that is under way has had no answer, once that is worth a word."""
    waited = scene.view.under_way(scene.now)
    return None if waited is None or waited < _SLOW else words.seconds(waited)


def _answer(scene: Scene) -> Text:
    waited, last = _waited(scene), scene.view.last
    if waited is not None:
        return Text(f"read {scene.view.reads + 1:,}: {waited} so far", "bold")
    if last is None:
        return Text()
    ms = f"{last.ms:,.1f} ms" if last.ms < 1000 else f"{last.ms / 1000:,.1f} s"
    return Text(f"answered in {ms}" if last.ok else f"gave up after {ms}")


def _secondary(scene: Scene) -> list[Text]:
    """Whether there is a net, and how old what the secondary holds may be."""
    view = scene.view
    if not view.net:
        return [Text.assemble((" NO NET ", ALARM), " secondary down")]
    reading = view.last is not None and view.last.endpoint == ev.SECONDARY
    if view.staleness is None:
        return [Text("its age is not known")] if reading else []
    age = words.seconds(view.staleness)
    return [Text(f"data may be {age} old") if reading else Text(f"secondary {age} behind", "dim")]


def _before_reading(scene: Scene, rows: int) -> list[Text]:
    view, margin = scene.view, scene.margin
    if view.stage is Stage.FINISHED:
        lines = [Text.assemble(margin, ("Finished", "bold"), " before the first read")]
    elif view.stage is Stage.STARTING:
        lines = [Text.assemble(margin, ("Uploading ", "bold"), "the blob to the primary")]
    elif view.stage is Stage.READING:
        waited = _waited(scene)
        lines = [Text.assemble(margin, ("Reading", "bold"), f" for {waited}, no answer yet" if waited else "")]
    else:
        wait = view.waiting
        told = f"{words.seconds(wait.seconds)} of at most {words.seconds(wait.limit)}" if wait else "a moment"
        if rows == 1:
            return [Text.assemble(margin, ("Waiting", "bold"), f" {told}")]
        length = max(4, min(40, scene.width - 30))
        share = min(1.0, wait.seconds / wait.limit) if wait and wait.limit > 0 else 0.0
        bar = gauge(round(share * length), length, scene.glyphs, length)
        lines = [
            Text.assemble(margin, ("Waiting for the secondary", "bold"), " to have the blob too"),
            Text.assemble(margin, (bar, "cyan"), f"  {told}"),
        ]
    return [Text(), *lines] if rows >= 5 else lines
