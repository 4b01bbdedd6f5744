"""Signals at random moments: what they leave of the demonstration's terminal, of its next start, and of its account.

    python -m tests.faults.signals --times 100 --seed 1

One shell on one pseudo-terminal starts the program again and again, on Azurite, and each run gets a signal wherever it
happens to be: SIGKILL, SIGTERM, SIGHUP (some of these twice), or SIGTSTP and then `fg`. After each the terminal must be
as the shell had it; SIGKILL lets nobody tidy up, so that there the next run must. What is left in the account must be
found by `--clean-up`, and be gone afterwards. Prints a table, and exits with 1 where anything was wrong. POSIX only.
`test_signals.py` runs a few rounds of it.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from azure.storage.blob import BlobServiceClient

from tests.program import CONTAINER, PROGRAM, environment
from tests.servers import Account, credential, run_azurite
from tests.terminal import Terminal

KINDS: Final = (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP)
SECONDS: Final = 60.0  # for what takes two on an idle machine
STOPPED: Final = 128 + signal.SIGTSTP  # as the shell tells it


@dataclass(frozen=True, slots=True)
class Phase:
    """Where a run is when its signal comes: up to `spread` seconds after `event` is in the log (None: its start)."""

    name: str
    event: str | None
    spread: float
    options: tuple[object, ...] = ()


PHASES: Final = (
    Phase("start", None, 1.0),
    Phase("upload", "started", 0.15),
    Phase("reads", "read", 0.5),
    Phase("outage", "read", 0.5, ("--fail", "1:60", "--fault", "503")),
    Phase("hung", "read", 0.5, ("--fail", "2:60", "--fault", "timeout")),
    Phase("pause", "paused", 0.2, ("--pause-every", 5)),
    Phase("end", "finished", 0.25, ("--requests", 10)),
)


@dataclass(slots=True)
class Outcome:
    """What the rounds came to. `problems` says what was wrong, and in which round."""

    rounds: Counter[tuple[str, str]] = field(default_factory=Counter)
    codes: Counter[tuple[str, int]] = field(default_factory=Counter)
    restored: Counter[str] = field(default_factory=Counter)
    left: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)


class Rounds:
    """One shell, one terminal, one account."""

    def __init__(self, terminal: Terminal, folder: Path, account: Account, seed: int) -> None:
        self._terminal = terminal
        self._folder = folder
        self._account = account
        self._random = random.Random(seed)
        self._pid = folder / "pid"
        self._told = 0
        self._from = 0
        self.outcome = Outcome()
        terminal.watched = False  # a run that is killed leaves its screen to the shell
        terminal.until(lambda: b"$ " in terminal.sent)
        self._before = terminal.settings
        self._there = self._containers()

    def run(self, kind: signal.Signals, phase: Phase) -> None:
        """A run that gets this signal in this phase."""
        name = f"round {self.outcome.rounds.total() + 1}, {kind.name} in {phase.name}"
        self.outcome.rounds[kind.name, phase.name] += 1
        try:
            code = self._signalled(kind, phase)
        except AssertionError as error:
            self.outcome.problems.append(f"{name}: {error}")
            raise
        self.outcome.codes[kind.name, code] += 1
        allowed = {128 + kind} | ({0} if phase.name == "end" or kind is signal.SIGTSTP else set())
        if kind is signal.SIGTSTP and self._lost_by_stopping():
            allowed = {1}
        wrong = [] if code in allowed else [f"exit code {code}"]
        wrong += [] if kind is signal.SIGKILL else self._not_given_back()
        if kind is signal.SIGKILL:
            wrong += [f"at the next start: {each}" for each in self._next_start()]
        self.outcome.restored[kind.name] += not wrong
        self.outcome.problems += [f"{name}: {each}" for each in wrong]

    def _signalled(self, kind: signal.Signals, phase: Phase) -> int:
        """Start, send, and end: the exit code."""
        self._start("--requests", 0, "--rate", 100, "--pause-every", 0, "--timeout", 1, *phase.options)
        moment = self._random.uniform(0, phase.spread)
        again = self._random.uniform(0, 0.1) if self._random.random() < 0.25 and kind is not signal.SIGTSTP else None
        # A thread, since who reads the terminal comes twenty times a second, and the end is over in less.
        sender = threading.Thread(target=self._send, args=(kind, phase.event, moment, again))
        sender.start()
        self._until(lambda: not sender.is_alive())
        return self._go_on(phase) if kind is signal.SIGTSTP else self._code()

    def _go_on(self, phase: Phase) -> int:
        """A stopped run: the terminal is the shell's; then `fg`, and it is ended in its own way."""
        code = self._code()
        if code != STOPPED:  # it had ended
            return code
        wrong = self._not_given_back()
        assert not wrong, f"stopped: {wrong}"
        reads = len(self._terminal.log.all("read"))
        self._type("fg")
        if phase.name != "end":
            self._until(lambda: bool(self._terminal.log.all("paused")) or len(self._terminal.log.all("read")) > reads)
            self._terminal.press("q")
        return self._code()

    def _lost_by_stopping(self) -> bool:
        """Whether one read failed that was waiting for the secondary when the process stopped: time went on."""
        failed = [each["error"] for each in self._terminal.log.all("read") if not each["ok"]]
        return len(failed) == 1 and "no answer" in failed[0]

    def _next_start(self) -> list[str]:
        """What is wrong with a run in a terminal that a killed one left as it was."""
        self._start("--requests", 3, "--rate", 0)
        code = self._code()
        try:
            self._terminal.log.check()
        except (AssertionError, ValueError) as error:
            return [f"its log: {error!r}, {self._terminal.log.lines[-5:]}"]
        return [*([] if code == 0 else [f"exit code {code}"]), *self._not_given_back()]

    # --- the shell --------------------------------------------------------------------------------------------

    def _start(self, *options: object) -> None:
        self._terminal.log_file.unlink(missing_ok=True)
        self._pid.unlink(missing_ok=True)
        program = [sys.executable, str(PROGRAM), *map(str, options), "--log", str(self._terminal.log_file)]
        told = shlex.quote(str(self._pid))
        self._type(f"sh -c 'echo $$ >{told}.new; mv {told}.new {told}; exec \"$@\"' sh {shlex.join(program)}")
        self._until(self._pid.exists)

    def _type(self, line: str) -> None:
        """A line for the shell, which tells its exit code when it is through."""
        self._terminal.read()
        self._told, self._from = self._told + 1, len(self._terminal.sent)
        self._terminal.press(f'{line}; echo "[{self._told}:$?]"\r')

    def _code(self) -> int:
        told = re.compile(rb"\[%d:(\d+)\]\r" % self._told)
        self._until(lambda: told.search(self._terminal.sent, self._from) is not None)
        found = told.search(self._terminal.sent, self._from)
        assert found is not None
        self._until(lambda: b"$ " in self._terminal.sent[found.end() :])
        return int(found[1])

    def _send(self, kind: signal.Signals, event: str | None, moment: float, again: float | None) -> None:
        """So long after this event, and once more so long after that; for a thread."""
        log, deadline = self._terminal.log_file, time.monotonic() + SECONDS
        while event is not None and time.monotonic() < deadline:
            if log.exists() and f'"{event}"' in log.read_text(encoding="utf-8"):
                break
            time.sleep(0.002)
        for each in (moment, again):
            if each is not None:
                time.sleep(each)
                with suppress(ProcessLookupError):
                    os.kill(int(self._pid.read_text()), kind)

    def _until(self, holds: Callable[[], bool]) -> None:
        self._terminal.until(holds, SECONDS)

    def _not_given_back(self) -> list[str]:
        terminal = self._terminal
        return [
            what
            for what, wrong in (
                ("the terminal's settings are changed", terminal.settings != self._before),
                ("the alternate screen is left on", terminal.screen.alternate),
                ("the cursor is hidden", not terminal.screen.cursor_shown),
                ("a traceback", b"Traceback" in terminal.sent[self._from :]),
            )
            if wrong
        ]

    # --- the account ------------------------------------------------------------------------------------------

    def _containers(self) -> set[str]:
        with BlobServiceClient(self._account.primary_url, credential=credential(self._account)) as service:
            return {each.name for each in service.list_containers()}

    def clean_up(self) -> None:
        """What is left over has our names, and `--clean-up` removes all of it."""
        left = self._containers() - self._there
        self.outcome.left += len(left)
        self.outcome.problems += [f"left over is {each}" for each in left if not CONTAINER.fullmatch(each)]
        done = subprocess.run(
            [sys.executable, str(PROGRAM), "--clean-up", "--older-than", "0"],
            cwd=self._folder,
            env=environment(self._account),
            capture_output=True,
            text=True,
            timeout=2 * SECONDS,
            check=False,
        )
        gone = {line.partition(":")[0] for line in done.stdout.splitlines() if line.endswith(": removed.")}
        if done.returncode or not left <= gone or self._containers() & left:
            self.outcome.problems.append(f"--clean-up ended with {done.returncode}: {done.stdout}{done.stderr}")


def play(rounds: list[tuple[signal.Signals, Phase]], seed: int, folder: Path, account: Account) -> Outcome:
    """Play these rounds, then clean up. The folder is empty; what the account holds already is none of ours."""
    began = time.monotonic()
    shell = ["bash", "--norc", "--noprofile", "--noediting", "-i"]
    with Terminal(folder=folder, account=account, env={"PS1": "$ "}, command=shell) as terminal:
        played = Rounds(terminal, folder, account, seed)
        with suppress(AssertionError):  # it is told, and there is no going on in that terminal
            for each in rounds:
                played.run(*each)
    played.clean_up()
    played.outcome.seconds = time.monotonic() - began
    return played.outcome


def draw(times: int, seed: int) -> list[tuple[signal.Signals, Phase]]:
    """Each signal as often as the others, each in each phase by turns, in an order of chance."""
    rounds = [(KINDS[n % len(KINDS)], PHASES[n // len(KINDS) % len(PHASES)]) for n in range(times)]
    random.Random(seed).shuffle(rounds)
    return rounds


def table(outcome: Outcome) -> str:
    """The outcome for people."""
    lines = [f"{'signal':<8}  {'rounds':>6}  {'clean':>6}  exit codes"]
    for kind in KINDS:
        times = sum(count for (name, _), count in outcome.rounds.items() if name == kind.name)
        codes = sorted((code, count) for (name, code), count in outcome.codes.items() if name == kind.name)
        told = ", ".join(f"{code} ({count})" for code, count in codes)
        lines.append(f"{kind.name:<8}  {times:>6}  {outcome.restored[kind.name]:>6}  {told}")
    where = Counter[str]()
    for (_, phase), count in outcome.rounds.items():
        where[phase] += count
    lines.append("moments: " + ", ".join(f"{count} in {phase}" for phase, count in sorted(where.items())))
    lines.append(f"left over and removed by --clean-up: {outcome.left} containers; {outcome.seconds:.0f} s")
    return "\n".join([*lines, *(f"WRONG: {each}" for each in outcome.problems)])


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "azurite").mkdir()
        (folder / "here").mkdir()
        with run_azurite(folder / "azurite") as account:
            outcome = play(draw(options.times, options.seed), options.seed, folder / "here", account)
    print(table(outcome))
    return 1 if outcome.problems else 0


if __name__ == "__main__":
    sys.exit(main())
