"""One circuit in many processes, which agree in a store."""
