"""table://name: one entity per circuit, swapped by its ETag; all are read in one query."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from azure.core import MatchConditions
from azure.core.exceptions import (
    AzureError,
    HttpResponseError,
    ResourceExistsError,
    ResourceModifiedError,
    ResourceNotFoundError,
)
from azure.data.tables import TableClient, UpdateMode

from failover.breaker.stores.azure import OPTIONS, AzureStore, code_of, date_into, store_error
from failover.breaker.stores.store import StoredRecord, age_by, key_of

_PARTITION: Final = "circuits"
_FEW: Final = 2  # up to so many are read one by one: a query of a large table costs more


class TableStore(AzureStore[TableClient]):
    """Of one table, by its name."""

    def __init__(self, table: str) -> None:
        super().__init__("table", table)

    def _open(self, connection_string: str) -> TableClient:
        return TableClient.from_connection_string(connection_string, self._name, **OPTIONS)

    def read(self, names: Iterable[str]) -> dict[str, StoredRecord]:
        wanted = {key_of(name): name for name in names}
        try:
            if len(wanted) <= _FEW:
                found = [(key, self._read(key)) for key in wanted]
                return {wanted[key]: held for key, held in found if held is not None}
            return self._read_all(wanted)
        except ResourceNotFoundError:
            return {}
        except AzureError as error:
            raise store_error(self.url, error) from None

    def _read(self, key: str) -> StoredRecord | None:
        dates: list[str | None] = []
        try:
            entity = self._client.get_entity(_PARTITION, key, raw_response_hook=date_into(dates))
        except ResourceNotFoundError:
            return None
        return _held(entity, dates)

    def _read_all(self, wanted: dict[str, str]) -> dict[str, StoredRecord]:
        dates: list[str | None] = []
        rows = self._client.query_entities(f"PartitionKey eq '{_PARTITION}'", raw_response_hook=date_into(dates))
        found: dict[str, StoredRecord] = {}
        for entity in rows:
            name = wanted.get(str(entity["RowKey"]))
            if name is not None:
                found[name] = _held(entity, dates)
        return found

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


def _held(entity: Any, dates: list[str | None]) -> StoredRecord:
    body = entity.get("record")
    return StoredRecord(
        body if isinstance(body, bytes) else b"",
        str(entity.metadata["etag"]),
        age_by(dates[-1] if dates else None, entity.metadata.get("timestamp")),
    )
