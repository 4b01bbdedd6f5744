"""What an outage of the primary costs a reader, with GeoFailover and without: `python -m benchmarks.outage`."""

import sys

# The processes of the stand-ins import this module again, and need nothing of the command.
if __name__ == "__main__":
    from benchmarks.outage.command import main

    sys.exit(main())
