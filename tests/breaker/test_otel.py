"""OpenTelemetry metrics of circuits, read by the real SDK's in-memory reader."""

from __future__ import annotations

import subprocess
import sys
import threading
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from failover.breaker import AfterCalls, Breakers, CircuitBreaker, CircuitOpen, ConsecutiveFailures, Cooldown, Policy
from failover.breaker.otel import MOST, OTHERS, Metrics
from tests.clock import Clock

POLICY = Policy(trip=ConsecutiveFailures(2), recovery=Cooldown(10.0))


class Program:
    """One with a MeterProvider of its own, and circuits that it listens to."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider([self.reader])
        self.metrics = Metrics(self.provider.get_meter("test"), clock=self.clock)

    def circuit(self, name: str = "b", policy: Policy = POLICY) -> CircuitBreaker:
        return CircuitBreaker(name, policy, clock=self.clock, listeners=[self.metrics])

    def read(self, metric: str) -> dict[Any, Any]:
        """The metric's points by their attributes' values, the circuit's name first."""
        data: Any = self.reader.get_metrics_data()
        found = {}
        for resource in data.resource_metrics:
            for scope in resource.scope_metrics:
                for each in scope.metrics:
                    if each.name == metric:
                        for point in each.data.data_points:
                            attributes = dict(point.attributes)
                            key = (attributes.pop("circuit_breaker.name"), *attributes.values())
                            found[key if len(key) > 1 else key[0]] = point.value
        return found


@pytest.fixture
def program() -> Program:
    return Program()


def test_calls_by_verdict(program: Program) -> None:
    circuit = program.circuit()
    for _ in range(3):
        circuit.call(int)
    circuit.admit().released()
    for _ in range(2):
        circuit.admit().failed(OSError())
    for _ in range(4):
        with pytest.raises(CircuitOpen):
            circuit.call(int)
    assert program.read("circuit_breaker.calls") == {
        ("b", "success"): 3,
        ("b", "neutral"): 1,
        ("b", "failure"): 2,
        ("b", "refused"): 4,
    }


def test_transitions_state_and_time_open(program: Program) -> None:
    circuit = program.circuit()
    circuit.call(int)
    assert program.read("circuit_breaker.state") == {"b": 0}
    assert program.read("circuit_breaker.time_open") == {"b": 0.0}
    circuit.trip()
    program.clock.now += 4.0
    assert program.read("circuit_breaker.state") == {"b": 2}
    assert program.read("circuit_breaker.time_open") == {"b": 4.0}  # also while it is open
    program.clock.now += 8.0
    probe = circuit.admit()
    assert program.read("circuit_breaker.state") == {"b": 1}
    program.clock.now += 1.0
    assert program.read("circuit_breaker.time_open") == {"b": 12.0}
    probe.failed(OSError())
    program.clock.now += 10.0
    circuit.call(int)
    program.clock.now += 100.0
    assert program.read("circuit_breaker.time_open") == {"b": 22.0}
    assert program.read("circuit_breaker.transitions") == {
        ("b", "closed", "open"): 1,
        ("b", "open", "half-open"): 2,
        ("b", "half-open", "open"): 1,
        ("b", "half-open", "closed"): 1,
    }


def test_circuits_of_a_registry_are_told_apart_and_their_names_hold_no_secret(program: Program) -> None:
    breakers = Breakers(Policy(recovery=AfterCalls(1)), listeners=[program.metrics])
    breakers.on("https://user:secret@one.example/a?sig=secret").call(int)
    breakers.on("https://two.example/").trip()
    assert program.read("circuit_breaker.state") == {"https://one.example/a": 0, "https://two.example": 2}


def test_beyond_the_limit_all_others_are_counted_under_one_name(program: Program) -> None:
    for number in range(MOST + 3):
        program.circuit(f"b{number}").call(int)
    program.circuit(f"b{MOST}").trip()
    calls = program.read("circuit_breaker.calls")
    assert len(calls) == MOST + 1
    assert calls[OTHERS, "success"] == 3
    assert len(program.read("circuit_breaker.state")) == MOST


def test_threads_lose_no_call(program: Program) -> None:
    circuit = program.circuit()
    start = threading.Barrier(8)

    def run() -> None:
        start.wait()
        for _ in range(500):
            circuit.call(int)

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert program.read("circuit_breaker.calls") == {("b", "success"): 4000}


def test_without_the_package_the_message_says_what_to_install() -> None:
    code = "import sys; sys.modules['opentelemetry.metrics'] = None; import failover.breaker.otel"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.stderr.rstrip().endswith("OpenTelemetry: pip install 'opentelemetry-api>=1.20'")
