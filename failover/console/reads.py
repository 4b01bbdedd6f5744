"""The reads so far: a strip of one cell each, the time that the last ones took, and their counts."""

from __future__ import annotations

from dataclasses import dataclass

from rich.text import Text

from failover.console.render_context import ALARM, CELL_STYLES, ENDLESS, MARGIN, NARROW, RenderContext, columns, runs
from failover.console.run_state import Cell
from failover.console.wording import clean, milliseconds

_LABEL = 6  # columns of a row's number
_TEN = 10  # cells; rows are a multiple of it where that is possible
_UNBOUNDED = 1 << 60  # reads
_SHORT = {
    Cell.PRIMARY: "primary",
    Cell.SECONDARY: "secondary",
    Cell.HEDGED: "hedged",
    Cell.TRIED: "after a try",
    Cell.FAILED: "failed",
}
_BARE = {cell: style.removeprefix("bold ") for cell, style in CELL_STYLES.items()}


@dataclass(frozen=True, slots=True)
class _Rows:
    """How the reads are laid out: each round begins a row, and its rows are about equally long."""

    label: int  # columns of a row's number and the gap after it
    width: int  # cells in a row
    every: int  # reads in a round

    @classmethod
    def of(cls, context: RenderContext) -> _Rows:
        run = context.run
        label = 0 if context.width < NARROW else max(_LABEL, len(str(run.reads))) + 2
        room = max(1, context.width - label - (MARGIN if label else 0))
        tens = room // _TEN * _TEN or room
        every = run.settings.pause_every if run.settings else 0
        if not every:
            return cls(label, tens, tens)
        even = -(-every // -(-every // room))
        return cls(label, min(room, -(-even // _TEN) * _TEN), every)

    @property
    def in_round(self) -> int:
        return -(-self.every // self.width)

    def of_read(self, n: int) -> int:
        """The row (from 0) of read n (from 1)."""
        whole, rest = divmod(n - 1, self.every)
        return whole * self.in_round + rest // self.width

    def first(self, row: int) -> int:
        """The first read of a row."""
        whole, rest = divmod(row, self.in_round)
        return whole * self.every + rest * self.width + 1


def strip_rows(context: RenderContext) -> int:
    """How many rows all reads of the run take."""
    total = context.run.settings.requests if context.run.settings else 1
    return _Rows.of(context).of_read(total) + 1 if total else ENDLESS


def strip(context: RenderContext, rows: int) -> list[Text]:
    """One cell for each read, and a faint one for each to come; the newest row is always among them."""
    history, layout = context.history, _Rows.of(context)
    done = list(history.cells)
    oldest = history.reads - len(done) + 1
    total = (history.settings.requests if history.settings else 0) or _UNBOUNDED
    looks: dict[Cell | None, tuple[str, str]] = {
        cell: (context.charset.cells[cell], CELL_STYLES[cell]) for cell in Cell
    }
    looks[None] = (context.charset.unread, "dim")
    top = max(0, layout.of_read(max(1, history.reads)) - rows + 1)
    lines = []
    for row in range(top, top + rows):
        start, end = layout.first(row), min(layout.first(row + 1), total + 1)
        line = Text()
        if layout.label:
            begun = start <= max(1, history.reads) and row % layout.in_round == 0
            line.append(f"{start:>{layout.label - 2}}  ", "" if begun else "dim")
        shown = [done[n - oldest] if oldest <= n <= history.reads else None for n in range(start, end)]
        lines.append(line.append_text(runs(looks[cell] for cell in shown)))
    return lines


def legend(context: RenderContext, _rows: int) -> list[Text]:
    """What the cells mean."""
    line = Text()
    cells = context.run.cells()
    for gap, names in ((2, {each: each.value for each in cells}), (1, _SHORT)):
        line = Text(" " * _Rows.of(context).label)
        for cell in cells:
            line.append(context.charset.cells[cell], CELL_STYLES[cell]).append(f" {names[cell]}{' ' * gap}", "dim")
        line.rstrip()
        if line.cell_len <= context.width:
            break
    return [line]


def latency(context: RenderContext, rows: int) -> list[Text]:
    """The last reads' milliseconds as columns, and how those of the last thousand are spread."""
    history, label = context.history, _Rows.of(context).label
    half, most = history.quantile(0.5), history.quantile(0.99)
    if half is None or most is None:
        return []
    beside = f"p50 {milliseconds(half)}  p99 {milliseconds(most)}"
    room = context.width - label - len(beside) - 2 - MARGIN
    if room < _TEN:
        return [Text.assemble(" " * label, ("ms  ", "dim"), beside)]
    room = room // _TEN * _TEN
    values = list(history.latencies)[-room:]
    top = max([4 * half, *(ms for ms, _ in values)])  # a healthy run stays low, and what is slow stands out
    lines = []
    for row, chart in enumerate(columns([(ms, _BARE[cell]) for ms, cell in values], top, rows, context.charset)):
        head = "ms" if row == rows - 1 else milliseconds(top) if row == 0 else ""
        line = Text.assemble((f"{head:>{label - 2}}  ", "dim"), chart)
        if row == rows - 1:
            line.pad_right(label + room + 2 - line.cell_len)
            line.append(beside)
        lines.append(line)
    return lines


def counts(context: RenderContext, _rows: int) -> list[Text]:
    """How many reads each endpoint answered, and who fails the primary: our own fault, or somebody else."""
    history, run = context.history, context.run
    kind = clean(run.fault, 20)
    hedges = run.settings is not None and run.settings.hedge is not None
    told = {"primary": history.primary, "secondary": history.secondary}
    told |= {"hedged": history.hedged} if hedges else {"retries": history.retries}
    told["failed"] = history.failed
    own = Text(f" own fault {kind} is ON ", ALARM) if run.fault_on else Text(f" own fault {kind} is off ", "dim")
    outside = Text(" failed from outside ", ALARM)
    badges = [own]
    if run.outside:
        badges = [Text.assemble(own, " ", outside), own if run.fault_on else outside]
    few = [name for name in told if name not in ("retries", "hedged")]
    for gap, names in ((4, list(told)), (2, list(told)), (1, list(told)), (1, few)):
        line = Text(context.margin)
        for name in names:
            style = "bold red" if name == "failed" and told[name] else "bold"
            line.append(f"{name} ").append(f"{told[name]:,}", style).append(" " * gap)
        line.rstrip()
        for badge in badges:
            if line.cell_len + badge.cell_len + 2 <= context.width:
                line.pad_right(context.width - line.cell_len - badge.cell_len - 1)
                return [line.append_text(badge)]
    alarm = "outside" if run.outside else f"{kind} ON" if run.fault_on else ""
    line = Text.assemble(context.margin, (alarm, ALARM), " " if alarm else "")
    return [line.append(" ".join(f"{name[0]}{count}" for name, count in told.items()))]
