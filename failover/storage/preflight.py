"""Checks before an outage whether a client's reads would survive one. Its requests bypass retries and circuits."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlsplit

from azure.core.exceptions import AzureError, ClientAuthenticationError, HttpResponseError, ServiceRequestError
from azure.core.pipeline import PipelineContext, PipelineRequest
from azure.core.rest import HttpRequest

from failover.storage import _sdk
from failover.storage.causes import describe_status, failure_cause, is_endpoint_failure
from failover.storage.clients import find_places, policy_at
from failover.storage.endpoints import PRIMARY, SECONDARY, Endpoints, Finder, blob_address
from failover.storage.errors import forget_context
from failover.storage.runtime import IO, AsyncIO, SyncIO, run_sync
from failover.storage.staleness import staleness, stats_request, with_sas_of

__all__ = ["Preflight", "apreflight", "preflight"]

_READABLE: Final = frozenset({"RAGRS", "RAGZRS"})
_VERSION: Final = "2021-12-02"  # of the service's interface: one that all clouds know
_OFTEN_UP_TO: Final = 900.0  # seconds that a secondary may usually lag: Azure's own figure
_TRIES: Final = 2  # of each question, as an idle connection may have gone stale


@dataclass(frozen=True, slots=True)
class Preflight:
    """What `preflight` has found. It contains no secret.

    Attributes:
        primary: URL of the primary endpoint.
        secondary: URL of the secondary. None: no secondary is known.
        kind: The account's kind, such as `Standard_RAGRS`. None: the credential may not ask for it, or the client is
            for tables or queues.
        secondary_is_readable: Whether the secondary answers this credential from this machine. None: unknown.
        staleness: Seconds since the Last Sync Time. inf: the secondary has never synchronised. None: the credential may
            not ask.
        problems: What would prevent a failover and what to do about it, in plain words. Empty: nothing.
        primary_error: The error of the primary, if it did not answer.
        secondary_error: The error of the secondary, if it did not answer.
    """

    primary: str
    secondary: str | None
    kind: str | None = None
    secondary_is_readable: bool | None = None
    staleness: float | None = None
    problems: tuple[str, ...] = ()
    primary_error: AzureError | None = field(default=None, repr=False, compare=False)
    secondary_error: AzureError | None = field(default=None, repr=False, compare=False)


def preflight(client: Any, *, secondary_endpoint: str | None = None, timeout: float = 5.0) -> Preflight:
    """Check whether the secondary can answer a client's reads, with its credential and from this machine.

    It sends at most four small reads, which bypass the client's retries and circuits. Pass the client that your reads
    use: the client of a container or blob, if the credential is only for that.

    Args:
        client: A client of `azure.storage.blob`, `.queue` or `.filedatalake` or of `azure.data.tables`, protected or
            not.
        secondary_endpoint: As for `GeoFailover`.
        timeout: Seconds, above 0, to wait for a connection or for the next byte.

    Raises:
        TypeError: The client is none of these, or an `aio` client: for those use `apreflight`.
    """
    if _sdk.is_async_client(client):
        raise TypeError("this client is one of aio: await apreflight(client)")
    return run_sync(_preflight(SyncIO(), client, secondary_endpoint, timeout))


async def apreflight(client: Any, *, secondary_endpoint: str | None = None, timeout: float = 5.0) -> Preflight:
    """`preflight` for `aio` clients."""
    if not _sdk.is_async_client(client):
        find_places(client)  # which says what is wrong with what is no client
        raise TypeError("this client is none of aio: preflight(client)")
    return await _preflight(AsyncIO(), client, secondary_endpoint, timeout)


async def _preflight(io: IO, client: Any, secondary_endpoint: str | None, timeout: float) -> Preflight:
    place = find_places(client)[0]
    asker = _Asker(io, place, client.url, timeout)
    hosts = _sdk.hosts_of(client)
    finder = Finder(secondary_endpoint or getattr(policy_at(place), "secondary_endpoint", None))
    found = finder.find(f"{client.scheme}://{hosts[PRIMARY]}", hosts, bound=None).endpoints
    # Of Data Lake, since only the blob service tells of these.
    endpoints = Endpoints(
        blob_address(found.primary), None if found.secondary is None else blob_address(found.secondary)
    )
    problems: list[str] = []
    kind, primary_error = await _ask_kind(asker, client, endpoints, problems)
    if endpoints.secondary is None:
        problems.append(
            f"No secondary endpoint is known of {endpoints.name(PRIMARY)}: where there is one, name it, "
            "GeoFailover(secondary_endpoint=...)."
        )
        return Preflight(endpoints.primary, None, kind, None, None, tuple(problems), primary_error)
    readable, age, secondary_error = await _ask_secondary(asker, client, endpoints, problems)
    return Preflight(
        endpoints.primary, endpoints.secondary, kind, readable, age, tuple(problems), primary_error, secondary_error
    )


class _Asker:
    """Sends questions by a client's pipeline: signed, and neither retried nor failed over."""

    def __init__(self, io: IO, place: _sdk.RetryPlace, url: str, timeout: float) -> None:
        self._io = io
        self._place = place
        self._url = url
        self._options: dict[str, Any] = {"connection_timeout": timeout, "read_timeout": timeout}
        if place.proxies:
            self._options["proxies"] = place.proxies
        self._timeout = timeout

    async def ask(self, request: HttpRequest) -> tuple[Any, AzureError | None]:
        """The answer, where it is one; else an error without any secret, with its response if there was one."""
        request.headers.setdefault("x-ms-version", _VERSION)
        for tries_left in reversed(range(_TRIES)):
            try:
                http = await self._send(request)
            except AzureError as error:
                if tries_left and is_endpoint_failure(error):
                    continue
                if not is_endpoint_failure(error):  # but the credential's
                    return None, forget_context(ClientAuthenticationError("the credential cannot sign requests"))
                cause = failure_cause(error, self._timeout)
                return None, forget_context(ServiceRequestError(cause))
            break
        if http.status_code < 300:
            return http, None
        cause = describe_status(http.status_code, http.reason, http.headers)
        refused = forget_context(HttpResponseError(cause))
        refused.response, refused.status_code, refused.reason = http, http.status_code, cause
        return http, refused

    def with_sas(self, url: str) -> str:
        return with_sas_of(self._url, url)

    def stats(self, secondary: str) -> HttpRequest:
        return stats_request(secondary, like=self._url, version=_VERSION)

    async def _send(self, request: HttpRequest) -> Any:
        policy, options = self._place.next, dict(self._options)
        if self._place.signs_first:
            policy = self._place.policies[0]
            options["retry_total"] = 0
        context = PipelineContext(self._place.transport, **options)
        return (await self._io.send(policy, PipelineRequest(request, context))).http_response


async def _ask_kind(
    asker: _Asker, client: Any, endpoints: Endpoints, problems: list[str]
) -> tuple[str | None, AzureError | None]:
    host = endpoints.name(PRIMARY)
    if _sdk.package_of(client) not in ("azure.storage.blob", "azure.storage.filedatalake"):
        return None, None  # the other services do not tell
    http, error = await asker.ask(_kind_request(asker, endpoints.primary))
    if error is not None and (http is None or not _may_not_ask(http)):
        problems.append(f"The primary, {host}, gives no answer: {_cause(error)}.{_advice(http, error)}")
        if endpoints.secondary is not None:  # which tells it too
            http, _ = await asker.ask(_kind_request(asker, endpoints.secondary))
    if http is None or http.status_code != 200:
        return None, error
    # As it may be shown, if it is no service's word.
    kind = str(http.headers.get("x-ms-sku-name") or "").encode("unicode_escape").decode()
    if not kind:
        problems.append(f"{host} does not say which kind of account it is. Is that the endpoint of a storage account?")
        return None, error
    if kind.rpartition("_")[2].upper() not in _READABLE:
        name = host.partition(".")[0].rpartition("/")[2]
        problems.append(
            f"The account is {kind}: its secondary cannot be read. Change its redundancy to read-access geo-redundant: "
            f"az storage account update --name {name} --sku Standard_RAGRS"
        )
    return kind, error


def _kind_request(asker: _Asker, base: str) -> HttpRequest:
    return HttpRequest("GET", asker.with_sas(f"{base}/?restype=account&comp=properties"))


async def _ask_secondary(
    asker: _Asker, client: Any, endpoints: Endpoints, problems: list[str]
) -> tuple[bool | None, float | None, AzureError | None]:
    assert endpoints.secondary is not None  # noqa: S101 (the caller's)
    host, age = endpoints.name(SECONDARY), None
    http, error = await asker.ask(asker.stats(endpoints.secondary))
    readable: bool | None = error is None
    if error is None:
        try:
            age = staleness(http.status_code, http.headers, http.text())
        except AzureError:
            problems.append(f"{host} does not tell its Last Sync Time. Is that the endpoint of a storage account?")
    elif http is not None and (resource := _resource(client)) is not None:
        # A credential for one container may not ask about the account.
        http, error = await asker.ask(HttpRequest("HEAD", asker.with_sas(f"{endpoints.secondary}{resource}")))
        readable = error is None or (http is not None and http.status_code == 404)
        error = None if readable else error
    elif http is not None and _may_not_ask(http):
        readable = None
        problems.append(
            f"The credential may not ask {host} for its Last Sync Time, so that max_staleness refuses it. Whether it "
            "can read there cannot be told: try it with a client of a container."
        )
        return readable, None, error
    if not readable and error is not None:
        problems.append(f"The secondary, {host}, gives no answer: {_cause(error)}.{_advice(http, error)}")
    if age is not None and age > _OFTEN_UP_TO:
        since = "has never synchronised" if math.isinf(age) else f"is {age / 60:.0f} minutes behind"
        problems.append(f"The secondary, {host}, {since}: reads that it answers may be that old.")
    return readable, age, error


def _resource(client: Any) -> str | None:
    """The path and query of what a client is for, below its endpoint; None: the whole account."""
    path = urlsplit(client.url).path
    container = getattr(client, "container_name", None) or getattr(client, "file_system_name", None)
    name = getattr(client, "blob_name", None) or getattr(client, "path_name", None)
    if container is None:
        return None
    start = path.rfind(f"/{container}")
    found = path[start:] if start >= 0 else f"/{container}"
    return found if name is not None else f"/{container}?restype=container"


def _cause(error: AzureError) -> str:
    return str(getattr(error, "reason", None) or error.message)


def _code(http: Any) -> str:
    headers: Mapping[str, str] = http.headers
    return str(headers.get("x-ms-error-code") or "")


def _may_not_ask(http: Any) -> bool:
    """Whether the endpoint knows the credential, and that it is for less."""
    return http.status_code == 403 and "AuthenticationFailed" not in _code(http)


def _advice(http: Any, error: AzureError) -> str:
    if http is None and isinstance(error, ClientAuthenticationError):
        return " Does signing in work, and is the key whole?"
    if http is None:
        return " Is the account's name right, may this machine reach that host, and is it read-access geo-redundant?"
    if http.status_code == 401 or "AuthenticationFailed" in _code(http):
        return " Is the credential the account's, whole and not expired?"
    if http.status_code == 403:
        return " Does the credential allow reading, and do firewall and private endpoints admit this machine there too?"
    return ""
