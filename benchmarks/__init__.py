"""Side by side with what a user would pick instead: a folder for each question, run as `python -m benchmarks.FOLDER`.

`report`, `drawing` and `libraries` are what several of them need.
"""

from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
"""The checkout, from which the programs that are measured are started."""
