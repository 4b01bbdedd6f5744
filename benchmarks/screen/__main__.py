"""Films the live screen: `python -m benchmarks.screen docs/live` runs the program on a pseudo-terminal and draws it.

It presses what the README tells its reader to press: `f` in the first pause, any key, and `f` once more when a probe
has failed. Needs the extra `test`; POSIX only.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from benchmarks.screen.camera import LOOK, record
from benchmarks.screen.picture import draw

# 70 reads fill a line of the map at 80 columns. A little slower than usual, so that the lines can be read.
OPTIONS: Final = ("--pause-every", "70", "--requests", "210", "--rate", "16")


def main(arguments: Sequence[str] | None = None) -> int:
    """Write NAME.svg and NAME-dark.svg."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.screen", description=__doc__)
    parser.add_argument("name", type=Path, metavar="NAME", help="writes NAME.svg and NAME-dark.svg")
    parser.add_argument("--look", type=float, default=LOOK, help="seconds to stay at a pause and at the end")
    options, others = parser.parse_known_args(arguments)  # the others are the program's
    with tempfile.TemporaryDirectory() as folder:
        film = record(Path(folder), *(others or OPTIONS), look=options.look)
    for file in draw(film, options.name):
        sys.stdout.write(f"wrote {file}, {len(film.frames) / film.rate:.0f} s, {file.stat().st_size / 1000:.0f} kB\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
