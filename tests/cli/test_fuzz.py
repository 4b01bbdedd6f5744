"""Settings and options as nobody means them: an account or one line, never a traceback, never a piece of a secret.

What is valid is taken and broken: parts dropped, doubled, swapped, cut, quoted, and noise put between. The environment
variable FUZZ multiplies the number of examples (1).
"""

from __future__ import annotations

import base64
import io
import os
import re
import subprocess
import sys
import traceback
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from unittest import mock

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from failover import cli
from failover.demo.account import CONNECTION_STRING, SETTINGS, Account, BadSettings, find_account
from failover.demo.client import connect, make_transport
from failover.demo.config import RunConfig
from failover.demo.faults import Fault, FaultTransport
from failover.demo.run import Demo
from failover.demo.settings import REPLICA_WAIT, STATE, read_settings, replica_wait, state_store
from failover.storage import GeoFailover
from tests.program import PROGRAM, environment

KEY: Final = base64.b64encode(b"\xfb\xefnobody may see this key, and no piece of it either, never!....").decode()
SIGNATURE: Final = "q7Zr5Tn0bodyMaySeeThisSignature%2BxY9kLm3Wv%3D"
PASSWORD: Final = "pr0xyPassw0rdThatNobodyMaySee"
SECRETS: Final = (KEY, SIGNATURE, SIGNATURE.replace("%2B", "+").replace("%3D", "="), PASSWORD)
PIECE: Final = 12
PIECES: Final = frozenset(each[at : at + PIECE] for each in SECRETS for at in range(len(each) - PIECE + 1))

SAS: Final = f"sv=2024-11-04&ss=b&srt=sco&sp=rwdlc&se=2030-01-01T00:00:00Z&sig={SIGNATURE}"
PUBLIC: Final = "https://mine.blob.core.windows.net"
LOCAL: Final = "http://127.0.0.1:10000/devstoreaccount1"
BY_KEY: Final = f"DefaultEndpointsProtocol=https;AccountName=mine;AccountKey={KEY};EndpointSuffix=core.windows.net"
BY_URL: Final = f"AccountName=mine;AccountKey={KEY};BlobEndpoint={LOCAL};BlobSecondaryEndpoint={LOCAL}-secondary"
BY_SAS: Final = f"BlobEndpoint={PUBLIC}/;SharedAccessSignature={SAS}"
STRINGS: Final = (BY_KEY, BY_URL, BY_SAS, "UseDevelopmentStorage=true")
WAYS: Final = (
    *({CONNECTION_STRING: each} for each in STRINGS),
    {"AZURE_STORAGE_ACCOUNT": "mine", "AZURE_STORAGE_KEY": KEY, "AZURE_STORAGE_AUTH_MODE": "key"},
    {"AZURE_STORAGE_ACCOUNT": "mine", "AZURE_STORAGE_SAS_TOKEN": f"?{SAS}"},
    {"AZURE_STORAGE_SERVICE_ENDPOINT": LOCAL, "AZURE_STORAGE_KEY": KEY},
)
PROXIES: Final = (f"http://me:{PASSWORD}@127.0.0.1:8888", f"https://me:{PASSWORD}@[::1]:1/", "http://localhost:8888")
STATES: Final = (f"redis://:{PASSWORD}@127.0.0.1:6379/0", f"rediss://me:{PASSWORD}@h:1/2?prefix=x", "blob://states")
NUMBERS: Final = ("1", "0", "200", "2.5", "1e-3", "-1", "nan", "inf", "1e400", "5e-324", "9" * 5000, "1_0", "0x10", "٣")
DOTENVS: Final = (
    *("".join(f"{name}={value}\n" for name, value in way.items()) for way in WAYS),
    f'\ufeff# mine\r\nexport {CONNECTION_STRING}="{BY_KEY}"\r\n{REPLICA_WAIT}=5\r\n',
    f"{STATE}='{BY_URL}'\n{CONNECTION_STRING}='{BY_SAS}' # comment\n",
)
NOISE: Final = (
    *(
        ";",
        "=",
        "==",
        "&",
        "?",
        "#",
        "@",
        "/",
        "//",
        "\\",
        ":",
        ":0",
        ":99999",
        "[",
        "]",
        "%",
        "%00",
        "%zz",
        "..",
        "'",
        '"',
    ),
    *(" ", "\t", "\n", "\r\n", "\x00", "\x1b[2J", "\x7f", "\u2028", "\u202e", "\ufeff", "\udcff", "ü", "漢", "${HOME}"),
    *(
        "http://",
        "https://",
        "AccountKey=",
        "BlobEndpoint=",
        "sig=",
        "-secondary",
        "A" * 70,
        "a" * 5000,
        KEY,
        SIGNATURE,
    ),
)
EXAMPLES: Final = int(os.environ.get("FUZZ", "1")) * 80
FUZZ: Final = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)


@st.composite
def broken(draw: st.DrawFn, *valid: str, most: int = 4) -> str:
    """One of these texts after up to `most` accidents."""
    text = draw(st.sampled_from(valid))
    for _ in range(draw(st.integers(0, most))):
        # Between its parts, mostly.
        joints = [0, *(each.end() for each in re.finditer(r"[;=&/:@?\n\"]", text)), len(text)]
        places = st.sampled_from(joints) | st.integers(0, len(text))
        a, b, c = sorted(draw(st.tuples(places, places, places)))
        noise = draw(st.sampled_from(NOISE) | st.text(max_size=3))
        text = draw(
            st.sampled_from(
                [
                    text[:a] + text[b:],
                    text[:b] + text[a:],
                    text[:a] + text[b:c] + text[a:b] + text[c:],
                    text[:a] + noise + text[a:],
                    text[:a] + noise + text[b:],
                    f'"{text}"',
                    text.swapcase(),
                    text.replace("\n", "\r\n"),
                ]
            )
        )
    return text


def ways() -> st.SearchStrategy[dict[str, str]]:
    """Settings of one way to sign in or of two mixed, with accidents."""
    items = st.sampled_from([item for way in WAYS for item in way.items()])
    one = st.sampled_from(WAYS).map(lambda way: list(way.items()))
    chosen = (
        one
        | st.lists(items, max_size=4)
        | st.tuples(one, st.lists(items, max_size=2)).map(lambda two: [*two[0], *two[1]])
    )
    return chosen.flatmap(lambda pairs: st.fixed_dictionaries({name: broken(value) for name, value in pairs}))


def check_told(*told: str) -> None:
    """No piece of a secret, and nothing that a terminal obeys or cannot show."""
    for text in told:
        shown = next((piece for piece in PIECES if piece in text), None)
        assert shown is None, (
            f"a piece of a secret is shown, {len(text)} characters: {text.replace(shown or '', '###')!r}"
        )


def check_refused(problem: BadSettings) -> None:
    text = str(problem)
    assert text.isprintable()
    assert "\n" not in text
    assert len(text) < 1000
    check_told(text, repr(problem), "".join(traceback.format_exception(problem)))


def check_account(account: Account) -> None:
    """It is good for a client, and shows nothing."""
    with make_transport(account, timeout=1.0) as transport:
        service = connect(account, GeoFailover(), transport)
        check_told(str(account), repr(account), account.primary, account.secondary, service.url, repr(service))


def check_settings(found: Mapping[str, str | None]) -> None:
    """All that settings are used for, short of the network."""
    for use in (
        find_account,
        lambda given: replica_wait(given, 60.0),
        lambda given: state_store("blob://states", given),
        lambda given: state_store("table://states", given),
    ):
        try:
            made = use(found)
        except BadSettings as problem:
            check_refused(problem)
        else:
            check_told(repr(made))
            if isinstance(made, Account):
                check_account(made)


@pytest.fixture(autouse=True)
def _no_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STATE, "")  # which state_store sets, and only a fixture takes back
    monkeypatch.setattr("failover.breaker.stores._opened", weakref.WeakValueDictionary())


@FUZZ
@given(found=ways())
@example(found={CONNECTION_STRING: BY_URL.replace(";AccountKey", "AccountKey")})
@example(found={CONNECTION_STRING: f"AccountName=mine;BlobEndpoint={LOCAL}AccountKey={KEY};AccountKey={KEY}"})
def test_settings_of_the_environment(found: dict[str, str]) -> None:
    check_settings(found)


@FUZZ
@given(found=st.fixed_dictionaries({STATE: broken(*STRINGS), REPLICA_WAIT: broken(*NUMBERS, most=2)}))
def test_settings_of_the_state_and_the_wait(found: dict[str, str]) -> None:
    check_settings({name: given_to_a_process(value) for name, value in found.items()})


@FUZZ
@given(text=broken(*DOTENVS), encoding=st.sampled_from(["utf-8"] * 4 + ["utf-16", "latin-1"]))
@example(text=f"{STATE}='{BY_KEY}\x00'\n", encoding="utf-8")
def test_a_dotenv(tmp_path: Path, text: str, encoding: str) -> None:
    file = tmp_path / ".env"
    file.write_bytes(text.encode(encoding, "replace"))
    try:
        found = read_settings({}, file)
    except BadSettings as problem:
        check_refused(problem)
    else:
        check_settings(found)


# --- the command ----------------------------------------------------------------------------------------------


@pytest.fixture
def main(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """The command up to its first socket: its exit code; what it writes has been checked."""
    monkeypatch.chdir(tmp_path)

    def prepare(config: RunConfig, account: Account | None, store: object, **_: object) -> int:
        told: list[str] = []
        if account is not None:
            check_account(account)
        account = account or find_account({CONNECTION_STRING: "UseDevelopmentStorage=true"})
        assert account is not None
        with FaultTransport(
            make_transport(account, timeout=5.0), Fault.RESET, primary=account.primary, blob="x", timeout=config.timeout
        ) as faults:
            demo = Demo(config, account, faults, lambda event: told.append(repr(event)), attended=True)
            connect(account, demo.policy, faults, proxy=config.proxy)
            check_told(repr(config), repr(store), str(demo.started_fields()), *told)
        return 0

    monkeypatch.setattr(cli, "_run", prepare)

    def run(options: list[str], given_: Mapping[str, str]) -> int:
        out, err = (io.TextIOWrapper(io.BytesIO(), "utf-8", errors=errors) for errors in ("strict", "backslashreplace"))
        kept = {name: value for name, value in os.environ.items() if name not in (*SETTINGS, REPLICA_WAIT, STATE)}
        with (
            mock.patch.dict(os.environ, {**kept, **given_}, clear=True),
            mock.patch.multiple(sys, stdout=out, stderr=err),
            pytest.raises(SystemExit) as caught,
        ):
            cli.app(options)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read())
        code = int(caught.value.code or 0)
        check_told(*texts)
        assert (code, texts[0]) in ((0, ""), (2, "")), texts
        assert "Traceback" not in texts[1]
        assert re.fullmatch(r"(circuitbreaker\.py: [^\n]+\n)?", texts[1])
        assert bool(texts[1]) is (code == 2)
        assert texts[1].rstrip("\n").isprintable()
        return code

    return run


def given_to_a_process(text: str) -> str:
    """What can stand in its options and its environment."""
    return text.replace("\x00", "")


@FUZZ
@given(option=st.sampled_from([("--proxy", PROXIES), ("--state", STATES)]), way=ways(), data=st.data())
def test_urls(main: Callable[..., int], option: tuple[str, tuple[str, ...]], way: dict[str, str], data: Any) -> None:
    name, valid = option
    value = given_to_a_process(data.draw(broken(*valid)))
    main(
        [f"{name}={value}"],
        {each: given_to_a_process(value) for each, value in way.items()} if data.draw(st.booleans()) else {},
    )


_NUMBERED: Final = (
    *("--requests", "--pause-every", "--rate", "--retry-threshold", "--secondary-threshold"),
    *("--cooldown", "--timeout", "--replication-lag", "--fail", "--older-than"),
)


@FUZZ
@given(options=st.dictionaries(st.sampled_from(_NUMBERED), broken(*NUMBERS, "1:2", most=1), min_size=1, max_size=3))
@example(options={"--timeout": "5e-324"})
@example(options={"--cooldown": "5e-324"})
@example(options={"--retry-threshold": "9" * 400, "--secondary-threshold": "9" * 400})
@example(options={"--secondary-threshold": "9" * 400})
def test_numbers(main: Callable[..., int], options: dict[str, str]) -> None:
    main([f"{name}={given_to_a_process(value)}" for name, value in options.items()], {})


@pytest.mark.program
@pytest.mark.parametrize(
    ("options", "text"),
    [
        ([], f"{CONNECTION_STRING}={BY_URL.replace(';AccountKey', 'AccountKey')}\n"),
        (["--state", "blob://states"], f"{STATE}='{BY_KEY}\x00'\n"),
        (["--proxy", f"http://me:{PASSWORD}@127.0.0.1:8888x"], ""),
    ],
    ids=["no-semicolon", "nul", "proxy"],
)
def test_a_real_process(tmp_path: Path, options: list[str], text: str) -> None:
    (tmp_path / ".env").write_bytes(text.encode())
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *options],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    check_told(done.stderr)
    assert "Traceback" not in done.stderr
    assert re.fullmatch(r"circuitbreaker\.py: [^\n]+\n", done.stderr)
