"""What test_geo_answers asks of GeoFailover, asked of AsyncGeoFailover."""

from __future__ import annotations

from tests.storage import test_geo_answers
from tests.storage.aio import cases_of, in_a_loop

CASES = test_geo_answers
globals().update(cases_of(CASES))
__all__ = ["in_a_loop"]  # a fixture
