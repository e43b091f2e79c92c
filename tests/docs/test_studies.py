"""The figures in the pages are those that `make study` left."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path

from studies import synthetic
from studies.rows import read
from studies.segmentation import CENTRALISED, FEDERATED, SMALL

ROOT = Path(__file__).parents[2]
FOUND = json.loads((ROOT / "studies" / "results.json").read_text())


def test_the_curves_table() -> None:
    page = (ROOT / "docs" / "site-level-dp.md").read_text()
    cells: dict[float, dict[str, str]] = {}
    for point in FOUND["curve"]["points"]:
        runs = point["macro_auc"]
        spread = f" ± {statistics.stdev(runs):.3f}" if len(runs) > 1 else ""
        of = cells.setdefault(float(point["epsilon"]), {})
        of[point["unit"]] = f"{statistics.fmean(runs):.3f}{spread}"
    for epsilon, of in cells.items():
        name = "∞" if math.isinf(epsilon) else f"{epsilon:g}"
        assert f"| {name} | {of['site']} | {of['subject']} |" in page
    assert f"comes to {FOUND['curve']['network_without_noise']:.3f}" in page


def test_the_audits_table() -> None:
    page = (ROOT / "docs" / "privacy-audit.md").read_text()
    for row in FOUND["audit"]["rows"]:
        figures = [f"{row[name]:.2f}" for name in ("honest", "without_noise", "ceiling")]
        cells = [row["mechanism"], f"{row['claim']:g}", str(row["canaries"]), *figures]
        assert f"| {' | '.join(cells)} |" in page
        assert row["honest"] < row["claim"] < row["without_noise"]


def test_the_figures_of_synthetic_subjects() -> None:
    page = (ROOT / "docs" / "synthetic.md").read_text().replace("−", "-")
    rows = {(row.method, row.metric): row for row in read() if row.study == "synthetic"}

    def mean(method: str, metric: str = synthetic.AUC) -> str:
        return f"{rows[method, metric].mean:.3f}"

    few = synthetic.FEW
    both = rows[f"{few}, and the VAE's", synthetic.AUC]
    vae, gan, then = (mean(name) for name in ("the VAE's", "the GAN's", f"the VAE's, then {few}"))
    assert f"the VAE's subjects alone comes to {vae}, on those of the GAN to {gan}" in page
    assert f"on the real ones of all hospitals to {mean(synthetic.ALL)}" in page
    assert f"{mean(few)} with its own 36, {both.mean:.3f} ± {both.sd:.3f} mixed" in page
    assert f"{then} with the VAE's first" in page
    closeness = [mean(f"the {model}'s", "closeness") for model in synthetic.PLANS]
    assert f"closeness {closeness[0]} (VAE) and {closeness[1]} (GAN)" in page
    judge = rows["the GAN itself", synthetic.AUC]
    assert f"judge's macro AUC is {judge.mean:.3f} ± {judge.sd:.3f}" in page
    for modality in ("ct", "pet"):
        assert f"({rows[modality, 'variance explained'].mean:.2f})" in page


def test_the_table_of_few_bytes() -> None:
    page = (ROOT / "docs" / "few-bytes.md").read_text()
    for row in FOUND["bytes"]["rows"]:
        up, down = (f"{row[way] / 1e6:.2f} MB" for way in ("up", "down"))
        cost = f"{row['difference']:+.3f} ± {row['spread']:.3f}".replace("-", "−")
        cells = [row["setting"], up, down, f"{row['times_fewer']:.1f} ×", cost]
        assert f"| {' | '.join(cells)} |" in page


def test_the_figures_of_segmentation() -> None:
    page = (ROOT / "docs" / "segmentation.md").read_text()
    rows = [row for row in read() if row.study == "segmentation" and row.setting == SMALL]
    found = {(row.method, row.metric): f"{row.mean:.2f}" for row in rows}
    for method in (FEDERATED, CENTRALISED):
        tumour, oedema = (found[method, f"dice of {name}"] for name in ("tumour", "oedema"))
        assert f"{method} {tumour} of the tumour and {oedema} of the oedema" in page
