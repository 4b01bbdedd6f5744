"""The upper part of the screen: the account, as large as there is room which endpoint answers, and the circuit."""

from __future__ import annotations

from rich.text import Text

from failover.console import narrator
from failover.console.render_context import (
    ALARM,
    ASCII,
    CELL_STYLES,
    MARGIN,
    NARROW,
    STATE_STYLES,
    WIDE,
    WIDEST,
    Charset,
    RenderContext,
    gauge,
)
from failover.console.run_state import Cell, Stage
from failover.console.wording import clean, seconds
from failover.demo import events as ev

_SLOW = 0.5  # seconds after which a read without an answer is worth a word
_WORDS = {
    Cell.PRIMARY: "PRIMARY",
    Cell.SECONDARY: "SECONDARY",
    Cell.HEDGED: "SECONDARY",
    Cell.TRIED: "SECONDARY",
    Cell.FAILED: "NEITHER",
}
_FONT = {
    "A": (" ## ", "#  #", "####", "#  #", "#  #"),
    "C": (" ###", "#   ", "#   ", "#   ", " ###"),
    "D": ("### ", "#  #", "#  #", "#  #", "### "),
    "E": ("####", "#   ", "### ", "#   ", "####"),
    "H": ("#  #", "#  #", "####", "#  #", "#  #"),
    "I": ("###", " # ", " # ", " # ", "###"),
    "M": ("#   #", "## ##", "# # #", "#   #", "#   #"),
    "N": ("#   #", "##  #", "# # #", "#  ##", "#   #"),
    "O": (" ## ", "#  #", "#  #", "#  #", " ## "),
    "P": ("### ", "#  #", "### ", "#   ", "#   "),
    "R": ("### ", "#  #", "### ", "# # ", "#  #"),
    "S": (" ###", "#   ", " ## ", "   #", "### "),
    "T": ("#####", "  #  ", "  #  ", "  #  ", "  #  "),
    "Y": ("#   #", " # # ", "  #  ", "  #  ", "  #  "),
}
_HALVES = {(" ", " "): " ", ("#", " "): "▀", (" ", "#"): "▄", ("#", "#"): "█"}
_DIAGRAM = 52  # columns of the diagram


def title(context: RenderContext, _rows: int) -> list[Text]:
    """Which account is read."""
    account = clean(context.run.settings.account) if context.run.settings else "starting"
    if context.width < NARROW:
        return [Text(account, "bold")]
    return [Text.assemble(" ", ("RA-GRS failover", "bold"), f" {context.charset.separator} {account}")]


def rule(context: RenderContext, _rows: int) -> list[Text]:
    """A line across."""
    return [Text(context.charset.rule * context.width, "dim")]


def word_rows(context: RenderContext) -> tuple[int, ...]:
    """The heights at which the word looks its best on this screen."""
    if context.width < WIDE:
        return (1, 2)
    if context.charset is ASCII:
        return (1, 2, 5)
    return (1, 2, 3, 5) if context.width >= WIDEST else (1, 2, 3)


def word(context: RenderContext, rows: int) -> list[Text]:
    """Which endpoint answered the last read, and beside it what else is true of that read."""
    last = context.run.last
    if last is None:
        return _before_reading(context, rows)
    cell = context.history.cells[-1]
    if rows < 3:
        return _small_word(context, cell, rows)
    failed = [Text(clean(last.error or ""), "red")] if not last.ok else _secondary(context)
    beside = [_count(context), _answer(context), *([Text()] if rows >= 5 else []), *failed]
    beside += [Text()] * (rows - len(beside))
    left = len(big_text("SECONDARY", rows, context.charset)[0]) + MARGIN + 2
    lines = []
    for row, right in zip(big_text(_WORDS[cell], rows, context.charset), beside, strict=True):
        line = Text.assemble(context.margin, (row, CELL_STYLES[cell]))
        line.pad_right(left - line.cell_len)
        lines.append(line.append_text(right))
    return lines


def big_text(word: str, rows: int, charset: Charset) -> list[str]:
    """The word five or three lines high, so large that it is read from across the room.

    Three lines take two pixels to a character, five in Unicode two characters to a pixel. Raises KeyError on a letter
    that no word of the screen has.
    """
    pixels = [" ".join(_FONT[letter][row] for letter in word) for row in range(5)]
    if charset is ASCII:
        return pixels
    if rows >= 5:
        return ["".join("██" if pixel == "#" else "  " for pixel in row) for row in pixels]
    pixels.append(" " * len(pixels[0]))
    return ["".join(_HALVES[pair] for pair in zip(pixels[y], pixels[y + 1], strict=True)) for y in (0, 2, 4)]


def _small_word(context: RenderContext, cell: Cell, rows: int) -> list[Text]:
    name, style = _WORDS[cell], f"reverse bold {CELL_STYLES[cell]}"
    count = _count(context)
    first = Text.assemble(context.margin, (f" {' '.join(name)} ", style), "  ", count)
    if first.cell_len > context.width:
        total = context.run.settings.requests if context.run.settings else 0
        first = Text.assemble(context.margin, (name, style), " ", f"{context.run.reads}{f'/{total}' if total else ''}")
    if first.cell_len > context.width:
        first = Text.assemble(context.margin, (name, style), " ", f"{context.run.reads}")
    if first.cell_len > context.width:
        first = Text(name, style)
    if rows < 2:
        waited = _waited(context)
        return [first.append(f"  {waited}" if waited else "")]
    second = Text.assemble(context.margin, _answer(context))
    for each in _secondary(context):
        second.append("   ").append_text(each)
    return [first, second]


def _count(context: RenderContext) -> Text:
    total = context.run.settings.requests if context.run.settings else 0
    return Text.assemble("read ", (f"{context.run.reads:,}", "bold"), f" of {total:,}" if total else "")


def _waited(context: RenderContext) -> str | None:
    """For how long the read that is under way has had no answer, once that is worth a word."""
    waited = context.run.under_way(context.now)
    return None if waited is None or waited < _SLOW else seconds(waited)


def _answer(context: RenderContext) -> Text:
    waited, last = _waited(context), context.run.last
    if waited is not None:
        return Text(f"read {context.run.reads + 1:,}: {waited} so far", "bold")
    if last is None:
        return Text()
    ms = f"{last.ms:,.1f} ms" if last.ms < 1000 else f"{last.ms / 1000:,.1f} s"
    return Text(f"answered in {ms}" if last.ok else f"gave up after {ms}")


def _secondary(context: RenderContext) -> list[Text]:
    """Whether there is a net, and how old what the secondary holds may be."""
    run = context.run
    if not run.net:
        return [Text.assemble((" NO NET ", ALARM), " secondary down")]
    reading = run.last is not None and run.last.endpoint == ev.SECONDARY
    if run.staleness is None:
        return [Text("its age is not known")] if reading else []
    age = seconds(run.staleness)
    return [Text(f"data may be {age} old") if reading else Text(f"secondary {age} behind", "dim")]


def _before_reading(context: RenderContext, rows: int) -> list[Text]:
    run, margin = context.run, context.margin
    if run.stage is Stage.FINISHED:
        lines = [Text.assemble(margin, ("Finished", "bold"), " before the first read")]
    elif run.stage is Stage.STARTING:
        lines = [Text.assemble(margin, ("Uploading ", "bold"), "the blob to the primary")]
    elif run.stage is Stage.READING:
        waited = _waited(context)
        lines = [Text.assemble(margin, ("Reading", "bold"), f" for {waited}, no answer yet" if waited else "")]
    else:
        wait = run.waiting
        told = narrator.waited(wait) if wait else "a moment"
        if rows == 1:
            return [Text.assemble(margin, ("Waiting", "bold"), f" {told}")]
        length = max(4, min(40, context.width - 30))
        share = min(1.0, wait.seconds / wait.limit) if wait and wait.limit > 0 else 0.0
        bar = gauge(round(share * length), length, context.charset, length)
        lines = [
            Text.assemble(margin, ("Waiting for the secondary", "bold"), " to have the blob too"),
            Text.assemble(margin, (bar, "cyan"), f"  {told}"),
        ]
    return [Text(), *lines] if rows >= 5 else lines


def circuit_rows(context: RenderContext) -> int:
    """How many rows are of use on a screen of this width."""
    return 2 if context.width >= _DIAGRAM else 1


def circuit(context: RenderContext, rows: int) -> list[Text]:
    """The state diagram with the current state lit, and what is counted in it."""
    told, meter = _counted(context)
    if context.width >= WIDE:
        lines = _diagram(context)
        left = lines[0].cell_len + 3
        for line, right in zip(lines, (told, meter), strict=True):
            line.pad_right(left - line.cell_len)
            line.append_text(right)
        return lines
    if rows > 1:
        return [_diagram(context)[0], Text.assemble(context.margin, told, "  ", meter)]
    state = context.run.state
    lit = (f"[{state.upper()}]", STATE_STYLES[state])
    if context.width >= NARROW:
        return [Text.assemble(context.margin, lit, " ", told)]
    short = (
        told.plain.replace("failures ", "")
        .replace(" until the probe", " left")
        .replace("the next read is the ", "next: ")
    )
    return [Text.assemble(lit, " ", (short, told.style))]


def _diagram(context: RenderContext) -> list[Text]:
    charset = context.charset
    line = Text.assemble(context.margin, (f"{charset.entering} ", "dim"))
    for state, arrow in ((ev.CLOSED, charset.arrow), (ev.OPEN, charset.both_ways), (ev.HALF_OPEN, "")):
        lit = state == context.run.state
        line.append(f"[ {state.upper()} ]" if lit else f"  {state}  ", STATE_STYLES[state] if lit else "")
        line.append(f" {arrow} " if arrow else " ", "dim")
    line.append(charset.rule + charset.corners[1], "dim")
    across = line.cell_len - MARGIN - 2
    back = Text.assemble(context.margin, (charset.corners[3] + charset.rule * across + charset.corners[2], "dim"))
    return [line, back]


def _counted(context: RenderContext) -> tuple[Text, Text]:
    """What leads to the next state: in words, and as a meter."""
    run, charset, longest = context.run, context.charset, max(4, min(32, context.width - 50))
    if run.state == ev.CLOSED:
        if not run.threshold:
            return Text(), Text()
        some = run.failures > 0
        meter = gauge(run.failures, run.threshold, charset, longest)
        told = f"failures {run.failures} of {run.threshold}"
        return Text(told, "bold" if some else ""), Text(meter, "red" if some else "dim")
    meter = ""
    seconds = run.seconds_left(context.now)
    if seconds is not None:
        whole = max(run.cooldown or 0.0, seconds)
        meter = gauge(round(seconds / whole * longest) if whole else 0, longest, charset, longest)
    elif run.state == ev.OPEN and run.reads_left is not None:
        most = max(run.reads_left, (run.settings.secondary_threshold if run.settings else None) or 0)
        meter = gauge(run.reads_left, most, charset, longest)
    return Text(narrator.until_probe(run, context.now), "bold"), Text(meter, "magenta")
