"""redis://, rediss:// and unix://: one hash per circuit, written by a script, with changes pushed by pub/sub."""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from failover.breaker.errors import describe
from failover.breaker.stores.store import LARGEST, SECONDS, StoredRecord, StoreError, check_size, key_of

# Version v, body b, and the time t in microseconds by the server's clock. A key that is no hash of ours loses the
# race: it is left alone.
_SWAP: Final = """
if ARGV[1] == '' then
  if redis.call('EXISTS', KEYS[1]) == 1 then return 0 end
else
  local held = redis.pcall('HGET', KEYS[1], 'v')
  if held ~= ARGV[1] then return 0 end
end
local now = redis.call('TIME')
redis.call('HSET', KEYS[1], 'v', ARGV[2], 'b', ARGV[3], 't', string.format('%d%06d', now[1], now[2]))
if ARGV[4] == '' then redis.call('PERSIST', KEYS[1]) else redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
redis.call('PUBLISH', ARGV[5], ARGV[6])
return 1
"""
_AT_ONCE: Final = 1000
_OPTIONS: Final = {"prefix", "ssl_ca_certs", "ssl_certfile", "ssl_keyfile", "db"}


class RedisStore:
    """`url` as redis-py takes it; `?prefix=` goes before each key, default `failover:`.

    `ValueError` for a URL that is none, without showing it, since it may hold a password.
    """

    is_local = False
    refresh = 1.0

    def __init__(self, url: str) -> None:
        settings, prefix = _parse(url)
        where = settings.get("path") or f"{settings['host']}:{settings['port']}"
        self.url = f"{urlsplit(url).scheme}://{where}/{settings['db']}"
        self._secrets = [str(settings[k]) for k in ("username", "password") if settings.get(k)]
        self._settings = settings
        self._prefix = prefix
        self._channel = f"{prefix}changes:{settings['db']}"
        self._client = self._connect()

    def _connect(self) -> Any:  # redis-py's own types hold for its asynchronous client too, and so for neither
        kinds = {"path": redis.UnixDomainSocketConnection, "ssl": redis.SSLConnection}
        kind = next((kinds[k] for k in kinds if k in self._settings), redis.Connection)
        pool = redis.ConnectionPool(
            connection_class=kind,
            socket_timeout=SECONDS,
            # A swap whose answer was lost may have happened: whoever repeats it must look first.
            retry=Retry(NoBackoff(), 0),
            **({"socket_connect_timeout": SECONDS} | {k: v for k, v in self._settings.items() if k != "ssl"}),
        )
        return redis.Redis(connection_pool=pool)

    def read(self, names: Iterable[str]) -> dict[str, StoredRecord]:
        asked = list(names)
        found: dict[str, StoredRecord] = {}
        for start in range(0, len(asked), _AT_ONCE):
            part = asked[start : start + _AT_ONCE]
            pipe = self._client.pipeline(transaction=False)
            for name in part:
                pipe.execute_command("HMGET", self._key(name), "v", "b", "t")
            pipe.execute_command("TIME")
            *answers, now = self._try(partial(pipe.execute, raise_on_error=False))
            if isinstance(now, Exception):
                raise self._error(now)
            for name, answer in zip(part, answers, strict=True):
                held = self._held(answer, int(now[0]) + int(now[1]) / 1e6)
                if held is not None:
                    found[name] = held
        return found

    def _held(self, answer: Any, now: float) -> StoredRecord | None:
        if isinstance(answer, redis.ResponseError) and str(answer).startswith("WRONGTYPE"):
            return StoredRecord(b"", "", 0.0)
        if isinstance(answer, Exception):
            raise self._error(answer)
        version, body, written = answer
        if version is None and body is None and written is None:
            return None  # or a hash without our fields, which a swap will not touch either
        try:
            age = max(0.0, now - int(written) / 1e6)
        except (TypeError, ValueError):
            return StoredRecord(b"", "", 0.0)
        return StoredRecord((body or b"")[: LARGEST + 1], (version or b"").decode("ascii", "replace"), age)

    def compare_and_set(self, name: str, body: bytes, expected: str | None, ttl: float | None = None) -> str | None:
        check_size(body)
        if expected == "":  # of something that is not ours
            return None
        version = secrets.token_hex(8)
        milliseconds = "" if ttl is None else str(max(1, round(ttl * 1000)))
        raw = name.encode("utf-8", "surrogatepass")
        arguments = (expected or "", version, body, milliseconds, self._channel, raw)
        done = self._try(lambda: self._client.execute_command("EVAL", _SWAP, 1, self._key(name), *arguments))
        return version if done else None

    def subscribe(self, changed: Callable[[str | None], None]) -> bool:
        threading.Thread(target=self._listen, args=(changed, self._client), name="failover push", daemon=True).start()
        return True

    def _listen(self, changed: Callable[[str | None], None], client: Any) -> None:
        while self._client is client:
            try:
                with client.pubsub(ignore_subscribe_messages=False) as pubsub:
                    pubsub.subscribe(self._channel)
                    while self._client is client:
                        message = pubsub.get_message(timeout=60.0)
                        if message is None:
                            pubsub.ping()
                        elif message["type"] == "subscribe":
                            changed(None)  # what was written while nobody listened
                        elif message["type"] == "message":
                            changed(message["data"].decode("utf-8", "surrogatepass"))
            except (redis.RedisError, OSError, UnicodeDecodeError) as error:
                # The reader, which asks the same server every second, tells of it: here it would be said twice.
                logging.getLogger("failover.breaker").debug("no push from %s: %s", self.url, self._error(error))
                time.sleep(SECONDS)

    def forget_connections(self) -> None:
        self._client = self._connect()

    def _key(self, name: str) -> str:
        return f"{self._prefix}circuit:{key_of(name)}"

    def _try(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except (redis.RedisError, OSError) as error:
            raise self._error(error) from None

    def _error(self, error: BaseException) -> StoreError:
        said = describe(error)
        for secret in self._secrets:
            said = said.replace(secret, "***")
        return StoreError(f"{self.url}: {said}")


def _parse(url: str) -> tuple[dict[str, Any], str]:
    """The connection's settings and the keys' prefix."""
    wanted = "a store's URL is redis://host:port/db, rediss://host:port/db or unix:///path?db=0"
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, strict_parsing=bool(parts.query)))
        port = parts.port
        db = int(options.pop("db", "0") if parts.scheme == "unix" else parts.path.strip("/") or "0")
    except ValueError:
        raise ValueError(f"{wanted}; in this one the port, the number of the database or an option is wrong") from None
    if db < 0 or not set(options) <= _OPTIONS:
        raise ValueError(f"{wanted}; in this one the number of the database or an option is none that is known")
    prefix = options.pop("prefix", "failover:")
    settings: dict[str, Any] = {"db": db, **options}
    if parts.scheme == "unix":
        if not parts.path:
            raise ValueError(f"{wanted}; this one has no path")
        settings["path"] = unquote(parts.path)
    else:
        if not parts.hostname:
            raise ValueError(f"{wanted}; this one names no host")
        settings |= {"host": parts.hostname, "port": port or 6379}
        if parts.scheme == "rediss":
            settings["ssl"] = True
    if parts.username:
        settings["username"] = unquote(parts.username)
    if parts.password:
        settings["password"] = unquote(parts.password)
    return settings, prefix
