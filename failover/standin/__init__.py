"""An RA-GRS storage account on loopback, for machines without Azure: two ports, of which the second lags behind.

`blobs` holds what is stored and what of it has reached the secondary, `service` answers requests as the Blob service
does, `server` has the sockets and can break connections, `account` puts them together. Nothing here needs the SDK.
"""

from failover.standin.account import Hit, StandIn
from failover.standin.server import Exchange
from failover.standin.service import Reply, Request

__all__ = ["Exchange", "Hit", "Reply", "Request", "StandIn"]
