"""Failover for reads: a circuit breaker library, and the storage client policy and demonstration built on it."""
