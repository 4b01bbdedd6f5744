"""A transport's response of which whoever reads the body gets what we make of it."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable
from typing import Any, Final

_WAYS: Final = ("stream_download", "iter_bytes", "iter_raw")
# azure-core's second kind of response hides those of its first behind an underscore.
OPENERS: Final = frozenset([*_WAYS, *(f"_{way}" for way in _WAYS)])
"""The methods of a transport's response that open its body."""

Opens = Callable[[str, Any, Any, Any], Any]
"""Takes how a body was opened, its pieces, and with which arguments: to open another response's in the same way."""


def guard(http: Any, opens: Opens) -> None:
    """See to it that the pieces of the body of `http` go through `opens`, in whichever way it is opened."""
    # Weak, since `http` is to hold it: in a circle each response would wait for the garbage collector.
    this, own = weakref.ref(http), vars(http)
    for way, hidden, method in _ways(type(http)):  # type: ignore[arg-type]  # mypy looks at its instances' hash
        placed = own.get(way) or own.get(hidden)
        if placed is not None:  # by a transport: it goes first, and is no method
            own[way] = functools.partial(_open_placed, opens, placed, way)
        elif method is not None:
            own[way] = functools.partial(_open, opens, method, this, way)


@functools.lru_cache(maxsize=64)
def _ways(kind: type) -> tuple[tuple[str, str, Callable[..., Any] | None], ...]:
    """The ways to open the body of such a response: their names, open and hidden, and the methods, or None."""
    names = [(way, f"_{way}") for way in _WAYS]
    return tuple((way, hidden, getattr(kind, way, None) or getattr(kind, hidden, None)) for way, hidden in names)


def _open(opens: Opens, method: Callable[..., Any], this: Any, way: str, *args: Any, **kwargs: Any) -> Any:
    return opens(way, method(this(), *args, **kwargs), args, kwargs)


def _open_placed(opens: Opens, placed: Callable[..., Any], way: str, *args: Any, **kwargs: Any) -> Any:
    return opens(way, placed(*args, **kwargs), args, kwargs)
