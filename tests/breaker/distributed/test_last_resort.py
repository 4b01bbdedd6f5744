"""Two real processes share a circuit, and one of them can reach nothing: the other one does not suffer for it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from failover.breaker import CircuitBreaker, Policy, State
from failover.breaker.stores import open_store
from tests.breaker.circuits import state, wait_for

ROOT = Path(__file__).parents[3]
SECONDS = 4.0  # of four cooldowns

CALLER = """
import json, sys, time
from failover.breaker import *
from failover.breaker.stores import open_store

url, seconds, reaches = sys.argv[1], float(sys.argv[2]), sys.argv[3] == "reaches"
opened = 0

def count(event):
    global opened
    opened += isinstance(event, Transition) and event.new is State.OPEN

policy = Policy(trip=ConsecutiveFailures(3), recovery=Cooldown(1.0))
circuit = CircuitBreaker("https://remote/", policy, store=open_store(url), listeners=[count])
print("ready", flush=True)
sys.stdin.readline()
answered = failed = 0
until = time.monotonic() + seconds
while time.monotonic() < until:
    try:
        with circuit.admit(last_resort=True):
            if not reaches:
                raise ConnectionError("no way out")
        answered += 1
    except (CircuitOpen, ConnectionError):
        failed += 1
    time.sleep(0.01)
print(json.dumps({"answered": answered, "failed": failed, "opened": opened}))
"""


def start(url: str, how: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", CALLER, url, str(SECONDS), how]
    return subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@pytest.mark.redis
def test_a_process_without_a_way_out_fails_no_call_of_a_healthy_one(store_url: Callable[[str], str]) -> None:
    url = store_url("redis")
    processes = [start(url, "reaches"), start(url, "reaches nothing")]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said: list[dict[str, Any]] = [json.loads(process.communicate(timeout=60)[0]) for process in processes]
    healthy, cut_off = said
    print(f"\nhealthy: {healthy}; cut off: {cut_off}")
    assert healthy["failed"] == 0
    assert healthy["answered"] > 100
    assert cut_off["answered"] == 0
    assert healthy["opened"] > 0, "it has heard of the other's trouble, and has closed the circuit for both"
    # And whoever is left can close it for all, whatever the two have left behind.
    store = open_store(url)
    circuit = CircuitBreaker("https://remote/", Policy(), store=store)

    def closed_for_all() -> bool:
        circuit.admit(last_resort=True).succeeded()
        return b"closed" in store.read([circuit.name])[circuit.name].body

    wait_for(closed_for_all)


@pytest.mark.redis
def test_the_success_of_a_last_resort_closes_the_circuit_in_every_process(store_url: Callable[[str], str]) -> None:
    url = store_url("redis")
    here = CircuitBreaker("remote", Policy(), store=open_store(url))
    there = CircuitBreaker("remote", Policy(), store=open_store(url.replace("127.0.0.1", "localhost")))
    for _ in range(10):
        there.trip()
        wait_for(lambda: state(here) is State.OPEN)
        here.admit(last_resort=True).succeeded()
        assert state(here) is State.CLOSED
        wait_for(lambda: state(there) is State.CLOSED)
