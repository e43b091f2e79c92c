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
