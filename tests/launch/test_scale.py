"""Many sites: what the API server is asked for, which a site's cluster has to bear.

``make bench`` does the same with 500 sites, and looks at memory (benchmarks/launching.py).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.launching import GOAL_REQUESTS, launch_rounds


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "one Job an order"])
def test_requests_per_site_and_round(tmp_path: Path, warm: bool) -> None:
    measured = launch_rounds(tmp_path, sites=40, rounds=3, warm=warm)
    assert measured.jobs == 40 * (1 if warm else 2 * 3)
    assert measured.requests_per_site_and_round <= GOAL_REQUESTS
