"""The checks, each tried on each library in a process of its own, and the table of what came out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor

from benchmarks import ROOT
from benchmarks.correctness.rows import ROWS, judge
from benchmarks.libraries.adapters import LIBRARIES, about
from benchmarks.libraries.library import Library, version_of
from benchmarks.report import say, table


def cell(row: str, library: Library, limit: float) -> tuple[str, str]:
    """One check of one library, in a process of its own, so that nothing of it can hang or spoil another."""
    if version_of(library) is None:
        return "-", "not installed"
    command = [sys.executable, "-m", "benchmarks.correctness", "--cell", row, library.package]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=limit, check=False)  # noqa: S603 (our own program)
    except subprocess.TimeoutExpired:
        return "no", f"no end within {limit:g} s"
    try:
        answer, reason = json.loads(done.stdout)
    except ValueError:
        return "no", f"ended with {done.returncode}: {(done.stderr.strip().splitlines() or ['nothing'])[-1]}"
    return answer, reason


def one_cell(row: str, package: str) -> None:
    """The other side of `cell`: prints the answer and ends at once, whatever a library has left running."""
    warnings.simplefilter("ignore")  # of deprecated calls in the libraries
    put_up = ROWS[row].put_up
    if put_up is not None:
        put_up()
    library = next(each for each in LIBRARIES if each.package == package)
    say(json.dumps(judge(ROWS[row], library)))
    os._exit(0)


def report(rows: list[str], *, verbose: bool, limit: float, workers: int) -> bool:
    """Print the table; True if each row holds for ours."""
    places = [(row, library) for row in rows for library in LIBRARIES]
    with ThreadPoolExecutor(workers) as pool:
        answers = dict(
            zip(  # noqa: B905 (of one length by definition)
                [(row, library.package) for row, library in places],
                pool.map(lambda place: cell(place[0], place[1], limit), places),
            )
        )
    say(about())
    say()
    packages = [library.package for library in LIBRARIES]
    body = [[ROWS[row].text, *(answers[row, package][0] for package in packages)] for row in rows]
    totals = [
        f"{sum(answers[row, package][0] == 'yes' for row in rows)} of {len(rows)}"
        if any(answers[row, package][0] != "-" for row in rows)
        else "-"
        for package in packages
    ]
    say(table(["what must hold", *packages], [*body, ["yes", *totals]]))
    say()
    say("n/a: cannot be expressed in that library, see below.  -: not installed, so not measured.  Reasons: --verbose")
    say()
    say(table(["n/a", "why"], _why_not(answers)))
    if verbose:
        say()
        for row, package in answers:
            answer, reason = answers[row, package]
            if reason:
                say(f"{row:20} {package:17} {answer:4} {reason}")
    return all(answers[row, packages[0]][0] == "yes" for row in rows)


def _why_not(answers: dict[tuple[str, str], tuple[str, str]]) -> list[list[str]]:
    """Which cells are n/a, one line for each row and reason."""
    found: dict[tuple[str, str], list[str]] = {}
    for (row, package), (answer, reason) in answers.items():
        if answer == "n/a":
            found.setdefault((row, reason), []).append(package)
    return [[f"{row}: {', '.join(packages)}", reason] for (row, reason), packages in found.items()]
