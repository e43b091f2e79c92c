"""The demo command on real services, short: started, perhaps with traps, and read when it ends.

Two short rounds on a coarse grid, with splits that leave few subjects enough to evaluate.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from coarse import COARSE, changed
from ruamel.yaml import YAML
from running import processes

from fedcore.demo import prepare, silent
from fedcore.demo.plan import SHIPPED, Choices

SCALE = "0.3"
DEMO = ["demo", "--scale", SCALE, "--json"]
TRAPPED = Path(__file__).parent / "trapped.py"
PLANS = Path(__file__).parents[2] / "plans"
TIMEOUT = 600.0


def small_plan(path: Path, changes: Mapping[str, Any], disease: str = "brain") -> Path:
    """Write the shipped plan, made small and then changed."""
    yaml = YAML()
    plan = yaml.load(PLANS / SHIPPED[disease])
    plan["rounds"] = 2
    plan["training"]["epochs"] = 1
    plan["timeouts"]["poll"] = 0.15  # asked a third as often: that takes CPU too
    plan["task"]["dataset"]["arguments"]["fractions"] = [0.4, 0.3, 0.3]
    yaml.dump(changed(changed(plan, {"task": COARSE[disease]}), changes), path)
    return path


def start(
    workdir: Path,
    *arguments: str,
    traps: Sequence[Sequence[str]] = (),
    changes: Mapping[str, Any] | None = None,
    disease: str = "brain",
) -> subprocess.Popen[str]:
    plan = small_plan(workdir.parent / "small.yaml", changes or {}, disease)
    environment = {name: value for name, value in os.environ.items() if "PREFECT" not in name}
    fedcore = [str(TRAPPED), json.dumps(traps)] if traps else ["-m", "fedcore"]
    with log_of(workdir).open("a") as log:
        return subprocess.Popen(
            [sys.executable, *fedcore, *DEMO, "--disease", disease, "--plan", str(plan),
             "--workdir", str(workdir), *arguments],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
        )  # fmt: skip


def make_hospitals(workdir: Path) -> None:
    """A stack, stopped again, in which the brain's hospitals have their scans."""
    plan = small_plan(workdir.parent / "small.yaml", {})
    with prepare(workdir, choices=Choices(plan), scale=float(SCALE), on_stage=silent):
        pass


def log_of(workdir: Path) -> Path:
    return workdir.parent / f"{workdir.name}.log"


def sprung(workdir: Path) -> int:
    return log_of(workdir).read_text().count("trap: killed")


def end(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Its last line. The gate may say no (3): two rounds on few subjects are not a good model."""
    output, _ = process.communicate(timeout=TIMEOUT)
    assert process.returncode in (0, 3), output
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def nothing_runs(workdir: Path) -> bool:
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up:
        if not processes(workdir):
            return True
        time.sleep(0.1)
    return False


def copy_of(undisturbed: Path, workdir: Path) -> Path:
    """Another folder for a run, in which the hospitals have their scans already."""
    shutil.copytree(undisturbed, workdir, ignore=shutil.ignore_patterns("*.sock", "logs", "runs"))
    return workdir
