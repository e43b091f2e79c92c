import csv
import gzip
import io
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest

from fedcore.data.phantoms import (
    SiteSpec,
    damages,
    demo_federation,
    people,
    subject,
    write_site,
)
from fedcore.data.phantoms.brain import PURPOSE
from fedcore.data.phantoms.brain.anatomy import deformed, template
from fedcore.data.phantoms.brain.contrast import MODALITIES, rendered, tissues
from fedcore.data.phantoms.brain.lesions import CLASSES, OEDEMA, TUMOUR
from fedcore.data.phantoms.brain.lesions import native as native_look
from fedcore.data.phantoms.fields import smooth
from fedcore.data.phantoms.findings import Finding
from fedcore.data.phantoms.scanner import Scanner, stored

SEED = 7
PLAIN = Scanner("Plain 3T")
ONE_OF_EACH = SiteSpec("test", dict.fromkeys(CLASSES, 1), (PLAIN,), missing_rate=0, voxel_mm=6.0)


class Folder:
    """The narrowest store that writing can do with."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, key: str, data: bytes) -> None:
        path = self.root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def contents(root: Path) -> dict[str, bytes]:
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def rows(data: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(data.decode()), delimiter="\t"))


@pytest.fixture(scope="module")
def north(tmp_path_factory):
    """A whole small site, written by two processes."""
    root = tmp_path_factory.mktemp("north")
    spec = demo_federation(SEED, scale=0.05, voxel_mm=6.0)[0]
    calls = []
    write_site(spec, Folder(root), seed=SEED, workers=2, on_subject=lambda: calls.append(1))
    return spec, root, len(calls)


@pytest.fixture(scope="module")
def phantoms():
    return {p.person.diagnosis: p for p in (subject(ONE_OF_EACH, i, SEED) for i in range(4))}


# what is written


def test_bytes_do_not_depend_on_the_number_of_workers(north, tmp_path):
    spec, root, _ = north
    write_site(spec, Folder(tmp_path), seed=SEED, workers=1)
    assert contents(tmp_path) == contents(root)


def test_another_seed_gives_other_people_and_other_scans():
    one, other = subject(ONE_OF_EACH, 0, SEED), subject(ONE_OF_EACH, 0, SEED + 1)
    assert people(ONE_OF_EACH, SEED) != people(ONE_OF_EACH, SEED + 1)
    assert not np.array_equal(one.images["flair"], other.images["flair"])


def test_progress_is_told_once_a_subject(north):
    spec, _, calls = north
    assert calls == spec.size


def test_the_official_validator_passes(north):
    validator = Path(sys.executable).with_name("bids-validator-deno")
    if not validator.exists():
        pytest.skip("bids-validator-deno is not installed beside this Python")
    _, root, _ = north
    done = subprocess.run(
        [validator, "--ignoreWarnings", root],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout
    assert "[ERROR]" not in done.stdout


def test_the_table_names_everyone_and_who_withdrew(north):
    spec, root, _ = north
    table = rows((root / "participants.tsv").read_bytes())
    assert list(table[0]) == ["participant_id", "sex", "age", "scanner", "diagnosis", "consent"]
    assert Counter(row["diagnosis"] for row in table) == spec.counts
    assert {row["sex"] for row in table} <= {"F", "M"}
    assert all(18 <= int(row["age"]) <= 89 for row in table)
    assert [row["consent"] for row in table].count("n/a") == 1
    assert sum(PURPOSE in row["consent"].split(";") for row in table) == spec.size - 2


def test_files_hold_what_the_phantom_shows_whatever_their_orientation(tmp_path):
    scanner = replace(PLAIN, orientation="LPS")
    spec = replace(ONE_OF_EACH, scanners=(scanner,))
    write_site(spec, Folder(tmp_path), seed=SEED)
    phantom = subject(spec, 1, SEED)
    for modality, pattern in (("pet", "pet/*.nii.gz"), ("ct", "ct/*.nii.gz")):
        (path,) = (tmp_path / phantom.person.label).glob(pattern)
        image = nibabel.load(path)
        assert nibabel.aff2axcodes(image.affine) == ("L", "P", "S")
        assert image.get_data_dtype() == np.int16
        upright = nibabel.as_closest_canonical(image)
        np.testing.assert_allclose(upright.affine, phantom.affine)
        np.testing.assert_allclose(upright.get_fdata(), phantom.images[modality], atol=0.51)


def test_thick_slices_keep_their_place():
    image = np.arange(4 * 4 * 5, dtype=np.int16).reshape(4, 4, 5)
    affine = np.diag([3.0, 3.0, 3.0, 1.0])
    voxels, placed = stored(image, affine, replace(PLAIN, orientation="RAI", slice_step=2))
    assert voxels.shape == (4, 4, 3)
    place = np.linalg.inv(affine) @ placed @ [1, 2, 0, 1]
    assert voxels[1, 2, 0] == image[tuple(place[:3].astype(int))]
    assert placed[2, 2] == -6.0


# the scans


def test_units_are_those_of_ct_and_pet(phantoms):
    healthy = phantoms["none"]
    x, y, z = (np.array(healthy.affine[:3, 3]) / -6.0).round().astype(int)
    ct, pet = healthy.images["ct"], healthy.images["pet"]
    assert ct[0, 0, -1] == pytest.approx(-1000, abs=30)
    assert 400 < np.percentile(ct, 99) < 1200  # bone, blurred by 6 mm voxels
    deep = ct[x - 5 : x + 6, y - 5 : y + 3, z + 3 : z + 8]
    assert 15 < np.median(deep) < 45
    assert 0.0 <= pet.min() < 0.2
    assert 3.5 < np.percentile(pet, 97) < 9.0
    assert all(np.isfinite(image).all() for image in healthy.images.values())


def test_tissues_fill_every_voxel_and_grey_matter_takes_up_most():
    rng = np.random.default_rng(0)
    head = deformed(template(6.0), rng)
    fractions = tissues(head, rng)
    np.testing.assert_allclose(sum(fractions.values()), 1.0, atol=0.02)
    pet = rendered(fractions, "pet", rng)
    assert 5.5 < pet[fractions["grey"] > 0.9].mean() < 8.5
    assert 1.5 < pet[fractions["white"] > 0.9].mean() < 3.5


def test_tumours_lie_where_they_belong(phantoms):
    assert not phantoms["none"].label.any()
    places = {}
    for name in CLASSES[1:]:
        phantom = phantoms[name]
        assert {TUMOUR} <= set(np.unique(phantom.label)) <= {0, TUMOUR, OEDEMA}
        voxels = np.argwhere(phantom.label == TUMOUR).mean(axis=0)
        places[name] = (phantom.affine @ [*voxels, 1.0])[:3]
    assert abs(places["pituitary"][0]) < 8.0
    assert -45.0 < places["pituitary"][2] < -10.0
    assert places["glioma"][2] > -30.0


def test_without_contrast_agent_t1_is_dark_where_it_was_bright_and_all_else_is_the_same():
    spec = replace(ONE_OF_EACH, scanners=(replace(PLAIN, agent=False),))
    for number, diagnosis in enumerate(CLASSES):
        given, native = subject(ONE_OF_EACH, number, SEED), subject(spec, number, SEED)
        assert given.person.diagnosis == native.person.diagnosis
        for modality in ("flair", "ct", "pet"):
            assert np.array_equal(given.images[modality], native.images[modality]), diagnosis
        darker = (given.images["t1ce"] - native.images["t1ce"]) / PLAIN.gain
        assert darker.max() > 40.0  # the great vein alone
        assert darker.min() > -10.0
    enhances = Finding(np.ones(1, np.float32), {"t1ce": 160.0, "ct": 70.0}, TUMOUR)
    assert native_look(enhances).looks == {"t1ce": 50.0, "ct": 70.0}
    dead = Finding(np.ones(1, np.float32), {"t1ce": 30.0}, TUMOUR)
    assert native_look(dead) is dead


def test_subjects_have_heads_of_their_own():
    anatomy = template(6.0)
    one, other = (deformed(anatomy, np.random.default_rng(seed)) for seed in (1, 2))
    assert 0.03 < np.abs(one.grey - other.grey)[anatomy.grey > 0.5].mean() < 0.5
    volume = (one.depth < 0).sum() * 6.0**3 / 1e6
    assert 1.1 < volume < 2.6  # litres


def test_a_smooth_field_is_centred_and_smooth():
    field = smooth(np.random.default_rng(0), (40, 40, 40), 10)
    assert abs(field.mean()) < 0.2
    assert 0.7 < field.std() < 1.3
    assert np.abs(np.diff(field, axis=0)).mean() < 0.3


# the federation


def test_the_demo_has_four_unequal_hospitals():
    sites = demo_federation(SEED)
    assert [(site.name, site.size) for site in sites] == [
        ("north", 96), ("east", 80), ("south", 72), ("west", 64)]  # fmt: skip
    mixes = {tuple(site.counts[name] / site.size for name in CLASSES) for site in sites}
    assert len(mixes) == 4
    assert all(min(site.counts.values()) >= 8 for site in sites)
    assert len({scanner.name for site in sites for scanner in site.scanners}) == 6
    lacking = {site.name: set(MODALITIES) - set(site.modalities) for site in sites}
    assert lacking == {"north": set(), "east": {"pet"}, "south": set(), "west": {"ct"}}


def test_age_and_sex_follow_the_diagnosis():
    spec = replace(ONE_OF_EACH, counts=dict.fromkeys(CLASSES, 300))
    group = {name: [p for p in people(spec, SEED) if p.diagnosis == name] for name in CLASSES}
    women = {name: np.mean([p.sex == "F" for p in g]) for name, g in group.items()}
    age = {name: np.mean([p.age for p in g]) for name, g in group.items()}
    assert women["meningioma"] > women["none"] > women["glioma"]
    assert age["meningioma"] > age["glioma"] > age["pituitary"]


def test_some_subjects_lack_one_modality_that_their_site_has():
    spec = replace(ONE_OF_EACH, counts={"none": 400}, missing_rate=0.05)
    lacks = Counter(len(MODALITIES) - len(p.modalities) for p in people(spec, SEED))
    assert set(lacks) == {0, 1}
    assert 40 < lacks[1] < 130


# damage


def test_three_files_are_broken_each_in_its_own_way(tmp_path):
    spec = replace(ONE_OF_EACH, counts=dict.fromkeys(CLASSES, 2), modalities=("flair",))
    sound = tmp_path / "sound"
    broken = tmp_path / "broken"
    write_site(spec, Folder(sound), seed=SEED)
    write_site(replace(spec, damaged=True), Folder(broken), seed=SEED)
    before, after = contents(sound), contents(broken)
    changed = {key.split("/")[0]: key for key in before if before[key] != after[key]}
    assert before.keys() == after.keys()
    assert set(changed) == set(damages(replace(spec, damaged=True), SEED))

    truncated, empty, flattened = (
        broken / changed[label] for label in damages(replace(spec, damaged=True), SEED)
    )
    with pytest.raises(EOFError):
        gzip.decompress(truncated.read_bytes())
    assert not nibabel.load(empty).get_fdata().any()
    assert np.linalg.det(nibabel.load(flattened).affine) == 0


def test_only_those_who_consented_are_damaged():
    spec = replace(demo_federation(SEED, scale=0.1)[3], damaged=True)
    consented = {p.label for p in people(spec, SEED) if PURPOSE in p.consent}
    assert set(damages(spec, SEED)) <= consented
    assert len(damages(spec, SEED)) == 3
    assert damages(replace(spec, damaged=False), SEED) == {}
