from __future__ import annotations

import math
from dataclasses import dataclass

import dp_accounting
import pytest
from dp_accounting import pld, rdp
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.errors import PermanentError
from fedcore.privacy.accounting import GaussianEvent, epsilon, statement

ZERO_OUT = dp_accounting.NeighboringRelation.REPLACE_SPECIAL
DELTA = 1e-5
EVENTS = [GaussianEvent(2.0, 3), GaussianEvent(5.0, 4)]


def by_accountant(accountant, events):
    for event in events:
        accountant.compose(dp_accounting.GaussianDpEvent(event.noise_multiplier), event.count)
    return accountant.get_epsilon(DELTA)


@pytest.mark.parametrize("events", [[GaussianEvent(1.0)], [GaussianEvent(1.5, 10)], EVENTS])
def test_agrees_with_the_pld_accountant_and_is_below_rdp(events):
    exact = epsilon(events, DELTA)
    assert exact == pytest.approx(by_accountant(pld.PLDAccountant(ZERO_OUT), events), rel=1e-4)
    bound = by_accountant(rdp.RdpAccountant(neighboring_relation=ZERO_OUT), events)
    assert exact <= bound <= 1.2 * exact


@settings(max_examples=50, deadline=None)
@given(st.floats(0.05, 50.0), st.integers(1, 1000))
def test_grows_with_count_and_falls_with_noise_and_delta(noise_multiplier, count):
    spent = epsilon([GaussianEvent(noise_multiplier, count)], DELTA)
    assert spent <= epsilon([GaussianEvent(noise_multiplier, count + 1)], DELTA)
    assert spent >= epsilon([GaussianEvent(noise_multiplier * 1.5, count)], DELTA)
    assert spent >= epsilon([GaussianEvent(noise_multiplier, count)], 10 * DELTA)


def test_rounds_add_up_however_they_are_written_down():
    assert epsilon([GaussianEvent(2.0)] * 6, DELTA) == pytest.approx(
        epsilon([GaussianEvent(2.0, 6)], DELTA), rel=1e-12
    )


def test_one_release_without_noise_spends_everything():
    assert epsilon([GaussianEvent(5.0, 10), GaussianEvent(0.0)], DELTA) == math.inf


def test_nothing_released_spends_nothing():
    assert epsilon([], DELTA) == 0.0
    assert epsilon([GaussianEvent(0.0, count=0)], DELTA) == 0.0


def test_fails_closed():
    @dataclass(frozen=True)
    class LaplaceEvent:
        noise_multiplier: float = 1.0
        count: int = 1
        unit: str = "site"

    with pytest.raises(PermanentError, match="LaplaceEvent"):
        epsilon([GaussianEvent(1.0), LaplaceEvent()], DELTA)
    with pytest.raises(PermanentError, match="units"):
        epsilon([GaussianEvent(1.0), GaussianEvent(1.0, unit="subject")], DELTA)


@pytest.mark.parametrize("fields", [(-1.0, 1), (math.nan, 1), (1.0, -1)])
def test_events_that_cannot_be(fields):
    with pytest.raises(ValueError, match="must be >= 0"):
        GaussianEvent(*fields)


@pytest.mark.parametrize("delta", [0.0, 1.0, -1.0, math.nan])
def test_delta_outside_its_range(delta):
    with pytest.raises(ValueError, match="delta"):
        epsilon(EVENTS, delta)


def test_statement_says_what_is_protected_and_what_is_not():
    text = statement([GaussianEvent(1.0, 5)], DELTA)
    for part in ("epsilon = 11.5", "delta = 1e-05", "5 noisy sums", "one site", "zero-out",
                 "modalities", "weights", "took part", "server is trusted"):  # fmt: skip
        assert part in text


@pytest.mark.parametrize("events", [[], [GaussianEvent(0.0, 5)], [GaussianEvent(0.0, 0)]])
def test_statement_without_noise_claims_nothing(events):
    text = statement(events, DELTA)
    assert text.startswith("No formal guarantee")
    assert "epsilon =" not in text
