"""What a seed stands for: an account, its faults, and the calls made of it, all drawn from one generator."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, Literal

from tests.never_worse.world import PRIMARY, SECONDARY, Fault

BLOCK: Final = 1024
"""Bytes that one request of a download, or of an upload, carries at most."""
PAGE: Final = 4
"""Blobs on a page of a listing."""
CALLS: Final = 25
NODES: Final = 2

Form = Literal["alone", "together", "fleet"]
"""One call after the other; several at once by one client; several at once by clients that share their circuits."""
FORMS: Final[tuple[Form, ...]] = ("alone", "together", "fleet")

_BOTH: Final = frozenset({PRIMARY, SECONDARY})
_P: Final = frozenset({PRIMARY})
_S: Final = frozenset({SECONDARY})

_KINDS: Final = {
    "refuse": 3, "dns": 1, "reset": 3, "connect-hang": 2, "hang": 3, "truncated": 2, "body-reset": 2,
    "body-hang": 1, "body-stall": 1,
    "503": 4, "500": 2, "500-timed-out": 1, "502": 1, "504": 1, "408": 1, "429": 2, "501": 0.2,
}  # fmt: skip
_NETWORK: Final = {"refuse": 2, "dns": 2, "connect-hang": 3, "hang": 2, "reset": 1}
_WHEN_SHARED: Final = {"503": 6, "500": 2, "reset": 2, "truncated": 2, "429": 1, "body-reset": 1, "hang": 0.5}


@dataclass(frozen=True)
class Call:
    """One call of the client's.

    at: seconds; the call starts then, or when the round before has ended. node: who makes it.
    """

    at: float
    kind: str
    name: str = ""
    data: bytes = b""
    first: int = 0
    length: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    node: int = 0

    @property
    def changes(self) -> bool:
        """Whether it is a write."""
        return self.kind in ("upload", "overwrite", "create", "delete")

    def __str__(self) -> str:
        part = f"[{self.first}:{'' if self.length is None else self.first + self.length}]" if self.length else ""
        size = f" {len(self.data)} bytes" if self.data else ""
        node = f" by node {self.node}" if self.node else ""
        return f"{self.kind} {self.name}{part}{size} {dict(self.options) or ''}{node}".rstrip()


@dataclass(frozen=True)
class Schedule:
    """An account, its faults and its calls, in rounds: the calls of one round are made at once.

    nodes: clients that share circuits, as those of several processes would, where there are several.
    """

    seed: int
    form: Form
    url: str
    hosts: Mapping[str, str]
    lag: float
    blobs: Mapping[str, bytes]
    faults: tuple[Fault, ...]
    rounds: tuple[tuple[Call, ...], ...]
    nodes: int = 1

    def lines(self) -> list[str]:
        """For people."""
        return [f"seed {self.seed}: {self.url}, the secondary is {self.lag:g} s behind", *map(str, self.faults)]


def _pick(rng: random.Random, weights: Mapping[str, float]) -> str:
    return rng.choices(list(weights), list(weights.values()))[0]


def make(seed: int, form: Form = "alone") -> Schedule:
    """The schedule of a seed."""
    rng = random.Random(f"{form} {seed}")
    # Without a secondary that can be read: of an account with local redundancy its name does not resolve.
    account = _pick(rng, {"ra-grs": 14, "lrs": 2, "refuses": 1, "firewall": 2, "drops": 1, "unknown": 2})
    url, primary = "https://account.blob.core.windows.net", "account.blob.core.windows.net"
    hosts = {primary: PRIMARY, "account-secondary.blob.core.windows.net": SECONDARY}
    if account == "unknown":
        url, hosts = "https://files.example.com", {"files.example.com": PRIMARY}
    always = {"lrs": "dns", "refuses": "refuse", "firewall": "403", "drops": "connect-hang"}.get(account)
    blobs = {
        f"{kind}{n}": rng.randbytes(size)
        for kind, low, high in (("small", 1, BLOCK), ("large", 2 * BLOCK, 5 * BLOCK))
        for n in range(5)
        for size in (rng.randint(low, high),)
    }
    faults = _cuts(rng) if form == "fleet" else _faults(rng)
    calls = _calls(rng, CALLS, faults, list(blobs))
    rounds = [(call,) for call in calls] if form == "alone" else [_at_once(rng, call, form, calls) for call in calls]
    if always:
        faults.append(Fault(-1e9, 1e9, _S, always))
    return Schedule(
        seed,
        form,
        url,
        hosts,
        rng.choice((0.0, 2.0, 30.0, 900.0)),
        blobs,
        tuple(faults),
        tuple(rounds),
        nodes=NODES if form == "fleet" else 1,
    )


def _at_once(rng: random.Random, call: Call, form: Form, calls: list[Call]) -> tuple[Call, ...]:
    """A read and some others, by each node; a write alone."""
    if call.changes:
        return (call,)
    known = [each for each in calls if each.at <= call.at and not each.changes]
    others = rng.choices(known, k=rng.randint(1, 7))
    late = rng.choice((0.0, 0.0, 0.1, 3.0))
    ready = [call, *(replace(each, at=call.at + rng.uniform(0, late)) for each in others)]
    if form == "fleet":
        ready = [replace(each, node=n % NODES) for n, each in enumerate(ready)]
    return tuple(ready)


def _cuts(rng: random.Random) -> list[Fault]:
    """A node loses its network for a while, again and again; now and then the primary is out too."""
    faults: list[Fault] = []
    at = rng.uniform(2, 20)
    for _ in range(rng.randint(2, 5)):
        length = rng.choice((20.0, rng.uniform(1, 90)))
        faults.append(Fault(at, at + length, _BOTH, _pick(rng, _NETWORK), node=NODES - 1))
        if rng.random() < 0.25:
            start = at + rng.uniform(-10, length)
            faults.append(Fault(start, start + rng.uniform(1, 60), _P, _pick(rng, _KINDS)))
        at += length + rng.uniform(5, 100)
    return faults


def _faults(rng: random.Random) -> list[Fault]:
    faults: list[Fault] = []
    at = rng.uniform(2, 20)
    for _ in range(rng.randint(2, 6)):
        what = _pick(rng, {"blip": 5, "outage": 5, "both": 4, "secondary": 2, "shared": 3, "stall": 1.5, "slow": 1.5})
        if what == "blip":
            length = rng.uniform(0.1, 3.0)
            faults.append(Fault(at, at + length, _P, _pick(rng, _KINDS)))
        elif what == "outage":
            length = rng.choice((rng.uniform(10, 60), rng.uniform(10, 400)))
            faults.append(Fault(at, at + length, _P, _pick(rng, _KINDS)))
            if rng.random() < 0.2:  # and a little of the other
                start = at + rng.uniform(0, length)
                faults.append(Fault(start, start + rng.uniform(0.1, 5), _S, _pick(rng, _KINDS)))
        elif what == "both":
            length = rng.choice((rng.uniform(0.1, 5), rng.uniform(5, 60), rng.uniform(30, 200)))
            kind = _pick(rng, _NETWORK if rng.random() < 0.7 else _KINDS)
            faults.append(Fault(at, at + length, _BOTH, kind))
        elif what == "secondary":
            length = rng.uniform(1, 200)
            faults.append(Fault(at, at + length, _S, _pick(rng, _KINDS)))
        elif what == "shared":
            length = rng.uniform(30, 300)
            where = rng.choice((_P, _P, _BOTH))
            faults.append(Fault(at, at + length, where, _pick(rng, _WHEN_SHARED), share=0.2))
        elif what == "stall":
            length = rng.uniform(2, 50)
            faults.append(Fault(at, at + length, rng.choice((_P, _BOTH)), "stall"))
        else:
            length = rng.uniform(10, 100)
            faults.append(Fault(at, at + length, rng.choice((_P, _BOTH)), "slow", seconds=rng.uniform(0.3, 30)))
        at += length + rng.choice((rng.uniform(0.5, 20), rng.uniform(20, 200)))
    return faults


def _calls(rng: random.Random, count: int, faults: list[Fault], names: list[str]) -> list[Call]:
    calls: list[Call] = []
    at = 0.0
    names, fresh = list(names), 0
    starts = sorted(each.start for each in faults if each.start > 0)
    for _ in range(count):
        gap = rng.choices((rng.uniform(0, 0.5), rng.uniform(1, 5), rng.uniform(10, 60)), (6, 2.5, 1.5))[0]
        later = [start for start in starts if start > at]
        if later and rng.random() < 0.15:
            at = max(at, later[0] + rng.uniform(-0.5, 1.0))
        else:
            at += gap
        options: dict[str, Any] = {}
        if rng.random() < 0.15:
            options = dict(
                [
                    rng.choice(
                        (
                            ("timeout", rng.choice((5, 30))),
                            ("retry_total", 0),
                            ("retry_total", 1),
                            ("read_timeout", rng.choice((2, 10))),
                            ("connection_timeout", rng.choice((1, 3))),
                        )
                    )
                ]
            )
        kind = _pick(
            rng,
            {
                "download": 8, "range": 3, "chunks": 2, "properties": 4, "exists": 2, "list": 2, "checked": 1,
                "upload": 2, "upload-large": 0.7, "overwrite": 1.5, "create": 0.5, "delete": 0.7, "missing": 0.7,
            },
        )  # fmt: skip
        if kind in ("upload", "upload-large"):
            fresh += 1
            name = f"fresh{fresh}"
            names.append(name)
            data = rng.randbytes(rng.randint(1, BLOCK) if kind == "upload" else rng.randint(2 * BLOCK, 4 * BLOCK))
            calls.append(Call(at, "upload", name, data, options=options))
            continue
        # Often the newest, which the secondary may not have.
        name = names[-1] if rng.random() < 0.25 else rng.choice(names)
        if kind == "range":
            first = rng.randint(0, 3 * BLOCK)
            calls.append(Call(at, kind, name, first=first, length=rng.randint(1, 3 * BLOCK), options=options))
        elif kind in ("overwrite", "create"):
            calls.append(Call(at, kind, name, rng.randbytes(rng.randint(1, 3 * BLOCK)), options=options))
        elif kind == "list":
            calls.append(Call(at, kind, options=options))
        elif kind == "missing":
            calls.append(Call(at, rng.choice(("download", "exists", "properties")), "nowhere", options=options))
        else:
            calls.append(Call(at, kind, name, options=options))
    return calls
