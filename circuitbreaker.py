"""`python circuitbreaker.py` in a clone: the command that an installed package calls `ra-grs-failover`."""

from __future__ import annotations

from failover.__main__ import main

if __name__ == "__main__":
    main()
