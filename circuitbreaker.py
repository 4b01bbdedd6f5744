"""The command: options in, exit code out. `python circuitbreaker.py --help` tells what it shows."""

from __future__ import annotations

import signal
import sys

if __name__ == "__main__":
    # Imports take half a second: until they are over, Ctrl-C just ends the program, without a traceback.
    signal.signal(signal.SIGINT, lambda *_: sys.exit(130))

import contextlib
import logging
import math
import os
from collections.abc import Callable, Iterator
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import typer
from rich.console import Console

from failover.console.keys import KeyReader, press
from failover.console.live import LiveScreen
from failover.console.log import JsonLines
from failover.console.plain import PlainLines
from failover.console.sinks import Sinks
from failover.demo import BLOB, REPLICA_WAIT, Demo, Plan
from failover.storage.account import Account, BadSettings, find_account
from failover.storage.certificates import trusting
from failover.storage.client import connect, make_transport
from failover.storage.faults import Fault, FaultTransport
from failover.storage.settings import read_settings
from failover.storage.standin import StandIn

VERSION: Final = "0.1.0"
LIVE_RATE: Final = 25.0  # reads per second: a person must see the switching
WAIT_SETTING: Final = "FAILOVER_REPLICA_WAIT_SECONDS"


class Exit(IntEnum):
    """The exit codes, all of them."""

    ANSWERED = 0
    UNANSWERED = 1
    BAD_SETTINGS = 2
    INTERRUPTED = 130


class Ended(BaseException):
    """A signal asks the program to end: clean up and leave with `code`."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


def _positive(value: float | None) -> float | None:
    if value is not None and not (math.isfinite(value) and value > 0):
        raise typer.BadParameter("must be a finite number of seconds above 0.")
    return value


def _from_zero(value: float | None) -> float | None:
    if value is not None and not (math.isfinite(value) and value >= 0):
        raise typer.BadParameter("must be a finite number from 0.")
    return value


def _ranges(values: list[str]) -> list[str]:
    for value in values:
        first, colon, last = value.partition(":")
        if not (colon and first.isascii() and first.isdigit() and last.isascii() and last.isdigit()):
            raise typer.BadParameter(f"{value!r} is not FIRST:LAST, such as 201:400.")
        if not 1 <= int(first) <= int(last):
            raise typer.BadParameter(f"{value!r}: reads are counted from 1, and FIRST comes before LAST.")
    return values


def _proxy(value: str | None) -> str | None:
    if value is None:
        return None
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        good = False
    if not good:
        raise typer.BadParameter("must look like http://127.0.0.1:8888.")
    return value


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"circuitbreaker.py {VERSION}")
        raise typer.Exit


@app.command(context_settings={"help_option_names": ["--help"]})
def main(
    requests: Annotated[int, typer.Option(min=0, metavar="N", help="Reads; 0: until you quit.")] = 1000,
    pause_every: Annotated[int, typer.Option(min=0, metavar="N", help="Pause after every N reads; 0: never.")] = 200,
    rate: Annotated[
        float | None,
        typer.Option(
            callback=_from_zero, metavar="N", help="Reads per second at most; 0: no limit. [live 25, plain 0]"
        ),
    ] = None,
    retry_threshold: Annotated[
        int, typer.Option(min=1, metavar="N", help="Failures in a row that open the circuit.")
    ] = 5,
    secondary_threshold: Annotated[
        int,
        typer.Option(min=1, metavar="N", help="Reads that go straight to the secondary before the primary is probed."),
    ] = 20,
    cooldown: Annotated[
        float | None,
        typer.Option(callback=_positive, metavar="SECONDS", help="Probe the primary after a time instead."),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            callback=_positive,
            metavar="SECONDS",
            help="One attempt's connect and read time-out; an answer that takes over half of it counts as a failure.",
        ),
    ] = 2.0,
    fault: Annotated[Fault, typer.Option(help="What the key f and --fail inject.")] = Fault.STATUS_503,
    fail: Annotated[
        list[str] | None,
        typer.Option(
            callback=lambda values: _ranges(values or []),
            metavar="FIRST:LAST",
            help="Inject it on these reads; may be repeated.",
        ),
    ] = None,
    proxy: Annotated[
        str | None,
        typer.Option(callback=_proxy, metavar="URL", help="Send storage traffic through Fiddler or any proxy."),
    ] = None,
    ca_bundle: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Certificate of that proxy, PEM or DER.")
    ] = None,
    replication_lag: Annotated[
        float | None,
        typer.Option(callback=_from_zero, metavar="SECONDS", help="How far the stand-in's secondary lags. [1.0]"),
    ] = None,
    plain: Annotated[
        bool | None, typer.Option("--plain/--live", help="Lines or a screen. [live on a terminal, else plain]")
    ] = None,
    log: Annotated[Path | None, typer.Option(metavar="FILE", help="Write every event as a line of JSON.")] = None,
    version: Annotated[  # noqa: ARG001 (its callback answers)
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Read a blob again and again from an RA-GRS storage account while its primary fails, and watch the failover.

    Without an Azure account in the environment or in .env it starts a stand-in account on this machine.

    Keys: space or p pauses, any key resumes, f switches the fault, q or Ctrl-C quits.
    """
    try:
        on_terminal = _is_terminal(sys.stdout)
        live = on_terminal if plain is None else not plain
        settings = read_settings(os.environ, Path(".env"))
        account = find_account(settings)
        _check_fit(account, fault, replication_lag, live_nowhere=live and not on_terminal)
        plan = Plan(
            requests=requests,
            pause_every=pause_every,
            rate=rate if rate is not None else LIVE_RATE if live else 0.0,
            retry_threshold=retry_threshold,
            secondary_threshold=secondary_threshold,
            cooldown=cooldown,
            timeout=timeout,
            fault=fault,
            fail=tuple((int(first), int(last)) for first, _, last in (each.partition(":") for each in fail or [])),
            proxy=proxy,
            replica_wait=_replica_wait(settings.get(WAIT_SETTING)),
        )
        lag = 1.0 if replication_lag is None else replication_lag
        code = int(_run(plan, account, live=live, lag=lag, log=log, ca_bundle=ca_bundle))
    except BadSettings as problem:
        typer.echo(f"circuitbreaker.py: {problem}", err=True)
        code = Exit.BAD_SETTINGS
    except KeyboardInterrupt:
        code = Exit.INTERRUPTED
    except Ended as ended:
        code = ended.code
    raise typer.Exit(code)


def _check_fit(account: Account | None, fault: Fault, lag: float | None, *, live_nowhere: bool) -> None:
    """Options that each make sense, but not together or not here."""
    if live_nowhere:
        raise BadSettings("--live needs a terminal; use --plain here.")
    if account is not None and fault is Fault.DOWN:
        raise BadSettings(f"--fault down needs the stand-in account: the {account} stays up. Try --fault reset.")
    if account is not None and lag is not None:
        raise BadSettings(f"--replication-lag is the stand-in account's; the {account} has its own.")


def _run(
    plan: Plan, account: Account | None, *, live: bool, lag: float, log: Path | None, ca_bundle: Path | None
) -> Exit:
    """One run from the first socket to the last: everything that must be given back is given back here."""
    for number in (getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)):
        signal.signal(number, _end)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    # The SDK warns of what the screen shows in better words.
    for name in ("azure", "urllib3", "dotenv"):
        logging.getLogger(name).addHandler(logging.NullHandler())
    with contextlib.ExitStack() as stack:
        verify = stack.enter_context(trusting(ca_bundle))
        lose: Callable[[], None] | None = None
        restore: Callable[[], None] | None = None
        if account is None:
            stand_in = stack.enter_context(StandIn(lag))
            lose, restore = stand_in.lose_primary, stand_in.restore_primary
            account = _account_of(stand_in)
        faults = FaultTransport(
            make_transport(account, timeout=max(plan.timeout, 5.0), verify=verify),
            plan.fault,
            primary=account.primary,
            blob=BLOB,
            timeout=plan.timeout,
            lose=lose,
            restore=restore,
        )
        stack.enter_context(faults)
        sinks = Sinks()
        demo = Demo(plan, account, faults, sinks, attended=_is_terminal(sys.stdin))
        sinks.nobody_left = demo.quit
        if log is not None:
            sinks.keep("The log", stack.enter_context(_log_file(log)))
        screen = LiveScreen(Console()) if live else PlainLines(sys.stdout)
        sinks.show(screen)
        if isinstance(screen, LiveScreen):
            stack.enter_context(screen)
        stack.enter_context(_keys(demo, screen))
        service = connect(account, demo.policy, faults, proxy=plan.proxy)
        answered = demo.run(connect(account, demo.setup_policy, faults, proxy=plan.proxy), service)
    return Exit.ANSWERED if answered else Exit.UNANSWERED


@contextlib.contextmanager
def _keys(demo: Demo, screen: LiveScreen | PlainLines) -> Iterator[None]:
    """Single keys, where stdin is a terminal."""
    if not _is_terminal(sys.stdin):
        yield
        return
    stopped, continued = (screen.suspend, screen.resume) if isinstance(screen, LiveScreen) else (None, None)
    with KeyReader(lambda key: press(key, demo), on_end=demo.quit, on_stop=stopped, on_continue=continued):
        yield


@contextlib.contextmanager
def _log_file(file: Path) -> Iterator[JsonLines]:
    try:
        lines = JsonLines(file)
    except OSError as error:
        raise BadSettings(f"--log {file}: {error.strerror or type(error).__name__}.") from None
    with lines:
        yield lines


def _account_of(stand_in: StandIn) -> Account:
    settings = {"AZURE_STORAGE_CONNECTION_STRING": stand_in.connection_string}
    account = find_account(settings)
    assert account is not None  # noqa: S101 (it was given)
    return Account(account.name, account.primary, account.secondary, account.credential, stand_in=True)


def _replica_wait(text: str | None) -> float:
    if not text:
        return REPLICA_WAIT
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise BadSettings(f"{WAIT_SETTING} must be a number of seconds above 0.")
    return seconds


def _end(number: int, _: object) -> None:
    raise Ended(128 + number)


def _is_terminal(stream: object) -> bool:
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]  # a stream, or None where the program has none
    except (AttributeError, ValueError):
        return False


if __name__ == "__main__":
    app()
