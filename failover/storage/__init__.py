"""Reads from RA-GRS storage that survive the loss of the primary. Needs the Azure SDK, but not the demonstration."""

from failover.storage.clients import install, protect, uninstall
from failover.storage.errors import BothEndpointsDown, NotReplicated, StaleRead
from failover.storage.events import GeoEvent, Listener, ReadEnded, Retry
from failover.storage.geo import PRODUCTION, AsyncGeoFailover, GeoFailover
from failover.storage.preflight import Preflight, apreflight, preflight

__all__ = [
    "PRODUCTION",
    "AsyncGeoFailover",
    "BothEndpointsDown",
    "GeoEvent",
    "GeoFailover",
    "Listener",
    "NotReplicated",
    "Preflight",
    "ReadEnded",
    "Retry",
    "StaleRead",
    "apreflight",
    "install",
    "preflight",
    "protect",
    "uninstall",
]
