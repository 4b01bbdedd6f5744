"""table://name: one entity per circuit, replaced by its ETag. All are read in one query."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceModifiedError, ResourceNotFoundError
from azure.data.tables import TableClient, UpdateMode

from failover.breaker.stores.azure import AzureStore, code_of, date_into
from failover.breaker.stores.store import StoredRecord, age_by, key_of

_PARTITION: Final = "circuits"
_FEW: Final = 2  # up to so many are read one by one: a query of a large table costs more


class TableStore(AzureStore[TableClient]):
    """Of one table.

    Args:
        table: Its name.
        connection_string: Of its account.
    """

    def __init__(self, table: str, connection_string: str) -> None:
        super().__init__("table", table, connection_string)

    def _open(self, connection_string: str, **options: Any) -> TableClient:
        return TableClient.from_connection_string(connection_string, self._name, **options)

    def read(self, names: Iterable[str]) -> dict[str, StoredRecord]:
        wanted = list(names)
        if len(wanted) <= _FEW:
            each = {name: self._read(name) for name in wanted}
            return {name: stored for name, stored in each.items() if stored is not None}
        found: dict[str, StoredRecord] = {}
        for page in self._pages():
            found.update((name, page[key]) for name in wanted if (key := key_of(name)) in page)
        return found

    def changes(self, known: Mapping[str, str | None]) -> Iterator[Mapping[str, StoredRecord | None]]:
        """One query of all: see `ListsChanges`."""
        gone = {name for name, version in known.items() if version is not None}
        names: dict[str, str] = {}
        for page in self._pages():
            if page and not names:  # most circuits have never opened and have no entity: then no key is computed
                names = {key_of(name): name for name in known}
            found = {names[key]: stored for key, stored in page.items() if key in names}
            gone.difference_update(found)
            yield {name: stored for name, stored in found.items() if stored.version != known[name]}
        # Asked once more, since the caller may have written them between two pages.
        for name in gone:
            yield {name: self._read(name)}

    def _read(self, name: str) -> StoredRecord | None:
        dates: list[str | None] = []
        hook = date_into(dates)
        try:
            entity = self.request(
                lambda: self._client.get_entity(_PARTITION, key_of(name), raw_response_hook=hook),
            )
        except ResourceNotFoundError:
            return None
        return _stored(entity, dates)

    def _pages(self) -> Iterator[dict[str, StoredRecord]]:
        """All records by their keys: one request for each 1,000."""
        dates: list[str | None] = []
        rows = self._client.query_entities(f"PartitionKey eq '{_PARTITION}'", raw_response_hook=date_into(dates))
        pages = rows.by_page()
        try:
            while (page := self.request(lambda: next(pages, None))) is not None:
                yield {str(entity["RowKey"]): _stored(entity, dates) for entity in page}
        except ResourceNotFoundError:
            return  # there is no table yet

    def _write(self, name: str, body: bytes, expected: str | None) -> str | None:
        entity: dict[str, Any] = {"PartitionKey": _PARTITION, "RowKey": key_of(name), "record": body}
        try:
            if expected is None:
                done = self._client.create_entity(entity)
            else:
                unchanged = MatchConditions.IfNotModified
                done = self._client.update_entity(
                    entity, mode=UpdateMode.REPLACE, etag=expected, match_condition=unchanged
                )
        except (ResourceExistsError, ResourceModifiedError):
            return None
        return str(done["etag"])

    def _make(self) -> None:
        try:
            self._client.create_table()
        except HttpResponseError as error:
            if code_of(error) != "TableAlreadyExists":
                raise


def _stored(entity: Any, dates: list[str | None]) -> StoredRecord:
    body = entity.get("record")
    return StoredRecord(
        body if isinstance(body, bytes) else b"",
        str(entity.metadata["etag"]),
        age_by(dates[-1] if dates else None, entity.metadata.get("timestamp")),
    )
