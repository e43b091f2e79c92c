from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from fedcore.config.task import Task

MODALITIES = ("t1ce", "flair", "pet")


@pytest.fixture
def task() -> Task:
    return Task.model_validate(
        {
            "classes": ["none", "glioma", "pituitary"],
            "modalities": {
                "t1ce": {"kind": "mr", "path": "anat/*_T1w.nii.gz"},
                "flair": {"kind": "mr", "path": "anat/*_FLAIR.nii.gz"},
                "pet": {"kind": "pet", "path": "pet/*_pet.nii.gz", "window": [0, 12]},
            },
            "model": {"function": "fedcore.models.build:classifier"},
            "dataset": {"function": "fedcore.data.bids:dataset"},
        }
    )


@pytest.fixture
def make_inputs() -> Callable[..., dict[str, Tensor]]:
    def inputs(present: list[list[int]], *, seed: int = 0) -> dict[str, Tensor]:
        """Random images for every modality, those that ``present`` denies included."""
        generator = torch.Generator().manual_seed(seed)
        images = {
            name: torch.randn(len(present), 1, 16, 20, 16, generator=generator)
            for name in MODALITIES
        }
        return images | {"present": torch.tensor(present, dtype=torch.float32)}

    return inputs
