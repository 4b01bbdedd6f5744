"""blob://container: one blob per circuit, swapped by its ETag."""

from __future__ import annotations

from collections.abc import Iterable

from azure.core import MatchConditions
from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.storage.blob import BlobClient, ContainerClient

from failover.breaker.stores.azure import OPTIONS, AzureStore, code_of, date_into, store_error
from failover.breaker.stores.store import LARGEST, StoredRecord, StoreError, age_by, key_of


class BlobStore(AzureStore[ContainerClient]):
    """Of one container, by its name."""

    def __init__(self, container: str) -> None:
        super().__init__("blob", container)

    def _open(self, connection_string: str) -> ContainerClient:
        return ContainerClient.from_connection_string(connection_string, self._name, **OPTIONS)

    def read(self, names: Iterable[str]) -> dict[str, StoredRecord]:
        found = {name: self._read(name) for name in names}
        return {name: held for name, held in found.items() if held is not None}

    def _read(self, name: str) -> StoredRecord | None:
        dates: list[str | None] = []
        try:
            stream = self._blob(name).download_blob(0, LARGEST + 1, raw_response_hook=date_into(dates))
            body = stream.readall()
        except ResourceNotFoundError:
            return None
        except AzureError as error:
            if isinstance(error, HttpResponseError) and error.status_code == 416:
                return self._read_empty(name)
            raise store_error(self.url, error) from None
        version, written = stream.properties.etag, stream.properties.last_modified
        return StoredRecord(body, str(version), age_by(dates[-1] if dates else None, written, 1.0))

    def _read_empty(self, name: str) -> StoredRecord | None:
        """A blob without bytes has no range that could be asked for."""
        try:
            properties = self._blob(name).get_blob_properties()
        except ResourceNotFoundError:
            return None
        except AzureError as error:
            raise store_error(self.url, error) from None
        return StoredRecord(b"", str(properties.etag), 0.0)

    def _write(self, name: str, body: bytes, expected: str | None) -> str | None:
        blob = self._blob(name)
        try:
            if expected is None:
                done = blob.upload_blob(body, overwrite=False)
            else:
                unchanged = MatchConditions.IfNotModified
                done = blob.upload_blob(body, overwrite=True, etag=expected, match_condition=unchanged)
        except (ResourceExistsError, ResourceModifiedError) as error:
            if code_of(error) in ("BlobAlreadyExists", "ConditionNotMet", "UnauthorizedBlobOverwrite"):
                return None
            raise StoreError(f"{self.url}: {error.status_code} {code_of(error)}") from None
        return str(done["etag"])

    def _make(self) -> None:
        try:
            self._client.create_container()
        except HttpResponseError as error:
            if code_of(error) != "ContainerAlreadyExists":
                raise

    def _blob(self, name: str) -> BlobClient:
        return self._client.get_blob_client(f"circuits/{key_of(name)}")
