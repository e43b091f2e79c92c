"""`fedcore ledger` and `fedcore keys`, as a hospital's IT types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import toy
from typer.testing import CliRunner

from fedcore.cli import app
from fedcore.errors import BlobError
from fedcore.privacy.accounting import GaussianEvent, epsilon
from fedcore.store.egress import witnessed
from fedcore.store.envelope import load_key, public_text
from fedcore.store.filesystem import FilesystemStore
from fedcore.store.identity import roll
from fedcore.store.memory import MemoryStore

PUBLIC = public_text(toy.IDENTITIES["north"])


class Site:
    """North's bucket as a folder, after a run."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder, self.exchange = folder, MemoryStore()
        data: dict[str, Any] = toy.site_stores()
        data["north"] = FilesystemStore(folder)
        data["north"].put("table.csv", toy.table("north"))
        toy.play(toy.open_toy(self.exchange, toy.plan()), toy.InlineLauncher(self.exchange, data))

    def egress(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        command = ["ledger", "egress", "--data", str(self.folder), "--json", *arguments]
        result = CliRunner().invoke(app, command)
        told = json.loads(result.stdout.strip().splitlines()[-1])
        if isinstance(result.exception, BlobError):
            return BlobError.exit_code, told
        return result.exit_code, told

    def entry(self, number: int) -> Path:
        return self.folder / f"derivatives/fedcore/egress/{number:010d}.json"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "copy")


def test_what_left(site: Site) -> None:
    code, told = site.egress()
    assert code == 0
    assert [row["kind"] for row in told["entries"]] == ["ClientUpdate", "Evaluation"] * 2
    assert set(told["bytes"]) == {"ClientUpdate", "Evaluation"}
    assert told["bytes"]["ClientUpdate"] == sum(
        len(site.exchange.get(row["to"])) for row in told["entries"][::2]
    )
    assert told["signed_by"] == [PUBLIC]
    assert told["epsilon_by_run"] == {"run-1": None}
    assert site.egress("--run", "run-2")[1]["entries"] == []


def test_tampered_is_a_failure_that_names_the_entry(site: Site) -> None:
    text = site.entry(3).read_text()
    site.entry(3).write_text(text.replace('\\"bytes\\": ', '\\"bytes\\": 1'))
    code, told = site.egress()
    assert code == 65
    assert told["fault"].startswith("entry 3:")
    assert len(told["entries"]) == 2, "what is sound is told"


def test_whose_signature(site: Site) -> None:
    assert site.egress("--identity", PUBLIC)[0] == 0
    code, told = site.egress("--identity", public_text(toy.IDENTITIES["east"]))
    assert code == 65
    assert "no identity of the site" in told["fault"]


def test_the_coordinators_copies_show_a_cut_off_end(site: Site) -> None:
    (head,) = witnessed(site.exchange, "north", "run-1")
    assert site.egress("--witness", head)[0] == 0
    site.entry(4).unlink()
    assert site.egress("--witness", head)[0] == 0, "it witnesses what was before it"
    site.entry(3).unlink()
    assert site.egress()[0] == 0
    code, told = site.egress("--witness", head)
    assert code == 65
    assert "the end was cut off" in told["fault"]


def test_orders(site: Site) -> None:
    result = CliRunner().invoke(app, ["ledger", "orders", "--data", str(site.folder), "--json"])
    rows = json.loads(result.stdout.strip().splitlines()[-1])["orders"]
    assert [(row["seq"], row["kind"]) for row in rows] == [
        (0, "train"), (1, "evaluate"), (2, "train"), (3, "evaluate"),
    ]  # fmt: skip


def test_rotation_as_it_is_typed(tmp_path: Path) -> None:
    old, new = tmp_path / "old.pem", tmp_path / "new.pem"
    runner = CliRunner()
    before = runner.invoke(app, ["keys", "create", str(old)]).stdout.strip()
    statement = runner.invoke(app, ["keys", "rotate", str(old), str(new)]).stdout.splitlines()[0]
    accepted = roll({"north": [before]}, rotations=[statement]).accepted["north"]
    shown = runner.invoke(app, ["keys", "show", str(new)]).stdout.strip()
    assert public_text(load_key(new)) == shown
    assert len(accepted) == 2
    assert load_key(new).public_key().public_bytes_raw() in {
        key.public_bytes_raw() for key in accepted
    }


PRIVATE = toy.plan(
    privacy={"clip_norm": 1.0, "noise_multiplier": 2.0}, aggregation={"weights": "uniform"}
)


class Budgeted(Site):
    """The same, after a run with noise, and its policy with a budget."""

    def __init__(self, folder: Path, allowed: float) -> None:
        folder.mkdir()
        self.folder, self.exchange = folder, MemoryStore()
        own = toy.policy("north", budget={"epsilon": allowed, "unit": "site"})
        self.policy, self.plan = folder.parent / "policy.yaml", folder.parent / "plan.yaml"
        self.policy.write_text(own.model_dump_json())
        self.plan.write_bytes(PRIVATE.canonical())
        data: dict[str, Any] = {"north": FilesystemStore(folder)}
        data["north"].put("table.csv", toy.table("north"))
        data |= {site: toy.site_store(site) for site in toy.SITES if site != "north"}
        launcher = toy.InlineLauncher(self.exchange, data, policies={"north": own})
        toy.play(toy.open_toy(self.exchange, PRIVATE), launcher)

    def ledger(self, command: str, *arguments: str) -> tuple[int, dict[str, Any]]:
        typed = ["ledger", command, *arguments, "--data", str(self.folder), "--json"]
        result = CliRunner().invoke(app, typed)
        told = json.loads(result.stdout.strip().splitlines()[-1])
        code = getattr(result.exception, "exit_code", None)
        return (result.exit_code if code is None else code), told

    def entry(self, number: int) -> Path:
        return self.folder / f"derivatives/fedcore/budget/{number:010d}.json"


@pytest.fixture
def budgeted(tmp_path: Path) -> Budgeted:
    return Budgeted(tmp_path / "copy", 8.0)


def test_what_was_spent_on_what(budgeted: Budgeted) -> None:
    spent = epsilon([GaussianEvent(2.0, PRIVATE.rounds)], 1e-5)
    code, told = budgeted.ledger("show", "--policy", str(budgeted.policy))
    assert (code, told["fault"], told["without_noise"]) == (0, None, 0)
    (row,) = told["spent"]
    assert (row["run"], row["purpose"], row["unit"]) == ("run-1", "research", "site")
    assert (row["updates"], row["releases"], row["noise"]) == (2, 2, "2")
    assert row["ε"] == pytest.approx(spent)
    assert told["budget"]["spent"] == pytest.approx(spent)
    assert told["budget"]["left"] == pytest.approx(8.0 - spent)
    assert budgeted.ledger("show")[1]["budget"] is None, "without its policy"


def test_updates_that_left_without_noise_are_told(site: Site) -> None:
    typed = ["ledger", "show", "--data", str(site.folder), "--json"]
    told = json.loads(CliRunner().invoke(app, typed).stdout.strip().splitlines()[-1])
    assert (told["spent"], told["without_noise"]) == ([], 2)


def test_what_a_run_would_cost(budgeted: Budgeted, tmp_path: Path) -> None:
    arguments = (str(budgeted.plan), "--policy", str(budgeted.policy))
    code, told = budgeted.ledger("spend", *arguments)
    both = epsilon([GaussianEvent(2.0, 2 * PRIVATE.rounds)], 1e-5)
    assert (code, told["refused"]) == (0, None)
    assert told["alone"] == {"site": pytest.approx(told["budget"]["spent"])}
    assert told["budget"]["with_it"] == pytest.approx(both)
    assert told["budget"]["left"] == pytest.approx(8.0 - both)
    assert len(list(budgeted.entry(1).parent.iterdir())) == 2, "nothing was written"

    budgeted.policy.write_text(budgeted.policy.read_text().replace("8.0", "4.0"))
    code, told = budgeted.ledger("spend", *arguments)
    assert code == 77
    assert "over this site's privacy budget" in told["refused"]
    budgeted.plan.write_bytes(toy.plan().canonical())
    code, told = budgeted.ledger("spend", *arguments)
    assert (code, told["alone"]) == (77, {})
    assert "it would spend infinity" in told["refused"]


def test_verified(budgeted: Budgeted) -> None:
    code, told = budgeted.ledger("verify", "--identity", PUBLIC)
    assert (code, told["entries"], told["runs"], told["fault"]) == (0, 2, 1, None)
    assert told["signed_by"] == [PUBLIC]
    other = public_text(toy.IDENTITIES["east"])
    assert budgeted.ledger("verify", "--identity", other)[0] == 65


@pytest.mark.parametrize("number", [1, 2])
def test_an_entry_removed_is_missed(budgeted: Budgeted, number: int) -> None:
    budgeted.entry(number).unlink()
    for command in ("verify", "show"):
        code, told = budgeted.ledger(command)
        assert code == 65
        assert ("was removed" if number == 1 else "not there") in told["fault"]
