"""Leaves out, where Microsoft's runtime package cannot be installed, the tests that load the folder with it."""

from __future__ import annotations

import sys

collect_ignore = [] if sys.version_info >= (3, 13) else ["test_runtime.py"]
