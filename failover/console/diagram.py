"""The circuit: its three states with the current one lit, and what is counted until the next."""

from __future__ import annotations

from rich.text import Text

from failover.console import narrator
from failover.console.charset import STATE_STYLES, gauge
from failover.console.render_context import MARGIN, NARROW, WIDE, RenderContext
from failover.demo import events as ev

_DIAGRAM = 52  # columns of the diagram


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
