"""adlfs with failover. After `register()`, fsspec's `abfs://`, `az://` and `abfss://` read from either endpoint.

In fsspec, `FileNotFoundError` means that a file does not exist. If the secondary does not have a file and the primary
does not answer, it is unknown whether the file exists, so `NotReplicated` is raised instead.
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
    """Make fsspec open `abfs://`, `az://` and `abfss://` with `FailoverBlobFileSystem` in this process from now on.

    Existing file systems are not changed. A file system that is pickled, as dask does for its workers, keeps its
    failover in every process. A process that opens URLs itself must call `register()` itself.
    """
    for protocol in FailoverBlobFileSystem.protocol:
        register_implementation(protocol, FailoverBlobFileSystem, clobber=True)


class FailoverBlobFileSystem(AzureBlobFileSystem):  # type: ignore[misc]  # adlfs has no types
    """adlfs's file system, with a client that reads from the secondary if the primary does not answer.

    Within a process, all file systems with the same account and settings share one pair of circuits.

    Args:
        failover: Settings as for `install`, such as `{"max_staleness": 900}`. Like every option of a file system, they
            may be given in `storage_options` or in fsspec's configuration, and are pickled with it.
        **options: The options of adlfs.

    Raises:
        ValueError: adlfs rejects an option, or a setting is unknown or out of range.
    """

    def __init__(self, *args: Any, failover: Mapping[str, Any] | None = None, **options: Any) -> None:
        self._installation = _installation_of(failover or {})
        super().__init__(*args, **options)

    def do_connect(self) -> None:
        """Make the client. It connects when it is first used, in fsspec's event loop."""
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
        """Like adlfs's, which returns False after any error."""
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
        """Whether it is known to be a directory, which is not a blob: the secondary answers 404 for its name."""
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
