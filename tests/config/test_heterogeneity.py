"""What the methods for unlike sites cannot go with, and the plans of docs/heterogeneity.md."""

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from fedcore.config import plan as plans
from fedcore.models.initial import build_model
from fedcore.server.step import initial_state
from fedcore.training.state import get_params

ROOT = Path(__file__).parents[2]
PAGE, FAIRNESS = (
    (ROOT / "docs" / name).read_text(encoding="utf-8")
    for name in ("heterogeneity.md", "fairness.md")
)
EXAMPLES, FAIR = (re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) for page in (PAGE, FAIRNESS))
SCAFFOLD = {"optimizer": "sgd", "scaffold": True}
UP = [{"stage": "top_k", "share": 0.1}]
SUBJECT = {"clip_norm": 1.0, "noise_multiplier": 1.0, "sampling_rate": 0.5, "steps": 1}


def shipped(**sections: dict[str, Any]) -> plans.Plan:
    fields = plans.load(ROOT / "plans" / "brain_tumour.yaml").model_dump(mode="json")
    for name, changed in sections.items():
        fields[name] = {**fields[name], **changed}
    return plans.Plan.model_validate(fields)


def test_the_page_s_plans_are_accepted_and_its_patterns_name_the_normalisation() -> None:
    read = [YAML(typ="safe", pure=True).load(text) for text in EXAMPLES]
    found = [shipped(**fields) for fields in read]
    assert len(found) == 6
    params = get_params(build_model(found[0]))
    shared = initial_state(found[0], params).params
    assert all(re.search(r"\.1\.(weight|bias)$|normalise", n) for n in set(params) - set(shared))
    assert not [n for n in shared if params[n].ndim == 1 and n.startswith("encoder") and ".1." in n]


@pytest.mark.parametrize("example", FAIR)
def test_the_plans_of_fairness_are_accepted_and_their_models_built(example: str) -> None:
    found = shipped(**YAML(typ="safe", pure=True).load(example))
    assert initial_state(found, get_params(build_model(found))).params
    assert len(FAIR) == 3


def test_the_built_in_model_s_fused_vector_is_what_is_aligned() -> None:
    params = get_params(build_model(shipped(training={"alignment": {}})))
    assert params["moments"].shape == (33, 33)


@pytest.mark.parametrize("path", re.findall(r"`(tests/[\w/]+\.py)`", PAGE + FAIRNESS))
def test_the_tests_that_the_page_names_are_there(path: str) -> None:
    assert (ROOT / path).is_file()


@pytest.mark.parametrize(
    ("sections", "reason"),
    [
        ({"training": {"local_epochs": 1}}, "no effect without training.local"),
        ({"aggregation": {"effective_steps": 3}}, "no effect without normalise"),
        ({"aggregation": {"normalise": "steps"}}, "needs training.optimizer: sgd"),
        ({"training": {**SCAFFOLD, "optimizer": "adam"}}, "needs optimizer: sgd"),
        (
            {
                "training": {"optimizer": "sgd"},
                "aggregation": {"normalise": "steps", "weights": "uniform"},
                "privacy": {"clip_norm": 1.0, "noise_multiplier": 1.0},
            },
            "which no noise protects; set effective_steps",
        ),
        (
            {
                "training": SCAFFOLD,
                "aggregation": {"weights": "uniform"},
                "privacy": {"clip_norm": 1.0, "noise_multiplier": 1.0},
            },
            "control variate that the noise would not protect",
        ),
        ({"training": SCAFFOLD, "aggregation": {"weights": "examples"}}, "counts every site"),
        (
            {"training": {"fairness": {"attribute": "shoe", "method": "reweigh"}}},
            "fairness needs 'shoe' among task.groups",
        ),
        (
            {"training": {"alignment": {}}, "compression": {"up": UP, "feedback": True}},
            "feedback would count twice",
        ),
        (
            {"training": {"optimizer": "sgd", "alignment": {}}, "aggregation": {"fairness_q": 1.0}},
            "fairness_q would weigh it by the loss",
        ),
        (
            {"training": {"optimizer": "adam"}, "aggregation": {"fairness_q": 1.0}},
            "fairness_q needs training.optimizer: sgd",
        ),
        (
            {"training": {"augment": {}}, "task": {"modalities": {}, "groups": []}},
            "task.modalities names none",
        ),
        (
            {"training": {"imbalance": "class_weights"}, "privacy": {"subject": SUBJECT}},
            "with training.imbalance it does something to the others' too",
        ),
    ],
)
def test_what_is_refused_says_why(sections: dict[str, dict[str, Any]], reason: str) -> None:
    with pytest.raises(ValueError, match=re.escape(reason)):
        shipped(**sections)
