"""The demo's federation: four simulated hospitals on the embedded stack, ready for a run."""

from __future__ import annotations

import configparser
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from ruamel.yaml import YAML

from fedcore.baselines import train_baselines
from fedcore.config import plan as plans
from fedcore.config.federation import Drill, Location
from fedcore.data.phantoms.cohort import SiteSpec, demo_federation, people
from fedcore.data.phantoms.diseases import DISEASES
from fedcore.data.phantoms.subject import Phantom, scanned
from fedcore.data.phantoms.writer import write_federation
from fedcore.data.pictures import squared
from fedcore.demo.plan import Choices, plan_of
from fedcore.errors import ConfigError
from fedcore.local import Stack, isolation_table
from fedcore.store import envelope
from fedcore.store.api import Store
from fedcore.store.connect import Keys, open_store
from fedcore.store.patient import PatientStore

DATA_NOTE = (
    "Every subject here is synthetic: simulated disease and scanners, in the MNI152 average brain, "
    "or in a chest or an eye made of formulas. The figures show that the platform works, not how "
    "well anyone is diagnosed."
)

_SHOWN_FINER = 1.5  # a picture's voxels than those of the training data

OnStage = Callable[[str, int], Callable[[], None]]
"""Called as a stage begins with its name and number of steps; returns what to call a step."""


def silent(_name: str, _steps: int) -> Callable[[], None]:
    """An OnStage that tells nobody."""
    return lambda: None


@dataclass(frozen=True)
class Ready:
    """A federation that is up: its files, its sites, and the stack it runs on."""

    workdir: Path
    plan: Path
    federation: Path
    specs: tuple[SiteSpec, ...]
    stack: Stack


@contextmanager
def prepare(
    workdir: Path,
    *,
    choices: Choices,
    scale: float,
    on_stage: OnStage,
    drop: str | None = None,
    from_dicom: bool = False,
) -> Iterator[Ready]:
    """Start the stack, write the federation's files, and make the data that is not there yet.

    Everything lies below ``workdir``; the services are stopped when the block ends. ``drop`` is a
    drill as ``site@step``. ``from_dicom``: the data begin as DICOM series and are imported as a
    hospital imports its own. Raises ConfigError for a plan that cannot be, or a site or step that
    is not there.
    """
    workdir = workdir.resolve()
    workdir.mkdir(parents=True, exist_ok=True)
    what = plan_of(choices)
    disease = DISEASES[choices.disease]
    if from_dicom and choices.disease != "brain":
        raise ConfigError("--from-dicom: only the brain's scanners are simulated down to DICOM")
    specs = tuple(demo_federation(what.seed, scale, disease=disease))
    drills = _drills(drop, [spec.name for spec in specs])
    started = on_stage("starting S3 and Prefect", 1)
    with Stack(workdir / "stack", [spec.name for spec in specs]) as stack:
        started()
        plan_file = workdir / "plan.yaml"
        _write_yaml(plan_file, what.model_dump(mode="json", exclude_defaults=True))
        federation = _write_federation(workdir, stack, specs, what, drills)
        _make_data(stack, specs, what.seed, on_stage, from_dicom=from_dicom)
        yield Ready(workdir, plan_file, federation, specs, stack)


def _drills(drop: str | None, sites: Sequence[str]) -> dict[str, str]:
    """Site → the step that it will not say."""
    if drop is None:
        return {}
    site, _, step = drop.partition("@")
    if site not in sites or step not in get_args(Drill):
        raise ConfigError(
            f"--drop {drop}: SITE@STEP is wanted, with a site of {', '.join(sites)} and a step of "
            f"{', '.join(get_args(Drill))}"
        )
    return {site: step}


def _make_data(
    stack: Stack,
    specs: tuple[SiteSpec, ...],
    seed: int,
    on_stage: OnStage,
    *,
    from_dicom: bool,
) -> None:
    """Write each site's BIDS data set; a marker, written last, tells what is there already."""
    way = "from DICOM " if from_dicom else ""
    marker, wanted = "derivatives/fedcore/phantoms", f"{way}{seed} {specs!r}".encode()
    stores = {spec.name: site_store(stack, spec.name) for spec in specs}
    missing = [
        spec
        for spec in specs
        if not stores[spec.name].exists(marker) or stores[spec.name].get(marker) != wanted
    ]
    if not missing:
        return
    for spec in missing:
        for key in list(stores[spec.name].list()):
            stores[spec.name].delete(key)
    workers, total = os.cpu_count() or 1, sum(spec.size for spec in missing)
    if from_dicom:
        from fedcore.demo.hospitals import import_site

        step = on_stage("scanning phantoms and importing their DICOM", total)
        for spec in missing:
            import_site(spec, stores[spec.name], seed=seed, workers=workers, on_subject=step)
    else:
        write_federation(
            [(spec, stores[spec.name]) for spec in missing],
            seed=seed,
            workers=workers,
            on_subject=on_stage("scanning phantoms", total),
        )
    for spec in missing:
        stores[spec.name].put(marker, wanted)


def site_store(stack: Stack, site: str) -> Store:
    """A site's own bucket, with the site's own credential."""
    credential = stack.credential(site)
    place = Location(bucket=stack.site_bucket(site), endpoint=stack.s3_endpoint)
    keys = Keys(credential.access_key, credential.secret_key)
    return PatientStore(open_store(place, keys=keys), trusted=True)


def _write_federation(
    workdir: Path,
    stack: Stack,
    specs: tuple[SiteSpec, ...],
    plan: plans.Plan,
    drills: Mapping[str, str],
) -> Path:
    key_file = workdir / "server.pem"
    key = _key(key_file)
    names = [spec.name for spec in specs]
    identities = {
        name: [envelope.public_text(_key(workdir / "identities" / f"{name}.pem"))] for name in names
    }
    for name in names:
        policy = {
            "site": name,
            "server_public_key": envelope.public_text(key),
            "peers": identities,
            "approver": "the demo",
            "allow": {
                "purposes": [plan.purpose],
                "modalities": list(plan.task.modalities),
                "code": ["fedcore.*", "torch.nn.functional:*"],
            },
        }
        _write_yaml(workdir / "policies" / f"{name}.yaml", policy)
    _write_credentials(workdir / "credentials", stack, ["server", *names])
    path = workdir / "federation.yaml"
    _write_yaml(
        path,
        {
            "exchange": {"bucket": stack.exchange_bucket, "endpoint": stack.s3_endpoint},
            "profile": "server",
            "credentials_file": "credentials",
            "signing_key": key_file.name,
            "data_note": DATA_NOTE,
            "sites": {
                name: {
                    "data": {"bucket": stack.site_bucket(name), "endpoint": stack.s3_endpoint},
                    "policy": f"policies/{name}.yaml",
                    "profile": name,
                    "identities": identities[name],
                    "identity": f"identities/{name}.pem",
                    **({"drill": drills[name]} if name in drills else {}),
                }
                for name in names
            },
        },
    )
    return path


def _key(path: Path) -> Ed25519PrivateKey:
    return envelope.load_key(path) if path.exists() else envelope.create_key(path)


def _write_credentials(path: Path, stack: Stack, names: list[str]) -> None:
    """The form of ``~/.aws/credentials``, readable by the owner alone."""
    parser = configparser.ConfigParser()
    for name in names:
        credential = stack.credential(name)
        parser[name] = {
            "aws_access_key_id": credential.access_key,
            "aws_secret_access_key": credential.secret_key,
        }
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        parser.write(file)


def _write_yaml(path: Path, fields: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(dict(fields), file)


def isolation(ready: Ready) -> list[dict[str, Any]]:
    """Every credential tried on everything that is not its own: who got what, and who should."""
    return isolation_table(ready.stack)


def baselines(ready: Ready, *, on_stage: OnStage) -> dict[str, Any]:
    """Macro AUC of each site's own model and of the centralised one."""
    plan = plans.load(ready.plan)
    sites = {}
    for spec in ready.specs:
        place = Location(
            bucket=ready.stack.site_bucket(spec.name), endpoint=ready.stack.s3_endpoint
        )
        credential = ready.stack.credential(spec.name)
        sites[spec.name] = (place, Keys(credential.access_key, credential.secret_key))
    trained = on_stage("training the models to compare with", len(sites) + 1)
    found = train_baselines(plan, sites, workers=os.cpu_count() or 1, on_model=trained)
    return {
        "single_site_macro_auc": dict(found.single_site),
        "centralised_macro_auc": found.centralised,
    }


def pictures(ready: Ready) -> list[dict[str, Any]]:
    """One synthetic subject of each class, finer than the training data, with what is outlined."""
    seed = plans.load(ready.plan).seed
    first = ready.specs[0]
    spec = replace(first, voxel_mm=first.voxel_mm / _SHOWN_FINER)
    shown: dict[str, dict[str, Any]] = {}
    for person in people(spec, seed):
        if person.diagnosis not in shown and person.modalities == spec.modalities:
            phantom = scanned(spec, person, seed)
            shown[person.diagnosis] = {
                "title": person.diagnosis,
                "images": {n: _shown(phantom, n) for n in phantom.images},
                "mask": phantom.label > 0,
                "note": f"{person.sex}, {person.age} years, {person.scanner.name}",
            }
    return [shown[name] for name in spec.counts if name in shown]


def _shown(phantom: Phantom, modality: str) -> Any:
    """The image; of an OCT volume, whose voxels are no cubes, the B-scan through the fovea."""
    image = phantom.images[modality]
    if modality != "oct":
        return image
    across, deep, _, _ = phantom.affine.diagonal()
    return squared(image[:, :, image.shape[2] // 2], across, deep)
