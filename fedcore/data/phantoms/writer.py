"""Phantoms → a site's bucket, as BIDS, on as many processes as wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from typing import Protocol

from fedcore import seeds
from fedcore.data.layout import mask_key
from fedcore.data.phantoms import files
from fedcore.data.phantoms.cohort import Person, SiteSpec, people
from fedcore.data.phantoms.damage import DAMAGES
from fedcore.data.phantoms.description import described
from fedcore.data.phantoms.subject import Phantom, scanned

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
    """Key → bytes of the images of one subject, and of the outlines of what is found there."""
    phantom = scanned(spec, person, seed)
    objects = {}
    for modality, image in phantom.images.items():
        path = spec.disease.paths[modality].format(person.label)
        objects[f"{person.label}/{path}"] = (
            files.nifti(image, phantom.affine, person.scanner, spec.disease.step.get(modality, 1.0))
            if path.endswith(".nii.gz")
            else files.photo(image)
        )
    first = next(iter(objects))
    drawn = _outlines(first, phantom, spec.disease.structures)
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
    purpose = spec.disease.purpose
    # Who did not consent is never read, and the damage would go unseen.
    labels = [person.label for person in people(spec, seed) if purpose in person.consent]
    chosen = seeds.generator(seed, "damage", spec.name).permutation(labels)
    return tuple(map(str, chosen))


def _outlines(image: str, phantom: Phantom, structures: Mapping[str, int]) -> Objects:
    """The outline of each structure, on the grid of the subject's first image."""
    return {
        mask_key(image, name): files.nifti(
            phantom.label == value, phantom.affine, phantom.person.scanner
        )
        for name, value in structures.items()
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
