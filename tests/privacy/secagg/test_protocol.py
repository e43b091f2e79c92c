from __future__ import annotations

import numpy as np
import pytest
from cohort import STAGES, Cohort, Played, names, play
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.errors import QuorumNotReached, UpdateRejected
from fedcore.params import BLOCK
from fedcore.privacy import fixed_point, secagg
from fedcore.privacy.secagg import Revealed


def vectors_for(sites: list[str], grid: fixed_point.Grid, size: int = 33, seed: int = 0):
    rng = np.random.default_rng(seed)
    return {
        site: fixed_point.encode(
            rng.uniform(-grid.bound, grid.bound, size), grid, site.encode().ljust(32)
        )
        for site in sites
    }


def plain_sum(vectors: dict[str, np.ndarray], sites: list[str]) -> np.ndarray:
    chosen = [vectors[site] for site in sites]
    return np.add.reduce(chosen, dtype=chosen[0].dtype)


@st.composite
def rounds(draw):
    """A cohort, its threshold, the fixed-point bits, and who vanishes when."""
    count = draw(st.integers(2, 9))
    threshold = draw(st.integers(count // 2 + 1, count))
    sites = names(count)
    stage = st.sampled_from([*STAGES, None, None, None])
    vanish = {site: told for site in sites if (told := draw(stage)) is not None}
    return Cohort(sites, threshold), draw(st.sampled_from([8, 20, 32])), vanish


@settings(deadline=None, max_examples=60)
@given(rounds())
def test_the_sum_is_exact_or_the_round_ends_with_nothing_revealed(drawn):
    """Whoever vanishes whenever: with the threshold left, bit for bit the sum of those whose input
    came; with fewer, a temporary error, and no secret has as many revealed shares as open it."""
    cohort, bits, vanish = drawn
    vectors = vectors_for(cohort.sites, fixed_point.grid(bits, 2.5, len(cohort.sites)))
    played = Played()
    if len(cohort.sites) - len(vanish) >= cohort.threshold:
        play(cohort, vectors, vanish, played)
        assert (played.unmasked == plain_sum(vectors, played.survivors)).all()
        assert set(played.survivors) == {
            s for s in cohort.sites if vanish.get(s) not in ("shares", "masked")
        }
    else:
        with pytest.raises(QuorumNotReached):
            play(cohort, vectors, vanish, played)
        assert played.unmasked is None
        assert len(played.revealed) < cohort.threshold
        assert not played.revealed or "unmask" in vanish.values(), (
            "revealed while too few were left"
        )
    assert_never_both(played)


def assert_never_both(played: Played) -> None:
    of_self = {owner for said in played.revealed.values() for owner in said.self_shares}
    of_mask = {owner for said in played.revealed.values() for owner in said.mask_shares}
    assert not of_self & of_mask
    assert of_self <= set(played.survivors)
    assert of_mask <= set(played.senders) - set(played.survivors)


@pytest.mark.parametrize("stage", [*STAGES, None])
@pytest.mark.parametrize(("count", "neighbours"), [(10, None), (40, 12)])
def test_any_one_site_may_vanish_at_any_stage(count, neighbours, stage):
    threshold = secagg.default_threshold(count)
    cohort = Cohort(names(count), threshold, neighbours)
    vectors = vectors_for(cohort.sites, fixed_point.grid(20, 1.0, count))
    played = play(cohort, vectors, {cohort.sites[3]: stage} if stage else {})
    assert (played.unmasked == plain_sum(vectors, played.survivors)).all()
    assert_never_both(played)


@pytest.mark.parametrize(("sites", "neighbours"), [(40, None), (100, 20)])
def test_many_sites(sites, neighbours):
    cohort = Cohort(names(sites), sites // 2 + 1, neighbours)
    vectors = vectors_for(cohort.sites, fixed_point.grid(20, 1.0, sites))
    gone = {"site-007": "shares", "site-030": "masked", f"site-{sites - 1:03d}": "unmask"}
    played = play(cohort, vectors, gone)
    assert len(played.survivors) == sites - 2
    assert (played.unmasked == plain_sum(vectors, played.survivors)).all()
    held = neighbours or sites - 1
    assert {len(said.self_shares) + len(said.mask_shares) for said in played.revealed.values()} <= {
        held, held + 1
    }  # fmt: skip


def test_a_long_vector_is_masked_over_all_its_blocks():
    cohort = Cohort(names(3), 2)
    vectors = vectors_for(cohort.sites, fixed_point.grid(20, 1.0, 3), size=2 * BLOCK + 5)
    played = play(cohort, vectors, {"site-001": "masked"})
    assert (played.unmasked == plain_sum(vectors, played.survivors)).all()


def test_a_neighbourhood_that_fell_apart_is_named_before_anything_is_revealed():
    cohort = Cohort(names(40), 21, neighbours=4)
    lost = cohort.terms.graph.of("site-000")
    vectors = vectors_for(cohort.sites, fixed_point.grid(20, 1.0, 40))
    played = Played()
    with pytest.raises(QuorumNotReached, match=r"secrets of .*site-000"):
        play(cohort, vectors, dict.fromkeys(lost, "masked"), played)
    assert not played.revealed


class AfterARound:
    """A round that was played, whose last messages a test changes."""

    def __init__(self, count: int, threshold: int, vanish: dict[str, str]) -> None:
        self.cohort = Cohort(names(count), threshold)
        self.vectors = vectors_for(self.cohort.sites, fixed_point.grid(20, 1.0, count))
        self.played = play(self.cohort, self.vectors, vanish)

    def unmask(self, revealed: dict[str, Revealed]) -> np.ndarray:
        total = self.played.total.copy()
        try:
            return secagg.unmask_sum(
                total, self.played.senders, self.played.survivors, revealed, self.cohort.terms
            )
        except Exception:
            assert (total == self.played.total).all(), "the sum was changed though it failed"
            raise

    def lying(self, *liars: str) -> dict[str, Revealed]:
        def wrong(told):
            return {owner: bytes(byte ^ 1 for byte in share) for owner, share in told.items()}

        return {
            site: Revealed(wrong(said.self_shares), wrong(said.mask_shares))
            if site in liars
            else said
            for site, said in self.played.revealed.items()
        }


@pytest.mark.parametrize("liars", [("site-000",), ("site-004",), ("site-000", "site-003")])
def test_wrong_shares_are_passed_over_while_right_ones_suffice(liars):
    after = AfterARound(6, 4, {"site-005": "masked"})
    spare = len(after.played.revealed) - 4
    if len(liars) <= spare:
        wanted = plain_sum(after.vectors, after.played.survivors)
        assert (after.unmask(after.lying(*liars)) == wanted).all()
    else:
        with pytest.raises(UpdateRejected, match="do not fit what it advertised"):
            after.unmask(after.lying(*liars))


def test_too_few_shares_say_whose_secret_stays_closed():
    after = AfterARound(5, 3, {"site-004": "masked"})
    silent = {
        site: Revealed(said.self_shares, {}) if site in ("site-000", "site-001") else said
        for site, said in after.played.revealed.items()
    }
    with pytest.raises(QuorumNotReached, match="secret of site-004 needs 3 shares, and 2"):
        after.unmask(silent)
    few = dict(list(after.played.revealed.items())[:2])
    with pytest.raises(QuorumNotReached, match="2 sites revealed shares, and 3"):
        after.unmask(few)


def test_who_is_not_a_holder_says_nothing_about_a_secret():
    cohort = Cohort(names(12), 7, neighbours=4)
    vectors = vectors_for(cohort.sites, fixed_point.grid(20, 1.0, 12))
    played = play(cohort, vectors, {})
    stranger = next(s for s in cohort.sites if s not in cohort.terms.graph.holders("site-000"))
    told = dict(played.revealed)
    told[stranger] = Revealed(dict(told[stranger].self_shares) | {"site-000": bytes(16)}, {})
    total = secagg.unmask_sum(played.total, played.senders, played.survivors, told, cohort.terms)
    assert (total == plain_sum(vectors, played.survivors)).all()
