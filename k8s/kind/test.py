"""`make kind-test`: a federation on a real cluster, from installation to the last trace of it.

Against whatever cluster KUBECONFIG names, whose nodes have the images (see federation.py). It
makes namespaces of its own, fails at the first thing that is not as it must be, and then shows
what the cluster knows about it.

FEDCORE_TEST_PREFIX   of the namespaces; unset: fedcore
FEDCORE_GPU_RESOURCE  what the sites' Jobs ask for, e.g. nvidia.com/gpu; unset: nothing, for CPUs
FEDCORE_KEEP          anything: leave all as it is at the end, to look at
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from cluster import (
    KindError,
    Object,
    apply,
    forwarded,
    install,
    kubectl,
    listed,
    make_namespace,
    manifests,
    run_chart_tests,
    uninstall,
    wait_for_deployment,
    wait_for_job,
    wait_until,
)
from federation import LAUNCH, ROOT, Federation, images
from prefect_api import Prefect

SERVER = "fedcore-server"
SITE = "fedcore-site"
TEST_POD = "fedcore-isolation"
ROUNDS = 3
DEPLOYMENT = "train/train"
MODEL = "brain-tumour"


def main() -> None:
    """The whole of it; see the steps."""
    federation = Federation(
        os.environ.get("FEDCORE_TEST_PREFIX", "fedcore"),
        os.environ.get("FEDCORE_GPU_RESOURCE") or None,
    )
    with _namespaces(federation):
        _step("S3, Prefect and three synthetic hospitals", lambda: bring_up(federation))
        bare = {name: _contents(name) for name in federation.namespaces.values()}
        _step("the charts", lambda: install_charts(federation))
        _step("isolation", lambda: prove_isolation(federation))
        _step("a run, with its server killed", lambda: run_to_verdict(federation))
        _step("a run, cancelled", lambda: run_and_cancel(federation))
        _step("removal", lambda: remove(federation, bare))
    print("PASSED")


def bring_up(federation: Federation) -> None:
    """What the trial needs around fedcore."""
    apply(federation.system, *federation.secrets(), federation.hospitals())
    system = Path(__file__).with_name("system")
    for name in ("s3", "prefect"):
        apply(federation.system, *manifests(system / f"{name}.yaml", images()))
    wait_for_deployment(federation.system, "s3")
    apply(federation.system, *manifests(system / "hospitals.yaml", images()))
    wait_for_job(federation.system, "hospitals", 1200)
    print(kubectl("logs", "job/hospitals", "-n", federation.system).strip())
    wait_for_deployment(federation.system, "prefect")


def install_charts(federation: Federation) -> None:
    """One release a site, and the server's."""
    for site, namespace in federation.namespaces.items():
        install(ROOT / "helm/fedcore-site", SITE, namespace, federation.site_values(site))
    values = federation.server_values(ROUNDS)
    install(ROOT / "helm/fedcore-server", SERVER, federation.system, values)
    wait_for_deployment(federation.system, SERVER)
    for site, launch in LAUNCH.items():
        if launch == "agent":
            wait_for_deployment(federation.namespace(site), "fedcore-agent")


def prove_isolation(federation: Federation) -> None:
    """From within each site's pods, and what the server's account may do at each site."""
    for site, namespace in federation.namespaces.items():
        print(f"--- {site}\n{run_chart_tests(SITE, namespace).strip()}")
        for verb, kind in (("get", "secrets"), ("get", "configmaps"), ("create", "pods"),
                           ("create", "pods/exec"), ("patch", "jobs.batch")):  # fmt: skip
            _refused(federation, namespace, verb, kind)
        if LAUNCH[site] == "agent":
            _refused(federation, namespace, "create", "jobs.batch")


def run_to_verdict(federation: Federation) -> None:
    """Start the plan as the UI does; kill the server's pod; the same run ends, and says yes."""
    with _prefect(federation) as prefect:
        run = prefect.start(DEPLOYMENT)
        wait_until("the first round", lambda: prefect.artifacts(run), 900)
        _all_have_jobs(federation)
        kubectl("delete", "pod", "-n", federation.system, "-l", f"app.kubernetes.io/name={SERVER}",
                "--grace-period=1", "--wait=true")  # fmt: skip
        print("the server's pod was deleted after round 0")
        wait_until("the run is over", lambda: prefect.is_over(run), 1800)
        _must(prefect.state(run) == "COMPLETED", f"the run is {prefect.state(run)}")
        shown = [found["key"] for found in prefect.artifacts(run)]
        rounds = {key for key in shown if key.startswith("round-")}
        _must(len(rounds) == ROUNDS, f"Prefect shows the rounds {sorted(rounds)}")
    (version,) = json.loads(_fedcore(federation, "models", "list", MODEL, "--json"))["models"]
    print(f"verdict: {version}")
    if not (version["passed"] and version["champion"]):
        raise KindError(_fedcore(federation, "models", "show", MODEL, str(version["version"])))
    wait_until("finished Jobs are gone", lambda: not _jobs(federation), 180)


def run_and_cancel(federation: Federation) -> None:
    """Cancel a run at work, as the UI does: no Job goes on at a site, and none comes back."""
    with _prefect(federation) as prefect:
        run = prefect.start(DEPLOYMENT)
        wait_until("every site has a Job", lambda: len(_jobs(federation)) == len(LAUNCH), 600)
        prefect.cancel(run)
        wait_until("the run is cancelled", lambda: prefect.is_over(run), 120)
        _must(prefect.state(run) == "CANCELLED", f"the run is {prefect.state(run)}")
        wait_until("its Jobs are gone", lambda: not _jobs(federation), 120)
    time.sleep(10)  # two looks of the agent: nothing must happen in them
    _must(not _jobs(federation), "no Job came back")


def remove(federation: Federation, bare: dict[str, set[str]]) -> None:
    """Uninstall; the namespaces are as bare as before, and so is the cluster."""
    uninstall(SERVER, federation.system)
    for namespace in federation.namespaces.values():
        uninstall(SITE, namespace)
        kubectl("delete", "pod", TEST_POD, "-n", namespace)  # Helm leaves the pods of its tests
    for namespace, contents in bare.items():
        what = f"{namespace} has {', '.join(sorted(contents))} and nothing else"
        wait_until(what, partial(_has_only, namespace, contents), 120)
    policies = kubectl("get", "validatingadmissionpolicies,validatingadmissionpolicybindings",
                       "-o", "name")  # fmt: skip
    ours = [name for name in policies.split() if f".{federation.prefix}-" in name]
    _must(not ours, f"no policy is left, but {ours}")


@contextmanager
def _namespaces(federation: Federation) -> Iterator[None]:
    """Made, and deleted in the end with all that is in them."""
    names = [federation.system, *federation.namespaces.values()]
    for name in names:
        make_namespace(name)
    try:
        yield
    except BaseException:
        _show(names)
        raise
    finally:
        if "FEDCORE_KEEP" not in os.environ:
            _drop(federation, names)


def _drop(federation: Federation, names: list[str]) -> None:
    kubectl("delete", "namespace", *names, "--ignore-not-found", "--timeout=180s")
    for site in LAUNCH:
        for kind in ("validatingadmissionpolicy", "validatingadmissionpolicybinding"):
            name = f"fedcore-jobs.{federation.namespace(site)}"
            kubectl("delete", kind, name, "--ignore-not-found")


@contextmanager
def _prefect(federation: Federation) -> Iterator[Prefect]:
    with forwarded(federation.system, "prefect", 4200) as url:
        yield Prefect(url)


def _jobs(federation: Federation) -> list[Object]:
    """The Jobs of clients, at all sites."""
    selector = "app.kubernetes.io/name=fedcore-client"
    found = [listed("jobs", namespace, selector) for namespace in federation.namespaces.values()]
    return [job for jobs in found for job in jobs]


def _all_have_jobs(federation: Federation) -> None:
    for job in (jobs := _jobs(federation)):
        pod = job["spec"]["template"]["spec"]
        limits = pod["containers"][0]["resources"]["limits"]
        asked = {name for name in limits if "/" in name}
        wanted = {federation.gpu} if federation.gpu else set()
        _must(asked == wanted, f"a Job asks for {asked or 'no GPU'}")
    _must(len({job["metadata"]["namespace"] for job in jobs}) == len(LAUNCH), "a Job at each site")


def _fedcore(federation: Federation, *arguments: str) -> str:
    """What fedcore says in the server's pod; as JSON, if it was asked to."""
    said = kubectl("exec", f"deployment/{SERVER}", "-n", federation.system, "--", "fedcore",
                   *arguments, "--federation", "/work/federation.yaml")  # fmt: skip
    return said.splitlines()[-1] if "--json" in arguments else said


def _refused(federation: Federation, namespace: str, verb: str, kind: str) -> None:
    account = f"system:serviceaccount:{federation.system}:{SERVER}"
    try:
        said = kubectl("auth", "can-i", verb, kind, "-n", namespace, "--as", account)
    except KindError as error:  # kubectl answers no with exit code 1
        said = str(error)
    _must(said.strip().endswith("no"), f"the server may not {verb} {kind} in {namespace}")


def _has_only(namespace: str, contents: set[str]) -> bool:
    return _contents(namespace) == contents


def _contents(namespace: str) -> set[str]:
    """All that is in it, but for events."""
    kinds = set(kubectl("api-resources", "--namespaced", "--verbs=list", "-o", "name").split())
    listed_kinds = ",".join(sorted(kinds - {"events", "events.events.k8s.io"}))
    return set(kubectl("get", listed_kinds, "-n", namespace, "-o", "name").split())


def _step(name: str, act: Callable[[], None]) -> None:
    print(f"=== {name}", flush=True)
    began = time.monotonic()
    act()
    print(f"    ({time.monotonic() - began:.0f} s)", flush=True)


def _must(holds: bool, what: str) -> None:
    if not holds:
        raise KindError(f"not so: {what}")


def _show(namespaces: list[str]) -> None:
    """What a person would look at first."""
    for namespace in namespaces:
        print(f"--- {namespace}: {' '.join(sorted(_contents(namespace)))}")
        pods = kubectl("get", "pods", "-n", namespace, "-o", "name").split()
        for question in (
            ("get", "jobs,pods", "-o", "wide"),
            ("get", "events", "--sort-by=.lastTimestamp"),
            *(("logs", pod, "--tail=60") for pod in pods),
        ):
            print(f"--- {namespace}: kubectl {' '.join(question)}")
            try:
                print(kubectl(*question, "-n", namespace))
            except KindError as error:
                print(error)


if __name__ == "__main__":
    try:
        main()
    except KindError as error:
        sys.exit(f"FAILED: {error}")
