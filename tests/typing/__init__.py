"""What type checkers see of the library: each module here is checked by mypy and pyright, both strict."""
