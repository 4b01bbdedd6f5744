"""The circuit breaker libraries that are compared, ours among them, each put into one shape."""
