import re
from collections.abc import Callable
from typing import Any

from fedcore.registry.api import Registry
from fedcore.registry.card import model_card

Register = Callable[..., int]


def card(registry: Registry, version: int) -> str:
    return model_card(registry.show(version))


def section(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n")[1].split("\n## ", maxsplit=1)[0]


def test_the_card_has_the_sections_of_a_model_card(registry: Registry, register: Register) -> None:
    text = card(registry, register())
    assert text.startswith("# brain, version 1\n")
    assert re.findall(r"^## (.*)$", text, flags=re.MULTILINE) == [
        "Model details", "Intended use", "Training data", "Metrics", "Fairness", "Gate",
        "Privacy", "Limits", "How to verify",
    ]  # fmt: skip
    assert "not a medical device" in section(text, "Intended use")
    assert "none and glioma from t1 and pet images" in section(text, "Intended use")


def test_figures_come_with_intervals_by_site_and_group(
    registry: Registry, register: Register
) -> None:
    metrics = section(card(registry, register()), "Metrics")
    assert "| All sites | 40 | 0.93 [0.88, 0.98] | 0.80 [0.75, 0.85] |" in metrics
    assert "| Site: north | 40 | 0.94 [0.89, 0.99] |" in metrics
    assert "| Site: south | 40 | not measured |" in metrics
    assert "| Sex: F | 40 | 0.95 [0.90, 1.00] |" in metrics
    assert "| glioma | 20 | 0.93 [0.88, 0.98] |" in metrics
    assert "age_band 3" in metrics


def test_gaps_between_groups_are_shown(registry: Registry, register: Register) -> None:
    assert "| Sex | 0.05 | F | M | 0.00 |" in section(card(registry, register()), "Fairness")


def test_who_took_part_and_what_was_left_out(registry: Registry, register: Register) -> None:
    text = card(registry, register())
    assert "| north | 30 | t1 30, pet 12 | none |" in text
    assert "| south | 1 | t1 1 | empty 2 |" in text
    assert "Trained on 31 subjects of 2 sites" in section(text, "Limits")


def test_privacy_is_never_made_better_than_it_is(registry: Registry, register: Register) -> None:
    none = section(card(registry, register("a")), "Privacy")
    assert none.strip() == "No formal guarantee: no noise."
    empty = section(card(registry, register("bb", privacy={})), "Privacy")
    assert "No formal guarantee" in empty
    privacy = {"unit": "site", "epsilon": 2.5, "delta": 1e-5, "statement": "It means this."}
    some = section(card(registry, register("ccc", privacy=privacy)), "Privacy")
    assert "ε = 2.5 at δ = 1e-05, per site. It means this." in some
    assert "No formal guarantee" not in some


def test_a_failed_gate_says_why(registry: Registry, register: Register) -> None:
    verdict = {"passed": False, "reasons": ["macro AUC is 0.7"], "checks": []}
    gate = section(card(registry, register(verdict=verdict)), "Gate")
    assert "must not be promoted" in gate
    assert "- macro AUC is 0.7" in gate


def test_digests_can_be_checked(registry: Registry, register: Register) -> None:
    manifest = registry.show(register())
    verify = section(model_card(manifest), "How to verify")
    assert manifest.onnx_digest in verify
    assert manifest.params_digest in verify


def test_what_is_missing_shows_as_not_measured(registry: Registry, register: Register) -> None:
    bare: dict[str, Any] = {
        "metrics": {}, "verdict": {}, "privacy": {}, "participants": {}, "plan": {},
        "onnx_max_abs_diff": None,
    }  # fmt: skip
    text = card(registry, register(**bare))
    assert "| All sites | not measured |" in text
    assert "Differences between groups: not measured" in text
    assert "must not be promoted" in text


def test_a_name_out_of_a_sites_file_cannot_break_the_table(
    registry: Registry, register: Register, metrics: dict[str, Any]
) -> None:
    groups = metrics["all"]["groups"]
    groups["scanner"] = {"a|b\n# Passed": groups["sex"]["F"]}
    text = card(registry, register())
    assert "| Scanner: a\\|b # Passed | 40 |" in text
    assert "\n# Passed" not in text


def test_the_card_says_how_updates_were_aggregated(registry: Registry, register: Register) -> None:
    plain = card(registry, register())
    assert "- Aggregation: Updates were aggregated by the mean" in section(plain, "Model details")
    assert "| north | 30 | t1 30, pet 12 |" in section(plain, "Training data")
    participants = {"north": {"num_subjects": 30, "modalities": {}, "left_out": {}}}
    plan = {"secure_aggregation": {"mode": "masks"}}
    hidden = card(registry, register("run-2", plan=plan, participants=participants))
    assert "summed behind masks" in section(hidden, "Model details")
    assert "| north | 30 | not told (secure aggregation) |" in section(hidden, "Training data")


def test_figures_by_site_that_nobody_knows_are_not_called_unmeasured(
    registry: Registry, register: Register, metrics: dict[str, Any]
) -> None:
    plan = {"secure_aggregation": {"mode": "masks", "statistics": True}}
    told = {"all": {"overall": metrics["all"]["overall"]}, "sites": {"north": {}}}
    text = card(registry, register(plan=plan, metrics=told))
    assert "Figures by site and by group: not told (secure aggregation)." in text
    assert "Differences between groups: not told (secure aggregation)." in text
    assert "Site: north" not in section(text, "Metrics")
