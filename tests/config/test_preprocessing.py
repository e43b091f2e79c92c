import pytest
from heads import task
from pydantic import ValidationError

from fedcore.config.task import Modality

RISING = [i / 10 for i in range(11)]


def test_a_standard_belongs_to_mr_and_rises() -> None:
    good = {"path": "x", "kind": "mr", "normalise": "nyul", "landmarks": RISING}
    assert Modality.model_validate(good).landmarks == RISING
    for change, message in (
        ({"landmarks": None}, "go together"),
        ({"normalise": "z-score"}, "go together"),
        ({"landmarks": RISING[::-1]}, "must rise"),
        ({"landmarks": RISING[:5]}, "at least 11"),
        ({"kind": "ct", "window": [0, 80]}, "normalise is for MR"),
    ):
        with pytest.raises(ValidationError, match=message):
            Modality.model_validate(good | change)


def test_what_does_not_fit_is_refused() -> None:
    for fields, message in (
        ({"reference": "t2"}, "none of the modalities"),
        ({"centre": "brain"}, "centre: brain needs brain_mask"),
        ({"shape": [1, 2]}, "at least 3"),
        ({"spacing_mm": 0}, "greater than 0"),
        ({"align": "warp"}, "rigid"),
        ({"dataset": {"shape": [8, 8, 8]}}, "shape is among the dataset's arguments too"),
    ):
        with pytest.raises(ValidationError, match=message):
            task("t1ce", **fields)
