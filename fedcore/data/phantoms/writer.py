"""Phantoms → a site's bucket, as BIDS, on as many processes as wanted."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from typing import Any, Protocol

import nibabel
import numpy as np
from numpy.typing import NDArray

from fedcore import seeds
from fedcore.data.layout import mask_key
from fedcore.data.phantoms.cohort import PURPOSE, Person, SiteSpec, people
from fedcore.data.phantoms.damage import DAMAGES
from fedcore.data.phantoms.description import described
from fedcore.data.phantoms.fields import FloatArray
from fedcore.data.phantoms.lesions import STRUCTURES
from fedcore.data.phantoms.scanner import Scanner, stored
from fedcore.data.phantoms.subject import Phantom, scanned

_PATHS = {
    "t1ce": "anat/{0}_ce-gadolinium_T1w.nii.gz",
    "flair": "anat/{0}_FLAIR.nii.gz",
    "ct": "ct/{0}_ct.nii.gz",
    "pet": "pet/{0}_trc-FDG_pet.nii.gz",
}
_SUV_STEP = 0.005

Objects = dict[str, bytes]
Subjects = Callable[[Callable[[Person], Objects], list[Person]], Iterator[Objects]]


class Sink(Protocol):
    """The part of a Store that writing needs."""

    def put(self, key: str, data: bytes) -> None:
        """Write, replacing what was there."""


def write_federation(
    sites: list[tuple[SiteSpec, Sink]],
    *,
    seed: int,
    workers: int = 1,
    on_subject: Callable[[], None] = lambda: None,
) -> None:
    """Make every site's subjects and put them into its store; ``on_subject`` after each of them.

    The bytes depend on ``seed`` and the specs alone, not on ``workers`` (1 = this process, more =
    that many spawned ones). Puts happen in this process, so a store need not travel. Raises what
    the stores raise.
    """
    with _mapper(workers) as subjects:
        for spec, store in sites:
            persons = people(spec, seed)
            for key, data in described(spec, persons).items():
                store.put(key, data)
            for objects in subjects(partial(subject_objects, spec, seed=seed), persons):
                for key, data in objects.items():
                    store.put(key, data)
                on_subject()


def write_site(
    spec: SiteSpec,
    store: Sink,
    *,
    seed: int,
    workers: int = 1,
    on_subject: Callable[[], None] = lambda: None,
) -> None:
    """``write_federation`` of one site."""
    write_federation([(spec, store)], seed=seed, workers=workers, on_subject=on_subject)


def subject_objects(spec: SiteSpec, person: Person, *, seed: int) -> Objects:
    """Key → bytes of the images of one subject, and of the outlines of what is in the head."""
    phantom = scanned(spec, person, seed)
    objects = {
        f"{person.label}/{_PATHS[modality].format(person.label)}": _nifti(
            image, modality, phantom.affine, person.scanner
        )
        for modality, image in phantom.images.items()
    }
    first = next(iter(objects))
    drawn = _masks(first, phantom)
    damage = damages(spec, seed).get(person.label)
    if damage is not None:
        objects[first] = damage(objects[first])
    return objects | drawn


def damages(spec: SiteSpec, seed: int) -> dict[str, Callable[[bytes], bytes]]:
    """Label → what befalls the first image of that subject; none at a site that is not damaged."""
    return dict(zip(unlucky(spec, seed), DAMAGES, strict=False))


def unlucky(spec: SiteSpec, seed: int) -> tuple[str, ...]:
    """Labels in the order in which damage befalls them; none at a site that is not damaged."""
    if not spec.damaged:
        return ()
    # Who did not consent is never read, and the damage would go unseen.
    labels = [person.label for person in people(spec, seed) if PURPOSE in person.consent]
    chosen = seeds.generator(seed, "damage", spec.name).permutation(labels)
    return tuple(map(str, chosen))


def digitised(image: FloatArray, modality: str) -> tuple[NDArray[np.int16], float]:
    """An image as a scanner stores it: int16, and the step that gives HU, SUV or MR's unit."""
    step = _SUV_STEP if modality == "pet" else 1.0
    return np.clip(np.rint(image / step), -32768, 32767).astype(np.int16), step


def _nifti(
    image: FloatArray, modality: str, affine: NDArray[np.float64], scanner: Scanner
) -> bytes:
    """A .nii.gz of int16; PET has a slope that gives SUV. Equal input, equal bytes."""
    voxels, step = digitised(image, modality)
    return _compressed(*stored(voxels, affine, scanner), step=step)


def _compressed(
    voxels: NDArray[Any], affine: NDArray[np.float64], *, step: float | None = None
) -> bytes:
    """A .nii.gz of whole numbers; ``step``: what one of them stands for."""
    file = nibabel.Nifti1Image(voxels, affine)  # type: ignore[no-untyped-call]
    if step is not None:
        file.header.set_slope_inter(step, 0.0)  # type: ignore[no-untyped-call]
    file.header.set_xyzt_units("mm", "sec")  # type: ignore[no-untyped-call]
    return gzip.compress(file.to_bytes(), compresslevel=1, mtime=0)


def _masks(image: str, phantom: Phantom) -> Objects:
    """The outline of each structure, on the grid of the subject's first image."""
    drawn = {name: (phantom.label == value).astype(np.uint8) for name, value in STRUCTURES.items()}
    return {
        mask_key(image, name): _compressed(*stored(mask, phantom.affine, phantom.person.scanner))
        for name, mask in drawn.items()
    }


@contextmanager
def _mapper(workers: int) -> Iterator[Subjects]:
    """``map`` over subjects, in order, in this process or in spawned ones."""
    if workers == 1:
        yield map
        return
    # Spawned, not forked: the caller may hold threads and sockets that a fork would copy.
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    try:
        yield pool.map
    finally:
        pool.shutdown(cancel_futures=True)
