"""A few rounds of `signals.py`: the terminal, the next start and the account after signals at random moments."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("pseudo-terminals and these signals are POSIX", allow_module_level=True)

from tests.faults.signals import PHASES, draw, play, table
from tests.servers import Azurite

ROUNDS = (
    (signal.SIGKILL, "reads"),
    (signal.SIGTERM, "outage"),
    (signal.SIGTSTP, "pause"),
    (signal.SIGHUP, "hung"),
    (signal.SIGTSTP, "end"),
    (signal.SIGTERM, "start"),
)


@pytest.mark.program
@pytest.mark.timeout(400)
def test_a_few_rounds(azurite: Azurite, tmp_path: Path) -> None:
    phases = {each.name: each for each in PHASES}
    outcome = play([(kind, phases[name]) for kind, name in ROUNDS], 1, tmp_path, azurite)
    assert not outcome.problems, table(outcome)
    assert outcome.rounds.total() == len(ROUNDS)
    assert outcome.left >= 1  # what was killed among its reads


def test_each_signal_comes_as_often_and_everywhere() -> None:
    rounds = draw(112, 7)
    assert sorted(rounds, key=str) == sorted(draw(112, 8), key=str)
    assert {(kind.name, phase.name): rounds.count((kind, phase)) for kind, phase in rounds} == dict.fromkeys(
        (
            (kind.name, phase.name)
            for kind in (signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP)
            for phase in PHASES
        ),
        4,
    )
