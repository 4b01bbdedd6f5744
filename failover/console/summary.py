"""How a run came out: in a few sentences, which head the picture of `--report` too, and in one screen of text.

The screen is what stays on the terminal at the end of a live run.
"""

from __future__ import annotations

from itertools import pairwise

from rich.text import Text

from failover.console.event_log import Entry
from failover.console.layout import Scale, read_ticks, row_width, stretches
from failover.console.narrator import more_events
from failover.console.render_context import (
    ASCII,
    CELL_STYLES,
    MARGIN,
    NARROW,
    UNICODE,
    Picture,
    RenderContext,
    columns,
    cut,
    fold,
    runs,
)
from failover.console.run_history import Group, RunHistory, merged
from failover.console.run_state import Cell
from failover.console.wording import clean, milliseconds, moment, reads, seconds, times
from failover.demo import events as ev

_LABEL = 10  # columns before what goes by reads
_FEW, _SOME, _MANY = 14, 20, 30  # rows from which there is room for the strip, for the timeline, and for gaps
_LINES = 2  # of an entry that is not the last
_BEHIND = 0.05  # seconds; less is nothing on the screen
_NAMES = {
    Cell.PRIMARY: "primary",
    Cell.SECONDARY: "secondary",
    Cell.HEDGED: "hedged",
    Cell.TRIED: "secondary after a try",
    Cell.FAILED: "failed",
}
_LANES = {ev.CLOSED: "green", ev.OPEN: "magenta", ev.HALF_OPEN: "cyan"}


def summary(history: RunHistory, width: int, height: int, *, ascii_only: bool = False) -> Picture:
    """The run so far in at most `height` lines of at most `width` columns; of a low terminal, what matters most.

    No line before the settings were known.
    """
    if history.settings is None:
        return Picture(())
    context = RenderContext(history, width, history.run.t, ASCII if ascii_only else UNICODE)
    lines = _head(context)
    if height < _FEW:
        del lines[max(2, height - 3) :]
    gap = [Text()] if height >= _MANY else []
    if width >= NARROW and history.groups:
        if height >= _FEW:
            rows = 3 if height < _SOME else 4 if height < _MANY else min(10, height - 24)
            lines += [*gap, *_strip(context, rows)]
        if height >= _SOME:
            lines += [*gap, *_timeline(context, 2 if gap else 1), *gap]
    lines += _events(context, max(1, height - len(lines)))
    return Picture(tuple(cut(line, width, context.charset.ellipsis) for line in lines))


def _head(context: RenderContext) -> list[Text]:
    history, margin = context.history, context.margin
    many, _, answered = headline(history).partition(", ")
    lines = [
        Text.assemble(("RA-GRS failover", "bold"), f" {context.charset.separator} {account(history)}"),
        Text.assemble(
            margin,
            (many, "bold"),
            (f", {answered}" if answered else "", "bold red" if history.failed else "bold green"),
        ),
    ]
    told = [*results(history), latency(history)]
    return lines + [Text(margin + line) for each in told if each for line in fold(each, context.width - len(margin))]


def _strip(context: RenderContext, rows: int) -> list[Text]:
    """A cell for each read, or for each few of them, in so many rows at most; and what the cells mean."""
    history, charset = context.history, context.charset
    room = context.width - _LABEL - MARGIN
    every = history.settings.pause_every if history.settings else 0
    per_row = row_width(history.reads, every if history.per == 1 else 0, room)
    factor = -(-len(history.groups) // (rows * per_row))
    if factor > 1:
        per_row = room
        factor = -(-len(history.groups) // (rows * per_row))
    groups, per = merged(history.groups, factor), history.per * factor
    lines = []
    for first in range(0, len(groups), per_row):
        line = Text.assemble((f"{first * per + 1:>{_LABEL - 2},}  ", "dim"))
        row = groups[first : first + per_row]
        lines.append(line.append_text(runs((charset.cells[each.cell], CELL_STYLES[each.cell]) for each in row)))
    legend = Text(" " * _LABEL)
    for cell in history.run.cells():
        legend.append(charset.cells[cell], CELL_STYLES[cell]).append(f" {_NAMES[cell]}  ", "dim")
    legend.rstrip()
    if per == 1:
        return [*lines, legend]
    worst = Text(f"{' ' * _LABEL}each mark stands for {per:,} reads and shows the worst of them", "dim")
    return [*lines, legend, worst]


def _timeline(context: RenderContext, rows: int) -> list[Text]:
    """From the first read to the last: when the fault was on, where the circuit was, how long reads took."""
    history, charset = context.history, context.charset
    room = context.width - _LABEL - MARGIN
    groups = _stretched(history.groups, room)
    lines = []
    if any(each.fault for each in groups):
        kind = f"{history.settings.fault} is on" if history.settings else ""
        spans = [(charset.full if on else " ", end - start, kind if on else "", "red" if on else "")
                 for on, start, end in stretches(groups, lambda each: each.fault)]  # fmt: skip
        lines.append(_lane("fault", spans))
    spans = []
    for state, start, end in stretches(groups, lambda each: each.state):
        closed = state == ev.CLOSED
        mark = charset.rule if closed else charset.bars[-1]
        spans.append((mark, end - start, state if closed else state.upper(), _LANES[state]))
    lines.append(_lane("circuit", spans))
    scale = Scale([each.ms for each in groups])
    values = [(scale(each.ms), CELL_STYLES[each.cell].removeprefix("bold ")) for each in groups]
    for row, chart in enumerate(columns(values, 1.0, rows, charset)):
        head = _ms(scale.high) if row == 0 else _ms(scale.low) if row == rows - 1 else ""
        lines.append(Text.assemble((f"{head:>{_LABEL - 2}}  ", "dim"), chart))
    return [*lines, _axis(history.reads, room)]


def _ms(value: float) -> str:
    """So many milliseconds, in the room before a lane."""
    return f"{value:g} ms" if value < 1000 else f"{value / 1000:g} s"


def _stretched(groups: list[Group], room: int) -> list[Group]:
    """One for each column: the worst of those that share it, or one over several columns where there are few."""
    many = len(groups)
    if many <= room:
        return [groups[column * many // room] for column in range(room)]
    edges = [column * many // room for column in range(room + 1)]
    return [merged(groups[start:end], end - start)[0] for start, end in pairwise(edges)]


def _lane(name: str, spans: list[tuple[str, int, str, str]]) -> Text:
    """Stretches of (mark, columns, name, style), each with its name in it where there is room."""
    line = Text.assemble((f"{name:>{_LABEL - 2}}  ", "dim"))
    for mark, wide, told, style in spans:
        room = wide >= len(told) + 4
        if told and room:
            named = style if told == ev.CLOSED else f"bold reverse {style}"
            line.append(mark, style).append(f" {told} ", named)
            wide -= len(told) + 3
        line.append(mark * wide, style)
    return line


def _axis(reads: int, room: int) -> Text:
    line = [" "] * room
    for n, at in read_ticks(reads, room):
        told = f"{n:,}"
        line[at : at + len(told)] = told
    return Text(f"{'read':>{_LABEL - 2}}  {''.join(line)}", "dim")


def _events(context: RenderContext, rows: int) -> list[Text]:
    """What happened, in at most so many lines where that can be; the last entry is always whole."""
    history, width, ellipsis = context.history, context.width, context.charset.ellipsis
    lines: list[Text] = []
    for most in range(24 if width >= NARROW else 1, 0, -1):
        first, omitted, last = history.log.chosen(most)
        which = max([len(each.which) for each in [*first, *last]], default=0)
        lines = [line for entry in first for line in _brief(_told(entry, which, context), ellipsis)]
        if omitted and last and width >= NARROW:
            lines.append(Text(f"{' ' * (_LABEL + which)}{ellipsis} {more_events(omitted)}", "dim"))
        lines += [line for entry in last[:-1] for line in _brief(_told(entry, which, context), ellipsis)]
        lines += [line for entry in last[-1:] for line in _told(entry, which, context)]
        if len(lines) <= rows:
            break
    return lines


def _brief(lines: list[Text], ellipsis: str) -> list[Text]:
    return lines if len(lines) <= _LINES else [*lines[: _LINES - 1], lines[_LINES - 1].append(f" {ellipsis}")]


def _told(entry: Entry, which: int, context: RenderContext) -> list[Text]:
    """An entry with its time and its reads, for which the widest entry takes `which` columns."""
    style = "bold red" if entry.bad else ""
    if context.width < 2 * NARROW - MARGIN:
        return [Text(line, style) for line in fold(entry.text, context.width)]
    head = f"{moment(entry.t):>{_LABEL - 2}}  {entry.which:<{which}}{'  ' if which else ''}"
    head = head if context.charset is UNICODE else head.replace("–", "-")
    folded = fold(entry.text, context.width - len(head) - 1)
    heads = [head, *[" " * len(head)] * len(folded)]
    return [Text.assemble((each, "dim"), (line, style)) for each, line in zip(heads, folded, strict=False)]


def account(history: RunHistory) -> str:
    """Which account was read."""
    return clean(history.settings.account) if history.settings else "no account"


def headline(history: RunHistory) -> str:
    """How many reads there were, and whether they were answered."""
    if not history.reads:
        return "Ended before the first read"
    total = history.settings.requests if history.settings else 0
    many = reads(history.reads) if history.whole or not total else f"{history.reads:,} of {reads(total)}"
    if history.failed:
        return f"{many}, {history.failed:,} failed"
    return f"{many}, {'answered' if history.reads == 1 else 'all answered'}"


def results(history: RunHistory) -> list[str]:
    """Who answered, how stale that may have been, and what the circuit did: a line each; none before the first read."""
    if not history.reads:
        return []
    told = [f"{history.primary:,} by the primary", f"{history.secondary:,} by the secondary"]
    told += [f"{history.failed:,} by neither"] if history.failed else []
    if history.secondary and history.behind is not None:
        told[1] += f" (seen {seconds(history.behind)} behind at most)" if history.behind >= _BEHIND else ""
    told += [f"{history.hedged:,} asked both at the same time"] if history.hedged else []
    return [f"{', '.join(told)}.", _what_the_circuit_did(history)]


def _what_the_circuit_did(history: RunHistory) -> str:
    if not history.opened:
        return "The circuit never opened." if history.run.state == ev.CLOSED else f"The circuit is {history.run.state}."
    did = [f"opened {times(history.opened)}"]
    if history.probes:
        did.append(f"was probed {times(history.probes)}")
    did.append("is closed again" if history.run.state == ev.CLOSED else f"is {history.run.state} at the end")
    return f"The circuit {', '.join(did[:-1])} and {did[-1]}."


def latency(history: RunHistory) -> str:
    """How long reads took; empty before the first."""
    most, slowest = history.spread.quantile(0.99), history.slowest
    if most is None or slowest is None:
        return ""
    by = [(name, spread.quantile(0.5)) for name, spread in history.spreads.items()]
    medians = [f"{milliseconds(value)} ms {name}" for name, value in by if value is not None]
    told = [f"median {', '.join(medians)}"] if medians else []
    told += [f"p99 {milliseconds(most)}", f"slowest {milliseconds(slowest.ms)} (read {slowest.n:,})"]
    line = "; ".join(told)
    return f"{line[:1].upper()}{line[1:]}."


def rules(history: RunHistory) -> str:
    """The settings that the run went by."""
    settings = history.settings
    if settings is None:
        return ""
    threshold, aside = settings.retry_threshold, settings.secondary_threshold
    failures = "1 failure opens" if threshold == 1 else f"{threshold:,} failures in a row open"
    until = f"{reads(aside)}" if aside is not None else seconds(settings.cooldown or 0.0)
    rate = f"{settings.rate:g} reads a second" if settings.rate else "as fast as they go"
    return f"{failures} the circuit, {until} later the primary is probed; {rate}"
