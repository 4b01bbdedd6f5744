"""What a million of our circuits cost: memory of one, and the time to find one among many."""

from __future__ import annotations

import gc
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from benchmarks import ROOT
from benchmarks.report import say, table

SIZES: Final = (1_000, 100_000, 1_000_000)
_ASKED: Final = 20_000  # look-ups of one round
_ROUNDS: Final = 9


def uri(n: int) -> str:
    return f"https://account.blob.core.windows.net/container/blob-{n:07}"


def report(most: int) -> str:
    """A table: one line for each number of circuits up to `most`, each measured in a process of its own."""
    rows = []
    for size in sorted({*(size for size in SIZES if size < most), most}):
        command = [sys.executable, "-m", "benchmarks.overhead.circuits", str(size)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 (our own program)
        if done.returncode:
            rows.append(
                [f"{size:,}", f"failed: {(done.stderr.strip().splitlines() or ['no word'])[-1]}", "", "", "", ""]
            )
            continue
        found = json.loads(done.stdout)
        rows.append(
            [
                f"{size:,}",
                f"{found['bytes']:,.0f}",
                f"{found['made']:,.0f}",
                f"{found['known']:,.0f}",
                f"{found['other']:,.0f}",
                f"{found['dict']:,.0f}",
            ]
        )
    head = ["circuits", "bytes each", "ns to make", "ns to find", "ns to find, URI to be normalised", "ns, bare dict"]
    return f"{table(head, rows)}\nbytes: growth of the resident set, the URI as the key included"


def resident() -> int:
    """Bytes of this process in memory."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def measure(size: int) -> dict[str, float]:
    from failover.breaker.breakers import Breakers

    breakers = Breakers()
    gc.collect()
    before, began = resident(), time.thread_time_ns()
    for n in range(size):
        breakers.on(uri(n))
    made = (time.thread_time_ns() - began) / size
    gc.collect()
    grown = (resident() - before) / size
    numbers = [random.randrange(size) for _ in range(_ASKED)]
    # Strings of their own, as they come with each request: not the objects that are the keys.
    known = [uri(n) for n in numbers]
    other = [uri(n).replace("https://account", "HTTPS://Account") for n in numbers]
    plain = {uri(n): n for n in range(size)}
    return {
        "bytes": grown,
        "made": made,
        "known": _per_lookup(breakers.on, known),
        "other": _per_lookup(breakers.on, other),
        "dict": _per_lookup(plain.__getitem__, known),
    }


def _per_lookup(find: object, uris: list[str]) -> float:
    assert callable(find)  # noqa: S101 (for the type checker)
    taken = []
    for _ in range(_ROUNDS):
        began = time.thread_time_ns()
        for each in uris:
            find(each)
        taken.append((time.thread_time_ns() - began) / len(uris))
    return statistics.median(taken)


if __name__ == "__main__":
    say(json.dumps(measure(int(sys.argv[1]))))
