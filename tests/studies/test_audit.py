"""The audit of the real mechanisms, small: below the claim, and above it without the noise."""

from __future__ import annotations

import pytest

from fedcore.privacy.accounting import calibrate
from studies.audit import DELTA, Mechanism, audited, by_server, dp_sgd, in_shares

CLAIM, CANARIES = 2.0, 400
MECHANISMS = {
    "by the server": (by_server(rounds=2), 2),
    "in shares": (in_shares(), 1),
    "DP-SGD": (dp_sgd(steps=2), 2),
}


@pytest.mark.parametrize(("mechanism", "releases"), MECHANISMS.values(), ids=MECHANISMS)
def test_the_canaries_show_less_than_is_claimed_and_more_without_noise(
    mechanism: Mechanism, releases: int
) -> None:
    noise = calibrate(CLAIM, DELTA, count=releases)
    assert audited(mechanism, noise, CANARIES, seed=0) < CLAIM
    assert audited(mechanism, 0.0, CANARIES, seed=0) > CLAIM


@pytest.mark.parametrize(("mechanism", "releases"), MECHANISMS.values(), ids=MECHANISMS)
def test_an_eighth_of_the_noise_is_found_out(mechanism: Mechanism, releases: int) -> None:
    noise = calibrate(CLAIM, DELTA, count=releases)
    assert audited(mechanism, noise / 8, CANARIES, seed=0) > CLAIM
