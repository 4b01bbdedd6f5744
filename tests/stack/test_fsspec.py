"""adlfs with failover: what its callers get of a file in an outage, in any thread, loop or process."""

from __future__ import annotations

import asyncio
import multiprocessing
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import adlfs
import fsspec
import pandas as pd
import pytest
from azure.storage.blob.aio import ExponentialRetry

from failover.breaker import ConsecutiveFailures, Cooldown, Policy
from failover.standin import StandIn
from failover.storage import BothEndpointsDown, NotReplicated
from failover.storage.fsspec import FailoverBlobFileSystem, register
from tests.clock import Clock
from tests.storage.account import HELLO, Trail, delay, spoil, status, store

QUICK: Final = {"policy": Policy(trip=ConsecutiveFailures(2), recovery=Cooldown(1000.0))}


def connect(account: StandIn, **options: Any) -> Any:
    given = {"failover": QUICK, "skip_instance_cache": True, "use_listings_cache": False}
    return FailoverBlobFileSystem(connection_string=account.connection_string, **{**given, **options})


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register()
    yield
    for protocol in FailoverBlobFileSystem.protocol:
        fsspec.register_implementation(protocol, adlfs.AzureBlobFileSystem, clobber=True)


@pytest.fixture
def behind() -> Iterator[StandIn]:
    """An account without its primary, and with `demo/new` and `demo/fresh/new`, which the secondary does not hold."""
    clock = Clock()
    with StandIn(10.0, clock=clock) as account:
        for name in ("old", "folder/a.csv", "folder/b.csv"):
            store(account, name=name)
        clock.now += 100.0
        for name in ("new", "folder/new", "fresh/new"):
            store(account, name=name)
        account.lose_primary()
        assert connect(account).cat("demo/old") == HELLO  # which opens the circuit
        yield account


# What the callers get


@pytest.mark.parametrize("protocol", ["abfs", "az", "abfss"])
def test_its_urls_are_read_from_the_secondary(protocol: str, standin: StandIn) -> None:
    store(standin)
    standin.lose_primary()
    with fsspec.open(f"{protocol}://demo/HelloWorld", connection_string=standin.connection_string) as file:
        assert file.read() == HELLO


READS: Final[dict[str, Any]] = {
    "info": lambda fs, path: fs.info(path),
    "open": lambda fs, path: fs.open(path).read(),
    "exists": lambda fs, path: fs.exists(path),
    "isfile": lambda fs, path: fs.isfile(path),
    "isdir": lambda fs, path: fs.isdir(path),
    "ls": lambda fs, path: fs.ls(path),
    "cat": lambda fs, path: fs.cat(path),
    "size": lambda fs, path: fs.size(path),
    "find": lambda fs, path: fs.find(path),
    "glob": lambda fs, path: fs.glob(path),
    "walk": lambda fs, path: list(fs.walk(path)),
    "get": lambda fs, path: fs.get(path, "/nowhere/else"),
    "expand": lambda fs, path: fs.expand_path(path),
}


@pytest.mark.parametrize("path", ["demo/new", "demo/folder/new", "demo/fresh", "demo/fresh/new"])
@pytest.mark.parametrize("call", READS)
def test_what_is_not_replicated_yet_is_not_said_to_be_missing(call: str, path: str, behind: StandIn) -> None:
    fs = connect(behind)
    with pytest.raises(NotReplicated):
        READS[call](fs, path)


@pytest.mark.parametrize("call", ["info", "open", "exists", "isfile"])
def test_nor_by_the_first_read_of_an_outage(call: str, behind: StandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which the SDK's retry repeats, since the primary may come back."""
    monkeypatch.setattr(ExponentialRetry, "get_backoff_time", lambda *_: 0)
    fs = connect(behind, failover={})
    with pytest.raises(NotReplicated):
        READS[call](fs, "demo/new")


def test_what_is_replicated_is_there(behind: StandIn) -> None:
    fs = connect(behind)
    assert (fs.info("demo/old")["size"], fs.info("demo/old")["type"]) == (len(HELLO), "file")
    assert (fs.exists("demo/old"), fs.isfile("demo/old"), fs.isdir("demo/old")) == (True, True, False)
    assert fs.ls("demo/old") == fs.find("demo/old") == fs.glob("demo/o*") == ["demo/old"]
    assert fs.cat("demo/old") == HELLO


def test_folders_are_known_by_the_files_in_them(behind: StandIn) -> None:
    fs = connect(behind)
    for path in ("demo/folder", "demo/folder/"):
        assert fs.info(path) == {"name": "demo/folder", "size": None, "type": "directory"}
        assert (fs.exists(path), fs.isfile(path), fs.isdir(path)) == (True, False, True)
        assert fs.ls(path) == fs.find(path) == ["demo/folder/a.csv", "demo/folder/b.csv"]
    assert fs.glob("demo/*/*.csv") == fs.glob("demo/folder/*") == ["demo/folder/a.csv", "demo/folder/b.csv"]
    assert fs.ls("demo") == ["demo/folder", "demo/old"]
    assert fs.isdir("demo")


def test_what_is_missing_is_missing_while_the_primary_answers(standin: StandIn) -> None:
    store(standin)
    fs = connect(standin)
    assert (fs.exists("demo/none"), fs.isfile("demo/none"), fs.isdir("demo/none")) == (False, False, False)
    for call in ("info", "open", "ls", "cat", "size", "get"):
        with pytest.raises(FileNotFoundError):
            READS[call](fs, "demo/none")


@pytest.mark.parametrize("call", READS)
def test_an_account_that_is_down_is_not_said_to_be_empty(
    call: str, standin: StandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ExponentialRetry, "get_backoff_time", lambda *_: 0)
    store(standin)
    fs = connect(standin)
    standin.lose_primary()
    standin.lose_secondary()
    with pytest.raises(BothEndpointsDown):
        READS[call](fs, "demo/HelloWorld")


def test_isfile_answers_as_adlfs_does(standin: StandIn) -> None:
    store(standin)
    store(standin, b"", "marked", metadata={"hdi_isfolder": "true"})
    store(standin, b"", "folder/made", metadata={"is_directory": "true"})
    store(standin, b"", "written", metadata={"is_directory": "false"})
    ours = connect(standin)
    theirs = adlfs.AzureBlobFileSystem(connection_string=standin.connection_string, skip_instance_cache=True)
    paths = [
        "demo",
        "demo/HelloWorld",
        "demo/marked",
        "demo/folder",
        "demo/folder/made",
        "demo/written",
        "demo/none",
        "",
    ]
    expected = [bool(theirs.isfile(path)) for path in paths]
    assert expected.count(True) == 2
    assert [ours.isfile(path) for path in paths] == expected
    for fs in (ours, theirs):
        fs.ls("demo")  # into its cache
    trail = Trail(standin)
    assert ours.isfile("demo/HelloWorld")
    assert trail.look() == "P"  # without a cache of listings
    spoil(standin, status(403, "AuthorizationFailure"), at="primary+secondary")
    assert ours.isfile("demo/HelloWorld") is theirs.isfile("demo/none") is False


def test_a_listing_that_is_cached_is_used(standin: StandIn) -> None:
    store(standin)
    fs = connect(standin, use_listings_cache=True)
    fs.ls("demo")
    trail = Trail(standin)
    assert fs.isfile("demo/HelloWorld")
    assert fs.exists("demo/HelloWorld")
    assert trail.look() == ""


def test_writes_go_to_the_primary(standin: StandIn) -> None:
    store(standin)
    fs = connect(standin)
    fs.pipe("demo/written", b"1")
    with fs.open("demo/streamed", "wb") as file:
        file.write(b"2")
    assert fs.cat(["demo/written", "demo/streamed"]) == {"demo/written": b"1", "demo/streamed": b"2"}


# Circuits and settings


def test_one_account_has_one_pair_of_circuits(standin: StandIn) -> None:
    store(standin)
    first, second = connect(standin), connect(standin)
    spoil(standin, status(503))
    trail = Trail(standin)
    assert first.cat_file("demo/HelloWorld") == second.cat_file("demo/HelloWorld") == HELLO
    assert trail.look() == "PPSS"
    with StandIn(0.0) as other:
        store(other)
        trail = Trail(other)
        assert connect(other).cat_file("demo/HelloWorld") == HELLO
        assert trail.look() == "P"


def test_settings(standin: StandIn) -> None:
    store(standin)
    heard: list[Any] = []
    fs = connect(standin, failover={**QUICK, "listeners": [heard.append], "primary_attempts": 1})
    spoil(standin, status(503))
    trail = Trail(standin)
    assert fs.cat_file("demo/HelloWorld") == HELLO
    assert trail.look() == "PS"
    assert heard
    with pytest.raises(ValueError, match="not max_staleness_"):
        connect(standin, failover={"max_staleness_": 1})
    with pytest.raises(ValueError, match="max_staleness must be"):
        connect(standin, failover={"max_staleness": -1})


def test_settings_among_the_storage_options_of_another_library(standin: StandIn) -> None:
    store(standin, b"x\n1\n", "a.csv")
    heard: list[Any] = []
    options = {"connection_string": standin.connection_string, "failover": {"listeners": (heard.append,)}}
    assert pd.read_csv("abfs://demo/a.csv", storage_options=options).x.sum() == 1
    assert heard


# Threads, loops and processes


def test_many_threads(standin: StandIn) -> None:
    store(standin)
    standin.lose_primary()
    together = threading.Barrier(8)
    got: list[Any] = []

    def work() -> None:
        together.wait()
        fs = fsspec.filesystem("abfs", connection_string=standin.connection_string)
        got.append(fs.cat_file("demo/HelloWorld"))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert got == [HELLO] * 8


def test_in_a_loop_of_the_users_own(standin: StandIn) -> None:
    store(standin)
    standin.lose_primary()
    program = """
        import asyncio, fsspec
        from failover.storage.fsspec import register
        register()

        async def read():
            fs = fsspec.filesystem("abfs", asynchronous=True, loop=asyncio.get_running_loop())
            print((await fs._cat_file("demo/HelloWorld")).decode())
            await fs.service_client.close()

        asyncio.run(read())
    """
    assert program_says(program, standin) == HELLO.decode()


def read_it(fs: Any) -> Any:
    return fs.cat_file("demo/HelloWorld"), type(fs).__name__


def read_file(file: Any) -> Any:
    return file.read(), type(file.fs).__name__


def test_an_unpickled_file_system_has_failover_and_its_settings(standin: StandIn) -> None:
    """In a process that has never called `register`."""
    store(standin)
    settings = {**QUICK, "primary_attempts": 1}
    fs = connect(standin, failover=settings)
    file = fs.open("demo/HelloWorld")
    spoil(standin, status(503))
    trail = Trail(standin)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(read_it, (fs,)) == (HELLO, "FailoverBlobFileSystem")
        assert trail.look() == "PS"
        assert pool.apply(read_file, (file,)) == (HELLO, "FailoverBlobFileSystem")


def test_dask_workers_in_processes_of_their_own(standin: StandIn) -> None:
    store(standin, b"x\n1\n2\n", "folder/a.csv")
    store(standin, b"x\n3\n", "folder/b.csv")
    standin.lose_primary()
    program = """
        import dask.dataframe, distributed
        from failover.storage.fsspec import register

        if __name__ == "__main__":
            register()
            with distributed.LocalCluster(n_workers=1, dashboard_address=None) as cluster:
                with distributed.Client(cluster):
                    print(dask.dataframe.read_csv("abfs://demo/folder/*.csv").x.sum().compute())
    """
    assert program_says(program, standin) == "6"


def program_says(text: str, account: StandIn) -> str:
    """The output of a program of its own, for whose threads a fork is no danger."""
    path = Path(sys.executable).parent
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(text)],
        env={"AZURE_STORAGE_CONNECTION_STRING": account.connection_string, "PATH": str(path)},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
def test_a_forked_process_reads_too() -> None:
    """Before it has read, and after, with the circuit open or not: the child opens file systems of its own."""
    with StandIn(0.0) as account:
        store(account)
        spoil(account, status(503))
        program = """
            import os, fsspec
            from failover.storage.fsspec import register
            register()

            def read():
                return fsspec.filesystem("abfs").cat_file("demo/HelloWorld").decode()

            def child():
                pid = os.fork()
                if not pid:
                    os._exit(0 if read() == "Hello, World!" else 1)
                return os.waitpid(pid, 0)[1]

            kept = fsspec.filesystem("abfs")
            print(child(), read(), child(), [read() for _ in range(4)][-1], child())
        """
        assert program_says(program, account) == "0 Hello, World! 0 Hello, World! 0"


# Broken parts


def test_a_client_that_is_closed_during_a_read_ends_it_as_without_failover() -> None:
    def error_of(kind: Any, **options: Any) -> Any:
        with StandIn(0.0) as account:
            store(account)
            fs = kind(connection_string=account.connection_string, skip_instance_cache=True, **options)
            arrived = threading.Event()

            def hang(exchange: Any) -> None:
                delay(60.0)(exchange)
                arrived.set()

            spoil(account, hang)
            ended: list[Any] = []

            def read() -> None:
                try:
                    ended.append(fs.cat_file("demo/HelloWorld"))
                except BaseException as error:
                    ended.append(type(error))

            reader = threading.Thread(target=read)
            reader.start()
            assert arrived.wait(20)
            asyncio.run_coroutine_threadsafe(fs.service_client.close(), fs.loop).result(20)
            reader.join(20)
            return ended

    expected = error_of(adlfs.AzureBlobFileSystem)
    assert expected
    assert error_of(FailoverBlobFileSystem, failover={**QUICK, "attempt_timeout": 30.0}) == expected


def test_without_adlfs_it_says_what_to_install() -> None:
    with StandIn(0.0) as account:
        program = """
            import sys
            sys.modules["adlfs"] = None
            try:
                import failover.storage.fsspec
            except ImportError as error:
                print(error)
        """
        assert "pip install adlfs" in program_says(program, account)
