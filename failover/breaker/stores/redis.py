"""redis://, valkey:// and the like: one hash per circuit, written by a script; changes are pushed and logged.

A process learns of changes in three ways. Pub/sub reports them at once. At each refresh, one command reads from the
stream `.changes` what pub/sub has not reported. That includes what was written by a user without the right to publish,
and it shows when the server has lost its data, because the last entry is then gone. Once a minute, the process reads
the records of all its circuits, in case one was written by other means.
"""

from __future__ import annotations

import logging
import math
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode
from redis.exceptions import MovedError, NoPermissionError, RedisClusterException
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelManagedConnection, SentinelManagedSSLConnection

from failover.breaker.errors import describe
from failover.breaker.stores.deadline import limit
from failover.breaker.stores.redis_url import RedisUrl, parse
from failover.breaker.stores.store import (
    LARGEST,
    OPERATION_SECONDS,
    SECONDS,
    StoreClosed,
    StoredRecord,
    StoreError,
    check_size,
    key_of,
    read_in_parts,
)

logger = logging.getLogger("failover.breaker")

# The hash has version v, body b, and the time t in microseconds by the server's clock. A key that holds anything else
# is left alone: it never has the expected version. A write that is sent twice, since its answer was lost, has won.
_SET: Final = """
local held = redis.pcall('HGET', KEYS[1], 'v')
if held ~= ARGV[2] then
  if ARGV[1] == '' then
    if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
  elseif held ~= ARGV[1] then return 0 end
end
local now = redis.call('TIME')
redis.call('HSET', KEYS[1], 'v', ARGV[2], 'b', ARGV[3], 't', string.format('%d%06d', now[1], now[2]))
if ARGV[4] == '' then redis.call('PERSIST', KEYS[1]) else redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
local pushed = redis.pcall('PUBLISH', ARGV[5], ARGV[6])
if type(pushed) == 'table' and pushed['err'] then return 2 end
return 1
"""
# Version, body, and age in microseconds; three empty texts for what is not ours; nothing where nothing is held.
_GET: Final = """
local held = redis.pcall('HMGET', KEYS[1], 'v', 'b', 't')
if held['err'] or not (held[1] and held[2] and held[3] and string.match(held[3], '^%d+$')) then
  if redis.call('EXISTS', KEYS[1]) == 0 then return false end
  return {'', '', ''}
end
local now = redis.call('TIME')
return {held[1], held[2], string.format('%.0f', now[1] * 1000000 + now[2] - tonumber(held[3]))}
"""
_LOST, _WRITTEN_IN_SILENCE = 0, 2  # what `_SET` returns; 1: written and pushed
_FAILURES: Final = (redis.RedisError, RedisClusterException, OSError)
_AT_ONCE: Final = 500  # records in one read
_LOGGED: Final = 256  # changes that the stream keeps at least
_READ_OF_LOG: Final = 512
_ALL_SECONDS: Final = 60.0  # between two reads of all records
_PING_SECONDS: Final = 30.0  # of silence after which the listener asks whether the server is there still
_PAUSE_SECONDS: Final = 0.2  # between two looks whether the store is used still, while there is no connection
_DENIED_SECONDS: Final = 60.0  # until a user who may not subscribe tries again


class RedisStore:
    """A Redis or Valkey: one server, a cluster, or a group with sentinels.

    Args:
        url: See `failover.breaker.stores.redis_url`. `?prefix=` goes before each key, default `failover:`.

    Raises:
        ValueError: The URL is none. The text does not show it, since it may hold a password.
    """

    is_local = False
    refresh = 1.0

    def __init__(self, url: str) -> None:
        self._where = parse(url)
        self.url = self._where.shown
        self.closed = False
        self._prefix = self._where.prefix
        self._channel = f"{self._prefix}changes:{self._where.settings.get('db', 0)}"
        self._log_key = f"{self._prefix}circuit:.changes"  # no circuit has a key with a dot
        self._silent = False
        self._connections = _Connections(self._where)
        self._listener: _Listener | None = None
        # The last entry of the log that this process has seen, and when it reads all records again.
        self._last_entry: bytes | None = None
        self._all_due = -math.inf

    # --- one record -------------------------------------------------------------------------------------------

    def read(self, names: Iterable[str]) -> dict[str, StoredRecord]:
        asked = list(names)
        found: dict[str, StoredRecord] = {}
        for start in range(0, len(asked), _AT_ONCE):
            part = asked[start : start + _AT_ONCE]
            for name, answer in zip(part, self._do(partial(self._get_all, part)), strict=True):
                if isinstance(answer, Exception):
                    raise self._error(answer)
                if answer:
                    version, body, age = answer
                    seconds = max(0.0, int(age or 0) / 1e6)
                    found[name] = StoredRecord(body[: LARGEST + 1], version.decode("ascii", "replace"), seconds)
        return found

    def _get_all(self, names: list[str], client: Any) -> list[Any]:
        pipe = client.pipeline(transaction=False)
        for name in names:
            pipe.execute_command("EVAL", _GET, 1, self._key(name))  # since a cluster's pipeline has no `eval`
        answers: list[Any] = pipe.execute(raise_on_error=False)
        return answers

    def compare_and_set(self, name: str, body: bytes, expected: str | None, ttl: float | None = None) -> str | None:
        check_size(body)
        if expected == "":  # of something that is not ours
            return None
        version = secrets.token_hex(8)
        milliseconds = "" if ttl is None else str(max(1, round(ttl * 1000)))
        raw = name.encode("utf-8", "surrogatepass")
        arguments = (expected or "", version, body, milliseconds, self._channel, raw)
        done = self._do(partial(self._set, self._key(name), arguments, raw))
        if done == _LOST:
            return None
        if done == _WRITTEN_IN_SILENCE:
            self._say_silent("may not publish, so other processes see what is written here")
        return version

    def _set(self, key: str, arguments: tuple[Any, ...], raw: bytes, client: Any) -> int:
        done: int = client.eval(_SET, 1, key, *arguments)
        if done != _LOST:
            try:
                # Not by the script: in a cluster the stream may be on another node.
                client.xadd(self._log_key, {"name": raw}, maxlen=_LOGGED, approximate=True)
            except _FAILURES as error:
                logger.debug("%s: the change is not logged: %s", self.url, self._error(error))
        return done

    def _key(self, name: str) -> str:
        return f"{self._prefix}circuit:{key_of(name)}"

    # --- all records ------------------------------------------------------------------------------------------

    def changes(self, known: Mapping[str, str | None]) -> Iterator[Mapping[str, StoredRecord | None]]:
        """One command where nothing has changed: see `ListsChanges`."""
        entries = self._read_log()
        last = None if entries is None or not entries else entries[0][0]
        changed = None if time.monotonic() >= self._all_due else self._since_last_look(entries)
        if changed is None:
            self._forget_log()
            yield from read_in_parts(self, known, _AT_ONCE)
            self._all_due = time.monotonic() + _ALL_SECONDS
        else:
            yield from read_in_parts(self, [name for name in changed if name in known], _AT_ONCE)
        # Only now: what could not be read is asked for again.
        self._last_entry = last

    def _forget_log(self) -> None:
        self._last_entry = None
        self._all_due = -math.inf

    def _read_log(self) -> list[tuple[bytes, dict[bytes, bytes]]] | None:
        """The entries from the last one seen on, newest first. None: this user cannot read them."""
        try:
            entries: list[tuple[bytes, dict[bytes, bytes]]] = self._do(
                lambda client: client.xrevrange(self._log_key, "+", self._last_entry or "-", count=_READ_OF_LOG)
            )
        except _RefusedError as error:
            logger.debug("%s: no log of changes: %s", self.url, error)
            return None
        return entries

    def _since_last_look(self, entries: list[tuple[bytes, dict[bytes, bytes]]] | None) -> dict[str, None] | None:
        """The names of what was written since the last look. None: that is not known."""
        if entries is None or len(entries) >= _READ_OF_LOG:
            return None
        if self._last_entry is not None:
            if not entries or entries[-1][0] != self._last_entry:
                return None  # the server has lost it
            entries = entries[:-1]
        return dict.fromkeys(fields.get(b"name", b"").decode("utf-8", "surrogatepass") for _, fields in entries)

    # --- push -------------------------------------------------------------------------------------------------

    def subscribe(self, changed: Callable[[str | None], None]) -> bool:
        if self._listener is None:
            self._listener = _Listener(self, self._where, self._channel)
            weakref.finalize(self, self._listener.stop).atexit = False
        self._listener.add(changed)
        return True

    def _say_silent(self, what: str) -> None:
        if not self._silent:
            self._silent = True
            text = "%s: its user %s only at their next look, every %g s"
            logger.warning(text, self.url, what, self.refresh)

    def cannot_hear(self) -> None:
        """This user may not subscribe."""
        self._say_silent("may not subscribe, so this process sees what others write")

    # --- connections ------------------------------------------------------------------------------------------

    def forget_connections(self) -> None:
        self._connections = _Connections(self._where)
        self._listener = None
        self._forget_log()

    def release(self) -> None:
        """Close the connections and end the threads, until the store is used again."""
        if self._listener is not None:
            self._listener.stop()
        self._connections.close()
        self.forget_connections()

    def close(self) -> None:
        self.closed = True
        self.release()

    def _do(self, act: Callable[[Any], Any]) -> Any:
        """What `act` does with a client, as one operation."""
        if self.closed:
            raise StoreClosed(f"{self.url} is closed")
        connections = self._connections
        aborted = connections.aborted
        with limit(OPERATION_SECONDS, connections.abort) as operation:
            try:
                return act(connections.client())
            except _FAILURES as error:
                failure: Exception = error
                if self._where.how == "cluster" and not isinstance(error, redis.ResponseError):
                    connections.forget()  # the next operation asks anew which nodes there are
            except Exception as error:
                # Whatever a socket that is closed while it is read makes redis-py raise: for this deadline or
                # for that of another thread.
                if not (operation.expired or self.closed or connections.aborted != aborted):
                    raise
                failure = error
        if self.closed:
            raise StoreClosed(f"{self.url} is closed")
        if operation.expired:
            raise StoreError(f"{self.url}: no whole answer within {OPERATION_SECONDS:g} s")
        raise self._error(failure)

    def _error(self, error: BaseException) -> StoreError:
        said = describe(error)
        for secret in self._where.secrets:
            said = said.replace(secret, "***")
        if isinstance(error, MovedError) or str(error).startswith("MOVED"):  # the latter up to redis-py 5
            said = f"it is a node of a cluster: write redis+cluster:// ({said})"
        kind = _RefusedError if isinstance(error, redis.ResponseError) else StoreError
        return kind(f"{self.url}: {said}")


class _RefusedError(StoreError):
    """The server answered that it does not do this."""


class _Listener:
    """The thread that hears of changes. It holds no store: it ends when nobody else does."""

    def __init__(self, store: RedisStore, where: RedisUrl, channel: str) -> None:
        self._store = weakref.ref(store)
        self._channel = channel
        self._connections = _Connections(where)
        self._stopped = False
        self._subscribers: tuple[Callable[[str | None], None], ...] = ()
        threading.Thread(target=self._run, name="failover push", daemon=True).start()

    def add(self, changed: Callable[[str | None], None]) -> None:
        self._subscribers = (*self._subscribers, changed)

    def stop(self) -> None:
        """Also called by the garbage collector, at any point: takes no lock."""
        self._stopped = True
        self._connections.abort()

    def _run(self) -> None:
        while not self._stopped:
            wait = SECONDS
            try:
                self._listen()
            except NoPermissionError:
                wait = _DENIED_SECONDS
                store = self._store()
                if store is not None:
                    store.cannot_hear()
                del store
            except Exception as error:  # noqa: BLE001 (also what a socket that `stop` closes makes redis-py raise)
                # The worker, which asks the same server at each refresh, warns of it: here it would be said twice.
                logger.debug("no push: %s", type(error).__name__)
            until = time.monotonic() + wait
            while not self._stopped and time.monotonic() < until:
                time.sleep(_PAUSE_SECONDS)
        self._connections.close()

    def _listen(self) -> None:
        with self._connections.client().pubsub(ignore_subscribe_messages=False) as pubsub:
            pubsub.subscribe(self._channel)
            while not self._stopped:
                message = pubsub.get_message(timeout=_PING_SECONDS)
                if message is None:
                    pubsub.ping()
                elif message["type"] == "subscribe":
                    self._tell(None)  # what was written while nobody listened
                elif message["type"] == "message":
                    self._tell(message["data"].decode("utf-8", "surrogatepass"))

    def _tell(self, name: str | None) -> None:
        for changed in self._subscribers:
            changed(name)


class _Connections:
    """The connections of one client, which another thread can abort. The client is made when it is first needed."""

    aborted = 0
    """How often they have been aborted."""

    def __init__(self, where: RedisUrl) -> None:
        self._where = where
        self._open: weakref.WeakSet[redis.Connection] = weakref.WeakSet()
        self._sentinel: Any = None
        self._nodes: list[ClusterNode] = []
        self._client: Any = None  # redis-py's own types hold for its asynchronous client too, and so for neither
        self._making = threading.Lock()

    def client(self) -> Any:
        """The client: an operation of a cluster's first one asks for the nodes."""
        with self._making:
            if self._client is None:
                self._client = {"single": self._single, "cluster": self._cluster, "sentinel": self._of_sentinels}[
                    self._where.how
                ]()
            return self._client

    def abort(self) -> None:
        """End whatever is being sent or read."""
        self.aborted += 1
        for connection in list(self._open):
            connection.disconnect()  # type: ignore[no-untyped-call]  # as all below: redis-py has types for a part only
        for client in self._clients():
            client.connection_pool.disconnect()

    def close(self) -> None:
        self.abort()
        self.forget()

    def forget(self) -> None:
        """Drop the client."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _clients(self) -> Iterator[Any]:
        """The clients of which redis-py itself makes the connections: to the sentinels, and to a cluster's nodes."""
        if self._sentinel is not None:
            yield from self._sentinel.sentinels
        nodes = {id(node): node for node in self._nodes}
        if isinstance(self._client, redis.RedisCluster):
            nodes |= {id(node): node for node in self._client.get_nodes()}  # type: ignore[no-untyped-call]
        yield from (node.redis_connection for node in nodes.values() if node.redis_connection is not None)

    def _options(self) -> dict[str, Any]:
        # A write whose answer was lost may have happened: whoever repeats it must look first.
        return {"socket_timeout": SECONDS, "socket_connect_timeout": SECONDS, "retry": Retry(NoBackoff(), 0)}

    def _single(self) -> Any:
        settings = {**self._options(), **self._where.settings}
        kind: Any = redis.SSLConnection if settings.pop("ssl", False) else redis.Connection
        if "path" in settings:
            kind = redis.UnixDomainSocketConnection
            del settings["socket_connect_timeout"]  # which it does not know
        else:
            settings["host"], settings["port"] = self._where.hosts[0]
        return redis.Redis(connection_pool=redis.ConnectionPool(connection_class=_noting(kind, self._open), **settings))

    def _cluster(self) -> Any:
        self._nodes = [ClusterNode(host, port) for host, port in self._where.hosts]  # type: ignore[no-untyped-call]
        return redis.RedisCluster(startup_nodes=self._nodes, **self._options(), **self._where.settings)

    def _of_sentinels(self) -> Any:
        where = self._where
        settings = dict(where.settings)
        kind: Any = SentinelManagedSSLConnection if settings.pop("ssl", False) else SentinelManagedConnection
        options = self._options()
        sentinel: Any = Sentinel
        self._sentinel = sentinel(list(where.hosts), sentinel_kwargs={**options, **where.sentinel_settings})
        return self._sentinel.master_for(
            where.service, connection_class=_noting(kind, self._open), **options, **settings
        )


def _noting(kind: Any, opened: weakref.WeakSet[redis.Connection]) -> Any:
    """The class `kind`, whose connections are in `opened` from before they connect."""

    class Noted(kind):  # type: ignore[misc]
        def connect(self) -> None:
            opened.add(self)
            super().connect()

    return Noted
