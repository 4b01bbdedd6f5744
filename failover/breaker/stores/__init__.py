"""Where a fleet agrees: a store is picked by its URL, and its SDK is imported then."""

from __future__ import annotations

import importlib
import os
import re
import threading
from typing import Any, Final

from failover.breaker.stores.memory import MemoryStore
from failover.breaker.stores.store import Store, StoredRecord, StoreError

__all__ = ["Store", "StoreError", "StoredRecord", "open_store"]

_KINDS: Final = "memory://, redis://host:port/db, rediss://host:port/db, unix:///path, blob://container or table://name"
# Scheme: module here, class, what to install.
_MODULES: Final = {
    "redis": ("redis", "RedisStore", "ra-grs-failover[redis]"),
    "rediss": ("redis", "RedisStore", "ra-grs-failover[redis]"),
    "unix": ("redis", "RedisStore", "ra-grs-failover[redis]"),
    "blob": ("blob", "BlobStore", "azure-storage-blob"),
    "table": ("table", "TableStore", "ra-grs-failover[table]"),
}
_NAMES: Final = {
    "blob": (re.compile(r"(?!.*--)[a-z0-9][a-z0-9-]{1,61}[a-z0-9]"), "3 to 63 lower-case letters, digits and single -"),
    "table": (re.compile(r"[A-Za-z][A-Za-z0-9]{2,62}"), "3 to 63 letters and digits, a letter first"),
}

_opened: dict[tuple[str, str], Store] = {}
_lock = threading.Lock()


def open_store(url: str) -> Store:
    """The store of this URL, one object per process; nothing is sent before it is used.

    memory://, redis://host:port/db (rediss:// with TLS, unix:///path?db=0), blob://container, table://name; the last
    two live in the account of FAILOVER_STATE_CONNECTION_STRING. Raises `ValueError` for a URL that is none of these
    or lacks that setting, never showing credentials, and `ImportError` saying what to install.
    """
    scheme = url.partition("://")[0].lower() if isinstance(url, str) and "://" in url else ""
    if scheme != "memory" and scheme not in _MODULES:
        raise ValueError(f"a store's URL is {_KINDS}")
    setting = os.environ.get("FAILOVER_STATE_CONNECTION_STRING", "") if scheme in _NAMES else ""
    with _lock:
        store = _opened.get((url, setting))
        if store is None:
            store = _opened[url, setting] = _make(scheme, url)
    return store


def _make(scheme: str, url: str) -> Store:
    if scheme == "memory":
        return MemoryStore(url)
    argument = _name(scheme, url) if scheme in _NAMES else url
    module, kind, package = _MODULES[scheme]
    try:
        made: Any = importlib.import_module(f"failover.breaker.stores.{module}")
    except ImportError as error:
        if (error.name or "").startswith("failover"):
            raise
        raise ImportError(f"{scheme}:// needs a package that is not installed: pip install '{package}'") from None
    store: Store = getattr(made, kind)(argument)
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
