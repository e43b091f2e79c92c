from __future__ import annotations

import numpy as np
import pytest
from cohort import names
from hypothesis import given, settings
from hypothesis import strategies as st

from fedcore.privacy.secagg import Graph, complete, default_threshold, neighbours, sparse


@settings(deadline=None)
@given(st.integers(2, 80), st.integers(1, 30), st.binary(max_size=8))
def test_a_sparse_graph_is_regular_and_mutual(count, degree, seed):
    graph = sparse(names(count), degree, seed)
    wanted = min(degree + degree % 2, count - 1)
    assert {len(near) for near in graph.neighbours.values()} <= {wanted, count - 1}
    for site, near in graph.neighbours.items():
        assert site not in near
        assert all(site in graph.of(peer) for peer in near)
    holders = graph.holders(names(count)[0])
    assert len(holders) < 2 * graph.threshold <= 2 * len(holders)


def test_a_sparse_graph_follows_from_the_sites_and_the_seed():
    sites = names(50)
    assert sparse(sites, 6, b"one") == sparse(sites[::-1], 6, b"one")
    assert sparse(sites, 6, b"one") != sparse(sites, 6, b"two")
    assert sparse(sites, 6, b"one").threshold == 4
    assert sparse(sites, 49, b"one", threshold=30) == complete(sites, 30)


def connected(graph: Graph, without: set[str]) -> bool:
    left = set(graph.neighbours) - without
    reached, at = set(), [min(left)]
    while at:
        site = at.pop()
        if site not in reached:
            reached.add(site)
            at += graph.of(site) - without
    return reached == left


def test_a_sparse_graph_stays_connected_when_fewer_than_k_sites_go():
    """The Harary graph is k-connected: it takes k sites to cut it."""
    sites = names(40)
    graph = sparse(sites, 6, b"seed")
    rng = np.random.default_rng(0)
    for _ in range(300):
        assert connected(graph, set(rng.choice(sites, 5, replace=False)))
    near = graph.of(sites[0])
    assert not connected(graph, set(near)), "this one is cut by its k neighbours"


def test_the_tails_bound_what_happens():
    """At odds of 1 in 8 one can count: in random graphs things go wrong less often."""
    count, gamma, delta, sigma, eta = 60, 0.2, 0.2, 3, 3
    degree, threshold = neighbours(count, gamma, delta, sigma, eta)
    sites, rng, draws = names(count), np.random.default_rng(1), 300
    colluding, cut, short = 0, 0, 0
    for draw in range(draws):
        graph = sparse(sites, degree, b"%d" % draw)
        picked = rng.permutation(sites)
        corrupt, dropped = set(picked[: count // 5]), set(picked[count // 5 : 2 * count // 5])
        colluding += any(len(near & corrupt) >= threshold for near in graph.neighbours.values())
        short += any(len(near - dropped) < threshold for near in graph.neighbours.values())
        cut += not connected(graph, corrupt | dropped)
    allowed = draws / 8 + 5 * np.sqrt(draws / 8)  # five standard errors
    assert colluding <= allowed
    assert short <= allowed
    assert cut <= allowed
    with_half = sparse(sites, degree // 2, b"seed")
    assert any(len(near - dropped) < threshold for near in with_half.neighbours.values())


def test_degrees_grow_like_the_logarithm_of_the_cohort():
    degrees = [neighbours(10**power)[0] for power in (2, 3, 4, 5)]
    growth = np.diff(degrees)
    assert (growth > 0).all()
    assert growth.max() == growth[0] < 70, "ten times the sites take ever fewer more"
    assert degrees[-1] < 170


@pytest.mark.parametrize("count", [3, 10, 20])
def test_a_small_cohort_needs_the_complete_graph(count):
    degree, threshold = neighbours(count, gamma=0.3, delta=0.3)
    corrupt, dropped = int(0.3 * count), int(0.3 * count)
    assert degree == count - 1
    assert corrupt < threshold <= degree - dropped, "there nothing is left to chance"


def test_where_no_graph_is_good_enough():
    with pytest.raises(ValueError, match="no graph is good enough"):
        neighbours(20, gamma=0.5, delta=0.45)
    assert neighbours(20, gamma=0.5, delta=0.0) == (19, 11)
    with pytest.raises(ValueError, match="no graph is good enough"):
        neighbours(20, gamma=0.55, delta=0.0)  # eleven collude, and eleven shares open a secret
    with pytest.raises(ValueError, match="sum below 1"):
        neighbours(100, gamma=0.5, delta=0.5)


def test_the_default_threshold_is_above_half():
    assert all(n < 2 * default_threshold(n) <= 2 * n for n in range(2, 200))
