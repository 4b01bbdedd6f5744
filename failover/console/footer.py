"""The foot of the screen: what happened last, what to do while the run is paused, and the keys."""

from __future__ import annotations

from rich.text import Text

from failover.console import narrator
from failover.console.keys import footer as keys_now
from failover.console.render_context import MARGIN, NARROW, WIDE, RenderContext, cut, fold
from failover.console.wording import clean

_TOLD = 3  # lines of advice at most: the box keeps its height when f changes what it says
_DATED = 60  # columns from which there is room for the time of day


def _advice(context: RenderContext, *, roomy: bool) -> list[str]:
    """What can be done now; where there is room, the first time also why there are two endpoints."""
    run = context.run
    if run.paused is None:
        return []
    told = narrator.what_now(run)
    first = roomy and run.pauses == 1 and bool(told)
    if context.width < NARROW:
        return [line for each in (*told, narrator.KEYS_WHILE_PAUSED) for line in fold(each, context.width - 1)]
    width = min(context.width, WIDE) - 2 * MARGIN - 4
    lines = [line for each in told for line in fold(each, width)]
    lines += [""] * (_TOLD - len(lines) if told else 0)
    why = fold(narrator.WHY_TWO, width) if first else []
    return [*why, *lines, *fold(narrator.KEYS_WHILE_PAUSED, width)]


def box_rows(context: RenderContext) -> int:
    """How many rows the box of a pause takes; 0 while the run is not paused."""
    return len(_advice(context, roomy=True)) + 2 if context.run.paused else 0


def box(context: RenderContext, rows: int) -> list[Text]:
    """That the run is paused, and what can be done now."""
    paused, charset = context.run.paused, context.charset
    if paused is None:
        return []
    advice = _advice(context, roomy=context.width >= NARROW)
    if rows < len(advice) + 2:
        advice = _advice(context, roomy=False)
    title = f" Paused after read {paused.n:,} "
    if context.width < NARROW:
        return [Text(" PAUSED: any key ", "bold reverse"), *(Text(line) for line in advice)]
    if rows < len(advice) + 2:
        return [Text(f"{title.rstrip()}: any key resumes ", "bold reverse"), *(Text(f" {line}") for line in advice)]
    left, right, down, up = charset.corners
    width = min(context.width, WIDE) - 2 * MARGIN
    edge = "bold yellow"
    top = Text.assemble(context.margin, (left + charset.rule, edge), (title, "bold reverse yellow"))
    top.append(charset.rule * (width - top.cell_len + MARGIN - 1) + right, edge)
    lines = [top]
    for each in advice:
        line = Text.assemble(context.margin, (charset.upright, edge), f"  {each}")
        line.pad_right(width + MARGIN - 1 - line.cell_len)
        lines.append(line.append(charset.upright, edge))
    return [*lines, Text.assemble(context.margin, (up + charset.rule * (width - 2) + down, edge))]


def news(context: RenderContext, rows: int) -> list[Text]:
    """The last sentences, the newest at the bottom; one that does not fit whole is left out."""
    shown = list(context.history.log.recent)
    if context.run.paused and shown and shown[-1].topic == "paused":
        shown.pop()  # the box says it
    lines: list[Text] = []
    for each in reversed(shown):
        when = f"{context.history.dated(each.t)}  " if context.width >= _DATED else ""
        folded = fold(each.text, context.width - len(when) - 2 * len(context.margin))
        if lines and len(lines) + len(folded) > rows:
            break
        if len(folded) > rows:
            folded = [*folded[: rows - 1], f"{folded[rows - 1]} {context.charset.ellipsis}"]
        style = "bold red" if each.bad else "bold" if not lines else ""
        dates = [when, *[" " * len(when)] * len(folded)]
        lines[:0] = [
            Text.assemble(context.margin, (date, "dim"), (line, style))
            for date, line in zip(dates, folded, strict=False)
        ]
        if len(lines) >= rows:
            break
    return lines


def footer(context: RenderContext, _rows: int) -> list[Text]:
    """The keys that do something now."""
    run = context.run
    keys = keys_now(paused=run.paused is not None, fault=clean(run.fault, 20), fault_on=run.fault_on)
    key_style = "bold reverse" if run.paused else "bold"
    line = Text()
    for gap, told in ((3, keys), (1, keys), (1, [(key, does.split()[0]) for key, does in keys])):
        line = Text(" " if gap > 1 else "")
        for key, does in told:
            line.append(key, key_style).append(f" {does}{' ' * gap}")
        line.rstrip()
        if line.cell_len <= context.width:
            return [line]
    short = Text(" ").join(Text(key, key_style) for key, _ in keys)
    return [cut(Text.assemble("keys: ", short), context.width, context.charset.ellipsis)]
