"""What does one see of an outage? The live screen in motion, for the README."""
