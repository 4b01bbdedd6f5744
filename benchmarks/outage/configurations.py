"""What reads a blob while its primary is out: the SDK as it comes, tuned, as the old sample used it, and through us."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import urlsplit

from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import BlobClient, BlobServiceClient, ExponentialRetry, LinearRetry

from benchmarks.outage.accounts import BLOB, CONTENT, Accounts, Place, Watched
from failover.breaker import CircuitBreaker, Cooldown
from failover.demo.config import RunConfig
from failover.storage import GeoFailover
from failover.storage.geo import PRODUCTION
from failover.storage.hedging import After


class Wrong(Exception):  # noqa: N818 (it says what came)
    """A read returned other bytes than were written."""


@dataclass(frozen=True)
class Setting:
    """attempt: seconds that one attempt waits for a byte, the same for all. cooldown: of the production policy."""

    attempt: float
    cooldown: float


@dataclass(frozen=True)
class Reader:
    """One configuration at one place: `read` gives nothing and raises where the read failed."""

    read: Callable[[], None]
    watched: Watched
    circuit: CircuitBreaker | None = None
    """That of the primary, where there is one."""


class _OtherEndpoint:
    """For the SDK's retries: the other endpoint's whole URL, where the SDK itself replaces the host alone.

    On Azure that is the same. An emulator's secondary differs in its path too, and the SDK's URL would be wrong.
    """

    def __init__(self, place: Place, **options: Any) -> None:
        super().__init__(**options)
        self._bases = {"primary": place.primary, "secondary": place.secondary}

    def _set_next_host_location(self, settings: dict[str, Any], request: Any) -> None:
        here = next(at for at in ("secondary", "primary") if request.url.startswith(f"{self._bases[at]}/"))
        settings["mode"] = "primary" if here == "secondary" else "secondary"
        request.url = self._bases[settings["mode"]] + request.url[len(self._bases[here]) :]


class _Exponential(_OtherEndpoint, ExponentialRetry):
    pass


class _Linear(_OtherEndpoint, LinearRetry):
    pass


def _client(accounts: Accounts, place: Place, setting: Setting, policy: Any) -> tuple[BlobClient, Watched]:
    own = RequestsTransport(connection_timeout=setting.attempt, read_timeout=setting.attempt, use_env_settings=False)
    watched = Watched(accounts.spoil(own, place), place)
    secondary = urlsplit(place.secondary)
    service = BlobServiceClient(
        place.primary,
        credential=place.credential,
        secondary_hostname=secondary.netloc + secondary.path,
        transport=watched,
        **({} if policy is None else {"retry_policy": policy}),
    )
    return service.get_blob_client(place.container, BLOB), watched


def _download(blob: BlobClient, **options: Any) -> None:
    if blob.download_blob(**options).readall() != CONTENT:
        raise Wrong(f"{blob.blob_name} came back with other bytes")


def _by_policy(make: Callable[[Place, Setting], Any]) -> Callable[[Accounts, Place, Setting], Reader]:
    def reader(accounts: Accounts, place: Place, setting: Setting) -> Reader:
        policy = make(place, setting)
        blob, watched = _client(accounts, place, setting, policy)
        circuit = policy.primary if isinstance(policy, GeoFailover) else None
        return Reader(lambda: _download(blob), watched, circuit)

    return reader


def _old_sample(accounts: Accounts, place: Place, setting: Setting) -> Reader:
    """Up to 5 retries about 1 s apart; at the fifth the client is set to the secondary, after 20 reads there back.

    The read that has used its retries up ends with an error, as it did in the sample: the next one goes elsewhere.
    """
    retry = LinearRetry(backoff=1, retry_total=5, retry_connect=5, retry_read=5, retry_status=5)
    blob, watched = _client(accounts, place, setting, retry)
    there = 0

    def retrying(retry_count: int, **_: Any) -> None:  # counts from 0
        nonlocal there
        if retry_count + 1 >= 5 and blob.location_mode == "primary":
            blob.location_mode, there = "secondary", 0

    def read() -> None:
        nonlocal there
        _download(blob, retry_hook=retrying)
        if blob.location_mode == "secondary":
            there += 1
            if there >= 20:
                blob.location_mode = "primary"

    return Reader(read, watched)


def production(setting: Setting) -> Any:
    """The default policy of GeoFailover, with the cooldown asked for (default: its own)."""
    recovery = PRODUCTION.recovery
    assert isinstance(recovery, Cooldown)  # noqa: S101 (a constant of ours)
    return (
        PRODUCTION
        if setting.cooldown == recovery.seconds
        else replace(PRODUCTION, recovery=replace(recovery, seconds=setting.cooldown))
    )


def _geo(_: Place, setting: Setting) -> GeoFailover:
    return GeoFailover(policy=production(setting), attempt_timeout=setting.attempt)


def _hedged(setting: Setting, after: After) -> GeoFailover:
    return GeoFailover(policy=production(setting), attempt_timeout=setting.attempt, hedge_after=after)


def _teaching(_: Place, setting: Setting) -> GeoFailover:
    policy = RunConfig(timeout=setting.attempt).policy()
    return GeoFailover(policy=policy, retry=None, primary_attempts=None, attempt_timeout=setting.attempt)


OURS: Final = "GeoFailover"
CONFIGURATIONS: Final[dict[str, Callable[[Accounts, Place, Setting], Reader]]] = {
    "SDK default": _by_policy(lambda _, __: None),
    "SDK retry_to_secondary": _by_policy(lambda place, _: _Exponential(place, retry_to_secondary=True)),
    "old sample": _old_sample,
    "SDK tuned": _by_policy(lambda place, _: _Linear(place, backoff=0, random_jitter_range=0, retry_to_secondary=True)),
    "GeoFailover, demo": _by_policy(_teaching),
    OURS: _by_policy(_geo),
}
"""All that are measured, the slowest first. SDK tuned: no backoff, and the secondary at the first retry."""

HEDGE_AFTER: Final = 0.1
"""Seconds."""
HEDGED: Final = "hedge_after=0.1"
LEARNED: Final = 'hedge_after="p95"'
TAIL: Final[dict[str, Callable[[Accounts, Place, Setting], Reader]]] = {
    **{name: CONFIGURATIONS[name] for name in ("SDK default", "SDK tuned", OURS)},
    HEDGED: _by_policy(lambda _, setting: _hedged(setting, HEDGE_AFTER)),
    LEARNED: _by_policy(lambda _, setting: _hedged(setting, "p95")),
}
"""Those whose tail is measured."""
