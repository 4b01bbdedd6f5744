"""The real command as its user starts it, with everything wrong that can be: bad settings, broken parts, signals.

What the pseudo-terminal is needed for (resizing, hanging up, Ctrl-C in the pause) is tested elsewhere.
"""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import queue
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from azure.storage.blob import AccountSasPermissions, ResourceTypes, Services, generate_account_sas

from failover import cli
from failover.demo import events as ev
from failover.demo.account import CONNECTION_STRING, SETTINGS, Account, find_account
from failover.demo.client import connect, make_transport
from failover.demo.config import RunConfig
from failover.demo.faults import Fault, FaultTransport
from failover.demo.run import BLOB, Demo
from failover.demo.settings import REPLICA_WAIT, STATE, STATE_URL
from failover.standin import Exchange, StandIn
from tests.program import CONTAINER, PROGRAM, is_gone, wait_until
from tests.proxy import Proxy
from tests.servers import Account as Server
from tests.servers import Azurite, FakeToken, credential

SECONDS = 60.0  # for what takes one or two on an idle machine
KEY = base64.b64encode(b"the key that nobody may see, whatever happens to it").decode()
EVERYTHING = frozenset({"read", "write", "delete", "list", "add", "create"})

pytestmark = pytest.mark.program
posix = pytest.mark.skipif(os.name == "nt", reason="POSIX signals and shells")


# --- running it -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    code: int
    out: str
    err: str

    def check(self, *hidden: str) -> Ended:
        """What holds for every run: no traceback, no complaint of the interpreter's, no secret, no escape sequence."""
        for text in (self.out, self.err):
            assert "Traceback" not in text
            assert "Exception ignored" not in text
            assert "Fatal Python error" not in text
            assert "\x1b" not in text
            for secret in (KEY, *hidden):
                assert secret not in text
        return self

    def refused(self, *words: str, hidden: tuple[str, ...] = ()) -> str:
        """Exit 2 and exactly one line on stderr, in which each of `words` stands."""
        self.check(*hidden)
        assert self.code == 2, self
        assert re.fullmatch(r"circuitbreaker\.py: [^\n]+\n", self.err), self
        for word in words:
            assert word in self.err
        return self.err


@dataclass
class Runner:
    """Starts the command in an empty folder with an empty home and nothing of ours in its environment."""

    folder: Path
    home: Path
    started: list[Process] = field(default_factory=list)

    def environment(self, more: Mapping[str, str]) -> dict[str, str]:
        kept = {name: os.environ[name] for name in ("PATH", "SYSTEMROOT", "TEMP", "TMP") if name in os.environ}
        return {**kept, "HOME": str(self.home), "USERPROFILE": str(self.home), "PYTHONIOENCODING": "utf-8", **more}

    def start(self, *options: str, bash: str | None = None, **more: str) -> Process:
        """`bash`: a line in which "$@" stands for the command."""
        command = [sys.executable, str(PROGRAM), *options]
        if bash is not None:
            command = ["bash", "-c", bash, "bash", *command]
        process = Process(command, self.folder, self.environment(more))
        self.started.append(process)
        return process

    def __call__(self, *options: str, bash: str | None = None, **more: str) -> Ended:
        return self.start(*options, bash=bash, **more).wait()


class Process:
    """One run whose output is read as it comes."""

    def __init__(self, command: list[str], folder: Path, environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
        )
        self.out = self.err = ""
        self._news: queue.Queue[None] = queue.Queue()
        self._readers = [threading.Thread(target=self._read, args=(name,), daemon=True) for name in ("out", "err")]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str) -> None:
        stream = self._process.stdout if name == "out" else self._process.stderr
        assert stream is not None
        for line in stream:
            setattr(self, name, getattr(self, name) + line)
        stream.close()

    def until(self, *words: str) -> None:
        wait_until(lambda: any(word in self.out for word in words) or self._process.poll() is not None, words[0])
        assert any(word in self.out for word in words), (self.out, self.err)

    def send(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self) -> Ended:
        try:
            code = self._process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            raise
        for reader in self._readers:
            reader.join(SECONDS)
        return Ended(code, self.out, self.err)

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Runner]:
    runner = Runner(tmp_path / "here", tmp_path / "home")
    runner.folder.mkdir()
    runner.home.mkdir()
    yield runner
    for process in runner.started:
        process.end()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Runs the command in this process, which takes a hundredth of the time, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*options: str, **settings: str) -> Ended:
        with monkeypatch.context() as patch:
            for name in (*SETTINGS, REPLICA_WAIT):
                patch.delenv(name, raising=False)
            for name, value in settings.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as caught:
                cli.app(options)
        return Ended(int(caught.value.code or 0), *capsys.readouterr())

    return run


@pytest.fixture
def dead_port() -> Iterator[int]:
    """A port that is ours and does not listen."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def string(server: Server, *, key: str | None = None) -> dict[str, str]:
    """The settings for a real account at this server."""
    return {
        CONNECTION_STRING: (
            f"AccountName={server.account_name};AccountKey={key or server.account_key};"
            f"BlobEndpoint={server.primary_url};BlobSecondaryEndpoint={server.secondary_url}"
        )
    }


def sas(server: Server, *permissions: str, service: bool = True) -> dict[str, str]:
    """The settings with an account SAS that has these permissions and no others."""
    token = generate_account_sas(
        server.account_name,
        server.account_key,
        ResourceTypes(service=service, container=True, object=True),
        AccountSasPermissions(**dict.fromkeys(permissions, True)),
        dt.datetime.now(dt.timezone.utc) + dt.timedelta(hours=1),
        services=Services(blob=True),
    )
    return {"AZURE_STORAGE_SERVICE_ENDPOINT": server.primary_url, "AZURE_STORAGE_SAS_TOKEN": token}


def containers(run: Ended | StandIn) -> set[str]:
    """The names of the containers that runs made, by their own words or by the stand-in's."""
    text = run.out if isinstance(run, Ended) else " ".join(hit.path for hit in run.hits)
    return set(CONTAINER.findall(text))


# --- options --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--requests", "-1"], ["--requests"]),
        (["--requests", "many"], ["--requests", "'many': must be a whole number from 0."]),
        (["--pause-every", "3.5"], ["--pause-every", "'3.5': must be a whole number from 0."]),
        (["--rate", "fast"], ["--rate", "'fast' is not a number"]),
        (["--fail", "9:3"], ["--fail", "FIRST comes before LAST"]),
        (["--fail", "x"], ["--fail", "201:400"]),
        (["--fail", "1:" + "9" * 5000], ["--fail", "201:400"]),
        (["--fault", "fire"], ["--fault", "503"]),
        (["--rate", "nan"], ["--rate", "finite"]),
        (["--timeout", "inf"], ["--timeout", "seconds"]),
        (["--timeout", "1e12"], ["--timeout", "86400"]),
        (["--cooldown", "0"], ["--cooldown", "above 0"]),
        (["--timeout", "5e-324"], ["--timeout", "0.001 at least"]),
        (["--replication-lag", "-1"], ["--replication-lag", "from 0"]),
        (["--retry-threshold", "0"], ["--retry-threshold"]),
        (["--report", "run.png"], ["--report", "run.svg"]),
        (["--proxy", "localhost:8888"], ["--proxy", "http://127.0.0.1:8888"]),
        (["--proxy", "ftp://me:hidden@127.0.0.1"], ["--proxy", "http://127.0.0.1:8888"]),
        (["--proxy", "http://me:hidden@127.0.0.1:x"], ["--proxy", "http://127.0.0.1:8888"]),
    ],
)
def test_an_option_that_is_wrong_is_named(here: Callable[..., Ended], options: list[str], words: list[str]) -> None:
    here(*options).refused(*words, hidden=("hidden",))


def test_a_wrong_fault_is_told_the_choices_and_nothing_of_our_insides(run: Runner) -> None:
    ended = run("--fault", "fire")
    ended.refused()
    told = "Invalid value for '--fault': 'fire': choose 503, timeout, reset, slow or down."
    assert ended.err == f"circuitbreaker.py: {told}\n"


def test_an_option_that_there_is_not(run: Runner) -> None:
    run("--requsts", "3").refused("No such option: --requsts", "--requests")
    run("--requests").refused("--requests")
    run("more").refused("more")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--replication-lag", "100"], ["--replication-lag 100", "60 s", "FAILOVER_REPLICA_WAIT_SECONDS"]),
        (["--replication-lag", "60"], ["--replication-lag 60"]),
        (["--fail", "30:40", "--requests", "20"], ["--fail 30:40", "--requests is 20"]),
        (["--fail", "5:6", "--fail", "1001:2000"], ["--fail 1001:2000", "--requests is 1000"]),
        (["--hedge", "2"], ["--hedge 2 does nothing", "--timeout 2"]),
        (["--hedge", "0.5", "--timeout", "0.4"], ["--hedge 0.5 does nothing", "--timeout 0.4"]),
        (["--secondary-threshold", "20", "--cooldown", "3"], ["--secondary-threshold does nothing beside --cooldown"]),
    ],
)
def test_what_could_not_come_true_is_refused_before_anything_begins(
    here: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch, options: list[str], words: list[str]
) -> None:
    def start(lag: float) -> StandIn:
        raise AssertionError("the stand-in account was started")

    monkeypatch.setattr(cli, "start_stand_in", start)
    ended = here(*options)
    ended.refused(*words)
    assert ended.out == ""


def test_what_reaches_just_so_far_is_not_refused(run: Runner) -> None:
    ended = run("--requests", "20", "--fail", "20:400", "--replication-lag", "0.1", FAILOVER_REPLICA_WAIT_SECONDS="20")
    assert (ended.code, ended.err) == (0, "")
    endless = run("--requests", "0", "--fail", "99:400", "--replication-lag", "0", bash='"$@" | head -3')
    assert endless.err == ""


GROUPS = {
    "Options": {"--version", "--install-completion", "--show-completion", "--help"},
    "What is read": {"--requests", "--pause-every", "--rate", "--replication-lag"},
    "The circuit": {"--retry-threshold", "--secondary-threshold", "--cooldown", "--timeout", "--hedge", "--state"},
    "Faults": {"--fault", "--fail"},
    "Your account": {"--proxy", "--ca-bundle", "--clean-up", "--older-than"},
    "Output": {"--plain", "--log", "--report"},
}
DEFAULTS = {
    "--requests": "1000",
    "--pause-every": "200",
    "--rate": "(25 live, 0 plain)",
    "--retry-threshold": "5",
    "--secondary-threshold": "20",
    "--timeout": "2.0",
    "--fault": "503",
    "--replication-lag": "(1.0)",
    "--state": "(memory://)",
    "--plain": "(live on a terminal, else plain)",
    "--older-than": "300.0",
}


@pytest.mark.parametrize("option", ["--help", "-h"])
def test_help_fits_a_terminal_and_tells_every_default_in_groups(run: Runner, option: str) -> None:
    ended = run(option, COLUMNS="80").check()
    assert (ended.code, ended.err) == (0, "")
    assert max(map(len, ended.out.splitlines())) <= 80
    panels = dict(re.findall(r"^╭─ (.+?) ─+╮\n(.*?)^╰", ended.out, re.MULTILINE | re.DOTALL))
    found: dict[str, set[str]] = {}
    told: dict[str, str] = {}
    for name, panel in panels.items():
        inner = re.sub(r"^│(.*)│$", r"\1", panel, flags=re.MULTILINE)
        blocks = [re.sub(r"\s+", " ", each) for each in re.split(r"^ (?=--)", inner, flags=re.MULTILINE)[1:]]
        found[name] = {each.split()[0] for each in blocks}
        told |= {each.split()[0]: at[1] for each in blocks if (at := re.search(r"\[default: ([^];]*)", each))}
    assert found == GROUPS
    assert told == DEFAULTS


def test_help_has_examples_that_are_commands_exit_codes_and_the_environment(run: Runner) -> None:
    out = run("--help", COLUMNS="80").out
    examples = re.findall(r"^   circuitbreaker\.py(.*)$", out, re.MULTILINE)
    known = set().union(*GROUPS.values())
    assert len(examples) >= 3
    assert {word for each in examples for word in each.split() if word.startswith("--")} <= known
    codes = {int(each) for each in re.findall(r"^   (\d+)  +\S", out, re.MULTILINE)}
    assert codes == {each.value for each in cli.Exit}
    for name in (*SETTINGS, REPLICA_WAIT, STATE_URL, STATE):
        assert name in out


@posix
def test_a_shell_completes_options_and_faults(run: Runner, tmp_path: Path) -> None:
    command = tmp_path / "ra-grs-failover"
    command.write_text(f"#!{sys.executable}\nfrom failover.__main__ import main\nmain()\n")
    command.chmod(0o755)
    settings = {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(PROGRAM.parent)}
    for typed, offered in (("--se", ["--secondary-threshold"]), ("--fault re", ["reset"])):
        words = f"ra-grs-failover {typed}"
        line = (
            'eval "$(_RA_GRS_FAILOVER_COMPLETE=source_bash ra-grs-failover)"; '
            f"COMP_WORDS=({words}); COMP_CWORD={len(words.split()) - 1}; "
            "_ra_grs_failover_completion ra-grs-failover; echo ${COMPREPLY[@]}"
        )
        ended = run(bash=line, **settings).check()
        assert (ended.out.split(), ended.err) == (offered, "")


def test_version(run: Runner) -> None:
    assert run("--version") == Ended(0, "circuitbreaker.py 0.1.0\n", "")


def test_options_that_do_not_fit(here: Callable[..., Ended], standin: StandIn, tmp_path: Path) -> None:
    here("--live").refused("--live needs a terminal", "--plain")
    here("--fault", "down", **string(standin)).refused("--fault down needs the stand-in", "--fault reset")
    here("--replication-lag", "1", **string(standin)).refused("--replication-lag is the stand-in account's")
    here(FAILOVER_REPLICA_WAIT_SECONDS="soon").refused("FAILOVER_REPLICA_WAIT_SECONDS must be a number")
    for option, file in (("--log", "x.log"), ("--report", "x.svg")):
        here(option, str(tmp_path / "nowhere" / file)).refused(option, "nowhere", "cannot be written", "folder")
    here("--log", "run.svg", "--report", "./run.svg").refused("--log and --report name one file")
    assert not standin.hits


def test_certificates_that_are_none(here: Callable[..., Ended], tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n")
    here("--ca-bundle", str(tmp_path / "none.pem")).refused("--ca-bundle", "none.pem", "No such file")
    here("--ca-bundle", str(garbage)).refused("neither a PEM nor a DER certificate", "Export")


# --- settings -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({CONNECTION_STRING: KEY}, ["malformed", "Access keys"]),
        ({CONNECTION_STRING: "AccountName=me;AccountKey=short!"}, ["AccountName", "3 to 24"]),
        ({CONNECTION_STRING: "AccountName=myaccount;AccountKey=short!"}, ["AccountKey", "not base64", "copy"]),
        ({CONNECTION_STRING: f"AccountName=mine;AccountKey={KEY}", "AZURE_STORAGE_ACCOUNT": "other"}, ["disagree"]),
        ({"AZURE_STORAGE_ACCOUNT": KEY, "AZURE_STORAGE_KEY": KEY}, ["AZURE_STORAGE_ACCOUNT is no account name"]),
        ({"AZURE_STORAGE_ACCOUNT": "mine", "AZURE_STORAGE_KEY": "no key"}, ["AZURE_STORAGE_KEY is not base64"]),
        ({"AZURE_STORAGE_ACCOUNT": "mine"}, ["AZURE_STORAGE_AUTH_MODE=login"]),
        ({"AZURE_STORAGE_KEY": KEY}, ["AZURE_STORAGE_ACCOUNT is not"]),
    ],
)
def test_settings_that_are_wrong_are_named(
    here: Callable[..., Ended], settings: dict[str, str], words: list[str]
) -> None:
    here(**settings).refused(*words)


def test_a_setting_and_an_option_that_are_wrong(run: Runner) -> None:
    run(AZURE_STORAGE_CONNECTION_STRING=KEY).refused("malformed", "Access keys")
    run("--fail", "9:3").refused("Invalid value for '--fail': '9:3': reads are counted from 1")


def test_a_dotenv_that_cannot_be_read(here: Callable[..., Ended], tmp_path: Path) -> None:
    file = tmp_path / ".env"
    file.mkdir()
    here().refused(".env cannot be read", "directory" if os.name == "posix" else "")
    file.rmdir()
    file.write_bytes(f"{CONNECTION_STRING}={KEY}\n".encode("utf-16"))
    here().refused(".env", "UTF-8")
    file.write_text(f"# fine\nA=1\n{KEY}\xa0!\n", encoding="utf-8")
    here().refused(".env, line 3", "NAME=value")


@posix
def test_a_dotenv_that_is_a_pipe_is_ignored_with_a_word(run: Runner) -> None:
    os.mkfifo(run.folder / ".env")
    ended = run("--requests", "1", "--replication-lag", "0").check()
    told = "circuitbreaker.py: .env is ignored: it is a pipe or a device, not a file.\n"
    assert (ended.code, ended.err) == (0, told)
    assert ended.out.startswith("started     stand-in account")


@posix
@pytest.mark.parametrize("limit", [9, 11, 14, 20])
@pytest.mark.parametrize("options", [[], ["--log", "run.jsonl", "--report", "run.svg"]])
def test_too_few_open_files_are_told_before_anything_begins(run: Runner, limit: int, options: list[str]) -> None:
    ended = run("--requests", "3", *options, bash=f'ulimit -n {limit}; exec "$@"')
    ended.refused("open", "ulimit -n")
    assert ended.out == ""


@posix
def test_enough_open_files_are_enough(run: Runner) -> None:
    options = ("--requests", "60", "--fail", "20:40", "--log", "run.jsonl", "--report", "run.svg")
    ended = run(*options, bash='ulimit -n 40; exec "$@"').check()
    assert (ended.code, ended.err) == (0, "")


def test_a_dotenv_as_windows_writes_it(run: Runner, standin: StandIn) -> None:
    lines = [f"{name}={value}" for name, value in string(standin).items()]
    (run.folder / ".env").write_bytes(b"\xef\xbb\xbf" + "\r\n".join([*lines, ""]).encode())
    ended = run("--requests", "1").check(standin.account_key)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"started     account {standin.account_name} at 127.0.0.1:")


def test_the_example_of_a_dotenv_runs_the_stand_in(run: Runner) -> None:
    (run.folder / ".env").write_bytes((PROGRAM.parent / ".env.example").read_bytes())
    ended = run("--requests", "1", "--replication-lag", "0").check()
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("started     stand-in account")


# --- accounts -------------------------------------------------------------------------------------------------


def test_an_account_that_does_not_resolve(run: Runner) -> None:
    settings = {CONNECTION_STRING: f"AccountName=nosuch;AccountKey={KEY};BlobEndpoint=https://nosuch.blob.invalid"}
    run(**settings).refused("nosuch.blob.invalid", "does not resolve", "name right")


def test_a_key_of_another_account(run: Runner, azurite: Azurite) -> None:
    ended = run(**string(azurite, key=KEY))
    ended.refused("account devstoreaccount1", "403", "is the key the account's?")
    assert not containers(ended)


def test_a_key_of_another_account_as_azure_says_it(run: Runner, standin: StandIn) -> None:
    standin.interfere = lambda exchange: exchange.fail(403, "AuthenticationFailed")
    run(**string(standin)).refused("403 AuthenticationFailed", "is the key (or SAS) the account's")
    assert {hit.method for hit in standin.hits} == {"GET"}


def test_a_sas_that_lacks_a_permission(run: Runner, azurite: Azurite) -> None:
    settings = sas(azurite, "read", "list")
    signature = settings["AZURE_STORAGE_SAS_TOKEN"].partition("sig=")[2]
    ended = run("--requests", "1", **settings)
    ended.refused("upload", "403", "lacks a permission", "sp=rwdlc", hidden=(signature,))
    assert not containers(ended)


def test_a_sas_that_has_all(run: Runner, azurite: Azurite) -> None:
    settings = sas(azurite, *EVERYTHING)
    ended = run("--requests", "2", **settings).check(settings["AZURE_STORAGE_SAS_TOKEN"].partition("sig=")[2])
    assert (ended.code, ended.err) == (0, "")
    (name,) = containers(ended)
    assert is_gone(azurite, name)


def test_a_container_that_may_not_be_deleted_is_named(run: Runner, azurite: Azurite) -> None:
    ended = run("--requests", "2", **sas(azurite, *EVERYTHING - {"delete"})).check()
    assert (ended.code, ended.err) == (0, "")
    (name,) = containers(ended)
    assert not is_gone(azurite, name)
    last = ended.out.splitlines()[-1]
    assert last.startswith(f"cleaned-up  Container {name} could not be deleted (--clean-up removes it later): 403")


@pytest.mark.parametrize("kind", ["Standard_LRS", "Standard_GZRS"])
def test_an_account_of_another_kind(run: Runner, kind: str) -> None:
    with StandIn(0.0, sku=kind) as server:
        run(**string(server)).refused(kind, "cannot be read", "--sku Standard_RAGRS", hidden=(server.account_key,))
        assert {hit.method for hit in server.hits} == {"GET"}


def test_a_credential_that_may_not_ask_for_the_kind(run: Runner, standin: StandIn) -> None:
    def refuse(exchange: Exchange) -> None:
        if exchange.request.query.get("restype") == "account":
            exchange.fail(403, "AuthorizationPermissionMismatch")

    standin.interfere = refuse
    ended = run("--requests", "1", **string(standin)).check(standin.account_key)
    assert (ended.code, ended.err) == (0, "")
    assert re.search(r"^note +This credential may not ask for the account's kind", ended.out, re.MULTILINE)


def test_what_a_server_says_does_not_reach_the_terminal_raw(run: Runner, standin: StandIn, tmp_path: Path) -> None:
    with StandIn(0.0, sku="Standard_\x1b[2JLRS") as server:
        run(**string(server)).refused("x1b")

    def swear(exchange: Exchange) -> None:
        if exchange.request.path.endswith("/HelloWorld") and exchange.request.method == "GET":
            exchange.fail(403, "Evil\x1b[2J\x07\x9b")

    standin.interfere = swear
    ended = run("--requests", "2", "--log", "run.log", **string(standin)).check()
    assert (ended.code, ended.err) == (1, "")
    assert ended.out.isascii()
    assert "failed: 403 Evil" in ended.out
    assert (run.folder / "run.log").read_bytes().replace(b"\n", b"").decode().isprintable()


# --- Microsoft Entra ID ---------------------------------------------------------------------------------------


@pytest.fixture
def identity() -> Iterator[dict[str, str]]:
    """The settings of an App Service whose managed identity is a server of ours."""
    header = secrets.token_hex(16)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            good = self.headers.get("X-IDENTITY-HEADER") == header and "storage.azure.com" in self.path
            token = FakeToken().get_token()
            answer = {"access_token": token.token, "expires_on": str(token.expires_on), "token_type": "Bearer"}
            body = json.dumps(answer if good else {"error": "invalid_request"}).encode()
            self.send_response(200 if good else 400)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (http.server's signature)
            """Quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield {
            "AZURE_STORAGE_AUTH_MODE": "login",
            "IDENTITY_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}/msi/token",
            "IDENTITY_HEADER": header,
        }
        server.shutdown()
        thread.join()


def test_sign_in_by_entra_id(run: Runner, azurite_https: Azurite, identity: dict[str, str]) -> None:
    assert azurite_https.certificate is not None
    settings = {
        **identity,
        "AZURE_STORAGE_ACCOUNT": azurite_https.account_name,
        "AZURE_STORAGE_SERVICE_ENDPOINT": azurite_https.primary_url,
    }
    options = ["--requests", "3", "--fail", "2:2", "--ca-bundle", str(azurite_https.certificate), "--log", "run.log"]
    ended = run(*options, **settings).check(".unsigned", identity["IDENTITY_HEADER"])
    assert (ended.code, ended.err) == (0, "")
    assert "     2  secondary" in ended.out
    (name,) = containers(ended)
    options_here = {"connection_verify": str(azurite_https.certificate)}
    assert is_gone(azurite_https, name, **options_here)
    assert "unsigned" not in (run.folder / "run.log").read_text()

    wrong = run(*options, **{**settings, "IDENTITY_HEADER": "wrong", "PATH": ""})
    wrong.refused("no Microsoft Entra ID sign-in worked", "az login")
    unknown = run(*options[:4], **settings)
    unknown.refused("certificate is not trusted", "--ca-bundle")


def test_azure_identity_is_missing(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['azure.identity'] = None\n")
    settings = {"AZURE_STORAGE_AUTH_MODE": "login", "AZURE_STORAGE_ACCOUNT": "mine", "PYTHONPATH": str(tmp_path)}
    run(**settings).refused("azure-identity", "pip install azure-identity")


def test_azure_identity_does_not_take_its_settings(run: Runner) -> None:
    settings = {"AZURE_STORAGE_AUTH_MODE": "login", "AZURE_STORAGE_ACCOUNT": "mine", "AZURE_AUTHORITY_HOST": "http://x"}
    run(**settings).refused("AZURE_* variables", "az login")


# --- proxies --------------------------------------------------------------------------------------------------


def test_a_proxy_that_is_not_running(run: Runner, dead_port: int, standin: StandIn) -> None:
    proxy = f"http://me:hidden@127.0.0.1:{dead_port}"
    run("--proxy", proxy).refused("the proxy did not connect", "Is it running", hidden=("hidden",))
    run("--proxy", proxy, **string(standin)).refused("the proxy did not connect", "--proxy", hidden=("hidden",))


def test_a_proxy_in_the_environment_is_not_asked_for_the_stand_in(run: Runner, dead_port: int) -> None:
    url = f"http://127.0.0.1:{dead_port}"
    settings = dict.fromkeys(("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY"), url)
    ended = run("--requests", "1", "--replication-lag", "0", **settings).check()
    assert (ended.code, ended.err) == (0, "")


@pytest.mark.proxy
def test_a_proxys_password_is_never_shown(run: Runner, standin: StandIn) -> None:
    with Proxy(script=None) as proxy:
        url = proxy.url.replace("//", "//me:hidden@")
        ended = run("--requests", "2", "--proxy", url, "--log", "run.log", **string(standin)).check("hidden")
        assert proxy.seen
    assert (ended.code, ended.err) == (0, "")
    log = (run.folder / "run.log").read_text()
    assert json.loads(log.splitlines()[0])["proxy"] == proxy.url
    assert "hidden" not in log


# --- where the output goes ------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_ends_the_log_and_not_the_run(run: Runner) -> None:
    ended = run("--requests", "3", "--replication-lag", "0", "--log", "/dev/full").check()
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.count("The log ends here: No space left on device.") == 1
    assert "finished    Finished after 3 reads: 3 primary" in ended.out


@posix
@pytest.mark.parametrize("lines", [1, 5])
def test_a_reader_that_has_seen_enough(run: Runner, standin: StandIn, lines: int) -> None:
    line = f'"$@" | head -{lines}; echo "code ${{PIPESTATUS[0]}}"'
    ended = run("--requests", "0", "--log", "run.log", bash=line, **string(standin)).check()
    assert ended.err == ""
    assert ended.out.splitlines()[-1] == "code 0"
    assert len(ended.out.splitlines()) == lines + 1
    for name in containers(standin):
        assert is_gone(standin, name)
    assert json.loads((run.folder / "run.log").read_text().splitlines()[-1])["event"] == "cleaned-up"


@posix
def test_a_container_left_behind_is_named_on_stderr_when_stdout_is_gone(run: Runner, standin: StandIn) -> None:
    def keep(exchange: Exchange) -> None:
        if exchange.request.method == "DELETE":
            exchange.fail(403, "AuthorizationFailure")

    standin.interfere = keep
    ended = run("--requests", "0", bash='"$@" | head -5', **string(standin)).check()
    (name,) = containers(standin)
    assert ended.err == f"circuitbreaker.py: the container {name} is left behind: --clean-up removes it.\n"


@posix
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&-"])
def test_without_stdout_or_stderr(run: Runner, standin: StandIn, closed: str) -> None:
    ended = run("--requests", "3", bash=f'"$@" {closed}', **string(standin)).check()
    assert (ended.code, ended.err) == (0, "")
    (name,) = containers(standin)
    assert is_gone(standin, name)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_a_full_disk_behind_stdout_ends_the_run(run: Runner, standin: StandIn) -> None:
    ended = run("--requests", "0", bash='"$@" >/dev/full', **string(standin)).check()
    assert ended.err == "circuitbreaker.py: stdout cannot be written: No space left on device.\n"
    (name,) = containers(standin)
    assert is_gone(standin, name)


@posix
def test_a_problem_that_nobody_can_be_told_of(run: Runner) -> None:
    assert run(bash='"$@" >&- 2>&-', AZURE_STORAGE_ACCOUNT="?") == Ended(2, "", "")


# --- signals --------------------------------------------------------------------------------------------------


_AT_AN_IMPORT = """
import os, signal, sys
at = int(os.environ["AT"])
seen = 0
def hook(event, arguments):
    global seen
    if event == "import" and signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        seen += 1
        if seen == at:
            os.kill(os.getpid(), signal.SIGINT)
sys.addaudithook(hook)
signal.signal(signal.SIGINT, signal.default_int_handler)  # even where the tests' own parent ignores it
"""


@posix
@pytest.mark.parametrize("at", [1, 80, 400, 640])
def test_ctrl_c_during_imports(run: Runner, tmp_path: Path, at: int) -> None:
    (tmp_path / "sitecustomize.py").write_text(_AT_AN_IMPORT)
    assert run("--requests", "0", PYTHONPATH=str(tmp_path), AT=str(at)) == Ended(130, "", "")


def _delay(**about: str) -> Callable[[Exchange], None]:
    def interfere(exchange: Exchange) -> None:
        if all(getattr(exchange.request, name) == value for name, value in about.items()):
            exchange.delay = SECONDS

    return interfere


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
class TestSignals:
    """Wherever the run stands, it ends with the signal's code and gives everything back."""

    def test_during_the_upload(self, run: Runner, standin: StandIn, number: int) -> None:
        standin.interfere = _delay(method="PUT")
        process = run.start(**string(standin))
        wait_until(lambda: any(hit.method == "PUT" for hit in standin.hits), "upload")
        process.send(number)
        self._check(process.wait(), standin, number)

    def test_while_waiting_for_the_replica(self, run: Runner, number: int) -> None:
        with StandIn(3600.0) as server:
            process = run.start(**string(server))
            process.until("waiting ")
            process.send(number)
            self._check(process.wait(), server, number)

    def test_while_reading(self, run: Runner, standin: StandIn, number: int) -> None:
        process = run.start("--requests", "0", **string(standin))
        process.until("    20  primary")
        process.send(number)
        self._check(process.wait(), standin, number)

    def test_during_a_hung_read(self, run: Runner, standin: StandIn, number: int) -> None:
        options = ["--fault", "timeout", "--fail", "1:1000", "--timeout", "60"]
        process = run.start(*options, **string(standin))
        process.until("fault ")
        process.send(number)
        self._check(process.wait(), standin, number)

    def test_during_the_clean_up(self, run: Runner, standin: StandIn, number: int) -> None:
        standin.interfere = _delay(method="DELETE")
        process = run.start("--requests", "1", "--timeout", "60", **string(standin))
        wait_until(lambda: any(hit.method == "DELETE" for hit in standin.hits), "clean-up")
        process.send(number)
        ended = process.wait().check()
        assert (ended.code, ended.err) == (128 + number, "")
        (name,) = containers(standin)
        assert f"Container {name} could not be deleted (--clean-up removes it later): interrupted" in ended.out

    def test_twice(self, run: Runner, standin: StandIn, number: int) -> None:
        standin.interfere = lambda exchange: setattr(exchange, "delay", SECONDS * (exchange.request.method != "GET"))
        process = run.start("--timeout", "60", **string(standin))
        for method in ("PUT", "DELETE"):
            wait_until(lambda m=method: any(hit.method == m for hit in standin.hits), method)  # type: ignore[misc]
            process.send(number)
        ended = process.wait().check()
        assert (ended.code, ended.err) == (128 + number, "")
        (name,) = containers(standin)
        assert f"Container {name} could not be deleted" in ended.out

    def _check(self, ended: Ended, server: StandIn, number: int) -> None:
        ended.check(server.account_key)
        assert (ended.code, ended.err) == (128 + number, "")
        (name,) = containers(server)
        assert is_gone(server, name)
        assert ended.out.splitlines()[-1] == f"cleaned-up  Container {name} is deleted."


@posix
def test_nohup_means_it(run: Runner, standin: StandIn) -> None:
    process = run.start("--requests", "300", bash="trap '' HUP; exec \"$@\"", **string(standin))
    process.until("     1  primary")
    process.send(signal.SIGHUP)
    ended = process.wait().check()
    assert (ended.code, ended.err) == (0, "")


@posix
def test_hanging_up_ends_it(run: Runner, standin: StandIn) -> None:
    process = run.start("--requests", "0", **string(standin))
    process.until("     1  primary")
    process.send(signal.SIGHUP)
    ended = process.wait().check()
    assert (ended.code, ended.err) == (128 + signal.SIGHUP, "")
    (name,) = containers(standin)
    assert is_gone(standin, name)


# --- endpoints that are down ----------------------------------------------------------------------------------


def test_the_primary_is_down_from_the_start(run: Runner, standin: StandIn) -> None:
    standin.lose_primary()
    run(**string(standin)).refused("upload", "connection refused", "only the primary takes", "is it up?")


def test_the_primary_answers_503_from_the_start(run: Runner, standin: StandIn) -> None:
    standin.interfere = lambda exchange: exchange.fail(503) if exchange.request.endpoint == "primary" else None
    ended = run(**string(standin))
    ended.refused("upload", "503 ServerBusy", "only the primary takes")
    assert len([hit for hit in standin.hits if hit.method == "PUT"]) == 1


def test_nothing_answers(run: Runner, standin: StandIn) -> None:
    standin.lose_primary()
    standin.lose_secondary()
    run(**string(standin)).refused("primary: connection refused; secondary: connection refused")


def test_a_server_that_is_no_storage_account(run: Runner) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_speak_ssh, args=(server,), daemon=True).start()
        endpoint = f"http://127.0.0.1:{server.getsockname()[1]}/mine"
        run(AZURE_STORAGE_SERVICE_ENDPOINT=endpoint, AZURE_STORAGE_KEY=KEY).refused("Cannot use the account mine")


def _speak_ssh(server: socket.socket) -> None:
    while True:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        with connection:
            connection.sendall(b"SSH-2.0-OpenSSH_9.6\r\n")


def test_a_replica_that_never_comes(run: Runner) -> None:
    with StandIn(3600.0) as server:
        ended = run(FAILOVER_REPLICA_WAIT_SECONDS="1", **string(server))
        ended.refused("did not reach the secondary within 1 s", "FAILOVER_REPLICA_WAIT_SECONDS")
        (name,) = containers(ended)
        assert is_gone(server, name)
    options = ["--replication-lag", "3600"]
    run(*options, FAILOVER_REPLICA_WAIT_SECONDS="0.1").refused("--replication-lag 3600", "0.1 s")


class Told:
    """Runs the demonstration in this process; `react` is called with each event, in order, and may break things."""

    def __init__(self, server: StandIn, react: Callable[[ev.Event], None], *, requests: int) -> None:
        self.events: list[ev.Event] = []
        self._react = react
        config = RunConfig(requests=requests)
        found = find_account(string(server))
        assert isinstance(found, Account)
        faults = FaultTransport(
            make_transport(found, timeout=5.0),
            Fault.STATUS_503,
            primary=found.primary,
            blob=BLOB,
            timeout=config.timeout,
        )
        self._account, self._faults = found, faults
        self.demo = Demo(config, found, faults, self._hear, attended=False)

    def run(self) -> bool:
        demo, faults = self.demo, self._faults
        with faults:
            setup, service = (connect(self._account, each, faults) for each in (demo.setup_policy, demo.policy))
            return demo.run(setup, service)

    def _hear(self, event: ev.Event) -> None:
        self.events.append(event)
        self._react(event)

    def reads(self) -> list[ev.Read]:
        return [event for event in self.events if isinstance(event, ev.Read)]

    def is_without_net(self) -> bool:
        return any(isinstance(event, ev.SecondarySeen) and not event.reachable for event in self.events)


def test_both_endpoints_are_lost_and_come_back(standin: StandIn) -> None:
    def react(event: ev.Event) -> None:
        if isinstance(event, ev.Read):
            steps: dict[int, list[Callable[[], None]]] = {
                5: [standin.lose_primary, standin.lose_secondary],
                40: [standin.restore_secondary],
                120: [standin.restore_primary],
            }
            for step in steps.get(event.n, []):
                step()

    told = Told(standin, react, requests=200)
    assert told.run() is False
    reads = told.reads()
    assert [read.n for read in reads] == list(range(1, 201))
    assert all(read.ok for read in reads[:5])
    assert not any(read.ok for read in reads[5:40])
    assert all(read.error and "connection refused" in read.error for read in reads[5:40])
    # Each circuit notices at its next probe, 20 reads later at most.
    assert all(read.endpoint == "secondary" for read in reads[61:120])
    assert all(read.endpoint == "primary" for read in reads[141:])
    finished = next(event for event in told.events if isinstance(event, ev.Finished))
    assert finished.failed == sum(not read.ok for read in reads) > 0
    assert isinstance(told.events[-1], ev.CleanedUp)
    assert told.events[-1].error is None


def test_the_secondary_is_lost_while_the_primary_is_up(standin: StandIn) -> None:
    def react(event: ev.Event) -> None:
        if isinstance(event, ev.Read) and event.n == 3:
            standin.lose_secondary()
        elif isinstance(event, ev.Read) and told.is_without_net():
            told.demo.quit()

    told = Told(standin, react, requests=0)
    assert told.run()
    assert told.is_without_net()
    assert len(told.reads()) > 3
    assert all(read.endpoint == "primary" for read in told.reads())


def test_the_log_tells_of_reads_that_failed_and_the_code_is_1(run: Runner, standin: StandIn) -> None:
    def fail_some(exchange: Exchange) -> None:
        if exchange.request.method == "GET" and exchange.request.path.endswith(BLOB):
            exchange.fail(503)

    standin.interfere = fail_some
    ended = run("--requests", "3", **string(standin)).check(credential(standin)["account_key"])
    assert (ended.code, ended.err) == (1, "")
    assert ended.out.count("  failed: ") == 3
    assert "finished    Finished after 3 reads: 0 primary, 0 secondary, 3 failed." in ended.out
