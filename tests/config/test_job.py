"""Job settings: what is pinned, and where faults are told."""

from pathlib import Path

import pytest

from fedcore.config import federation as federations
from fedcore.config import job as jobs
from fedcore.errors import ConfigError

DIGEST = "example.org/client@sha256:" + "0" * 64
SITE = """
exchange: {folder: exchange}
signing_key: server.pem
launch: kubernetes
sites:
  north:
    kubernetes:
      namespace: fedcore-north
      kubeconfig: kubeconfigs/north
      job: {image: IMAGE}
"""


def test_a_tag_is_no_pin(tmp_path: Path) -> None:
    path = tmp_path / "job.yaml"
    path.write_text("image: example.org/client:1.0\n")
    with pytest.raises(ConfigError, match=r"not named by digest .* or set require_digest: false"):
        jobs.load(path)
    path.write_text("image: example.org/client:1.0\nrequire_digest: false\n")
    assert jobs.load(path).image == "example.org/client:1.0"


@pytest.mark.parametrize(
    ("line", "told"),
    [("memory: 16 GB", "memory"), ("gpus: 1", "gpus"), ("gpu: {count: 0}", "count")],
)
def test_faults_are_named(tmp_path: Path, line: str, told: str) -> None:
    path = tmp_path / "job.yaml"
    path.write_text(f"image: {DIGEST}\n{line}\n")
    with pytest.raises(ConfigError, match=told):
        jobs.load(path)


def test_federation_names_the_cluster(tmp_path: Path) -> None:
    path = tmp_path / "federation.yaml"
    path.write_text(SITE.replace("IMAGE", DIGEST))
    federation = federations.load(path)
    place = federation.sites["north"].kubernetes
    assert place is not None
    assert place.kubeconfig == tmp_path / "kubeconfigs/north"
    assert federation.launch_of("north") == "kubernetes"


def test_kubernetes_needs_its_section(tmp_path: Path) -> None:
    path = tmp_path / "federation.yaml"
    path.write_text(SITE.replace("IMAGE", DIGEST).replace("launch:", "profile: x\nlaunch:")
                    .split("    kubernetes:")[0] + "    profile: north\n")  # fmt: skip
    with pytest.raises(ConfigError, match="site north: launch: kubernetes needs kubernetes:"):
        federations.load(path)
