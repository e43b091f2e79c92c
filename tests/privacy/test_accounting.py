from __future__ import annotations

import math
from dataclasses import dataclass

import dp_accounting
import pytest
from dp_accounting import pld, rdp
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.errors import PermanentError
from fedcore.privacy.accounting import (
    ORDERS,
    GaussianEvent,
    by_unit,
    calibrate,
    epsilon,
    epsilon_adaptive,
    epsilon_rdp,
    statement,
)

ZERO_OUT = dp_accounting.NeighboringRelation.REPLACE_SPECIAL
ADD_OR_REMOVE = dp_accounting.NeighboringRelation.ADD_OR_REMOVE_ONE
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


def subject(noise_multiplier, steps, rate):
    return GaussianEvent(noise_multiplier, steps, "subject", rate)


SAMPLED = [
    [subject(1.1, 60, 0.2)],
    [subject(0.8, 10, 0.05), subject(2.0, 100, 0.3)],
    [subject(3.0, 40, 0.5), subject(6.0, 3, 1.0)],
]
"""The last: some steps over all subjects."""


def composed(accountant, events):
    """By dp-accounting's own words, step after step."""
    for event in events:
        release = dp_accounting.GaussianDpEvent(event.noise_multiplier)
        if event.sampling_rate < 1:
            release = dp_accounting.PoissonSampledDpEvent(event.sampling_rate, release)
        accountant.compose(dp_accounting.SelfComposedDpEvent(release, event.count))
    return accountant.get_epsilon(DELTA)


@pytest.mark.parametrize("events", SAMPLED)
def test_sampled_subjects_agree_with_dp_accounting(events):
    exact = composed(pld.PLDAccountant(ADD_OR_REMOVE), events)
    assert epsilon(events, DELTA) == pytest.approx(exact, rel=1e-6)
    bound = composed(rdp.RdpAccountant(ORDERS, ADD_OR_REMOVE), events)
    assert epsilon_rdp(events, DELTA) == pytest.approx(bound, rel=1e-6)
    assert exact < bound < 1.3 * exact


@pytest.mark.parametrize("events", SAMPLED)
def test_and_with_opacus_that_does_the_training(events):
    from opacus.accountants import PRVAccountant, RDPAccountant

    accountant = RDPAccountant()
    accountant.history = [(e.noise_multiplier, e.sampling_rate, e.count) for e in events]
    bound = accountant.get_epsilon(DELTA, alphas=ORDERS)
    assert epsilon_rdp(events, DELTA) == pytest.approx(bound, rel=1e-6)
    numerical = PRVAccountant()
    numerical.history = accountant.history
    # Opacus' is good to 0.01 by default, and an upper bound as ours is.
    assert numerical.get_epsilon(DELTA, eps_error=0.01) == pytest.approx(
        epsilon(events, DELTA), abs=0.02
    )


def test_less_noise_than_pld_bears_is_bounded_by_rdp():
    events = [subject(0.29, 20, 0.2)]
    assert epsilon(events, DELTA) == epsilon_rdp(events, DELTA) < math.inf


@pytest.mark.parametrize("rate", [0.0, 1.1, math.nan])
def test_a_rate_that_is_none(rate):
    with pytest.raises(ValueError, match="sampling_rate"):
        subject(1.0, 1, rate)


@pytest.mark.parametrize(
    ("allowed", "arguments"),
    [
        (8.0, {"count": 10}),
        (0.1, {"count": 1000}),
        (30.0, {"count": 3}),
        (1e-3, {"count": 1}),
        (8.0, {"count": 120, "sampling_rate": 0.25, "unit": "subject"}),
        (1.0, {"count": 20, "sampling_rate": 0.1, "unit": "subject"}),
    ],
)
def test_calibrated_noise_is_the_least_that_keeps_to_the_epsilon(allowed, arguments):
    noise = calibrate(allowed, DELTA, **arguments)
    assert epsilon([GaussianEvent(noise, **arguments)], DELTA) <= allowed
    assert float(f"{noise:.4g}") == noise
    less = noise - 10.0 ** (math.floor(math.log10(noise)) - 3)
    assert epsilon([GaussianEvent(less, **arguments)], DELTA) > 0.9999 * allowed


@pytest.mark.parametrize("allowed", [0.0, -1.0, math.inf, math.nan])
def test_no_noise_keeps_to_such_an_epsilon(allowed):
    with pytest.raises(ValueError, match="must be above 0"):
        calibrate(allowed, DELTA, count=1)


RUN = (subject(3.2, 60, 0.2),)


def test_one_study_costs_what_it_costs_alone():
    assert epsilon_adaptive([RUN], DELTA, 8.0) == epsilon(RUN, DELTA)
    assert epsilon_adaptive([], DELTA, 8.0) == 0.0


@pytest.mark.parametrize("allowed", [1.0, 8.0])
def test_several_studies_by_renyi_divergence_at_an_order_of_the_budget(allowed):
    """Never below what they would come to had all been known before, and not far above."""
    noise = calibrate(allowed / 2, DELTA, count=20, sampling_rate=0.3, unit="subject")
    study = (subject(noise, 20, 0.3),)
    known = epsilon([*study, *study], DELTA)
    adaptive = epsilon_adaptive([study] * 2, DELTA, allowed)
    assert known < adaptive < 1.15 * known
    assert adaptive <= allowed, "two studies of half the budget fit"
    orders = {o: epsilon_rdp([*study, *study], DELTA, [o]) for o in ORDERS}
    assert adaptive in orders.values(), "at one order"
    other = (subject(2 * noise, 5, 0.1),)
    assert epsilon_adaptive([study, other], DELTA, allowed) == pytest.approx(
        epsilon_rdp([*study, *other], DELTA, [next(o for o, e in orders.items() if e == adaptive)])
    ), "whatever the studies are"


def test_sites_add_up_exactly_and_nothing_is_claimed_from_sampling_them():
    blocks = [[GaussianEvent(2.0, 5)], [GaussianEvent(1.0, 2)]]
    assert epsilon_adaptive(blocks, DELTA, 8.0) == epsilon([*blocks[0], *blocks[1]], DELTA)
    sampled = [[GaussianEvent(2.0, 5, "site", 0.1)], [GaussianEvent(1.0, 2, "site", 0.1)]]
    assert epsilon_adaptive(sampled, DELTA, 8.0) == epsilon_adaptive(blocks, DELTA, 8.0)


def test_each_unit_by_itself():
    events = [GaussianEvent(2.0, 3), subject(4.0, 10, 0.2)]
    assert by_unit(events, DELTA) == {
        "site": epsilon(events[:1], DELTA), "subject": epsilon(events[1:], DELTA)
    }  # fmt: skip


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


def test_statement_about_subjects_is_another():
    text = statement([subject(4.0, 40, 0.2)], DELTA)
    for part in ("delta = 1e-05", "40 noisy sums", "probability 0.2", "one subject", "clipped",
                 "added or removed", "add-or-remove-one", "evaluation counts", "earlier results",
                 "need not be trusted", "this run alone"):  # fmt: skip
        assert part in text
    assert "zero-out" not in text
    assert "server is trusted" not in text


@pytest.mark.parametrize("events", [[], [GaussianEvent(0.0, 5)], [GaussianEvent(0.0, 0)]])
def test_statement_without_noise_claims_nothing(events):
    text = statement(events, DELTA)
    assert text.startswith("No formal guarantee")
    assert "epsilon =" not in text
