"""Each kind of misbehaviour in the table, against GeoFailover, AsyncGeoFailover and the demonstration.

`python -m pytest tests/faults/test_kinds.py -v` reads as that table does.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from azure.core.exceptions import HttpResponseError

from failover.breaker import AfterCalls, ConsecutiveFailures, FailureReported, Policy
from failover.demo import events as ev
from failover.demo.account import CONNECTION_STRING, find_account
from failover.demo.client import connect, make_transport
from failover.demo.config import RunConfig
from failover.demo.faults import Fault, FaultTransport
from failover.demo.run import Demo
from failover.storage import BothEndpointsDown, GeoFailover
from tests.faults.front import Front
from tests.faults.kinds import KINDS, T_DEMO, Kind, T
from tests.program import environment, run
from tests.storage import clients
from tests.storage.account import HELLO, store
from tests.storage.async_client import WaitingGeoFailover

SLACK = 5.0
"""Seconds that a busy machine may add: less than what a drip or an endless answer would take without a bound."""
PATIENCE = 20.0
"""Seconds: `attempt_timeout` where no kind of fault waits for it, lest a busy machine's delay be taken for one."""
ASIDE = 3
POLICY = Policy(trip=ConsecutiveFailures(5), recovery=AfterCalls(ASIDE))


SLOW_BOTH = {"drips-body"}  # the others of its sort would show the same, at leisure
BOTH = [
    name
    for name, kind in KINDS.items()
    if kind.counts and kind.needs != "name" and name != "301-to-and-fro" and (not kind.costs or name in SLOW_BOTH)
]


def attempt_timeout(kind: Kind, silence: float = T) -> float:
    return silence if kind.costs else PATIENCE


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture
def front(kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Front]:
    with Front(named=kind.needs == "name", tls=tmp_path if kind.needs == "tls" else None) as front:
        monkeypatch.setattr(socket, "getaddrinfo", front.resolver(socket.getaddrinfo))
        yield front


@dataclass
class Reader:
    """Reads the blob by one of the two policies."""

    front: Front
    kind: Kind
    policy: Any
    count: int
    took: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        options = {} if self.front.certificate is None else {"connection_verify": str(self.front.certificate)}
        self._service = clients.connect(self.front, self.policy, **options)
        self._blob = self._service.get_blob_client("demo", "HelloWorld")

    def read(self, patience: float | None = None) -> bytes:
        began = time.monotonic()
        options: dict[str, Any] = {} if patience is None else {"connection_timeout": patience, "read_timeout": patience}
        try:
            return bytes(self._blob.download_blob(**{**self.kind.options, **options}).readall())
        finally:
            self.took.append(time.monotonic() - began)

    @property
    def verdict(self) -> tuple[str, int]:
        seen = self.policy.primary.snapshot()
        return seen["state"], seen["failures"]


@pytest.fixture(params=["sync", "aio"])
def reader(request: pytest.FixtureRequest, front: Front, kind: Kind) -> Iterator[Reader]:
    policy: Any = WaitingGeoFailover if request.param == "aio" else GeoFailover
    store(front.standin)
    count = kind.counts if request.param == "sync" or kind.aio is None else kind.aio
    reader = Reader(front, kind, policy(policy=POLICY, retry=None, attempt_timeout=attempt_timeout(kind)), count)
    with reader._service:
        yield reader


def test_a_read_while_the_primary_misbehaves(reader: Reader) -> None:
    """The right bytes in bounded time; the failures are counted; open, the circuit spares the primary; it closes."""
    front, kind, count = reader.front, reader.kind, reader.count
    front.begin(kind)
    assert reader.read() == kind.gets
    assert reader.took[0] <= kind.costs * T + SLACK
    assert reader.verdict == ("closed", count)
    assert reader.policy.secondary.snapshot()["failures"] == 0
    if not count:
        return
    assert re.search(kind.cause, reader.policy.primary.snapshot()["last_error"])

    spoilt, failures = front.spoilt, count
    while failures < 5:  # what further reads would do, in less time
        reader.policy.primary.admit().failed(FailureReported(kind.cause))
        failures += 1
    assert reader.verdict == ("open", 5)
    for _ in range(ASIDE):
        assert reader.read(PATIENCE) == HELLO
    assert front.spoilt == spoilt
    front.end(kind)
    assert reader.read(PATIENCE) == HELLO  # the probe
    assert reader.verdict == ("closed", 0)


@pytest.mark.parametrize("kind", BOTH, indirect=True)
def test_a_read_while_both_endpoints_misbehave(reader: Reader) -> None:
    """One clear error in bounded time that names both causes and no address, or the right bytes in pieces.

    The time-outs are the caller's: else the question might be slow, and would be asked again with the SDK's own. A body
    that nobody can send to its end is asked for again by the SDK, twice and a second later, and is its error then.
    """
    front, kind = reader.front, reader.kind
    front.both = True
    front.begin(kind)
    try:
        got, said = reader.read(attempt_timeout(kind)), None
    except BothEndpointsDown as error:
        got, said = b"", str(error)
    except HttpResponseError:
        assert reader.took[0] <= 6 * (kind.costs + 1) * T + 2 + SLACK
        return
    if said is None:
        # What arrived before a break counts where the transport hands it out: aiohttp does.
        assert kind.pieces
        assert got == HELLO
    else:
        assert re.search(f"Primary: .*({kind.cause}).*Secondary: .*({kind.cause})", said)
        assert not re.search("127.0.0.1|http:|sig=", said)
    assert reader.took[0] <= 2 * kind.costs * T + SLACK


@pytest.mark.filterwarnings("ignore::urllib3.exceptions.InsecureRequestWarning")
def test_the_demonstration_while_its_primary_misbehaves(front: Front, kind: Kind) -> None:
    """No read fails, but the one that gets the wrong bytes; the circuit opens, spares the primary, and closes."""
    account = find_account({CONNECTION_STRING: environment(front)["AZURE_STORAGE_CONNECTION_STRING"]})
    assert account is not None
    count = kind.counts if kind.demo is None else kind.demo
    last = 2 + ASIDE
    heard: list[ev.Event] = []

    def hear(event: ev.Event) -> None:
        heard.append(event)
        if isinstance(event, ev.Read) and event.n == 1:
            front.begin(kind)
        elif isinstance(event, ev.Read) and event.n == last:
            front.end(kind)

    # Read 2 opens the circuit.
    silence = attempt_timeout(kind, T_DEMO)
    config = RunConfig(requests=last + 2, retry_threshold=max(count, 1), secondary_threshold=ASIDE, timeout=silence)
    verify = True if front.certificate is None else str(front.certificate)
    with FaultTransport(
        make_transport(account, timeout=PATIENCE, verify=verify),
        Fault.STATUS_503,
        primary=account.primary,
        blob="HelloWorld",
        timeout=silence,
    ) as transport:
        demo = Demo(config, account, transport, hear, attended=False)
        setup, service = connect(account, demo.setup_policy, transport), connect(account, demo.policy, transport)
        answered = demo.run(setup, service)

    reads = [each for each in heard if isinstance(each, ev.Read)]
    assert len(reads) == config.requests
    wrong = range(2, last + 1) if kind.gets != HELLO else range(0)
    assert [each.n for each in reads if not each.ok] == list(wrong)
    assert {each.error for each in reads if not each.ok} <= {"the bytes are not those that were uploaded"}
    assert answered is (not wrong)
    assert max(each.ms for each in reads) / 1000 <= kind.costs * T_DEMO + SLACK
    moves = [(each.n, each.new) for each in heard if isinstance(each, ev.Transitioned)]
    assert moves == ([(2, "open"), (last + 1, "half-open"), (last + 1, "closed")] if count else [])
    if count:
        assert [each.endpoint for each in reads[2:last]] == ["secondary"] * ASIDE
        causes = [each.error for each in heard if isinstance(each, ev.Retried)]
        assert len(causes) == count
        assert all(re.search(kind.cause, cause) for cause in causes)
    cleaned = heard[-1]
    assert isinstance(cleaned, ev.CleanedUp)
    assert cleaned.error is None


@pytest.mark.program
@pytest.mark.parametrize("kind", ["drips-body", "login-page"], indirect=True)
def test_the_program_while_its_primary_misbehaves(front: Front, kind: Kind, tmp_path: Path) -> None:
    """A process of its own: its lines and its exit code say that every read was answered."""
    front.skip, front.most = 1, kind.counts
    front.begin(kind)
    few = ("--requests", 12, "--retry-threshold", kind.counts, "--secondary-threshold", ASIDE)
    ran = run(tmp_path, *few, "--timeout", attempt_timeout(kind, T_DEMO), account=front)
    assert (ran.code, ran.err) == (0, "")
    ran.log.check()
    reads = ran.log.all("read")
    assert [each["endpoint"] for each in reads] == ["primary"] + ["secondary"] * (1 + ASIDE) + ["primary"] * 7
    assert all(re.search(kind.cause, each["error"]) for each in ran.log.all("retry"))
    assert max(each["ms"] for each in reads) / 1000 <= kind.costs * T + SLACK
