"""What breaks us: an endpoint that misbehaves in every way we could think of, and a soak."""
