"""A hospital's image holds the extra ``client``: enough for every round that does not encrypt."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROUNDS = """
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder

    def __getattr__(self, name):
        return getattr(self.finder, name)

    def find_spec(self, name, path=None, target=None):
        absent = name.partition(".")[0] in BLOCKED
        return None if absent else self.finder.find_spec(name, path, target)

BLOCKED = set(sys.argv[2].split())
sys.meta_path[:] = map(Without, sys.meta_path)
sys.path.insert(0, sys.argv[1])
import fedcore.client.connect
import toy
from fedcore.store.memory import MemoryStore

for mode in ("none", "masks"):
    noise = {"clip_norm": 1.0, "noise_multiplier": 1.0}
    plan = toy.plan(rounds=1, privacy=noise, aggregation={"weights": "uniform"},
                    secure_aggregation={"mode": mode})
    store = MemoryStore()
    records, _ = toy.play(toy.open_toy(store, plan), toy.InlineLauncher(store, toy.site_stores()))
    assert not records[0].dropped, records[0].dropped
"""


def distributions(extra: str) -> set[str]:
    """What ``fedcore[extra]`` brings, and all that this needs."""
    found: set[str] = set()
    waiting = [Requirement(f"fedcore[{extra}]")]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        found.add(name)
        for text in metadata.requires(name) or ():
            requirement = Requirement(text)
            asked = any(
                requirement.marker is None or requirement.marker.evaluate({"extra": extra})
                for extra in (wanted.extras or {""})
            )
            known = canonicalize_name(requirement.name) in found and not requirement.extras
            if asked and not known:
                waiting.append(requirement)
    return found


def blocked() -> set[str]:
    """Top-level modules of what is installed here, and is not in the client's image."""
    there = distributions("client")
    return {
        module
        for module, owners in metadata.packages_distributions().items()
        if not there & {canonicalize_name(owner) for owner in owners}
        and module not in sys.stdlib_module_names
    }


def test_a_client_does_every_kind_of_round_with_its_own_extra() -> None:
    absent = blocked()
    assert {"prefect", "matplotlib", "tenseal", "kubernetes"} <= absent
    support = Path(__file__).parent / "support"
    done = subprocess.run(
        [sys.executable, "-c", ROUNDS, str(support), " ".join(sorted(absent))],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_that_this_can_fail() -> None:
    support = Path(__file__).parent / "support"
    done = subprocess.run(
        [sys.executable, "-c", ROUNDS, str(support), "dp_accounting"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "No module named 'dp_accounting" in done.stderr
