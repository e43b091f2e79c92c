"""Synthetic subjects, and missing modalities filled in, from a released generative model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch

from fedcore import seeds
from fedcore.config.plan import Plan
from fedcore.data import bids, subjects, synthetic
from fedcore.data.site import Files, SiteData
from fedcore.errors import ConfigError
from fedcore.models.drawing import Generative
from fedcore.models.generate import ConditionalVae
from fedcore.models.initial import build_model
from fedcore.registry.api import Release
from fedcore.training.state import load_params


class Sink(Protocol):
    """The part of a Store that writing needs."""

    def put(self, key: str, data: bytes) -> None:
        """Write, replacing what was there."""


class Generator:
    """A release's model, to draw with. Raises ConfigError if it is none that generates."""

    def __init__(self, release: Release) -> None:
        manifest = release.manifest
        self.plan = Plan.model_validate(manifest.plan)
        module = build_model(self.plan)
        if not isinstance(module, Generative):
            raise ConfigError(
                f"{manifest.name} version {manifest.version} is a {type(module).__name__}, which "
                "generates nothing; a plan for that has the model "
                "fedcore.models.generate:conditional_vae or "
                "fedcore.models.adversarial:conditional_gan (docs/synthetic.md)"
            )
        load_params(module, release.params)
        self._module = module.eval()
        self._origin = synthetic.Origin(
            {
                "Version": manifest.fedcore_version,
                "Description": f"drawn from {manifest.name} version {manifest.version}",
                "ParamsDigest": manifest.params_digest,
                "PlanDigest": manifest.plan_digest,
            },
            str(manifest.privacy.get("statement") or ""),
        )

    def draw(self, sink: Sink, count: int, classes: Sequence[str], *, seed: int) -> None:
        """Write a BIDS data set of ``count`` subjects, of each of these classes in turn.

        No classes: all of them. The same seed and release give the same bytes. Raises ConfigError
        for a class that the plan does not have, or no subject.
        """
        known = self.plan.task.classes
        asked = list(classes) or known
        for name in asked:
            if name not in known:
                raise ConfigError(f"class {name!r} is none of the plan's ({', '.join(known)})")
        if count < 1:
            raise ConfigError(f"{count} subjects; at least one is wanted")
        diagnoses = [asked[number % len(asked)] for number in range(count)]
        for number, diagnosis in enumerate(diagnoses):
            # Each from a seed of its own, so that fewer are the first of more.
            generator = torch.Generator().manual_seed(seeds.derive(seed, "synthesize", number))
            with torch.no_grad():
                drawn = self._module.sample(torch.tensor([known.index(diagnosis)]), generator)
            images = {name: image[0, 0].numpy() for name, image in drawn.items()}
            subject = synthetic.subject_of(number)
            for key, data in synthetic.image_files(self.plan, subject, images, self._origin):
                sink.put(key, data)
        for key, data in synthetic.dataset_files(self.plan, diagnoses, self._origin).items():
            sink.put(key, data)

    def fill(self, files: Files, sink: Sink) -> dict[str, int]:
        """Of a site's subjects, write what their other images let expect of those they lack.

        Below ``synthetic.FOLDER``, which no plan reads: it never counts as an image of theirs.
        Returns modality → how many were filled in. Raises as ``subjects.each``, and ConfigError if
        the model has no way back from images.
        """
        module, task = self._module, self.plan.task
        if not isinstance(module, ConditionalVae):
            raise ConfigError(
                f"{self.plan.name}: a {type(module).__name__} draws subjects and does not fill in: "
                "nothing in it tells what a subject's other images let expect; the model "
                "fedcore.models.generate:conditional_vae does"
            )
        names = module.modalities
        filled = dict.fromkeys(names, 0)
        site = SiteData(task, files, self.plan.purpose)
        known = ("shape", "spacing_mm", "label", "prefix", "consent_column")
        arguments = {n: v for n, v in task.dataset.arguments.items() if n in known}
        for loaded in subjects.each(site, **arguments):
            example = loaded.example
            absent = [name for name in names if example and name not in example.images]
            if example is None or not absent or loaded.prepared is None:
                continue
            batch, _ = bids.BidsDataset(names, (), (example,)).collate([(dict(example.images), 0)])
            with torch.no_grad():
                expected = module.expected(batch)
            images = {name: expected[name][0, 0].numpy() for name in absent}
            grid = loaded.prepared.grid
            affine = None if grid is None else grid.affine
            for key, data in synthetic.image_files(
                self.plan, loaded.name, images, self._origin, affine
            ):
                sink.put(synthetic.FOLDER + key, data)
            for name in absent:
                filled[name] += 1
        return filled
