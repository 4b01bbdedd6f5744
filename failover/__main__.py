"""Starts the command, for all three ways to call it: `circuitbreaker.py`, `ra-grs-failover`, `python -m failover`."""

from __future__ import annotations

import os
import signal
import sys
from typing import Final

_BAD_SETTINGS: Final = 2  # `failover.cli.Exit`, which cannot be imported then


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
        sys.stderr.write(
            f"circuitbreaker.py: the package {name} is not installed for {sys.executable}. Activate the environment of "
            "the README's first command, or: pip install -r requirements.txt\n"
        )
        sys.exit(_BAD_SETTINGS)

    app()


if __name__ == "__main__":
    main()
