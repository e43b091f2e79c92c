import numpy as np
import pytest
from heads import head

from fedcore.data import brain
from fedcore.data.phantoms.brain.anatomy import template
from fedcore.data.preprocess import covering_grid, resample


@pytest.mark.parametrize(("modality", "kind"), [("t1ce", "mr"), ("flair", "mr"), ("ct", "ct")])
def test_the_brain_is_found_in_a_head(modality, kind):
    volume = head(0, modality)
    grid = covering_grid(volume.voxels.shape, volume.affine, brain.WORKING_MM)
    found = brain.brain(resample(*volume, grid), kind, brain.WORKING_MM)
    assert brain.doubts(found, brain.WORKING_MM) == []
    pet = head(0, "pet")  # grey matter takes the tracer up
    taken_up = resample(*pet, grid) > 0.55 * pet.voxels.max()
    assert (found & taken_up).sum() > 0.93 * taken_up.sum()
    body = brain.head(resample(*volume, grid), kind)
    assert found.sum() < 0.8 * body.sum()
    assert not (found & ~body).any()


def test_what_has_no_brain_is_doubted():
    ball = np.zeros((40, 40, 40), np.float32)
    ball[15:25, 15:25, 15:25] = 100
    found = brain.brain(ball, "mr", 2.0)
    assert brain.doubts(found, 2.0)
    assert not brain.brain(np.full_like(ball, -1000), "ct", 2.0).any()
    assert brain.doubts(template(3.0).grey + template(3.0).white > 0.5, 3.0) == []
