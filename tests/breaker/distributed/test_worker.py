"""Sharing with real threads, servers and processes: nothing waits or hangs, and a fork is a process of its own."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import pytest

from failover.breaker import CircuitBreaker, CircuitOpen, ConsecutiveFailures, Cooldown, Policy, State
from failover.breaker.distributed.worker import worker_of
from failover.breaker.stores import Store, StoredRecord, open_store
from failover.breaker.stores.memory import MemoryStore
from tests.breaker.circuits import state, wait_for
from tests.breaker.conftest import KINDS, another_way
from tests.breaker.distributed.fleet import boom
from tests.breaker.stores.fronts import silent_server
from tests.redis_server import free_port, run_redis

ROOT = Path(__file__).parents[3]
POLICY = Policy(trip=ConsecutiveFailures(2), recovery=Cooldown(0.3), probe_lease=2.0)


def two_ways(url: str) -> list[Store]:
    """To the same records, as two processes have them; only memory is one."""
    first = open_store(url)
    ways = [first, first if isinstance(first, MemoryStore) else another_way(url)]
    for store in ways:
        store.refresh = 0.1
    return ways


@pytest.mark.parametrize("kind", KINDS)
def test_a_circuit_that_joins_when_a_look_is_due_hears_of_an_old_record(
    kind: str, store_url: Callable[[str], str]
) -> None:
    one, other = two_ways(store_url(kind))
    other.refresh = 0.0  # a look is always due
    CircuitBreaker("old", store=one).isolate()
    shared = CircuitBreaker("shared", store=one)
    looking = CircuitBreaker("shared", store=other)
    for change, expected in ((shared.isolate, State.OPEN), (shared.reset, State.CLOSED)):
        change()
        wait_for(lambda expected=expected: state(looking) is expected)  # type: ignore[misc]
    late = CircuitBreaker("old", store=other)
    wait_for(lambda: late.snapshot()["isolated"])


@pytest.mark.parametrize("kind", KINDS)
def test_a_trip_a_probe_and_a_recovery_over_each_store(kind: str, store_url: Callable[[str], str]) -> None:
    stores = two_ways(store_url(kind))
    a, b = (CircuitBreaker("https://x/y", POLICY, store=store) for store in stores)
    for _ in range(2):
        with pytest.raises(OSError, match="down"):
            a.call(boom)
    wait_for(lambda: state(b) is State.OPEN)
    time.sleep(0.3)
    probes = []

    def answered() -> bool:
        for circuit in (a, b):
            try:
                permit = circuit.admit()
            except CircuitOpen:
                continue
            probes.append(permit)
        return bool(probes)

    wait_for(answered)
    assert len(probes) == 1
    assert probes[0].is_probe
    probes[0].succeeded()
    wait_for(lambda: [a.state, b.state] == [State.CLOSED, State.CLOSED])


# --- nothing waits --------------------------------------------------------------------------------------------


class Slow(MemoryStore):
    """Answers after `seconds`, on whichever thread asks."""

    is_local = False
    seconds = 0.4

    def read(self, names: Iterable[str]) -> dict[str, StoredRecord]:
        time.sleep(self.seconds)
        return super().read(names)

    def compare_and_set(self, name: str, body: bytes, expected: str | None, ttl: float | None = None) -> str | None:
        time.sleep(self.seconds)
        return super().compare_and_set(name, body, expected, ttl)


def test_a_slow_store_delays_no_call() -> None:
    circuit = CircuitBreaker("remote", POLICY, store=Slow())
    longest = 0.0
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        started = time.perf_counter()
        with suppress(OSError, CircuitOpen):
            circuit.call(boom)
        longest = max(longest, time.perf_counter() - started)
        time.sleep(0.001)
    assert longest < 0.1


def test_a_slow_store_holds_up_no_event_loop() -> None:
    circuit = CircuitBreaker("remote", POLICY, store=Slow())
    gaps = []

    async def fail() -> None:
        raise OSError("down")

    async def main() -> None:
        last = time.perf_counter()
        until = last + 1.0
        while last < until:
            with suppress(OSError, CircuitOpen):
                await circuit.acall(fail)
            await asyncio.sleep(0.001)
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    asyncio.run(main())
    assert max(gaps) < 0.15


def test_a_claim_without_an_answer_is_decided_here_after_a_second() -> None:
    store = Slow()
    store.seconds = 0.0
    circuit = CircuitBreaker("remote", POLICY, store=store)
    circuit.trip()
    wait_for(lambda: MemoryStore.read(store, ["remote"]))
    store.seconds = 5.0
    time.sleep(0.35)
    started = time.monotonic()
    wait_for(lambda: admitted(circuit), 3.0)
    assert 0.9 < time.monotonic() - started < 1.5
    store.seconds = 0.0


def admitted(circuit: CircuitBreaker, *, succeeds: bool = False) -> bool:
    try:
        permit = circuit.admit()
    except CircuitOpen:
        return False
    if succeeds:
        permit.succeeded()
    return True


def test_a_process_that_calls_less_often_than_its_lease_probes_in_the_end() -> None:
    store = Slow()
    store.seconds, store.refresh = 0.0, 0.1
    circuit = CircuitBreaker("remote", Policy(recovery=Cooldown(0.1), probe_lease=0.2), store=store)
    circuit.trip()
    outcomes = []
    for _ in range(3):
        time.sleep(0.4)
        outcomes.append(admitted(circuit, succeeds=True))
    assert outcomes == [False, True, True]
    assert state(circuit) is State.CLOSED
    wait_for(lambda: b"closed" in MemoryStore.read(store, ["remote"])["remote"].body)


@pytest.mark.parametrize("how", ["refuses", "says nothing"])
def test_an_unreachable_redis_delays_no_call_and_no_construction(how: str, caplog: pytest.LogCaptureFixture) -> None:
    with silent_server() as silent:
        started = time.monotonic()
        store = open_store(f"redis://:hunter2@127.0.0.1:{silent if how == 'says nothing' else free_port()}/0")
        circuit = CircuitBreaker("remote", POLICY, store=store)
        for _ in range(2):
            with pytest.raises(OSError, match="down"):
                circuit.call(boom)
        assert time.monotonic() - started < 0.5
        wait_for(lambda: "decide locally" in caplog.text)
        wait_for(lambda: admitted(circuit, succeeds=True), 2.0)  # the cooldown is over, and it probes alone
        assert state(circuit) is State.CLOSED
    assert "hunter2" not in caplog.text


@pytest.mark.redis
def test_a_redis_that_goes_and_comes_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    with run_redis(tmp_path) as server:
        stores = two_ways(f"{server.url}?prefix=back:")
        a, b = (CircuitBreaker("remote", POLICY, store=store) for store in stores)
        a.isolate()
        wait_for(lambda: state(b) is State.OPEN)
        server.stop()
        wait_for(lambda: caplog.text.count("decide locally") == 2)
        assert [state(a), state(b)] == [State.OPEN, State.OPEN]
        server.start()  # and has forgotten all
        wait_for(lambda: caplog.text.count("is back") == 2)
        late = CircuitBreaker("remote", POLICY, store=stores[0])
        wait_for(lambda: state(late) is State.OPEN)
        late.reset()
        wait_for(lambda: {state(each) for each in (a, b, late)} == {State.CLOSED})
        assert caplog.text.count("decide locally") == 2
        wait_for(lambda: worker_of(stores[0]).broken is False)


# --- fork and exit --------------------------------------------------------------------------------------------

FORK = """
import os, sys, time
from failover.breaker import *
from failover.breaker.stores import open_store
store = open_store(sys.argv[1])
circuit = CircuitBreaker("remote", Policy(recovery=Cooldown(60.0)), store=store)
other = CircuitBreaker("other", store=store)
other.isolate()
time.sleep(0.5)
children = []
def until(condition):
    end = time.monotonic() + 8
    while not condition():
        if time.monotonic() > end:
            os._exit(3)
        time.sleep(0.01)
for number in range(3):
    pid = os.fork()
    if pid == 0:
        until(lambda: other.state is State.OPEN)
        if number == 0:
            circuit.trip()
            time.sleep(1.0)
        until(lambda: circuit.state is State.OPEN)
        os._exit(0)
    children.append(pid)
until(lambda: circuit.state is State.OPEN)
codes = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
print(codes)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("kind", KINDS[1::2])
def test_children_of_a_fork_share_as_processes_of_their_own(kind: str, store_url: Callable[[str], str]) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", FORK, store_url(kind)],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("[0, 0, 0]\n", "")


REAL = [
    pytest.param("redis", 0.0, marks=pytest.mark.redis),
    pytest.param("redis", 0.5, marks=pytest.mark.redis),
    pytest.param("blob", 0.0, marks=pytest.mark.azurite),
    pytest.param("table", 0.0, marks=pytest.mark.azurite),
]
EXIT = """
import sys, logging
logging.basicConfig(level=logging.CRITICAL)
from failover.breaker import *
from failover.breaker.stores import open_store
circuits = [CircuitBreaker(str(number), store=open_store(sys.argv[1])) for number in range(8)]
import time
time.sleep(float(sys.argv[2]))
for circuit in circuits:
    circuit.isolate()
"""


@pytest.mark.parametrize(
    ("kind", "pause"), [*((kind, 0.0) for kind in ("memory", "refuses", "says nothing")), ("says nothing", 0.5), *REAL]
)
def test_a_process_ends_at_once_whatever_its_store_does(
    kind: str, pause: float, store_url: Callable[[str], str]
) -> None:
    with silent_server() as silent:
        ports = {"refuses": free_port(), "says nothing": silent}
        url = f"redis://127.0.0.1:{ports[kind]}/0" if kind in ports else store_url(kind)
        run = [sys.executable, "-c", EXIT, url, str(pause)]
        process = subprocess.Popen(run, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert process.communicate(timeout=15) == ("", "")
        assert process.returncode == 0
    if kind in ("redis", "blob", "table"):
        held = open_store(url).read([str(number) for number in range(8)])
        assert len(held) == 8, "what was decided last is published before the end"


def test_a_process_that_ends_waits_a_moment_for_its_store_and_no_longer() -> None:
    store = Slow()
    store.seconds = 30.0
    circuit = CircuitBreaker("remote", POLICY, store=store)
    circuit.trip()
    started = time.monotonic()
    worker_of(store).stop()
    assert time.monotonic() - started < 2.0
    assert threading.active_count() > 0
