"""The study of methods: its plans are valid, its federations differ as their names say."""

from __future__ import annotations

from pathlib import Path

import pytest

from studies import methods, rows
from studies.settings import SETTINGS, SIZE, federation


@pytest.mark.parametrize("method", methods.METHODS)
def test_every_method_is_a_legal_plan_that_differs(method: str) -> None:
    plan = methods.plan_of(method, seed=1)
    assert plan.rounds > 1
    others = [methods.plan_of(name, seed=1) for name in methods.METHODS if name != method]
    assert plan.digest not in {other.digest for other in others}


def test_settings_differ_in_what_they_are_named_after() -> None:
    sites = {name: federation(name, seed=3) for name in SETTINGS}

    def modalities(name: str) -> set[tuple[str, ...]]:
        return {site.modalities for site in sites[name]}

    def rooms(name: str) -> set[str]:
        return {room.name for site in sites[name] for room in site.scanners}

    def unevenness(name: str) -> int:
        return max(max(site.counts.values()) - min(site.counts.values()) for site in sites[name])

    assert all(site.size == SIZE for of in sites.values() for site in of)
    assert len(modalities("missing modality")) > 1 == len(modalities("scanner shift"))
    assert len(rooms("scanner shift")) == 4 > len(rooms("missing modality")) == 1
    assert unevenness("label skew") > 4 * unevenness("missing modality")
    assert min(len(modalities("all")), len(rooms("all"))) > 1
    assert unevenness("all") == unevenness("label skew")


def test_the_best_method_is_judged_against_centralised_and_every_single_site() -> None:
    aucs = {name: [0.8, 0.82] for name in methods.METHODS}
    found = {
        "east alone": [0.7, 0.72],
        methods.CENTRALISED: [0.9, 0.9],
        **aucs,
        "FedProx": [0.9, 0.9],
    }
    judged = {row.metric: row for row in methods.judged("all", found) if row.method == "FedProx"}
    assert judged["share of centralised macro_auc"].met
    assert judged["macro_auc above the best single site"].mean == pytest.approx(0.19)
    worse = methods.judged("all", {**found, "FedProx": [0.5, 0.5]})
    assert [row.met for row in worse if row.goal is not None] == [False, True]


def test_rows_replace_those_of_the_same_study_alone(tmp_path: Path) -> None:
    path = tmp_path / "studies.json"
    one = rows.row("one", "s", "m", "auc", [0.5, 0.7], goal=0.55)
    rows.write("one", [one], path)
    rows.write("two", [rows.row("two", "s", "m", "auc", [0.5])], path)
    again = rows.row("one", "s", "m", "auc", [0.4])
    rows.write("one", [again], path)
    assert one.met
    assert [row.study for row in rows.read(path)] == ["one", "two"]
    assert rows.read(path)[0] == again
