"""The small shape that every library is put in, and how the one on PyPI is loaded and no namesake of it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Final, Protocol

from benchmarks import ROOT

OURS: Final = "failover.breaker"
Guard = Callable[[Callable[..., Any]], Callable[..., Any]]
"""A decorator; all that it decorates goes through one circuit."""


class Unsupported(Exception):  # noqa: N818 (it says what the library is asked for in vain, which is no mistake)
    """The library has no way to say what is wished."""


class Failure(Exception):  # noqa: N818 (named for what it is to a circuit)
    """What a failed remote raises in these benchmarks."""


class Ignored(Exception):  # noqa: N818 (as above)
    """An error that says nothing about the remote."""


@dataclass(frozen=True)
class Wish:
    """A circuit to be made. Seconds for cooldown and lease; None: whatever the library does by default."""

    threshold: Any = 3
    cooldown: Any = 60.0
    probes: int = 1
    lease: float | None = None
    ignore: bool = False
    """Whether `Ignored` is to count neither as a success nor as a failure."""
    listener: Callable[[], None] | None = None
    """Called at everything that the library tells listeners."""
    clock: Callable[[], float] | None = None


class Library(Protocol):
    """One library. `ways`: "sync", "async" or both. It may have the methods of `LACKS` too."""

    package: str
    module: str
    ways: tuple[str, ...]
    fields: dict[str, str]
    """What the library itself calls the threshold and the cooldown."""

    def make(self, wish: Wish, way: str) -> Guard:
        """A new closed circuit that probes one call at a time and closes after one success, where it can be told so."""

    def call(self, wish: Wish) -> Callable[..., Any] | None:
        """As `make`, as a function that takes a function and its arguments; None where there is no such thing."""


LACKS: Final = {
    # acall(wish): takes a coroutine function and its arguments, and gives what is to be awaited.
    "acall": "nothing that calls a coroutine function",
    # block(wish, way): makes blocks, and a guard of the same circuit.
    "block": "no block",
    # changing(wish): a guard, and what assigns another threshold to the live circuit.
    "changing": "no setting that can be assigned while it is in use",
    # limited(wish, seconds): a guard whose calls may take so long.
    "limited": "no time-out of a call",
    # shared(wish, way, url): as `make`, with its state in that Redis.
    "shared": "no state in Redis",
    # window(seconds, clock): a guard, and what tells the failures that count, of those seconds.
    "window": "no window in seconds: it counts calls",
}
"""What not every library can do, by the method of its adapter that does it."""


def ask(library: Library, method: str, *arguments: Any) -> Any:
    """What the adapter's method gives. `Unsupported` where it has none."""
    found = getattr(library, method, None)
    if found is None:
        raise Unsupported(f"it has {LACKS[method]}")
    return found(*arguments)


def load(library: Library) -> Any:
    """The library's module. `PackageNotFoundError` where it is not installed; `RuntimeError` where another is found."""
    if library.package == OURS:
        return importlib.import_module(library.module)
    distribution = metadata.distribution(library.package)
    known = sys.modules.get(library.module)
    if known is not None and _is_ours(known):
        del sys.modules[library.module]
    before = sys.path[:]
    # Our circuitbreaker.py lies in the directory that `python -m` puts first.
    sys.path[:] = [entry for entry in before if Path(entry or ".").resolve() != ROOT]
    try:
        importlib.invalidate_caches()
        module = importlib.import_module(library.module)
    finally:
        sys.path[:] = before
    file = Path(module.__file__ or "").resolve()
    theirs = {Path(str(distribution.locate_file(each))).resolve() for each in distribution.files or ()}
    if file not in theirs or "site-packages" not in file.parts:
        raise RuntimeError(f"{library.module} came from {file}, which is no file of the package {library.package}")
    return module


def version_of(library: Library) -> str | None:
    """The installed version, None where there is none."""
    if library.package == OURS:
        return "this checkout"
    try:
        return metadata.version(library.package)
    except metadata.PackageNotFoundError:
        return None


def _is_ours(module: Any) -> bool:
    return ROOT in Path(getattr(module, "__file__", None) or "/").resolve().parents


def refuse(wish: Wish, *names: str) -> None:
    """Raise `Unsupported` where something is wished that the library has no word for."""
    for name in names:
        if getattr(wish, name) != getattr(Wish(), name):
            raise Unsupported(f"it has no way to set: {name}")
