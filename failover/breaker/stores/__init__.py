"""Stores in which processes share circuits. A store is chosen by its URL, and its package is imported only then."""

from __future__ import annotations

import importlib
import os
import re
import threading
import weakref
from typing import Any, Final

from failover.breaker.stores.memory import MemoryStore
from failover.breaker.stores.store import Store, StoreClosed, StoredRecord, StoreError

__all__ = ["Store", "StoreClosed", "StoreError", "StoredRecord", "arguments_of", "open_store"]

SETTING: Final = "FAILOVER_STATE_CONNECTION_STRING"
"""The variable with the account of blob:// and table://, where `open_store` is not given it."""

_KINDS: Final = (
    "memory://, redis://host:port/db, redis+cluster://host:port, redis+sentinel://host:port/service (all of them also "
    "with rediss or valkey), unix:///path, blob://container or table://name"
)
# Module here, class, and what to install. The project itself is on no index, so the SDK is named.
_REDIS: Final = ("redis", "RedisStore", "redis>=5.1")
_AZURE: Final = {
    "blob": ("blob", "BlobStore", "azure-storage-blob>=12.24"),
    "table": ("table", "TableStore", "azure-data-tables>=12.5"),
}
_OF_REDIS: Final = re.compile(r"unix|(rediss?|valkeys?)(\+cluster|\+sentinel)?")
_NAMES: Final = {
    "blob": (re.compile(r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]"), "3 to 63 lower-case letters, digits and single -"),
    "table": (re.compile(r"[A-Za-z][A-Za-z0-9]{2,62}"), "3 to 63 letters and digits, a letter first"),
}

_opened: weakref.WeakValueDictionary[tuple[str, str], Any] = weakref.WeakValueDictionary()
_arguments: weakref.WeakKeyDictionary[Any, tuple[str, str | None]] = weakref.WeakKeyDictionary()
_lock = threading.Lock()


def open_store(url: str, connection_string: str | None = None) -> Store:
    """Open the store at this URL. It sends nothing until it is first used.

    Within a process, there is one object per URL as long as it is referenced and not closed.

    Args:
        url: memory://, redis://host:port/db (rediss:// with TLS, unix:///path?db=0), redis+cluster://host:port,
            redis+sentinel://host:port/service (all of these also with valkey), blob://container or table://name.
        connection_string: The account of blob:// and table://. None: that of FAILOVER_STATE_CONNECTION_STRING.

    Raises:
        ValueError: The URL is none of these, or there is no connection string. The text never contains credentials.
        ImportError: A package is missing. The text says how to install it.
    """
    scheme = url.partition("://")[0].lower() if isinstance(url, str) and "://" in url else ""
    if scheme != "memory" and scheme not in _AZURE and not _OF_REDIS.fullmatch(scheme):
        raise ValueError(f"a store's URL is {_KINDS}")
    account = _account(scheme, connection_string) if scheme in _AZURE else ""
    with _lock:
        store = _opened.get((url, account))
        if store is None or store.closed:
            store = _opened[url, account] = _make(scheme, url, account, SETTING if connection_string is None else "")
            _arguments[store] = url, connection_string
    found: Store = store
    return found


def arguments_of(store: Store) -> tuple[str, str | None] | None:
    """The arguments that `open_store` was given for a store, to open it in another process.

    They may contain credentials. None: the store was not opened by `open_store`.
    """
    return _arguments.get(store)


def _account(scheme: str, connection_string: str | None) -> str:
    value = (os.environ.get(SETTING, "") if connection_string is None else connection_string).strip()
    if not value:
        raise ValueError(
            f"{scheme}:// keeps the circuits' state in the account of {SETTING}, which is not set: set it to the "
            "connection string of an account other than the one that the circuits guard"
        )
    return value


def _make(scheme: str, url: str, account: str, setting: str) -> Store:
    if scheme == "memory":
        return MemoryStore(url)
    module, kind, package = _AZURE.get(scheme, _REDIS)
    arguments = (_name(scheme, url), account) if scheme in _AZURE else (url,)
    try:
        made: Any = importlib.import_module(f"failover.breaker.stores.{module}")
    except ImportError as error:
        if (error.name or "").startswith("failover"):
            raise
        raise ImportError(f"{scheme}:// needs a package that is not installed: pip install '{package}'") from None
    try:
        store: Store = getattr(made, kind)(*arguments)
    except ValueError as error:
        if scheme in _AZURE:
            what = setting or f"connection_string, as of {SETTING},"
            raise ValueError(f"{what} is no connection string of a storage account") from None
        raise error from None
    return store


def _name(scheme: str, url: str) -> str:
    pattern, wanted = _NAMES[scheme]
    what = "container" if scheme == "blob" else "name"
    # Not by .hostname, which is in lower case.
    name = url.partition("://")[2].rstrip("/")
    if not pattern.fullmatch(name):
        raise ValueError(f"{scheme}://{what}: the {what} has {wanted}, and nothing follows it")
    return name


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()  # the parent's may be held by a thread that does not exist here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
