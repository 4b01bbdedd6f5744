"""What an outcome says about the remote, asked with the real packages and, as far as can be, their real errors.

Servers here are small and answer as told: HTTP by the path, gRPC by the request, Redis and PostgreSQL by the query.
Packages are loaded by name, since half of them ship no types; none is one that `failover` itself may import.
"""

from __future__ import annotations

import asyncio
import builtins
import concurrent.futures
import doctest
import importlib
import queue
import re
import socket
import socketserver
import sqlite3
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections import namedtuple
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import AsyncMock, MagicMock

import pytest

from failover.breaker import FAILURE, NEUTRAL, SUCCESS, CircuitBreaker, CircuitOpen, Verdict, failures
from failover.breaker.failures import FAILURE_STATUSES, classifier, classify

ROOT = Path(__file__).parents[2]
PACKAGES = {"aiohttp", "azure", "grpc", "httpx", "psycopg", "psycopg2", "pymysql", "redis", "requests"}
PACKAGES |= {"botocore", "google.api_core", "pymongo"}
PACKAGES |= {"asyncio", "sqlalchemy", "sqlite3", "ssl", "urllib3", "urllib.request"}

load = importlib.import_module


def outcome_of(call: Callable[..., object], *args: object, **options: Any) -> object:
    try:
        return call(*args, **options)
    except BaseException as error:
        return error


def kind(outcome: object) -> str:
    return type(outcome).__name__


# --- servers ------------------------------------------------------------------------------------------------------


@pytest.fixture
def nobody() -> int:
    """A port of loopback at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


class Answers(BaseHTTPRequestHandler):
    """`/503` is answered 503, `/cut` breaks off, `/loop` leads to itself, `/gzip` is none, `/text` is no JSON."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        word = self.path.split("/")[1].partition("?")[0]
        body = b"not what you think"
        self.send_response(int(word) if word.isdigit() else 302 if word == "loop" else 200)
        self.send_header("Content-Length", str(len(body) + (word == "cut")))
        self.send_header("Content-Type", "text/plain")
        if word == "loop":
            self.send_header("Location", "/loop")
        if word == "gzip":
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    do_HEAD = do_GET  # noqa: N815 (the base class asks for the name)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (the base class's name)
        pass


@contextmanager
def serving(server: socketserver.TCPServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield server.socket.getsockname()[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def web() -> Iterator[str]:
    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Answers)) as port:
        yield f"http://127.0.0.1:{port}"


@pytest.fixture
def mute() -> Iterator[str]:
    """Takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


# --- HTTP clients -------------------------------------------------------------------------------------------------


def by_requests(url: str) -> Any:
    answer = load("requests").get(url, timeout=0.3)
    answer.raise_for_status()
    return answer


def by_httpx(url: str) -> Any:
    answer = load("httpx").get(url, timeout=0.3, trust_env=False, follow_redirects=True)
    answer.raise_for_status()
    return answer


def by_aiohttp(url: str) -> Any:
    aiohttp = load("aiohttp")

    async def get() -> Any:
        limit = aiohttp.ClientTimeout(total=0.3)
        async with aiohttp.ClientSession(raise_for_status=True, timeout=limit) as session, session.get(url) as answer:
            await answer.read()
            return answer

    return asyncio.run(get())


def by_urllib(url: str) -> Any:
    with urllib.request.urlopen(url, timeout=0.3) as answer:  # noqa: S310 (our own server)
        answer.read()
        return answer


def by_urllib3(url: str) -> Any:
    return load("urllib3").PoolManager(retries=False, timeout=0.3).request("GET", url)


def by_azure(url: str) -> Any:
    client = load("azure.storage.blob").BlobClient(url, "container", "blob", retry_total=0, read_timeout=0.3)
    return client.download_blob().readall()


CLIENTS = [by_requests, by_httpx, by_aiohttp, by_urllib, by_urllib3, by_azure]
client = pytest.mark.parametrize("get", CLIENTS, ids=lambda get: get.__name__[3:])


@client
@pytest.mark.parametrize("status", [401, 403, 404, 408, 409, 412, 422, 429, 500, 501, 502, 503, 504])
def test_an_http_answer_is_judged_by_its_status(get: Callable[[str], Any], status: int, web: str) -> None:
    outcome = outcome_of(get, f"{web}/{status}")
    assert isinstance(outcome, BaseException) or get is by_urllib3
    assert classify(outcome) is (FAILURE if status in FAILURE_STATUSES else SUCCESS), kind(outcome)


@pytest.mark.parametrize("get", CLIENTS[:-1])
def test_a_good_answer_is_a_success(get: Callable[[str], Any], web: str) -> None:
    answer = get(f"{web}/200")
    assert 200 in (getattr(answer, "status_code", None), getattr(answer, "status", None))
    assert classify(answer) is SUCCESS


@client
def test_a_refused_connection_is_a_failure(get: Callable[[str], Any], nobody: int) -> None:
    outcome = outcome_of(get, f"http://127.0.0.1:{nobody}/200")
    assert isinstance(outcome, Exception)
    assert classify(outcome) is FAILURE, kind(outcome)


@client
def test_silence_is_a_failure(get: Callable[[str], Any], mute: str) -> None:
    outcome = outcome_of(get, f"{mute}/200")
    assert isinstance(outcome, Exception)
    assert classify(outcome) is FAILURE, kind(outcome)


@client
def test_a_body_that_breaks_off_is_a_failure(get: Callable[[str], Any], web: str) -> None:
    outcome = outcome_of(get, f"{web}/cut")
    assert isinstance(outcome, Exception)
    assert classify(outcome) is FAILURE, kind(outcome)


@pytest.mark.parametrize("get", [by_requests, by_httpx, by_aiohttp, by_urllib])
def test_a_loop_of_redirects_is_an_answer(get: Callable[[str], Any], web: str) -> None:
    outcome = outcome_of(get, f"{web}/loop")
    assert isinstance(outcome, Exception)
    assert classify(outcome) is SUCCESS, kind(outcome)


@pytest.mark.parametrize("get", [by_requests, by_httpx, by_urllib3])
def test_an_answer_under_a_wrong_encoding_is_an_answer(get: Callable[[str], Any], web: str) -> None:
    outcome = outcome_of(get, f"{web}/gzip")
    assert isinstance(outcome, Exception)
    assert classify(outcome) is SUCCESS, kind(outcome)


def test_text_where_json_was_due_is_a_failure_with_every_client(web: str) -> None:
    aiohttp = load("aiohttp")

    async def by_aiohttp() -> Any:
        async with aiohttp.ClientSession() as session, session.get(f"{web}/text") as answer:
            return await answer.json()

    texts = (lambda: by_requests(f"{web}/text").json(), lambda: by_httpx(f"{web}/text").json())
    for outcome in map(outcome_of, (*texts, lambda: asyncio.run(by_aiohttp()))):
        assert isinstance(outcome, Exception)
        assert classify(outcome) is FAILURE, kind(outcome)


@pytest.mark.parametrize(
    ("get", "url"),
    [
        (by_requests, "127.0.0.1/no/scheme"),
        (by_requests, "http://"),
        (by_requests, "gopher://127.0.0.1/"),
        (by_httpx, "gopher://127.0.0.1/"),
        (by_httpx, "http://127.0.0.1:port/"),
        (by_aiohttp, "http://"),
        (by_aiohttp, "gopher://127.0.0.1/"),
        (by_urllib3, "gopher://127.0.0.1/"),
        (by_urllib3, "http://127.0.0.1:port/"),
        (by_urllib, "http://127.0.0.1:port/"),
    ],
)
def test_a_url_that_cannot_be_asked_says_nothing_of_the_remote(get: Callable[[str], Any], url: str) -> None:
    outcome = outcome_of(get, url)
    assert isinstance(outcome, Exception)
    assert classify(outcome) is NEUTRAL, kind(outcome)


def test_a_request_that_was_never_sent_says_nothing_of_the_remote(mute: str, web: str) -> None:
    httpx, urllib3, requests = load("httpx"), load("urllib3"), load("requests")
    pool = urllib3.HTTPConnectionPool("127.0.0.1", 1, maxsize=1, block=True)
    pool.pool.get()  # its only place
    unanswered = HTTPConnection(mute.removeprefix("http://"))
    unanswered.request("GET", "/")

    async def one_too_many() -> None:
        limits, timeout = httpx.Limits(max_connections=1), httpx.Timeout(5, pool=0.1)
        async with httpx.AsyncClient(limits=limits, timeout=timeout, trust_env=False) as client:
            first = asyncio.create_task(client.get(mute))
            await asyncio.sleep(0.05)
            try:
                await client.get(mute)
            finally:
                first.cancel()
                await asyncio.gather(first, return_exceptions=True)

    def read_twice() -> None:
        with httpx.Client(trust_env=False).stream("GET", f"{web}/200") as answer:
            list(answer.iter_raw())
            list(answer.iter_raw())

    for call in (
        lambda: asyncio.run(one_too_many()),
        read_twice,
        lambda: httpx.get(web, headers={"a": "b\nc"}, trust_env=False),
        lambda: pool.request("GET", "/", pool_timeout=0.01, retries=False),
        lambda: requests.get(web, headers={"a": "b\nc"}, timeout=1),
        lambda: requests.post(web, json=float("nan"), timeout=1),
        lambda: unanswered.request("GET", "/"),
    ):
        outcome = outcome_of(call)
        assert isinstance(outcome, Exception)
        assert classify(outcome) is NEUTRAL, repr(outcome)
    unanswered.close()


def test_azure_errors_without_a_response() -> None:
    azure = load("azure.core.exceptions")
    expected = {
        FAILURE: "AzureError HttpResponseError ServiceRequestError ServiceResponseError ServiceResponseTimeoutError",
        SUCCESS: "DecodeError ResourceExistsError ResourceModifiedError ResourceNotFoundError",
        NEUTRAL: "ClientAuthenticationError SerializationError",
    }
    for verdict, names in expected.items():
        for name in names.split():
            assert classify(getattr(azure, name)("why")) is verdict, name
    no_credential = load("azure.identity").CredentialUnavailableError("no login")
    assert classify(no_credential) is NEUTRAL


def test_an_azure_body_that_breaks_off_is_a_failure_whatever_its_status() -> None:
    azure = load("azure.core.exceptions")
    response = SimpleNamespace(status_code=200, reason="OK")
    assert classify(azure.IncompleteReadError("cut", response=response)) is FAILURE
    assert classify(azure.DecodeError("no XML", response=response)) is SUCCESS
    assert classify(azure.HttpResponseError("not what was asked for", response=response)) is SUCCESS


@pytest.mark.parametrize("number", [True, 0, 99, 600, 4711, 503.0, "404", None])
def test_a_number_that_is_no_status_says_nothing(number: object) -> None:
    error: Any = RuntimeError()
    error.status_code = number
    assert classify(error) is FAILURE


def test_azure_tables(web: str) -> None:
    tables = load("azure.data.tables")
    credential = load("azure.core.credentials").AzureNamedKeyCredential("account", "a2V5")
    for word, verdict in (("404", SUCCESS), ("503", FAILURE)):
        table = tables.TableClient(f"{web}/{word}", "t", credential=credential, retry_total=0)
        outcome = outcome_of(table.get_entity, "p", "r")
        assert isinstance(outcome, load("azure.core.exceptions").HttpResponseError)
        assert classify(outcome) is verdict, repr(outcome)


# --- gRPC ---------------------------------------------------------------------------------------------------------

GRPC_FAILURES = {"DATA_LOSS", "DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "UNKNOWN"}


@pytest.fixture(scope="module")
def grpc_target() -> Iterator[str]:
    """A server whose `/s/code` ends with the status that the request names, and whose `/s/stream` stays open."""
    grpc = load("grpc")
    open_streams: queue.Queue[None] = queue.Queue()

    def code(request: bytes, context: Any) -> bytes:
        if request == b"OK":
            return b""
        context.abort(grpc.StatusCode[request.decode()], "as told")
        return b""

    def stream(request: bytes, context: Any) -> Iterator[bytes]:
        yield b"first"
        with suppress(queue.Empty):
            open_streams.get(timeout=10)

    handlers = {
        "code": grpc.unary_unary_rpc_method_handler(code),
        "stream": grpc.unary_stream_rpc_method_handler(stream),
    }
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("s", handlers),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    open_streams.put(None)
    server.stop(0).wait()


def test_each_grpc_status(grpc_target: str) -> None:
    grpc = load("grpc")

    async def by_aio(name: str) -> Any:
        async with grpc.aio.insecure_channel(grpc_target) as channel:
            return await channel.unary_unary("/s/code")(name.encode(), timeout=10)

    with grpc.insecure_channel(grpc_target) as channel:
        for code in grpc.StatusCode:
            name = code.name
            if name == "OK":
                continue
            verdict = NEUTRAL if name == "CANCELLED" else FAILURE if name in GRPC_FAILURES else SUCCESS
            sync = outcome_of(channel.unary_unary("/s/code"), name.encode(), timeout=10)
            aio = outcome_of(asyncio.run, by_aio(name))
            for outcome in (sync, aio):
                assert isinstance(outcome, grpc.RpcError)
                assert outcome.code() is code
                assert classify(outcome) is verdict, name


def test_grpc_to_a_closed_port_and_after_its_deadline(nobody: int, mute: str) -> None:
    grpc = load("grpc")
    for target in (f"127.0.0.1:{nobody}", mute.removeprefix("http://")):
        with grpc.insecure_channel(target) as channel:
            outcome = outcome_of(channel.unary_unary("/s/code"), b"OK", timeout=0.5)
            assert isinstance(outcome, grpc.RpcError)
            assert classify(outcome) is FAILURE
    assert classify(grpc.RpcError("without a code")) is FAILURE
    assert classify(grpc.FutureTimeoutError()) is FAILURE
    assert classify(grpc.FutureCancelledError()) is NEUTRAL


@pytest.mark.timeout(30)  # the fault would be to wait for the stream's end
def test_a_grpc_call_that_was_returned_is_no_error_and_is_not_waited_for(grpc_target: str) -> None:
    grpc = load("grpc")
    with grpc.insecure_channel(grpc_target) as channel:
        call = channel.unary_stream("/s/stream")(b"")
        assert isinstance(call, grpc.RpcError)
        assert classify(call) is SUCCESS
        assert next(call) == b"first"
        call.cancel()
        assert classify(call) is NEUTRAL
        done = channel.unary_unary("/s/code").future(b"OK")
        done.result(timeout=10)
        assert classify(done) is SUCCESS


# --- databases ----------------------------------------------------------------------------------------------------


def sqlite_error(*statements: str, file: str = ":memory:") -> Any:
    def run() -> None:
        connection = sqlite3.connect(file, timeout=0)
        try:
            for statement in statements:
                connection.execute(statement)
        finally:
            connection.close()

    return outcome_of(run)


@pytest.fixture
def without_codes(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """Takes SQLite's code from an error: Python 3.10 does not give it."""

    def strip(error: Any) -> Any:
        error.__dict__.pop("sqlite_errorcode", None)
        return error

    return strip


@pytest.mark.parametrize(
    "statements",
    [
        ("create table t (a unique)", "insert into t values (1)", "insert into t values (1)"),
        ("create table t (a not null)", "insert into t values (null)"),
        ("select * from t",),
        ("select a",),
        ("selec 1",),
        ("select '",),
        ("select (1",),
        ("create table t (a)", "create table t (a)"),
        ("create table t (a)", "insert into t (b) values (1)"),
        ("create table t (a)", "insert into t values (1, 2)"),
        ("select 1 union select 1, 2",),
        ("select abs()",),
        ("begin", "begin"),
        ("commit",),
    ],
)
def test_what_sqlite_says_of_sql_is_an_answer(statements: tuple[str, ...], without_codes: Callable[[Any], Any]) -> None:
    error = sqlite_error(*statements)
    assert isinstance(error, sqlite3.Error)
    assert classify(error) is SUCCESS, repr(error)
    assert classify(without_codes(error)) is SUCCESS, repr(error)


def test_an_sqlite_that_does_not_work_is_a_failure(tmp_path: Path, without_codes: Callable[[Any], Any]) -> None:
    locked, rubbish = tmp_path / "locked.db", tmp_path / "rubbish.db"
    rubbish.write_bytes(b"no database at all, but long enough to be looked at" * 30)
    holder = sqlite3.connect(locked)
    holder.execute("create table t (a)")
    holder.execute("begin exclusive")
    broken = [
        sqlite_error("insert into t values (1)", file=str(locked)),
        sqlite_error("select 1", file=str(tmp_path / "no" / "folder.db")),
        sqlite_error("select * from t", file=str(rubbish)),
    ]
    holder.close()
    for error in broken:
        assert isinstance(error, sqlite3.DatabaseError)
        assert classify(error) is FAILURE, repr(error)
        assert classify(without_codes(error)) is FAILURE, repr(error)


def test_what_the_caller_does_to_sqlite_says_nothing(without_codes: Callable[[Any], Any]) -> None:
    connection = sqlite3.connect(":memory:")
    connection.set_progress_handler(lambda: 1, 1)  # as interrupt() from another thread
    interrupted = outcome_of(lambda: connection.execute("select 1").fetchall())
    connection.close()
    closed = outcome_of(lambda: connection.execute("select 1"))
    assert str(interrupted) == "interrupted"
    assert isinstance(closed, sqlite3.ProgrammingError)
    for error in (interrupted, closed):
        assert classify(error) is NEUTRAL
        assert classify(without_codes(error)) is NEUTRAL


def test_sqlites_codes() -> None:
    expected = {FAILURE: (2, 3, 5, 7, 8, 10, 11, 13, 14, 15, 22, 26), NEUTRAL: (9, 21), SUCCESS: (1, 4, 6, 12, 17, 19)}
    for verdict, codes in expected.items():
        for code in codes:
            error: Any = sqlite3.OperationalError("as told")
            error.sqlite_errorcode = code | 3 << 8  # as extended codes are
            assert classify(error) is verdict, code


class Postgres(socketserver.StreamRequestHandler):
    """Lets anybody in and answers each query with the SQLSTATE that it consists of."""

    def message(self, kind: bytes, body: bytes) -> None:
        self.wfile.write(kind + struct.pack("!I", len(body) + 4) + body)

    def handle(self) -> None:
        with suppress(OSError, struct.error):
            while True:
                (length,) = struct.unpack("!I", self.rfile.read(4))
                if length != 8:  # the startup message; others ask for encryption
                    self.rfile.read(length - 4)
                    break
                self.rfile.read(4)
                self.wfile.write(b"N")
            self.message(b"R", struct.pack("!I", 0))
            for setting in ("client_encoding UTF8", "server_version 15.0", "standard_conforming_strings on"):
                self.message(b"S", setting.replace(" ", "\0").encode() + b"\0")
            self.message(b"Z", b"I")
            state = b""
            while True:
                kind = self.rfile.read(1)
                body = self.rfile.read(struct.unpack("!I", self.rfile.read(4))[0] - 4)
                if kind in b"PQ" and kind:
                    state = body.strip(b"\0").split(b"\0")[0]
                if kind not in (b"Q", b"S"):
                    continue
                if len(state) != 5 or state == b"BEGIN":  # the driver's own
                    self.message(b"C", state + b"\0")
                else:
                    self.message(b"E", b"SERROR\0VERROR\0C" + state + b"\0Mas told\0\0")
                self.message(b"Z", b"I")


@pytest.fixture(scope="module")
def postgres() -> Iterator[int]:
    class Server(socketserver.ThreadingTCPServer):
        daemon_threads = True

    with serving(Server(("127.0.0.1", 0), Postgres)) as port:
        yield port


SQLSTATES = {
    FAILURE: "08006 25006 40003 53300 53100 57014 57P01 57P03 58030 XX000",
    SUCCESS: "0A000 22012 23505 23503 25P02 28P01 3D000 40001 40P01 42601 42P01 55P03 P0001",
}


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2"])
def test_postgres_is_judged_by_its_sqlstate(driver: str, postgres: int, nobody: int) -> None:
    module = load(driver)

    def connect(port: int) -> Any:
        return module.connect(host="127.0.0.1", port=port, user="u", dbname="d", connect_timeout=5, sslmode="disable")

    refused = outcome_of(lambda: connect(nobody))
    assert isinstance(refused, module.OperationalError)
    assert classify(refused) is FAILURE
    connection = connect(postgres)
    connection.autocommit = True
    for verdict, states in SQLSTATES.items():
        for state in states.split():
            outcome = outcome_of(connection.cursor().execute, state)
            assert isinstance(outcome, module.Error)
            assert state in (getattr(outcome, "sqlstate", None), getattr(outcome, "pgcode", None))
            assert classify(outcome) is verdict, repr(outcome)
    connection.close()
    closed = outcome_of(lambda: connection.cursor().execute("select 1"))
    assert isinstance(closed, module.Error)
    assert classify(closed) is FAILURE
    assert classify(module.ProgrammingError("can't adapt type")) is NEUTRAL
    assert classify(module.IntegrityError("no code")) is SUCCESS


def test_mysql_is_judged_by_its_number(nobody: int) -> None:
    pymysql = load("pymysql")

    def said(number: int) -> Any:
        packet = b"\xff" + struct.pack("<H", number) + b"#HY000as told"
        return outcome_of(lambda: pymysql.err.raise_mysql_exception(packet))

    expected = {
        FAILURE: (126, 1040, 1053, 1158, 1203, 1290, 1317, 2006, 2013, 3024),
        # 1062: a unique key. 1205, 1213: a lock's time-out, a deadlock. 1045, 1049, 1054, 1064, 1146: wrong SQL.
        SUCCESS: (1045, 1049, 1054, 1062, 1064, 1146, 1205, 1213, 1406, 1452, 3819),
    }
    for verdict, numbers in expected.items():
        for number in numbers:
            assert classify(said(number)) is verdict, number
    assert isinstance(said(1062), pymysql.IntegrityError)
    assert isinstance(said(1213), pymysql.OperationalError)
    refused = outcome_of(lambda: pymysql.connect(host="127.0.0.1", port=nobody))
    assert isinstance(refused, pymysql.OperationalError)
    assert classify(refused) is FAILURE
    assert classify(pymysql.InterfaceError(0, "")) is FAILURE
    assert classify(pymysql.ProgrammingError("execute() first")) is NEUTRAL


@pytest.fixture
def pyodbc() -> SimpleNamespace:
    """pyodbc's error classes, made by hand: the real ones do not load without the system's ODBC driver manager."""
    classes: dict[str, type[Exception]] = {}
    for base, names in (
        (None, "Error"),
        ("Error", "InterfaceError DatabaseError"),
        ("DatabaseError", "DataError IntegrityError InternalError NotSupportedError OperationalError ProgrammingError"),
    ):
        for name in names.split():
            classes[name] = type(name, (classes[base] if base else Exception,), {"__module__": "pyodbc"})
    return SimpleNamespace(**classes)


def test_odbc_is_judged_by_its_sqlstate(pyodbc: SimpleNamespace) -> None:
    for name, state, verdict in (
        ("InterfaceError", "IM002", NEUTRAL),  # the driver manager's own: it has no such data source
        ("OperationalError", "08001", FAILURE),
        ("OperationalError", "HYT00", FAILURE),
        ("OperationalError", "HY008", NEUTRAL),
        ("InterfaceError", "28000", SUCCESS),
        ("IntegrityError", "23000", SUCCESS),
        ("ProgrammingError", "42S02", SUCCESS),
        ("Error", "40001", SUCCESS),
        ("Error", "HY000", FAILURE),
        ("Error", "01000", FAILURE),  # as when the driver's library cannot be opened
        ("ProgrammingError", "HY000", NEUTRAL),
    ):
        assert classify(getattr(pyodbc, name)(state, f"[{state}] as told")) is verdict, state
    for message in ("Attempt to use a closed connection.", "Wrong"):
        assert classify(pyodbc.ProgrammingError(message)) is NEUTRAL


def test_sqlalchemy_is_judged_by_what_it_wraps(nobody: int) -> None:
    sqlalchemy = load("sqlalchemy")
    engine = sqlalchemy.create_engine("sqlite://")

    def run(*statements: str) -> Any:
        def steps() -> None:
            with engine.connect() as connection:
                for statement in statements:
                    connection.execute(sqlalchemy.text(statement))

        return outcome_of(steps)

    unique = run("create table t (a unique)", "insert into t values (1)", "insert into t values (1)")
    assert isinstance(unique, sqlalchemy.exc.IntegrityError)
    assert classify(unique) is SUCCESS
    assert classify(run("select * from nowhere")) is SUCCESS
    engine.dispose()
    down = sqlalchemy.create_engine(f"postgresql+psycopg://u@127.0.0.1:{nobody}/d")
    refused = outcome_of(down.connect)
    assert isinstance(refused, sqlalchemy.exc.OperationalError)
    assert classify(refused) is FAILURE


# --- Redis --------------------------------------------------------------------------------------------------------


class RedisServer(socketserver.StreamRequestHandler):
    """Answers `GET word` with `-word`, and anything else with OK."""

    def handle(self) -> None:
        with suppress(OSError, ValueError):
            while header := self.rfile.readline():
                words = []
                for _ in range(int(header[1:])):
                    size = int(self.rfile.readline()[1:])
                    words.append(self.rfile.read(size + 2)[:-2])
                self.wfile.write(b"-%s\r\n" % words[1] if words[0] == b"GET" else b"+OK\r\n")


def redis_client(port: int) -> Any:
    once = load("redis.retry").Retry(load("redis.backoff").NoBackoff(), 0)
    return load("redis").Redis(
        host="127.0.0.1", port=port, retry=once, protocol=2, socket_timeout=0.3, socket_connect_timeout=5
    )


def test_redis(nobody: int, mute: str) -> None:
    redis = load("redis")
    expected = {
        FAILURE: "LOADING CLUSTERDOWN MASTERDOWN OOM READONLY",
        SUCCESS: "WRONGTYPE NOPERM NOSCRIPT EXECABORT TRYAGAIN WRONGPASS NOAUTH",
    }
    with serving(socketserver.ThreadingTCPServer(("127.0.0.1", 0), RedisServer)) as port:
        client = redis_client(port)
        for verdict, words in expected.items():
            for word in words.split():
                outcome = outcome_of(client.get, f"{word} as told")
                assert isinstance(outcome, redis.RedisError)
                assert classify(outcome) is verdict, repr(outcome)
        assert classify(outcome_of(lambda: client.set("key", object()))) is NEUTRAL  # DataError: it was not sent
        client.close()
    with redis_client(nobody) as client:
        refused = outcome_of(client.ping)
    with redis_client(int(mute.rpartition(":")[2])) as client:
        silent = outcome_of(client.ping)
    assert isinstance(refused, redis.ConnectionError)
    assert isinstance(silent, redis.TimeoutError)
    assert (classify(refused), classify(silent)) == (FAILURE, FAILURE)
    assert classify(redis.BusyLoadingError()) is FAILURE
    assert classify(redis.WatchError()) is SUCCESS
    assert classify(redis.MaxConnectionsError()) is NEUTRAL


# --- the standard library -----------------------------------------------------------------------------------------


def test_sockets(nobody: int, mute: str) -> None:
    port = int(mute.rpartition(":")[2])

    def by_tls() -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=0.2) as plain:
            ssl.create_default_context().wrap_socket(plain, server_hostname="localhost")

    for call in (
        lambda: socket.create_connection(("127.0.0.1", nobody), timeout=1),
        lambda: socket.getaddrinfo("no-such-host.invalid", 80),
        lambda: socket.create_connection(("127.0.0.1", port), timeout=0.2).recv(1),
        by_tls,
    ):
        outcome = outcome_of(call)
        assert isinstance(outcome, OSError)
        assert classify(outcome) is FAILURE, repr(outcome)


@pytest.mark.parametrize(
    "error",
    [
        TimeoutError(),
        asyncio.TimeoutError(),  # until Python 3.11 each of these three is another class
        concurrent.futures.TimeoutError(),
        ConnectionResetError(),
        BrokenPipeError(),
        ssl.SSLError(),
        ssl.SSLCertVerificationError(),
        EOFError(),
        HTTPException(),
        urllib.error.URLError("no route"),
        OSError(113, "No route to host"),
        # An exception that nobody knows.
        Exception(),
        ValueError("invalid"),
        KeyError("key"),
        AssertionError(),
        type("DataError", (type("Error", (Exception,), {}),), {})(),
    ],
    ids=repr,
)
def test_an_exception_that_nobody_knows_is_a_failure(error: Exception) -> None:
    assert classify(error) is FAILURE


def test_an_error_about_a_file_says_nothing_of_a_remote(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for call in (
        lambda: (tmp_path / "nothing").read_bytes(),
        lambda: (tmp_path / "file").mkdir(),
        lambda: (tmp_path / "nothing").rmdir(),
    ):
        outcome = outcome_of(call)
        assert isinstance(outcome, OSError)
        assert classify(outcome) is NEUTRAL
    for kind in (FileExistsError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError):
        assert classify(kind(1, "why", "file")) is NEUTRAL
        assert classify(kind(1, "why")) is FAILURE


def test_a_socket_at_a_path_where_nobody_listens_is_a_failure() -> None:
    outcome: object = FileNotFoundError(2, "No such file or directory")
    if hasattr(socket, "AF_UNIX"):  # not on Windows
        with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as client:
            outcome = outcome_of(client.connect, f"{folder}/nobody")
    assert isinstance(outcome, FileNotFoundError)
    assert classify(outcome) is FAILURE


@pytest.mark.parametrize("error", [asyncio.CancelledError(), concurrent.futures.CancelledError(), KeyboardInterrupt()])
def test_cancellation_is_neutral_here_too(error: BaseException) -> None:
    assert classify(error) is NEUTRAL


def test_the_open_circuit_of_another_remote_is_a_failure() -> None:
    inner = CircuitBreaker("inner")
    inner.trip()
    outcome = outcome_of(lambda: inner.call(lambda: None))
    assert isinstance(outcome, CircuitOpen)
    assert classify(outcome) is FAILURE


# --- clouds and MongoDB: what their clients make of an answer, without a server ---------------------------------------


@pytest.mark.parametrize(
    ("code", "status", "verdict"),
    [
        ("NoSuchKey", 404, SUCCESS),
        ("404", 404, SUCCESS),  # of a HEAD, whose answer has no body
        ("PreconditionFailed", 412, SUCCESS),
        ("ConditionalCheckFailedException", 400, SUCCESS),
        ("AccessDenied", 403, SUCCESS),
        ("SlowDown", 503, FAILURE),
        ("InternalError", 500, FAILURE),
        ("Throttling", 400, FAILURE),
        ("ProvisionedThroughputExceededException", 400, FAILURE),
        ("412", None, SUCCESS),
        ("500", None, FAILURE),
        ("", None, FAILURE),
    ],
)
def test_botocore_is_judged_by_the_status_in_its_answer(code: str, status: int | None, verdict: Verdict) -> None:
    answer = {"Error": {"Code": code}, "ResponseMetadata": {} if status is None else {"HTTPStatusCode": status}}
    assert classify(load("botocore.exceptions").ClientError(answer, "GetObject")) is verdict


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("NotFound", SUCCESS),
        ("AlreadyExists", SUCCESS),
        ("Conflict", SUCCESS),
        ("PreconditionFailed", SUCCESS),
        ("PermissionDenied", SUCCESS),
        ("Aborted", SUCCESS),
        ("Cancelled", NEUTRAL),
        ("TooManyRequests", FAILURE),
        ("ServiceUnavailable", FAILURE),
        ("DeadlineExceeded", FAILURE),
        ("Unknown", FAILURE),
        ("GoogleAPICallError", FAILURE),
    ],
)
def test_google_is_judged_by_the_status_of_its_class(name: str, verdict: Verdict) -> None:
    assert classify(getattr(load("google.api_core.exceptions"), name)("it says")) is verdict


@pytest.mark.parametrize(
    ("name", "code", "verdict"),
    [
        ("DuplicateKeyError", 11000, SUCCESS),
        ("OperationFailure", 13, SUCCESS),  # not allowed
        ("WriteError", 121, SUCCESS),  # a document that does not fit its schema
        ("CursorNotFound", 43, SUCCESS),
        ("OperationFailure", 10107, FAILURE),  # not the primary any more
        ("OperationFailure", 91, FAILURE),  # shutting down
        ("ExecutionTimeout", 50, FAILURE),
        ("AutoReconnect", None, FAILURE),
        ("NotPrimaryError", None, FAILURE),
        ("NetworkTimeout", None, FAILURE),
        ("ServerSelectionTimeoutError", None, FAILURE),
        ("InvalidURI", None, NEUTRAL),
    ],
)
def test_mongodb_is_judged_by_its_code(name: str, code: int | None, verdict: Verdict) -> None:
    make = getattr(load("pymongo.errors"), name)
    assert classify(make("it says") if code is None else make("it says", code)) is verdict


MODULES = {
    "aiohttp": "aiohttp.client_exceptions",
    "azure": "azure.core.exceptions",
    "botocore": "botocore.exceptions",
    "failover": "failover.breaker",
    "http": "http.client",
    "pymongo": "pymongo.errors",
    "redis": "redis.exceptions",
    "requests": "requests.exceptions",
    "urllib3": "urllib3.exceptions",
}
BY_NAME = sorted(key for key, rule in failures._KNOWN.items() if isinstance(rule, Verdict))


@pytest.mark.parametrize(("package", "name"), BY_NAME, ids=".".join)
def test_each_class_of_the_tables_is_there_and_judged_as_they_say(package: str, name: str) -> None:
    module = load(MODULES.get(package, package))
    real: Any = getattr(module, name)
    derived: Any = type("OnesOwn", (real,), {})
    for each in (real, derived):
        assert classify(each.__new__(each)) is failures._KNOWN[package, name]


@pytest.fixture
def group() -> Any:
    if sys.version_info >= (3, 11):
        return vars(builtins)["ExceptionGroup"]
    return load("exceptiongroup").ExceptionGroup  # pytest needs it there


def test_a_group_is_judged_by_its_members(group: Any) -> None:
    answer, down, nothing = sqlite3.IntegrityError(), ConnectionResetError(), concurrent.futures.CancelledError()
    assert classify(group("g", [answer, down, nothing])) is FAILURE
    assert classify(group("g", [answer, nothing])) is SUCCESS
    assert classify(group("g", [nothing])) is NEUTRAL
    assert classify(group("g", [group("inner", [answer, group("innermost", [down])])])) is FAILURE
    deep = group("g", [nothing])
    for _ in range(5000):
        deep = group("g", [deep])
    assert isinstance(classify(deep), Verdict)


def test_a_cause_is_not_followed() -> None:
    wrapped = ValueError("what the library makes of it")
    wrapped.__cause__ = sqlite3.IntegrityError()
    assert classify(wrapped) is FAILURE


# --- results ------------------------------------------------------------------------------------------------------


@dataclass
class Row:
    status: int = 503
    code: int = 503


@dataclass(frozen=True, slots=True)  # no __dict__
class Answer:
    status_code: int


Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    "result",
    [
        *(None, 503, 1.5, "503", b"", {"status_code": 503}, [503], (503,), Pair(1, 2), iter(())),
        *(Row(), Row, object(), len, sys, Verdict, HTTPStatus.SERVICE_UNAVAILABLE),
        *(SimpleNamespace(status_code=status, code=503) for status in ("503", 503.0, None, True, 204)),
    ],
    ids=lambda result: re.sub(" at 0x.*", "", repr(result)),
)
def test_an_ordinary_result_is_a_success(result: object) -> None:
    for _ in range(2):  # new to the classifier, and known
        assert classify(result) is SUCCESS


@pytest.mark.parametrize("status", sorted(FAILURE_STATUSES))
@pytest.mark.parametrize(
    "make",
    [
        Answer,
        lambda status: SimpleNamespace(status_code=status),
        lambda status: SimpleNamespace(status_code=HTTPStatus(status)),
        lambda status: SimpleNamespace(status=status, headers={}),
        lambda status: SimpleNamespace(status="503 as text", code=status, headers={}),
        lambda status: MagicMock(status_code=status),
    ],
)
def test_a_result_with_the_status_of_a_failure_is_a_failure(make: Callable[[int], object], status: int) -> None:
    for _ in range(2):
        assert classify(make(status)) is FAILURE
    assert classify(make(404)) is SUCCESS


@pytest.mark.parametrize("mock", [MagicMock, AsyncMock])
def test_an_object_that_answers_everything_is_not_asked(mock: Any) -> None:
    result = mock()
    assert classify(result) is SUCCESS
    assert not result.mock_calls
    assert not result._mock_children


def test_a_proxy_is_not_asked() -> None:
    asked = []

    class Proxy:
        def __getattr__(self, name: str) -> int:
            asked.append(name)
            return 503

    class Deep:
        def __getattribute__(self, name: str) -> Any:
            asked.append(name)
            return 503

    for result in (Proxy(), Deep()):
        assert classify(result) is SUCCESS
    assert not asked


def bad(*_: object) -> Any:  # in the place of any method or property
    raise RuntimeError("hostile")


class RaisingMeta(type):
    __eq__ = __hash__ = bad
    __mro__ = property(bad)


HOSTILE: dict[str, Any] = {
    "__class__": property(bad),
    "__getattr__": bad,
    "__getattribute__": bad,
    "__eq__": bad,
    "__hash__": bad,
    "__bool__": bad,
    "__str__": bad,
    "__repr__": bad,
    **dict.fromkeys(("status_code", "status", "headers", "response", "sqlstate", "filename"), property(bad)),
}


@pytest.mark.parametrize("without", [(), ("__getattr__", "__getattribute__")])
def test_it_never_raises(without: tuple[str, ...]) -> None:
    members = {name: value for name, value in HOSTILE.items() if name not in without}
    for base, verdict in ((object, SUCCESS), (Exception, FAILURE), (FileNotFoundError, FAILURE)):
        for meta in (type, RaisingMeta):
            hostile = meta("Hostile", (base,), dict(members))
            assert classify(hostile()) is verdict, (base, meta)
    number = type("Number", (int,), {"__eq__": bad, "__hash__": bad, "__le__": bad, "__ge__": bad})
    assert classify(SimpleNamespace(status_code=number(503))) is SUCCESS
    error = RuntimeError()
    error.status_code = number(503)  # type: ignore[attr-defined]  # of somebody's own
    assert classify(error) is FAILURE


def test_types_made_while_the_program_runs_do_not_pile_up() -> None:
    for _ in range(3 * failures._MOST_TYPES):
        assert classify(type("Made", (), {})()) is SUCCESS
        assert classify(type("Plain", (), {"__slots__": ()})()) is SUCCESS
    assert len(failures._judges) <= failures._MOST_TYPES
    assert len(failures.PLAIN) <= 2 * failures._MOST_TYPES
    assert {int, str, type(None)} <= failures.PLAIN
    assert classify(Answer(503)) is FAILURE


# --- one's own ----------------------------------------------------------------------------------------------------


def test_ones_own_predicates_go_first() -> None:
    def never(outcome: object) -> Verdict | None:
        return None

    def keys(outcome: object) -> Verdict | None:
        return SUCCESS if isinstance(outcome, KeyError) else None

    def all_neutral(outcome: object) -> Verdict | None:
        return NEUTRAL

    assert classifier(never, keys)(KeyError()) is SUCCESS
    assert classifier(never, keys)(ValueError()) is FAILURE
    assert classifier(never, keys)(None) is SUCCESS
    assert classifier(keys, all_neutral)(KeyError()) is SUCCESS
    assert classifier(all_neutral, keys)(KeyError()) is NEUTRAL
    assert classifier(keys, then=lambda _: NEUTRAL)(ValueError()) is NEUTRAL
    assert classifier()(ValueError()) is FAILURE


def test_the_docstrings_examples_are_true() -> None:
    found = doctest.testmod(failures)
    assert found.attempted
    assert not found.failed


def test_none_of_these_packages_is_imported() -> None:
    code = f"""if True:
        import sys
        import failover.breaker
        failover.breaker.failures.classify(ConnectionResetError())
        print(*({PACKAGES!r} & set(sys.modules)))"""
    # Unlike in test_imports.py, they are all installed there.
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not done.stdout.split()
