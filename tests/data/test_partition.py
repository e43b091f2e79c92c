import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.data.partition import dirichlet_counts
from fedcore.errors import ConfigError

CLASSES = ("a", "b", "c")


@given(
    sizes=st.dictionaries(st.sampled_from("nesw"), st.integers(6, 200), min_size=1),
    alpha=st.floats(0.05, 100.0),
    seed=st.integers(0, 2**32),
)
@settings(max_examples=50, deadline=None)
def test_every_subject_is_dealt_once_and_every_class_stays_everywhere(sizes, alpha, seed):
    counts = dirichlet_counts(sizes, CLASSES, alpha=alpha, seed=seed, minimum=2)
    assert {site: sum(mix.values()) for site, mix in counts.items()} == sizes
    assert all(tuple(mix) == CLASSES and min(mix.values()) >= 2 for mix in counts.values())


def test_a_small_alpha_skews_and_a_large_one_does_not():
    sizes = {f"s{i}": 300 for i in range(10)}

    def largest_share(alpha):
        counts = dirichlet_counts(sizes, CLASSES, alpha=alpha, seed=1)
        return sum(max(mix.values()) for mix in counts.values()) / 3000

    assert largest_share(0.1) > 0.75
    assert largest_share(1e6) < 0.35


def test_a_site_keeps_its_mix_when_another_joins():
    alone = dirichlet_counts({"north": 40}, CLASSES, alpha=1.0, seed=5)
    joined = dirichlet_counts({"east": 30, "north": 40}, CLASSES, alpha=1.0, seed=5)
    assert joined["north"] == alone["north"]
    assert joined != dirichlet_counts({"east": 30, "north": 40}, CLASSES, alpha=1.0, seed=6)


def test_a_site_too_small_for_the_minimum_is_named():
    with pytest.raises(ConfigError, match=r"'east' has 5 subjects.*at least 6"):
        dirichlet_counts({"east": 5}, CLASSES, alpha=1.0, seed=0, minimum=2)
