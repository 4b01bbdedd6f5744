"""The files of the project: what git knows of, or, in an unpacked sdist, what git would not ignore."""

from __future__ import annotations

import fnmatch
import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
MADE_FOR_THE_SDIST = "PKG-INFO"


def project_files() -> list[str]:
    """Their paths below the project's folder, with slashes, sorted."""
    if not (ROOT / ".git").exists():
        return sorted(_not_ignored())
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return sorted(name for name in listed.split("\0") if name and (ROOT / name).is_file())


def _not_ignored() -> list[str]:
    ignored = [line.strip("/") for line in (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines() if line]
    found = []
    for folder, folders, files in os.walk(ROOT):
        folders[:] = [each for each in folders if not any(fnmatch.fnmatch(each, pattern) for pattern in ignored)]
        kept = [each for each in files if not any(fnmatch.fnmatch(each, pattern) for pattern in ignored)]
        found += [(Path(folder) / each).relative_to(ROOT).as_posix() for each in kept]
    return [each for each in found if each != MADE_FOR_THE_SDIST]


def copy_project(folder: Path) -> Path:
    """Copy them as they are now, committed or not, and give the folder."""
    for name in project_files():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, folder / name)
    return folder
