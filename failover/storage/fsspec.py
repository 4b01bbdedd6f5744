"""adlfs with failover: `register()`, and then `abfs://`, `az://` and `abfss://` of fsspec read from either endpoint.

fsspec takes `FileNotFoundError` for "it is not there". What the secondary does not hold while the primary gives no
answer is not known to be missing, so that is never said of it: the caller gets `NotReplicated`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from azure.core.exceptions import AzureError, ResourceNotFoundError

from failover.breaker.forks import ForkSafeLock
from failover.storage.clients import Installation
from failover.storage.errors import BothEndpointsDown, NotReplicated

try:
    from adlfs import AzureBlobFileSystem
    from fsspec import register_implementation
except ImportError as error:
    raise ImportError(f"failover.storage.fsspec needs adlfs: pip install adlfs ({error})") from None

__all__ = ["FailoverBlobFileSystem", "register"]

_lock: Final = ForkSafeLock()
_installations: Final[list[Installation]] = []  # one for each of the settings that there were


def register() -> None:
    """Let fsspec open `abfs://`, `az://` and `abfss://` with `FailoverBlobFileSystem`, in this process, from now on.

    File systems that exist already stay as they are. One that is pickled, as dask does for its workers, comes back
    with failover in any process; a process that opens URLs itself calls `register()` itself.
    """
    for protocol in FailoverBlobFileSystem.protocol:
        register_implementation(protocol, FailoverBlobFileSystem, clobber=True)


class FailoverBlobFileSystem(AzureBlobFileSystem):  # type: ignore[misc]  # adlfs has no types
    """adlfs's file system; its client reads from the secondary when the primary does not answer.

    All file systems of one account and with the same settings share one pair of circuits in a process.

    Args:
        failover: Settings as `install` takes them, such as `{"max_staleness": 900}`. As every option of a file system
            they may stand in `storage_options` or in fsspec's configuration, and are pickled with it.
        **options: adlfs's.

    Raises:
        ValueError: Of adlfs; or a setting is none, or is out of range.
    """

    def __init__(self, *args: Any, failover: Mapping[str, Any] | None = None, **options: Any) -> None:
        self._installation = _installation_of(failover or {})
        super().__init__(*args, **options)

    def do_connect(self) -> None:
        """Make the client, which connects when it is first used, in fsspec's event loop."""
        super().do_connect()
        self._installation.protect(self.service_client)

    async def _info(self, path: str, refresh: bool = False, **options: Any) -> dict[str, Any]:
        try:
            found: dict[str, Any] = await super()._info(path, refresh=refresh, **options)
        except NotReplicated:
            if not await self._has_files_below(path):
                raise
            return {"name": self._strip_protocol(path).rstrip("/"), "size": None, "type": "directory"}
        return found

    async def _exists(self, path: str, **options: Any) -> bool:
        try:
            return bool(await super()._exists(path, **options))
        except NotReplicated:
            if not await self._has_files_below(path):
                raise
            return True

    async def _isfile(self, path: str) -> bool:
        """As adlfs's, which takes every error for a no."""
        container, name, version = self.split_path(path)
        if not name:
            return False
        parent = self.dircache.get(path.rpartition("/")[0]) or ()
        if any(each["name"] == path and each["type"] == "file" for each in parent):
            return True
        try:
            async with self.service_client.get_blob_client(container, name) as client:
                try:
                    properties = await client.get_blob_properties(version_id=version, retry_total=0)
                except ResourceNotFoundError:
                    return False
                except AzureError:
                    # A folder is no blob, and so never replicated: no retry finds out more.
                    if await self._has_files_below(path):
                        return False
                    properties = await client.get_blob_properties(version_id=version)
        except (NotReplicated, BothEndpointsDown):
            raise
        except Exception:  # noqa: BLE001 (adlfs's answer)
            return False
        (details,) = await self._details([properties])
        return bool(details["type"] == "file")

    async def _has_files_below(self, path: str) -> bool:
        """Whether it is known to be a directory, which is no blob: the secondary says 404 of its name."""
        container, name, _ = self.split_path(path)
        if not name:
            return False
        below = f"{name.rstrip('/')}/"
        async with self.service_client.get_container_client(container) as client:
            async for _ in client.list_blobs(name_starts_with=below, results_per_page=1):
                return True
        return False


def _installation_of(settings: Mapping[str, Any]) -> Installation:
    made = Installation(dict(settings))
    with _lock:
        for each in _installations:
            if each.settings == made.settings:
                return each
        _installations.append(made)
        return made
