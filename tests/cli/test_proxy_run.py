"""A person, the program on a terminal, and a proxy in which Fiddler_script.txt decides what happens to live traffic."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

if sys.platform == "win32":
    pytest.skip("pseudo-terminals are POSIX", allow_module_level=True)

from tests.program import Log, Story, is_gone
from tests.proxy import Passed, Proxy
from tests.servers import Azurite
from tests.terminal import Terminal

pytestmark = pytest.mark.proxy

TICK = "In Fiddler tick Rules > RA-GRS: fail primary reads with 503"
UNTICK = "In Fiddler untick Rules > RA-GRS: fail primary reads with 503"


@pytest.fixture(scope="module")
def running() -> Iterator[Proxy]:
    with Proxy() as proxy:
        yield proxy


@pytest.fixture
def proxy(running: Proxy) -> Iterator[Proxy]:
    """One proxy for all tests, its check box off at first."""
    running.check(False)
    yield running
    running.check(False)


def _play(terminal: Terminal, proxy: Proxy, rounds: int) -> str:
    """Three rounds, the box off, then on, then off again, and nobody touches f; the container's name."""
    _paused(terminal, rounds, TICK)
    proxy.check(True)
    terminal.press(" ")
    _paused(terminal, 2 * rounds, UNTICK)
    assert terminal.log.all("read")[-1]["state"] == "open"
    if terminal.screen.alternate:
        assert "[ OPEN ]" in terminal.screen.text
        assert f"primary {rounds}    secondary {rounds}  " in terminal.screen.text
        assert "failed from outside" in terminal.screen.text
    proxy.check(False)
    terminal.press(" ")
    assert terminal.ended() == 0
    assert terminal.settings == terminal.before
    assert not terminal.screen.alternate
    return str(terminal.log.one("uploaded")["container"])


def _paused(terminal: Terminal, n: int, advice: str) -> None:
    """Until it pauses after read n and says what to do in Fiddler."""
    terminal.until(lambda: [each["n"] for each in terminal.log.all("paused")][-1:] == [n])
    terminal.until(lambda: advice.encode() in terminal.sent)


def _check(log: Log, passed: list[Passed], rounds: int, container: str) -> None:
    """The log tells the story; the proxy failed that round's reads of HelloWorld on the primary, and nothing else."""
    log.check()
    story = Story.of(3 * rounds, (rounds + 1, 2 * rounds))
    story.check(log)
    finished = log.one("finished")
    assert (finished["reads"], finished["failed"]) == (3 * rounds, 0)
    assert log.all("fault") == []
    assert {line["error"] for line in log.all("retry")} == {"503 Service Unavailable"}

    blob = [each for each in passed if urlsplit(each.url).path.endswith(f"/{container}/HelloWorld")]
    failed = [each for each in passed if each.final != each.original]
    assert {(each.method, each.original, each.final) for each in failed} == {("GET", 206, 503)}
    assert all(each in blob and "-secondary/" not in each.url for each in failed)
    assert len(failed) == len(story.retries)
    reads = {"primary": 0, "secondary": 0}
    for each in blob:
        if each.method == "GET" and each.final == 206:
            reads["secondary" if "-secondary/" in each.url else "primary"] += 1
    assert reads == {name: finished[name] for name in reads}


def test_600_reads_of_azurite_while_the_script_decides(azurite: Azurite, proxy: Proxy, tmp_path: Path) -> None:
    before = len(proxy.seen)
    with Terminal("--plain", "--requests", 600, "--proxy", proxy.url, folder=tmp_path, account=azurite) as terminal:
        container = _play(terminal, proxy, 200)
        _check(terminal.log, proxy.seen[before:], 200, container)
    assert is_gone(azurite, container)


def test_600_reads_of_the_stand_in_while_the_script_decides(proxy: Proxy, tmp_path: Path) -> None:
    before = len(proxy.seen)
    with Terminal(
        *("--requests", 600, "--rate", 0, "--proxy", proxy.url, "--replication-lag", 0.3),
        folder=tmp_path,
    ) as terminal:
        container = _play(terminal, proxy, 200)
        passed = proxy.seen[before:]
        _check(terminal.log, passed, 200, container)
    changes = [
        (each.method, urlsplit(each.url).path.count("/"), each.final)
        for each in passed
        if each.method in ("PUT", "DELETE")
    ]
    assert changes == [("PUT", 2, 201), ("PUT", 3, 201), ("DELETE", 2, 202)]


def test_the_box_may_be_ticked_before_the_program_starts(proxy: Proxy, tmp_path: Path) -> None:
    proxy.check(True)
    with Terminal(
        *("--plain", "--requests", 60, "--pause-every", 30, "--proxy", proxy.url, "--replication-lag", 0.3),
        folder=tmp_path,
    ) as terminal:
        terminal.until(lambda: len(terminal.log.all("paused")) == 1)
        assert terminal.log.all("read")[0]["attempts"] == 6
        terminal.until(lambda: UNTICK.encode() in terminal.sent)
        proxy.check(False)
        terminal.press("x")
        assert terminal.ended() == 0
        assert terminal.settings == terminal.before
        log = terminal.log
    log.check()
    Story.of(60, (1, 30)).check(log)


def test_https_is_intercepted_with_a_certificate_in_der(azurite_https: Azurite, proxy: Proxy, tmp_path: Path) -> None:
    before = len(proxy.seen)
    with Terminal(
        *("--requests", 90, "--rate", 0, "--pause-every", 30, "--proxy", proxy.url, "--ca-bundle", proxy.ca_der),
        folder=tmp_path,
        account=azurite_https,
    ) as terminal:
        container = _play(terminal, proxy, 30)
        passed = proxy.seen[before:]
        _check(terminal.log, passed, 30, container)
    assert {urlsplit(each.url).scheme for each in passed} == {"https"}
    assert is_gone(azurite_https, container, connection_verify=str(azurite_https.certificate))


def test_https_without_the_certificate_is_refused_in_one_line(
    azurite_https: Azurite, proxy: Proxy, tmp_path: Path
) -> None:
    with Terminal("--plain", "--proxy", proxy.url, folder=tmp_path, account=azurite_https) as terminal:
        assert terminal.ended() == 2
        told = " ".join(terminal.sent.decode().split())
        assert "certificate is not trusted" in told
        assert "--ca-bundle FILE" in told
        assert "Traceback" not in told
        assert azurite_https.account_key not in told
