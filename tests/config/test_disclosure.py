"""What is said of a mode is true of its plan: words are checked where they would mislead."""

import pytest

from fedcore.config.disclosure import (
    disclosure,
    hides_figures,
    hides_sites,
    how_aggregated,
    server_sees,
)


def plan(**fields):
    return {"secure_aggregation": fields}


MASKS = plan(mode="masks")
SPARSE = plan(mode="masks", neighbours=8)
CKKS = plan(mode="ckks")
REST_MASKED = plan(mode="ckks", encrypt_share=0.1)
REST_PLAIN = plan(mode="ckks", encrypt_share=0.1, rest="plain")
HEAD_PLAIN = plan(mode="ckks", encrypt=["head.*", "fusion.*"], rest="plain")


def answers(what):
    return dict(disclosure(what))


@pytest.mark.parametrize("what", [{}, plan(mode="none")])
def test_without_a_mode_the_server_sees_everything(what):
    assert server_sees(what) == "every update, whole"
    assert not hides_sites(what)
    assert answers(what)["A site's loss, size of update and modalities"] == "told"
    assert "the server saw each site's update whole" in how_aggregated(what)


@pytest.mark.parametrize("what", [MASKS, SPARSE, CKKS, REST_MASKED])
def test_where_all_is_hidden_the_server_sees_the_sum(what):
    assert server_sees(what) == "the sum of the updates"
    assert hides_sites(what)
    assert answers(what)["Of one site's update"].startswith("nothing")
    assert answers(what)["A site's loss, size of update and modalities"].startswith("not told")


@pytest.mark.parametrize(
    ("what", "kept"),
    [(REST_PLAIN, "the 10 % of the values that last changed most"),
     (HEAD_PLAIN, "the values of head.* and fusion.*")],
)  # fmt: skip
def test_what_travels_in_the_open_is_said_openly(what, kept):
    assert server_sees(what) == f"the sum, and of every update all but {kept}"
    assert answers(what)["Of one site's update"].startswith("every value but")
    assert "all zeros" in answers(what)["Which parts of the model a site trained"]
    assert "in the open" in how_aggregated(what)


def test_who_adds_the_noise_is_said():
    by_server = {**MASKS, "privacy": {"noise_multiplier": 1.0}}
    in_shares = {**MASKS, "privacy": {"noise_multiplier": 1.0, "noise_by": "sites"}}
    assert "not from the server" in answers(by_server)["Of the sum over the sites"]
    assert "nobody sees it without" in answers(in_shares)["Of the sum over the sites"]
    assert server_sees(in_shares) == "the sum of the updates, with noise"


def test_statistics_behind_masks_are_not_told_either():
    masked = plan(mode="masks", statistics=True)
    assert hides_figures(masked)
    assert answers(masked)["A site's evaluation"].startswith("nothing")
    assert not hides_figures(MASKS)
    assert not hides_figures({})


@pytest.mark.parametrize("what", [CKKS, REST_MASKED, REST_PLAIN])
def test_one_site_is_enough_to_open_ciphertexts(what):
    assert "any one site" in answers(what)["Who could undo this"]


def test_what_is_told_beside_the_weights_is_said():
    question = "What a site tells beside the weights"
    assert question not in answers(MASKS)
    dro = {"attribute": "sex", "method": "dro", "groups": ["F", "M"]}
    asked = {"training": {"alignment": {}, "fairness": dro}}
    assert "moments of its subjects' features and the share" in answers(asked)[question]
    assert "hidden as that is" not in answers(asked)[question]
    assert answers({**MASKS, **asked})[question].endswith("hidden as that is")
    assert "training loss" in answers({"aggregation": {"fairness_q": 1.0}})[question]


def test_a_sparse_graph_is_undone_by_fewer():
    assert "of its neighbours (about 8)" in answers(SPARSE)["Who could undo this"]
    assert "more than two thirds of the sites" in answers(MASKS)["Who could undo this"]
    assert "with 7 of the sites" in answers(plan(mode="masks", threshold=7))["Who could undo this"]


@pytest.mark.parametrize("what", [{}, MASKS, CKKS])
def test_noise_is_no_protection_from_the_server(what):
    noisy = {**what, "privacy": {"clip_norm": 1.0, "noise_multiplier": 1.0}}
    assert "not from the server" in answers(noisy)["Of the sum over the sites"]
    assert "noise" not in answers(what)["Of the sum over the sites"]


@pytest.mark.parametrize("what", [{}, MASKS, CKKS])
def test_what_no_mode_hides_is_said_in_every_mode(what):
    assert answers(what)["A site's evaluation"].startswith("counts by class and by group")
    assert "in every mode" in answers(what)["Who takes part"]
