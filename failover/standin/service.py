"""The operations of the Blob service that the stand-in account has: a request in, a reply out. No sockets.

An operation that it does not have, or a header that would change what an operation means, is refused with 501. A test
that passes here must not pass because something was silently ignored.
"""

from __future__ import annotations

import base64
import binascii
import re
import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Literal
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape, quoteattr

from failover.standin.blobs import Blob, Condition, Contents, Refusal, State, find_blob, find_container, md5

ACCOUNT = "devstoreaccount1"

Endpoint = Literal["primary", "secondary"]

_MAX_LISTED = 5000
_MAX_MD5_RANGE = 4 * 1024 * 1024
_CONTAINER_NAME = re.compile(r"[a-z0-9](-?[a-z0-9]){2,62}")
_RANGE = re.compile(r"bytes=(\d+)-(\d*)")
_VERSION = "2021-12-02"  # for a request that names none

# The headers that a blob's writer may set, and the names under which its readers get them.
_BLOB_HEADERS = {
    "x-ms-blob-content-type": "Content-Type",
    "x-ms-blob-content-encoding": "Content-Encoding",
    "x-ms-blob-content-language": "Content-Language",
    "x-ms-blob-content-disposition": "Content-Disposition",
    "x-ms-blob-cache-control": "Cache-Control",
    "x-ms-blob-content-md5": "Content-MD5",
}
_META = "x-ms-meta-"
# Each of these changes what a request means in a way that is not implemented.
_REFUSED_HEADERS = (
    "if-modified-since", "if-unmodified-since", "x-ms-access-tier", "x-ms-copy-source", "x-ms-content-crc64",
    "x-ms-delete-snapshots", "x-ms-encryption-key", "x-ms-if-tags", "x-ms-lease-id", "x-ms-range-get-content-crc64",
    "x-ms-structured-body", "x-ms-tags",
)  # fmt: skip
_REFUSED_QUERY = ("snapshot", "versionid")
_LISTING_QUERY = ("delimiter", "include")  # of a listing of blobs, and of no other request


@dataclass(frozen=True, slots=True)
class Request:
    """A request to the account. What may contain a secret is not in its repr.

    Attributes:
        endpoint: The endpoint that got it.
        method: Its HTTP method.
        path: What follows the account's name, decoded: `/`, `/container` or `/container/blob`.
        query: Its query parameters.
        headers: Its headers, with names in lower case.
        body: Its body.
    """

    endpoint: Endpoint
    method: str
    path: str
    query: Mapping[str, str] = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(slots=True)
class Reply:
    """An answer. The reply to a HEAD has the body of one to a GET, which is then not sent."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = field(default=b"", repr=False)


def error(status: int, code: str, message: str, headers: Mapping[str, str] | None = None) -> Reply:
    """Return an error as the service sends it: its code in x-ms-error-code, and an XML body (none for 304)."""
    body = f"<Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error>"
    reply = _xml(body, status) if status != 304 else Reply(status)
    reply.headers.update({"x-ms-error-code": code, **(headers or {})})
    return reply


def date(seconds: float) -> str:
    """Return `seconds` since the epoch as a date in HTTP, rounded down to whole seconds."""
    return formatdate(seconds // 1, usegmt=True)


def answer(request: Request, contents: Contents, *, sku: str, now: float) -> Reply:
    """Return what the account replies to `request` at `now`, in seconds since the epoch. A refusal is a reply too."""
    try:
        _check(request)
        reply = _operation(request)(request, contents, sku)
    except Refusal as refusal:
        reply = error(refusal.status, refusal.code, refusal.message, refusal.headers)
    reply.headers["x-ms-request-id"] = str(uuid.uuid4())
    reply.headers["x-ms-version"] = request.headers.get("x-ms-version", _VERSION)
    if "x-ms-client-request-id" in request.headers:
        reply.headers["x-ms-client-request-id"] = request.headers["x-ms-client-request-id"]
    reply.headers["Date"] = date(now)
    return reply


def _check(request: Request) -> None:
    if "authorization" not in request.headers and "sig" not in request.query:
        raise Refusal(
            401,
            "NoAuthenticationInformation",
            "The request has neither a key nor a SAS.",
            {"WWW-Authenticate": "Bearer"},
        )
    if request.method not in ("GET", "HEAD") and request.endpoint == "secondary":
        # The closest in the service's list of error codes, which has none for just this.
        raise Refusal(403, "InsufficientAccountPermissions", "Write operations are not allowed.")
    for name in _REFUSED_HEADERS:
        if name in request.headers:
            raise _not_implemented(f"the header {name}")
    is_listing = request.path.count("/") == 1 and request.query.get("comp") == "list" and request.path != "/"
    for name in _REFUSED_QUERY if is_listing else (*_REFUSED_QUERY, *_LISTING_QUERY):
        if request.query.get(name):
            raise _not_implemented(f"the query parameter {name}")
    sent = request.headers.get("content-md5")
    if sent is not None and sent != md5(request.body):
        raise Refusal(400, "Md5Mismatch", "The MD5 value in the request does not match the one of its body.")


def _not_implemented(what: str) -> Refusal:
    return Refusal(501, "NotImplemented", f"The stand-in account does not do this: {what}. Azurite or Azure may.")


Operation = Callable[[Request, Contents, str], Reply]


def _operation(request: Request) -> Operation:
    container, _, blob = request.path[1:].partition("/")
    level = "blob" if blob else "container" if container else "account"
    restype, comp = request.query.get("restype", ""), request.query.get("comp", "")
    method = "GET" if request.method == "HEAD" else request.method
    if (method, restype, comp) == ("GET", "account", "properties"):
        return _account_information
    try:
        return _OPERATIONS[level, method, restype, comp]
    except KeyError:
        query = "&".join(f"{name}={value}" for name, value in (("restype", restype), ("comp", comp)) if value)
        raise _not_implemented(f"{request.method} {query or 'without restype and comp'} on a {level}") from None


def _account_information(_request: Request, _contents: Contents, sku: str) -> Reply:
    return Reply(200, {"x-ms-sku-name": sku, "x-ms-account-kind": "StorageV2", "x-ms-is-hns-enabled": "false"})


def _service_stats(request: Request, contents: Contents, _sku: str) -> Reply:
    if request.endpoint != "secondary":
        raise Refusal(
            400, "InvalidQueryParameterValue", "Service stats are available from the secondary endpoint only."
        )
    return _xml(
        "<StorageServiceStats><GeoReplication><Status>live</Status>"
        f"<LastSyncTime>{date(contents.last_sync)}</LastSyncTime></GeoReplication></StorageServiceStats>"
    )


def _list_containers(request: Request, contents: Contents, _sku: str) -> Reply:
    state = _state(request, contents)
    names, page = _page(request, state)
    listed = "".join(
        f"<Container><Name>{escape(name)}</Name><Properties><Last-Modified>{date(state[name].modified)}</Last-Modified>"
        f"<Etag>{state[name].etag}</Etag></Properties></Container>"
        for name in names
    )
    return _xml(
        '<EnumerationResults ServiceEndpoint="/">'
        f"{page[0]}<Containers>{listed}</Containers>{page[1]}</EnumerationResults>"
    )


def _create_container(request: Request, contents: Contents, _sku: str) -> Reply:
    name, _ = _names(request)
    if not _CONTAINER_NAME.fullmatch(name) or len(name) > 63:
        raise Refusal(400, "InvalidResourceName", "The specified resource name contains invalid characters.")
    container = contents.create_container(name)
    return Reply(201, {"ETag": container.etag, "Last-Modified": date(container.modified)})


def _container_properties(request: Request, contents: Contents, _sku: str) -> Reply:
    container = find_container(_state(request, contents), _names(request)[0])
    return Reply(200, {"ETag": container.etag, "Last-Modified": date(container.modified)})


def _delete_container(request: Request, contents: Contents, _sku: str) -> Reply:
    contents.delete_container(_names(request)[0])
    return Reply(202)


def _list_blobs(request: Request, contents: Contents, _sku: str) -> Reply:
    container, _ = _names(request)
    blobs = find_container(_state(request, contents), container).blobs
    include, delimiter = request.query.get("include", ""), request.query.get("delimiter", "")
    if include not in ("", "metadata"):
        raise _not_implemented(f"a listing with include={include}")
    prefix = request.query.get("prefix", "")
    names, page = _page(request, {_rolled_up(name, prefix, delimiter) for name in blobs})
    listed = "".join(
        f"<BlobPrefix><Name>{escape(name)}</Name></BlobPrefix>"
        if delimiter and delimiter in name[len(prefix) :]
        else f"<Blob><Name>{escape(name)}</Name>{_listed(blobs[name], with_metadata=bool(include))}</Blob>"
        for name in names
    )
    told = f"<Delimiter>{escape(delimiter)}</Delimiter>" if delimiter else ""
    return _xml(
        f'<EnumerationResults ServiceEndpoint="/" ContainerName={quoteattr(container)}>'
        f"{page[0]}{told}<Blobs>{listed}</Blobs>{page[1]}</EnumerationResults>"
    )


def _rolled_up(name: str, prefix: str, delimiter: str) -> str:
    """The name, up to the first delimiter behind the prefix."""
    end = name.find(delimiter, len(prefix)) if delimiter and name.startswith(prefix) else -1
    return name if end < 0 else name[: end + len(delimiter)]


def _listed(blob: Blob, *, with_metadata: bool) -> str:
    properties = {
        "Creation-Time": date(blob.created),
        "Last-Modified": date(blob.modified),
        "Etag": blob.etag.strip('"'),  # as the service has it in a listing, and only there
        "Content-Length": str(len(blob.content)),
        **{name: value for name, value in blob.headers.items() if name in _BLOB_HEADERS.values()},
        "BlobType": "BlockBlob",
    }
    metadata = {name[len(_META) :]: value for name, value in blob.headers.items() if name.startswith(_META)}
    told = f"<Metadata>{_elements(metadata)}</Metadata>" if with_metadata else ""
    return f"<Properties>{_elements(properties)}</Properties>{told}"


def _elements(values: Mapping[str, str]) -> str:
    return "".join(f"<{name}>{escape(value)}</{name}>" for name, value in values.items())


def _put_blob(request: Request, contents: Contents, _sku: str) -> Reply:
    if request.headers.get("x-ms-blob-type") != "BlockBlob":
        raise _not_implemented("blobs other than block blobs")
    blob = contents.put_blob(*_names(request), request.body, _stored_headers(request), _condition(request))
    return Reply(201, {"ETag": blob.etag, "Last-Modified": date(blob.modified), "Content-MD5": md5(request.body)})


def _put_block(request: Request, contents: Contents, _sku: str) -> Reply:
    block_id = request.query.get("blockid", "")
    try:
        base64.b64decode(block_id, validate=True)
    except binascii.Error:
        block_id = ""
    if not block_id:
        raise Refusal(400, "InvalidQueryParameterValue", "blockid must be Base64.")
    contents.put_block(*_names(request), block_id, request.body)
    return Reply(201, {"Content-MD5": md5(request.body)})


def _put_block_list(request: Request, contents: Contents, _sku: str) -> Reply:
    try:
        listed = ET.fromstring(request.body)  # noqa: S314  # loopback only, and expat bounds expansion itself
    except ET.ParseError:
        raise Refusal(400, "InvalidXmlDocument", "The body is not an XML document.") from None
    if any(each.tag == "Committed" for each in listed):
        raise _not_implemented("a block list with blocks that were committed before")
    block_ids = [each.text or "" for each in listed]
    blob = contents.put_block_list(*_names(request), block_ids, _stored_headers(request), _condition(request))
    return Reply(201, {"ETag": blob.etag, "Last-Modified": date(blob.modified)})


def _get_blob(request: Request, contents: Contents, _sku: str) -> Reply:
    blob = find_blob(_state(request, contents), *_names(request))
    _condition(request).check_read(blob)
    headers = {
        "Content-Type": "application/octet-stream",
        **blob.headers,
        "ETag": blob.etag,
        "Last-Modified": date(blob.modified),
        "Accept-Ranges": "bytes",
        "x-ms-blob-type": "BlockBlob",
        "x-ms-creation-time": date(blob.created),
    }
    wanted = request.headers.get("x-ms-range") or request.headers.get("range")
    with_md5 = request.headers.get("x-ms-range-get-content-md5", "").lower() == "true"
    if wanted is None or request.method == "HEAD":
        if with_md5:
            raise Refusal(400, "MissingRequiredHeader", "x-ms-range-get-content-md5 goes with a range.")
        return Reply(200, headers, blob.content)

    first, last = _range(wanted, len(blob.content))
    part = blob.content[first : last + 1]
    headers["Content-Range"] = f"bytes {first}-{last}/{len(blob.content)}"
    if "Content-MD5" in headers:  # of the whole blob; with a range this header is the MD5 of the range
        headers["x-ms-blob-content-md5"] = headers.pop("Content-MD5")
    if with_md5:
        if len(part) > _MAX_MD5_RANGE:
            raise Refusal(400, "OutOfRangeInput", "An MD5 is available for ranges of up to 4 MiB.")
        headers["Content-MD5"] = md5(part)
    return Reply(206, headers, part)


def _delete_blob(request: Request, contents: Contents, _sku: str) -> Reply:
    contents.delete_blob(*_names(request), _condition(request))
    return Reply(202)


_OPERATIONS: dict[tuple[str, str, str, str], Operation] = {
    ("account", "GET", "", "list"): _list_containers,
    ("account", "GET", "service", "stats"): _service_stats,
    ("container", "PUT", "container", ""): _create_container,
    ("container", "GET", "container", ""): _container_properties,
    ("container", "DELETE", "container", ""): _delete_container,
    ("container", "GET", "container", "list"): _list_blobs,
    ("blob", "PUT", "", ""): _put_blob,
    ("blob", "PUT", "", "block"): _put_block,
    ("blob", "PUT", "", "blocklist"): _put_block_list,
    ("blob", "GET", "", ""): _get_blob,
    ("blob", "DELETE", "", ""): _delete_blob,
}


def _names(request: Request) -> tuple[str, str]:
    container, _, blob = request.path[1:].partition("/")
    return container, blob


def _state(request: Request, contents: Contents) -> State:
    return contents.primary if request.endpoint == "primary" else contents.secondary


def _condition(request: Request) -> Condition:
    return Condition(request.headers.get("if-match"), request.headers.get("if-none-match"))


def _stored_headers(request: Request) -> dict[str, str]:
    stored = {_BLOB_HEADERS[name]: value for name, value in request.headers.items() if name in _BLOB_HEADERS}
    if "content-type" in request.headers and "comp" not in request.query:
        stored.setdefault("Content-Type", request.headers["content-type"])
    return stored | {name: value for name, value in request.headers.items() if name.startswith(_META)}


def _range(header: str, size: int) -> tuple[int, int]:
    """Return the first and the last byte asked for, within `size`."""
    match = _RANGE.fullmatch(header.strip())
    first, last = (int(match[1]), int(match[2]) if match[2] else size - 1) if match else (0, -1)
    if match is None or (match[2] and last < first):
        raise Refusal(400, "InvalidHeaderValue", "The range must be bytes=FIRST-LAST or bytes=FIRST-.")
    if first >= size:
        raise Refusal(
            416, "InvalidRange", "The range lies beyond the end of the blob.", {"Content-Range": f"bytes */{size}"}
        )
    return first, min(last, size - 1)


def _page(request: Request, names: Iterable[str]) -> tuple[list[str], tuple[str, str]]:
    """Return the names on the page asked for, and the XML before and after them. A marker is the next name."""
    prefix, marker = request.query.get("prefix", ""), request.query.get("marker", "")
    try:
        most = int(request.query.get("maxresults", _MAX_LISTED))
    except ValueError:
        most = 0
    if not 1 <= most <= _MAX_LISTED:
        raise Refusal(400, "OutOfRangeQueryParameterValue", f"maxresults: a whole number from 1 to {_MAX_LISTED}.")
    found = sorted(name for name in names if name.startswith(prefix) and name >= marker)
    following = found[most] if len(found) > most else ""
    before = f"<Prefix>{escape(prefix)}</Prefix><Marker>{escape(marker)}</Marker><MaxResults>{most}</MaxResults>"
    return found[:most], (before, f"<NextMarker>{escape(following)}</NextMarker>")


def _xml(body: str, status: int = 200) -> Reply:
    text = f'<?xml version="1.0" encoding="utf-8"?>{body}'
    return Reply(status, {"Content-Type": "application/xml"}, text.encode())
