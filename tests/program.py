"""The program as its user runs it: in a process of its own, told by its log, its lines and its screen."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from azure.core.exceptions import ResourceNotFoundError
from azure.storage.blob import BlobServiceClient

from tests.servers import Account, credential

PROGRAM = Path(__file__).parent.parent / "circuitbreaker.py"
CONTAINER = re.compile(r"circuitbreaker-demo-[0-9a-f]{12}")
SECONDS = 30.0  # for what takes one or two on an idle machine

# What stands in the design's example of the log, key by key in that order.
LOG_KEYS = {
    "uploaded": ["t", "event", "container", "blob", "bytes", "account"],
    "replicated": ["t", "event", "seconds", "attempts"],
    "read": ["t", "event", "n", "endpoint", "state", "ok", "ms", "attempts"],
    "paused": ["t", "event", "n"],
    "fault": ["t", "event", "kind", "on"],
    "resumed": ["t", "event", "n"],
    "retry": ["t", "event", "n", "failures", "threshold", "error"],
    "transition": ["t", "event", "n", "circuit", "from", "to", "reason"],
    "finished": ["t", "event", "reads", "primary", "secondary", "failed"],
}
_CHANGES_RUNS = re.compile(
    r"(AZURE_|FAILOVER_|(HTTPS?|ALL|NO)_PROXY$|NO_COLOR$|FORCE_COLOR$|TTY_|COLUMNS$|LINES$|TERM|REQUESTS_CA|CURL_CA)"
)


def environment(account: Account | None = None, **more: str) -> dict[str, str]:
    """This process's environment without what would change a run, and with the account's connection string."""
    kept = {name: value for name, value in os.environ.items() if not _CHANGES_RUNS.match(name.upper())}
    kept |= {"TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", "PYTHONWARNINGS": "default"}
    if account is not None:
        kept["AZURE_STORAGE_CONNECTION_STRING"] = (
            f"AccountName={account.account_name};AccountKey={account.account_key};"
            f"BlobEndpoint={account.primary_url};BlobSecondaryEndpoint={account.secondary_url}"
        )
    return kept | more


def is_gone(account: Account, container: str, **options: Any) -> bool:
    """Ask the account."""
    assert CONTAINER.fullmatch(container)
    with BlobServiceClient(account.primary_url, credential=credential(account), **options) as service:
        try:
            service.get_container_client(container).get_container_properties()
        except ResourceNotFoundError:
            return True
    return False


def wait_until(condition: Callable[[], bool], what: str, seconds: float = SECONDS) -> None:
    """Look twenty times a second. Raises AssertionError when `seconds` are over."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds:g} s: {what}"
        time.sleep(0.05)


@dataclass(frozen=True)
class Log:
    """The events of a run in order, each as it stands in the log."""

    lines: Sequence[dict[str, Any]]

    @classmethod
    def of(cls, file: Path) -> Log:
        """What is in the file so far; a line that is not at its end yet is left out."""
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        return cls([json.loads(line) for line in text.split("\n")[:-1]])

    def all(self, event: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["event"] == event]

    def one(self, event: str) -> dict[str, Any]:
        (line,) = self.all(event)
        return line

    def check(self) -> None:
        """That the log keeps the contract, whatever happened in the run."""
        assert [line["t"] for line in self.lines] == sorted(line["t"] for line in self.lines)
        for line in self.lines:
            keys = LOG_KEYS.get(line["event"])
            failed = line["event"] == "read" and not line["ok"]
            assert keys is None or list(line) == keys + ["error"] * failed
            assert not failed or (line["endpoint"] is None and line["error"])
        names = [line["event"] for line in self.lines]
        assert names[0] == "started"
        assert names[-1] == "cleaned-up"
        assert self.lines[-1]["container"] == self.one("uploaded")["container"]
        assert "error" not in self.lines[-1]
        assert names[-2] == "finished"

        reads = self.all("read")
        assert [read["n"] for read in reads] == list(range(1, len(reads) + 1))
        ends = [read["endpoint"] for read in reads]
        counts = {"primary": ends.count("primary"), "secondary": ends.count("secondary"), "failed": ends.count(None)}
        finished = self.one("finished")
        assert {name: finished[name] for name in LOG_KEYS["finished"][2:]} == {"reads": len(reads), **counts}
        self._check_transitions()

    def _check_transitions(self) -> None:
        """Each begins where the last one ended, and a read's state is where its circuit is by then."""
        states = {"primary": "closed", "secondary": "closed"}
        for line in self.lines:
            if line["event"] == "transition":
                assert line["from"] == states[line["circuit"]]
                assert (line["from"], line["to"]) in {
                    ("closed", "open"),
                    ("open", "half-open"),
                    ("half-open", "open"),
                    ("half-open", "closed"),
                    ("open", "closed"),  # by a last resort
                }
                assert line["reason"]
                states[line["circuit"]] = line["to"]
            elif line["event"] == "read":
                assert line["state"] == states["primary"]


@dataclass(frozen=True)
class Story:
    """What a run should tell, reckoned by a model of the circuit that is as simple as possible.

    reads: endpoint, state of the primary's circuit and number of attempts of each, from read 1.
    transitions: of the primary's circuit: read, from, to.
    retries: read, and in a closed circuit the count (0: of a probe).
    """

    reads: list[tuple[str, str, int]]
    transitions: list[tuple[int, str, str]]
    retries: list[tuple[int, int]]

    @classmethod
    def of(
        cls, requests: int, *failing: tuple[int, int], kind: str = "503", threshold: int = 5, aside: int = 20
    ) -> Story:
        """`failing`: first and last read of each fault. The secondary answers always.

        A time-out is not tried again within its read; what is slow is used, so its read needs no other attempt.
        """
        story = cls([], [], [])
        state, failures, left = "closed", 0, 0
        for n in range(1, requests + 1):
            bad = any(first <= n <= last for first, last in failing)
            if state == "open" and left:
                left -= 1
                story.reads.append(("secondary", "open", 1))
                continue
            probing, tries = state == "open", 0
            if probing:
                story.transitions.append((n, "open", "half-open"))
            while bad and (tries == 0 or (state == "closed" and kind in ("503", "reset", "down"))):
                tries += 1
                failures += 1
                if kind != "slow":
                    story.retries.append((n, 0 if probing else failures))
                if probing or failures == threshold:
                    story.transitions.append((n, "half-open" if probing else "closed", "open"))
                    state, failures, left = "open", 0, aside
            if not bad:
                failures = 0
                if probing:
                    story.transitions.append((n, "half-open", "closed"))
                    state = "closed"
            if bad and kind != "slow":
                again = probing and kind == "reset"  # the connection may have been stale
                story.reads.append(("secondary", state, tries + again + 1))
            else:
                story.reads.append(("primary", state, 1))
        return story

    def check(self, log: Log) -> None:
        """That the log tells this story."""
        assert [(each["endpoint"], each["state"], each["attempts"]) for each in log.all("read")] == self.reads
        assert [(each["n"], each["from"], each["to"]) for each in log.all("transition")] == self.transitions
        assert {each["circuit"] for each in log.all("transition")} <= {"primary"}
        probes = {n for n, _, new in self.transitions if new == "half-open"}
        retries = [(each["n"], 0 if each["n"] in probes else each["failures"]) for each in log.all("retry")]
        assert retries == self.retries


@dataclass(frozen=True)
class Ran:
    """A run that is over."""

    code: int
    out: str
    err: str
    log: Log


def run(folder: Path, *options: object, account: Account | None = None, env: Mapping[str, str] | None = None) -> Ran:
    """Run the program with these options in `folder`, with nothing on stdin, and its output in pipes."""
    log = folder / "run.jsonl"
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *map(str, options), "--log", str(log)],
        cwd=folder,
        env=environment(account, **(env or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        encoding="utf-8",
        timeout=2 * SECONDS,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr, Log.of(log))


def check_plain(text: str, log: Log) -> None:
    """Each line of the plain output against the same event's line in the log."""
    lines = text.splitlines()
    assert lines.pop().startswith("written     ")
    assert len(lines) == len(log.lines)
    for line, event in zip(lines, log.lines, strict=True):
        if event["event"] != "read":
            assert line.split()[0] == event["event"]
            continue
        start = f"{event['n']:>6}  {event['endpoint'] or 'neither':<9}  {event['state']:<9} "
        assert line.startswith(start)
        column = re.fullmatch(r"( *(\d+\.\d)) ms(  failed: .+)?", line[len(start) :])
        assert column
        assert len(column[1]) >= 4
        assert abs(float(column[2]) - event["ms"]) <= 0.0501  # both are rounded, the log to four decimals
        assert event["ok"] is (column[3] is None)
