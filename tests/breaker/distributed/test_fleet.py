"""Eight real processes share one circuit over real stores, against a remote that counts its hits."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from benchmarks.fleet.clients import Case, simulate
from benchmarks.fleet.remote import Recovery
from tests.breaker.circuits import wait_for
from tests.breaker.conftest import KINDS
from tests.breaker.distributed.fleet_worker import PAUSE, THRESHOLD, Job, work

AZURE = ["failover.breaker.stores.blob", "failover.breaker.stores.table"]
# A process that has imported all that the workers need, and forks them from itself: eight imports take too long.
FORKS = "forkserver" in multiprocessing.get_all_start_methods()  # not on Windows
PROCESSES: Any = multiprocessing.get_context("forkserver" if FORKS else "spawn")
if FORKS:
    PROCESSES.set_forkserver_preload([work.__module__, "failover.breaker.stores.redis", *AZURE])
SIZE = 8
COOLDOWN = 1.0
SECONDS = 3.5  # of an outage, beyond the time until all are open
LEASE = 2.0
KNOWN_WITHIN = 1.5
PUSHED_WITHIN = 0.1


class Remote:
    """Answers `ok`, or `no`, or nothing at all, as `mode` says.

    `hits`: (time, process) of each call. `refused`: of those answered `no`. `hung`: of those without an answer.
    """

    def __init__(self) -> None:
        self.mode = "ok"
        self.hits: list[tuple[float, int]] = []
        self.refused: list[tuple[float, int]] = []
        self.hung: list[tuple[float, int]] = []
        self._held: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=100)
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=[connection], daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with suppress(OSError, ValueError):
            process = int(connection.recv(20))
            mode = self.mode
            hit = (time.monotonic(), process)
            self.hits.append(hit)
            if mode == "hang":
                self.hung.append(hit)
                self._held.append(connection)
                return
            if mode == "no":
                self.refused.append(hit)
            with connection:
                connection.sendall(f"{mode}\n".encode())

    def close(self) -> None:
        self._listener.close()
        for connection in self._held:
            connection.close()


class Worker:
    """One process of the fleet. `said` has what it said, in order."""

    def __init__(self, url: str | None, port: int, refresh: float | None = None) -> None:
        self._line, theirs = PROCESSES.Pipe()
        account = os.environ.get("FAILOVER_STATE_CONNECTION_STRING", "")
        job = Job(url, account, port, COOLDOWN, LEASE, refresh)
        self.process = PROCESSES.Process(target=work, args=(job, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.said: list[dict[str, Any]] = []
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                self.said.append(self._line.recv())

    @property
    def state(self) -> str:
        return next((said["to"] for said in reversed(self.said) if "to" in said), "closed")

    def when(self, state: str, after: float) -> float | None:
        """When it first was in this state after that time."""
        return next((said["t"] for said in self.said if said.get("to") == state and said["t"] >= after), None)

    def tell(self, what: str) -> None:
        self._line.send(what)

    def send(self, how: signal.Signals) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, how)


@contextmanager
def fleet(url: str | None, refresh: float | None = None) -> Iterator[tuple[list[Worker], Remote]]:
    """Eight workers, all calling a remote that is well."""
    remote = Remote()
    workers = [Worker(url, remote.port, refresh) for _ in range(SIZE)]
    try:
        wait_for(lambda: all(worker.said for worker in workers), 60.0)
        time.sleep(0.3)  # for their first look at the store
        for worker in workers:
            worker.tell("go")
        wait_for(lambda: len({process for _, process in remote.hits}) == SIZE)
        yield list(workers), remote
        for worker in workers:
            with suppress(OSError):
                worker.tell("quit")
        for worker in workers:
            worker.process.join(15)
        assert {worker.process.exitcode for worker in workers} <= {0, -signal.SIGKILL}
    finally:
        for worker in workers:
            worker.process.kill()
            worker.process.join()
        remote.close()


def all_in(workers: list[Worker], state: str) -> bool:
    return all(worker.state == state for worker in workers)


def kill_for(workers: list[Worker], remote: Remote, seconds: float) -> tuple[int, list[float]]:
    """The remote is dead for so long: the hits up to the first opening everywhere, and the times of those after it."""
    started, before = time.monotonic(), len(remote.refused)
    remote.mode = "no"
    wait_for(lambda: all(worker.when("open", started) for worker in workers))
    # A call that was under way then reaches the remote a moment later.
    opened = max(worker.when("open", started) or 0.0 for worker in workers) + 0.1
    time.sleep(seconds)
    # By the answer, not by the time: a call that was under way at the start may still have been answered `ok`.
    hits = [t for t, _ in remote.refused[before:]]
    return sum(t <= opened for t in hits), [t for t in hits if t > opened]


def spread(workers: list[Worker], tripper: Worker) -> list[float]:
    """One process opens by hand: after how many seconds each of the others is open. Then it closes all again."""
    asked = time.monotonic()
    tripper.tell("isolate")  # a trip would be over before an account's fleet is asked how soon it knew
    wait_for(lambda: all(worker.when("open", asked) for worker in workers))
    tripped = tripper.when("open", asked) or 0.0
    took = [(worker.when("open", asked) or 0.0) - tripped for worker in workers if worker is not tripper]
    tripper.tell("reset")
    wait_for(lambda: all_in(workers, "closed"))
    return took


@pytest.mark.parametrize("kind", KINDS[1:])
def test_eight_processes_are_one_circuit(kind: str, store_url: Callable[[str], str]) -> None:
    with fleet(store_url(kind)) as (workers, remote):
        took = [seconds for worker in workers[: 5 if kind == "redis" else 2] for seconds in spread(workers, worker)]
        middle, most = statistics.median(took) * 1000, max(took) * 1000
        print(f"\n{kind}: known after {middle:.1f} ms in the median, {most:.1f} ms at most")
        assert max(took) < KNOWN_WITHIN

        first, probes = kill_for(workers, remote, SECONDS)
        gaps = [later - earlier for earlier, later in itertools.pairwise(probes)]
        print(f"{kind}: {first} hits until all were open, then {len(probes)} in {SECONDS:g} s, {min(gaps):.2f} s apart")
        assert first <= SIZE * THRESHOLD
        assert 2 <= len(probes) <= SECONDS / COOLDOWN + 1
        assert min(gaps) > COOLDOWN * 0.95

        remote.mode = "ok"
        back = time.monotonic()
        wait_for(lambda: all_in(workers, "closed"))
        print(f"{kind}: all recovered {time.monotonic() - back:.2f} s after the remote")
        assert time.monotonic() - back < COOLDOWN + 3.0

        # The process that holds the probe's place dies with it.
        victim, after = lose_the_prober(workers, remote, signal.SIGKILL)
        print(f"{kind}: the next probe came {after:.2f} s after that of the process that was killed")
        assert LEASE * 0.95 < after < LEASE + 3.0

        if kind == "redis":
            workers.remove(victim)
            stopped, after = lose_the_prober(workers, remote, signal.SIGSTOP)
            assert LEASE * 0.95 < after < LEASE + 3.0
            assert stopped.state == "half-open"
            stopped.send(signal.SIGCONT)
            wait_for(lambda: all_in(workers, "closed"))


@pytest.mark.redis
def test_redis_tells_all_at_once(store_url: Callable[[str], str]) -> None:
    # They look at the store once a minute: what they know sooner they were told.
    with fleet(store_url("redis"), refresh=60.0) as (workers, _):
        rounds = [max(spread(workers, worker)) for worker in workers]
        print(f"\nredis, pushed: the last knew after {', '.join(f'{seconds * 1000:.0f}' for seconds in rounds)} ms")
        # Of eight trips one at least while nothing else kept the machine's two cores from ten processes.
        assert min(rounds) < PUSHED_WITHIN


def lose_the_prober(workers: list[Worker], remote: Remote, how: signal.Signals) -> tuple[Worker, float]:
    """The process that sends the next probe is sent `how` while it waits for the answer; all others recover.

    Gives it, and the seconds from its probe to the next one.
    """
    remote.mode = "no"
    wait_for(lambda: all_in(workers, "open"))
    remote.mode = "hang"
    before = len(remote.hung)
    wait_for(lambda: len(remote.hung) > before)
    probed, process = remote.hung[before]
    os.kill(process, how)
    remote.mode = "ok"
    left = [worker for worker in workers if worker.process.pid != process]
    wait_for(lambda: all_in(left, "closed"))
    (victim,) = [worker for worker in workers if worker not in left]
    return victim, next(t for t, _ in remote.hits if t > probed) - probed


def test_eight_that_share_nothing_for_comparison() -> None:
    with fleet(None) as (workers, remote):
        first, probes = kill_for(workers, remote, SECONDS)
        print(f"\nunshared: {first} hits until all were open, then {len(probes)} in {SECONDS:g} s")
        assert first == SIZE * THRESHOLD
        assert len(probes) >= 3 * SIZE


@pytest.mark.parametrize("kind", ["own", pytest.param("redis", marks=pytest.mark.redis)])
def test_the_simulated_fleet_agrees_with_real_processes(kind: str, store_url: Callable[[str], str]) -> None:
    with fleet(None if kind == "own" else store_url(kind)) as (workers, remote):
        began = time.monotonic()
        first, probes = kill_for(workers, remote, 2.5)
        lasted = time.monotonic() - began
        remote.mode = "ok"
    case = Case(
        SIZE,
        shared=kind != "own",
        cooldown=COOLDOWN,
        factor=1.0,
        threshold=THRESHOLD,
        periods=(PAUSE, PAUSE * 1.5),
        refresh=0.005,  # Redis pushes
        recovery=Recovery(outage=lasted),
    )
    model = simulate(case)
    print(f"\n{kind}: {first} and {len(probes)} hits; the model: {model.first} and {model.hits - model.first}")
    if kind == "own":
        assert model.first == SIZE * THRESHOLD
        # On a busy machine the first to open may probe before the last one has opened.
        assert abs(first + len(probes) - model.hits) <= SIZE
    else:
        assert THRESHOLD <= first <= SIZE * THRESHOLD
        assert THRESHOLD <= model.first <= SIZE * THRESHOLD
        assert abs(len(probes) - (model.hits - model.first)) <= 1
