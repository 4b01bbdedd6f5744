"""table://name: one entity per circuit, replaced by its ETag. All are read in one query."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Final

from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError, ResourceExistsError, ResourceModifiedError, ResourceNotFoundError
from azure.data.tables import TableClient, UpdateMode

from failover.breaker.stores.azure import AzureStore, code_of, date_into
from failover.breaker.stores.store import StoredRecord, age_by, key_of

_PARTITION: Final = "circuits"
_ALL_SECONDS: Final = 60.0  # between two queries of all records, which also find what was deleted
_MARGIN: Final = timedelta(seconds=10)  # for which the clocks of a service's servers may differ
_FEW: Final = 2  # up to so many are read one by one: a query of a large table costs more


class TableStore(AzureStore[TableClient]):
    """Of one table.

    Args:
        table: Its name.
        connection_string: Of its account.
    """

    def __init__(self, table: str, connection_string: str) -> None:
        super().__init__("table", table, connection_string)
        self._forget_looks()

    def _forget_looks(self) -> None:
        self._since: datetime | None = None
        self._all_due = -math.inf

    def forget_connections(self) -> None:
        super().forget_connections()
        self._forget_looks()

    def _open(self, connection_string: str, **options: Any) -> TableClient:
        return TableClient.from_connection_string(connection_string, self._name, **options)

    def read(self, names: Iterable[str]) -> dict[str, StoredRecord]:
        wanted = list(names)
        if len(wanted) <= _FEW:
            each = {name: self._read(name) for name in wanted}
            return {name: stored for name, stored in each.items() if stored is not None}
        found: dict[str, StoredRecord] = {}
        names = {key_of(name): name for name in wanted}
        try:
            for page in self._pages(None, []):
                found.update((names[key], stored) for key, stored in page.items() if key in names)
        except ResourceNotFoundError:
            return {}  # there is no table yet
        return found

    def changes(self, known: Mapping[str, str | None]) -> Iterator[Mapping[str, StoredRecord | None]]:
        """One query: of what was written since the last look, once a minute of all. See `ListsChanges`."""
        everything = self._since is None or time.monotonic() >= self._all_due
        dates: list[str | None] = []
        names: dict[str, str] = {}
        gone = {name for name, version in known.items() if version is not None}
        try:
            for page in self._pages(None if everything else self._since, dates):
                if page and not names:  # most circuits have never opened and have no entity: then no key is computed
                    names = {key_of(name): name for name in known}
                found = {names[key]: stored for key, stored in page.items() if key in names}
                gone.difference_update(found)
                yield {name: stored for name, stored in found.items() if stored.version != known[name]}
        except ResourceNotFoundError:
            everything = True  # there is no table, or none any more
        if everything:
            # Asked once more, since the caller may have written them between two pages.
            for name in gone:
                yield {name: self._read(name)}
            self._all_due = time.monotonic() + _ALL_SECONDS
        self._since = _before(dates)

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

    def _pages(self, since: datetime | None, dates: list[str | None]) -> Iterator[dict[str, StoredRecord]]:
        """The records written since then, by their keys: one request for each thousand."""
        wanted = f"PartitionKey eq '{_PARTITION}'"
        if since is not None:
            wanted += f" and Timestamp ge datetime'{since:%Y-%m-%dT%H:%M:%SZ}'"
        pages = self._client.query_entities(wanted, raw_response_hook=date_into(dates)).by_page()
        while (page := self.request(lambda: next(pages, None))) is not None:
            yield {str(entity["RowKey"]): _stored(entity, dates) for entity in page}

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


def _before(dates: list[str | None]) -> datetime | None:
    """A time of the server's clock before the query whose answers have these Date headers."""
    try:
        return parsedate_to_datetime(dates[0] or "") - _MARGIN
    except (IndexError, TypeError, ValueError):
        return None


def _stored(entity: Any, dates: list[str | None]) -> StoredRecord:
    body = entity.get("record")
    return StoredRecord(
        body if isinstance(body, bytes) else b"",
        str(entity.metadata["etag"]),
        age_by(dates[-1] if dates else None, entity.metadata.get("timestamp")),
    )
