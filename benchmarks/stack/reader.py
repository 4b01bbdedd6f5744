"""One library that reads from a storage account, without failover and with it: the process that benchmarks.stack asks.

It takes orders, one a line: `bare` and `ours` read once, `pairs SECONDS` compares them for so long, or for
100 pairs. It answers each with a line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from benchmarks.report import say

CONTAINER: Final = "demo"
NAME: Final = "block.bin"
_LEAST_PAIRS: Final = 100
_MOST_PAIRS: Final = 1000
_WARM_UP: Final = 3

Read = Callable[[], bytes]


@dataclass(frozen=True)
class Library:
    """A library, and how it is given failover.

    package: Whose version counts.
    make: Makes what reads the blob, without failover or with it. It is called in this order, in one process, so that
        `install` and `register` come after the bare client was made.
    """

    name: str
    package: str
    how: str
    make: Callable[[bool], Read]


def _connection_string() -> str:
    return os.environ["AZURE_STORAGE_CONNECTION_STRING"]


def _file_system(ours: bool) -> Any:
    from adlfs import AzureBlobFileSystem

    from failover.storage.fsspec import FailoverBlobFileSystem

    kind = FailoverBlobFileSystem if ours else AzureBlobFileSystem
    return kind(connection_string=_connection_string(), use_listings_cache=False)


def _register(ours: bool) -> None:
    from failover.storage.fsspec import register

    if ours:
        register()


def _install(ours: bool) -> None:
    from failover.storage import install

    if ours:
        install()


def _protected(client: Any, ours: bool) -> Any:
    from failover.storage import protect

    return protect(client) if ours else client


def _adlfs(ours: bool) -> Read:
    fs = _file_system(ours)
    return lambda: bytes(fs.cat_file(f"{CONTAINER}/{NAME}"))


def _frame(kind: str, ours: bool) -> Read:
    """By a URL: the protocol's file system at that moment is kept."""
    import fsspec

    _register(ours)
    fsspec.filesystem("abfs")
    url = f"abfs://{CONTAINER}/{NAME}"
    classes = fsspec.get_filesystem_class("abfs")

    def read() -> bytes:
        # Pairs take turns: the registry is set to the class that this one has.
        fsspec.register_implementation("abfs", classes, clobber=True)
        if kind == "pandas":
            import pandas as pd

            frame = pd.read_csv(url, header=None, names=["line"])
        else:
            import dask.dataframe as dd

            frame = dd.read_csv(url, header=None, names=["line"]).compute(scheduler="synchronous")
        return "".join(f"{line}\n" for line in frame["line"]).encode()

    return read


def _pyarrow(ours: bool) -> Read:
    import pyarrow.fs

    fs = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(_file_system(ours)))

    def read() -> bytes:
        with fs.open_input_stream(f"{CONTAINER}/{NAME}") as stream:
            return bytes(stream.read())

    return read


def _polars(ours: bool) -> Read:
    import polars as pl

    fs = _file_system(ours)

    def read() -> bytes:
        with fs.open(f"{CONTAINER}/{NAME}") as file:
            frame = pl.read_csv(file, has_header=False, new_columns=["line"])
        return "".join(f"{line}\n" for line in frame["line"]).encode()

    return read


def _data_lake(ours: bool) -> Read:
    from azure.storage.filedatalake import DataLakeServiceClient

    from failover.storage import GeoFailover, protect

    # The stand-in has no dfs endpoint; the content of a file comes from the blob endpoint in any account.
    client = DataLakeServiceClient.from_connection_string(f"{_connection_string()}DfsEndpoint={_endpoint('Blob')};")
    if ours:
        protect(client, GeoFailover(secondary_endpoint=_endpoint("BlobSecondary")))
    file = client.get_file_client(CONTAINER, NAME)
    return lambda: file.download_file().readall()


def _endpoint(name: str) -> str:
    parts = dict(part.split("=", 1) for part in _connection_string().split(";") if part)
    return parts[f"{name}Endpoint"]


def _django_storages(ours: bool) -> Read:
    from django.conf import settings
    from storages.backends.azure_storage import AzureStorage

    if not settings.configured:
        settings.configure()
    _install(ours)
    storage = AzureStorage(connection_string=_connection_string(), azure_container=CONTAINER)
    _ = storage.client

    def read() -> bytes:
        with storage.open(NAME) as file:
            return bytes(file.read())

    return read


def _cloudpathlib(ours: bool) -> Read:
    from cloudpathlib import AzureBlobClient
    from cloudpathlib.enums import FileCacheMode

    client = AzureBlobClient(file_cache_mode=FileCacheMode.close_file)
    _protected(client.service_client, ours)
    path = client.AzureBlobPath(f"az://{CONTAINER}/{NAME}")
    return lambda: bytes(path.read_bytes())


def _smart_open(ours: bool) -> Read:
    import smart_open
    from azure.storage.blob import BlobServiceClient

    from failover.storage import GeoFailover

    options: dict[str, Any] = {"retry_policy": GeoFailover()} if ours else {}
    client = BlobServiceClient.from_connection_string(_connection_string(), **options)

    def read() -> bytes:
        with smart_open.open(f"azure://{CONTAINER}/{NAME}", "rb", transport_params={"client": client}) as file:
            return bytes(file.read())

    return read


def _mlflow(ours: bool) -> Read:
    import tempfile
    from pathlib import Path

    from mlflow.store.artifact.azure_blob_artifact_repo import AzureBlobArtifactRepository

    _install(ours)
    repository = AzureBlobArtifactRepository(f"wasbs://{CONTAINER}@mine.blob.core.windows.net/")
    folder = Path(tempfile.mkdtemp(prefix="stack-"))

    def read() -> bytes:
        return Path(repository.download_artifacts(NAME, str(folder))).read_bytes()

    return read


def _functions(ours: bool) -> Read:
    import types

    from azurefunctions.extensions.bindings.blob import BlobClient

    _install(ours)
    content = json.dumps({"Connection": "AzureWebJobsStorage", "ContainerName": CONTAINER, "BlobName": NAME})
    os.environ["AzureWebJobsStorage"] = _connection_string()  # noqa: SIM112 (its name)
    data: Any = types.SimpleNamespace(version="1.0", source="AzureStorageBlobs", content_type="", content=content)
    client = BlobClient(data=data).get_sdk_type()
    return lambda: bytes(client.download_blob().readall())


def _aio(ours: bool) -> Read:
    from azure.storage.blob.aio import BlobServiceClient

    client = _protected(BlobServiceClient.from_connection_string(_connection_string()), ours)
    blob = client.get_blob_client(CONTAINER, NAME)

    async def read() -> bytes:
        stream = await blob.download_blob()
        return bytes(await stream.readall())

    return lambda: _LOOP.run_until_complete(read())


_LOOP: Final = asyncio.new_event_loop()
_REGISTER: Final = "`register()`"

LIBRARIES: Final = (
    Library("adlfs", "adlfs", _REGISTER, _adlfs),
    Library("pandas", "pandas", _REGISTER, lambda ours: _frame("pandas", ours)),
    Library("dask", "dask", _REGISTER, lambda ours: _frame("dask", ours)),
    Library("pyarrow", "pyarrow", _REGISTER, _pyarrow),
    Library("polars", "polars", _REGISTER, _polars),
    Library("Data Lake", "azure-storage-file-datalake", "`protect(client)`", _data_lake),
    Library("django-storages", "django-storages", "`install()`", _django_storages),
    Library("cloudpathlib", "cloudpathlib", "`protect(client.service_client)`", _cloudpathlib),
    Library("smart_open", "smart_open", "`retry_policy=GeoFailover()`", _smart_open),
    Library("mlflow", "mlflow-skinny", "`install()`", _mlflow),
    Library("Functions bindings", "azurefunctions-extensions-bindings-blob", "`install()`", _functions),
    Library("SDK's aio, in FastAPI", "azure-storage-blob", "`protect(client)`", _aio),
)


def compare(bare: Read, ours: Read, seconds: float) -> dict[str, float]:
    """The median of the ratios of pairs, and how many there were. Who goes first takes turns."""
    until = time.perf_counter() + seconds
    ratios: list[float] = []
    while len(ratios) < _LEAST_PAIRS or (time.perf_counter() < until and len(ratios) < _MOST_PAIRS):
        order = (bare, ours) if len(ratios) % 2 else (ours, bare)
        taken = {}
        for read in order:
            began = time.perf_counter()
            read()
            taken[read] = time.perf_counter() - began
        ratios.append(taken[ours] / taken[bare])
    return {"ratio": statistics.median(ratios[_WARM_UP:]), "pairs": len(ratios) - _WARM_UP}


def _once(read: Read) -> dict[str, Any]:
    began = time.perf_counter()
    try:
        got = read()
    except Exception as error:  # noqa: BLE001 (the finding)
        return {"error": f"{type(error).__name__}: {error}", "seconds": time.perf_counter() - began}
    return {"size": len(got), "hash": _hash(got), "seconds": time.perf_counter() - began}


def _hash(content: bytes) -> str:
    import hashlib

    return hashlib.sha256(content).hexdigest()


def main() -> int:
    logging.disable(logging.CRITICAL)
    (library,) = [each for each in LIBRARIES if each.name == sys.argv[1]]
    reads: dict[str, Read] = {}

    def reader(kind: str) -> Read:
        for each in ("bare", "ours"):  # in this order, whichever is asked for
            if each not in reads:
                reads[each] = library.make(each == "ours")
            if each == kind:
                break
        return reads[kind]

    for line in sys.stdin:
        order, *values = line.split()
        if order == "pairs":
            bare = reader("bare")
            bare()
            answer = compare(bare, reader("ours"), float(values[0]))
        else:
            answer = _once(reader(order))
        say(json.dumps(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
