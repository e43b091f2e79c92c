"""The page of a secure run: what was not told is said so, and what the mode cost."""

import math
from dataclasses import replace

import pytest
from page import Page

from fedcore.report import RunReport, render
from fedcore.report.secure import costs, expansion

HOSTILE = "<script>alert('\"x')</script>"


def secured(run: RunReport, **fields) -> RunReport:
    """The run as a server in that mode would have recorded it."""
    plan = {**run.plan, "secure_aggregation": fields}
    history = [
        {**item, "loss": dict.fromkeys(item["loss"]), "update_norm": dict.fromkeys(item["loss"])}
        for item in run.history
    ]
    sites = {site: {**about, "modalities": {}} for site, about in run.sites.items()}
    return replace(run, plan=plan, history=history, sites=sites, pictures=())


@pytest.fixture(scope="module")
def masked(sample_run) -> Page:
    return Page(render(secured(sample_run(), mode="masks")))


def part(page: Page, begin: str, end: str) -> str:
    return page.text.split(begin)[1].split(end)[0]


def test_what_the_server_was_not_told_is_no_empty_plot_or_cell(masked, sample_run):
    assert "Training loss by site not told (secure aggregation)" in masked.text
    assert "Size of each site's update not told (secure aggregation)" in masked.text
    table = part(masked, "By site The one final model", "By group")
    assert table.count("not told (secure aggregation)") == len(sample_run().sites)
    figures = [svg["aria-label"] for svg in masked.all("svg") if svg.get("role") == "img"]
    assert len(figures) == 9, "all but the two that nobody told"


def test_a_plain_run_was_told_everything(sample_run):
    page = Page(render(replace(sample_run(), pictures=())))
    assert "not told" not in page.text
    seen = part(page, "What the server could see By the plan", "Who took part")
    assert "Of one site's update Every value, and its weight." in seen
    assert "What that cost" not in seen


def test_figures_by_site_that_were_not_told_are_said_so(sample_run):
    run = secured(sample_run(), mode="masks", statistics=True)
    sites = {site: {**about, "summary": None} for site, about in run.sites.items()}
    final = {"overall": run.final["overall"]}
    page = Page(render(replace(run, sites=sites, final=final, fairness={})))
    not_told = "not told (secure aggregation)"
    assert f"Worst site {not_told}" in page.text
    assert f"Group gap {not_told}" in page.text
    table = part(page, "By site The one final model", "By group")
    assert f"mayo 140 train {not_told} {not_told}" in table, "modalities, and figures"
    groups = part(page, "Does it work equally well", "By class")
    assert f"by group {not_told}" in groups
    assert f"Gaps {not_told}" in groups


def test_the_page_says_what_the_server_could_see(masked):
    seen = part(masked, "What the server could see By the plan", "Who took part")
    assert "Nothing: it arrives behind masks" in seen
    assert "Bytes of the updates ÷ the params as float32 0.93 ×" in seen
    assert "Counts by class and by group; groups smaller" in seen
    assert "model updates behind masks, and counts from which" in masked.text
    assert "a form that shows the server the sum of the updates. The server averages" in masked.text


def test_the_cost_of_ciphertexts_is_that_of_their_parameters(sample_run):
    found = dict(costs(secured(sample_run(), mode="ckks")))
    assert found["Bytes of a ciphertext ÷ its values as float32"] == "at most 8.00 ×"
    assert int(found["Parameters"].split()[-2].removesuffix("-bit")) >= 128
    assert "at most 3" in found["Largest error of a value of the sum"], "the clip norm"
    assert not [label for label in found if "masks" in label]


def test_phases_are_shown_where_they_were_recorded(sample_run):
    run = secured(sample_run(), mode="masks")
    timed = replace(run, seconds={"train": 3.0, "agree on keys": 0.25, "open the sum": 1.5})
    assert dict(costs(timed))["Agreeing on keys, the clients' start included"] == "0.25 s"
    assert dict(costs(timed))["Opening the sum"] == "1.5 s"
    assert "Opening the sum" not in dict(costs(run))


def test_expansion_is_per_update_that_counted():
    first = {"cohort": ["a", "b"], "dropped": {}, "update_bytes": 600}
    later = {"cohort": ["a", "b"], "dropped": {"a": "gone"}, "update_bytes": 300}
    for history in ([first], [first, later]):
        assert expansion(RunReport("r1", {}, history=history, params_bytes=100)) == 3.0


@pytest.mark.parametrize(
    ("history", "params_bytes"),
    [([], 100), ([{}], 100), ([{"cohort": ["a"], "dropped": {"a": "gone"}}], 100),
     ([{"cohort": ["a"], "update_bytes": 3}], None), ([{"cohort": ["a"]}], 100)],
)  # fmt: skip
def test_expansion_is_unknown_where_nothing_was_recorded(history, params_bytes):
    assert math.isnan(expansion(RunReport("r1", {}, history=history, params_bytes=params_bytes)))


@pytest.mark.parametrize("fields", [{"mode": "masks"}, {"mode": "ckks"}])
def test_a_page_with_nothing_but_a_mode_does_not_fail(fields):
    page = Page(render(RunReport(run_id="r1", plan={"secure_aggregation": fields})))
    assert "Bytes of the updates ÷ the params as float32 not measured" in page.text


def test_modes_are_compared_in_one_table(sample_run):
    rows = [
        {"mode": "plain", "macro_auc": 0.9514, "epsilon": None, "bytes_up": 1_000_000,
         "bytes_down": 2_000_000, "seconds": 75.2, "params_sha256": "ab" * 32,
         "server_sees": "every update, whole"},
        {"mode": HOSTILE, "macro_auc": None, "epsilon": 12.5, "server_sees": None},
        {"mode": "ckks", "error": "fedcore: no TenSEAL"},
    ]  # fmt: skip
    html = render(replace(sample_run(), modes=rows, pictures=()))
    page = Page(html)
    shown = part(page, "The same study in other modes", "Who took part")
    assert "plain 0.951 none 1 MB 2 MB 1 min 15 s abababab every update, whole" in shown
    assert "12.5 not measured" in shown
    assert "ckks ✕ fedcore: no TenSEAL" in shown
    assert HOSTILE in shown
    assert "<script" not in html.lower()
    assert "The same study in other modes" not in Page(render(RunReport("r", {}))).text
