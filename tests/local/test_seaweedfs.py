from pathlib import Path

import pytest

from fedcore.errors import ConfigError
from fedcore.local import seaweedfs
from fedcore.local.credentials import Credential
from fedcore.local.seaweedfs import SeaweedFS

PORTS = range(20001, 20009)
ADMIN = Credential("admin", "a-secret")


def test_every_port_is_ours_and_on_loopback(tmp_path: Path) -> None:
    command = SeaweedFS(tmp_path, {"identities": []}, ADMIN).command(PORTS)
    given = dict(option.split("=") for option in command if "=" in option)
    assert [value for value in given.values() if value.startswith("2000")] == [
        str(port) for port in PORTS
    ]
    assert given["-ip.bind"] == "127.0.0.1"
    assert given["-s3.port.iceberg"] == given["-s3.port.lance"] == "0"
    assert given["-master.telemetry"] == "false"


def test_no_secret_is_in_the_command(tmp_path: Path) -> None:
    program = SeaweedFS(tmp_path, {"identities": []}, ADMIN)
    command = " ".join(program.command(PORTS))
    keys = [value for name, value in program.environment(()).items() if "JWT" in name]
    assert len(set(keys)) == 4
    assert not any(secret in command for secret in [*keys, ADMIN.secret_key])


def test_without_weed_the_way_out_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seaweedfs.sys, "executable", str(tmp_path / "python"))
    monkeypatch.setattr(seaweedfs.shutil, "which", lambda _: None)
    with pytest.raises(ConfigError, match="pip install"):
        SeaweedFS(tmp_path, {}, ADMIN)
