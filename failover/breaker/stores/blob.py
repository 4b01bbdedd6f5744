"""blob://container: one blob per circuit, swapped by its ETag."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from azure.core import MatchConditions
from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.storage.blob import BlobClient, ContainerClient

from failover.breaker.stores.azure import (
    OPTIONS,
    bad_connection_string,
    code_of,
    connection_string,
    date_into,
    store_error,
)
from failover.breaker.stores.store import LARGEST, Held, StoreError, age_by, check_size, key_of


class BlobStore:
    """The container is made at the first write if it is not there. Nothing in it is ever forgotten."""

    instant = False
    refresh = 1.0

    def __init__(self, container: str) -> None:
        self.url = f"blob://{container}"
        self._container = container
        self._connection_string = connection_string("blob")
        self._client = self._connect()

    def _connect(self) -> ContainerClient:
        try:
            return ContainerClient.from_connection_string(self._connection_string, self._container, **OPTIONS)
        except (ValueError, TypeError, AzureError):  # TypeError: of the SDK itself, for an address without a host
            raise bad_connection_string() from None

    def read(self, names: Iterable[str]) -> dict[str, Held]:
        found = {name: self._read(name) for name in names}
        return {name: held for name, held in found.items() if held is not None}

    def _read(self, name: str) -> Held | None:
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
        return Held(body, str(version), age_by(dates[-1] if dates else None, written, 1.0))

    def _read_empty(self, name: str) -> Held | None:
        """A blob without bytes has no range that could be asked for."""
        try:
            properties = self._blob(name).get_blob_properties()
        except ResourceNotFoundError:
            return None
        except AzureError as error:
            raise store_error(self.url, error) from None
        return Held(b"", str(properties.etag), 0.0)

    def swap(self, name: str, body: bytes, expected: str | None, keep: float | None = None) -> str | None:  # noqa: ARG002 (see the class)
        check_size(body)
        try:
            return self._write(name, body, expected)
        except ResourceNotFoundError:
            if expected is not None:
                return None  # a new one misses only where it would be put
        except AzureError as error:
            raise store_error(self.url, error) from None
        try:
            self._make_container()
            return self._write(name, body, expected)
        except AzureError as error:
            raise store_error(self.url, error) from None

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

    def _make_container(self) -> None:
        try:
            self._client.create_container()
        except HttpResponseError as error:
            if code_of(error) != "ContainerAlreadyExists":
                raise

    def watch(self, changed: Callable[[str | None], None]) -> bool:  # noqa: ARG002 (an account pushes nothing)
        return False

    def forget_connections(self) -> None:
        self._client = self._connect()

    def _blob(self, name: str) -> BlobClient:
        return self._client.get_blob_client(f"circuits/{key_of(name)}")
