"""A federation on a real cluster: phantoms, a small plan, and ``fedcore run`` as a user runs it."""

from __future__ import annotations

import configparser
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster_s3 import LABELS, PORT, PodS3
from cluster_sites import Site, Values, site_values
from ruamel.yaml import YAML

from fedcore.data.phantoms.cohort import demo_federation
from fedcore.data.phantoms.writer import write_site
from fedcore.local.credentials import EXCHANGE, SERVER
from fedcore.store import envelope

SEED = 20261124
ROUNDS = 3
TIMEOUT = 540.0
_SHIPPED = Path(__file__).parents[2] / "plans" / "brain_tumour.yaml"


def fill(s3: PodS3) -> None:
    """Eight coarse phantoms into each site's bucket."""
    for spec in demo_federation(SEED, 0.01, voxel_mm=8.0, damage=False):
        if spec.name in s3.sites:
            write_site(spec, s3.store(spec.name, s3.site_bucket(spec.name)), seed=SEED)


def plan_file(path: Path, num_sites: int) -> Path:
    """The shipped plan, small: two modalities, images of 16³, an order of a few seconds.

    A site that drops out ends the run, instead of changing what it leads to.
    """
    yaml = YAML()
    plan = yaml.load(_SHIPPED)
    task = plan["task"]
    task["modalities"] = {name: task["modalities"][name] for name in ("t1ce", "flair")}
    task["dataset"]["arguments"] |= {
        "shape": [16, 16, 16],
        "spacing_mm": 12.0,
        "fractions": [0.4, 0.3, 0.3],
    }
    task["model"]["arguments"] |= {"width": 4, "features": 4}
    plan |= {
        "rounds": ROUNDS,
        "training": {"epochs": 40, "batch_size": 2},
        "cohort": {"min_clients": num_sites},
        "timeouts": {"round": 400, "idle": 120, "poll": 0.2},
    }
    with path.open("w") as file:
        yaml.dump(plan, file)
    return path


def values_on(s3: PodS3, name: str, image: str, key: Path, **changes: Any) -> Values:
    """Values of a site whose buckets are in the S3 pod."""
    keys = s3.credential(name)
    pair = {"accessKey": keys.access_key, "secretKey": keys.secret_key}
    values = site_values(
        name,
        image,
        exchange={"bucket": EXCHANGE, "endpoint": s3.endpoint_in_cluster},
        data={"bucket": s3.site_bucket(name), "endpoint": s3.endpoint_in_cluster},
        credentials={"exchange": pair, "data": pair},
        test={"foreignBuckets": [s3.site_bucket(other) for other in s3.sites if other != name]},
    )
    values["policy"]["server_public_key"] = envelope.public_text(envelope.load_key(key))
    return values | changes


def closed(s3: PodS3, kubernetes_api: list[Values] | None = None) -> Values:
    """The network section where the cluster enforces it: S3 is reached, and nothing else."""
    place = {"namespace": s3.namespace, "podLabels": LABELS, "port": PORT}
    return {
        "enabled": True,
        "data": [place],
        "exchange": [place],
        "kubernetesApi": kubernetes_api or [],
    }


def federation_file(folder: Path, s3: PodS3, key: Path, sites: dict[str, Site | None]) -> Path:
    """The coordinator's file, with its keys beside it. A site of None has its own agent."""
    folder.mkdir(parents=True, exist_ok=True)
    keys = s3.credential(SERVER)
    profiles = configparser.ConfigParser()
    profiles["server"] = {
        "aws_access_key_id": keys.access_key,
        "aws_secret_access_key": keys.secret_key,
    }
    with (folder / "credentials").open("w") as file:
        profiles.write(file)
    fields = {
        "exchange": {"bucket": EXCHANGE, "endpoint": s3.s3_endpoint},
        "profile": "server",
        "credentials_file": "credentials",
        "signing_key": str(key),
        "launch": "kubernetes",
        "sites": {
            name: {"launch": "agent"}
            if site is None
            else {"kubernetes": site.place().model_dump(mode="json")}
            for name, site in sites.items()
        },
    }
    path = folder / "federation.yaml"
    with path.open("w") as file:
        YAML(typ="safe", pure=True).dump(fields, file)
    return path


@dataclass
class Coordinator:
    """``fedcore run`` in a process of its own."""

    process: subprocess.Popen[str]
    log: Path

    @classmethod
    def start(cls, plan: Path, federation: Path, prefect: str, *arguments: str) -> Coordinator:
        """``prefect``: URL of the API of a Prefect server."""
        log = federation.parent / "run.log"
        environment = {name: value for name, value in os.environ.items() if "PREFECT" not in name}
        environment |= {"PREFECT_API_URL": prefect, "PREFECT_HOME": str(federation.parent / "home")}
        with log.open("a") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "fedcore", "run", str(plan), "--federation",
                 str(federation), "--json", *arguments],
                stdout=subprocess.PIPE,
                stderr=file,
                text=True,
                env=environment,
            )  # fmt: skip
        return cls(process, log)

    def result(self) -> dict[str, Any]:
        """Its last line. The gate may say no (3): that is a verdict."""
        output, _ = self.process.communicate(timeout=TIMEOUT)
        assert self.process.returncode in (0, 3), f"{output}\n{self.log.read_text()[-4000:]}"
        found: dict[str, Any] = json.loads(output.splitlines()[-1])
        return found

    def is_at_work(self) -> bool:
        """True; fails if it has ended."""
        assert self.process.poll() is None, self.log.read_text()[-4000:]
        return True

    def end(self, number: int = signal.SIGINT) -> int:
        """Send the signal, and wait for its end. Returns the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        self.process.communicate(timeout=120)
        return self.process.returncode
