"""Failover for clients that other code has made or will make: `protect`, `install`."""

from __future__ import annotations

import inspect
import logging
import time
import weakref
from collections.abc import Callable
from typing import Any, Final, TypeVar

from failover.breaker import Breakers, CircuitBreaker
from failover.breaker.forks import ForkSafeLock
from failover.storage import _sdk
from failover.storage.endpoints import PRIMARY, SECONDARY, Finder, blob_address
from failover.storage.geo import AsyncGeoFailover, GeoFailover

__all__ = ["install", "protect", "uninstall"]

T = TypeVar("T")

_logger = logging.getLogger("failover.storage")
_lock: Final = ForkSafeLock()
_KEPT: Final = 3600.0  # seconds for which the circuits of an account are kept that nobody has made a client of


def protect(client: T, policy: GeoFailover | AsyncGeoFailover | None = None) -> T:
    """Add failover to an existing client.

    A `GeoFailover` replaces the client's retry policy, which continues inside it as its `retry`. From then on,
    everything that shares the client's connections has failover: sub-clients that the client has made or will make, and
    the client that made it.

    Args:
        client: A client of `azure.storage.blob`, `azure.storage.queue`, `azure.storage.filedatalake` or
            `azure.data.tables`, or of their `aio` packages: for an account, for a container, queue, file system or
            table, or for a blob, directory or file.
        policy: A policy for this kind of client (sync or async). Several clients may be given the same policy; they
            then share its circuits. If it was made with `retry`, that replaces the client's own retry policy. Default:
            a new policy.

    Returns:
        The client. If it already has a `GeoFailover`, it is not changed.

    Raises:
        TypeError: The client is not one of the above, or the policy is for the other kind of client.
        ValueError: `policy` is not a policy. Or it has `max_staleness` or `consistency="session"`, and the client is
            for tables, whose requests for the Last Sync Time could not be signed, and whose answers have no
            Last-Modified.
    """
    if policy is not None and not isinstance(policy, (GeoFailover, AsyncGeoFailover)):
        raise ValueError(f"policy must be a GeoFailover or an AsyncGeoFailover, or None, not {policy!r}")

    def make(*, is_async: bool) -> GeoFailover | AsyncGeoFailover:
        return policy or (AsyncGeoFailover() if is_async else GeoFailover())

    for present in _put_in(client, make):
        if policy is not None and policy.primary is not present.primary:
            _logger.warning(
                "A %s has a %s already, which stays: the policy given to protect() is not used for it.",
                type(client).__name__,
                type(present).__name__,
            )
    return client


def install(**settings: Any) -> None:
    """Protect every client that is made in this process from now on, as `protect` does.

    All clients of the same account and service share one pair of circuits, `hedge_budget`, and the session; those of
    Data Lake share the blob service's.
    A client that is given a `GeoFailover` keeps it; any other retry policy continues inside ours. A client that was
    made before is not protected until it makes a sub-client, which shares its connections. If `install` is called again
    with other settings, they apply from then on.

    Args:
        **settings: The arguments of `GeoFailover`, except the circuits and `retry`.

    Raises:
        ValueError: A setting is unknown or out of range.
    """
    global _installed
    made = Installation(settings)
    with _lock:
        if _installed is None or _installed.settings != made.settings:
            _installed = made
        _sdk.wrap_clients(_is_made)


def uninstall() -> None:
    """End the effect of `install` on clients made from now on. Those that exist stay protected."""
    global _installed
    with _lock:
        _installed = None
        _sdk.unwrap_clients()


class Installation:
    """What `install` was asked for, and the circuits of the accounts so far."""

    def __init__(self, settings: dict[str, Any]) -> None:
        allowed = set(inspect.signature(GeoFailover).parameters) - {"primary", "secondary", "retry"}
        if unknown := sorted(settings.keys() - allowed):
            raise ValueError(f"install() takes {', '.join(sorted(allowed))}, not {', '.join(unknown)}")
        example = GeoFailover(**settings)  # which checks them
        self.settings = {**settings, "listeners": example.listeners}
        self._circuits = Breakers(example.primary.policy, max_idle=_KEPT, clock=settings.get("clock", time.monotonic))
        # For as long as there are the circuits, which a client of one request does not outlive.
        self._memories: weakref.WeakKeyDictionary[CircuitBreaker, Any] = weakref.WeakKeyDictionary()
        self._finder = Finder(settings.get("secondary_endpoint"))
        self._warned: set[type] = set()

    def protect(self, client: Any) -> None:
        """Protect a client, unless that is impossible: nobody is to lose a client by that."""

        def make(*, is_async: bool) -> GeoFailover | AsyncGeoFailover:
            kind = AsyncGeoFailover if is_async else GeoFailover
            others = {name: value for name, value in self.settings.items() if name != "policy"}
            primary, secondary = self._circuits_of(client)
            policy = kind(primary, secondary, **others)
            policy.memory = self._memories.setdefault(primary, policy.memory)
            return policy

        try:
            _put_in(client, make)
        except Exception as error:  # noqa: BLE001 (said, and the client is as it would be without us)
            if type(client) not in self._warned:
                self._warned.add(type(client))
                _logger.warning("No failover for this %s: %s", type(client).__name__, error)

    def _circuits_of(self, client: Any) -> tuple[CircuitBreaker, CircuitBreaker]:
        hosts = _sdk.hosts_of(client)
        endpoints = self._finder.find(f"{client.scheme}://{hosts[PRIMARY]}", hosts, bound=None).endpoints
        found = {}
        for location in (PRIMARY, SECONDARY):
            base = endpoints.base(location)
            known = blob_address(base or f"{endpoints.primary}/{SECONDARY}")
            found[location] = circuit = self._circuits.on(known)
            circuit.name = blob_address(endpoints.name(location)) if base else location
        return found[PRIMARY], found[SECONDARY]


_installed: Installation | None = None


def _is_made(client: Any) -> None:
    installation = _installed
    if installation is not None:
        installation.protect(client)


def _put_in(client: object, make: Callable[..., GeoFailover | AsyncGeoFailover]) -> list[Any]:
    """Put what `make` makes into a client. Returns the policies that were there already.

    Raises:
        TypeError: There cannot be failover in it.
    """
    present: list[Any] = []
    places = [place for place in find_places(client) if not place.is_useless]
    with _lock:
        policy: GeoFailover | AsyncGeoFailover | None = None
        replacements: list[tuple[_sdk.RetryPlace, Any]] = []
        for place in places:
            there = policy_at(place)
            if there is not None:
                present.append(there)
                continue
            policy = policy or make(is_async=place.is_async)
            replacements.append((place, policy.take_place(place.retry, place.next, signs_first=place.signs_first)))
        # The clients of Data Lake in `aio` have one retry policy in two pipelines, and it goes by the one made last.
        for place, replacement in reversed(replacements):
            place.replace(replacement)
    return present


def policy_at(place: _sdk.RetryPlace) -> Any:
    """The policy that a client is protected by; None: it is not."""
    return place.retry if isinstance(place.retry, (GeoFailover, AsyncGeoFailover)) else place.replacement


def find_places(client: object) -> list[_sdk.RetryPlace]:
    """Where a client's retry policies stand.

    Raises:
        TypeError: There cannot be failover in it.
    """
    name = f"{type(client).__module__}.{type(client).__qualname__}"
    package = _sdk.package_of(client)
    if package is None:
        raise TypeError(
            "protect() takes clients of azure.storage.blob, .queue and .filedatalake and of azure.data.tables, not a "
            f"{name}: where that holds such a client, protect the client"
        )
    if _sdk.is_cosmos(client):
        raise TypeError(f"protect() takes no {name} of Azure Cosmos DB, which has endpoints of another kind")
    places = _sdk.retry_places(client)
    if not places:
        raise TypeError(
            f"a {name} has no pipeline of azure-core in which protect() finds a retry policy: protect the client that "
            "made it, or make that with retry_policy=GeoFailover()"
        )
    return places
