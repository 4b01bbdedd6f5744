"""The circuit: its three states with the current one lit, and what is counted until the next."""

from __future__ import annotations

from rich.text import Text

from failover.console import words
from failover.console.glyphs import STATE_STYLES, gauge
from failover.console.scene import MARGIN, NARROW, WIDE, Scene
from failover.demo import events as ev

_DIAGRAM = 52  # columns of the diagram


def circuit_rows(scene: Scene) -> int:
    """How many rows are of use on a screen of this width."""
    return 2 if scene.width >= _DIAGRAM else 1


def circuit(scene: Scene, rows: int) -> list[Text]:
    """The state diagram with the current state lit, and what is counted in it."""
    told, meter = _counted(scene)
    if scene.width >= WIDE:
        lines = _diagram(scene)
        left = lines[0].cell_len + 3
        for line, right in zip(lines, (told, meter), strict=True):
            line.pad_right(left - line.cell_len)
            line.append_text(right)
        return lines
    if rows > 1:
        return [_diagram(scene)[0], Text.assemble(scene.margin, told, "  ", meter)]
    state = scene.view.state
    lit = (f"[{state.upper()}]", STATE_STYLES[state])
    if scene.width >= NARROW:
        return [Text.assemble(scene.margin, lit, " ", told)]
    short = (
        told.plain.replace("failures ", "")
        .replace(" until the probe", " left")
        .replace("the next read is the ", "next: ")
    )
    return [Text.assemble(lit, " ", (short, told.style))]


def _diagram(scene: Scene) -> list[Text]:
    glyphs = scene.glyphs
    line = Text.assemble(scene.margin, (f"{glyphs.entering} ", "dim"))
    for state, arrow in ((ev.CLOSED, glyphs.arrow), (ev.OPEN, glyphs.both_ways), (ev.HALF_OPEN, "")):
        lit = state == scene.view.state
        line.append(f"[ {state.upper()} ]" if lit else f"  {state}  ", STATE_STYLES[state] if lit else "")
        line.append(f" {arrow} " if arrow else " ", "dim")
    line.append(glyphs.rule + glyphs.corners[1], "dim")
    across = line.cell_len - MARGIN - 2
    back = Text.assemble(scene.margin, (glyphs.corners[3] + glyphs.rule * across + glyphs.corners[2], "dim"))
    return [line, back]


def _counted(scene: Scene) -> tuple[Text, Text]:
    """What leads to the next state: in words, and as a meter."""
    view, glyphs, longest = scene.view, scene.glyphs, max(4, min(32, scene.width - 50))
    if view.state == ev.CLOSED:
        if not view.threshold:
            return Text(), Text()
        some = view.failures > 0
        meter = gauge(view.failures, view.threshold, glyphs, longest)
        told = f"failures {view.failures} of {view.threshold}"
        return Text(told, "bold" if some else ""), Text(meter, "red" if some else "dim")
    if view.state == ev.HALF_OPEN:
        return Text("one read probes the primary", "bold"), Text()
    seconds = view.seconds_left(scene.now)
    if seconds is not None:
        whole = max(view.cooldown or 0.0, seconds)
        meter = gauge(round(seconds / whole * longest) if whole else 0, longest, glyphs, longest)
        told = f"{words.seconds(seconds)} until the probe"
    elif view.reads_left is not None:
        whole = max(view.reads_left, (view.settings.secondary_threshold if view.settings else None) or 0)
        meter = gauge(view.reads_left, whole, glyphs, longest)
        told = f"{words.reads(view.reads_left)} until the probe"
    else:
        return Text("the primary is left alone", "bold"), Text()
    if not (seconds or view.reads_left):
        told = "the next read is the probe"
    return Text(told, "bold"), Text(meter, "magenta")
