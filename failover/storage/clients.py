"""Failover for clients that somebody else has made, or will make: `protect`, `install`."""

from __future__ import annotations

import logging
import threading
from typing import Final, TypeVar

from failover.storage import _sdk
from failover.storage.geo import AsyncGeoFailover, GeoFailover

__all__ = ["protect"]

T = TypeVar("T")

_logger = logging.getLogger("failover.storage")
_lock: Final = threading.RLock()


def protect(client: T, policy: GeoFailover | AsyncGeoFailover | None = None) -> T:
    """Put failover into a client that exists already.

    A `GeoFailover` takes the place of the client's retry policy, which goes on inside it, as its `retry`. All that
    shares the client's connections has it from then on: sub-clients that the client has made and will make, and the
    client that it is a sub-client of.

    Args:
        client: One of `azure.storage.blob`, `azure.storage.queue` or `azure.storage.filedatalake`, or of their `aio`
            packages, for an account, for a container, queue or file system, or for a blob, directory or file.
        policy: For the client's kind. Several clients may be given the same one, and then share its circuits; whatever
            it was made with as `retry` goes before the client's own. Default: a new one.

    Returns:
        The client. One that has a `GeoFailover` already stays as it is.

    Raises:
        TypeError: The client is of another kind than those above, or than the policy.
        ValueError: `policy` is no policy.
    """
    if policy is not None and not isinstance(policy, (GeoFailover, AsyncGeoFailover)):
        raise ValueError(f"policy must be a GeoFailover or an AsyncGeoFailover, or None, not {policy!r}")
    with _lock:
        replacements: list[tuple[_sdk.RetryPlace, GeoFailover | AsyncGeoFailover]] = []
        for place in _places_of(client):
            present = place.retry if isinstance(place.retry, (GeoFailover, AsyncGeoFailover)) else place.replacement
            if present is None:
                if policy is None:
                    policy = AsyncGeoFailover() if place.is_async else GeoFailover()
                replacements.append((place, policy.take_place(place.retry, place.next)))
            elif policy is not None and policy.primary is not present.primary:
                _logger.warning(
                    "A %s has a %s already, which stays: the policy given to protect() is not used for it.",
                    type(client).__name__,
                    type(present).__name__,
                )
        # The clients of Data Lake in `aio` have one retry policy in two pipelines, and it goes by the one made last.
        for place, replacement in reversed(replacements):
            place.replace(replacement)
    return client


def _places_of(client: object) -> list[_sdk.RetryPlace]:
    """Where the client's retry policies stand.

    Raises:
        TypeError: There cannot be failover in it.
    """
    name = f"{type(client).__module__}.{type(client).__qualname__}"
    package = _sdk.package_of(client)
    if package is None:
        raise TypeError(
            f"protect() takes clients of azure.storage.blob, .queue and .filedatalake, not a {name}: where that holds "
            "such a client, protect the client"
        )
    if package == "azure.data.tables":
        raise TypeError("protect() does not take clients of azure.data.tables")
    places = _sdk.retry_places(client)
    if not places:
        raise TypeError(
            f"a {name} has no pipeline of azure-core in which protect() finds a retry policy: protect the client that "
            "made it, or make that with retry_policy=GeoFailover()"
        )
    return places
