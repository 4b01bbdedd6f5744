"""The breaker needs nothing but the standard library: whoever protects a call should install nothing for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

PROBE = """
import sys
sys.path.insert(0, sys.argv[1])
before = set(sys.modules)
import failover.breaker
for name in sorted(set(sys.modules) - before):
    print(name)
"""


def test_the_breaker_imports_only_the_standard_library() -> None:
    # Isolated and without site-packages: anything else that it wants is not there.
    run = [sys.executable, "-I", "-S", "-c", PROBE, str(ROOT)]
    loaded = subprocess.run(run, capture_output=True, text=True, check=True, timeout=60).stdout.split()
    ours = {name for name in loaded if name.split(".")[0] == "failover"}
    assert {name.split(".")[0] for name in loaded} - set(sys.stdlib_module_names) == {"failover"}
    assert {name for name in ours if not name.startswith("failover.breaker")} == {"failover"}
    assert "asyncio" not in loaded, "a program that does not use asyncio should not wait for it"
