"""An account with a hierarchical namespace, as its four host names: two services at two endpoints.

Azurite has no Data Lake endpoint. Here a transport of the SDK's own sends what is for such a host name to a server on
loopback, whose sockets are real.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from azure.core.pipeline.transport import AioHttpTransport, RequestsTransport

from tests.storage.raw_server import Answer, Asked, RawServer, ranged

ACCOUNT: Final = "mine"
KEY: Final = "a2V5"
DFS: Final = f"https://{ACCOUNT}.dfs.core.windows.net"
PAGE: Final = 2  # paths on a page of a listing


@dataclass
class DataLake:
    """The account: `primary` and `secondary` are servers, each for a blob and a dfs host name.

    Attributes:
        files: By path below the file system `fs`, held by both endpoints.
        credentials: How the requests so far were signed.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    credentials: list[str] = field(default_factory=list)
    broken: set[str] = field(default_factory=set)
    """Host names that answer 503."""

    def __post_init__(self) -> None:
        self.primary = RawServer(self._answer, path="")
        self.secondary = RawServer(self._answer, path="")
        self._seen = 0
        self.trail_of: list[str] = []

    def server_of(self, host: str) -> RawServer:
        return self.secondary if host.partition(".")[0].endswith("-secondary") else self.primary

    def look(self) -> list[str]:
        """The requests since the last look: `dfs P` for one at the primary's dfs endpoint, and so on."""
        new, self.trail_of = self.trail_of, []
        return new

    def _answer(self, asked: Asked) -> Answer:
        host, _, path = asked.target.removeprefix("/").partition("/")
        service = host.split(".")[1]
        is_secondary = host.partition(".")[0].endswith("-secondary")
        self.trail_of.append(f"{service} {'S' if is_secondary else 'P'}")
        query = dict(parse_qsl(urlsplit(path).query))
        self.credentials.append("sas" if "sig" in query else asked.headers.get("authorization", "none").split()[0])
        if host in self.broken:
            return _status("503 Server Busy", "ServerBusy")
        name = unquote(urlsplit(path).path)
        if asked.method not in ("GET", "HEAD"):
            if is_secondary:
                return _status("403 Forbidden", "WriteOperationNotSupportedForSecondary")
            return self._write(service, asked, name, query)
        return (self._dfs if service == "dfs" else self._blob)(asked, name, query, "s" if is_secondary else "p")

    def _write(self, service: str, asked: Asked, name: str, query: dict[str, str]) -> Answer:
        if service == "dfs" and asked.method == "PUT":
            self.files.setdefault(name.partition("/")[2], b"")
            return _ok({}, status="201 Created")
        return _ok({}, status="202 Accepted" if query.get("action") == "append" else "200 OK")

    def _dfs(self, asked: Asked, name: str, query: dict[str, str], where: str) -> Answer:
        if query.get("resource") == "filesystem":
            first = 0
            if "continuation" in query:
                giver, _, number = query["continuation"].partition("+/=")
                if giver != where:
                    return _status("400 Bad Request", "InvalidQueryParameterValue")
                first = int(number)
            names = sorted(self.files)
            more = {"x-ms-continuation": f"{where}+/={first + PAGE}"} if len(names) > first + PAGE else {}
            listed = [
                {"name": each, "contentLength": str(len(self.files[each])), "lastModified": formatdate(0, usegmt=True)}
                for each in names[first : first + PAGE]
            ]
            return _ok({"Content-Type": "application/json", **more}, json.dumps({"paths": listed}).encode())
        return _ok({"x-ms-owner": "me", "x-ms-group": "us", "x-ms-acl": "user::rwx", "x-ms-permissions": "rwx------"})

    def _blob(self, asked: Asked, name: str, query: dict[str, str], where: str) -> Answer:
        if query.get("comp") == "list":
            body = (
                '<?xml version="1.0" encoding="utf-8"?><EnumerationResults ServiceEndpoint="/"><Containers><Container>'
                f"<Name>fs</Name><Properties><Last-Modified>{formatdate(0, usegmt=True)}</Last-Modified><Etag>1</Etag>"
                "</Properties></Container></Containers><NextMarker/></EnumerationResults>"
            )
            return _ok({"Content-Type": "application/xml"}, body.encode())
        if query.get("restype") == "service":
            stats = "<GeoReplication><Status>live</Status><LastSyncTime>{}</LastSyncTime></GeoReplication>"
            body = f"<StorageServiceStats>{stats.format(formatdate(usegmt=True))}</StorageServiceStats>"
            return _ok({"Content-Type": "application/xml"}, body.encode())
        if query.get("restype") == "container":
            return _ok({})
        path = name.partition("/")[2]
        if path == "folder":
            return _ok({"x-ms-meta-hdi_isfolder": "true"})
        if path not in self.files:
            return _status("404 Not Found", "BlobNotFound", has_body=asked.method != "HEAD")
        content = self.files[path]
        if asked.method == "HEAD":
            return _ok({"x-ms-blob-type": "BlockBlob", "Content-Length": str(len(content))})
        return ranged(content, asked, extra=f"\nLast-Modified: {formatdate(0, usegmt=True)}")


def _ok(headers: dict[str, str], body: bytes = b"", status: str = "200 OK") -> Answer:
    lines = {
        "ETag": '"0x1"',
        "Last-Modified": formatdate(0, usegmt=True),
        "Date": formatdate(usegmt=True),
        "Content-Length": str(len(body)),
        **headers,
    }
    return Answer("\n".join([f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in lines.items())]), body)


def _status(status: str, code: str, *, has_body: bool = True) -> Answer:
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>m</Message></Error>".encode() if has_body else b""
    return _ok({"x-ms-error-code": code, "Content-Type": "application/xml"}, body, status)


@contextmanager
def data_lake(files: dict[str, bytes]) -> Iterator[DataLake]:
    lake = DataLake(dict(files))
    with lake.primary, lake.secondary:
        yield lake


def transport(kind: str, lake: DataLake) -> Any:
    """The SDK's transport, for a network in which the account's host names are the servers."""
    return (_AsyncRouted if kind == "aio" else _Routed)(lake)


def _routed(lake: DataLake, request: Any) -> Any:
    parts = urlsplit(request.url)
    sent = copy.copy(request)  # what the pipeline keeps stays as it is
    rest = request.url.partition("://")[2]
    sent.url = f"{lake.server_of(parts.netloc).url}/{rest}"
    return sent


class _Routed(RequestsTransport):  # type: ignore[misc]  # azure-core loads it lazily, as Any
    def __init__(self, lake: DataLake) -> None:
        super().__init__()
        self._lake = lake

    def send(self, request: Any, **options: Any) -> Any:
        return super().send(_routed(self._lake, request), **options)


class _AsyncRouted(AioHttpTransport):  # type: ignore[misc]  # as above
    def __init__(self, lake: DataLake) -> None:
        super().__init__()
        self._lake = lake

    async def send(self, request: Any, **options: Any) -> Any:
        return await super().send(_routed(self._lake, request), **options)
