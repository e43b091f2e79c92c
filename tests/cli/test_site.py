"""`fedcore site import`, `report`, `check`, `rules`, as a hospital's engineer types them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import scans
from typer.testing import CliRunner

from fedcore.cli import app
from fedcore.store.filesystem import FilesystemStore


class Site:
    """A folder for the data, and the commands on it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, folder / "data"
        self.data.mkdir()

    def run(self, *arguments: object) -> tuple[int, dict[str, Any]]:
        command = ["site", *map(str, arguments), "--data", str(self.data), "--json"]
        result = CliRunner().invoke(app, command, catch_exceptions=False)
        return result.exit_code, json.loads(result.stdout.strip().splitlines()[-1])

    def bring(self, source: Path, *arguments: object) -> dict[str, Any]:
        code, told = self.run("import", source, "--secret", self.folder / "secret", *arguments)
        assert code == 0
        return told


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.chdir(tmp_path)
    return Site(tmp_path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return scans.write(
        tmp_path / "in", scans.series("CT", patient="1"), scans.pet(patient="1"),
        scans.series("MR", patient="2", ContrastBolusAgent="Gd"),
        scans.series("CT", patient="3")[:4],
    )  # fmt: skip


def test_an_afternoon(site: Site, source: Path) -> None:
    listed = site.folder / "list.csv"
    listed.write_text("patient_id,diagnosis,consent\n1,glioma,study\n2,none,\n")
    told = site.bring(source, "--participants", listed)
    assert (told["imported"], told["subjects"], told["used"], told["consenting"]) == (3, 3, 2, 1)
    assert told["images"] == {"ct": 1, "pet": 1, "t1ce": 1}
    (aside,) = told["quarantined"]
    assert (aside["reason"], aside["modality"]) == ("too few slices", "ct")
    again = site.bring(source)
    assert (again["imported"], again["known"]) == (0, 3)

    code, shown = site.run("report", "--html", site.folder / "page.html", "--who",
                           "--secret", site.folder / "secret")  # fmt: skip
    assert (code, shown["quarantined"]) == (0, told["quarantined"])
    page = (site.folder / "page.html").read_text()
    assert page.count("data:image/png;base64,") == 2
    assert "too few slices" in page
    assert "decay-corrected to the start of the scan" in page

    code, ready = site.run("check")
    rows = {row["what"]: row for row in ready["rows"]}
    assert (code, ready["ready"]) == (0, True)
    assert rows["data"]["found"] == "2 of 3 subjects have an image"
    assert rows["modality pet"]["found"] == "1 of 2 subjects"
    assert rows["modality t1"]["found"] == "0 of 2 subjects"
    assert rows["consent"]["found"] == "1 of 2 subjects consent to some purpose"
    assert rows["class (diagnosis)"]["found"] == "glioma 1, none 1"
    assert "1 quarantined: too few slices" in rows["quarantine"]["found"]
    assert "FEDCORE_POLICY" in rows["credentials and isolation"]["found"]


def test_files_of_no_subject_are_counted(site: Site, tmp_path: Path) -> None:
    """Thirty with the same trouble are one line, not thirty."""
    site.bring(scans.write(tmp_path / "nobody", scans.series("CT", patient="")))
    code, told = site.run("report", "--html", site.folder / "page.html")
    assert (code, len(told["quarantined"])) == (0, scans.SHAPE[2])
    page = (site.folder / "page.html").read_text()
    assert page.count("PatientID is empty") == 1
    assert f"<td>{scans.SHAPE[2]}</td></tr>" in page


def test_what_stands_in_the_way_is_bad(site: Site, source: Path) -> None:
    code, told = site.run("check")
    assert code == 1
    assert told["rows"][0]["found"] == "no participants.tsv: run fedcore site import"
    site.bring(source)
    code, told = site.run("check", _plan())
    bad = [row["what"] for row in told["rows"] if row["state"] == "bad"]
    assert (code, bad) == (1, ["consent"])
    rows = {row["what"]: row["found"] for row in told["rows"]}
    assert "glioma, meningioma, pituitary" in rows["class (diagnosis)"]
    assert rows["modality t1ce"] == "1 of 2 subjects"


def _plan() -> Path:
    return Path(__file__).parents[2] / "plans" / "brain_tumour.yaml"


def test_the_shipped_rules_can_be_given_back(site: Site, source: Path) -> None:
    rules = site.folder / "rules.yaml"
    rules.write_text(CliRunner().invoke(app, ["site", "rules"]).stdout)
    told = site.bring(source)
    assert site.bring(source, "--rules", rules)["imported"] == 0
    rules.write_text(rules.read_text().replace("min_slices: 5", "min_slices: 3"))
    assert site.bring(source, "--rules", rules)["used"] == told["used"] + 1


def test_the_official_validator_passes(site: Site, source: Path) -> None:
    validator = Path(sys.executable).with_name("bids-validator-deno")
    if not validator.exists():
        pytest.skip("bids-validator-deno is not installed beside this Python")
    site.bring(source)
    assert sum(key.endswith(".nii.gz") for key in FilesystemStore(site.data).list("sub-")) == 3
    done = subprocess.run(
        [validator, "--ignoreWarnings", site.data],
        check=False, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "[ERROR]" not in done.stdout


def test_the_policy_and_the_isolation_are_part_of_it(
    site: Site, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders keep nobody out, and the check says so."""
    policy = site.folder / "policy.yaml"
    policy.write_text(
        "site: north\nserver_public_key: x\nallow: {purposes: [teaching], modalities: [ct]}\n"
    )
    (site.folder / "exchange").mkdir()
    monkeypatch.setenv("FEDCORE_POLICY", str(policy))
    monkeypatch.setenv("FEDCORE_EXCHANGE", json.dumps({"folder": str(site.folder / "exchange")}))
    monkeypatch.setenv("FEDCORE_DATA", json.dumps({"folder": str(site.data)}))
    site.bring(source)
    code, told = site.run("check", _plan())
    rows = {row["what"]: row for row in told["rows"]}
    assert code == 1
    assert rows["policy"]["state"] == "bad"
    assert "purpose 'brain-tumour-research' is not allowed here" in rows["policy"]["found"]
    assert rows["credentials and isolation"]["state"] == "bad"
    assert "write params/: allowed" in rows["credentials and isolation"]["found"]
    assert rows["disk (data)"]["found"].endswith(f"free in {site.data}")
    code, told = site.run("check")
    assert {r["what"]: r["found"] for r in told["rows"]}["policy"] == "site north, for teaching"
