"""Federation files: relative paths, one place per location, and no room for a secret."""

from pathlib import Path

import pytest

from fedcore.config import federation as federations
from fedcore.errors import ConfigError

TEXT = """
exchange: {bucket: exchange, endpoint: "http://127.0.0.1:1"}
signing_key: server.pem
sites:
  north: {data: {folder: data/north}, policy: policies/north.yaml}
"""


def test_paths_are_relative_to_the_file(tmp_path: Path) -> None:
    path = tmp_path / "federation.yaml"
    path.write_text(TEXT)
    federation = federations.load(path)
    site = federation.sites["north"]
    assert federation.signing_key == tmp_path / "server.pem"
    assert site.policy == tmp_path / "policies/north.yaml"
    assert site.data is not None
    assert site.data.folder == tmp_path / "data/north"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (("signing_key:", "secret_key: x\nsigning_key:"), "secret_key: there is no such field"),
        (("folder: data/north", "folder: a, bucket: b"), "either bucket .* or folder"),
        (("north:", "North Site:"), "North Site"),
    ],
)
def test_faults_are_named(tmp_path: Path, change: tuple[str, str], told: str) -> None:
    path = tmp_path / "federation.yaml"
    path.write_text(TEXT.replace(*change))
    with pytest.raises(ConfigError, match=told):
        federations.load(path)
