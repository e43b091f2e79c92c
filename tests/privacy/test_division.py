"""However an update is divided, its sum comes together again."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest

from fedcore.errors import ConfigError
from fedcore.privacy import fixed_point
from fedcore.privacy.division import Parts, division

LIKE = {
    "body.weight": np.zeros((6, 5), np.float32),
    "encoder.pet.weight": np.zeros((4, 4), np.float32),
    "head.bias": np.zeros(3, np.float32),
}
WAYS: list[dict[str, Any]] = [
    {"mode": "masks"},
    {"mode": "ckks"},
    {"mode": "ckks", "encrypt": ["head.*"]},
    {"mode": "ckks", "encrypt": ["body.*", "head.*"], "rest": "plain"},
    {"mode": "ckks", "share": 0.25, "change": {n: np.ones_like(v) for n, v in LIKE.items()}},
]


def updates() -> list[tuple[dict[str, np.ndarray], dict[str, float]]]:
    """Of two sites, of which one lacks PET."""
    rng = np.random.default_rng(5)
    whole = {name: rng.uniform(-1, 1, v.shape).astype(np.float32) for name, v in LIKE.items()}
    lacking = {n: v for n, v in whole.items() if not n.startswith("encoder")}
    return [
        (whole, {"body": 0.5, "encoder.pet": 0.25, "head": 0.5}),
        (lacking, {"body": 1.0, "head": 1.0}),
    ]


def total(parts: list[Parts]) -> Parts:
    def add(name: str) -> Any:
        found = [getattr(part, name) for part in parts]
        return None if found[0] is None else np.add.reduce(found, dtype=found[0].dtype)

    return Parts(add("masked"), add("encrypted"), add("plain"))


@pytest.mark.parametrize("way", WAYS, ids=lambda way: "-".join(map(str, way.values()))[:30])
def test_the_sum_of_the_parts_is_the_weighted_sum(way: dict[str, Any]) -> None:
    rule = division(LIKE, bound=2.0, sites=2, bits=20, **way)
    parts = [rule.divide(update, weights, LIKE, bytes(32)) for update, weights in updates()]
    sums, weights = rule.combine(total(parts), LIKE)
    assert weights == pytest.approx({"body": 1.5, "encoder.pet": 0.25, "head": 1.5}, abs=1e-4)
    for name in LIKE:
        wanted = sum(
            w[name.rsplit(".", 1)[0]] * u[name].astype(np.float64)
            for u, w in updates() if name in u
        )  # fmt: skip
        np.testing.assert_allclose(sums[name], wanted, atol=2e-5)


@pytest.mark.parametrize("way", WAYS[:4], ids=lambda way: "-".join(map(str, way.values()))[:30])
def test_what_nobody_trained_is_not_in_the_sum(way: dict[str, Any]) -> None:
    rule = division(LIKE, bound=2.0, sites=2, bits=20, **way)
    lacking = updates()[1]
    sums, weights = rule.combine(total([rule.divide(*lacking, LIKE, bytes(32))] * 2), LIKE)
    assert set(weights) == {"body", "head"}
    assert set(sums) == {"body.weight", "head.bias"}


def test_without_tenseal_a_plan_that_encrypts_is_told_what_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.startswith("fedcore.privacy.ckks")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr("fedcore.privacy.ckks")
    monkeypatch.setitem(sys.modules, "tenseal", None)
    with pytest.raises(ConfigError, match=r"needs tenseal.*install fedcore\[ckks\]"):
        division(LIKE, mode="ckks", bound=2.0, sites=2, bits=20)


def test_weights_are_never_plain() -> None:
    rule = division(
        LIKE, mode="ckks", encrypt=["head.*"], rest="plain", bound=2.0, sites=2, bits=20
    )
    parts = rule.divide(*updates()[0], LIKE, bytes(32))
    assert parts.plain is not None
    assert parts.encrypted is not None
    assert parts.encrypted.size == 3 + 3
    assert parts.plain.size == fixed_point.length(LIKE) - rule.encrypted == 46
