"""The circuit breaker, proved."""
