"""What killed runs leave behind is removed, what a run holds is not: against Azurite, by every way of signing in."""

from __future__ import annotations

import datetime as dt
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from azure.storage.blob import (
    AccountSasPermissions,
    BlobServiceClient,
    ResourceTypes,
    Services,
    generate_account_sas,
)

from failover import cli
from failover.demo import cleanup
from failover.demo.account import Account, BadSettings, find_account
from failover.demo.cleanup import CONTAINER_PREFIX, clean_up, find_containers, new_container_name, send_heartbeats
from failover.demo.client import connect, make_transport
from failover.demo.config import RunConfig
from failover.demo.faults import Fault, FaultTransport
from failover.demo.run import Demo
from failover.standin import StandIn
from tests.program import CONTAINER, PROGRAM, environment, is_gone, wait_until
from tests.servers import Account as Server
from tests.servers import Azurite, FakeToken, credential

SECONDS = 60.0
Told = tuple[int, list[str], str]
Command = Callable[..., Told]
OLD = ("--clean-up", "--older-than", "0")


def account_of(server: Server) -> Account:
    found = find_account(environment(server))
    assert found is not None
    return found


@pytest.fixture
def service(azurite: Azurite) -> Iterator[BlobServiceClient]:
    """Azurite without what other tests left."""
    clean_up(account_of(azurite), lambda _: None, older_than=0)
    with BlobServiceClient(azurite.primary_url, credential=credential(azurite)) as client:
        yield client


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in this process: its exit code, its lines, and what it said on stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*options: str, account: Server | None = None, **settings: str) -> Told:
        with monkeypatch.context() as patch:
            for name in os.environ:
                if name.startswith(("AZURE_", "FAILOVER_")):
                    patch.delenv(name)
            for name, value in environment(account, **settings).items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as caught:
                cli.app(options)
        out, err = capsys.readouterr()
        assert account is None or account.account_key[:12] not in out + err
        return int(caught.value.code or 0), out.splitlines(), err

    return run


def sas(server: Server, *permissions: str) -> dict[str, str]:
    token = generate_account_sas(
        server.account_name,
        server.account_key,
        ResourceTypes(service=True, container=True, object=True),
        AccountSasPermissions(**dict.fromkeys(permissions, True)),
        dt.datetime.now(dt.timezone.utc) + dt.timedelta(hours=1),
        services=Services(blob=True),
    )
    return {"AZURE_STORAGE_SERVICE_ENDPOINT": server.primary_url, "AZURE_STORAGE_SAS_TOKEN": token}


# --- the command ----------------------------------------------------------------------------------------------


def test_what_is_young_is_kept_until_it_is_asked_for(
    command: Command, azurite: Azurite, service: BlobServiceClient
) -> None:
    names = sorted(new_container_name() for _ in range(2))
    for name in [*names, f"{CONTAINER_PREFIX}notes"]:
        service.create_container(name)

    code, lines, err = command("--clean-up", account=azurite)
    assert (code, err, len(lines)) == (0, "", 3)
    for name, line in zip(names, lines, strict=False):
        assert re.fullmatch(rf"{name}: kept, touched \d+ s ago, so that a run may be using it\.", line)
    assert lines[-1] == (
        "0 containers removed, 2 kept (if no run is under way, --clean-up --older-than 0 removes them too)."
    )

    removed = [*(f"{name}: removed." for name in names), "2 containers removed."]
    assert command(*OLD, account=azurite) == (0, removed, "")
    code, lines, err = command(*OLD, account=azurite)
    assert (code, err) == (0, "")
    assert len(lines) == 1
    assert re.fullmatch(
        r"none found: the account devstoreaccount1 at \S+ holds no container of an earlier run.", lines[0]
    )
    service.delete_container(f"{CONTAINER_PREFIX}notes")  # which no run made


def test_one_that_cannot_be_removed_is_told_and_the_rest_goes(
    command: Command, azurite: Azurite, service: BlobServiceClient
) -> None:
    names = sorted(new_container_name() for _ in range(3))
    lease = service.create_container(names[1]).acquire_lease(60)
    for name in names[::2]:
        service.create_container(name)

    code, lines, err = command(*OLD, account=azurite)

    lease.release()
    assert (code, err) == (1, "")
    assert lines == [
        f"{names[0]}: removed.",
        f"{names[1]}: could not be removed: 412 LeaseIdMissing.",
        f"{names[2]}: removed.",
        "2 containers removed, 1 could not be.",
    ]
    assert [is_gone(azurite, name) for name in names] == [True, False, True]


def test_by_a_sas_that_has_all_and_by_such_as_lack_a_permission(
    command: Command, azurite: Azurite, service: BlobServiceClient
) -> None:
    name = new_container_name()
    service.create_container(name)
    ways = [sas(azurite, *each) for each in (["read", "delete"], ["read", "list"], ["read", "list", "delete"])]

    unlisted, kept, done = (command(*OLD, **way) for way in ways)

    assert unlisted[:2] == (2, [])
    assert re.fullmatch(r"circuitbreaker\.py: Cannot list the containers of the account .* 403 [^\n]+\n", unlisted[2])
    assert (kept[0], kept[1][-1], kept[2]) == (1, "0 containers removed, 1 could not be.", "")
    assert kept[1][0].startswith(f"{name}: could not be removed: 403 ")
    assert done == (0, [f"{name}: removed.", "1 container removed."], "")
    for way, told in zip(ways, (unlisted, kept, done), strict=True):
        assert way["AZURE_STORAGE_SAS_TOKEN"].partition("sig=")[2][:12] not in str(told)


def test_by_an_entra_token(azurite_https: Azurite) -> None:
    found = Account("devstoreaccount1", azurite_https.primary_url, azurite_https.secondary_url, FakeToken(), login=True)
    verify = str(azurite_https.certificate)
    name = new_container_name()
    with BlobServiceClient(azurite_https.primary_url, credential=FakeToken(), connection_verify=verify) as client:
        client.create_container(name)
    lines: list[str] = []

    assert clean_up(found, lines.append, older_than=0, verify=verify)

    assert f"{name}: removed." in lines
    assert is_gone(azurite_https, name, connection_verify=verify)


def test_without_an_account_there_is_nothing_to_clean_up(command: Command) -> None:
    told = ["Nothing to clean up: no Azure account is set, and the stand-in account ends with its run."]
    assert command("--clean-up") == (0, told, "")


def test_what_cannot_work_is_one_line_and_exit_2(command: Command, standin: StandIn) -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{held.getsockname()[1]}/mine"
        key = {"AZURE_STORAGE_SERVICE_ENDPOINT": dead, "AZURE_STORAGE_KEY": standin.account_key}
        proxy = f"http://me:hidden@127.0.0.1:{held.getsockname()[1]}"
        answers = [
            command("--clean-up", **key),
            command("--clean-up", AZURE_STORAGE_KEY="x"),
            command("--clean-up", "--log", "x"),
            command("--requests", "3", "--clean-up"),
            command("--older-than", "0"),
            command("--clean-up", "--proxy", proxy, account=standin),
        ]
    words = [
        "connection refused",
        "AZURE_STORAGE_ACCOUNT",
        "--log does nothing",
        "--requests does",
        "without --clean-up",
        "proxy did not",
    ]
    for (code, lines, err), word in zip(answers, words, strict=True):
        assert (code, lines) == (2, [])
        assert re.fullmatch(r"circuitbreaker\.py: [^\n]+\n", err)
        assert word in err
        assert "hidden" not in err


@pytest.mark.program
@pytest.mark.skipif(sys.platform == "win32", reason="a shell's pipe")
def test_a_reader_that_has_seen_enough_does_not_end_it(
    azurite: Azurite, service: BlobServiceClient, tmp_path: Path
) -> None:
    for _ in range(4):
        service.create_container(new_container_name())
    line = '"$@" --clean-up --older-than 0 | head -1; echo "code ${PIPESTATUS[0]}"'
    done = subprocess.run(
        ["bash", "-c", line, "bash", sys.executable, str(PROGRAM)],
        cwd=tmp_path,
        env=environment(azurite),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.stdout.splitlines()[1:] == ["code 0"]
    assert done.stderr == ""
    assert not list(find_containers(service))


# --- what it is made of ---------------------------------------------------------------------------------------


def test_it_lists_page_after_page(azurite: Azurite, service: BlobServiceClient) -> None:
    names = sorted(new_container_name() for _ in range(7))
    for name in names:
        service.create_container(name)
    pages = service.list_containers(name_starts_with=CONTAINER_PREFIX, results_per_page=2).by_page()

    assert [len(list(page)) for page in pages] == [2, 2, 2, 1]
    assert [each.name for each in find_containers(service, page_size=2)] == names
    lines: list[str] = []
    assert clean_up(account_of(azurite), lines.append, older_than=0, page_size=2)
    assert lines == [*(f"{name}: removed." for name in names), "7 containers removed."]


def test_a_run_sends_heartbeats_and_so_keeps_its_container(
    azurite: Azurite, service: BlobServiceClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleanup, "_HEARTBEAT_EVERY", 0.1)
    container, over = service.create_container(new_container_name()), threading.Event()
    (made,) = find_containers(service)
    thread = threading.Thread(target=send_heartbeats, args=(container, over))
    thread.start()
    try:
        wait_until(lambda: next(find_containers(service)).last_modified > made.last_modified, "a heartbeat")
    finally:
        over.set()
        thread.join(SECONDS)

    # It had been listed as abandoned, and a heartbeat came before it could be removed.
    why = cleanup._remove(service, made, account_of(azurite))
    assert why == "a run has touched it meanwhile."
    assert not is_gone(azurite, made.name)
    container.delete_container()
    assert cleanup._remove(service, made, account_of(azurite)) is None


def test_the_demonstration_sends_heartbeats_from_its_beginning(
    standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cleanup, "_HEARTBEAT_EVERY", 0.01)
    found, config = account_of(standin), RunConfig(requests=0)

    def heartbeats() -> int:
        return sum(hit.method == "PUT" and hit.status == 501 for hit in standin.hits)  # which it has no use for

    transport = make_transport(found, timeout=5.0)
    with FaultTransport(transport, Fault.STATUS_503, primary=found.primary, blob="HelloWorld", timeout=2.0) as faults:
        demo = Demo(config, found, faults, lambda _: demo.quit() if heartbeats() > 1 else None, attended=False)
        demo.run(*(connect(found, each, faults) for each in (demo.setup_policy, demo.policy)))
    assert heartbeats() > 1


def test_the_primary_alone_is_asked(standin: StandIn) -> None:
    standin.lose_primary()
    with pytest.raises(BadSettings, match="Cannot list the containers"):
        clean_up(account_of(standin), lambda _: None, older_than=0)
    assert not standin.hits


def test_names_are_those_that_tests_look_for() -> None:
    assert all(CONTAINER.fullmatch(new_container_name()) for _ in range(10))
