"""What `make kind-test` puts into a cluster, without one."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import kubernetes_validate
import pytest
from charts import SERVER, SITE, complete, only, render
from kubernetes_validate import utils
from ruamel.yaml import YAML

from fedcore.config import federation as federations
from fedcore.config import plan as plans
from fedcore.config import policy as policies

ROOT = Path(__file__).parents[2]
SYSTEM = sorted((ROOT / "k8s/kind/system").glob("*.yaml"))
OLDEST, NEWEST = "1.31", "1.37"

Manifest = dict[str, Any]


@pytest.fixture(scope="module", autouse=True)
def _read_definitions_once() -> Iterator[None]:
    """They are megabytes, and the validator reads them anew for each object."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "schema_contents", functools.cache(utils.schema_contents))
        yield


def manifests(path: Path) -> list[Manifest]:
    return list(YAML(typ="safe").load_all(path.read_text(encoding="utf-8")))


def pods() -> list[Manifest]:
    found = [manifest for path in SYSTEM for manifest in manifests(path)]
    return [m["spec"]["template"]["spec"] for m in found if "template" in m["spec"]]


@pytest.mark.parametrize("version", [OLDEST, NEWEST])
@pytest.mark.parametrize("path", SYSTEM, ids=lambda path: path.name)
def test_every_object_is_as_kubernetes_wants_it(path: Path, version: str) -> None:
    for manifest in manifests(path):
        assert kubernetes_validate.validate(manifest, version, strict=True) == version


def test_every_pod_is_admitted_at_the_restricted_level() -> None:
    assert len(pods()) == 3
    for pod in pods():
        assert pod["securityContext"]["runAsNonRoot"]
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not pod["automountServiceAccountToken"]
        assert not any("hostPath" in volume for volume in pod["volumes"])
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["capabilities"] == {"drop": ["ALL"]}
            assert context["readOnlyRootFilesystem"]
            assert not context["allowPrivilegeEscalation"]
            assert container["resources"]["limits"]["memory"]


def test_every_image_is_one_that_make_image_builds(kind: ModuleType) -> None:
    used = {container["image"] for pod in pods() for container in pod["containers"]}
    assert used <= set(kind.images())
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert "KINDS := client server demo" in makefile
    assert set(kind.images()) == {f"fedcore-{name}:dev" for name in ("client", "server", "demo")}


def test_images_can_be_others(kind: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDCORE_CLIENT_IMAGE", "elsewhere/client@sha256:1")
    assert kind.images()["fedcore-client:dev"] == "elsewhere/client@sha256:1"


@pytest.fixture
def federation(kind: ModuleType) -> Any:
    return kind.Federation("fedcore")


@pytest.fixture(scope="module")
def server_chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return complete(SERVER, tmp_path_factory.mktemp("charts"))


def test_what_pods_mount_is_made(federation: Any) -> None:
    made = {s["metadata"]["name"]: set(s["data"]) for s in federation.secrets()}
    for pod in pods():
        for volume in pod["volumes"]:
            if "secret" in volume:
                wanted = {item["key"] for item in volume["secret"]["items"]}
                assert wanted <= made[volume["secret"]["secretName"]]
            if "configMap" in volume:
                assert volume["configMap"]["name"] == federation.hospitals()["metadata"]["name"]


def test_the_script_of_the_hospitals_compiles(federation: Any) -> None:
    compile(federation.hospitals()["data"]["hospitals.py"], "hospitals.py", "exec")


@pytest.mark.parametrize("site", ["north", "east", "west"])
def test_the_chart_takes_the_values_of_a_site(federation: Any, site: str, tmp_path: Path) -> None:
    namespace = federation.namespace(site)
    found = render(SITE, federation.site_values(site), name=SITE.name, namespace=namespace)
    told = only(found, "ConfigMap")["data"]
    path = tmp_path / "policy.yaml"
    path.write_text(told["policy.yaml"])
    policy = policies.load(path)
    assert policies.objection(policy, plans.parse(plan(federation), source="plan")) is None
    assert json.loads(told["data.json"])["bucket"].endswith(site)
    agents = [m for m in found if m["kind"] == "Deployment"]
    assert bool(agents) == (site == "west")


def plan(federation: Any) -> str:
    text: str = federation.server_values(3)["plan"]
    return text


def test_the_chart_takes_the_values_of_the_server(
    federation: Any, server_chart: Path, tmp_path: Path
) -> None:
    values = federation.server_values(3)
    found = render(server_chart, values, name="fedcore-server", namespace=federation.system)
    path = tmp_path / "federation.yaml"
    path.write_text(only(found, "ConfigMap", "fedcore-server")["data"]["federation.yaml"])
    read = federations.load(path)
    launches = {site: read.launch_of(site) for site in read.sites}
    assert launches == {"north": "kubernetes", "east": "kubernetes", "west": "agent"}
    for site, place in read.sites.items():
        if place.kubernetes is not None:
            assert place.kubernetes.namespace == federation.namespace(site)
            assert place.kubernetes.job.gpu is None


def test_a_cluster_with_gpus_is_asked_for_them(kind: ModuleType) -> None:
    job = kind.Federation("fedcore", gpu="nvidia.com/gpu").site_values("north")["job"]
    assert job["gpu"] == {"resource": "nvidia.com/gpu", "count": 1}


def test_sites_have_each_their_own_key(federation: Any) -> None:
    keys = [federation.site_values(site)["credentials"]["data"] for site in ("north", "east")]
    assert keys[0] != keys[1]
    (secret,) = [s for s in federation.secrets() if s["metadata"]["name"] == "s3"]
    assert set(secret["data"]) == {"identities.json", "credentials.json"}


def test_the_api_server_is_on_a_node_of_its_own() -> None:
    (cluster,) = manifests(ROOT / "k8s/kind/cluster.yaml")
    assert [node["role"] for node in cluster["nodes"]] == ["control-plane", "worker"]
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert f"--nodes {cluster['name']}-worker" in makefile
    assert f"kind delete cluster --name {cluster['name']}" in makefile
