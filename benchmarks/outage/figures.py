"""What was read when and from where through an outage, and the figures that come of it."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Reading:
    """One read, in seconds since the fault began. end: inf where it was still under way when the run ended.

    endpoint: which one answered; None: the read failed.
    """

    start: float
    end: float
    endpoint: str | None

    @property
    def seconds(self) -> float:
        return self.end - self.start


@dataclass
class Series:
    """All reads of one configuration under one kind of fault.

    hits: when the primary was asked. probes: how often its circuit probed during the outage, None without a circuit.
    """

    kind: str
    configuration: str
    readings: list[Reading] = field(default_factory=list)
    hits: list[float] = field(default_factory=list)
    probes: int | None = None


@dataclass
class Run:
    """A whole run. outage: seconds that the fault lasted. about: the machine and the settings, for the report."""

    outage: float
    series: list[Series]
    threshold: int
    about: dict[str, Any] = field(default_factory=dict)

    def of(self, kind: str, configuration: str) -> Series:
        return next(each for each in self.series if (each.kind, each.configuration) == (kind, configuration))

    def has(self, kind: str) -> bool:
        return any(each.kind == kind for each in self.series)

    def save(self, file: Path) -> None:
        rounded: Any = json.loads(json.dumps(asdict(self)), parse_float=lambda text: round(float(text), 5))
        file.write_text(json.dumps(rounded, separators=(",", ":")), encoding="utf-8")

    @classmethod
    def load(cls, file: Path) -> Run:
        told = json.loads(file.read_text(encoding="utf-8"))
        series = [
            Series(**{**each, "readings": [Reading(**reading) for reading in each["readings"]]})
            for each in told.pop("series")
        ]
        return cls(series=series, **told)


@dataclass(frozen=True)
class Cost:
    """What an outage cost one configuration. Seconds; inf: not within the run.

    reads: that began and ended during the outage. at_least: there is none, and the figures are the time that the
    read under way had taken by then.
    """

    reads: int
    median: float
    p99: float
    worst: float
    failed: int
    hits: int
    back: float
    at_least: bool = False


def cost(series: Series, outage: float) -> Cost:
    """The figures of one configuration."""
    during = [each for each in series.readings if each.start >= 0 and each.end <= outage]
    hits = sum(0 <= at <= outage for at in series.hits)
    back = [each.end - outage for each in series.readings if each.end > outage and each.endpoint == "primary"]
    first_back = min(back, default=math.inf)
    took = sorted(each.seconds for each in during)
    if not took:
        waiting = [outage - each.start for each in series.readings if 0 <= each.start < outage < each.end]
        longest = max(waiting, default=math.nan)
        return Cost(0, longest, longest, longest, 0, hits, first_back, at_least=True)
    failed = sum(each.endpoint is None for each in during)
    return Cost(len(took), statistics.median(took), quantile(took, 0.99), took[-1], failed, hits, first_back)


def quantile(ordered: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of all does not exceed."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
