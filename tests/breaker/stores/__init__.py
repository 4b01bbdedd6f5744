"""Where shared circuits are kept: each kind of store over a real server, on good days and bad ones."""
