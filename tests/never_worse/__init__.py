"""The proof that `GeoFailover` is never worse than the client it replaces: see `__main__.py`."""
