"""blob://container: one blob per circuit, replaced by its ETag."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final
from xml.etree import ElementTree as ET

from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceModifiedError, ResourceNotFoundError
from azure.core.pipeline import PipelineResponse
from azure.storage.blob import BlobClient, ContainerClient

from failover.breaker.stores.azure import AzureStore, code_of, date_into
from failover.breaker.stores.store import LARGEST, StoredRecord, StoreError, age_by, key_of

_FOLDER: Final = "circuits/"
_AT_ONCE: Final = 1000  # blobs in one page of a listing: of five times as many some servers take too long


class BlobStore(AzureStore[ContainerClient]):
    """Of one container.

    Args:
        container: Its name.
        connection_string: Of its account.
    """

    def __init__(self, container: str, connection_string: str) -> None:
        super().__init__("blob", container, connection_string)
        self._listing: list[_Listed] = []
        self._same: tuple[list[_Listed], dict[str, str | None]] | None = None

    def _open(self, connection_string: str, **options: Any) -> ContainerClient:
        return ContainerClient.from_connection_string(connection_string, self._name, **options)

    def read(self, names: Iterable[str]) -> dict[str, StoredRecord]:
        found = {name: self._read(name) for name in names}
        return {name: stored for name, stored in found.items() if stored is not None}

    def changes(self, known: Mapping[str, str | None]) -> Iterator[Mapping[str, StoredRecord | None]]:
        """One listing, then one read for each blob that has changed: see `ListsChanges`."""
        pages = self._list()
        if self._same == (pages, known):
            return  # as nearly always: of thousands of circuits to compute the keys would cost more than the listing
        etags = {key: version for page in pages for key, version in page.etags.items()}
        # Most circuits have never opened and have no blob: then no key is computed.
        names = {f"{_FOLDER}{key_of(name)}": name for name in known} if etags else {}
        listed = {names[key]: version for key, version in etags.items() if key in names}
        gone = {name for name, version in known.items() if version is not None and name not in listed}
        changed = [name for name, version in listed.items() if version != known[name]]
        self._same = None if gone or changed else (pages, dict(known))
        yield dict.fromkeys(gone)
        for name in changed:
            yield {name: self._read(name)}

    def _list(self) -> list[_Listed]:
        """All records: one request for each thousand. A page that comes as it came the last time is not parsed anew."""
        last = {page.digest: page for page in self._listing}
        pages: list[_Listed] = []
        marker: str | None = None
        try:
            while marker or not pages:
                body = self.request(partial(self._page, marker))
                digest = hashlib.sha256(body).digest()
                pages.append(last.get(digest) or _parsed(body, digest))
                marker = pages[-1].next_marker
        except ResourceNotFoundError:
            pages = []  # there is no container yet
        except ET.ParseError:
            raise StoreError(f"{self.url}: the listing is no XML") from None
        self._listing = pages
        return pages

    def _page(self, marker: str | None) -> bytes:
        """One page of the listing, as it comes.

        The SDK takes 0.25 ms of a core to make an object of each blob: with 5,000 of them more than a core, at one
        listing a second. So the page leaves by its hook, before that.
        """
        blobs = self._client.list_blobs(name_starts_with=_FOLDER, results_per_page=_AT_ONCE, raw_response_hook=_leave)
        try:
            next(blobs.by_page(marker))
        except _Page as page:
            return page.body
        raise StoreError(f"{self.url}: the SDK has not called its hook")  # nothing known does that

    def _read(self, name: str) -> StoredRecord | None:
        try:
            return self.request(lambda: self._download(self._blob(name)))
        except ResourceNotFoundError:
            return None

    def _download(self, blob: BlobClient) -> StoredRecord:
        dates: list[str | None] = []
        try:
            stream = blob.download_blob(0, LARGEST + 1, raw_response_hook=date_into(dates))
            body = stream.readall()
        except HttpResponseError as error:
            if error.status_code != 416:
                raise
            # A blob without bytes has no range that could be asked for.
            return StoredRecord(b"", str(blob.get_blob_properties().etag), 0.0)
        version, written = stream.properties.etag, stream.properties.last_modified
        return StoredRecord(body, str(version), age_by(dates[-1] if dates else None, written, 1.0))

    def _write(self, name: str, body: bytes, expected: str | None) -> str | None:
        write = partial(self._blob(name).upload_blob, body)
        try:
            if expected is None:
                done = write(overwrite=False)
            else:
                done = write(overwrite=True, etag=expected, match_condition=MatchConditions.IfNotModified)
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
        return self._client.get_blob_client(f"{_FOLDER}{key_of(name)}")


@dataclass(frozen=True, eq=False)
class _Listed:
    """A page of the listing. `etags`: of its records, by the blobs' names."""

    digest: bytes
    etags: Mapping[str, str]
    next_marker: str | None


def _parsed(body: bytes, digest: bytes) -> _Listed:
    page = ET.fromstring(body)  # noqa: S314 (of the user's own account)
    etags = {
        blob.findtext("Name", ""): _quoted(blob.findtext("Properties/Etag", "")) for blob in page.iterfind("Blobs/Blob")
    }
    return _Listed(digest, etags, page.findtext("NextMarker"))


class _Page(Exception):  # noqa: N818 (it carries what was asked for)
    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.body = body


def _leave(response: PipelineResponse[Any, Any]) -> None:
    if response.http_response.status_code == 200:
        raise _Page(response.http_response.body())


def _quoted(etag: str) -> str:
    """As in the header of an answer: a listing has it without quotes."""
    return etag if etag.startswith(('"', "W/")) else f'"{etag}"'
