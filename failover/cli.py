"""The command: options in, exit code out. `--help` describes it."""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer
from rich.console import Console
from typer.core import TyperCommand

from failover import __version__
from failover.console.keys import KeyReader, press
from failover.console.live import LiveScreen, TrueSize, can_draw
from failover.console.options import from_zero, one_of, positive, proxy_url, ranges, svg_file, whole
from failover.console.report import Report
from failover.console.sinks import JsonLines, PlainLines, Sinks, flush_or_forget, tell_stderr, write_line
from failover.console.wording import clean
from failover.demo.account import Account, BadSettings, find_account, stand_in_account, start_stand_in
from failover.demo.certificates import trusting
from failover.demo.cleanup import ABANDONED_AFTER, clean_up
from failover.demo.client import connect, make_transport
from failover.demo.config import REPLICA_WAIT, RunConfig
from failover.demo.faults import Fault, FaultTransport
from failover.demo.run import BLOB, Demo
from failover.demo.settings import Store, read_settings, replica_wait, state_store
from failover.demo.shared import Host, SharedFaults, shared_stand_in

LIVE_RATE: Final = 25.0  # reads per second: slow enough to see the failover
CLEAN_UP_OPTIONS: Final = frozenset({"--clean-up", "--older-than", "--proxy", "--ca-bundle", "--timeout", "--plain"})
LOOK_AGAIN: Final = 0.1  # seconds
OPEN_FILES: Final = 32  # a run on the stand-in account has about 16 at once, a shared state some more
MAX_COUNT: Final = 1_000_000  # far more than a run reads, and few enough for a machine to count
NOTHING: Final = " "  # for what follows an option that takes no value
TIMEOUT_HELP: Final = (
    "Connect and read time-out of one attempt. An answer after half of it is used, but counts as a failure."
)
FAULTS: Final = tuple(each.value for each in Fault)
USAGE_ERROR: Final[Any] = typer.BadParameter.__base__  # of the Click that Typer brings, whichever it is
READ, CIRCUIT, FAULT, ACCOUNT, OUTPUT = "What is read", "The circuit", "Faults", "Your account", "Output"
MORE_HELP: Final = """\
 Examples:
   circuitbreaker.py
   circuitbreaker.py --plain --fail 201:400 --report run.svg
   circuitbreaker.py --cooldown 10 --fault timeout
   circuitbreaker.py --fault timeout --hedge 0.3
   circuitbreaker.py --proxy http://127.0.0.1:8888 --ca-bundle FiddlerRoot.cer

 Exit codes:
   0    every read was answered
   1    some reads were not answered; with --clean-up: containers are left
   2    bad settings; one line on stderr says which
   130  interrupted with Ctrl-C

 Environment variables, also in .env (see .env.example); options override both:
   AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT with one of
   AZURE_STORAGE_KEY, AZURE_STORAGE_SAS_TOKEN, AZURE_STORAGE_AUTH_MODE=login
   AZURE_STORAGE_SERVICE_ENDPOINT    the blob endpoint of another cloud
   FAILOVER_REPLICA_WAIT_SECONDS     longest wait for the replica, in seconds
   FAILOVER_STATE_URL                like --state, for a URL with a password
   FAILOVER_STATE_CONNECTION_STRING  the account for blob:// and table://
   NO_COLOR                          if set, no colours
"""
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
app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode="rich")


class _Command(TyperCommand):
    """The command, with what is wrong with its options in one line, as with its other settings."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,
    ) -> Any:
        """Run it as `TyperCommand.main` does, and return its exit code, or exit with it where it stands alone."""
        try:
            code = super().main(args, prog_name, complete_var, False, windows_expand_args, **extra)
        except USAGE_ERROR as error:
            tell_stderr(clean(error.format_message(), longest=2000))
            code = int(Exit.BAD_SETTINGS)
        if standalone_mode:
            sys.exit(code)
        return code

    def format_help(self, ctx: Any, formatter: Any) -> None:
        super().format_help(ctx, formatter)
        typer.echo(MORE_HELP)  # not as an epilog: versions of Typer differ in which of its line ends they keep


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"circuitbreaker.py {__version__}")
        raise typer.Exit


def _option(panel: str, metavar: str | None, text: str, **more: Any) -> Any:
    return typer.Option(metavar=metavar, help=text, rich_help_panel=panel, **more)


def _faults() -> list[str]:
    return list(FAULTS)


@app.command(cls=_Command, context_settings={"help_option_names": ["-h", "--help"]})
def main(
    context: typer.Context,
    requests: Annotated[int, _option(READ, "N", "Number of reads; 0: until you quit.", parser=whole(0))] = 1000,
    pause_every: Annotated[int, _option(READ, "N", "Pause after every N reads; 0: never.", parser=whole(0))] = 200,
    rate: Annotated[
        float | None,
        _option(READ, "N", "Reads per second at most; 0: no limit.", parser=from_zero, show_default="25 live, 0 plain"),
    ] = None,
    replication_lag: Annotated[
        float | None,
        _option(
            READ, "SECONDS", "How far the secondary of the stand-in account lags.", parser=from_zero, show_default="1.0"
        ),
    ] = None,
    retry_threshold: Annotated[
        int, _option(CIRCUIT, "N", "Failures in a row that open the circuit.", parser=whole(1, MAX_COUNT))
    ] = 5,
    secondary_threshold: Annotated[
        int,
        _option(
            CIRCUIT,
            "N",
            "Reads that go straight to the secondary before the primary is probed.",
            parser=whole(1, MAX_COUNT),
        ),
    ] = 20,
    cooldown: Annotated[
        float | None, _option(CIRCUIT, "SECONDS", "Probe the primary after this time instead.", parser=positive)
    ] = None,
    timeout: Annotated[float, _option(CIRCUIT, "SECONDS", TIMEOUT_HELP, parser=positive)] = 2.0,
    hedge: Annotated[
        float | None,
        _option(
            CIRCUIT,
            "SECONDS",
            "If the primary has not answered after this time, also ask the secondary; the first answer is used.",
            parser=positive,
        ),
    ] = None,
    state: Annotated[
        str | None,
        _option(
            CIRCUIT,
            "URL",
            "Where processes share circuits: redis://, blob://, table://. With a password, use FAILOVER_STATE_URL.",
            show_default="memory://",
        ),
    ] = None,
    fault: Annotated[
        str,
        _option(
            FAULT,
            "KIND",
            f"The fault that the key f and --fail inject: {', '.join(FAULTS)} (the last one: stand-in account only).",
            callback=one_of(*FAULTS),
            autocompletion=_faults,
        ),
    ] = Fault.STATUS_503.value,
    fail: Annotated[
        list[str] | None,
        _option(FAULT, "FIRST:LAST", "Inject the fault on these reads; may be repeated.", callback=ranges),
    ] = None,
    proxy: Annotated[
        str | None,
        _option(ACCOUNT, "URL", "Send storage traffic through Fiddler or another proxy.", callback=proxy_url),
    ] = None,
    ca_bundle: Annotated[Path | None, _option(ACCOUNT, "FILE", "Certificate of the proxy, PEM or DER.")] = None,
    remove: Annotated[
        bool,
        typer.Option(
            "--clean-up",
            metavar=NOTHING,
            help="Remove the containers that killed runs left in the account, and exit.",
            rich_help_panel=ACCOUNT,
        ),
    ] = False,
    older_than: Annotated[
        float,
        _option(
            ACCOUNT, "SECONDS", "With --clean-up: only containers that no run has used for this long.", parser=from_zero
        ),
    ] = ABANDONED_AFTER,
    plain: Annotated[
        bool | None,
        typer.Option(
            "--plain/--live",
            metavar=NOTHING,
            help="Plain lines, or the live screen.",
            show_default="live on a terminal, else plain",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    log: Annotated[Path | None, _option(OUTPUT, "FILE", "Write every event as a line of JSON.")] = None,
    report: Annotated[
        Path | None, _option(OUTPUT, "FILE", "Draw the run as a picture (.svg).", callback=svg_file)
    ] = None,
    version: Annotated[  # noqa: ARG001 (its callback answers)
        bool, typer.Option("--version", metavar=NOTHING, callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Read a blob again and again from an RA-GRS storage account, break its primary, and watch the failover.

    If no Azure account is set in the environment or in .env, it starts a stand-in account on this machine.

    Keys: space or p pauses, any key resumes, f breaks or repairs the primary, q or Ctrl-C quits.
    """
    # The SDK logs warnings about what the screen explains better.
    for name in ("azure", "urllib3", "dotenv"):
        logging.getLogger(name).addHandler(logging.NullHandler())
    try:
        on_terminal = _is_terminal(sys.stdout) and can_draw(Console())
        live = on_terminal if plain is None else not plain
        settings = read_settings(os.environ, Path(".env"), tell=tell_stderr)
        account = find_account(settings)
        check_option_conflicts(context, cleaning_up=remove)
        _check_fit(account, Fault(fault), replication_lag, live_nowhere=live and not on_terminal)
        _check_files(log, report)
        _check_open_files()
        wait = replica_wait(settings, REPLICA_WAIT)
        _check_hedge(hedge, timeout)
        _check_reach(requests, fail or [], replication_lag, wait)
        config = RunConfig(
            requests=requests,
            pause_every=pause_every,
            rate=rate if rate is not None else LIVE_RATE if live else 0.0,
            retry_threshold=retry_threshold,
            secondary_threshold=secondary_threshold,
            cooldown=cooldown,
            hedge=hedge,
            timeout=timeout,
            fault=Fault(fault),
            fail=tuple(map(_first_and_last, fail or [])),
            proxy=proxy,
            replica_wait=wait,
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
    """Raise `BadSettings` where an option was given that does nothing beside another one, or without it."""
    given = [each.opts[0] for each in context.command.params if _is_given(context, each.name)]
    if {"--secondary-threshold", "--cooldown"} <= set(given):
        raise BadSettings("--secondary-threshold does nothing beside --cooldown: leave one of them out.")
    for option in given:
        if cleaning_up and option not in CLEAN_UP_OPTIONS:
            raise BadSettings(f"{option} does nothing beside --clean-up, which makes no run: leave one of them out.")
        if not cleaning_up and option == "--older-than":
            raise BadSettings("--older-than does nothing without --clean-up.")


def _is_given(context: typer.Context, name: str | None) -> bool:
    source = context.get_parameter_source(name or "")
    return source is not None and source.name == "COMMANDLINE"


def _check_fit(account: Account | None, fault: Fault, lag: float | None, live_nowhere: bool) -> None:
    """Raise `BadSettings` where an option makes sense, but not with this account or this stdout."""
    if live_nowhere:
        raise BadSettings("--live needs a terminal that can move its cursor; use --plain here.")
    if account is not None and fault is Fault.DOWN:
        raise BadSettings(f"--fault down needs the stand-in account: the {account} stays up. Try --fault reset.")
    if account is not None and lag is not None:
        raise BadSettings(f"--replication-lag is the stand-in account's; the {account} has its own.")


def _check_reach(requests: int, fail: list[str], lag: float | None, wait: float) -> None:
    """Raise `BadSettings` where a run could not get as far as an option says."""
    for each in fail:
        first, _ = _first_and_last(each)
        if 0 < requests < first:
            raise BadSettings(f"--fail {each} begins after the last read: --requests is {requests}.")
    if lag is not None and lag >= wait:
        raise BadSettings(
            f"--replication-lag {lag:g} is as long as the program waits for the replica, which is {wait:g} s, or "
            "longer. Give less, or wait longer with FAILOVER_REPLICA_WAIT_SECONDS."
        )


def _check_hedge(hedge: float | None, timeout: float) -> None:
    """Raise `BadSettings` where no read would ever be hedged."""
    if hedge is not None and hedge >= timeout:
        raise BadSettings(
            f"--hedge {hedge:g} does nothing: after --timeout {timeout:g} the primary is given up anyway. Give less."
        )


def _first_and_last(pair: str) -> tuple[int, int]:
    first, _, last = pair.partition(":")
    return int(first), int(last)


def _check_open_files() -> None:
    """Raise `BadSettings` where a run would soon hit the limit of open files: it would fail here and there."""
    held: list[int] = []
    try:
        for _ in range(OPEN_FILES):
            held.append(os.open(os.devnull, os.O_RDONLY))  # noqa: PERF401 (those before the limit are to be closed)
    except OSError as error:
        if error.errno not in (errno.EMFILE, errno.ENFILE):
            raise
        raise BadSettings(
            f"This process may not open enough files and sockets: a run needs {OPEN_FILES}. Raise the limit, as with "
            "ulimit -n 256."
        ) from None
    finally:
        for each in held:
            os.close(each)


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
    """Make one run, on the account or on a stand-in, which is closed again."""
    more: dict[str, Any] = {"live": live, "log": log, "report": report, "ca_bundle": ca_bundle}
    if account is not None:
        return _run_on(account, config, store, make_faults=FaultTransport, **more)
    if store is None:
        with start_stand_in(lag) as stand_in:
            faults = functools.partial(FaultTransport, lose=stand_in.lose_primary, restore=stand_in.restore_primary)
            return _run_on(stand_in_account(stand_in.connection_string), config, None, make_faults=faults, **more)
    with shared_stand_in(store, lambda: start_stand_in(lag)) as (place, host):
        account = stand_in_account(place.connection_string, joined=place.joined)
        shared = functools.partial(SharedFaults, place=place)
        code = _run_on(account, config, store, make_faults=shared, shared_name=place.id, **more)
        if host is not None:
            _wait_for_others(host)
    return code


def _wait_for_others(host: Host) -> None:
    """Keep the stand-in account for the processes that have joined it, until they end or the user ends it."""
    if host.in_use:
        tell_stderr("another process reads from this stand-in account, which waits for its end. Ctrl-C ends both.")
    _on_signals(_end, signal.SIGINT, signal.SIGTERM)
    while host.in_use:
        time.sleep(LOOK_AGAIN)


def _run_on(
    account: Account,
    config: RunConfig,
    store: Store | None,
    *,
    make_faults: Callable[..., FaultTransport],
    shared_name: str = "",
    live: bool,
    log: Path | None,
    report: Path | None,
    ca_bundle: Path | None,
) -> Exit:
    """Make one run on this account. Whatever it opens, from the first socket to the screen, is closed here."""
    with contextlib.ExitStack() as stack:
        sinks = Sinks()
        stack.enter_context(_files_named_at_the_end(sinks, live=live))
        verify = stack.enter_context(trusting(ca_bundle))
        faults = make_faults(
            make_transport(account, timeout=max(config.timeout, 5.0), verify=verify),
            config.fault,
            primary=account.primary,
            blob=BLOB,
            timeout=config.timeout,
        )
        stack.enter_context(faults)
        demo = Demo(
            config, account, faults, sinks, attended=_is_terminal(sys.stdin), store=store, shared_name=shared_name
        )
        sinks.nobody_left = demo.quit
        if report is not None:
            sinks.keep("report", report, stack.enter_context(_to_file("--report", report, Report)))
        if log is not None:
            sinks.keep("log", log, stack.enter_context(_to_file("--log", log, JsonLines)))
        screen = LiveScreen(TrueSize(), below=1 if log or report else 0) if live else None
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
def _files_named_at_the_end(sinks: Sinks, *, live: bool) -> Iterator[None]:
    """Say which files the run has left, in the last line of its output; of one that was refused an error says all."""
    refused = False
    try:
        yield
    except Exception:
        refused = True
        raise
    finally:
        files = [clean(f"{name} {_short(file)}", 2000) for name, file in sinks.kept()]
        if files and sys.stdout is not None and sinks.shown and not refused:
            with contextlib.suppress(OSError, ValueError):
                write_line(f"{'Written:' if live else 'written    '} {', '.join(files)}", sys.stdout)


def _short(file: Path) -> Path:
    """The file from here, where it is below here."""
    with contextlib.suppress(ValueError, OSError):
        return file.absolute().relative_to(Path.cwd())
    return file


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
