"""Failover for reads: a circuit breaker library, and the storage client policy and demonstration built on it."""

__version__ = "0.1.0"
