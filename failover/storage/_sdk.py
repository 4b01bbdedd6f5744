"""Everything in this package that relies on internals of the SDK, asyncio, requests, urllib3 and aiohttp.

It is one short function each. docs/sdk-internals.md lists what each function relies on, what fails if that changes, and
what happens then. The tests of this file run against the oldest and the newest supported azure-storage-blob.
"""

from __future__ import annotations

import copy
import functools
import importlib
import inspect
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping
from contextlib import suppress
from time import perf_counter
from typing import Any, Final, NamedTuple

from azure.core.exceptions import StreamClosedError, StreamConsumedError
from azure.core.pipeline.policies import AsyncHTTPPolicy, ProxyPolicy
from requests import exceptions as requests
from urllib3.exceptions import SSLError
from urllib3.response import HTTPResponse

UNWRAPPED_ERRORS: Final = (requests.ChunkedEncodingError, requests.ConnectionError, requests.Timeout, SSLError)
"""What the SDK lets through as it comes: from a body that it reads to check its MD5, and (urllib3's) from a body that
is read undecoded and in whose middle TLS ends."""

_DEFAULT_TIMEOUTS: Final = ((20, 60), (300, 300))  # connect and read: of the storage SDK, of azure-core
_WRAPPERS: Final = frozenset({"TransportWrapper", "AsyncTransportWrapper"})
_ONE_TIMEOUT: Final = frozenset({"AsyncioRequestsTransport", "TrioRequestsTransport"})
_ANY_CASE: Final = frozenset({"CaseInsensitiveDict", "CIMultiDict", "CIMultiDictProxy"})  # requests', multidict's
_PROGRESS: Final = ("data_stream_total", "download_stream_current")
_WAYS: Final = ("stream_download", "iter_bytes", "iter_raw")  # to open the body of a response


# --- the pipeline ---------------------------------------------------------------------------------------------------


def insert_before_transport(first: Any, probe: Any) -> Any:
    """Put the policy `probe` right before the transport of the pipeline that goes on at the policy `first`.

    Returns the policy in front of it: while its `next` is `probe`, nothing has to be done again. Each sub-client puts
    a transport of its own behind the shared policies, and `probe` goes with what was there.
    """
    policy = first
    while True:
        after = policy.next
        if after is probe:
            return policy
        if not hasattr(after, "next"):  # the transport's runner, which ends the chain
            probe.next = after
            policy.next = probe
            return policy
        policy = after


def bound_location(options: Mapping[str, Any]) -> str | None:
    """The location that a request is bound to, by its caller or as a later part of an answer; None: to none."""
    return options.get("location_mode") if options.get("retry_to_secondary") is False else None


def own_transport(transport: Any) -> Any:
    """The transport of a service client, where that of a sub-client hides it."""
    while type(transport).__name__ in _WRAPPERS:  # of a sub-client's sub-client there is one in the other
        transport = transport._transport
    return transport


class ClientTimeouts(NamedTuple):
    """Seconds, for a connection and without a byte.

    connect_is_set, read_is_set: whether the maker of the client has set them. None: not known.
    """

    connect: float | None
    read: float | None
    connect_is_set: bool
    read_is_set: bool


_UNKNOWN_TIMEOUTS: Final = ClientTimeouts(None, None, False, False)


def client_timeouts(transport: Any) -> ClientTimeouts:
    """The time-outs that a client was made with."""
    config = getattr(own_transport(transport), "connection_config", None)
    try:
        return _client_timeouts(config.timeout, config.read_timeout)  # type: ignore[union-attr]  # None has neither
    except (AttributeError, TypeError):  # a transport of the user's own
        return _UNKNOWN_TIMEOUTS


@functools.lru_cache(maxsize=64)
def _client_timeouts(connect: Any, read: Any) -> ClientTimeouts:
    if not isinstance(connect, (int, float)) or not isinstance(read, (int, float)):
        return _UNKNOWN_TIMEOUTS
    return ClientTimeouts(
        connect,
        read,
        all(connect != default for default, _ in _DEFAULT_TIMEOUTS),
        all(read != default for _, default in _DEFAULT_TIMEOUTS),
    )


def takes_read_timeout(transport: Any) -> bool:
    """Whether a transport takes `read_timeout` with a request; of some `connection_timeout` stands for both."""
    return not _is_one_of(type(own_transport(transport)), _ONE_TIMEOUT)  # type: ignore[arg-type]  # mypy looks at its instances' hash


@functools.lru_cache(maxsize=64)
def _is_one_of(kind: Hashable, names: frozenset[str]) -> bool:
    """Whether a class, or one that it is derived from, has one of these names."""
    return not names.isdisjoint(each.__name__ for each in kind.__mro__)  # type: ignore[attr-defined]  # a class


def ends_when_dropped(transport: Any) -> bool:
    """Whether nobody has to wait for a request that is of no use any more.

    Of some transports it runs in a thread of its event loop's, for which the end of the loop, and the interpreter's
    exit, waits.
    """
    return takes_read_timeout(transport)  # they are the same


def drop_idle_connections(transport: Any) -> None:
    """Close the pooled connections of requests that nobody uses: one of them went stale, and so may the others."""
    session = getattr(own_transport(transport), "session", None)
    for adapter in getattr(session, "adapters", {}).values():
        through_proxies = list(getattr(adapter, "proxy_manager", {}).values())
        for pools in (getattr(adapter, "poolmanager", None), *through_proxies):
            if pools is not None:
                pools.clear()


def waits_for_connection(transport: Any) -> bool:
    """Whether a request that is sent now waits until another of aiohttp's connections is free."""
    connector = getattr(getattr(own_transport(transport), "session", None), "connector", None)
    acquired, limit = getattr(connector, "_acquired", None), getattr(connector, "limit", 0)
    return bool(limit) and acquired is not None and len(acquired) >= limit


def is_closed(transport: Any) -> bool:
    """Whether the client has been closed, while requests of it were under way."""
    own = own_transport(transport)
    session = getattr(own, "session", None)
    if session is None:
        return getattr(own, "_has_been_opened", False) is True
    return getattr(session, "closed", False) is True


# --- a client that exists already -----------------------------------------------------------------------------------

_REPLACEMENT: Final = "_replaced_by"
_CLIENTS: Final = ("azure.storage.blob", "azure.storage.queue", "azure.storage.filedatalake", "azure.data.tables")
_BLOB_CLIENTS: Final = ("_blob_service_client", "_container_client", "_blob_client")  # within those of Data Lake


def package_of(client: Any) -> str | None:
    """The package of the SDK that a client is of, whatever class its user has made of it; None: of another one."""
    modules = [each.__module__ for each in type(client).__mro__]
    return next((name for name in _CLIENTS for module in modules if f"{module}.".startswith(f"{name}.")), None)


def is_cosmos(client: Any) -> bool:
    """Whether a client of tables is for Azure Cosmos DB."""
    return getattr(client, "_cosmos_endpoint", False) is True


def hosts_of(client: Any) -> Mapping[str, str | None]:
    """A client's endpoints, by location, without their schemes."""
    hosts: Mapping[str, str | None] = client._hosts
    return hosts


_BASES: Final = ("StorageAccountHostsMixin", "TablesBaseClient", "AsyncTablesBaseClient")
_wrapped: Final[dict[Any, tuple[Any, Any]]] = {}  # what stood in a class as `__init__`, and what stands there instead


def wrap_clients(is_made: Callable[[Any], object]) -> None:
    """Let each client of the SDK that is made in this process be told to `is_made`, until `unwrap_clients`."""
    for package in _CLIENTS:
        for name in (package, f"{package}.aio"):
            with suppress(ImportError):  # it is not installed
                for client in vars(importlib.import_module(name)).values():
                    for base in (inspect.isclass(client) and client.__mro__) or ():
                        if base.__name__ in _BASES and base not in _wrapped:
                            _wrapped[base] = _wrap(base, is_made)


def _wrap(base: Any, is_made: Callable[[Any], object]) -> tuple[Any, Any]:
    original = vars(base)["__init__"]

    @functools.wraps(original)
    def init(self: Any, *args: Any, **options: Any) -> None:
        original(self, *args, **options)
        is_made(self)

    base.__init__ = init
    return original, init


def unwrap_clients() -> None:
    """Undo `wrap_clients`. Where somebody else has wrapped a class after us, ours stays within theirs."""
    for base, (original, init) in list(_wrapped.items()):
        if vars(base)["__init__"] is init:
            base.__init__ = original
            del _wrapped[base]


def is_async_client(client: Any) -> bool:
    """Whether a client is one of an `aio` package."""
    return any(place.is_async for place in retry_places(client)[:1])


class RetryPlace(NamedTuple):
    """Where the retry policy stands in a client's pipeline.

    policies: the pipeline's, in their order; those of a sub-client are the same in another list.
    transport: the pipeline's.
    """

    policies: list[Any]
    at: int
    transport: Any

    @property
    def retry(self) -> Any:
        """What stands there."""
        return self.policies[self.at]

    @property
    def next(self) -> Any:
        """The rest of the pipeline."""
        return self.policies[self.at + 1]

    @property
    def is_async(self) -> bool:
        """Whether the pipeline is an event loop's."""
        return isinstance(self.next, AsyncHTTPPolicy)

    @property
    def is_useless(self) -> bool:
        """Whether nobody can send by this pipeline: up to 12.18 the `aio` clients of Data Lake first make such ones."""
        return not self.is_async and inspect.iscoroutinefunction(self.retry.send)

    @property
    def signs_first(self) -> bool:
        """Whether requests are signed before they come here."""
        names = [type(_unwrapped(policy)).__name__ for policy in self.policies[: self.at]]
        return any("Credential" in name or "Bearer" in name for name in names)

    @property
    def proxies(self) -> Any:
        """The proxies that the client was made with, which a policy before this place gives to each request."""
        found = (_unwrapped(policy) for policy in self.policies[: self.at])
        return next((policy.proxies for policy in found if isinstance(policy, ProxyPolicy)), None)

    @property
    def replacement(self) -> Any:
        """What was put in the place of `retry` before this pipeline's list was made, by `replace`; None: nothing."""
        found = getattr(self.retry, "__dict__", {}).get(_REPLACEMENT)
        return found if found is not None and _is_same_rest(found.next, self.next) else None

    def replace(self, policy: Any) -> None:
        """Put `policy` there, for the client and for its sub-clients, those that there are and those to come."""
        retry = self.retry
        with suppress(TypeError, AttributeError):  # `__slots__`: then sub-clients that there are stay as they are
            # They hold `retry` in lists of their own, and put it back in its place when they make sub-clients.
            setattr(retry, _REPLACEMENT, policy)
            if type(retry).__dict__.get("replaces") is None:
                retry.__class__ = _replaced(type(retry))  # type: ignore[arg-type]  # mypy looks at its instances' hash
        self.policies[self.at] = policy
        self.policies[self.at - 1].next = policy


def retry_places(client: Any) -> list[RetryPlace]:
    """Where a client's retry policies stand, one in each of its pipelines; none where that cannot be told."""
    places: list[RetryPlace] = []
    for each in (client, *(getattr(client, name, None) for name in _BLOB_CLIENTS)):
        pipeline: Any = getattr(each, "_pipeline", None)
        if pipeline is None:  # of tables
            pipeline = getattr(getattr(getattr(each, "_client", None), "_client", None), "_pipeline", None)
        policies = getattr(pipeline, "_impl_policies", None)
        if isinstance(policies, list) and all(policies is not place.policies for place in places):
            names = [type(_unwrapped(policy)).__name__ for policy in policies[:-2]]
            places += (
                [RetryPlace(policies, names.index("StorageHosts") + 1, pipeline._transport)]
                if "StorageHosts" in names
                else []
            )
    return places


def copy_of_retry(retry: Any) -> Any:
    """A retry policy like one that may stand in a pipeline, or have stood in one, by itself."""
    made = copy.copy(retry)
    if getattr(made, "__dict__", {}).pop(_REPLACEMENT, None) is not None:
        made.__class__ = type(made).replaces
    return made


@functools.cache
def _replaced(kind: Any) -> Any:
    """The class of a retry policy that lets another one answer wherever it still stands in the same pipeline.

    A user may give one object to several clients, and only one of them may be replaced.
    """
    if inspect.iscoroutinefunction(kind.send):

        async def asend(self: Any, request: Any) -> Any:
            other = vars(self)[_REPLACEMENT]
            return await (other.send(request) if _is_same_rest(self.next, other.next) else kind.send(self, request))

        send: Any = asend
    else:

        def send(self: Any, request: Any) -> Any:
            other = vars(self)[_REPLACEMENT]
            return other.send(request) if _is_same_rest(self.next, other.next) else kind.send(self, request)

    def reduce(self: Any, _protocol: int) -> Any:
        return _new_replaced, (kind,), vars(self)

    names = {"__module__": kind.__module__, "__qualname__": kind.__qualname__, "replaces": kind}
    return type(kind)(kind.__name__, (kind,), {**names, "send": send, "__reduce_ex__": reduce})


def _new_replaced(kind: Any) -> Any:
    made = kind.__new__(kind)
    made.__class__ = _replaced(kind)
    return made


def _is_same_rest(one: Any, other: Any) -> bool:
    # A sub-client of tables wraps the client's policies anew.
    return _unwrapped(one) is _unwrapped(other)


def _unwrapped(policy: Any) -> Any:
    return getattr(policy, "_policy", policy)


def leave_alone(task: Any) -> None:
    """Let asyncio not complain of a task that its program's event loop is closed before."""
    with suppress(AttributeError):  # of a task factory of the program's own
        task._log_destroy_pending = False


# --- a response -----------------------------------------------------------------------------------------------------


def set_location(http: Any, location: str) -> None:
    """Say on a response where it comes from: the SDK asks for it, and so do its callers' hooks."""
    try:  # noqa: SIM105 (each read does this twice, and `suppress` would cost more than it)
        http.location_mode = location
    except AttributeError:  # of `__slots__`
        pass


def set_location_in_context(context: Any, location: str) -> None:
    """Say it where the clients of tables look for it. Their own retry puts it there too, and another one does not."""
    context["location_mode"] = location


def forget_progress(context: Any, options: Mapping[str, Any]) -> None:
    """Take back that the SDK has counted the bytes of an answer that is not used, as its callers' hooks would see.

    options: those of the request as they were before it was sent.
    """
    for name in _PROGRESS:
        if name in context:
            context[name] = options.get(name)


def location_of(http: Any) -> str | None:
    """Where a response comes from, as far as `set_location` could say it."""
    return getattr(http, "location_mode", None)


def finds_any_case(headers: Mapping[str, str]) -> bool:
    """Whether a response's headers are a mapping that is known to find a name of any case."""
    return _is_one_of(type(headers), _ANY_CASE)


def close(http: Any) -> None:
    """Drop the connection of a response, or give it back where its body is at its end."""
    inner = getattr(http, "internal_response", None)
    end = getattr(http if inner is None else inner, "close", None)
    if end is not None and not inspect.iscoroutinefunction(end):
        end()


def has_arrived(http: Any) -> bool:
    """Whether the body of a response is here as a whole, and cannot break off any more: known of aiohttp's alone.

    Without a Content-Length nobody has looked whether what has ended is whole.
    """
    if not _is_aiohttps(http) or "content-length" not in http.headers:
        return False
    content = http.internal_response.content
    return hasattr(content, "is_eof") and content.is_eof() and content.exception() is None


def load(http: Any) -> None:
    """Read the whole body of a thread's response: `http.body()` then gives it."""
    (getattr(http, "body", None) or http.read)()


async def aload(http: Any, spent: Callable[[float, int], None]) -> None:
    """Read the whole body of an event loop's response: `http.body()` then gives it. spent: see `time_socket_reads`."""
    if _is_aiohttps(http) and http._content is None:
        http._content = await _read_in_pieces(http, spent)
    # Responses of azure-core's first kind have the one where they are made of aiohttp's, those of its second both.
    read = getattr(http, "load_body", None) or getattr(http, "read", None) or http.body
    with suppress(StreamConsumedError, StreamClosedError):  # it has been done, or there was nothing
        result = read()
        if inspect.isawaitable(result):
            await result


def wrap_stream_download(http: Any, wrap: Callable[[str, Any, Any, Any], Any]) -> bool:
    """Let the pieces of a response's body go through `wrap`, in whichever way the body is opened.

    wrap: takes the name of the way, its pieces, and the arguments that it was opened with. Returns False where the
    response takes no attributes: then it is as it was.
    """
    try:
        # Weak, since `http` is to hold it: in a circle each response would wait for the garbage collector.
        this, own = weakref.ref(http), vars(http)
    except TypeError:  # `__slots__`
        return False
    for way, method in _methods(type(http)):  # type: ignore[arg-type]  # as above
        placed = own.get(way) or own.get(f"_{way}")
        if placed is not None:  # by a transport: it goes first, and is no method
            setattr(http, way, functools.partial(_open_placed, wrap, placed, way))
        elif method is not None:
            setattr(http, way, functools.partial(_open, wrap, method, this, way))
    if _is_aiohttps(http):
        http.read = functools.partial(_read_aiohttp, this)
    return True


@functools.lru_cache(maxsize=64)
def _methods(kind: Hashable) -> tuple[tuple[str, Callable[..., Any] | None], ...]:
    # azure-core's second kind of response hides those of its first behind an underscore.
    return tuple((way, getattr(kind, way, None) or getattr(kind, f"_{way}", None)) for way in _WAYS)


def _open(wrap: Callable[..., Any], method: Any, this: Any, way: str, *args: Any, **kwargs: Any) -> Any:
    return wrap(way, method(this(), *args, **kwargs), args, kwargs)


def _open_placed(wrap: Callable[..., Any], placed: Any, way: str, *args: Any, **kwargs: Any) -> Any:
    return wrap(way, placed(*args, **kwargs), args, kwargs)


def _is_aiohttps(http: Any) -> bool:
    # An attribute that azure-core's responses have, of either kind, where they are made of one of aiohttp's.
    return "_decompressed_content" in getattr(http, "__dict__", {}) and hasattr(http, "iter_raw")


async def _read_in_pieces(http: Any, spent: Callable[[float, int], None] = lambda *_: None) -> bytes:
    pieces: list[bytes] = []
    began = perf_counter()
    async for piece in http.iter_raw():
        spent(perf_counter() - began, len(piece))
        pieces.append(piece)
        began = perf_counter()
    return b"".join(pieces)


# azure-core's response of aiohttp alone reads past its own iterators: so the SDK does up to 12.24, and to check an MD5.
# What it keeps is the body as it came, which it decodes when it is asked for it.
async def _read_aiohttp(this: Callable[[], Any]) -> bytes:
    http = this()
    if http._content is None:
        http._content = await _read_in_pieces(http)
    whole: bytes = await type(http).read(http) if http._content else b""
    return whole


def time_socket_reads(http: Any, spent: Callable[[float, int], None]) -> None:
    """Let each read of the socket, while the body of requests' response is streamed, be told to `spent`.

    spent: takes the seconds that a read took and its bytes, and may raise. Without this a transport waits for a whole
    block, of which each byte may come just before its time-out.
    """
    inner = getattr(http, "internal_response", None)
    raw = getattr(inner, "raw", None)
    if isinstance(raw, HTTPResponse) and hasattr(raw, "read1"):  # urllib3 from 2.1, and none of those that vcrpy plays
        inner.raw = _TimedRaw(raw, spent)  # type: ignore[union-attr]  # it has a `raw`


class _TimedRaw:
    """urllib3's response, whose `stream` reads what is there."""

    def __init__(self, raw: Any, spent: Callable[[float, int], None]) -> None:
        self._raw = raw
        self._spent = spent

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def stream(self, amt: int = 65536, decode_content: bool | None = None) -> Iterator[bytes]:
        raw, spent = self._raw, self._spent
        encoded = "content-encoding" in raw.headers  # then something may be left when all has been read
        ended = False
        while not ended:
            block: list[bytes] = []
            missing = amt
            while missing > 0 and not ended:
                began = perf_counter()
                piece = raw.read1(missing, decode_content=decode_content)
                spent(perf_counter() - began, len(piece))
                block.append(piece)
                missing -= len(piece)
                ended = not piece or (raw.length_remaining == 0 and not encoded)
            whole = block[0] if len(block) == 1 else b"".join(block)
            if whole:
                yield whole
