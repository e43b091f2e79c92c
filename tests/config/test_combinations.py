"""The table of combinations says what the validator says, and all of it."""

from itertools import combinations, product

import pytest

from fedcore.config import plan as plans
from fedcore.config.combinations import (
    BEGIN,
    END,
    MODES,
    OPTIONS,
    Option,
    faults,
    put_into,
    quarrel,
    table,
)


def test_the_plan_at_rest_and_every_mode_are_accepted():
    for mode in MODES:
        assert faults(mode) == []


def test_a_plan_is_refused_just_where_two_of_its_options_are():
    """Any three options in every mode, so that pairs tell all."""
    axes = [axis[1:] for axis in OPTIONS.values()]
    options = [option for axis in axes for option in axis]
    quarrels = {
        (one.name, other.name): bool(quarrel(one, other)) for one, other in combinations(options, 2)
    }
    seen = {True: 0, False: 0}
    for mode in MODES:
        alone = {option.name: bool(faults(mode, option)) for option in options}
        for chosen in (three for axis3 in combinations(axes, 3) for three in product(*axis3)):
            by_mode = any(alone[option.name] for option in chosen)
            by_pairs = any(quarrels[one.name, other.name] for one, other in combinations(chosen, 2))
            refused = bool(faults(mode, *chosen))
            assert refused == (by_mode or by_pairs), [mode.name, *(o.name for o in chosen)]
            seen[refused] += 1
    assert min(seen.values()) > 100, "both outcomes occur"


def test_faults_are_what_reading_the_plan_says():
    both = (MODES[1], Option("median", {"aggregation": {"rule": "median"}}))
    (fault,) = faults(*both)
    with pytest.raises(ValueError, match=r"no rule can leave one out") as caught:
        plans.Plan.model_validate(
            {
                "name": "p", "purpose": "p", "seed": 0, "rounds": 1,
                "task": {"classes": ["a", "b"], "model": {"function": "a.b:c"},
                         "dataset": {"function": "a.b:c"}},
                "aggregation": {"weights": "uniform", "rule": "median"},
                "cohort": {"min_clients": 5},
                "privacy": {"clip_norm": 1.0},
                "secure_aggregation": {"mode": "masks"},
            }
        )  # fmt: skip
    assert fault in str(caught.value)


def test_every_reason_in_the_table_is_numbered_and_used():
    lines = table().splitlines()
    given = {line.split(". ")[0] for line in lines if line[:1].isdigit()}
    cells = [cell for line in lines if line.startswith("|") for cell in line.split("|")]
    used = {n.strip() for cell in cells if "✗" in cell for n in cell.replace("✗", "").split(",")}
    assert given == used
    assert len(given) > 5


@pytest.mark.parametrize("name", [option.name for axis in OPTIONS.values() for option in axis[1:]])
def test_every_option_has_its_place(name):
    assert name in table()


def test_the_table_goes_between_its_markers_and_again():
    page = f"before\n{BEGIN}\nstale\n{END}\nafter\n"
    once = put_into(page)
    assert table() in once
    assert once.startswith("before\n")
    assert once.endswith("\nafter\n")
    assert "stale" not in once
    assert put_into(once) == once
    with pytest.raises(ValueError, match="no place for the table"):
        put_into("a page without markers")
