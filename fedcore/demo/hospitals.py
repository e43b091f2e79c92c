"""The demo's sites begun from DICOM: what their scanners made, imported as a hospital does."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

from fedcore import seeds
from fedcore.data.phantoms.cohort import Person, SiteSpec, people
from fedcore.data.phantoms.dicom import patient_list, person_files
from fedcore.imports import rules, table
from fedcore.imports.job import run
from fedcore.imports.run import Importer
from fedcore.imports.secret import Secret
from fedcore.imports.sources import Folder
from fedcore.store.api import Store


def import_site(
    spec: SiteSpec,
    store: Store,
    *,
    seed: int,
    workers: int = 1,
    on_subject: Callable[[], None] = lambda: None,
) -> None:
    """Make the DICOM series of every subject of a site, and import them into its store.

    The scanners' files are in a scratch folder and go when the import has ended.
    """
    key, wanted = secret_of(spec, seed), rules.load(None)
    persons = people(spec, seed)
    with TemporaryDirectory(prefix="fedcore-dicom-") as name:
        folder = Path(name)
        listed = folder / "patients.csv"
        listed.write_text(patient_list(spec, persons), "utf-8")
        scans = folder / "scans"
        scans.mkdir()
        write = partial(_write, scans, spec, seed)
        if workers == 1:
            for person in persons:
                write(person)
        else:
            with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
                list(pool.map(write, persons))
        known = table.people(listed, key, wanted.columns)

        def on_stage(name: str, _steps: int) -> Callable[[], None]:
            return on_subject if name == "importing studies" else lambda: None

        importer = Importer(store, key, wanted, people=known, workers=workers)
        run(Folder(scans), importer, on_stage)


def secret_of(spec: SiteSpec, seed: int) -> Secret:
    """The site's secret. By the seed, for there is nobody to hide: pseudonyms say who trains and
    who tests, and a demo that is run again gives the same params."""
    return Secret(seeds.generator(seed, "phantoms' secret", spec.name).bytes(32))


def _write(folder: Path, spec: SiteSpec, seed: int, person: Person) -> None:
    for name, data in person_files(spec, person, seed).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
