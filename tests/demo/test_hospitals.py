"""The demo's sites begun from DICOM hold what its sites begun from NIfTI hold."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scans

from fedcore.config import plan as plans
from fedcore.data import bids
from fedcore.data.phantoms.brain import PURPOSE
from fedcore.data.phantoms.cohort import demo_federation, people
from fedcore.data.phantoms.writer import write_site
from fedcore.data.site import SiteData
from fedcore.demo.hospitals import import_site, secret_of
from fedcore.store.memory import MemoryStore

SEED = 3
PLAN = plans.load(Path(__file__).parents[2] / "plans" / "brain_tumour.yaml")
SUFFIXES = ("_T1w.nii.gz", "_FLAIR.nii.gz", "_ct.nii.gz", "_pet.nii.gz")


@pytest.mark.parametrize("name", ["north", "west"])
def test_from_dicom_the_data_are_the_same(name: str) -> None:
    (spec,) = [site for site in demo_federation(SEED) if site.name == name]
    counts = dict.fromkeys(spec.counts, 1 if name == "north" else 2)
    spec = replace(spec, counts=counts, voxel_mm=9.0)
    plain, imported = MemoryStore(), MemoryStore()
    write_site(replace(spec, damaged=False), plain, seed=SEED)
    steps: list[int] = []
    import_site(spec, imported, seed=SEED, on_subject=lambda: steps.append(1))  # fmt: skip
    assert len(steps) == spec.size
    secret = secret_of(spec, SEED)
    found = {}
    for person in people(spec, SEED):
        subject = secret.subject(f"{name.upper()}-{person.label[4:]}")
        found[person.label] = subject
        mine = list(imported.list(f"{subject}/"))
        for suffix in SUFFIXES:
            old = [k for k in plain.list(f"{person.label}/") if k.endswith(suffix)]
            new = [k for k in mine if k.endswith(suffix)]
            if new:
                truth = scans.image(plain, old[0])
                assert scans.same(scans.image(imported, new[0]), *truth)
            elif old:
                assert spec.damaged
    table = {row["participant_id"]: row for row in csv.DictReader(
        io.StringIO(imported.get("participants.tsv").decode()), delimiter="\t")}  # fmt: skip
    for person in people(spec, SEED):
        if person.label in found and found[person.label] in table:
            row = table[found[person.label]]
            assert (row["sex"], row["age"]) == (person.sex, str(person.age))
            assert row["diagnosis"] == person.diagnosis
            assert (PURPOSE in row["consent"]) == (PURPOSE in person.consent)
            assert row["scanner"] == f"fedcore {person.scanner.name}"
    parts = bids.dataset(SiteData(PLAN.task, imported, PURPOSE), shape=(8, 8, 8), spacing_mm=20.0)
    left: dict[str, int] = {}
    for part in parts.values():
        for reason, number in part.summary.left_out.items():
            left[reason] = left.get(reason, 0) + number
    quarantined = {r: n for r, n in left.items() if r.startswith("quarantined")}
    assert sum(quarantined.values()) == (3 if spec.damaged else 0), left
    assert np.sum([len(part) for part in parts.values()]) >= spec.size - 2 - 3


def test_run_again_the_subjects_have_the_same_names() -> None:
    """Or the splits, and so the params, would be others each time."""
    north, west = demo_federation(SEED)[0], demo_federation(SEED)[1]
    assert secret_of(north, SEED) == secret_of(north, SEED)
    assert len({secret_of(north, SEED), secret_of(north, SEED + 1), secret_of(west, SEED)}) == 3
