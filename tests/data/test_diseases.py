"""The lung's and the retina's phantoms: units, signs where they belong, files that can be read."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedcore.config import plan as plans
from fedcore.data import bids, layout
from fedcore.data.phantoms import demo_federation, people, write_site
from fedcore.data.phantoms.cohort import SiteSpec
from fedcore.data.phantoms.diseases import DISEASES
from fedcore.data.phantoms.lung import LUNG
from fedcore.data.phantoms.retina import RETINA, fundus, oct
from fedcore.data.phantoms.retina.camera import Camera
from fedcore.data.phantoms.retina.signs import CLASSES, Eye, eye
from fedcore.data.phantoms.subject import Phantom, subject
from fedcore.data.site import SiteData
from fedcore.store.memory import MemoryStore

SEED = 7
PLANS = Path(__file__).parents[2] / "plans"
PLAIN = Camera("plain")


def one_of_each(name: str) -> SiteSpec:
    disease = DISEASES[name]
    site = disease.hospitals[0]
    return SiteSpec(
        "test", dict.fromkeys(disease.classes, 1), site.scanners[:1], disease.modalities,
        missing_rate=0, voxel_mm=8.0, disease=disease,
    )  # fmt: skip


@pytest.fixture(scope="module")
def chests() -> dict[str, Phantom]:
    found = (subject(one_of_each("lung"), number, SEED) for number in range(4))
    return {phantom.person.diagnosis: phantom for phantom in found}


@pytest.mark.parametrize("name", ["lung", "retina"])
def test_a_site_is_written_and_its_plan_reads_it(name: str) -> None:
    """Every subject but the two without consent and, of the damaged files, three."""
    disease = DISEASES[name]
    plan = plans.load(PLANS / f"{name}.yaml")
    spec = demo_federation(SEED, 0.01, disease=disease, voxel_mm=8.0)[3]
    store = MemoryStore()
    write_site(spec, store, seed=SEED)
    again = MemoryStore()
    write_site(spec, again, seed=SEED)
    assert {k: store.get(k) for k in store.list()} == {k: again.get(k) for k in again.list()}
    site = SiteData(plan.task, store, plan.purpose)
    loaded = bids.dataset(site, **plan.task.dataset.arguments)
    usable = [s for split in loaded.values() for s in split.subjects]
    files = [f for split in loaded.values() for _, f in split.left_out_files]
    assert sorted(files) == sorted(
        ["empty", "truncated", "bad voxel size" if name == "lung" else "not a colour photo"]
    )
    assert len(usable) >= spec.size - 2 - 3
    folders = layout.by_subject(store.list("sub-"), "")
    assert set(folders) == {person.label for person in people(spec, SEED)}


def test_a_chest_has_the_units_of_ct_and_pet(chests: dict[str, Phantom]) -> None:
    healthy = chests["none"]
    ct, pet = healthy.images["ct"], healthy.images["pet"]
    assert ct[0, 0, -1] == pytest.approx(-1000, abs=30)
    lung = ((ct > -950) & (ct < -700)).sum() * 8.0**3 / 1e6
    assert 1.5 < lung < 6.0, "litres"
    assert np.percentile(ct, 99.5) > 120, "bone"
    assert 0.0 <= pet.min() < 0.2
    assert 0.5 < np.percentile(pet[ct > 0], 50) < 2.5


def test_lung_tumours_lie_where_they_belong_and_most_are_avid(chests: dict[str, Phantom]) -> None:
    assert not chests["none"].label.any()
    for name in LUNG.classes[1:]:
        assert (chests[name].label == 1).any()
    many = replace(one_of_each("lung"), voxel_mm=10.0, counts=dict.fromkeys(LUNG.classes[1:], 5))
    off, hot = dict[str, list[float]](), dict[str, list[float]]()
    for number in range(many.size):
        phantom = subject(many, number, SEED)
        where = phantom.label == 1
        x, *_ = (phantom.affine @ [*np.argwhere(where).mean(axis=0), 1.0])[:3]
        off.setdefault(phantom.person.diagnosis, []).append(abs(x))
        hot.setdefault(phantom.person.diagnosis, []).append(phantom.images["pet"][where].max())
    distance = {name: np.mean(values) for name, values in off.items()}
    assert distance["small-cell"] < distance["squamous"] < distance["adenocarcinoma"]
    assert np.mean(hot["squamous"]) > np.mean(hot["adenocarcinoma"]) > 2.0


def test_signs_belong_to_their_disease_and_not_each_to_one_alone() -> None:
    rng = np.random.default_rng(0)
    eyes = {name: [eye(name, 66, rng) for _ in range(60)] for name in CLASSES}

    def share(name: str, sign: str) -> float:
        return float(np.mean([bool(getattr(one, sign)) for one in eyes[name]]))

    assert share("dr", "microaneurysms") == 1 > share("normal", "microaneurysms") == 0
    assert 0.3 < share("dr", "exudates") < 1 > share("amd", "exudates") == 0
    assert 0.2 < share("normal", "drusen") < share("amd", "drusen") == 1
    cup = {name: np.mean([one.cup for one in found]) for name, found in eyes.items()}
    assert cup["glaucoma"] > cup["normal"] + 0.25
    assert max(one.cup for one in eyes["normal"]) > min(one.cup for one in eyes["glaucoma"])
    assert 20 < sum(one.left for one in eyes["normal"]) < 40


def photo(one: Eye) -> np.ndarray:
    return fundus.photo(one, PLAIN, np.random.default_rng(1)).astype(float)


def at(pixels: np.ndarray, x: float, y: float) -> np.ndarray:
    """The mean colour around a place of a right eye (mm)."""
    scale = PLAIN.pixels * PLAIN.field / (2 * fundus.RADIUS_MM)
    column = PLAIN.pixels / 2 + (x - 1.6) * scale
    row = PLAIN.pixels / 2 - y * scale
    part = pixels[round(row) - 2 : round(row) + 3, round(column) - 2 : round(column) + 3]
    return part.mean(axis=(0, 1))  # type: ignore[no-any-return]


def test_a_fundus_is_red_its_disc_pale_its_macula_dark_and_a_left_eye_mirrored() -> None:
    right = photo(Eye(left=False, cup=0.3))
    away = at(right, -2.0, 0.5)
    assert away[0] > away[1] > away[2]
    assert at(right, 4.4, -0.35).sum() > away.sum() > at(right, 0.0, 0.1).sum()
    assert right[0, 0].max() < 20
    left = photo(Eye(left=True, cup=0.3))
    assert np.abs(left[:, ::-1] - right)[100:200, 100:200].mean() < 25


def test_what_is_in_the_eye_is_in_the_photo() -> None:
    plain, spot = photo(Eye(left=False, cup=0.3)), [(-1.5, 1.0, 0.2)]
    seen = {
        sign: at(photo(Eye(left=False, cup=0.3, **{sign: spot})), -1.5, 1.0).sum()
        for sign in ("bleedings", "exudates", "drusen")
    }
    assert seen["bleedings"] < at(plain, -1.5, 1.0).sum() - 60
    assert min(seen["exudates"], seen["drusen"]) > at(plain, -1.5, 1.0).sum() + 60


def scan(one: Eye) -> np.ndarray:
    return oct.volume(one, replace(PLAIN, speckle=0.05), np.random.default_rng(1))


def surface(volume: np.ndarray, x: slice, z: slice) -> float:
    """How far up the retina reaches (mm): from there on it is darker, as the vitreous is."""
    profile = volume[x, :, z].mean(axis=(0, 2))
    return float(np.flatnonzero(profile > 45).max() * oct.EDGES_MM[1])


def test_a_macula_has_a_pit_and_glaucoma_thins_the_retina() -> None:
    middle = slice(9, 11)
    healthy = scan(Eye(left=False, cup=0.3))
    left, pit, right = (surface(healthy, slice(x, x + 2), middle) for x in (16, 31, 46))
    assert pit < (left + right) / 2 - 0.08
    thin = scan(Eye(left=False, cup=0.8, rim=(0.3, 0.3)))
    beside, above = slice(14, 18), slice(14, 17)
    assert surface(thin, beside, above) < surface(healthy, beside, above) - 0.03


def test_fluid_is_dark_under_a_lifted_retina() -> None:
    wet = scan(Eye(left=False, cup=0.3, fluid=[(0.0, 0.0, 0.9)]))
    dry = scan(Eye(left=False, cup=0.3))
    middle = (slice(30, 34), slice(None), slice(9, 11))
    deep = dry[middle].mean(axis=(0, 2)).argmax()
    inside = slice(int(deep) + 3, int(deep) + 9)
    assert wet[middle][:, inside].mean() < 0.5 * dry[middle][:, inside].mean()


def test_devices_differ_and_no_hospital_has_everything() -> None:
    for disease in (LUNG, RETINA):
        sites = demo_federation(SEED, disease=disease)
        assert [site.name for site in sites] == ["north", "east", "south", "west"]
        assert len(disease.modalities) > min(len(site.modalities) for site in sites)
        assert len({device.name for site in sites for device in site.scanners}) == 6


def test_where_there_is_one_modality_every_subject_has_it() -> None:
    for disease in (LUNG, RETINA):
        (east,) = (site for site in demo_federation(SEED, disease=disease) if site.name == "east")
        assert {person.modalities for person in people(east, SEED)} == {east.modalities}
        assert len(east.modalities) == 1
