import json
import re
import shutil
import subprocess
import time
from base64 import b64decode
from dataclasses import replace

import pytest
from page import Page

from fedcore.report import RunReport, render

HOSTILE = "<script>alert('\"x')</script>"


@pytest.fixture(scope="module")
def rendered(sample_run) -> tuple[str, float]:
    """The sample's page and the seconds of CPU it took."""
    started = time.process_time()
    return render(sample_run()), time.process_time() - started


@pytest.fixture(scope="module")
def html(rendered) -> str:
    return rendered[0]


@pytest.fixture(scope="module")
def page(html) -> Page:
    return Page(html)


def bare(**parts) -> Page:
    return Page(render(RunReport(run_id="r1", plan={}, **parts)))


def test_page_is_well_formed_and_ids_are_unique(page):
    assert page.open == []
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))


def test_how_far_reconstructed_images_are_off_is_a_table():
    figures = {
        "pet": {"num_examples": 41, "value": 0.2512, "low": 0.2011, "high": 0.3},
        "ct": {"num_examples": 0, "value": None, "low": None, "high": None},
    }
    shown = bare(final={"overall": {"reconstruction": figures}}).text
    assert "0.2512 0.2011–0.3000" in shown
    assert "ct 0 not measured" in shown
    assert "Images as the model has them" not in bare().text


def test_nothing_is_loaded_from_elsewhere_and_nothing_runs(html, page):
    assert not page.all("script")
    for tag, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on"), f"<{tag}> has the handler {name}"
            if name in {"src", "href", "xlink:href", "srcset", "action", "data", "poster"}:
                assert value.startswith(("#", "data:")), f"<{tag} {name}={value[:60]}>"
    assert "@import" not in html
    assert set(re.findall(r"url\((.)", html)) <= {"#"}
    policy = next(m for m in page.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy["content"].startswith("default-src 'none'")


def test_references_within_figures_point_to_ids_that_exist(html, page):
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    links = {
        v[1:] for _, a in page.tags for k, v in a.items() if k.endswith("href") and v[0] == "#"
    }
    assert links | set(re.findall(r"url\(#([^)]+)\)", html)) <= ids


def test_every_site_class_modality_and_reason_appears(page, sample_run):
    run = sample_run()
    expected = [*run.sites, *run.plan["task"]["classes"], *run.plan["task"]["modalities"]]
    for about in run.sites.values():
        expected += [*about["left_out"], *about["refusals"]]
    for item in run.history:
        expected += item["dropped"].values()
    for values in run.final["groups"].values():
        expected += values
    expected += [run.run_id, run.plan_digest, run.params_sha256, run.version, run.data_note]
    for words in expected:
        assert words in page.text, words


def test_plan_can_be_copied_out_of_the_page(page, sample_run):
    plan = next(words for words in page.words if words.lstrip().startswith('{\n  "name"'))
    assert json.loads(plan) == sample_run().plan


def test_every_figure_has_alternative_text_with_its_values(page):
    figures = [svg for svg in page.all("svg") if svg.get("role") == "img"]
    assert len(figures) == 11
    assert all(len(svg["aria-label"]) > 30 for svg in figures)
    assert any("tata-memorial 0.89 0.81–0.97" in svg["aria-label"] for svg in figures)
    assert "not measured" not in " ".join(svg["aria-label"] for svg in figures)


def test_subjects_are_images_that_say_what_they_show(page):
    images = page.all("img")
    assert len(images) == 16
    assert {image["alt"].split(":")[0] for image in images} == {
        "none", "glioma", "meningioma", "pituitary",
    }  # fmt: skip
    for image in images:
        head, data = image["src"].split(",", 1)
        assert head == "data:image/png;base64"
        assert b64decode(data).startswith(b"\x89PNG")


def test_headline_gives_the_verdict_with_figures_and_intervals(page):
    assert "✓ PASS The model reached every threshold" in page.text
    assert "Macro AUC 0.94 0.91–0.97" in page.text
    assert "Worst site 0.89" in page.text


def test_failed_gate_says_why(sample_run):
    failing = {"name": "min_macro_auc", "threshold": 0.99, "value": 0.94, "passed": False,
               "reason": "0.94 is below 0.99"}  # fmt: skip
    verdict = {"passed": False, "reasons": ["macro AUC 0.94 < 0.99"], "checks": [failing]}
    run = replace(sample_run(verdict=verdict, registry=None), history=[], pictures=())
    page = Page(render(run))
    assert "✕ FAIL The model must not be promoted: macro AUC 0.94 < 0.99" in page.text
    assert "0.94 is below 0.99" in page.text
    assert "PASS" not in page.text


@pytest.mark.parametrize("verdict", [None, {}, {"passed": None}, {"passed": "no"}])
def test_only_a_verdict_that_passed_reads_as_pass(verdict):
    assert "PASS" not in bare(verdict=verdict).text


def test_words_from_outside_are_only_words(sample_run):
    run = sample_run()
    site = f"site-{HOSTILE}"
    summary = run.sites["mayo"]["summary"]
    hostile = replace(
        run,
        run_id=HOSTILE,
        sites={site: {"summary": summary, "num_examples": 3, "modalities": {HOSTILE: 1},
                      "left_out": {HOSTILE: 1}, "refusals": [HOSTILE]}},
        history=[{"round_num": 0, "cohort": [site, "b"], "dropped": {"b": HOSTILE},
                  "loss": {site: 1.0}, "update_norm": {site: 1.0}, "seconds": {HOSTILE: 1.0}}],
        final={"overall": {**run.final["overall"],
                           "per_class": {HOSTILE: summary["per_class"]["none"]},
                           "roc": {HOSTILE: summary["roc"]["none"]}},
               "groups": {HOSTILE: {HOSTILE: summary}}},
        plan={"name": HOSTILE, "task": {"classes": ["none", HOSTILE, "a", "b"]}},
        verdict={"passed": False, "reasons": [HOSTILE], "checks": []},
        baselines={"single_site_macro_auc": {site: 0.5}},
        privacy={"unit": HOSTILE, "epsilon": 1.0, "delta": 1e-5, "statement": HOSTILE},
        pictures=[{**run.pictures[1], "title": HOSTILE, "note": HOSTILE}],
        data_note=HOSTILE,
    )  # fmt: skip
    html = render(hostile)
    page = Page(html)
    assert "<script" not in html.lower()
    assert page.open == []
    assert page.text.count(HOSTILE) > 12
    assert sum(HOSTILE in (svg.get("aria-label") or "") for svg in page.all("svg")) >= 5


def test_dollar_signs_in_a_name_are_not_mathematics():
    page = bare(history=[{"round_num": 0, "loss": {"a$x_1$": 1.0}}])
    assert page.text.count("a$x_1$") >= 1


def test_what_is_missing_is_said_to_be_not_measured():
    page = bare()
    assert page.text.count("not measured") > 15
    assert "NOT JUDGED" in page.text
    assert "assume no formal guarantee" in page.text
    assert not [svg for svg in page.all("svg") if svg.get("role") == "img"]


def test_half_empty_parts_do_not_stop_the_page():
    nothing = {"value": None, "low": None, "high": None}
    sparse = {"num_examples": 2, "macro_auc": nothing, "accuracy": {"value": float("nan")},
              "per_class": {"a": {"num_examples": 0}}, "confusion": [[0]], "roc": {"a": {"fpr": [],
              "tpr": []}}, "reliability": [], "undefined": ["a"]}  # fmt: skip
    page = bare(
        history=[{"round_num": 3, "macro_auc": nothing, "loss": {"north": None}, "seconds": {}}],
        final={"overall": sparse, "groups": {"sex": {}}, "suppressed": {"sex": 2}},
        sites={"north": {"summary": None, "num_examples": None}, "east": {"summary": sparse}},
        fairness={"sex": {"gap": None, "best": None, "worst": None, "metric": None}},
        privacy={"unit": "site", "epsilon": None, "delta": None, "statement": None},
        onnx={"path": "m.onnx", "max_abs_diff": None},
        baselines={"single_site_macro_auc": {"north": None}, "centralised_macro_auc": None},
        seconds={"train": None},
        pictures=[{"title": "t", "images": {}, "mask": None, "note": None}],
    )
    for words in ("north", "east", "sex (2)", "0 of 1", "No formal guarantee", "m.onnx"):
        assert words in page.text
    assert "nan" not in page.text.lower().split()


def test_isolation_that_failed_is_shown_openly(sample_run):
    rows = [*sample_run().isolation]
    rows[2] = {**rows[2], "allowed": True, "expected": False}
    page = bare(isolation=rows)
    assert "✕ 1 not as intended" in page.text
    assert "all as intended" not in page.text


def test_page_is_small_and_quick(rendered):
    html, seconds = rendered
    assert seconds < 6
    assert len(html.encode()) < 3_000_000


def test_same_run_gives_the_same_page(sample_run):
    sample = sample_run()
    run = RunReport("r1", {}, history=sample.history[:2], pictures=sample.pictures[1:2])
    assert render(run) == render(run)


@pytest.mark.e2e
def test_browser_shows_it_without_complaint(html, tmp_path):
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    report, picture = tmp_path / "report.html", tmp_path / "report.png"
    report.write_text(html, encoding="utf-8")
    done = subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
         "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--hide-scrollbars", "--enable-logging=stderr", "--window-size=500,4000",
         f"--user-data-dir={tmp_path / 'profile'}", f"--screenshot={picture}", report.as_uri()],
        capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    assert "CONSOLE" not in done.stderr
    assert picture.stat().st_size > 100_000


def test_a_run_without_baselines_and_pictures_has_no_empty_parts(sample_run):
    page = Page(render(replace(sample_run(), baselines=None, pictures=())))
    assert not [
        a for _, a in page.tags if a.get("id") == "subjects" or a.get("href") == "#subjects"
    ]
    figures = [svg["aria-label"] for svg in page.all("svg") if svg.get("role") == "img"]
    assert len(figures) == 10, "all but the comparison"
    assert "all data in one place" not in " ".join(figures)
    assert "Was it worth doing together? not measured" in page.text


def test_what_was_left_out_is_said_by_site_of_the_whole_data_set(page, sample_run):
    left_out = page.text.split("What was left out, and why")[1].split("What it cost")[0]
    assert "for training, validation and test" in left_out
    assert "mayo truncated NIfTI 2 mayo no_consent 5" in left_out
