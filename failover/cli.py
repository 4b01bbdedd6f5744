"""The command: options in, exit code out. `--help` says what it shows."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer
from rich.console import Console

from failover.console.keys import KeyReader, press
from failover.console.live import LiveScreen
from failover.console.log import JsonLines
from failover.console.options import from_zero, positive, proxy_url, ranges, svg_file
from failover.console.plain import PlainLines, write_line
from failover.console.report import Report
from failover.console.sinks import Sinks, flush_or_forget, tell_stderr
from failover.console.words import clean
from failover.demo.account import Account, BadSettings, account_of, find_account, start_stand_in
from failover.demo.certificates import trusting
from failover.demo.cleanup import ABANDONED_AFTER, clean_up
from failover.demo.client import connect, make_transport
from failover.demo.config import REPLICA_WAIT, RunConfig
from failover.demo.faults import Fault, FaultTransport
from failover.demo.run import BLOB, Demo
from failover.demo.settings import Store, read_settings, replica_wait, state_store

VERSION: Final = "0.1.0"
LIVE_RATE: Final = 25.0  # reads per second: slow enough to see the failover
CLEAN_UP_OPTIONS: Final = frozenset({"--clean-up", "--older-than", "--proxy", "--ca-bundle", "--timeout", "--plain"})
MAX_COUNT: Final = 1_000_000  # far more than a run reads, and few enough for a machine to count
TIMEOUT_HELP: Final = "One attempt's connect and read time-out; an answer after half of it is used but is a failure."
SIGNALS: Final = tuple(each for each in signal.Signals if each.name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"))


class Exit(IntEnum):
    """All exit codes."""

    ANSWERED = 0
    UNANSWERED = 1
    BAD_SETTINGS = 2
    INTERRUPTED = 130


class Ended(BaseException):
    """A signal asks the program to end: clean up, and exit with `code`."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


_Sink = TypeVar("_Sink", JsonLines, Report)
app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"circuitbreaker.py {VERSION}")
        raise typer.Exit


def _option(metavar: str | None, text: str, **more: Any) -> Any:
    return typer.Option(metavar=metavar, help=text, **more)


@app.command(context_settings={"help_option_names": ["--help"]})
def main(
    context: typer.Context,
    requests: Annotated[int, _option("N", "Reads; 0: until you quit.", min=0)] = 1000,
    pause_every: Annotated[int, _option("N", "Pause after every N reads; 0: never.", min=0)] = 200,
    rate: Annotated[
        float | None,
        _option("N", "Reads per second at most; 0: no limit.", callback=from_zero, show_default="25 live, 0 plain"),
    ] = None,
    retry_threshold: Annotated[int, _option("N", "Failures in a row that open the circuit.", min=1, max=MAX_COUNT)] = 5,
    secondary_threshold: Annotated[
        int,
        _option("N", "Reads that go straight to the secondary before the primary is probed.", min=1, max=MAX_COUNT),
    ] = 20,
    cooldown: Annotated[
        float | None, _option("SECONDS", "Probe the primary after a time instead.", callback=positive)
    ] = None,
    timeout: Annotated[float, _option("SECONDS", TIMEOUT_HELP, callback=positive)] = 2.0,
    fault: Annotated[Fault, _option(None, "What the key f and --fail inject.")] = Fault.STATUS_503,
    fail: Annotated[
        list[str] | None, _option("FIRST:LAST", "Inject it on these reads; may be repeated.", callback=ranges)
    ] = None,
    proxy: Annotated[
        str | None, _option("URL", "Send storage traffic through Fiddler or any proxy.", callback=proxy_url)
    ] = None,
    ca_bundle: Annotated[Path | None, _option("FILE", "Certificate of that proxy, PEM or DER.")] = None,
    replication_lag: Annotated[
        float | None,
        _option("SECONDS", "How far the stand-in's secondary lags.", callback=from_zero, show_default="1.0"),
    ] = None,
    state: Annotated[
        str | None,
        _option(
            "URL",
            "Where circuits agree: redis://, blob://, table://. With a password, set FAILOVER_STATE_URL instead.",
            show_default="memory://",
        ),
    ] = None,
    plain: Annotated[
        bool | None,
        typer.Option("--plain/--live", help="Lines or a screen.", show_default="live on a terminal, else plain"),
    ] = None,
    log: Annotated[Path | None, _option("FILE", "Write every event as a line of JSON.")] = None,
    report: Annotated[Path | None, _option("FILE", "Draw the run as a picture (.svg).", callback=svg_file)] = None,
    remove: Annotated[
        bool, typer.Option("--clean-up", help="Remove containers that killed runs left in the account, and do no more.")
    ] = False,
    older_than: Annotated[float, _option("SECONDS", "Those left alone so long.", callback=from_zero)] = ABANDONED_AFTER,
    version: Annotated[  # noqa: ARG001 (its callback answers)
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Read a blob again and again from an RA-GRS storage account while its primary fails, and watch the failover.

    Without an Azure account in the environment or in .env it starts a stand-in account on this machine.

    Keys: space or p pauses, any key resumes, f switches the fault, q or Ctrl-C quits.
    """
    # The SDK logs warnings of what the screen shows in better words.
    for name in ("azure", "urllib3", "dotenv"):
        logging.getLogger(name).addHandler(logging.NullHandler())
    try:
        on_terminal = _is_terminal(sys.stdout) and os.environ.get("TERM") != "dumb"  # a dumb one cannot move its cursor
        live = on_terminal if plain is None else not plain
        settings = read_settings(os.environ, Path(".env"))
        account = find_account(settings)
        check_option_conflicts(context, cleaning_up=remove)
        _check_fit(account, fault, replication_lag, live_nowhere=live and not on_terminal)
        _check_files(log, report)
        config = RunConfig(
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
            replica_wait=replica_wait(settings, REPLICA_WAIT),
        )
        lag = 1.0 if replication_lag is None else replication_lag
        with _signals_end_it():
            if remove:
                code = int(_clean_up(config, account, older_than, ca_bundle))
            else:
                store = state_store(state, settings)
                code = int(
                    _run(config, account, store, live=live, lag=lag, log=log, report=report, ca_bundle=ca_bundle)
                )
    except BadSettings as problem:
        tell_stderr(clean(str(problem), longest=2000))
        code = Exit.BAD_SETTINGS
    except Ended as ended:
        code = ended.code
    flush_or_forget()
    raise typer.Exit(code)


def check_option_conflicts(context: typer.Context, *, cleaning_up: bool) -> None:
    """Raise `BadSettings` where an option was given that does nothing beside, or without, --clean-up."""
    for each in context.command.params:
        source = context.get_parameter_source(each.name or "")
        if source is None or source.name != "COMMANDLINE":
            continue
        option = each.opts[0]
        if cleaning_up and option not in CLEAN_UP_OPTIONS:
            raise BadSettings(f"{option} does nothing beside --clean-up, which makes no run: leave one of them out.")
        if not cleaning_up and option == "--older-than":
            raise BadSettings("--older-than does nothing without --clean-up.")


def _check_fit(account: Account | None, fault: Fault, lag: float | None, live_nowhere: bool) -> None:
    """Raise `BadSettings` where an option makes sense, but not with this account or this stdout."""
    if live_nowhere:
        raise BadSettings("--live needs a terminal; use --plain here.")
    if account is not None and fault is Fault.DOWN:
        raise BadSettings(f"--fault down needs the stand-in account: the {account} stays up. Try --fault reset.")
    if account is not None and lag is not None:
        raise BadSettings(f"--replication-lag is the stand-in account's; the {account} has its own.")


def _check_files(log: Path | None, report: Path | None) -> None:
    if log is not None and report is not None and os.path.realpath(log) == os.path.realpath(report):
        raise BadSettings("--log and --report name one file. Name two.")


def _clean_up(config: RunConfig, account: Account | None, older_than: float, ca_bundle: Path | None) -> Exit:
    """Remove what earlier runs left behind, to the end even where nobody reads stdout any more."""

    def write(line: str) -> None:
        with contextlib.suppress(OSError, AttributeError):  # stdout may be closed
            write_line(clean(line), sys.stdout)

    if account is None:
        write("Nothing to clean up: no Azure account is set, and the stand-in account ends with its run.")
        return Exit.ANSWERED
    with trusting(ca_bundle) as verify:
        limit = max(config.timeout, 5.0)
        all_gone = clean_up(account, write, older_than=older_than, timeout=limit, proxy=config.proxy, verify=verify)
    return Exit.ANSWERED if all_gone else Exit.UNANSWERED


def _run(
    config: RunConfig,
    account: Account | None,
    store: Store | None,
    *,
    live: bool,
    lag: float,
    log: Path | None,
    report: Path | None,
    ca_bundle: Path | None,
) -> Exit:
    """Make one run. Whatever it opens, from the first socket to the screen, is closed here."""
    with contextlib.ExitStack() as stack:
        verify = stack.enter_context(trusting(ca_bundle))
        lose: Callable[[], None] | None = None
        restore: Callable[[], None] | None = None
        if account is None:
            stand_in = stack.enter_context(start_stand_in(lag))
            lose, restore = stand_in.lose_primary, stand_in.restore_primary
            account = account_of(stand_in)
        faults = FaultTransport(
            make_transport(account, timeout=max(config.timeout, 5.0), verify=verify),
            config.fault,
            primary=account.primary,
            blob=BLOB,
            timeout=config.timeout,
            lose=lose,
            restore=restore,
        )
        stack.enter_context(faults)
        sinks = Sinks()
        demo = Demo(config, account, faults, sinks, attended=_is_terminal(sys.stdin), store=store)
        sinks.nobody_left = demo.quit
        if report is not None:
            sinks.keep("The report", stack.enter_context(_to_file("--report", report, Report)))
        if log is not None:
            sinks.keep("The log", stack.enter_context(_to_file("--log", log, JsonLines)))
        screen = LiveScreen(Console()) if live else None
        stack.enter_context(_keys(demo, screen))  # opened before the screen and closed after it, for Ctrl-Z
        if screen is not None:
            sinks.show(stack.enter_context(screen))
        elif sys.stdout is not None:  # None with >&- or without a console
            sinks.show(PlainLines(sys.stdout))
        service = connect(account, demo.policy, faults, proxy=config.proxy)
        try:
            answered = demo.run(connect(account, demo.setup_policy, faults, proxy=config.proxy), service)
        finally:
            # The rest is quick, and an exception in the middle of it would print a traceback from inside urllib3.
            _on_signals(signal.SIG_IGN)
    return Exit.ANSWERED if answered else Exit.UNANSWERED


@contextlib.contextmanager
def _keys(demo: Demo, screen: LiveScreen | None) -> Iterator[None]:
    """React to single keys, where stdin is a terminal."""
    if not _is_terminal(sys.stdin):
        yield
        return
    stopped, continued = (screen.suspend, screen.resume) if screen is not None else (None, None)
    with KeyReader(lambda key: press(key, demo), on_end=demo.quit, on_stop=stopped, on_continue=continued):
        yield


def _to_file(option: str, file: Path, sink: Callable[[Path], _Sink]) -> _Sink:
    try:
        return sink(file)
    except OSError as error:
        why = error.strerror or type(error).__name__
        raise BadSettings(f"{option} {file} cannot be written: {why}. Name a file in a folder that exists.") from None


@contextlib.contextmanager
def _signals_end_it() -> Iterator[None]:
    """Let each signal that asks the program to end raise `Ended`, and restore the handlers afterwards."""
    before = {each: signal.getsignal(each) for each in SIGNALS}
    # A signal that is ignored stays so, as nohup wants it for SIGHUP. Not SIGINT: a shell's `&` ignores it, and Ctrl-C
    # must work after `fg`.
    _on_signals(_end, *(each for each in SIGNALS if each is signal.SIGINT or before[each] is not signal.SIG_IGN))
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _on_signals(handler: Callable[[int, Any], None] | signal.Handlers, *signals: signal.Signals) -> None:
    for each in signals or SIGNALS:
        signal.signal(each, handler)


def _end(number: int, _: object) -> None:
    raise Ended(128 + number)


def _is_terminal(stream: object) -> bool:
    try:
        return bool(stream.isatty())  # type: ignore[attr-defined]  # a stream, or None where the program has none
    except (AttributeError, ValueError):
        return False
