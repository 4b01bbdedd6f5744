"""An RA-GRS storage account on loopback, for a machine with no Azure: two real ports, one lagging behind the other.

The parts: `blobs` holds what is stored and what of it has reached the secondary, `service` speaks the Blob service's
language, `server` has the sockets and can break them, `account` puts them together. Nothing here needs the SDK.
"""

from failover.standin.account import Hit, StandIn
from failover.standin.server import Exchange
from failover.standin.service import Reply, Request

__all__ = ["Exchange", "Hit", "Reply", "Request", "StandIn"]
