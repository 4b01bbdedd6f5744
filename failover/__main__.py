"""Starts the command, for all three ways to call it: `circuitbreaker.py`, `ra-grs-failover`, `python -m failover`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

_BAD_SETTINGS: Final = 2  # `failover.cli.Exit`, which cannot be imported then
_PROJECT: Final = "ra-grs-failover"
_ASKED_UV: Final = "RA_GRS_FAILOVER_ASKED_UV"


def main() -> None:
    """Run the command and exit with its code. Ctrl-C ends it from here on, with exit code 130."""
    # The imports take half a second, and there is nothing to clean up yet. An exception could be lost in them.
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    try:
        from failover.cli import app
    except ModuleNotFoundError as error:
        name = error.name or ""
        if name.partition(".")[0] == "failover":
            raise
        again = uv_command(os.environ, sys.argv[1:])
        if again is not None:
            _become(again)
        program = Path(sys.argv[0])
        sys.stderr.write(
            f"{'python -m failover' if program.stem == '__main__' else program.name}: the package {name} is not "
            f"installed for {sys.executable}. {_how_to_install(program)}\n"
        )
        sys.exit(_BAD_SETTINGS)

    app()


def _how_to_install(program: Path) -> str:
    if program.name == "circuitbreaker.py":
        return "Activate the environment of the README's first command, or: pip install -r requirements.txt"
    in_a_checkout = (Path(__file__).parent.parent / "pyproject.toml").is_file()
    return f"The demonstration is an extra: pip install '{'.' if in_a_checkout else _PROJECT}[demo]'"


def uv_command(environ: Mapping[str, str], arguments: Sequence[str]) -> list[str] | None:
    """Where uv made this environment for one command, how to ask it for another one that has the extra.

    `uvx --from . ra-grs-failover` installs what `pip install .` does, and an installer cannot be told that a command
    needs an extra. uv names itself to the programs that it starts, so it can be asked at once.

    Args:
        environ: The environment of this process. `UV` is the path of uv.
        arguments: The command's own.

    Returns:
        The command, or None if uv did not start this program, was asked before, or could not find this project again.
    """
    uv = environ.get("UV")
    if not uv or _ASKED_UV in environ:
        return None
    try:
        installed = distribution(_PROJECT)
    except PackageNotFoundError:
        return None
    origin = json.loads(installed.read_text("direct_url.json") or "{}").get("url")  # PEP 610; none: from an index
    if origin is None:
        wanted = f"{_PROJECT}[demo]=={installed.version}"
    elif origin.startswith("file:"):
        wanted = f"{_PROJECT}[demo] @ {origin}"
    else:
        return None
    return [uv, "tool", "run", "--from", wanted, _PROJECT, *arguments]


def _become(command: list[str]) -> None:
    os.environ[_ASKED_UV] = "1"
    if sys.platform != "win32":
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.execv(command[0], command)  # noqa: S606 (no shell is meant)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the console sends Ctrl-C to both; there, exec would not wait
    sys.exit(subprocess.call(command))  # noqa: S603 (uv's own path, which it names)


if __name__ == "__main__":
    main()
