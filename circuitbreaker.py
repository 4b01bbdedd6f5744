"""`python circuitbreaker.py` in a clone: the command that an installed package calls `ra-grs-failover`.

Every Python must be able to parse this file, or it could not say which one is needed.
"""

import sys

if sys.version_info < (3, 10):  # noqa: UP036 (that is the point)
    sys.stderr.write("circuitbreaker.py: needs Python 3.10 or newer; this is %d.%d.\n" % sys.version_info[:2])  # noqa: UP031
    sys.exit(2)

from failover.__main__ import main

if __name__ == "__main__":
    main()
