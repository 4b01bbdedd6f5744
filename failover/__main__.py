"""Starts the command, for all three ways to call it: `circuitbreaker.py`, `ra-grs-failover`, `python -m failover`."""

from __future__ import annotations

import os
import signal


def main() -> None:
    """Run the command and exit with its code. Ctrl-C ends it from here on, with exit code 130."""
    # The imports take half a second, and there is nothing to clean up yet. An exception could be lost in them.
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    from failover.cli import app

    app()


if __name__ == "__main__":
    main()
