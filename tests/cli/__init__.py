"""The command as its user starts it: options, signals, the screen, whole runs."""
