"""The stand-in for a cluster, asked by the official client: it must behave as a cluster does."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kube import (
    ADMIN,
    GPU_BUSY,
    SCRATCH_FULL,
    Container,
    Denied,
    Evicted,
    ImageNotPullable,
    KubeApi,
    NoPods,
    OomKilled,
    QuotaExceeded,
    Unschedulable,
)
from kubernetes import client, watch
from kubernetes.config import new_client_from_config

NORTH = "fedcore-north"
Api = client.BatchV1Api


class Scripted:
    """A runner without processes: pods end with the next code; None: when they are told to."""

    def __init__(self, *codes: int | None) -> None:
        self.codes = list(codes)
        self.seen: list[Container] = []

    def __call__(self, container: Container) -> int:
        self.seen.append(container)
        container.write(f"start {len(self.seen)}\n")
        code = self.codes.pop(0) if self.codes else 0
        if code is None:
            container.stopping.wait(20)
            return 143
        return code


@pytest.fixture
def runner() -> Scripted:
    return Scripted()


@pytest.fixture
def kube(runner: Scripted) -> Iterator[KubeApi]:
    with KubeApi(runner, backoff=0.01, grace=1.0, bookmarks=0.2) as kube:
        kube.namespace(
            NORTH,
            config_maps={"settings": {"policy.yaml": "site: north\n", "data.json": '{"x": 1}'}},
            secrets={"keys": {"access": "AK", "secret": "SK"}},
        )
        yield kube


@pytest.fixture
def connect(kube: KubeApi, tmp_path: Path) -> Callable[..., client.ApiClient]:
    def connect(user: str = "fedcore-server", **more: Any) -> client.ApiClient:
        path = kube.kubeconfig(tmp_path / f"kubeconfig-{user}", user, **more)
        return new_client_from_config(str(path))

    return connect


@pytest.fixture
def batch(connect: Callable[..., client.ApiClient]) -> Api:
    return client.BatchV1Api(connect())


@pytest.fixture
def core(connect: Callable[..., client.ApiClient]) -> client.CoreV1Api:
    return client.CoreV1Api(connect())


def manifest(name: str = "train-1", command: list[str] | None = None, **spec: Any) -> Any:
    container = {
        "name": "client",
        "image": "fedcore@sha256:00",
        "command": command or ["fedcore", "client"],
        "workingDir": "/scratch",
        "env": [
            {"name": "POLICY", "value": "/etc/fedcore/policy.yaml"},
            {"name": "DATA", "valueFrom": {"configMapKeyRef": {
                "name": "settings", "key": "data.json"}}},
            {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "keys", "key": "access"}}},
        ],
        "volumeMounts": [
            {"name": "config", "mountPath": "/etc/fedcore"},
            {"name": "scratch", "mountPath": "/scratch"},
        ],
    }  # fmt: skip
    pod = {
        "restartPolicy": "Never",
        "containers": [container],
        "volumes": [
            {"name": "config", "configMap": {"name": "settings"}},
            {"name": "scratch", "emptyDir": {"sizeLimit": "1Gi"}},
        ],
    }
    rules = [
        {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        {"action": "FailJob", "onExitCodes": {
            "containerName": "client", "operator": "In", "values": [2, 78]}},
    ]  # fmt: skip
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "namespace": NORTH, "labels": {"fedcore.io/site": "north"}},
        "spec": {
            "backoffLimit": 3,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {"rules": rules},
            "template": {"metadata": {"labels": {"fedcore.io/site": "north"}}, "spec": pod},
            **spec,
        },
    }


def refused(code: int, call: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    """The message of the refusal."""
    with pytest.raises(client.ApiException) as caught:
        call(*args, **kwargs)
    assert caught.value.status == code
    return str(caught.value.body)


def ends(kube: KubeApi, condition: str, name: str = "train-1") -> Any:
    return kube.until(lambda: kube.job(NORTH, name), condition, seconds=10)


def reasons(job: Any) -> list[tuple[str, str]]:
    return [(c["type"], c["reason"]) for c in job["status"]["conditions"]]


def only_pod(kube: KubeApi, phase: str = "Running") -> str:
    found = kube.until(lambda: kube.pods(NORTH, phase=phase), seconds=10)
    return str(found[0]["metadata"]["name"])


# the API


def test_a_job_runs_to_its_end(kube: KubeApi, batch: Api, core: client.CoreV1Api) -> None:
    made = batch.create_namespaced_job(NORTH, manifest())
    assert made.metadata.uid
    ended = ends(kube, "Complete")
    assert reasons(ended) == [
        ("SuccessCriteriaMet", "CompletionsReached"),
        ("Complete", "CompletionsReached"),
    ]
    job = batch.read_namespaced_job("train-1", NORTH)
    assert (job.status.succeeded, job.status.active, job.status.failed) == (1, None, None)
    pods = core.list_namespaced_pod(NORTH, label_selector="batch.kubernetes.io/job-name=train-1")
    (pod,) = pods.items
    assert pod.metadata.name.startswith("train-1-")
    assert pod.metadata.labels["fedcore.io/site"] == "north"
    assert pod.status.phase == "Succeeded"
    assert pod.status.container_statuses[0].state.terminated.exit_code == 0
    assert core.read_namespaced_pod_log(pod.metadata.name, NORTH) == "start 1\n"


def test_the_container_gets_its_environment_and_files(
    kube: KubeApi, batch: Api, runner: Scripted
) -> None:
    batch.create_namespaced_job(NORTH, manifest())
    ends(kube, "Complete")
    (seen,) = runner.seen
    assert seen.env == {"POLICY": "/etc/fedcore/policy.yaml", "DATA": '{"x": 1}', "KEY": "AK"}
    assert Path(seen.here(seen.env["POLICY"])).read_text() == "site: north\n"
    assert seen.here('{"ca": "/etc/fedcore/ca.pem", "b": "/etc/fedcore2"}') == (
        f'{{"ca": "{seen.mounts["/etc/fedcore"]}/ca.pem", "b": "/etc/fedcore2"}}'
    )


def test_what_is_there_cannot_be_created_again(batch: Api) -> None:
    batch.create_namespaced_job(NORTH, manifest())
    assert 'jobs.batch \\"train-1\\" already exists' in refused(
        409, batch.create_namespaced_job, NORTH, manifest()
    )


def test_rights_are_per_namespace(
    kube: KubeApi, batch: Api, core: client.CoreV1Api, connect: Callable[..., client.ApiClient]
) -> None:
    kube.namespace("fedcore-south", user=None)
    elsewhere = manifest()
    elsewhere["metadata"]["namespace"] = "fedcore-south"
    said = refused(403, batch.create_namespaced_job, "fedcore-south", elsewhere)
    assert (
        'jobs.batch is forbidden: User \\"fedcore-server\\" cannot create resource \\"jobs\\" in '
        'API group \\"batch\\" in the namespace \\"fedcore-south\\"'
    ) in said
    assert 'secrets \\"keys\\" is forbidden' in refused(
        403, core.read_namespaced_secret, "keys", NORTH
    )
    stranger = client.BatchV1Api(connect("stranger", token="nobody's"))
    refused(401, stranger.list_namespaced_job, NORTH)
    admin = client.BatchV1Api(connect(ADMIN))
    nowhere = manifest()
    nowhere["metadata"]["namespace"] = "nowhere"
    assert 'namespaces \\"nowhere\\" not found' in refused(
        404, admin.create_namespaced_job, "nowhere", nowhere
    )


def test_a_wrong_job_is_invalid(batch: Api) -> None:
    wrong = manifest(name="Train_1")
    wrong["spec"]["template"]["spec"]["restartPolicy"] = "Always"
    said = refused(422, batch.create_namespaced_job, NORTH, wrong)
    assert "metadata.name: Invalid value" in said
    assert "spec.template.spec.restartPolicy: Required value" in said


def test_lists_select_by_label_and_come_in_pages(batch: Api) -> None:
    for number in range(5):
        batch.create_namespaced_job(NORTH, manifest(f"train-{number}"))
    assert not batch.list_namespaced_job(NORTH, label_selector="fedcore.io/site=south").items
    names, token = [], None
    while token is None or token:
        page = batch.list_namespaced_job(
            NORTH, label_selector="fedcore.io/site in (north)", limit=2, _continue=token or ""
        )
        names += [job.metadata.name for job in page.items]
        token = page.metadata._continue or ""
    assert names == [f"train-{number}" for number in range(5)]


def test_deletion_takes_the_pods_only_if_told_to(
    kube: KubeApi, batch: Api, runner: Scripted
) -> None:
    runner.codes = [None, None]
    batch.create_namespaced_job(NORTH, manifest("kept"))
    batch.create_namespaced_job(NORTH, manifest("taken"))
    kube.until(lambda: len(kube.pods(NORTH, phase="Running")) == 2)
    batch.delete_namespaced_job("kept", NORTH)
    batch.delete_namespaced_job("taken", NORTH, propagation_policy="Background")
    refused(404, batch.read_namespaced_job, "taken", NORTH)
    kube.until(lambda: kube.job(NORTH, "kept") is None and not kube.pods(NORTH, "taken"))
    assert len(kube.pods(NORTH, "kept", "Running")) == 1


def test_foreground_deletion_waits_for_the_pods(
    kube: KubeApi, batch: Api, runner: Scripted
) -> None:
    runner.codes = [None]
    batch.create_namespaced_job(NORTH, manifest())
    only_pod(kube)
    batch.delete_namespaced_job("train-1", NORTH, propagation_policy="Foreground")
    kube.until(lambda: kube.job(NORTH, "train-1") is None)
    assert not kube.pods(NORTH)


# watches


def test_a_watch_goes_on_from_a_list(kube: KubeApi, batch: Api) -> None:
    version = batch.list_namespaced_job(NORTH).metadata.resource_version
    batch.create_namespaced_job(NORTH, manifest())
    stream = watch.Watch().stream(
        batch.list_namespaced_job, NORTH, resource_version=version, timeout_seconds=10
    )
    seen = []
    for event in stream:
        seen.append(event["type"])
        if any(c.type == "Complete" for c in event["object"].status.conditions or ()):
            break
    assert seen[0] == "ADDED"
    assert set(seen[1:]) == {"MODIFIED"}
    stream.close()
    kube.until(lambda: kube.open_watches() == 0)


def test_a_watch_ends_when_it_said_and_marks_the_way(kube: KubeApi, batch: Api) -> None:
    begun = time.monotonic()
    stream = watch.Watch().stream(
        batch.list_namespaced_job, NORTH, timeout_seconds=1, allow_watch_bookmarks=True
    )
    assert {event["type"] for event in stream} == {"BOOKMARK"}
    assert 0.9 < time.monotonic() - begun < 5


def test_a_watch_from_too_long_ago_is_gone(kube: KubeApi, batch: Api) -> None:
    version = batch.list_namespaced_job(NORTH).metadata.resource_version
    kube.expire_watches()
    with pytest.raises(client.ApiException, match="Expired: too old resource version") as caught:
        next(watch.Watch().stream(batch.list_namespaced_job, NORTH,
                                  resource_version=version, timeout_seconds=5))  # fmt: skip
    assert caught.value.status == 410


@pytest.mark.parametrize("how", ["dropped", "expired", "outage"])
def test_an_open_watch_breaks(kube: KubeApi, batch: Api, how: str) -> None:
    caught: list[BaseException] = []

    def read() -> None:
        try:
            for _ in watch.Watch().stream(
                batch.list_namespaced_job, NORTH, timeout_seconds=20, _request_timeout=20
            ):
                pass
        except Exception as error:
            caught.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    kube.until(lambda: kube.open_watches(NORTH, "jobs") == 1)
    if how == "outage":
        with kube.outage():
            reader.join(10)
    else:
        assert (kube.drop_watches() if how == "dropped" else kube.expire_watches()) == 1
        reader.join(10)
    assert [type(error).__name__ for error in caught] == [
        "ApiException" if how == "expired" else "ProtocolError"
    ]
    assert batch.list_namespaced_job(NORTH).items == []


# how Jobs end


def test_a_temporary_exit_is_tried_again(kube: KubeApi, batch: Api, runner: Scripted) -> None:
    runner.codes = [75, 1, 0]
    batch.create_namespaced_job(NORTH, manifest())
    assert ends(kube, "Complete")["status"]["failed"] == 2
    assert len(kube.pods(NORTH, "train-1")) == 3


def test_a_permanent_exit_is_not(kube: KubeApi, batch: Api, runner: Scripted) -> None:
    runner.codes = [78]
    batch.create_namespaced_job(NORTH, manifest())
    job = ends(kube, "Failed")
    pod = kube.pods(NORTH)[0]["metadata"]["name"]
    assert reasons(job) == [
        ("FailureTarget", "PodFailurePolicy"), ("Failed", "PodFailurePolicy")
    ]  # fmt: skip
    assert job["status"]["conditions"][1]["message"] == (
        f"Container client for pod {NORTH}/{pod} failed with exit code 78 matching FailJob rule "
        "at index 1"
    )


def test_tries_are_limited(kube: KubeApi, batch: Api, runner: Scripted) -> None:
    runner.codes = [75, 75, 75]
    batch.create_namespaced_job(NORTH, manifest(backoffLimit=1))
    job = ends(kube, "Failed")
    assert reasons(job)[-1] == ("Failed", "BackoffLimitExceeded")
    assert job["status"]["failed"] == 2
    assert runner.codes == [75]


def test_a_deadline_ends_job_and_pod(
    kube: KubeApi, batch: Api, core: client.CoreV1Api, runner: Scripted
) -> None:
    runner.codes = [None]
    batch.create_namespaced_job(NORTH, manifest(activeDeadlineSeconds=1))
    pod = only_pod(kube)
    assert reasons(ends(kube, "Failed"))[-1] == ("Failed", "DeadlineExceeded")
    refused(404, core.read_namespaced_pod_log, pod, NORTH)


def test_a_suspended_job_waits_to_be_admitted(kube: KubeApi, batch: Api) -> None:
    batch.create_namespaced_job(NORTH, manifest(suspend=True))
    ends(kube, "Suspended")
    assert not kube.pods(NORTH)
    kube.unsuspend(NORTH, "train-1")
    ends(kube, "Complete")


def test_a_finished_job_goes_after_its_time(kube: KubeApi, batch: Api) -> None:
    batch.create_namespaced_job(NORTH, manifest(ttlSecondsAfterFinished=1))
    ends(kube, "Complete")
    kube.until(lambda: kube.job(NORTH, "train-1") is None and not kube.pods(NORTH))


@pytest.mark.parametrize("how", ["kill", "exit", "oom_kill", "evict", "drain"])
def test_a_pod_that_is_lost_is_replaced(
    kube: KubeApi, batch: Api, runner: Scripted, how: str
) -> None:
    runner.codes = [None]
    batch.create_namespaced_job(NORTH, manifest())
    pod = only_pod(kube)
    getattr(kube, how)(NORTH, pod)
    job = ends(kube, "Complete")
    disrupted = how in ("evict", "drain")
    assert job["status"].get("failed", 0) == (0 if disrupted else 1)
    left = [p for p in kube.pods(NORTH) if p["metadata"]["name"] == pod]
    assert bool(left) == (how not in ("kill", "drain"))
    if left:
        state = left[0]["status"]["containerStatuses"][0]["state"]["terminated"]
        assert state["exitCode"] == 137
        assert (state["reason"], left[0]["status"].get("reason")) == {
            "exit": ("Error", None),
            "oom_kill": ("OOMKilled", None),
            "evict": ("Error", "Evicted"),
        }[how]


# scenarios


@pytest.mark.parametrize(
    ("scenario", "code", "words"),
    [
        (QuotaExceeded(), 403, "exceeded quota: fedcore, requested: count/jobs.batch=1, used:"),
        (Denied(), 422, "ValidatingAdmissionPolicy 'fedcore-client' with binding 'fedcore-client'"),
        (Denied(code=403), 403, "denied request: the image is not pinned by digest"),
    ],
)
def test_admission_refuses(kube: KubeApi, batch: Api, scenario: Any, code: int, words: str) -> None:
    with kube.scenario(scenario, NORTH):
        said = refused(code, batch.create_namespaced_job, NORTH, manifest())
    assert 'jobs.batch \\"train-1\\" is forbidden: ' in said
    assert words in said
    batch.create_namespaced_job(NORTH, manifest())


def test_an_image_that_cannot_be_pulled(kube: KubeApi, batch: Api, core: client.CoreV1Api) -> None:
    held = kube.scenario(ImageNotPullable(), NORTH)
    batch.create_namespaced_job(NORTH, manifest())

    def waits() -> Any:
        pods = kube.pods(NORTH, phase="Pending")
        return pods and pods[0]["status"].get("containerStatuses", [{}])[0].get("state")

    kube.until(lambda: (waits() or {}).get("waiting", {}).get("reason") == "ImagePullBackOff")
    assert "trying and failing to pull image" in refused(
        400, core.read_namespaced_pod_log, only_pod(kube, "Pending"), NORTH
    )
    held.lift()
    ends(kube, "Complete")


def test_a_pod_that_fits_nowhere(kube: KubeApi, batch: Api, core: client.CoreV1Api) -> None:
    held = kube.scenario(Unschedulable(GPU_BUSY), NORTH)
    batch.create_namespaced_job(NORTH, manifest())
    pod = kube.until(lambda: [p for p in kube.pods(NORTH) if "conditions" in p["status"]])[0]
    (condition,) = pod["status"]["conditions"]
    assert core.read_namespaced_pod_log(pod["metadata"]["name"], NORTH) in ("", None)
    assert (condition["status"], condition["reason"]) == ("False", "Unschedulable")
    assert "1 Insufficient nvidia.com/gpu." in condition["message"]
    held.lift()
    ends(kube, "Complete")


def test_a_job_that_gets_no_pods(kube: KubeApi, batch: Api) -> None:
    held = kube.scenario(NoPods(), NORTH)
    batch.create_namespaced_job(NORTH, manifest())
    kube.until(lambda: "startTime" in (kube.job(NORTH, "train-1") or {}).get("status", {}))
    assert not kube.pods(NORTH)
    held.lift()
    ends(kube, "Complete")


def test_a_missing_secret_holds_the_container(kube: KubeApi, batch: Api) -> None:
    wrong = manifest()
    env = wrong["spec"]["template"]["spec"]["containers"][0]["env"]
    env[2]["valueFrom"]["secretKeyRef"]["name"] = "later"
    batch.create_namespaced_job(NORTH, wrong)

    def waiting() -> Any:
        statuses = [p["status"].get("containerStatuses") for p in kube.pods(NORTH)]
        return statuses and statuses[0] and statuses[0][0]["state"].get("waiting", {})

    kube.until(lambda: (waiting() or {}).get("reason") == "CreateContainerConfigError")
    assert waiting()["message"] == 'secret "later" not found'
    kube.secret(NORTH, "later", {"access": "AK2"})
    ends(kube, "Complete")


@pytest.mark.parametrize("scenario", [OomKilled(), Evicted(), SCRATCH_FULL])
def test_a_pod_dies_as_it_starts(kube: KubeApi, batch: Api, scenario: Any) -> None:
    kube.scenario(scenario, NORTH, times=1)
    batch.create_namespaced_job(NORTH, manifest())
    job = ends(kube, "Complete")
    assert len(kube.pods(NORTH)) == 2
    assert job["status"].get("failed", 0) == (0 if scenario == Evicted() else 1)


# faults


@pytest.mark.parametrize("code", [403, 404, 409, 410, 429, 500, 503])
def test_a_code_is_answered_so_many_times(kube: KubeApi, batch: Api, code: int) -> None:
    kube.fail(code, verb="create", resource="jobs", times=2, retry_after=1)
    for _ in range(2):
        with pytest.raises(client.ApiException) as caught:
            batch.create_namespaced_job(NORTH, manifest())
        assert caught.value.status == code
        assert caught.value.headers["Retry-After"] == "1"
    batch.create_namespaced_job(NORTH, manifest())
    assert kube.requests.count("create", "jobs", NORTH) == 3


def test_no_answer_until_the_client_gives_up(kube: KubeApi, batch: Api) -> None:
    with kube.hang(verb="create"), pytest.raises(Exception, match="timed out"):
        batch.create_namespaced_job(NORTH, manifest(), _request_timeout=0.3)
    assert kube.job(NORTH, "train-1") is None


@pytest.mark.parametrize("how", ["reset", "lose_reply"])
def test_the_connection_breaks(kube: KubeApi, batch: Api, how: str) -> None:
    getattr(kube, how)(verb="create", times=1)
    with pytest.raises(Exception, match=r"aborted|reset|closed"):
        batch.create_namespaced_job(NORTH, manifest())
    assert (kube.job(NORTH, "train-1") is not None) == (how == "lose_reply")


def test_a_watch_is_cut_after_so_many_events(kube: KubeApi, batch: Api) -> None:
    kube.drop_watch(after=1, times=1)
    batch.create_namespaced_job(NORTH, manifest())
    with pytest.raises(Exception, match=r"IncompleteRead|broken"):
        list(watch.Watch().stream(batch.list_namespaced_job, NORTH, timeout_seconds=20))
    kube.expire_watch(times=1)
    with pytest.raises(client.ApiException, match="410"):
        list(watch.Watch().stream(batch.list_namespaced_job, NORTH, timeout_seconds=20))


def test_the_server_comes_back_on_the_same_port(kube: KubeApi, batch: Api) -> None:
    batch.create_namespaced_job(NORTH, manifest())
    with kube.outage(), pytest.raises(Exception, match="refused"):
        batch.list_namespaced_job(NORTH)
    assert len(batch.list_namespaced_job(NORTH).items) == 1
    ends(kube, "Complete")


# processes


def test_jobs_run_as_processes_with_what_the_job_gives_them(tmp_path: Path) -> None:
    code = (
        "import os, pathlib; print(sorted(os.environ), flush=True);"
        "print(pathlib.Path(os.environ['POLICY']).read_text().strip(), os.environ['KEY']);"
        "tries = pathlib.Path(__import__('sys').argv[1]); n = len(tries.read_text());"
        "tries.write_text('x' * (n + 1)); raise SystemExit([75, 0][n])"
    )
    tries = tmp_path / "tries"
    tries.write_text("")
    with KubeApi(backoff=0.01) as kube:
        kube.namespace(
            NORTH,
            config_maps={"settings": {"policy.yaml": "site: north\n", "data.json": "{}"}},
            secrets={"keys": {"access": "AK"}},
        )
        batch = client.BatchV1Api(new_client_from_config(str(kube.kubeconfig(tmp_path / "k"))))
        batch.create_namespaced_job(
            NORTH, manifest(command=[Path(sys.executable).name, "-c", code, str(tries)])
        )
        assert ends(kube, "Complete")["status"]["failed"] == 1
        logs = {kube.log(NORTH, pod["metadata"]["name"]) for pod in kube.pods(NORTH)}
        (log,) = logs
        assert "site: north AK" in log
        assert "['DATA', 'KEY', 'LC_CTYPE', 'PATH', 'POLICY', 'PYTHONPATH']" in log


def test_a_program_that_is_not_there_leaves_no_log(tmp_path: Path) -> None:
    with KubeApi() as kube:
        kube.namespace(
            NORTH,
            config_maps={"settings": {"data.json": "{}"}}, secrets={"keys": {"access": "AK"}},
        )  # fmt: skip
        batch = client.BatchV1Api(new_client_from_config(str(kube.kubeconfig(tmp_path / "k"))))
        batch.create_namespaced_job(NORTH, manifest(command=["/no/such"], backoffLimit=0))
        assert reasons(ends(kube, "Failed"))[-1] == ("Failed", "BackoffLimitExceeded")
        (pod,) = kube.pods(NORTH)
        state = pod["status"]["containerStatuses"][0]["state"]["terminated"]
        assert (state["exitCode"], state["reason"]) == (128, "StartError")
        assert "/no/such" in state["message"]
        assert kube.log(NORTH, pod["metadata"]["name"]) == ""


def test_a_process_is_asked_before_it_is_killed(tmp_path: Path) -> None:
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, lambda *_: print('no', flush=True));"
        "print('up', flush=True); time.sleep(600)"
    )
    with KubeApi(grace=0.3) as kube:
        kube.namespace(
            NORTH,
            config_maps={"settings": {"data.json": "{}"}}, secrets={"keys": {"access": "AK"}},
        )  # fmt: skip
        batch = client.BatchV1Api(new_client_from_config(str(kube.kubeconfig(tmp_path / "k"))))
        batch.create_namespaced_job(
            NORTH, manifest(command=["sh", "-c", 'exec python -c "$0"', stubborn])
        )
        pod = only_pod(kube)
        kube.until(lambda: "up" in kube.log(NORTH, pod))
        batch.delete_namespaced_job("train-1", NORTH, propagation_policy="Background")
        kube.until(lambda: not kube.pods(NORTH), seconds=10)
