"""Which rules of a circuit breaker hold, in this library and in others?"""
